//! Descriptor tables, control registers and entry MSRs: the honest kernel's environment.
//!
//! `reset` writes all of it anew, which also undoes whatever an attack left behind.

use crate::cpu;
use crate::devices;
use crate::lock;
use crate::memory::{self, PAGE, clear, poke, poke32};
use crate::trap::{KERNEL_CS, symbol};

/// Selectors beyond the kernel's and the user's, in the GDT.
pub const TSS: u64 = 0x38;
pub const LDT: u64 = 0x48;
pub const CALL_GATE: u64 = 0x60;
pub const CPL1_CS: u64 = 0x70;
pub const CPL2_CS: u64 = 0x80;

/// The GDT from 0x20 on. User mode's selectors are in the order that STAR wants.
const SEGMENTS: [(u64, u64); 10] = [
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

/// LDT entries: two data segments, then a call gate at 0x10.
const LDT_SEGMENTS: [(u64, u64); 2] =
    [(0x00, 0x00CF_F300_0000_FFFF), (0x08, 0x00CF_F30A_BCDE_FFFF)];
/// The call gate in the LDT.
pub const LDT_GATE: u64 = 0x10;

fn system_descriptor(table: u64, selector: u64, base: u64, limit: u64, kind: u64) {
    let low = limit | (base & 0xFF_FFFF) << 16 | kind << 40 | (base >> 24 & 0xFF) << 56;
    poke(table + selector, low);
    poke(table + selector + 8, base >> 32);
}

/// Writes a gate of 16 bytes: IDT gate or call gate, by its type byte.
pub fn gate(address: u64, target: u64, selector: u64, kind: u64, stack: u64) {
    let low = target & 0xFFFF | selector << 16 | stack << 32 | kind << 40;
    poke(address, low | (target >> 16 & 0xFFFF) << 48);
    poke(address + 8, target >> 32);
}

/// Type byte of an interrupt gate for ring 3, of one for the kernel alone, and of a call gate.
pub const OPEN: u64 = 0xEE;
pub const CLOSED: u64 = 0x8E;
pub const CALL: u64 = 0xEC;

/// The IDT's gate of a vector.
pub fn idt_gate(vector: u64) -> u64 {
    symbol!(idt) + vector * 16
}

fn set_idt() {
    for vector in 0..256 {
        // The kernel's own stack may be the attack: what recovers from it has stacks of its own.
        let stack = match vector {
            13 => 1,
            8 => 2,
            2 => 3,
            _ => 0,
        };
        // 0x82 is what attacks aim elsewhere; 0x83 is the benchmark's.
        let kind = if matches!(vector, 3 | 4 | 0x80..=0x83) { OPEN } else { CLOSED };
        let target = symbol!(trap_stubs) + vector * 16;
        gate(idt_gate(vector), target, KERNEL_CS, kind, stack);
    }
    gate(idt_gate(0x83), symbol!(bench_int), KERNEL_CS, OPEN, 0);
    poke(idt_gate(0x84), 0);
    if !lock::keeps_idtr() {
        load_idt(symbol!(idt));
    }
}

/// Loads IDTR with the table at `base`.
pub fn load_idt(base: u64) {
    let pointer = [4095 | base << 16, base >> 48];
    cpu::lidt(pointer.as_ptr() as u64);
}

fn set_tss() {
    let tss = symbol!(tss);
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
}

/// Points the stack that the TSS names for entries to CPL 0.
pub fn set_entry_stack(stack: u64) {
    poke(symbol!(tss) + 4, stack);
}

fn set_gdt() {
    let gdt = symbol!(gdt);
    for (selector, descriptor) in SEGMENTS {
        poke(gdt + selector, descriptor);
    }
    let ldt = symbol!(ldt);
    for (selector, descriptor) in LDT_SEGMENTS {
        poke(ldt + selector, descriptor);
    }
    gate(gdt + CALL_GATE, symbol!(gate_entry), KERNEL_CS, CALL, 0);
    gate(ldt + LDT_GATE, symbol!(gate_entry), KERNEL_CS, CALL, 0);
    system_descriptor(gdt, TSS, symbol!(tss), 103, 0x89);
    system_descriptor(gdt, LDT, ldt, 255, 0x82);
    cpu::lgdt(symbol!(gdt_pointer));
    cpu::lldt(LDT);
    cpu::ltr(TSS);
}

/// The whole environment, from nothing or from ruins.
pub fn reset() {
    // Firmware may have left caches off.
    let off = 1 << 2 | 1 << 3 | lock::CR0_CD | lock::CR0_NW;
    cpu::write_cr0(cpu::cr0() & !off | cpu::CR0_WP | 1 << 1 | 1 << 5);
    cpu::write_cr4(1 << 5 | 1 << 9 | 1 << 10 | lock::kept()); // PAE, OSFXSR, OSXMMEXCPT
    let features = cpu::EFER_SCE | cpu::EFER_NXE;
    cpu::wrmsr(cpu::EFER, cpu::rdmsr(cpu::EFER) & !cpu::EFER_SVME | features);
    memory::reset();
    set_tss();
    set_gdt();
    set_idt();
    cpu::wrmsr(cpu::STAR, 0x20 << 48 | KERNEL_CS << 32);
    cpu::wrmsr(cpu::LSTAR, symbol!(syscall_entry));
    cpu::wrmsr(cpu::CSTAR, symbol!(syscall_entry32));
    cpu::wrmsr(cpu::SFMASK, 0x4_7700); // AC, NT, IOPL, DF, IF, TF
    cpu::write_dr7(0x400);
    cpu::write_dr6(0xFFFF_0FF0);
    cpu::clear_data_segments();
    devices::reset();
    clear(symbol!(user_data), PAGE);
}
