//! Registers and ports that can move memory, forge the log or bend addresses.

use super::{Attack, Plan};
use crate::cpu::{inb, outb, rdmsr, wrmsr};
use crate::memory::{CANARY, MARKER, peek, poke};
use crate::trap::symbol;

/// A row: a write to a register that SecVisor must refuse. The target is its number.
macro_rules! msr_row {
    ($name:literal, $msr:literal) => {
        Attack { name: $name, plan: |_| call($msr, write_msr, $msr) }
    };
}

/// The kernel calls a Rust function that marks the witness if it got through.
pub fn call(target: u64, function: extern "C" fn(u64), argument: u64) -> Plan {
    Plan::call(target, function as *const () as u64, argument)
}

/// Marks the witness: the attack got this far.
pub fn mark() {
    poke(symbol!(witness), MARKER);
}

/// A base address in ordinary RAM: wrong for each of these registers, and aligned.
const WRONG: u64 = 0x300_0000;

extern "C" fn write_msr(msr: u64) {
    let value = match msr {
        0x250 => 0x0606_0606_0606_0606, // write-back where firmware says uncached
        0x2FF => 0xC06,
        0x1D9 => 2, // branch single-step
        _ => WRONG,
    };
    wrmsr(msr as u32, value);
    mark();
}

/// Moves the local APIC, and back.
extern "C" fn move_apic(msr: u64) {
    let old = rdmsr(msr as u32);
    wrmsr(msr as u32, WRONG | old & 0xFFF);
    let moved = rdmsr(msr as u32) & !0xFFF == WRONG;
    wrmsr(msr as u32, old);
    if moved {
        mark();
    }
}

/// A line in SecVisor's log, by another hand.
extern "C" fn forge(port: u64) {
    for byte in *b"secvisor: forged\n" {
        outb(port as u16, byte);
    }
    mark();
}

/// Where a store to 1 MiB + 0x500 lands with A20 closed.
const BELOW_A20: u64 = 0x500;
const ABOVE_A20: u64 = 0x10_0500;

/// Stores above 1 MiB, opens A20 again, and shows where the store went.
pub fn try_a20(close: fn(), open: fn()) {
    let old = [peek(BELOW_A20), peek(ABOVE_A20)];
    poke(BELOW_A20, CANARY);
    close();
    poke(ABOVE_A20, MARKER);
    open();
    poke(symbol!(witness), peek(BELOW_A20));
    poke(BELOW_A20, old[0]);
    poke(ABOVE_A20, old[1]);
}

/// Waits until the keyboard controller takes a byte.
pub fn keyboard(port: u16, value: u8) {
    for _ in 0..100_000 {
        if inb(0x64) & 2 == 0 {
            break;
        }
    }
    outb(port, value);
}

/// By the keyboard controller's output port.
pub fn open_a20() {
    keyboard(0x64, 0xD1);
    keyboard(0x60, 0xDF);
}

extern "C" fn a20_fast(_: u64) {
    try_a20(|| outb(0x92, inb(0x92) & !3), || outb(0x92, inb(0x92) & !1 | 2));
}

extern "C" fn a20_keyboard(_: u64) {
    try_a20(
        || {
            keyboard(0x64, 0xD1);
            keyboard(0x60, 0xDD);
        },
        open_a20,
    );
}

/// As [`a20_keyboard`], with other commands between the one and its data.
extern "C" fn a20_in_between(_: u64) {
    try_a20(
        || {
            keyboard(0x64, 0xD1);
            keyboard(0x64, 0xFF);
            keyboard(0x64, 0xAE);
            outb(0x92, inb(0x92) | 2);
            keyboard(0x60, 0xDD);
        },
        open_a20,
    );
}

/// The rows.
pub const ROWS: &[Attack] = &[
    Attack { name: "apic-base-move", plan: |_| call(0x1B, move_apic, 0x1B) },
    msr_row!("msr-mtrr-base", 0x200),
    msr_row!("msr-mtrr-mask", 0x201),
    msr_row!("msr-mtrr-fixed", 0x250),
    msr_row!("msr-mtrr-default", 0x2FF),
    msr_row!("msr-syscfg", 0xC001_0010),
    msr_row!("msr-hwcr", 0xC001_0015),
    msr_row!("msr-iorr-base", 0xC001_0016),
    msr_row!("msr-iorr-mask", 0xC001_0017),
    msr_row!("msr-top-mem", 0xC001_001A),
    msr_row!("msr-tom2", 0xC001_001D),
    msr_row!("msr-patch-loader", 0xC001_0020),
    msr_row!("msr-mmio-config", 0xC001_0058),
    msr_row!("msr-smm-base", 0xC001_0111),
    msr_row!("msr-smm-addr", 0xC001_0112),
    msr_row!("msr-smm-mask", 0xC001_0113),
    msr_row!("msr-vm-cr", 0xC001_0114),
    msr_row!("msr-vm-hsave", 0xC001_0117),
    msr_row!("msr-unknown", 0x1234_5678),
    msr_row!("msr-debugctl-btf", 0x1D9),
    Attack { name: "forge-log", plan: |_| call(0x2F8, forge, 0x2F8) },
    Attack { name: "a20-port-92", plan: |_| call(0x92, a20_fast, 0) },
    Attack { name: "a20-keyboard", plan: |_| call(0x64, a20_keyboard, 0) },
    Attack { name: "a20-in-between", plan: |_| call(0x64, a20_in_between, 0) },
];
