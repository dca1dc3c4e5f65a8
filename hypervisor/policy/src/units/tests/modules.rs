//! Two modules as the tests' guest loads them, and their approval list.

use sha2::{Digest, Sha256};

use super::{FAT, FAT_INIT, JUNK, KERNEL, Log, Memory, VFAT, ZRAM, ZRAM_INIT};
use crate::PAGE_SIZE;
use crate::approval::tests::{Parts, WINDOW, module, range, relocation, section};

/// A section as the test makes it: place, bytes with relocated fields zeroed, relocations as
/// offset, field, base, module, value and the field's right bytes.
pub struct Code {
    pub init: bool,
    pub offset: u32,
    pub bytes: Vec<u8>,
    fields: Vec<(u32, u8, u8, u16, u64, Vec<u8>)>,
}

fn bytes(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|at| ((at + seed) * 7 % 251) as u8 + 1).collect()
}

fn low(value: u64) -> Vec<u8> {
    value.to_le_bytes()[..4].to_vec()
}

/// `fat`: two core sections over three pages with a gap, and an init section; `vfat` calls it;
/// `zram` needs nothing.
pub fn codes() -> [Vec<Code>; 3] {
    let relative = |target: u64, place: u64| low(target.wrapping_sub(place));
    let text = Code {
        init: false,
        offset: 0,
        bytes: bytes(0x1801, 1),
        fields: vec![
            (0, 3, 0, 0, KERNEL + 0x10, relative(KERNEL + 0x10, FAT)),
            (4, 2, 1, 0, 0x4000, low(FAT + 0x4000)),
            // Across a page border.
            (0xFFE, 3, 2, 0, 0x20, relative(FAT_INIT + 0x20, FAT + 0xFFE)),
            (0x17F9, 4, 1, 0, 0xFFF, (FAT + 0xFFF).to_le_bytes().to_vec()),
        ],
    };
    let exit = Code {
        init: false,
        offset: 0x1900,
        bytes: bytes(0x800, 2),
        fields: vec![(0x7FC, 1, 0, 0, 0x8000_1234, low(0x8000_1234))],
    };
    let init = Code {
        init: true,
        offset: 0x10,
        bytes: bytes(0x30, 3),
        fields: vec![(8, 3, 1, 0, 0, relative(FAT, FAT_INIT + 0x18))],
    };
    let vfat = Code {
        init: false,
        offset: 0,
        bytes: bytes(0x20, 4),
        fields: vec![(0x1C, 3, 1, 0, 0x40, relative(FAT + 0x40, VFAT + 0x1C))],
    };
    let plain = |init, seed| Code { init, offset: 0, bytes: bytes(0x10, seed), fields: vec![] };
    [vec![text, exit, init], vec![vfat], vec![plain(false, 5), plain(true, 6)]]
}

pub fn list() -> Vec<u8> {
    let (mut sections, mut relocations) = (vec![], vec![]);
    for code in codes().iter_mut().flatten() {
        for (offset, field, base, number, value, right) in &code.fields {
            relocations.push(relocation(*offset, *field, *base, *number, *value));
            code.bytes[*offset as usize..][..right.len()].fill(0);
        }
        let (size, end) = (code.bytes.len() as u32, relocations.len() as u32);
        let mut record = section(".text", code.offset, size, code.init.into(), end);
        record[48..].copy_from_slice(&Sha256::digest(&code.bytes));
        sections.push(record);
    }
    let ranges = vec![
        range(".text", 0x100_0000, 0x1800, KERNEL, 0),
        range(".init.text", 0x100_2000, 0x1000, KERNEL + 0x2000, 1),
    ];
    let modules = vec![module("fat", 3), module("vfat", 4), module("zram", 6)];
    Parts { machine: 62, entry: 0x100_0000, window: WINDOW, ranges, modules, sections, relocations }
        .build()
}

/// The guest with both modules loaded, before anything is approved. Frames are scattered.
pub fn loaded(log: &Log) -> Memory {
    let mut memory = Memory { log: log.clone(), ..Memory::default() };
    let mut place = |base: u64, frames: &[u64], codes: &[&Code]| {
        for (page, &frame) in (0..).zip(frames) {
            memory.mapped.insert(base + page * PAGE_SIZE, frame);
            memory.pages.insert(frame, vec![JUNK; 4096]);
        }
        for code in codes {
            let mut right = code.bytes.clone();
            for (offset, .., field) in &code.fields {
                right[*offset as usize..][..field.len()].copy_from_slice(field);
            }
            for (at, byte) in (code.offset as usize..).zip(right) {
                memory.pages.get_mut(&frames[at / 4096]).unwrap()[at % 4096] = byte;
            }
        }
    };
    let [fat, vfat, zram] = codes();
    place(FAT, &[0x1500, 0x1203, 0x1501], &[&fat[0], &fat[1]]);
    place(FAT_INIT, &[0x1100], &[&fat[2]]);
    place(VFAT, &[0x1202], &[&vfat[0]]);
    place(ZRAM, &[0x1300], &[&zram[0]]);
    place(ZRAM_INIT, &[0x1301], &[&zram[1]]);
    memory
}
