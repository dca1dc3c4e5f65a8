//! Descriptors of long mode: gates and system segments of 16 bytes, stacks by number.

use core::arch::asm;

use crate::cpu;
use crate::memory::{clear, poke, poke8, poke32};
use crate::tables::{LDT, TSS, idt_gate, short_gate};
use crate::trap::{KERNEL_CS, symbol};

/// Bytes of a gate.
pub const GATE_BYTES: u64 = 16;

/// The GDT from 0x20 on. User mode's selectors are in the order that STAR wants.
pub const SEGMENTS: [(u64, u64); 10] = [
    (0x20, 0x00CF_FB00_0000_FFFF), // user code, compatibility mode
    (0x28, 0x00CF_F300_0000_FFFF), // user data
    (0x30, 0x00AF_FB00_0000_FFFF), // user code, 64-bit
    (0x58, 0x00CF_F301_2345_FFFF), // user data with the base 0x12345
    (0x70, 0x00AF_BB00_0000_FFFF), // code at CPL 1
    (0x78, 0x00CF_B300_0000_FFFF), // data at CPL 1
    (0x80, 0x00AF_DB00_0000_FFFF), // code at CPL 2
    (0x88, 0x00CF_D300_0000_FFFF), // data at CPL 2
    (0x90, 0x00CF_7300_0000_FFFF), // user data, not present
    (0x98, 0x00CF_F100_0000_FFFF), // user data, read-only
];

/// Writes the descriptor of a system segment, by its type byte.
pub fn system_descriptor(table: u64, selector: u64, base: u64, limit: u64, kind: u64) {
    let low = limit | (base & 0xFF_FFFF) << 16 | kind << 40 | (base >> 24 & 0xFF) << 56;
    poke(table + selector, low);
    poke(table + selector + 8, base >> 32);
}

/// Writes an IDT gate or call gate, by its type byte.
pub fn gate(address: u64, target: u64, selector: u64, kind: u64) {
    short_gate(address, target, selector, kind);
    poke(address + 8, target >> 32);
}

/// The kernel's own stack may be the attack: what recovers from it has stacks of its own.
pub fn special_gates() {
    for (vector, stack) in [(13, 1), (8, 2), (2, 3)] {
        poke8(idt_gate(vector) + 4, stack);
    }
}

/// TSS and LDT.
pub fn set_system_segments() {
    let (gdt, tss, ldt) = (symbol!(gdt), symbol!(tss), symbol!(ldt));
    clear(tss, 256);
    for (offset, stack) in [
        (4, symbol!(trap_stack_top)),
        (12, symbol!(low_cpl_stack_top)),
        (20, symbol!(low_cpl_stack_top)),
        (36, symbol!(gp_stack_top)),
        (44, symbol!(df_stack_top)),
        (52, symbol!(nmi_stack_top)),
    ] {
        poke(tss + offset, stack);
    }
    poke32(tss + 100, 104 << 16);
    system_descriptor(gdt, TSS, tss, 103, 0x89);
    system_descriptor(gdt, LDT, ldt, 255, 0x82);
}

/// Null selectors in DS, ES, FS and GS.
pub fn reset_segments() {
    // SAFETY: see `cpu`.
    unsafe { asm!("mov ds, {0:e}; mov es, {0:e}; mov fs, {0:e}; mov gs, {0:e}", in(reg) 0) }
}

/// Points the stack that the TSS names for entries to CPL 0.
pub fn set_entry_stack(stack: u64) {
    poke(symbol!(tss) + 4, stack);
}

/// The registers of SYSCALL.
pub fn set_system_call() {
    cpu::wrmsr(cpu::STAR, 0x20 << 48 | KERNEL_CS << 32);
    cpu::wrmsr(cpu::LSTAR, symbol!(syscall_entry));
    cpu::wrmsr(cpu::CSTAR, symbol!(syscall_entry32));
    cpu::wrmsr(cpu::SFMASK, 0x4_7700); // AC, NT, IOPL, DF, IF, TF
}
