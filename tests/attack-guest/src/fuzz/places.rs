//! Addresses that are worth trying, and frames to put behind them.

use super::{Fuzz, SCRATCH};
use crate::devices::{HPET, IO_APIC, LAPIC};
use crate::memory::{HEAP, PAGE, WINDOW, root};
use crate::modules::{END, FRAME_COUNT, FRAMES, START};
use crate::trap::symbol;

/// Low memory that neither firmware nor boot code minds.
pub const LOW_MEMORY: u64 = 0x8000;
/// The VGA text buffer: device memory that can be filled.
pub const DEVICE_MEMORY: u64 = 0xB_8000;
/// The BIOS.
pub const ROM: u64 = 0xF_0000;
/// Behind all RAM of the test machine, and no device.
const NOTHING: u64 = 0xC000_0000;

/// Any kind of address: of all kinds of memory, at the borders of pages and of the address space.
pub fn address(fuzz: &mut Fuzz<'_>) -> u64 {
    let hidden = fuzz.options.hidden;
    let random = &mut fuzz.random;
    let base = random.pick(&[
        HEAP,
        SCRATCH,
        WINDOW,
        START,
        END,
        FRAMES,
        LAPIC,
        IO_APIC,
        HPET,
        DEVICE_MEMORY,
        ROM,
        LOW_MEMORY,
        NOTHING,
        hidden,
        root(),
        symbol!(text_start),
        symbol!(text_end),
        symbol!(user_payload),
        symbol!(init_text_start),
        0,
        1 << 32,
        1 << 47,
        1 << 63,
    ]);
    let offset = match random.below(6) {
        0 => 0,
        1 => random.below(PAGE),
        2 => PAGE.wrapping_sub(random.below(16)),
        3 => random.below(16).wrapping_neg(),
        4 => random.below(64) * PAGE,
        _ => random.below(0x20_0000),
    };
    base.wrapping_add(offset)
}

/// Any kind of frame.
pub fn frame(fuzz: &mut Fuzz<'_>) -> u64 {
    let hidden = fuzz.options.hidden;
    let random = &mut fuzz.random;
    match random.below(12) {
        0..3 => FRAMES + random.below(FRAME_COUNT) * PAGE,
        3 => symbol!(text_start) + random.below(16) * PAGE,
        4 => hidden + random.below(256) * PAGE,
        5 => random.pick(&[LAPIC, IO_APIC, HPET, DEVICE_MEMORY, ROM, NOTHING]),
        6 => random.pick(&[root(), symbol!(bss_payload), symbol!(user_payload), LOW_MEMORY, 0]),
        7 => FRAMES + (FRAME_COUNT + random.below(3)) * PAGE,
        8 => random.number() & 0xF_FFFF_FFFF_F000,
        9 => random.number() & 0xFFFF_F000,
        _ => random.below(0x1_0000) * PAGE,
    }
}
