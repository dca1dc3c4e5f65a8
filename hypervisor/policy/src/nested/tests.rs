//! The tables on a memory that shows them to a walker after every single write.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::address::{Gpa, PhysicalRange};
use crate::frame::FrameClass;

const TABLES: u64 = 0x1_0000_0000;

/// Sparse memory; `watch` is called before each write with the state that a walker sees.
#[derive(Default, Clone)]
struct Memory {
    entries: HashMap<u64, u64>,
    history: Vec<(u64, u64)>,
}

impl TableMemory for Memory {
    fn read(&self, at: u64) -> u64 {
        self.entries.get(&at).copied().unwrap_or(0)
    }
    fn write(&mut self, at: u64, value: u64) {
        self.history.push((at, value));
        self.entries.insert(at, value);
    }
}

impl<M> Nested<'_, M> {
    /// The tables' memory.
    pub(crate) fn memory(&self) -> &M {
        &self.memory
    }
}

impl Nested<'_, Memory> {
    /// What a table walk finds for `gpa` in `view`.
    fn access(&self, gpa: Gpa, view: View) -> Access {
        let mut value = self.memory.read(entry(self.root(view), gpa.0 >> 39));
        for shift in [30, 21, 12] {
            if value & PRESENT == 0 {
                return Access::NONE;
            }
            if value & LARGE != 0 {
                break;
            }
            value = self.memory.read(entry(value, gpa.0 >> shift));
        }
        Access {
            read: value & PRESENT != 0,
            write: value & PRESENT != 0 && value & WRITABLE != 0,
            execute: value & PRESENT != 0 && value & NO_EXECUTE == 0,
        }
    }
}

fn classes(geometry: Geometry, ram: &[(u64, u64)]) -> Vec<AtomicU8> {
    let class = |frame: u64| {
        let inside = ram.iter().any(|&(start, end)| (start..end).contains(&(frame * PAGE_SIZE)));
        AtomicU8::new(if inside { FrameClass::Data } else { FrameClass::Device } as u8)
    };
    (0..geometry.frames()).map(class).collect()
}

fn build<'a>(
    geometry: Geometry,
    classes: &'a [AtomicU8],
    leaves: &'a mut [u32],
    split: u64,
) -> Option<Nested<'a, Memory>> {
    let size = geometry.table_pages(split) * PAGE_SIZE;
    let tables = PhysicalRange::new(TABLES, size).unwrap();
    Nested::build(Memory::default(), geometry, classes, leaves, tables)
}

fn assert_tables_say_what_the_classes_do(
    nested: &Nested<Memory>,
    frames: impl Iterator<Item = u64>,
) {
    for frame in frames {
        for view in View::ALL {
            let expected = nested.class(frame).access(view);
            assert_eq!(
                nested.access(Gpa(frame * PAGE_SIZE), view),
                expected,
                "{frame:#x} {view:?}"
            );
        }
    }
}

const LOW: (u64, u64) = (0, 0xA_0000);

#[test]
fn a_small_machine_agrees_for_every_frame() {
    for giant_pages in [false, true] {
        let geometry = Geometry::new(64 << 20, 36, giant_pages);
        let classes = classes(geometry, &[LOW, (1 << 20, 64 << 20)]);
        let mut leaves = vec![0; geometry.regions() as usize];
        let nested = build(geometry, &classes, &mut leaves, 32).unwrap();
        assert_tables_say_what_the_classes_do(&nested, 0..geometry.frames());
        let beyond = Gpa((1 << 36) - PAGE_SIZE);
        assert_eq!(nested.access(beyond, View::Kernel), Access::RW);
        assert_eq!(nested.access(beyond, View::User), Access::RW);
        assert_eq!(nested.access(Gpa(1 << 36), View::Kernel), Access::NONE);
    }
}

#[test]
fn sixty_four_gibibytes_fit_into_what_was_reserved() {
    let top = 65 << 30;
    let geometry = Geometry::new(top, 48, true);
    let classes = classes(geometry, &[LOW, (1 << 20, 3 << 30), (4 << 30, top)]);
    let mut leaves = vec![0; geometry.regions() as usize];
    let split = (3 + 61) * 512;
    let reserved = geometry.table_pages(split) * PAGE_SIZE + geometry.frames();
    assert!(reserved * 100 < 64 << 30, "more than 1 % of RAM: {reserved}");
    let nested = build(geometry, &classes, &mut leaves, split).unwrap();
    assert_tables_say_what_the_classes_do(&nested, (0..geometry.frames()).step_by(511));
}

#[test]
fn too_small_a_reservation_is_told() {
    let geometry = Geometry::new(64 << 20, 36, true);
    let classes = classes(geometry, &[LOW, (1 << 20, 64 << 20)]);
    let mut leaves = vec![0; geometry.regions() as usize];
    assert!(build(geometry, &classes, &mut leaves, 31).is_none());
}

#[test]
fn devices_never_change() {
    let geometry = Geometry::new(64 << 20, 36, true);
    let classes = classes(geometry, &[LOW, (1 << 20, 64 << 20)]);
    let mut leaves = vec![0; geometry.regions() as usize];
    let mut nested = build(geometry, &classes, &mut leaves, 32).unwrap();
    let device = (64 << 20) / PAGE_SIZE;
    assert!(nested.set_class(device, FrameClass::Approved).is_none());
    assert_eq!(nested.class(device), FrameClass::Device);
    assert!(nested.set_class(geometry.frames(), FrameClass::Data).is_none());
}

#[test]
fn tightening_owes_a_flush_and_loosening_does_not() {
    let geometry = Geometry::new(64 << 20, 36, true);
    let classes = classes(geometry, &[LOW, (1 << 20, 64 << 20)]);
    let mut leaves = vec![0; geometry.regions() as usize];
    let mut nested = build(geometry, &classes, &mut leaves, 32).unwrap();
    let mut owed = |class| {
        let mut flushed = false;
        nested.set_class(0x1000, class).unwrap().discharge(|| flushed = true);
        flushed
    };
    assert!(owed(FrameClass::Pending));
    assert!(!owed(FrameClass::Approved));
    assert!(owed(FrameClass::Pending));
    assert!(!owed(FrameClass::Data));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn after_every_write_each_frame_has_its_old_or_its_new_permission(
        changes in prop::collection::vec((0x3F0u64..0x610, 1u64..0x210, 0usize..5), 1..8)
    ) {
        let geometry = Geometry::new(8 << 20, 36, true);
        let classes = classes(geometry, &[LOW, (1 << 20, 8 << 20)]);
        let mut leaves = vec![0; geometry.regions() as usize];
        let mut nested = build(geometry, &classes, &mut leaves, 4).unwrap();
        for (start, length, class) in changes {
            let class = [FrameClass::Data, FrameClass::Approved, FrameClass::Pending,
                FrameClass::Guarded, FrameClass::Hidden][class];
            let before = nested.memory.entries.clone();
            let old: Vec<_> = (0..0x800).map(|frame| nested.class(frame)).collect();
            nested.memory.history.clear();
            let range = start..(start + length).min(0x800);
            for frame in range.clone() {
                nested.set_class(frame, class).unwrap().discharge(|| ());
            }
            let history = core::mem::take(&mut nested.memory.history);
            let after = core::mem::replace(&mut nested.memory.entries, before);
            for (at, value) in history {
                nested.memory.entries.insert(at, value);
                for frame in [start - 1, start, range.end - 1, range.end.min(0x7FF), 0x200, 0x3FF, 0x400, 0x5FF] {
                    for view in View::ALL {
                        let seen = nested.access(Gpa(frame * PAGE_SIZE), view);
                        let was = old[frame as usize].access(view);
                        let becomes = if range.contains(&frame) { class.access(view) } else { was };
                        prop_assert!(seen == was || seen == becomes, "{:#x} {:?} {:?}", frame, view, seen);
                    }
                }
            }
            prop_assert_eq!(&nested.memory.entries, &after);
            assert_tables_say_what_the_classes_do(&nested, 0..0x800);
        }
    }
}
