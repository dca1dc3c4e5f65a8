mod modules;

use super::*;
use crate::PAGE_SIZE;
use crate::address::{Gva, PhysicalRange};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

fn name<const N: usize>(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize(N, 0);
    bytes
}

fn words<const N: usize>(values: [u32; N]) -> Vec<u8> {
    values.into_iter().flat_map(u32::to_le_bytes).collect()
}

fn longs<const N: usize>(values: [u64; N]) -> Vec<u8> {
    values.into_iter().flat_map(u64::to_le_bytes).collect()
}

pub(crate) fn range(
    text: &str,
    physical: u64,
    filled: u64,
    virtual_start: u64,
    flags: u64,
) -> Vec<u8> {
    [name::<32>(text), longs([physical, filled, virtual_start, flags]), vec![0xAB; 32]].concat()
}

pub(crate) fn module(text: &str, sections: u32) -> Vec<u8> {
    [name::<56>(text), words([sections, 0])].concat()
}

pub(crate) fn section(
    text: &str,
    offset: u32,
    size: u32,
    region: u32,
    relocations: u32,
) -> Vec<u8> {
    [name::<32>(text), words([offset, size, region, relocations]), vec![0xCD; 32]].concat()
}

pub(crate) fn relocation(offset: u32, field: u8, base: u8, module: u16, value: u64) -> Vec<u8> {
    let [low, high] = module.to_le_bytes();
    [words([offset]), vec![field, base, low, high], longs([value])].concat()
}

pub(crate) const WINDOW: (u64, u64) = (0xffff_ffff_a000_0000, 0xffff_ffff_ff00_0000);

#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) machine: u32,
    pub(crate) entry: u64,
    pub(crate) window: (u64, u64),
    pub(crate) ranges: Vec<Vec<u8>>,
    pub(crate) modules: Vec<Vec<u8>>,
    pub(crate) sections: Vec<Vec<u8>>,
    pub(crate) relocations: Vec<Vec<u8>>,
}

impl Parts {
    pub(crate) fn build(&self) -> Vec<u8> {
        let tables = [&self.ranges, &self.modules, &self.sections, &self.relocations];
        let counts = tables.map(|table| table.len() as u32);
        let tables = tables.map(|table| table.concat()).concat();
        [
            MAGIC.to_vec(),
            words([VERSION, (HEADER_BYTES + tables.len()) as u32, self.machine]),
            words(counts),
            words([0]),
            longs([self.entry, self.window.0, self.window.1]),
            tables,
        ]
        .concat()
    }
}

/// Code and init code of a 64-bit kernel, a module, and one that depends on it.
fn honest() -> Parts {
    Parts {
        machine: 62,
        entry: 0x100_0000,
        window: WINDOW,
        ranges: vec![
            range(".text", 0x100_0000, 0x5123, 0xffff_ffff_8100_0000, 0),
            range(".init.text", 0x100_7000, 0x2000, 0xffff_ffff_8100_7000, 1),
        ],
        modules: vec![module("fat", 1), module("vfat", 4)],
        sections: vec![
            section(".text", 0, 0x1001, 0, 2),
            section(".text", 0, 0x80, 0, 2),
            section(".exit.text", 0x80, 0x10, 0, 3),
            section(".init.text", 0, 0x20, 1, 4),
        ],
        relocations: vec![
            relocation(0, 3, 0, 0, 0xffff_ffff_8100_0010),
            relocation(0xFFD, 2, 1, 0, 0x2000),
            relocation(8, 4, 1, 0, 0xFFF),
            relocation(0x1C, 3, 2, 0, 0x40),
        ],
    }
}

/// A kernel alone.
fn without_modules() -> Parts {
    let (modules, sections, relocations) = (vec![], vec![], vec![]);
    Parts { window: (0, 0), modules, sections, relocations, ..honest() }
}

fn rejected(change: impl FnOnce(&mut Parts)) -> String {
    let mut parts = honest();
    change(&mut parts);
    ApprovalList::parse(&parts.build()).expect_err("a bad list was accepted").to_string()
}

fn rejected_bytes(change: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut bytes = honest().build();
    change(&mut bytes);
    ApprovalList::parse(&bytes).expect_err("a bad list was accepted").to_string()
}

#[test]
fn an_honest_list_gives_back_what_it_holds() {
    let bytes = honest().build();
    let list = ApprovalList::parse(&bytes).unwrap();
    assert_eq!(list.architecture(), Architecture::X86_64);
    assert_eq!(list.entry(), Gpa(0x100_0000));
    let ranges: Vec<_> = list.kernel_ranges().collect();
    assert_eq!(ranges.len(), 2);
    let text = ranges[0];
    assert_eq!((text.name, text.filled, text.init), (".text", 0x5123, false));
    assert_eq!(text.physical, PhysicalRange::between(0x100_0000, 0x100_6000).unwrap());
    assert_eq!(text.slack(), PhysicalRange::between(0x100_5123, 0x100_6000));
    assert_eq!(text.virtual_end(), Gva(0xffff_ffff_8100_6000));
    assert!(text.holds(Gpa(0x100_5122)) && !text.holds(Gpa(0x100_5123)));
    assert_eq!((ranges[1].init, ranges[1].slack()), (true, None));
}

#[test]
fn messages_name_the_part_and_the_value() {
    assert_eq!(
        rejected(|list| list.ranges[1][32] = 1),
        "kernel range 1: physical start not on a page border: 0x1007001"
    );
    assert_eq!(rejected_bytes(|bytes| bytes[8] = 7), "header: unknown version: 0x7");
}

#[test]
fn headers_are_checked() {
    type Change = fn(&mut Vec<u8>);
    for (message, change) in [
        ("begins with: 0x7f56415050524f56", (|b| b[0] = 0x7f) as Change),
        ("shorter than a header, bytes: 0x3f", |b| b.truncate(63)),
        ("shorter than a header, bytes: 0x0", |b| b.clear()),
        ("stated length", |b| b.push(0)),
        ("stated length", |b| b.truncate(200)),
        ("unknown machine: 0x28", |b| b[16] = 40),
        ("reserved bytes are not zero: 0x1", |b| b[36] = 1),
        ("no kernel code is approved", |b| b[20] = 0),
        ("more kernel ranges than supported: 0x11", |b| b[20] = 17),
        ("the file ends inside a table of records: 0x10", |b| b[20] = 16),
        ("more modules than supported: 0x1000002", |b| b[27] = 1),
        ("the file ends inside a table of records: 0x1004", |b| b[33] = 0x10),
        ("the file ends inside a table of records: 0x5", |b| b[32] = 5),
        ("bytes behind the last table: 0x10", |b| b[32] = 3),
        ("bytes behind the last table: 0x1", |b| {
            b.push(0);
            b[12] += 1;
        }),
        ("no window of pages for modules", |b| b[48] = 1),
        ("no window of pages for modules", |b| b[63] = 0),
        ("no window of pages for modules, from: 0x0", |b| b[48..56].fill(0)),
        ("no window of pages for modules", |b| b.copy_within(48..56, 56)),
        ("no window of pages for modules", |b| b[48..64].fill(0)),
    ] {
        let error = rejected_bytes(change);
        assert!(error.contains(message), "{error} is not about: {message}");
    }
}

#[test]
fn ranges_are_checked() {
    let high = 0xffff_ffff_8100_0000;
    for (message, at, bad) in [
        ("empty name", 1, range("", 0x100_7000, 1, high + 0x7000, 0)),
        ("printable: 0x20", 1, range("a b", 0x100_7000, 1, high + 0x7000, 0)),
        ("printable: 0x61", 1, range("x\0a", 0x100_7000, 1, high + 0x7000, 0)),
        ("printable: 0xc3", 1, range("\u{e9}", 0x100_7000, 1, high + 0x7000, 0)),
        ("empty or past the last", 1, range("x", 0x100_7000, 0, high + 0x7000, 0)),
        ("empty or past the last", 1, range("x", 0x100_7000, u64::MAX, high + 0x7000, 0)),
        ("empty or past the last", 1, range("x", 0x1000, u64::MAX - 0x1001, high + 0x7000, 0)),
        ("inside or below", 1, range("x", 0x100_5000, 1, high + 0x7000, 0)),
        ("inside or below", 1, range("x", 0, 1, high + 0x7000, 0)),
        (
            "out of the machine's reach: 0x10000000001000",
            1,
            range("x", 1 << 52, 1, high + 0x7000, 0),
        ),
        ("virtual start not on", 1, range("x", 0x100_7000, 1, high + 0x7001, 0)),
        ("virtual start at: 0x0", 1, range("x", 0x100_7000, 1, 0, 0)),
        ("virtual range in the window", 1, range("x", 0x100_7000, 1, WINDOW.0, 0)),
        ("virtual range in the window", 1, range("x", 0x100_7000, 0x1001, WINDOW.0 - 0x1000, 0)),
        ("virtual range in the window", 1, range("x", 0x100_7000, 1, WINDOW.1 - 0x1000, 0)),
        ("virtual end out of", 1, range("x", 0x100_7000, 1, !0xFFF, 0)),
        ("virtual range overlaps", 1, range("x", 0x100_7000, 1, high + 0x5000, 0)),
        ("virtual range overlaps", 1, range("x", 0x100_7000, 0x1001, high - 0x1000, 0)),
        ("name taken", 1, range(".text", 0x100_7000, 1, high + 0x7000, 0)),
        ("unknown flags: 0x2", 1, range("x", 0x100_7000, 1, high + 0x7000, 2)),
        ("entry point outside", 0, range("x", 0x100_0000 - 0x1000, 0x1000, high, 0)),
    ] {
        let error = rejected(|list| list.ranges[at] = bad);
        assert!(error.contains(message), "{error} is not about: {message}");
    }
    let error = rejected(|list| list.entry = 0x100_5123);
    assert!(error.contains("entry point outside the approved code: 0x1005123"), "{error}");
    let error = rejected(|list| {
        list.machine = 3;
        list.window = (0xd000_0000, 0xe000_0000);
    });
    assert!(error.contains("virtual end out of"), "{error}");
    let mut low = without_modules();
    low.machine = 3;
    low.ranges = vec![range(".text", 0x10_0000, 1, 0xc010_0000, 0)];
    low.entry = 0x10_0000;
    assert_eq!(ApprovalList::parse(&low.build()).unwrap().architecture(), Architecture::I386);
}

#[test]
fn code_is_verified_by_hash_and_length() {
    let code = [0x90; 0x123];
    let sha256 = Sha256::digest(code).into();
    let physical = PhysicalRange::between(0x1000, 0x2000).unwrap();
    let (name, filled, virtual_start, init) = (".text", 0x123, Gva(0x1000), false);
    let range = CodeRange { name, physical, filled, virtual_start, init, sha256 };
    assert_eq!(range.verify(&code), Ok(()));
    let longer = CodeRange { filled: 0x124, ..range };
    assert!(longer.verify(&code).is_err());
    let mut changed = code;
    changed[0x122] ^= 1;
    let message = range.verify(&changed).unwrap_err().to_string();
    assert_eq!(
        message,
        format!(
            "section .text: approved SHA-256 {}, found {}",
            Hex(&sha256),
            Hex(&Sha256::digest(changed))
        )
    );
    assert_eq!(Hex(&[0x0A, 0xFF]).to_string(), "0aff");
}

/// What callers rely on, said a second time.
fn assert_sound(list: &ApprovalList) {
    let ranges: Vec<_> = list.kernel_ranges().collect();
    assert!(!ranges.is_empty() && ranges.len() <= MAX_RANGES as usize);
    assert!(ranges.iter().any(|range| {
        let start = range.physical.start();
        (start..start + range.filled).contains(&list.entry().0)
    }));
    for (at, range) in ranges.iter().enumerate() {
        assert!(range.physical.is_page_aligned() && range.virtual_start.0 % PAGE_SIZE == 0);
        assert!(range.filled > range.physical.length() - PAGE_SIZE);
        assert!(range.filled <= range.physical.length());
        assert!(range.name.len() <= NAME_BYTES && range.name.chars().all(|c| c.is_ascii_graphic()));
        for other in &ranges[..at] {
            assert!(other.physical.end() <= range.physical.start() && other.name != range.name);
        }
    }
    let modules: Vec<_> = list.modules().collect();
    assert!(modules.windows(2).all(|pair| pair[0].name < pair[1].name));
    for module in &modules {
        assert_eq!(list.find_module(module.name).unwrap().number, module.number);
        let mut end = (false, 0);
        for section in module.sections() {
            assert!((section.init, section.offset) >= end && section.size > 0);
            end = (section.init, section.offset.checked_add(section.size).unwrap());
            let mut at = 0;
            for relocation in section.relocations() {
                assert!(relocation.offset >= at);
                at = relocation.offset + relocation.field.width() as u32;
                let own = |number: u16| usize::from(number) < modules.len();
                assert!(!matches!(relocation.base, Base::Core(number) if !own(number)));
            }
            assert!(at <= section.size);
        }
    }
    let sections = modules.iter().map(|module| module.sections().count()).sum::<usize>();
    assert_eq!((modules.len(), sections), (list.modules.len(), list.sections.len()));
    let sections = modules.iter().flat_map(|module| module.sections());
    let relocations = sections.map(|section| section.relocations().count()).sum::<usize>();
    assert_eq!(relocations, list.relocations.len());
}

#[test]
fn every_changed_byte_is_rejected_or_gives_a_sound_list() {
    let honest = honest().build();
    assert_sound(&ApprovalList::parse(&honest).unwrap());
    for at in 0..honest.len() {
        for change in (0..8).map(|bit| 1 << bit).chain([u8::MAX]) {
            let mut bytes = honest.clone();
            bytes[at] ^= change;
            if let Ok(list) = ApprovalList::parse(&bytes) {
                assert_sound(&list);
            }
        }
        assert!(ApprovalList::parse(&honest[..at]).is_err());
    }
}

proptest! {
    #[test]
    fn any_bytes_are_judged(bytes: Vec<u8>) {
        prop_assert!(ApprovalList::parse(&bytes).is_err());
    }

    #[test]
    fn any_records_are_judged(
        starts in prop::collection::vec((0u64..8, 0u64..0x3000, 0u64..8, 0u64..3), 1..4),
        entry in 0u64..0x8000,
    ) {
        let names = ["a", "b", "c"];
        let range = |(&(start, filled, virtual_start, flags), text)| {
            range(text, start << 12, filled, virtual_start << 12, flags)
        };
        let ranges = starts.iter().zip(names).map(range).collect();
        let bytes = Parts { machine: 3, entry, ranges, ..without_modules() }.build();
        if let Ok(list) = ApprovalList::parse(&bytes) {
            assert_sound(&list);
        }
    }

    #[test]
    fn several_changed_words_are_rejected_or_give_a_sound_list(
        changes in prop::collection::vec((0usize..1000, any::<u32>()), 1..4),
    ) {
        let mut bytes = honest().build();
        for (at, value) in changes {
            let at = at % (bytes.len() / 4) * 4;
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        if let Ok(list) = ApprovalList::parse(&bytes) {
            assert_sound(&list);
        }
    }
}
