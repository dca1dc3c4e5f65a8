//! `fuzz-msrs`: RDMSR and WRMSR of every kind of register with every kind of value.
//!
//! Each is performed or is #GP, and nothing else; a register changes only if this guest knows that
//! it may, and none that is pinned once the kernel is locked.

use super::{Fuzz, GENERAL_PROTECTION, is_done, same_registers};
use crate::cpu::{self, CSTAR, EFER, LSTAR, SFMASK, STAR};
use crate::devices;
use crate::memory::copy;
use crate::trap::{self, Frame, symbol};

/// Registers that the guest may change, from first to last; and one that counts by itself.
const FREE: [(u32, u32); 13] = [
    (0x10, 0x10),
    (cpu::APIC_BASE, cpu::APIC_BASE),
    (0x48, 0x49),
    (0xE7, 0xE8),
    (0x1D9, 0x1D9),
    (0x277, 0x277),
    (0x800, 0x8FF),
    (EFER, EFER),
    (STAR, SFMASK),
    (0xC000_0100, 0xC000_0103),
    (0xC001_0000, 0xC001_0007),
    (0xC001_011F, 0xC001_011F),
    (0xC001_0200, 0xC001_020B),
];
/// Registers that are put back: the kernel's entries and paging, its own interrupt controller, the
/// types of its memory.
const RESTORED: [u32; 8] = [EFER, STAR, LSTAR, CSTAR, SFMASK, cpu::APIC_BASE, 0x277, 0x1D9];
const PINNED: [u32; 5] = [EFER, STAR, LSTAR, CSTAR, SFMASK];

fn number(fuzz: &mut Fuzz<'_>) -> u32 {
    let random = &mut fuzz.random;
    let within = random.below(0x2000) as u32;
    match random.below(8) {
        0 | 1 => within,
        2 => 0xC000_0000 + within,
        3 => 0xC001_0000 + within,
        4 => random.pick(&[0, 0xC000_0000, 0xC001_0000]) + (within & 0x3FF),
        5 => {
            let (first, last) = random.pick(&FREE);
            first + random.below(u64::from(last - first) + 1) as u32
        }
        6 => {
            random.pick(&[0xC001_0114, 0xC001_0117, 0xC001_0010, 0xC001_0015, 0x200, 0x2FF, 0x174])
        }
        _ => random.value() as u32,
    }
}

fn read(msr: u32) -> Option<u64> {
    let frame = Frame { cx: msr.into(), ..super::kernel_frame(symbol!(f_rdmsr)) };
    let end = trap::run_user(&frame);
    is_done(&end).then_some(end.ax & 0xFFFF_FFFF | end.dx << 32)
}

fn write(msr: u32, value: u64) -> Frame {
    let frame = super::kernel_frame(symbol!(f_wrmsr));
    trap::run_user(&Frame { cx: msr.into(), ax: value & 0xFFFF_FFFF, dx: value >> 32, ..frame })
}

pub fn round(fuzz: &mut Fuzz<'_>) {
    let msr = number(fuzz);
    let old = read(msr);
    fuzz.risen();
    if fuzz.random.one_in(4) {
        return read_only(fuzz, msr);
    }
    let value = match (fuzz.random.below(3), old) {
        (0, Some(old)) => old ^ 1 << fuzz.random.below(64),
        (1, Some(old)) if fuzz.random.one_in(4) => old,
        _ => fuzz.random.value(),
    };
    let end = write(msr, value);
    let done = is_done(&end);
    if !done && (end.vector != GENERAL_PROTECTION || end.error != 0 || end.cs & 3 != 0) {
        fuzz.unexpected(format_args!("write of {value:#x} to {msr:#x}"), &end);
    }
    let risen = fuzz.risen();
    if risen > 1 || done && risen != 0 {
        fuzz.unexpected(format_args!("{risen} records of a write to {msr:#x}"), &end);
    }
    let new = read(msr);
    let free = FREE.iter().any(|range| (range.0..=range.1).contains(&msr));
    let pinned = fuzz.locked && PINNED.contains(&msr);
    let keeps = !free || pinned || risen != 0;
    if keeps && new != old && msr != 0x10 {
        fuzz.fail(format_args!("register {msr:#x} was {old:x?} and is {new:x?}"));
    }
    if new != old && RESTORED.contains(&msr) {
        restore(fuzz, msr, old);
    }
    fuzz.count(match (done, risen) {
        (true, _) if new != old => "changed",
        (true, _) => "kept",
        (false, 0) => "protection",
        _ => "refused",
    });
}

/// From the kernel with all registers random, or from user mode, where it does not exist.
fn read_only(fuzz: &mut Fuzz<'_>, msr: u32) {
    let mut frame = fuzz.kernel(symbol!(f_rdmsr));
    frame.cx = frame.cx & !0xFFFF_FFFF | u64::from(msr);
    let user = fuzz.random.one_in(4);
    if user {
        // The same bytes in a page of user mode's.
        copy(symbol!(f_rdmsr), symbol!(user_payload), 16);
        frame = Frame { cx: frame.cx, ..Frame::user(symbol!(user_payload)) };
    }
    let end = trap::run_user(&frame);
    let kept = Frame { ax: frame.ax, dx: frame.dx, ..end };
    let refused = end.vector == GENERAL_PROTECTION && end.error == 0 && end.ip == frame.ip;
    if !refused && (user || !is_done(&end)) {
        fuzz.unexpected(format_args!("read of {msr:#x}"), &end);
    }
    if !same_registers(&frame, &kept, u64::MAX) {
        fuzz.unexpected(format_args!("registers after the read of {msr:#x}"), &end);
    }
    fuzz.expect_risen(0, "a read", &end);
    fuzz.count(if refused { "unreadable" } else { "read" });
}

fn restore(fuzz: &mut Fuzz<'_>, msr: u32, old: Option<u64>) {
    let old = old.unwrap_or(0);
    if msr == cpu::APIC_BASE {
        // From one mode to another by way of off.
        write(msr, old & !0xC00);
    }
    write(msr, old);
    if msr == cpu::APIC_BASE {
        devices::reset();
    }
    if read(msr) != Some(old) {
        fuzz.fail(format_args!("register {msr:#x} cannot be put back to {old:#x}"));
    }
    fuzz.risen();
}
