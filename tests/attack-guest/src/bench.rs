//! Figures: instructions (the TSC under `-icount shift=0`) and VM exits per loop.

use crate::cpu;
use crate::devices;
use crate::lock;
use crate::memory;
use crate::say;
use crate::tables;
use crate::trap::{self, Frame, TIMER, symbol};

const ITERATIONS: u64 = 10_000;
const INTERRUPTS: u64 = 1_000;

/// Runs all loops. User mode's run with IF = 0, so nothing disturbs them.
pub fn run() {
    user("empty", symbol!(b_empty), || ());
    #[cfg(target_arch = "x86_64")]
    user("syscall", symbol!(b_syscall), || {
        cpu::wrmsr(cpu::LSTAR, symbol!(bench_syscall));
    });
    user("int", symbol!(b_int), || ());
    user("user-page-fault", symbol!(b_fault), || {
        tables::gate(tables::idt_gate(14), symbol!(bench_fault), 0x10, tables::CLOSED);
    });
    user("user-segment-load", symbol!(b_segment), || ());
    kernel("cpuid", || {
        cpu::cpuid(0x8000_0002);
    });
    if cpu::under_secvisor() {
        kernel("vmmcall", || {
            cpu::vmmcall(0, 0, 0, 0);
        });
    }
    interrupts();
    lock::engage();
    kernel("cr4-locked", || cpu::write_cr4(cpu::cr4() ^ lock::CR4_PGE));
    tables::reset();
}

fn report(name: &str, iterations: u64, instructions: u64, exits: u64) {
    say!("bench: {name} iterations={iterations} instructions={instructions} exits={exits}");
}

/// The exits between two readings, without the second reading's own: it asks by CPUID twice.
fn exits_since(before: u64) -> u64 {
    let exits = cpu::exits() - before;
    exits.saturating_sub(if cpu::under_secvisor() { 2 } else { 0 })
}

/// A loop in user mode that ends with `int 0x81`.
fn user(name: &str, start: u64, prepare: fn()) {
    tables::reset();
    // As kernels run whose processes have no LDT of their own.
    cpu::lldt(0);
    prepare();
    let mut frame = Frame::user(start);
    *frame.counter() = ITERATIONS;
    let exits = cpu::exits();
    let before = cpu::tsc();
    let mut end = trap::run_user(&frame);
    let instructions = cpu::tsc() - before;
    let exits = exits_since(exits);
    if end.vector != trap::END || *end.counter() != 0 {
        say!("bench: {name} broke off vector={:#x} rip={:#x}", end.vector, end.ip);
        return;
    }
    report(name, ITERATIONS, instructions, exits);
}

/// A loop in the kernel.
fn kernel(name: &str, body: fn()) {
    tables::reset();
    let exits = cpu::exits();
    let before = cpu::tsc();
    for _ in 0..ITERATIONS {
        body();
    }
    let instructions = cpu::tsc() - before;
    report(name, ITERATIONS, instructions, exits_since(exits));
}

/// Timer interrupts that user mode, with IOPL = 3, lets in by STI: they meet it while it runs. The
/// way from the kernel's IRETQ to its handler is counted, not the wait for the timer.
fn interrupts() {
    tables::reset();
    let spin = Frame { flags: 0x3002, ..Frame::user(symbol!(b_interrupt)) };
    let (mut instructions, mut exits) = (0, 0);
    for _ in 0..INTERRUPTS {
        devices::arm_timer_with(40);
        while !devices::timer_is_pending() {}
        let exits_before = cpu::exits();
        let before = cpu::tsc();
        let end = trap::run_user(&spin);
        instructions += cpu::tsc() - before;
        exits += exits_since(exits_before);
        if end.vector != TIMER {
            say!("bench: interrupt broke off vector={:#x}", end.vector);
            return;
        }
    }
    memory::reset();
    report("user-interrupt", INTERRUPTS, instructions, exits);
}
