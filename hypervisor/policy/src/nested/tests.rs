//! The tables on a memory that shows them to a walker after every single write.

use std::collections::HashMap;

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

/// What a table walk from `root` finds for `gpa`, which it must map to itself; with GMET as the mode
/// `gmet` finds it, without it as the guest in any mode, all of whose accesses are the user's.
fn walk(entries: &HashMap<u64, u64>, root: u64, gpa: u64, gmet: Option<View>) -> Access {
    let read = |at| entries.get(&at).copied().unwrap_or(0);
    let (mut value, mut size) = (read(entry(root, gpa >> 39)), 1u64 << 39);
    let mut user = value & USER != 0;
    for shift in [30, 21, 12] {
        if value & (PRESENT | LARGE) != PRESENT {
            break;
        }
        (value, size) = (read(entry(value, gpa >> shift)), 1 << shift);
        user &= value & USER != 0;
    }
    let present = value & PRESENT != 0 && (user || gmet.is_some());
    assert!(!present || value & ADDRESS == gpa & !(size - 1), "{gpa:#x} is mapped by {value:#x}");
    Access {
        read: present,
        write: present && value & WRITABLE != 0,
        execute: present && value & NO_EXECUTE == 0 && !(user && gmet == Some(View::Kernel)),
    }
}

impl Nested<'_, Memory> {
    /// What a table walk finds for `gpa` in `view`.
    fn access(&self, gpa: Gpa, view: View) -> Access {
        let gmet = self.geometry.gmet.then_some(view);
        walk(&self.memory.entries, self.root(view), gpa.0, gmet)
    }
}

/// What `view` may do with a class, where one table with GMET holds both: user mode executes approved
/// code there.
fn expected(geometry: Geometry, class: FrameClass, view: View) -> Access {
    let kernel_code = geometry.gmet && class.access(View::Kernel).execute;
    let access = class.access(view);
    Access { execute: access.execute || kernel_code, ..access }
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
            let expected = expected(nested.geometry, nested.class(frame), view);
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
    for (giant_pages, gmet) in [(false, false), (false, true), (true, false), (true, true)] {
        let geometry = Geometry::new(64 << 20, 36, giant_pages, gmet);
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
    let geometry = Geometry::new(top, 48, true, false);
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
    for gmet in [false, true] {
        let geometry = Geometry::new(64 << 20, 36, true, gmet);
        let classes = classes(geometry, &[LOW, (1 << 20, 64 << 20)]);
        let mut leaves = vec![0; geometry.regions() as usize];
        assert!(build(geometry, &classes, &mut leaves, 31).is_none());
    }
}

#[test]
fn what_is_reserved_is_used_to_the_last_page() {
    // Gigabytes of devices: by giant pages or by tables, in one directory or in two, with RAM above.
    for (top, bits, giant_pages) in [(1, 36, true), (1, 36, false), (5, 33, false), (1, 40, true)] {
        for gmet in [false, true] {
            let geometry = Geometry::new(top << 30, bits, giant_pages, gmet);
            assert_eq!(geometry.frames(), top.max(4) << 18);
            assert_eq!(geometry.regions(), top.max(4) << 9);
            let classes = classes(geometry, &[LOW, (1 << 20, 8 << 20)]);
            let mut leaves = vec![0; geometry.regions() as usize];
            let mut pages = |count| {
                let tables = PhysicalRange::new(TABLES, count * PAGE_SIZE).unwrap();
                let memory = Memory::default();
                let built = Nested::build(memory, geometry, &classes, &mut leaves, tables);
                built.map(|it| it.memory.entries.keys().max().copied().unwrap())
            };
            let (needed, told) = (geometry.table_pages(4), (top, bits, giant_pages, gmet));
            let last = TABLES + (needed - 1) * PAGE_SIZE;
            // Entries of 4 KiB are not written before they are needed.
            assert!(
                pages(needed).is_some_and(|it| it > TABLES && it < last + PAGE_SIZE),
                "{told:?}"
            );
            assert!(pages(needed - 1).is_none(), "{told:?}");
        }
    }
}

#[test]
fn entries_are_as_the_processor_reads_them() {
    const NX: u64 = 1 << 63;
    // Present 1, writable 2, user 4, accessed 20h, dirty 40h, large 80h: kernel view, user view, GMET.
    let entries = [
        (FrameClass::Data, [0x67 | NX, 0x67, 0x67]),
        (FrameClass::Approved, [0x65, 0x65 | NX, 0x61]),
        (FrameClass::Pending, [0x65 | NX; 3]),
        (FrameClass::Device, [0x67 | NX; 3]),
        (FrameClass::Guarded, [0x65 | NX; 3]),
        (FrameClass::Hidden, [0; 3]),
    ];
    for gmet in [false, true] {
        let geometry = Geometry::new(64 << 20, 36, true, gmet);
        let classes = classes(geometry, &[LOW, (1 << 20, 64 << 20)]);
        let mut leaves = vec![0; geometry.regions() as usize];
        let mut nested = build(geometry, &classes, &mut leaves, 32).unwrap();
        let (frame, region) = (0x1234, 0x1234 / 512);
        for &view in geometry.tables() {
            let column = if gmet { 2 } else { view as usize };
            let large = nested.memory.read(nested.region_entry(region, view));
            assert_eq!(large, 0x120_0000 | 0x80 | entries[0].1[column], "{view:?}");
        }
        for (class, expected) in entries {
            nested.set_class(frame, class).unwrap().discharge(|| ());
            for &view in geometry.tables() {
                let column = if gmet { 2 } else { view as usize };
                let link = nested.memory.read(nested.region_entry(region, view));
                let page = nested.leaf_page(region, view).unwrap();
                assert_eq!(link, page | 0x67);
                let address = if expected[column] == 0 { 0 } else { frame << 12 };
                let leaf = nested.memory.read(page + frame % 512 * 8);
                assert_eq!(leaf, address | expected[column], "{class} {view:?}");
            }
            assert_eq!(class_in(&classes, frame), class);
            for other in FrameClass::ALL {
                assert_eq!(is_class_in(&classes, frame, other), other == class, "{class} {other}");
            }
        }
        assert_eq!(class_in(&classes, geometry.frames()), FrameClass::Device);
        assert!(!is_class_in(&classes, geometry.frames(), FrameClass::Data));
    }
}

#[test]
fn classes_change_in_every_gibibyte() {
    let ram = [LOW, (1 << 30, (1 << 30) + (4 << 20)), (4 << 30, (4 << 30) + (2 << 20))];
    for gmet in [false, true] {
        let geometry = Geometry::new(5 << 30, 36, true, gmet);
        let classes = classes(geometry, &ram);
        let mut leaves = vec![0; geometry.regions() as usize];
        let mut nested = build(geometry, &classes, &mut leaves, 4).unwrap();
        for (start, end) in ram {
            let last = end / PAGE_SIZE - 1;
            nested.set_class(last, FrameClass::Approved).unwrap().discharge(|| ());
            let around = start / PAGE_SIZE..end / PAGE_SIZE + 1;
            assert_tables_say_what_the_classes_do(&nested, around);
            assert_eq!(nested.class(last), FrameClass::Approved);
        }
    }
}

#[test]
fn devices_never_change() {
    let geometry = Geometry::new(64 << 20, 36, true, false);
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
    for gmet in [false, true] {
        let geometry = Geometry::new(64 << 20, 36, true, gmet);
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
}

/// A machine of 8 MiB as a walker sees it: what each table page translates is known from a walk, so
/// that a write can be followed to all frames that it reaches, and to no other.
struct Watched {
    /// Per table page: the views, its first frame, the frames of one entry.
    pages: HashMap<u64, (&'static [View], u64, u64)>,
    /// What the last write left, by view and frame.
    seen: [Vec<Access>; 2],
}

const WATCHED: u64 = (8 << 20) / PAGE_SIZE;

impl Watched {
    fn new(nested: &Nested<Memory>) -> Self {
        let mut pages = HashMap::new();
        for &view in nested.geometry.tables() {
            let of: &[View] = match view {
                _ if nested.geometry.gmet => &View::ALL,
                View::Kernel => &[View::Kernel],
                View::User => &[View::User],
            };
            let directory = nested.region_entry(0, view) & !0xFFF;
            pages.insert(directory, (of, 0, ENTRIES));
            for region in 0..WATCHED / ENTRIES {
                let page = nested.leaf_page(region, view).unwrap();
                pages.insert(page, (of, region * ENTRIES, 1));
            }
        }
        let all = |view| (0..WATCHED).map(|f| nested.access(Gpa(f * PAGE_SIZE), view)).collect();
        Self { pages, seen: View::ALL.map(all) }
    }

    /// Frames whose translation the entry at `at` may decide.
    fn reached(&self, at: u64) -> impl Iterator<Item = (View, u64)> + use<> {
        let (views, first, frames) = self.pages[&(at & !0xFFF)];
        let start = first + (at & 0xFFF) / 8 * frames;
        views.iter().flat_map(move |&view| (start..start + frames).map(move |it| (view, it)))
    }
}

const CLASSES: [FrameClass; 5] = [
    FrameClass::Data,
    FrameClass::Approved,
    FrameClass::Pending,
    FrameClass::Guarded,
    FrameClass::Hidden,
];

/// 100,000 sequences of changes, half of them with GMET. After every single write each frame that it reaches has, in both
/// views, its old or its new permission; afterwards every frame has what a naive map says. Once in a
/// while the machine is built anew, so that large leaves are split again.
#[test]
fn after_every_write_each_frame_has_its_old_or_its_new_permission() {
    let mut random = 0x5EC0_1234_5678_9ABC_u64;
    let mut next = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let (mut writes, mut splits) = (0u64, 0u64);
    for machine in 0..1000 {
        let gmet = machine % 2 == 1;
        let geometry = Geometry::new(WATCHED * PAGE_SIZE, 32, true, gmet);
        let classes = classes(geometry, &[LOW, (1 << 20, WATCHED * PAGE_SIZE)]);
        let mut leaves = vec![0; geometry.regions() as usize];
        let mut nested = build(geometry, &classes, &mut leaves, 4).unwrap();
        let mut watched = Watched::new(&nested);
        let mut shown = nested.memory.entries.clone();
        let mut reference: Vec<_> = (0..WATCHED).map(|frame| nested.class(frame)).collect();
        for _ in 0..100 {
            for _ in 0..=next(4) {
                let (frame, class) = (next(WATCHED), CLASSES[next(5) as usize]);
                nested.memory.history.clear();
                nested.set_class(frame, class).unwrap().discharge(|| ());
                let history = core::mem::take(&mut nested.memory.history);
                splits += u64::from(history.len() > ENTRIES as usize);
                for (at, value) in history {
                    writes += 1;
                    shown.insert(at, value);
                    for (view, reached) in watched.reached(at) {
                        let root = nested.root(view);
                        let seen = walk(&shown, root, reached * PAGE_SIZE, gmet.then_some(view));
                        let slot = &mut watched.seen[view as usize][reached as usize];
                        let becomes = expected(geometry, class, view);
                        assert!(
                            seen == *slot || reached == frame && seen == becomes,
                            "{reached:#x} {view:?}: {slot:?} became {seen:?}"
                        );
                        *slot = seen;
                    }
                }
                reference[frame as usize] = class;
            }
        }
        for (frame, class) in (0..).zip(reference) {
            assert_eq!(nested.class(frame), class);
        }
        assert_eq!(shown, nested.memory.entries);
        assert_tables_say_what_the_classes_do(&nested, 0..WATCHED);
    }
    assert!(writes > 300_000 && splits == 3000, "{writes} writes, {splits} splits");
}
