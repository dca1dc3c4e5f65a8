//! Descriptor tables, control registers and entry MSRs: the honest kernel's environment.
//!
//! `reset` writes all of it anew, which also undoes whatever an attack left behind.

use crate::arch::{self, GATE_BYTES};
pub use crate::arch::{gate, set_entry_stack};
use crate::cpu;
use crate::devices;
use crate::lock;
use crate::memory::{self, PAGE, clear, poke};
use crate::trap::{KERNEL_CS, symbol};

/// Selectors beyond the kernel's and the user's, in the GDT.
pub const TSS: u64 = 0x38;
pub const LDT: u64 = 0x48;
pub const CALL_GATE: u64 = 0x60;
pub const CPL1_CS: u64 = 0x70;
pub const CPL2_CS: u64 = 0x80;
/// 32-bit code of the kernel's, whose descriptor rows may change.
pub const SPARE_CS: u64 = 0xA8;
pub const CODE_32: u64 = 0x00CF_9B00_0000_FFFF;

/// LDT entries: two data segments, then a call gate at 0x10.
const LDT_SEGMENTS: [(u64, u64); 2] =
    [(0x00, 0x00CF_F300_0000_FFFF), (0x08, 0x00CF_F30A_BCDE_FFFF)];
/// The call gate in the LDT.
pub const LDT_GATE: u64 = 0x10;

/// Type byte of an interrupt gate for ring 3, of one for the kernel alone, and of a call gate.
pub const OPEN: u64 = 0xEE;
pub const CLOSED: u64 = 0x8E;
pub const CALL: u64 = 0xEC;

/// Writes a gate of 8 bytes, by its type byte.
pub fn short_gate(address: u64, target: u64, selector: u64, kind: u64) {
    poke(address, target & 0xFFFF | selector << 16 | kind << 40 | (target >> 16 & 0xFFFF) << 48);
}

/// The IDT's gate of a vector.
pub fn idt_gate(vector: u64) -> u64 {
    symbol!(idt) + vector * GATE_BYTES
}

fn set_idt() {
    for vector in 0..256 {
        // 0x82 is what attacks aim elsewhere; 0x83 is the benchmark's.
        let kind = if matches!(vector, 3 | 4 | 0x80..=0x83) { OPEN } else { CLOSED };
        let target = symbol!(trap_stubs) + vector * 16;
        gate(idt_gate(vector), target, KERNEL_CS, kind);
    }
    gate(idt_gate(0x83), symbol!(bench_int), KERNEL_CS, OPEN);
    poke(idt_gate(0x84), 0);
    arch::special_gates();
    if !lock::keeps_idtr() {
        load_idt(symbol!(idt));
    }
}

/// Loads IDTR with the table at `base`.
pub fn load_idt(base: u64) {
    cpu::lidt(pointer(base, 256 * GATE_BYTES - 1).as_ptr() as u64);
}

/// Loads GDTR with the table at `base`.
pub fn load_gdt(base: u64) {
    cpu::lgdt(pointer(base, PAGE - 1).as_ptr() as u64);
}

/// What LGDT and LIDT take.
fn pointer(base: u64, limit: u64) -> [u64; 2] {
    [limit | base << 16, base >> 48]
}

fn set_gdt() {
    let gdt = symbol!(gdt);
    for (selector, descriptor) in arch::SEGMENTS {
        poke(gdt + selector, descriptor);
    }
    poke(gdt + SPARE_CS, CODE_32);
    let ldt = symbol!(ldt);
    for (selector, descriptor) in LDT_SEGMENTS {
        poke(ldt + selector, descriptor);
    }
    gate(gdt + CALL_GATE, symbol!(gate_entry), KERNEL_CS, CALL);
    gate(ldt + LDT_GATE, symbol!(gate_entry), KERNEL_CS, CALL);
    arch::set_system_segments();
    cpu::lgdt(symbol!(gdt_pointer));
    cpu::lldt(LDT);
    cpu::ltr(TSS);
}

/// Loads the LDT from another address.
pub fn move_ldt(base: u64) {
    arch::system_descriptor(symbol!(gdt), LDT, base, PAGE - 1, 0x82);
    cpu::lldt(LDT);
}

/// Loads the task register with a TSS elsewhere.
pub fn move_tss(base: u64, limit: u64) {
    arch::system_descriptor(symbol!(gdt), TSS, base, limit, 0x89);
    cpu::ltr(TSS);
}

/// The whole environment, from nothing or from ruins.
pub fn reset() {
    // Firmware may have left caches off.
    let off = 1 << 2 | 1 << 3 | lock::CR0_CD | lock::CR0_NW;
    cpu::write_cr0(cpu::cr0() & !off | cpu::CR0_WP | 1 << 1 | 1 << 5);
    let features = cpu::EFER_SCE | cpu::EFER_NXE;
    cpu::wrmsr(cpu::EFER, cpu::rdmsr(cpu::EFER) & !cpu::EFER_SVME | features);
    memory::reset();
    cpu::write_cr4(arch::cr4() | 1 << 9 | 1 << 10 | lock::kept()); // OSFXSR, OSXMMEXCPT
    set_gdt();
    set_idt();
    arch::set_system_call();
    cpu::write_dr7(0x400);
    cpu::write_dr6(0xFFFF_0FF0);
    arch::reset_segments();
    devices::reset();
    clear(symbol!(user_data), PAGE);
}
