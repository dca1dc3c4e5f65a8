//! Hypercalls: any descriptors, in any order, over memory that the fuzzer fills.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, Ordering};

use policy::PAGE_SIZE;
use policy::address::{Gpa, Gva, PhysicalRange};
use policy::approval::ApprovalList;
use policy::flush::FlushDuty;
use policy::frame::FrameClass::{self, Approved, Data, Device, Guarded, Hidden};
use policy::hypercall::{Operation, UNIT_BYTES, Unit};
use policy::nested::{Geometry, Nested, TableMemory};
use policy::units::{CodeMemory, Slot, Units};

/// Frames of the machine's 32 MiB.
const FRAMES: usize = 0x2000;
/// The nested tables, out of the way.
const TABLES: u64 = 1 << 32;
/// What pages hold that nobody filled.
const JUNK: u8 = 0x5A;

#[derive(Default)]
struct Tables(HashMap<u64, u64>);

impl TableMemory for Tables {
    fn read(&self, at: u64) -> u64 {
        self.0.get(&at).copied().unwrap_or(0)
    }
    fn write(&mut self, at: u64, value: u64) {
        self.0.insert(at, value);
    }
}

/// The guest's pages by frame, and what its tables map.
#[derive(Default)]
struct Memory {
    pages: HashMap<u64, Vec<u8>>,
    mapped: HashMap<u64, u64>,
}

impl Memory {
    fn page(&mut self, frame: u64) -> &mut Vec<u8> {
        self.pages.entry(frame).or_insert_with(|| vec![JUNK; PAGE_SIZE as usize])
    }
}

impl CodeMemory for Memory {
    fn translate(&self, gva: Gva) -> Option<Gpa> {
        self.mapped.get(&(gva.0 / PAGE_SIZE)).map(|frame| Gpa(frame * PAGE_SIZE))
    }
    fn settle(&mut self, duty: FlushDuty, _: &[u32]) {
        duty.discharge(|| ());
    }
    fn read(&self, gpa: Gpa, to: &mut [u8]) -> usize {
        let at = (gpa.0 % PAGE_SIZE) as usize;
        let count = to.len().min(PAGE_SIZE as usize - at);
        match self.pages.get(&gpa.frame()) {
            Some(page) => to[..count].copy_from_slice(&page[at..at + count]),
            None => to[..count].fill(JUNK),
        }
        count
    }
    fn fill(&mut self, gpa: Gpa, length: usize) -> usize {
        let at = (gpa.0 % PAGE_SIZE) as usize;
        let count = length.min(PAGE_SIZE as usize - at);
        self.page(gpa.frame())[at..at + count].fill(0xCC);
        count
    }
}

/// The class of a frame before any call.
fn at_first(frame: u64) -> FrameClass {
    match frame {
        0x1000..0x1003 => Approved,
        0x1F00 => Hidden,
        0x1F01 => Guarded,
        1..0x2000 => Data,
        _ => Device,
    }
}

type Machine = (Nested<'static, Tables>, &'static [AtomicU8]);

/// Built once: the tables take longer than all else.
fn machine() -> Machine {
    let geometry = Geometry::new(FRAMES as u64 * PAGE_SIZE, 36, true, false);
    let classes: Vec<_> =
        (0..geometry.frames()).map(|f| AtomicU8::new(at_first(f) as u8)).collect();
    let classes: &'static [AtomicU8] = classes.leak();
    let leaves = vec![0; geometry.regions() as usize].leak();
    let size = geometry.table_pages(17) * PAGE_SIZE;
    let place = PhysicalRange::new(TABLES, size).expect("a range");
    let nested = Nested::build(Tables::default(), geometry, classes, leaves, place);
    (nested.expect("enough room"), classes)
}

thread_local! {
    static MACHINE: RefCell<Machine> = RefCell::new(machine());
}

/// Takes from the front of what is left.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }
    fn number(&mut self) -> Option<u64> {
        self.bytes(8)?.first_chunk().map(|word| u64::from_le_bytes(*word))
    }
    fn short(&mut self) -> Option<usize> {
        self.bytes(2)?.first_chunk().map(|word| u16::from_le_bytes(*word).into())
    }
}

/// A list, mapped pages with their bytes, then calls.
pub fn calls(data: &[u8]) {
    MACHINE.with_borrow_mut(|(nested, classes)| {
        run(Input(data), nested, classes);
        for (frame, class) in (0..FRAMES as u64).zip(classes.iter()) {
            let first = at_first(frame);
            if class.load(Ordering::Relaxed) != first as u8 {
                nested.set_class(frame, first).expect("RAM").discharge(|| ());
            }
        }
    });
}

fn run(mut input: Input<'_>, nested: &mut Nested<'_, Tables>, classes: &[AtomicU8]) -> Option<()> {
    let length = input.short()?;
    let list = ApprovalList::parse(input.bytes(length)?).ok()?;
    let (slots, frames) = Units::room(&list);
    if slots > 64 || frames > 0x1000 {
        return None;
    }
    let mut slots = vec![Slot::default(); slots as usize];
    let mut frames = vec![0; frames as usize];
    let mut units = Units::new(list, &mut slots, &mut frames)?;
    let mut memory = Memory::default();
    for _ in 0..input.short()? % 64 {
        let (page, frame, length) = (input.number()?, input.short()? as u64, input.short()?);
        memory.mapped.insert(page, frame);
        let bytes = input.bytes(length % 4097)?;
        memory.page(frame)[..bytes.len()].copy_from_slice(bytes);
    }
    let seen = || -> Vec<u8> {
        classes.iter().take(FRAMES).map(|class| class.load(Ordering::Relaxed)).collect()
    };
    loop {
        let operation = Operation::from_rbx(u64::from(input.bytes(1)?[0]));
        let unit = Unit::parse(input.bytes(UNIT_BYTES)?.first_chunk()?);
        let (Ok(operation), Ok(unit)) = (operation, unit) else { continue };
        let before = seen();
        let (held, from, to) = match operation {
            Operation::Approve => {
                (units.approve(&unit, nested, &mut memory).is_ok(), Data, Approved)
            }
            Operation::Release => {
                (units.release(&unit, nested, &mut memory).is_ok(), Approved, Data)
            }
        };
        for (frame, (was, is)) in before.into_iter().zip(seen()).enumerate() {
            let changed = (was, is) == (from as u8, to as u8);
            assert!(was == is || held && changed, "frame {frame:#x} was {was} and is {is}");
        }
    }
}
