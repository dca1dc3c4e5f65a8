//! Modules come and go on a fake memory that records what happens to it in which order.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU8, Ordering};

use proptest::prelude::*;

mod modules;
mod refusals;

use modules::{codes, list, loaded};

use super::*;
use crate::address::PhysicalRange;
use crate::approval::tests::WINDOW;
use crate::frame::FrameClass::{self, *};
use crate::hypercall::Region;
use crate::nested::Geometry;

const KERNEL: u64 = 0xffff_ffff_8100_0000;
/// Where the modules' regions are loaded.
const FAT: u64 = WINDOW.0 + 0x1_0000;
const FAT_INIT: u64 = WINDOW.0 + 0x5_0000;
const VFAT: u64 = WINDOW.0 + 0x9_0000;
const ZRAM: u64 = WINDOW.0 + 0xD_0000;
const ZRAM_INIT: u64 = WINDOW.0 + 0xE_0000;
const TABLES: u64 = 1 << 32;
/// Frames that can change.
const FRAMES: usize = 0x2000;
/// What the modules' pages hold outside of their sections.
const JUNK: u8 = 0x5A;

#[derive(Clone, PartialEq, Debug)]
enum Event {
    Table,
    Settle { owed: bool, frames: Vec<u32> },
    Read,
    Fill(u64, usize),
}
use Event::{Fill, Read, Settle, Table};

type Log = Rc<RefCell<Vec<Event>>>;

#[derive(Default)]
struct Tables {
    entries: HashMap<u64, u64>,
    log: Log,
}

impl TableMemory for Tables {
    fn read(&self, at: u64) -> u64 {
        self.entries.get(&at).copied().unwrap_or(0)
    }
    fn write(&mut self, at: u64, value: u64) {
        self.log.borrow_mut().push(Table);
        self.entries.insert(at, value);
    }
}

/// Pages by frame, and the guest's tables: frames by virtual page address.
#[derive(Clone, Default)]
struct Memory {
    pages: HashMap<u64, Vec<u8>>,
    mapped: HashMap<u64, u64>,
    log: Log,
}

impl CodeMemory for Memory {
    fn translate(&self, gva: Gva) -> Option<Gpa> {
        self.mapped.get(&gva.0).map(|frame| Gpa(frame * PAGE_SIZE))
    }
    fn settle(&mut self, duty: FlushDuty, frames: &[u32]) {
        let mut owed = false;
        duty.discharge(|| owed = true);
        self.log.borrow_mut().push(Settle { owed, frames: frames.to_vec() });
    }
    fn read(&self, gpa: Gpa, to: &mut [u8]) -> usize {
        if self.log.borrow().last() != Some(&Read) {
            self.log.borrow_mut().push(Read);
        }
        let at = (gpa.0 % PAGE_SIZE) as usize;
        let count = to.len().min(4096 - at);
        to[..count].copy_from_slice(&self.pages[&gpa.frame()][at..at + count]);
        count
    }
    fn fill(&mut self, gpa: Gpa, length: usize) -> usize {
        let at = (gpa.0 % PAGE_SIZE) as usize;
        let count = length.min(4096 - at);
        self.log.borrow_mut().push(Fill(gpa.0, count));
        self.pages.get_mut(&gpa.frame()).unwrap()[at..at + count].fill(0xCC);
        count
    }
}

fn unit(kind: UnitKind, name: &str, core: (u64, u64), init: (u64, u64)) -> Unit {
    let region = |(base, size)| Region { base, size };
    let mut padded = [0; 64];
    padded[..name.len()].copy_from_slice(name.as_bytes());
    Unit { kind, core: region(core), init: region(init), name: padded }
}

fn fat_core() -> Unit {
    unit(UnitKind::ModuleCore, "fat", (FAT, 0x3000), (FAT_INIT, 0x1000))
}

fn fat_init() -> Unit {
    Unit { kind: UnitKind::ModuleInit, ..fat_core() }
}

fn vfat_core() -> Unit {
    unit(UnitKind::ModuleCore, "vfat", (VFAT, 0x1000), (0, 0))
}

fn release_at(base: u64) -> Unit {
    unit(UnitKind::ModuleCore, "", (base, 0), (base, 0))
}

/// What the test does with units, tables and memory.
struct Guest<'a> {
    units: Units<'a>,
    nested: Nested<'a, Tables>,
    memory: Memory,
}

impl Guest<'_> {
    fn approve(&mut self, unit: &Unit) -> Result<(), (Error, String)> {
        let result = self.units.approve(unit, &mut self.nested, &mut self.memory);
        result.map_err(|refused| (refused.error, refused.to_string()))
    }

    fn release(&mut self, unit: &Unit) -> Result<String, Error> {
        let name = self.units.release(unit, &mut self.nested, &mut self.memory)?;
        Ok(crate::violation::plain_text(&name).unwrap().into())
    }

    fn classes(&self) -> Vec<u8> {
        let classes = self.nested.classes().iter().take(FRAMES);
        classes.map(|class| class.load(Ordering::Relaxed)).collect()
    }

    fn bases(&self) -> Vec<u64> {
        self.units.slots.iter().map(|slot| slot.base).collect()
    }

    fn class(&self, frame: u64) -> FrameClass {
        self.nested.class(frame)
    }

    fn poke(&mut self, gva: u64, change: u8) {
        let frame = self.memory.mapped[&(gva & !0xFFF)];
        self.memory.pages.get_mut(&frame).unwrap()[(gva & 0xFFF) as usize] ^= change;
    }
}

/// Runs `test` on a machine of 32 MiB whose kernel is approved.
fn with_guest<R>(test: impl FnOnce(Guest<'_>) -> R) -> R {
    let bytes = list();
    let list = ApprovalList::parse(&bytes).unwrap();
    let log = Log::default();
    let geometry = Geometry::new(32 << 20, 36, true, false);
    let classes: Vec<_> = (0..geometry.frames())
        .map(|frame| {
            AtomicU8::new(match frame {
                0x1000..0x1003 => Approved,
                0x1F00 => Hidden,
                0x1F01 => Guarded,
                1..0x2000 => Data,
                _ => Device,
            } as u8)
        })
        .collect();
    let mut leaves = vec![0; geometry.regions() as usize];
    let reserved = PhysicalRange::new(TABLES, geometry.table_pages(17) * PAGE_SIZE).unwrap();
    let tables = Tables { log: log.clone(), ..Tables::default() };
    let nested = Nested::build(tables, geometry, &classes, &mut leaves, reserved).unwrap();
    let room = Units::room(&list);
    let (mut slots, mut frames) =
        (vec![Slot::default(); room.0 as usize], vec![0; room.1 as usize]);
    let units = Units::new(list, &mut slots, &mut frames).unwrap();
    log.borrow_mut().clear();
    test(Guest { units, nested, memory: loaded(&log) })
}

#[test]
fn room_is_what_the_units_take() {
    let bytes = list();
    let list = ApprovalList::parse(&bytes).unwrap();
    assert_eq!(Units::room(&list), (8, 3 + 3 + 1 + 1 + 2));
    let mut slots = [Slot::default(); 8];
    assert!(Units::new(list, &mut slots, &mut [0; 9]).is_none());
    assert!(Units::new(list, &mut slots, &mut [0; 11]).is_none());
    assert!(Units::new(list, &mut slots[..7], &mut [0; 10]).is_none());
    assert!(Units::new(list, &mut [Slot::default(); 9], &mut [0; 10]).is_none());
    assert!(Units::new(list, &mut slots, &mut [0; 10]).is_some());
}

#[test]
fn modules_come_and_go_and_leave_nothing() {
    with_guest(|mut guest| {
        let (classes, bases) = (guest.classes(), guest.bases());
        for _ in 0..3 {
            guest.approve(&fat_core()).unwrap();
            guest.approve(&fat_init()).unwrap();
            guest.approve(&vfat_core()).unwrap();
            for frame in [0x1500, 0x1203, 0x1501, 0x1100, 0x1202] {
                assert_eq!(guest.class(frame), Approved);
            }
            assert_eq!(guest.release(&release_at(FAT_INIT)).unwrap(), "fat/init");
            assert_eq!(guest.class(0x1100), Data);
            assert_eq!(guest.class(0x1500), Approved);
            assert_eq!(guest.release(&release_at(VFAT)).unwrap(), "vfat/core");
            assert_eq!(guest.release(&release_at(FAT)).unwrap(), "fat/core");
            assert_eq!((guest.classes(), guest.bases()), (classes.clone(), bases.clone()));
        }
        let pages = |guest: &Guest<'_>| guest.memory.pages.clone();
        let after_one = (pages(&guest), guest.nested.memory().entries.clone());
        for _ in 0..10_000 {
            guest.approve(&fat_core()).unwrap();
            guest.release(&release_at(FAT)).unwrap();
        }
        assert_eq!((guest.classes(), guest.bases()), (classes, bases));
        assert_eq!((pages(&guest), guest.nested.memory().entries.clone()), after_one);
    });
}

#[test]
fn everything_happens_in_the_order_that_keeps_the_guarantee() {
    with_guest(|mut guest| {
        guest.approve(&fat_core()).unwrap();
        let log: Vec<_> = guest.memory.log.borrow_mut().drain(..).collect();
        let split = log.iter().take_while(|event| **event == Table).count();
        assert!(split >= 6, "three frames in two views");
        let frames = vec![0x1500, 0x1203, 0x1501];
        let expected = [
            vec![Settle { owed: true, frames }, Read],
            // The gap between the sections, the slack of the last page.
            vec![Fill(0x120_3801, 0xFF), Fill(0x150_1100, 0xF00)],
            vec![Table; 6],
            vec![Settle { owed: false, frames: vec![] }],
        ];
        assert_eq!(log[split..], expected.concat());
        guest.release(&release_at(FAT)).unwrap();
        let expected = [
            vec![Table; 6],
            vec![Settle { owed: true, frames: vec![] }],
            vec![Table; 6],
            vec![Settle { owed: false, frames: vec![] }],
        ];
        assert_eq!(*guest.memory.log.borrow(), expected.concat());
    });
}

#[test]
fn what_is_approved_is_approved_in_every_byte() {
    with_guest(|mut guest| {
        guest.approve(&fat_core()).unwrap();
        guest.approve(&fat_init()).unwrap();
        let [fat, ..] = codes();
        for (init, frames) in [(false, &[0x1500, 0x1203, 0x1501][..]), (true, &[0x1100])] {
            for (at, byte) in frames.iter().flat_map(|frame| &guest.memory.pages[frame]).enumerate()
            {
                let mut sections = fat.iter().filter(|code| code.init == init);
                let inside = sections.any(|code| {
                    (code.offset as usize..code.offset as usize + code.bytes.len()).contains(&at)
                });
                assert!(inside || *byte == 0xCC, "{at:#x}");
            }
        }
    });
}

#[test]
fn a_module_that_moved_needs_its_users_to_move_with_it() {
    with_guest(|mut guest| {
        guest.approve(&fat_core()).unwrap();
        guest.approve(&vfat_core()).unwrap();
        guest.release(&release_at(VFAT)).unwrap();
        guest.release(&release_at(FAT)).unwrap();
        assert_eq!(guest.approve(&vfat_core()).unwrap_err().0, Error::NoEntry);
        guest.approve(&fat_core()).unwrap();
        guest.approve(&vfat_core()).unwrap();
    });
}

#[test]
fn only_what_was_approved_is_released() {
    with_guest(|mut guest| {
        guest.approve(&fat_core()).unwrap();
        let kernel = |base, size| unit(UnitKind::KernelInit, "kernel", (0, 0), (base, size));
        let before = (guest.classes(), guest.bases());
        for (error, unit) in [
            (Error::NoEntry, release_at(0)),
            (Error::NoEntry, release_at(VFAT)),
            (Error::NoEntry, release_at(FAT_INIT)),
            (Error::NoEntry, release_at(FAT + 0x1000)),
            (Error::NotPermitted, release_at(KERNEL)),
            (Error::NotPermitted, release_at(KERNEL + 0x2000)),
            (Error::NotPermitted, kernel(KERNEL, 0x2000)),
            (Error::NotPermitted, kernel(FAT, 0x3000)),
            (Error::NoEntry, kernel(KERNEL + 0x3000, 0x1000)),
            (Error::Invalid, kernel(KERNEL + 0x2000, 0x2000)),
            (Error::Invalid, unit(UnitKind::ModuleCore, "fat", (FAT, 0x1000), (0, 0))),
        ] {
            assert_eq!(guest.release(&unit).unwrap_err(), error, "{unit:?}");
        }
        assert_eq!((guest.classes(), guest.bases()), before);
        assert_eq!(guest.release(&kernel(KERNEL + 0x2000, 0x1000)).unwrap(), "kernel/.init.text");
        assert_eq!(guest.class(0x1002), Data);
        assert_eq!(guest.release(&kernel(KERNEL + 0x2000, 0x1000)), Err(Error::NoEntry));
        guest.release(&release_at(FAT)).unwrap();
        assert_eq!(guest.release(&release_at(FAT)), Err(Error::NoEntry));
    });
}

#[test]
fn records_name_the_nearest_unit() {
    with_guest(|mut guest| {
        guest.approve(&fat_core()).unwrap();
        let nearest = |guest: &Guest<'_>, rip| {
            let name = guest.units.nearest(Gva(rip));
            crate::violation::plain_text(&name).unwrap().to_owned()
        };
        assert_eq!(nearest(&guest, KERNEL + 0x1FFF), "kernel/.text");
        assert_eq!(nearest(&guest, KERNEL + 0x2000), "kernel/.init.text");
        assert_eq!(nearest(&guest, FAT + 0x10), "fat/core");
        assert_eq!(nearest(&guest, u64::MAX), "fat/core");
        assert_eq!(nearest(&guest, 0x1000), "kernel/.text");
        guest.release(&release_at(FAT)).unwrap();
        assert_eq!(nearest(&guest, FAT + 0x10), "kernel/.init.text");
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_is_asked_frames_and_units_agree(
        calls in prop::collection::vec((0u8..8, any::<u16>(), 0u64..4, 0u64..0x40), 1..24)
    ) {
        with_guest(|mut guest| {
            let before = guest.classes();
            for frame in 0x1000..0x2000 {
                guest.memory.pages.entry(frame).or_insert_with(|| vec![0; 4096]);
            }
            for (what, change, page, offset) in calls {
                match what {
                    0 => drop(guest.approve(&fat_core())),
                    1 => drop(guest.approve(&fat_init())),
                    2 => drop(guest.approve(&vfat_core())),
                    3 => drop(guest.release(&release_at([FAT, FAT_INIT, VFAT, KERNEL][page as usize]))),
                    4 => guest.memory.mapped.insert(FAT + page * PAGE_SIZE, 0x1000 + u64::from(change) % 0x1000).map_or((), drop),
                    5 => guest.memory.mapped.insert(FAT + page % 3 * PAGE_SIZE, [0x1500, 0x1203, 0x1501][page as usize % 3]).map_or((), drop),
                    6 if guest.memory.mapped[&FAT_INIT] == 0x1100 && guest.class(0x1100) == Data => guest.poke(FAT_INIT + offset, change as u8),
                    _ => {}
                }
                // A frame is approved exactly if a unit has it, and no two units have it.
                let mut owned = HashMap::new();
                for slot in guest.units.slots.iter().filter(|slot| slot.base != 0) {
                    for frame in &guest.units.frames[slot.frames()] {
                        *owned.entry(*frame as usize).or_insert(0) += 1;
                    }
                }
                prop_assert!(owned.values().all(|&owners| owners == 1));
                for (frame, (&class, &old)) in guest.classes().iter().zip(&before).enumerate() {
                    let expected = if owned.contains_key(&frame) { Approved as u8 } else { old };
                    prop_assert_eq!(class, expected, "frame {:#x}", frame);
                }
            }
            Ok(())
        })?;
    }
}
