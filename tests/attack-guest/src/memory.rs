//! Memory by address, and the guest's page tables.
//!
//! The first 4 GiB are mapped one to one; `WINDOW` is where attacks make mappings of their own.

use crate::cpu;
use crate::trap::symbol;

pub const PAGE: u64 = 4096;
/// Where attacks map frames anew: 512 pages, then 2 MiB pages at will.
pub const WINDOW: u64 = 1 << 39;
/// A second window, for one 2 MiB page.
pub const LARGE_WINDOW: u64 = WINDOW + 0x20_0000;
/// Free RAM far from the image.
pub const HEAP: u64 = 0x200_0000;
/// What a successful attack writes, with the privilege level in the low bits.
pub const MARKER: u64 = 0x5EC0_BAD0_C0DE_0000;
/// What the witness holds until then.
pub const CANARY: u64 = 0x5AFE_5AFE_5AFE_5AFE;

pub const PRESENT: u64 = 1;
pub const WRITE: u64 = 2;
pub const USER: u64 = 4;
pub const LARGE: u64 = 0x80;
pub const NX: u64 = 1 << 63;
pub const RW: u64 = PRESENT | WRITE;
pub const URW: u64 = RW | USER;

pub fn peek(address: u64) -> u64 {
    // SAFETY: all memory is the guest's; faults are part of the experiment.
    unsafe { (address as *const u64).read_volatile() }
}

pub fn poke(address: u64, value: u64) {
    // SAFETY: as above.
    unsafe { (address as *mut u64).write_volatile(value) }
}

pub fn peek32(address: u64) -> u32 {
    // SAFETY: as above.
    unsafe { (address as *const u32).read_volatile() }
}

pub fn poke32(address: u64, value: u32) {
    // SAFETY: as above.
    unsafe { (address as *mut u32).write_volatile(value) }
}

pub fn peek8(address: u64) -> u8 {
    // SAFETY: as above.
    unsafe { (address as *const u8).read_volatile() }
}

pub fn poke8(address: u64, value: u8) {
    // SAFETY: as above.
    unsafe { (address as *mut u8).write_volatile(value) }
}

pub fn copy(from: u64, to: u64, bytes: u64) {
    for at in 0..bytes {
        poke8(to + at, peek8(from + at));
    }
}

pub fn clear(address: u64, bytes: u64) {
    for at in (0..bytes).step_by(8) {
        poke(address + at, 0);
    }
}

/// Maps page `slot` of the window to a frame; returns the frame's new virtual address.
pub fn map(slot: u64, frame: u64, flags: u64) -> u64 {
    poke(symbol!(pt_window) + slot * 8, frame & !0xFFF | flags);
    let address = WINDOW + slot * PAGE;
    cpu::invlpg(address);
    address + (frame & 0xFFF)
}

/// Maps the 2 MiB page with `frame` in the large window.
pub fn map_large(frame: u64) -> u64 {
    poke(symbol!(pd_window) + 8, frame & !0x1F_FFFF | RW | LARGE);
    cpu::invlpg(LARGE_WINDOW);
    LARGE_WINDOW + (frame & 0x1F_FFFF)
}

/// Where the page-table entry of a page of the image lies.
pub fn image_entry(address: u64) -> u64 {
    symbol!(pt_image) + (address >> 12 & 511) * 8
}

/// Sets the page-table entry of a page of the image.
pub fn remap_image(address: u64, frame: u64, flags: u64) {
    poke(image_entry(address), frame & !0xFFF | flags);
    cpu::invlpg(address);
}

/// Puts the page tables into their first state: text read-only, `.user` open to user mode.
pub fn reset() {
    let text = symbol!(text_start)..symbol!(text_end);
    let user = symbol!(user_start)..symbol!(user_end);
    let start = symbol!(pt_image);
    for index in 0..512 {
        let frame = 0x100_0000 + index * PAGE;
        let flags = match frame {
            _ if text.contains(&frame) => PRESENT,
            _ if user.contains(&frame) => URW,
            _ if frame == symbol!(trap_stack_guard) => 0,
            _ => RW,
        };
        poke(start + index * 8, if flags == 0 { 0 } else { frame | flags });
    }
    clear(symbol!(pt_window), PAGE);
    poke(symbol!(pd_window) + 8, 0);
    poke(symbol!(pd_window), symbol!(pt_window) | 7);
    cpu::write_cr3(symbol!(pml4));
}
