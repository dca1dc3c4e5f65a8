//! What a locked kernel must not change: the registers that `set_kernel_mode` pins.
//!
//! The witness holds all of them, before and after: a success is any difference.

use super::{Act, Attack, Plan};
use crate::arch::{REGISTERS, other_pae};
use crate::boot::Options;
use crate::cpu;
use crate::lock::{self, CR0_PE, CR0_PG, CR4_LA57, CR4_SMAP, CR4_UMIP};
use crate::memory::{HEAP, PAGE, copy};
use crate::tables;
use crate::trap::symbol;

/// A change that is tried by calling `function` with `value`; the record is to name `info`.
fn pinned(info: u64, function: u64, value: u64) -> Plan {
    lock::snapshot(symbol!(witness));
    Plan { act: Act::Pinned(function, value), ..Plan::call(info, 0, 0) }
}

/// CR0 or CR4 with some bits turned over, written by one of several general-purpose registers.
fn control_register(number: u64, gpr: u64, bits: u64) -> Plan {
    let value = bits ^ if number == 0 { cpu::cr0() } else { cpu::cr4() };
    pinned(value, lock::writer(number, gpr), value)
}

/// A row: a plan that is made once the kernel is locked.
macro_rules! row {
    ($name:literal, $plan:expr) => {
        Attack {
            name: $name,
            plan: |options| {
                lock::engage();
                let plan: fn(&Options) -> Plan = $plan;
                plan(options)
            },
        }
    };
}

/// A row: an MSR written with a value other than its own.
macro_rules! msr_row {
    ($name:literal, $msr:expr, $bits:expr) => {
        row!($name, |_| pinned(
            $msr.into(),
            flip_msr as *const () as u64,
            u64::from($msr) << 32 | $bits
        ))
    };
}

/// Turns bits of an MSR over: its number is the upper half of what says which.
extern "C" fn flip_msr(which: u64) {
    let msr = (which >> 32) as u32;
    cpu::wrmsr(msr, cpu::rdmsr(msr) ^ which & 0xFFFF_FFFF);
}

extern "C" fn load_idt(base: u64) {
    tables::load_idt(base);
}

extern "C" fn lmsw(value: u64) {
    cpu::lmsw(value);
}

/// The rows.
pub const ROWS: &[Attack] = &[
    row!("lock-cr0-wp", |_| control_register(0, 0, cpu::CR0_WP)),
    row!("lock-cr0-wp-last", |_| control_register(0, REGISTERS - 1, cpu::CR0_WP)),
    row!("lock-cr0-pg", |_| {
        let value = cpu::cr0() & !CR0_PG;
        pinned(value, symbol!(cr0_in_between), value)
    }),
    row!("lock-cr0-pe", |_| {
        let value = cpu::cr0() & !(CR0_PG | CR0_PE);
        pinned(value, symbol!(cr0_in_between), value)
    }),
    row!("lock-lmsw", |_| pinned(0, lmsw as *const () as u64, cpu::cr0() & 0xF ^ 4)),
    row!("lock-cr4-smep", |_| control_register(4, 9, cpu::CR4_SMEP)),
    row!("lock-cr4-smap", |_| control_register(4, 4, CR4_SMAP)),
    row!("lock-cr4-umip", |_| control_register(4, 15, CR4_UMIP)),
    row!("lock-cr4-la57", |_| control_register(4, 2, CR4_LA57)),
    row!("lock-cr4-pae", |_| {
        let value = cpu::cr4() ^ other_pae();
        pinned(value, symbol!(cr4_in_between), value)
    }),
    msr_row!("lock-efer-nxe", cpu::EFER, cpu::EFER_NXE),
    msr_row!("lock-efer-sce", cpu::EFER, cpu::EFER_SCE),
    msr_row!("lock-efer-lme", cpu::EFER, 1 << 8),
    msr_row!("lock-star", cpu::STAR, 1),
    msr_row!("lock-lstar", cpu::LSTAR, 0x10),
    msr_row!("lock-cstar", cpu::CSTAR, 0x10),
    msr_row!("lock-sfmask", cpu::SFMASK, 0x200),
    row!("lock-idtr", |_| {
        let table = HEAP + 0x73_0000;
        copy(symbol!(idt), table, PAGE);
        pinned(symbol!(idt), load_idt as *const () as u64, table)
    }),
];
