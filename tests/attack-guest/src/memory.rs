//! Memory by address, and the guest's page tables.
//!
//! The first 4 GiB are mapped one to one; `WINDOW` is where attacks make mappings of their own.

use crate::arch::{self, entry_bytes, large_bytes, write_entry};
pub use crate::arch::{WINDOW, root};
use crate::cpu;
use crate::trap::symbol;

pub const PAGE: u64 = 4096;
/// Where the image lies.
const IMAGE: u64 = 0x100_0000;
/// Free RAM far from the image.
pub const HEAP: u64 = 0x200_0000;
/// What a successful attack writes, with the privilege level in the low bits.
pub const MARKER: u64 = 0x5EC0_BAD0_C0DE_0000;
/// What the witness holds until then.
pub const CANARY: u64 = 0x5AFE_5AFE_5AFE_5AFE;

pub const PRESENT: u64 = 1;
pub const WRITE: u64 = 2;
pub const USER: u64 = 4;
pub const LARGE: u64 = 0x80;
pub const NX: u64 = 1 << 63;
pub const RW: u64 = PRESENT | WRITE;
pub const URW: u64 = RW | USER;

pub fn peek(address: u64) -> u64 {
    // SAFETY: all memory is the guest's; faults are part of the experiment.
    unsafe { (address as *const u64).read_volatile() }
}

pub fn poke(address: u64, value: u64) {
    // SAFETY: as above.
    unsafe { (address as *mut u64).write_volatile(value) }
}

pub fn peek32(address: u64) -> u32 {
    // SAFETY: as above.
    unsafe { (address as *const u32).read_volatile() }
}

pub fn poke32(address: u64, value: u32) {
    // SAFETY: as above.
    unsafe { (address as *mut u32).write_volatile(value) }
}

pub fn peek8(address: u64) -> u8 {
    // SAFETY: as above.
    unsafe { (address as *const u8).read_volatile() }
}

pub fn poke8(address: u64, value: u8) {
    // SAFETY: as above.
    unsafe { (address as *mut u8).write_volatile(value) }
}

pub fn copy(from: u64, to: u64, bytes: u64) {
    for at in 0..bytes {
        poke8(to + at, peek8(from + at));
    }
}

pub fn clear(address: u64, bytes: u64) {
    for at in (0..bytes).step_by(8) {
        poke(address + at, 0);
    }
}

/// Maps page `slot` of the window to a frame; returns the frame's new virtual address.
pub fn map(slot: u64, frame: u64, flags: u64) -> u64 {
    write_entry(symbol!(pt_window) + slot * entry_bytes(), frame & !0xFFF | flags);
    let address = WINDOW + slot * PAGE;
    cpu::invlpg(address);
    address + (frame & 0xFFF)
}

/// The second window, for one large page.
pub fn large_window() -> u64 {
    WINDOW + large_bytes()
}

/// Maps the large page with `frame` in the large window.
pub fn map_large(frame: u64) -> u64 {
    let offset = large_bytes() - 1;
    arch::set_large_slot(frame & !offset | RW | LARGE);
    cpu::invlpg(large_window());
    large_window() + (frame & offset)
}

/// Makes a frame the page table of the large window.
pub fn map_table(frame: u64) -> u64 {
    arch::set_large_slot(frame | 7);
    cpu::write_cr3(root());
    large_window()
}

/// Where the page-table entry of a page of the image lies.
pub fn image_entry(address: u64) -> u64 {
    symbol!(pt_image) + address % large_bytes() / PAGE * entry_bytes()
}

/// Sets the page-table entry of a page of the image.
pub fn remap_image(address: u64, frame: u64, flags: u64) {
    write_entry(image_entry(address), frame & !0xFFF | flags);
    cpu::invlpg(address);
}

/// Puts the page tables into their first state: text read-only, `.user` open to user mode.
pub fn reset() {
    let text = symbol!(text_start)..symbol!(text_end);
    let user = symbol!(user_start)..symbol!(user_end);
    for frame in (0..large_bytes()).step_by(PAGE as usize).map(|at| IMAGE + at) {
        let flags = match frame {
            _ if text.contains(&frame) => PRESENT,
            _ if user.contains(&frame) => URW,
            _ if frame == symbol!(trap_stack_guard) => 0,
            _ => RW,
        };
        write_entry(image_entry(frame), if flags == 0 { 0 } else { frame | flags });
    }
    clear(symbol!(pt_window), PAGE);
    arch::start_paging();
}
