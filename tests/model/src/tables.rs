//! The policy crate's own objects on memory that can be stopped at any access.
//!
//! A call into the policy cannot be suspended, but repeated: it is run anew from its start with the
//! answers that it got so far, as far as the next access to memory. That access alone is what the
//! model then performs; what the run does afterwards is thrown away.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU8, Ordering};

use policy::PAGE_SIZE;
use policy::address::{Gpa, Gva, PhysicalRange};
use policy::approval::ApprovalList;
use policy::flush::FlushDuty;
use policy::frame::{Access, FrameClass, View};
use policy::hypercall::{Operation, Unit};
use policy::nested::{Geometry, Nested, TableMemory, class_in};
use policy::units::{CodeMemory, Slot, Units};
use policy::walk::Paging;

use crate::image::{Image, KERNEL_CODE, UnitNumber, Value, cells};

/// Frames of the model: the kernel's code, three in the adversary's hands, the kernel's init code, one of
/// SecVisor's.
pub const FRAMES: usize = 6;
/// The kernel's code.
pub const KERNEL: usize = 0;
/// The kernel's init code.
pub const INIT: usize = HIDDEN - 1;
/// A frame of SecVisor: the root of the kernel view's tables, or of the only ones.
pub const HIDDEN: usize = FRAMES - 1;
/// Slots for units in the list: the kernel's code and init code, a page each, and the module's core and
/// init code.
const SLOTS: usize = 2 + 2;

/// Where the nested tables lie, in the same 2 MiB as all frames of the model.
const TABLES: u64 = KERNEL_CODE + 0x10_0000;
const FIRST: u64 = KERNEL_CODE / PAGE_SIZE;
/// Entries of nested tables (APM vol. 2, 5.4.1 and 15.25).
const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;

/// Number of a frame of the model.
pub fn number(index: usize) -> u64 {
    if index == HIDDEN { TABLES / PAGE_SIZE } else { FIRST + index as u64 }
}

/// The frame of the model with this number.
pub fn index(number: u64) -> Option<usize> {
    (0..FRAMES).find(|&it| self::number(it) == number)
}

/// What the guest's page tables can say of an address: nothing; each frame of the model; a large page,
/// which maps the window's first pages to the first frames; a device; more than SecVisor can count.
pub const TARGETS: u8 = FRAMES as u8 + 4;

/// Where tables that say so map `gva`, by the policy's own walk.
pub fn walk(target: u8, gva: Gva) -> Option<Gpa> {
    const ROOT: u64 = 0x1800;
    const FLAGS: u64 = 7;
    const LARGE: u64 = 1 << 7;
    const LARGE_PAGE: usize = FRAMES + 1;
    const DEVICE: usize = FRAMES + 2;
    let leaf = match usize::from(target) {
        0 => 0,
        frame @ 1..=FRAMES => FLAGS | (number(frame - 1) * PAGE_SIZE),
        LARGE_PAGE => KERNEL_CODE | FLAGS | LARGE,
        DEVICE => 0xFEE0_0000 | FLAGS,
        _ => 1 << 50 | FLAGS,
    };
    Paging::FourLevels.translate(ROOT * PAGE_SIZE, gva, |at| {
        Some(match at.frame() - ROOT {
            2 if leaf & LARGE != 0 => leaf,
            level @ 0..=2 => FLAGS | ((ROOT + level + 1) * PAGE_SIZE),
            _ => leaf,
        })
    })
}

/// An access of SecVisor to memory that others see or change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the arguments of the call that it is")]
pub enum Touch {
    Table { at: u64, value: u64 },
    Translate { gva: u64 },
    Settle { owed: bool },
    Read { gpa: u64, length: u64 },
    Fill { gpa: u64, length: u64 },
}

/// What of the policy's state a call begins with.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Kept {
    /// Classes of the frames.
    pub classes: [u8; FRAMES],
    /// Entries of the frames in both views; with GMET the same.
    pub leaves: [[u64; FRAMES]; 2],
    /// What the levels above let through: set where all of them say so, NX where none does.
    above: [u64; 2],
    /// One table holds both views, and the processor tells the modes apart.
    pub gmet: bool,
    slots: [Slot; SLOTS],
    frames: Vec<u32>,
}

impl Kept {
    /// What the tables let the guest do with a frame in a view, or with GMET in a mode, if they lead to
    /// the frame itself. Without GMET all that a guest does counts as the user's.
    pub fn access(&self, view: View, frame: usize) -> Option<Access> {
        let leaf = self.leaves[view as usize][frame];
        let flags = (leaf ^ NO_EXECUTE) & self.above[view as usize];
        let user = flags & USER != 0;
        if flags & PRESENT == 0 || !(user || self.gmet) {
            return Some(Access::NONE);
        }
        let traps = self.gmet && user && view == View::Kernel;
        let own = leaf & ADDRESS == number(frame) * PAGE_SIZE;
        own.then_some(Access {
            read: true,
            write: flags & WRITABLE != 0,
            execute: flags & NO_EXECUTE != 0 && !traps,
        })
    }

    /// What a refused call leaves of frame numbers in the room of a unit that is not approved counts for
    /// nothing: the worst that could be left there is the kernel's frame.
    pub fn forget(&mut self, image: &Image, unit: UnitNumber) {
        let first = 2 + image.pages[..unit].iter().sum::<usize>();
        self.frames[first..first + image.pages[unit]].fill(FIRST as u32);
    }
}

/// How far a call came.
pub enum Outcome {
    /// To this access, with these classes.
    At(Touch, [u8; FRAMES]),
    /// To its end; whether it was successful.
    Done(bool, Kept),
}

#[derive(Default)]
struct Run {
    /// Accesses to be repeated, and those seen.
    repeat: usize,
    seen: usize,
    answers: Vec<u8>,
    used: usize,
    next: Option<(Touch, [u8; FRAMES])>,
}

/// Memory of the tables and of the guest, as one run of the policy sees it.
struct Shared<'a> {
    image: &'a Image,
    classes: &'a [AtomicU8],
    words: RefCell<Vec<u64>>,
    run: RefCell<Run>,
}

fn classes_in(classes: &[AtomicU8]) -> [u8; FRAMES] {
    std::array::from_fn(|index| class_in(classes, number(index)) as u8)
}

impl Shared<'_> {
    /// Whether this access is one that is repeated; the first that is not is where the run ends.
    fn repeats(&self, touch: Touch) -> bool {
        let run = &mut *self.run.borrow_mut();
        let repeats = run.seen < run.repeat;
        if run.seen == run.repeat {
            run.next = Some((touch, classes_in(self.classes)));
        }
        run.seen += 1;
        repeats
    }

    fn answers(&self, count: usize) -> Vec<u8> {
        let run = &mut *self.run.borrow_mut();
        run.used += count;
        run.answers[run.used - count..run.used].to_vec()
    }

    fn is_ram(&self, gpa: Gpa) -> bool {
        use FrameClass::{Approved, Data, Pending};
        matches!(class_in(self.classes, gpa.frame()), Data | Approved | Pending)
    }
}

struct Tables<'a>(&'a Shared<'a>);

impl TableMemory for Tables<'_> {
    fn read(&self, at: u64) -> u64 {
        self.0.words.borrow()[((at - TABLES) / 8) as usize]
    }

    fn write(&mut self, at: u64, value: u64) {
        if self.0.repeats(Touch::Table { at, value }) {
            self.0.words.borrow_mut()[((at - TABLES) / 8) as usize] = value;
        }
    }
}

struct Guest<'a>(&'a Shared<'a>);

impl CodeMemory for Guest<'_> {
    fn translate(&self, gva: Gva) -> Option<Gpa> {
        let repeats = self.0.repeats(Touch::Translate { gva: gva.0 });
        repeats.then(|| walk(self.0.answers(1)[0], gva)).flatten()
    }

    fn settle(&mut self, duty: FlushDuty, _: &[u32]) {
        let mut owed = false;
        duty.discharge(|| owed = true);
        self.0.repeats(Touch::Settle { owed });
    }

    fn read(&self, gpa: Gpa, to: &mut [u8]) -> usize {
        if !self.0.is_ram(gpa) {
            return 0;
        }
        let offset = gpa.0 % PAGE_SIZE;
        let length = (to.len() as u64).min(PAGE_SIZE - offset);
        if self.0.repeats(Touch::Read { gpa: gpa.0, length }) {
            let cells = cells(offset, length);
            let values: Vec<Value> = self.0.answers(cells.len());
            for (at, byte) in (offset..).zip(&mut to[..length as usize]) {
                let value = values[self::cells(at, 1).start - cells.start];
                *byte = self.0.image.byte(at, value);
            }
        }
        length as usize
    }

    fn fill(&mut self, gpa: Gpa, length: usize) -> usize {
        if !self.0.is_ram(gpa) {
            return length;
        }
        let length = (length as u64).min(PAGE_SIZE - gpa.0 % PAGE_SIZE);
        self.0.repeats(Touch::Fill { gpa: gpa.0, length });
        length as usize
    }
}

/// The policy, as the hypervisor sets it up at launch.
pub struct Policy<'a> {
    shared: &'a Shared<'a>,
    nested: Nested<'a, Tables<'a>>,
    list: ApprovalList<'a>,
    /// Where the entries of the frames lie, in each view; with GMET in the same place.
    entries: [[u64; FRAMES]; 2],
    /// How it all begins.
    pub launched: Kept,
}

/// Runs `body` with the policy after a launch, on a processor with or without GMET.
pub fn with_policy<R>(image: &Image, gmet: bool, body: impl FnOnce(Policy<'_>) -> R) -> R {
    let bytes = image.list();
    let list = ApprovalList::parse(&bytes).expect("the model's approval list is well-formed");
    let geometry = Geometry::new(64 << 20, 36, true, gmet);
    let pages = geometry.table_pages(32);
    let reserved = PhysicalRange::new(TABLES, pages * PAGE_SIZE).expect("a range");
    let class = |frame: u64| match frame {
        _ if [KERNEL, INIT].map(number).contains(&frame) => FrameClass::Approved,
        _ if reserved.contains_address(frame * PAGE_SIZE) => FrameClass::Hidden,
        0..0x4000 => FrameClass::Data,
        _ => FrameClass::Device,
    };
    let classes: Vec<_> =
        (0..geometry.frames()).map(|frame| AtomicU8::new(class(frame) as u8)).collect();
    let mut leaves = vec![0; geometry.regions() as usize];
    let words = RefCell::new(vec![0; (pages * PAGE_SIZE / 8) as usize]);
    let run = RefCell::new(Run { repeat: usize::MAX, ..Run::default() });
    let shared = Shared { image, classes: &classes, words, run };
    let tables = Tables(&shared);
    let nested = Nested::build(tables, geometry, &classes, &mut leaves, reserved)
        .expect("the tables have room");
    let (mut slots, mut frames) =
        ([Slot::default(); SLOTS], vec![0; image.pages.iter().sum::<usize>() + 2]);
    Units::new(list, &mut slots, &mut frames).expect("the units have room");
    let mut policy = Policy {
        shared: &shared,
        entries: [[0; FRAMES]; 2],
        launched: Kept {
            classes: classes_in(&classes),
            leaves: [[0; FRAMES]; 2],
            above: [0; 2],
            gmet,
            slots,
            frames,
        },
        nested,
        list,
    };
    for view in View::ALL {
        for frame in 0..FRAMES {
            let (at, above) = policy.find_entry(view, number(frame));
            policy.launched.above[view as usize] = above;
            policy.entries[view as usize][frame] = at;
            policy.launched.leaves[view as usize][frame] = policy.word(at);
        }
    }
    (0..2).for_each(|unit| policy.launched.forget(image, unit));
    body(policy)
}

impl Policy<'_> {
    fn word(&self, at: u64) -> u64 {
        self.shared.words.borrow()[((at - TABLES) / 8) as usize]
    }

    /// Where a walk of the processor finds the entry of a frame, and what the levels above let through:
    /// the same for all frames of the model.
    fn find_entry(&self, view: View, frame: u64) -> (u64, u64) {
        let (mut table, mut above) = (self.nested.root(view), u64::MAX);
        for shift in [27, 18, 9] {
            let entry = self.word(table + (frame >> shift & 511) * 8);
            (table, above) = (entry & ADDRESS, above & (entry ^ NO_EXECUTE));
        }
        (table + (frame & 511) * 8, above)
    }

    /// The frame whose entry lies at this address, and the views that it is part of.
    pub fn entry_at(&self, at: u64) -> Option<(usize, impl Iterator<Item = View>)> {
        let frame = (0..FRAMES).find(|&it| self.entries.iter().any(|view| view[it] == at))?;
        let views = View::ALL.into_iter();
        let entries = &self.entries;
        Some((frame, views.filter(move |&view| entries[view as usize][frame] == at)))
    }

    /// Runs a call from `kept` on, with what it was answered so far, to its next access.
    pub fn run(
        &mut self,
        operation: Operation,
        unit: &Unit,
        kept: &Kept,
        repeat: usize,
        answers: &[u8],
    ) -> Outcome {
        *self.shared.run.borrow_mut() = Run { repeat, answers: answers.to_vec(), ..Run::default() };
        for frame in 0..FRAMES {
            let place = &self.shared.classes[number(frame) as usize];
            place.store(kept.classes[frame], Ordering::Relaxed);
            for view in 0..2 {
                let at = self.entries[view][frame] - TABLES;
                self.shared.words.borrow_mut()[(at / 8) as usize] = kept.leaves[view][frame];
            }
        }
        let (mut slots, mut frames) = (kept.slots, kept.frames.clone());
        let (above, gmet) = (kept.above, kept.gmet);
        let mut units = Units::resume(self.list, &mut slots, &mut frames);
        let (nested, mut guest) = (&mut self.nested, Guest(self.shared));
        let successful = match operation {
            Operation::Approve => units.approve(unit, nested, &mut guest).is_ok(),
            Operation::Release => units.release(unit, nested, &mut guest).is_ok(),
        };
        if let Some((touch, classes)) = self.shared.run.borrow_mut().next.take() {
            return Outcome::At(touch, classes);
        }
        let leaves = self.entries.map(|view| view.map(|at| self.word(at)));
        let classes = classes_in(self.shared.classes);
        Outcome::Done(successful, Kept { classes, leaves, above, gmet, slots, frames })
    }
}
