//! Random code: any bytes, but more often those that matter to whoever guards the kernel's entries.

use super::Random;
use crate::memory::{peek8, poke8};

/// Prefixes, REX among them, which 32-bit code takes for INC and DEC.
const PREFIXES: [u8; 15] =
    [0x66, 0x67, 0xF2, 0xF3, 0x2E, 0x36, 0x3E, 0x26, 0x64, 0x65, 0xF0, 0x48, 0x41, 0x44, 0x4F];
/// Selectors of the kernel's tables, with all privilege levels, and some beyond.
const SELECTORS: [u8; 24] = [
    0x00, 0x03, 0x07, 0x0F, 0x10, 0x13, 0x17, 0x18, 0x1F, 0x20, 0x23, 0x2B, 0x33, 0x3B, 0x43, 0x4B,
    0x53, 0x5B, 0x63, 0x73, 0x7B, 0x83, 0x93, 0x9B,
];

/// Instructions that reach for the kernel, without what follows them.
const REACHING: [&[u8]; 40] = [
    &[0xCD, 0x80],
    &[0xCD, 0x82],
    &[0xCD, 0x03],
    &[0xCD, 0x04],
    &[0xCC],
    &[0xCE],
    &[0xF1],
    &[0x0F, 0x0B],
    &[0x0F, 0x05],
    &[0x0F, 0x07],
    &[0x0F, 0x34],
    &[0x0F, 0x35],
    &[0xCF],
    &[0x48, 0xCF],
    &[0xCB],
    &[0x48, 0xCB],
    &[0x9C],
    &[0x9D],
    &[0x8E, 0xD0],
    &[0x8E, 0xD8],
    &[0x8E, 0xC0],
    &[0x8E, 0xE0],
    &[0x8E, 0xE8],
    &[0x17],
    &[0x1F],
    &[0x0F, 0xA1],
    &[0x0F, 0xA9],
    &[0x0F, 0xB2],
    &[0xC4],
    &[0xC5],
    &[0x0F, 0xA2],
    &[0x0F, 0x01, 0xD9],
    &[0x0F, 0x01, 0xD8],
    &[0x0F, 0x00],
    &[0x0F, 0x02],
    &[0x0F, 0x20],
    &[0x0F, 0x22],
    &[0xFF, 0x18],
    &[0xFF, 0x28],
    &[0xF4],
];

/// Writes code; the last two bytes are the end, if there is room.
pub fn code(random: &mut Random, address: u64, length: u64) {
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        for &byte in bytes {
            if at < length {
                poke8(address + at, byte);
            }
            at += 1;
        }
        at < length
    };
    while put(piece(random, &mut [0; 16])) {}
    leave_out(address, length);
    if length > 2 {
        poke8(address + length - 2, 0xCD);
        poke8(address + length - 1, 0x81);
    }
}

/// Takes out what breaks QEMU itself, without SecVisor too: MOV to CS (8E /1), which it performs, and to
/// segment registers that do not exist (8E /6 and /7, or any with REX.R before it, be it before another
/// prefix), which overwrites LDTR, TR, GDTR or what else it keeps there; and the undefined 0F C7 /2 to
/// /5, which leave CR3 and CR4 zero. A processor raises #UD or ignores REX.R.
pub fn leave_out(address: u64, length: u64) {
    let mut before = [0; 2];
    // Whether REX.R stands among the prefixes that end at each of them.
    let mut extended = [false; 2];
    for at in address..address + length {
        let operands = peek8(at);
        let register = operands >> 3 & 7;
        let [first, opcode] = before;
        if opcode == 0x8E && (extended[0] || matches!(register, 1 | 6 | 7))
            || [first, opcode] == [0x0F, 0xC7] && (2..6).contains(&register)
        {
            poke8(at - 1, 0x90);
        }
        before = [opcode, operands];
        let prefix = PREFIXES.contains(&operands) || (0x40..0x50).contains(&operands);
        let rex_r = (0x40..0x50).contains(&operands) && operands & 4 != 0;
        extended = [extended[1], rex_r || prefix && extended[1]];
    }
}

/// Something like an instruction, or a part of one.
fn piece<'a>(random: &mut Random, bytes: &'a mut [u8; 16]) -> &'a [u8] {
    bytes[..8].copy_from_slice(&random.number().to_le_bytes());
    let selector = random.pick(&SELECTORS);
    let length = match random.below(13) {
        0 => {
            bytes[0] = random.pick(&PREFIXES);
            1
        }
        1..5 => {
            let instruction = random.pick(&REACHING);
            bytes[..instruction.len()].copy_from_slice(instruction);
            instruction.len()
        }
        // MOV AX or BX with a selector; PUSH of one.
        5 => {
            bytes[..5].copy_from_slice(&[random.pick(&[0xB8, 0xBB]), selector, 0, 0, 0]);
            5
        }
        6 => {
            bytes[..2].copy_from_slice(&[0x6A, selector]);
            2
        }
        // A far jump or call, in 32-bit code; any interrupt.
        7 => {
            bytes[0] = random.pick(&[0x9A, 0xEA]);
            bytes[5..7].copy_from_slice(&[selector, 0]);
            7
        }
        8 => {
            bytes[0] = 0xCD;
            2
        }
        // A far pointer on the stack, called or jumped by.
        9 => {
            let go = random.pick(&[0x1C, 0x2C]);
            bytes[..11].copy_from_slice(&[0xC7, 0x44, 0x24, 4, selector, 0, 0, 0, 0xFF, go, 0x24]);
            11
        }
        // Two bytes of opcode; three.
        10 => {
            bytes[0] = 0x0F;
            3
        }
        11 => {
            bytes[..2].copy_from_slice(&[0x0F, random.pick(&[0x38, 0x3A, 0x01, 0xAE, 0xC7])]);
            4
        }
        _ => 1 + random.below(6) as usize,
    };
    &bytes[..length]
}
