//! Modules in memory: laid out as they must be, then spoiled.

use super::{Fuzz, Granted};
use crate::fuzz::{GENERAL_PROTECTION, SCRATCH, places};
use crate::memory::{PAGE, RW, peek, peek8, poke, poke8, root};
use crate::modules::object::Object;
use crate::modules::{
    self, ALPHA, BETA, CORE, Descriptor, FRAME_COUNT, FRAMES, GAMMA, INIT, Module, Place,
};
use crate::trap::{self, PAGE_FAULT};
use crate::{arch, cpu};

/// Modules at the places that they may be loaded at.
pub const CASES: usize = 4;

/// A module, its place, and whether it needs alpha in its small place.
fn case(index: usize) -> (Object, Place, bool) {
    match index {
        0 => (ALPHA, Place::small(0), false),
        1 => (BETA, Place::small(1), true),
        2 => (GAMMA, Place::small(2), false),
        _ => (ALPHA, Place::large(), false),
    }
}

/// Where a region's pages are kept as they must be.
fn kept(case: usize, init: bool) -> u64 {
    SCRATCH + 0x2_0000 * case as u64 + if init { 0x1_0000 } else { 0 }
}

fn is_small(case: usize) -> bool {
    case != 3
}

/// Pages of a case's region: of its code, and all.
fn pages(index: usize, init: bool) -> (u64, u64) {
    case(index).0.pages(init)
}

fn copy_page(from: u64, to: u64) {
    (0..PAGE).step_by(8).for_each(|at| poke(to + at, peek(from + at)));
}

/// Keeps every case as its kernel would load it.
pub fn keep() {
    for index in 0..CASES {
        modules::reset();
        let (object, place, needs) = case(index);
        let alpha = Module { object: ALPHA, place: Place::small(0) };
        let needed = if needs { Some(&alpha) } else { None };
        if is_small(index) {
            let slot = (place.core - Place::small(0).core) / 0x1_0000;
            Module::load_with(object, slot, needed);
        } else {
            Module::load_at(object, place, needed);
        }
        for init in [false, true] {
            for at in (0..pages(index, init).1 * PAGE).step_by(PAGE as usize) {
                copy_page(place.base(init) + at, kept(index, init) + at);
            }
        }
    }
    modules::reset();
}

/// The case that a unit must be an exact copy of to be granted, if it is one.
pub fn exact(unit: &Descriptor, name: &[u8; 64], init: bool) -> Option<usize> {
    let [base, size] = if init { unit.init } else { unit.core };
    (0..CASES).find(|&index| {
        let own = case(index).0.name.bytes();
        let code = pages(index, init).0;
        size == code * PAGE
            && own.eq(name.iter().copied().take_while(|&byte| byte != 0))
            && (is_reserved(base)
                || (0..code * PAGE).all(|at| {
                    // Where nothing was, there is INT3 now.
                    let (found, wanted) = (peek8(base + at), peek8(kept(index, init) + at));
                    found == wanted || found == 0xCC && wanted == 0
                }))
    })
}

/// Whether the page tables have a reserved bit set on the way to an address: the processor faults,
/// where SecVisor, which looks for no more than a frame, passes over it.
fn is_reserved(address: u64) -> bool {
    extern "C" fn read(address: u64) {
        peek8(address);
    }
    trap::attempt(read, address).is_some_and(|end| end.vector == PAGE_FAULT && end.error & 8 != 0)
}

/// The modules that a round is about.
pub struct Loaded {
    pub case: usize,
    /// Whether the small window was filled for it.
    small: bool,
}

impl Loaded {
    /// Loads one, and what it needs.
    pub fn choose(fuzz: &mut Fuzz<'_>, granted: &mut Granted) -> Self {
        // Most often the one that is verified fastest.
        let chosen = fuzz.random.pick(&[0, 1, 2, 2, 2, 3]);
        let mut frame = fuzz.random.below(FRAME_COUNT);
        let mut lay = |index: usize| {
            let place = case(index).1;
            for init in [false, true] {
                for page in 0..pages(index, init).1 {
                    let at = place.base(init) + page * PAGE;
                    if is_small(index) {
                        frame = (frame + 37) & (FRAME_COUNT - 1);
                        modules::map(at, FRAMES + frame * PAGE);
                    }
                    copy_page(kept(index, init) + page * PAGE, at);
                }
            }
        };
        lay(chosen);
        let loaded = Self { case: chosen, small: is_small(chosen) };
        if case(chosen).2 {
            lay(0);
            if !fuzz.random.one_in(4) {
                for (kind, init) in [(CORE, 0), (INIT, 1)] {
                    let unit = unit(0, kind);
                    if modules::call(modules::APPROVE, &unit) != 0 {
                        fuzz.fail(format_args!("an honest module was refused"));
                    }
                    granted.bases[0][init] = case(0).1.base(init != 0);
                    granted.certain[0][init] = true;
                }
            }
        }
        fuzz.risen();
        loaded
    }

    pub fn place(&self) -> Place {
        case(self.case).1
    }

    /// The honest descriptor of one of the regions.
    pub fn unit(&self, kind: u64) -> Descriptor {
        unit(self.case, kind)
    }

    /// Changes what is in memory, or what the page tables say of it, once in some times.
    pub fn spoil(&self, fuzz: &mut Fuzz<'_>, granted: &Granted) -> Spoiled {
        let init = fuzz.random.one_in(2) && pages(self.case, true).0 != 0;
        let code = pages(self.case, init).0;
        let base = self.place().base(init);
        match fuzz.random.below(16) {
            0..3 if self.small => {
                let entry = modules::entry(base + fuzz.random.below(code) * PAGE);
                let (old, frame) = (arch::read_entry(entry), places::frame(fuzz));
                let flags = match fuzz.random.below(4) {
                    0 => fuzz.random.value(),
                    1 => RW | fuzz.random.number() & 0xFFE,
                    _ => RW,
                };
                let frame = if fuzz.random.one_in(4) { old & !0xFFF } else { frame };
                set(entry, frame | flags);
                Spoiled::Entry(entry, old)
            }
            3 => {
                let entry = fuzz.random.pick(&modules::upper_entries());
                let old = arch::read_entry(entry);
                let new = match fuzz.random.below(3) {
                    0 => fuzz.random.value(),
                    1 => old ^ 1 << fuzz.random.below(64),
                    _ => places::frame(fuzz) | fuzz.random.pick(&[RW, RW | 0x80, RW | 4]),
                };
                set(entry, new);
                Spoiled::Entry(entry, old)
            }
            4..6 => {
                extern "C" fn flip(address: u64) {
                    poke8(address, peek8(address) ^ 1);
                }
                let at = base + fuzz.random.below(code * PAGE);
                let end = trap::attempt(flip, at);
                let here = granted.bases.iter().zip(&granted.certain).any(|(bases, certain)| {
                    bases[usize::from(init)] == base && certain[usize::from(init)]
                });
                let any = granted.bases.iter().flatten().any(|&base| base != 0);
                match end {
                    None if here => fuzz.fail(format_args!("approved code at {at:#x} changed")),
                    None => Spoiled::Byte(at),
                    Some(end) if any && end.vector == GENERAL_PROTECTION => {
                        fuzz.expect_risen(1, "a write to approved code", &end);
                        fuzz.count("write-refused");
                        Spoiled::Nothing
                    }
                    Some(end) => fuzz.unexpected(format_args!("a write at {at:#x}"), &end),
                }
            }
            _ => Spoiled::Nothing,
        }
    }
}

/// The honest descriptor of a case's region.
fn unit(index: usize, kind: u64) -> Descriptor {
    let (object, place, _) = case(index);
    Module { object, place }.unit(kind)
}

/// What was changed before a call, to be undone behind it.
pub enum Spoiled {
    Nothing,
    /// A page-table entry, and its old value.
    Entry(u64, u64),
    /// A bit of this byte.
    Byte(u64),
}

impl Spoiled {
    /// Whether what is granted may lie in other frames than those that are mapped behind the call.
    pub fn moves_frames(&self) -> bool {
        matches!(self, Self::Entry(..))
    }

    pub fn undo(self, fuzz: &mut Fuzz<'_>) {
        extern "C" fn flip(address: u64) {
            poke8(address, peek8(address) ^ 1);
        }
        match self {
            Self::Nothing => (),
            Self::Entry(entry, old) => set(entry, old),
            Self::Byte(at) => {
                // It may have been granted all the same: slack is anybody's until then.
                trap::attempt(flip, at);
                fuzz.risen();
            }
        }
    }
}

fn set(entry: u64, value: u64) {
    arch::write_entry(entry, value);
    cpu::write_cr3(root());
}
