//! A freestanding guest that attacks SecVisor, behaves honestly beside it, and measures it.
//!
//! One ELF boots two ways: plain, by GRUB (multiboot2), and under SecVisor, which loads it like a
//! Linux kernel. Every attack really happens: without SecVisor it succeeds, and leaves its mark in
//! a frame that the judge outside reads. The guest's own words are only the script of the play.
//!
//! `run=NAME[,NAME]|all|honest|checks|bench|attacks|lock` on the command line chooses, `without=NAME`
//! leaves attacks and honest programs out; `ask` makes the guest take its options from COM1 instead,
//! and pause around each attack until it gets a byte. `paging=pae|large|small` says which page tables
//! the 32-bit build has. What the two builds do not share is in `x86_64` and `i386`.

#![no_std]
#![no_main]
// The guest is the adversary: raw memory, ports and privileged instructions are all it does.
#![allow(unsafe_code)]

#[cfg_attr(target_arch = "x86", path = "i386/mod.rs")]
#[cfg_attr(target_arch = "x86_64", path = "x86_64/mod.rs")]
mod arch;
mod attacks;
mod bench;
mod boot;
mod checks;
mod console;
mod cpu;
mod devices;
mod fuzz;
mod honest;
mod lock;
mod memory;
mod modules;
mod tables;
mod trap;

use boot::Options;

/// The first Rust code, on the guest's own page tables and stack.
#[unsafe(no_mangle)]
extern "C" fn main(information: u64) -> ! {
    console::start();
    let options = Options::read(information);
    arch::choose_paging(options.value("paging"));
    tables::reset();
    modules::start();
    let modules = modules::FRAMES..modules::FRAMES + modules::FRAME_COUNT * memory::PAGE;
    say!("guest: modules {:#x}-{:#x}", modules.start, modules.end);
    let options = options.or_asked();
    say!("guest: start secvisor={} e820-hidden={:#x}", cpu::under_secvisor(), options.hidden);
    if options.wants("honest") {
        honest::run(&options);
    }
    if options.wants("checks") {
        checks::run();
    }
    attacks::run(&options);
    fuzz::run(&options);
    if options.wants("bench") {
        bench::run();
    }
    if options.wants("lock") {
        lock::run();
    }
    say!("guest: done");
    devices::exit(devices::DONE)
}

#[panic_handler]
fn panic(information: &core::panic::PanicInfo) -> ! {
    say!("guest: {information}");
    devices::exit(devices::FAILED)
}
