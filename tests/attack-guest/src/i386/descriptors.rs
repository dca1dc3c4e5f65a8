//! Descriptors of protected mode: gates and system segments of 8 bytes, and tasks.

use core::arch::asm;

use crate::cpu;
use crate::memory::{clear, poke, poke32, root};
pub use crate::tables::short_gate as gate;
use crate::tables::{LDT, TSS, idt_gate};
use crate::trap::{KERNEL_CS, symbol};

/// Bytes of a gate.
pub const GATE_BYTES: u64 = 8;

/// The GDT from 0x20 on. User mode's selectors are in the order that STAR wants.
pub const SEGMENTS: [(u64, u64); 11] = [
    (0x20, 0x00CF_FB00_0000_FFFF), // user code
    (0x28, 0x00CF_F300_0000_FFFF), // user data
    (0x30, 0x00CF_FB00_0000_FFFF), // more user code
    (0x58, 0x00CF_F301_2345_FFFF), // user data with the base 0x12345
    (0x70, 0x00CF_BB00_0000_FFFF), // code at CPL 1
    (0x78, 0x00CF_B300_0000_FFFF), // data at CPL 1
    (0x80, 0x00CF_DB00_0000_FFFF), // code at CPL 2
    (0x88, 0x00CF_D300_0000_FFFF), // data at CPL 2
    (0x90, 0x00CF_7300_0000_FFFF), // user data, not present
    (0x98, 0x00CF_F100_0000_FFFF), // user data, read-only
    (0xA0, 0x00AF_9B00_0000_FFFF), // kernel code, if this were long mode
];

/// User code in the LDT.
const USER_CODE: u64 = 0x00CF_FB00_0000_FFFF;
/// The double fault's task, and a task for attacks, which user mode may name.
const FAULT_TSS: u64 = 0x40;
pub const OTHER_TSS: u64 = 0x50;
/// Type bytes of a task gate that user mode may use, and of one for the kernel alone.
pub const TASK_GATE: u64 = 0xE5;
const CLOSED_TASK_GATE: u64 = 0x85;
const KERNEL_SS: u32 = 0x18;

/// Bytes of the TSS with its I/O map's end, and where the map of redirected interrupts ends.
const TSS_BYTES: u64 = 137;
const REDIRECTION_END: u32 = 136;

/// Writes the descriptor of a system segment, by its type byte.
pub fn system_descriptor(table: u64, selector: u64, base: u64, limit: u64, kind: u64) {
    let low = limit | (base & 0xFF_FFFF) << 16 | kind << 40 | (base >> 24 & 0xFF) << 56;
    poke(table + selector, low);
}

/// The kernel's own stack may be the attack: what recovers from it is a task of its own.
pub fn special_gates() {
    gate(idt_gate(8), 0, FAULT_TSS, CLOSED_TASK_GATE);
}

/// Fills a TSS with a kernel task that starts at `ip`.
pub fn set_task(tss: u64, ip: u64) {
    clear(tss, 104);
    let stack = symbol!(df_stack_top) as u32;
    let words = [(4, stack), (8, KERNEL_SS), (28, root() as u32), (32, ip as u32), (36, 2)];
    let segments = [(72, KERNEL_SS), (76, KERNEL_CS as u32), (80, KERNEL_SS), (84, KERNEL_SS)];
    for (offset, word) in words.into_iter().chain(segments).chain([(56, stack)]) {
        poke32(tss + offset, word);
    }
    poke32(tss + 96, LDT as u32);
    poke32(tss + 100, 104 << 16);
}

/// TSSs and LDT.
pub fn set_system_segments() {
    let (gdt, tss) = (symbol!(gdt), symbol!(tss));
    clear(tss, 256);
    let low = symbol!(low_cpl_stack_top) as u32;
    let stacks = [(4, symbol!(trap_stack_top) as u32), (8, KERNEL_SS), (12, low), (16, 0x79)];
    for (offset, word) in stacks.into_iter().chain([(20, low), (24, 0x8A)]) {
        poke32(tss + offset, word);
    }
    poke32(tss + 100, REDIRECTION_END << 16);
    poke32(tss + u64::from(REDIRECTION_END), 0xFF);
    set_task(symbol!(fault_tss), symbol!(double_fault));
    set_task(symbol!(other_tss), symbol!(double_fault));
    system_descriptor(gdt, TSS, tss, TSS_BYTES - 1, 0x89);
    system_descriptor(gdt, FAULT_TSS, symbol!(fault_tss), 103, 0x89);
    system_descriptor(gdt, OTHER_TSS, symbol!(other_tss), 103, 0xE9);
    system_descriptor(gdt, LDT, symbol!(ldt), 255, 0x82);
    poke(symbol!(ldt) + 0x18, USER_CODE);
}

/// Points the stack that the TSS names for entries to CPL 0.
pub fn set_entry_stack(stack: u64) {
    poke32(symbol!(tss) + 4, stack as u32);
}

/// The register of SYSCALL.
pub fn set_system_call() {
    cpu::wrmsr(0x174, 0); // no SYSENTER
    cpu::wrmsr(cpu::STAR, 0x20 << 48 | KERNEL_CS << 32 | symbol!(syscall_entry));
}

/// The kernel's own data segments, and none in FS and GS.
pub fn reset_segments() {
    // SAFETY: see `cpu`.
    unsafe {
        asm!("mov ds, {0:e}; mov es, {0:e}; mov fs, {1:e}; mov gs, {1:e}",
            in(reg) KERNEL_SS, in(reg) 0)
    }
}
