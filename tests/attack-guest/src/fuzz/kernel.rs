//! `fuzz-kernel-code`: the kernel goes to random bytes that nobody approved, by a way that was.
//!
//! Each time it must end there, with one violation and before one instruction: no register changes.

use super::places::{DEVICE_MEMORY, LOW_MEMORY, ROM};
use super::{Fuzz, GENERAL_PROTECTION, SCRATCH, bytes, same_registers};
use crate::devices::{IO_APIC, LAPIC};
use crate::memory::{self, HEAP, PAGE, PRESENT, RW, URW, poke8};
use crate::modules;
use crate::trap::{self, END, Frame, symbol};

/// Where the frames of modules that are not approved are mapped.
const MODULES: u64 = modules::START;
/// Bytes of code in a round.
const CODE: u64 = 16;
/// Stubs lie so far apart.
const STUB: u64 = 16;
const USER_PAGE: u64 = SCRATCH + 0x10_0000;

pub fn start(_: &mut Fuzz<'_>) {
    (0..8).for_each(|page| modules::map(MODULES + page * PAGE, modules::frame()));
}

/// A place that can be written, or is what it is, and the privilege level that it is mapped for.
fn target(fuzz: &mut Fuzz<'_>) -> (u64, bool) {
    let hidden = fuzz.options.hidden;
    let random = &mut fuzz.random;
    let offset = random.below(PAGE - CODE);
    let data = match random.below(14) {
        0 => HEAP + random.below(16) * PAGE,
        1 => SCRATCH + random.below(256) * PAGE,
        2 => symbol!(bss_payload),
        3 => symbol!(user_payload),
        4 => memory::map(0, USER_PAGE, URW),
        5 => memory::map(1, symbol!(user_payload), RW),
        6 => memory::map(2, SCRATCH, PRESENT),
        7 => memory::map_large(SCRATCH + random.below(256) * PAGE),
        8 => MODULES + random.below(8) * PAGE,
        9 => symbol!(text_end),
        10 => SCRATCH + 0x20_0000,
        11 => LOW_MEMORY,
        12 => return (DEVICE_MEMORY + random.below(0xF00), true),
        _ => {
            let base = random.pick(&[hidden, hidden + PAGE, ROM, LAPIC, IO_APIC, 0xC000_0000]);
            return (base + offset, false);
        }
    };
    // Some instructions cross the border of their page.
    let offset = if random.one_in(8) { PAGE - 1 - random.below(8) } else { offset };
    (data + offset, true)
}

pub fn round(fuzz: &mut Fuzz<'_>) {
    let (target, filled) = target(fuzz);
    if filled {
        let here = CODE.min(PAGE - (target & (PAGE - 1)));
        // What is mapped read-only has a frame that is not.
        let by = if target & !(PAGE - 1) == memory::WINDOW + 2 * PAGE {
            SCRATCH + (target & (PAGE - 1))
        } else {
            target
        };
        bytes::code(&mut fuzz.random, by, here);
        if here > 2 && fuzz.random.one_in(16) {
            run_before(fuzz, target, by);
        }
    }
    let jumps = (symbol!(f_jumps_end) - symbol!(f_jumps)) / STUB;
    let way = fuzz.random.below(jumps + 1);
    let mut frame = fuzz.kernel(target);
    if way < jumps {
        frame.ip = symbol!(f_jumps) + way * STUB;
        frame.ax = target;
    } else {
        // Behind IRET no instruction is left that the trap flag could stop at.
        frame.flags = fuzz.random.pick(&[2, 0x102, 0x1_0002, 0x8D7, 0x4_0002]);
    }
    let end = trap::run_user(&frame);
    let there = end.ip == target && end.cs == frame.cs && end.vector == GENERAL_PROTECTION;
    if !there || end.error != 0 || !same_registers(&frame, &end, u64::MAX) {
        fuzz.unexpected(format_args!("code at {target:#x}"), &end);
    }
    fuzz.expect_risen(1, "a fetch", &end);
    fuzz.intact();
    fuzz.count(if way < jumps { "jumped" } else { "returned" });
}

/// Has user mode run the page first, if it can: what the processor remembers of it must not help.
fn run_before(fuzz: &mut Fuzz<'_>, target: u64, by: u64) {
    [0xCD, END as u8].into_iter().zip(by..).for_each(|(byte, at)| poke8(at, byte));
    let end = trap::run_user(&Frame::user(target));
    if end.vector == END {
        fuzz.count("after-user");
    }
}
