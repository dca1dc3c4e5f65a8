//! Hypercalls with any arguments, one access to memory at a time.

use std::rc::Rc;

use policy::PAGE_SIZE;
use policy::address::Gpa;
use policy::frame::{FrameClass, View};
use policy::hypercall::{Operation, UNIT_BYTES, Unit, UnitKind};

use crate::image::{ANYTHING, BASES, CELLS, INIT_BASE, Image, KERNEL_BASE, MODULE, Value, cells};
use crate::property::Property;
use crate::state::{Flight, Grant, State, Use};
use crate::tables::{FRAMES, Kept, Outcome, Policy, Touch, index};

/// A call that the guest can make: what RBX says, and the descriptor.
#[derive(Clone, Debug)]
pub struct Call {
    /// Approve or release.
    pub operation: Operation,
    /// The unit, as the policy read it.
    pub unit: Unit,
}

/// The bytes of a descriptor.
fn descriptor(kind: u32, name: &str, regions: [(u64, u64); 2]) -> [u8; UNIT_BYTES] {
    let mut bytes = [0; UNIT_BYTES];
    bytes[0] = 1;
    bytes[4..8].copy_from_slice(&kind.to_le_bytes());
    let words = regions.into_iter().flat_map(|(base, size)| [base, size]);
    for (slot, word) in bytes[8..40].chunks_mut(8).zip(words) {
        slot.copy_from_slice(&word.to_le_bytes());
    }
    bytes[64..64 + name.len()].copy_from_slice(name.as_bytes());
    bytes
}

/// All calls that the policy can read. Of the region that is not meant only the base is varied.
pub fn calls(image: &Image, bases: usize) -> Vec<Call> {
    let bases = [&[0, KERNEL_BASE, INIT_BASE, BASES[0] + 1], &BASES[..bases]].concat();
    let places: Vec<_> =
        bases.iter().flat_map(|core| bases.iter().map(move |init| [*core, *init])).collect();
    let mut calls = Vec::new();
    for (rbx, kind) in (0..=2).flat_map(|rbx| (0..=3).map(move |kind| (rbx, kind))) {
        let meant = usize::from(kind != 1);
        let right = image.pages.map(|pages| pages as u64 * PAGE_SIZE);
        for size in [0, right[meant], right[meant] + PAGE_SIZE] {
            let mut sizes = right;
            sizes[meant] = size;
            for (name, bases) in
                [MODULE, "other"].iter().flat_map(|it| places.iter().map(move |at| (it, at)))
            {
                let regions = [(bases[0], sizes[0]), (bases[1], sizes[1])];
                let unit = Unit::parse(&descriptor(kind, name, regions));
                if let (Ok(operation), Ok(unit)) = (Operation::from_rbx(rbx), unit) {
                    calls.push(Call { operation, unit });
                }
            }
        }
    }
    calls
}

impl Call {
    fn number(&self) -> usize {
        usize::from(self.unit.kind != UnitKind::ModuleCore)
    }

    /// What the frame of a page of this unit must hold to be granted.
    fn right(&self, image: &Image, state: &State, page: usize) -> Option<[Value; CELLS]> {
        let core = match self.unit.kind {
            UnitKind::ModuleCore => self.unit.core.base,
            _ => state.grants[0]?.base,
        };
        image.right(self.number(), page, core, self.unit.init.base)
    }

    /// The page of this unit that a frame holds, every byte as the owner approved it.
    fn page(&self, image: &Image, state: &State, frame: usize) -> Option<usize> {
        (0..image.pages[self.number()]).find(|&page| {
            self.right(image, state, page).is_some_and(|it| it == state.contents[frame])
        })
    }
}

/// Answers that an access can get, each with what it leaves behind.
type Steps = Vec<Result<State, Property>>;

/// The next access of the call in progress, or the first of `call`. `targets` is what the guest's page
/// tables may say of an address when it is walked.
pub fn step(
    policy: &mut Policy<'_>,
    image: &Image,
    state: &State,
    call: (u16, &Call),
    targets: &dyn Fn(u64) -> Vec<u8>,
) -> Steps {
    let mut next = state.clone();
    let begun = Flight {
        call: call.0,
        start: state.kept.clone(),
        accesses: 0,
        answers: Vec::new(),
        settles: false,
    };
    let mut flight = next.flight.take().unwrap_or(begun);
    if flight.settles {
        flight.settles = false;
        for frame in 0..FRAMES {
            next.relied_upon[frame] |=
                matches!(next.class(frame), FrameClass::Pending | FrameClass::Approved);
        }
    }
    let call = call.1;
    let (repeat, start) = (flight.accesses.into(), flight.start.clone());
    let outcome = policy.run(call.operation, &call.unit, &start, repeat, &flight.answers);
    let (touch, classes) = match outcome {
        Outcome::At(touch, classes) => (touch, classes),
        Outcome::Done(false, kept) if repeat == 0 && kept == *start => return Vec::new(),
        Outcome::Done(successful, kept) => {
            return vec![finish(image, next, call, &start, successful, kept)];
        }
    };
    flight.accesses += 1;
    next.flight = Some(flight);
    match touch {
        Touch::Table { at, value } => {
            vec![write_table(policy, image, next, call, at, value, classes)]
        }
        Touch::Settle { owed } => {
            if owed {
                next.request_flush();
            }
            if let Some(flight) = &mut next.flight {
                flight.settles = true;
            }
            vec![Ok(next)]
        }
        Touch::Translate { gva } => {
            let targets = targets(gva).into_iter();
            targets.map(|target| Ok(answered(&next, &[target]))).collect()
        }
        Touch::Read { gpa, length } => read(image, &next, gpa, length),
        Touch::Fill { gpa, length } => {
            fill(image, &mut next, gpa, length);
            vec![Ok(next)]
        }
    }
}

fn answered(state: &State, answers: &[u8]) -> State {
    let mut next = state.clone();
    if let Some(flight) = &mut next.flight {
        flight.answers.extend(answers);
    }
    next
}

/// SecVisor reads code: where the adversary can still write, it may read anything; elsewhere what it
/// reads stays.
fn read(image: &Image, state: &State, gpa: u64, length: u64) -> Steps {
    let Some(frame) = index(Gpa(gpa).frame()) else { return vec![Err(Property::Granted)] };
    if (0..FRAMES).any(|frame| state.is_stale(frame)) {
        return vec![Err(Property::Flush)];
    }
    let stays = !state.reach(frame).allow(Use::Write);
    let mut found: Vec<(State, Vec<u8>)> = vec![(state.clone(), Vec::new())];
    for cell in cells(gpa % PAGE_SIZE, length) {
        let values = match state.contents[frame][cell] {
            ANYTHING => image.values(cell),
            value => value..=value,
        };
        let extended = found.iter().flat_map(|(state, answers)| {
            values.clone().map(move |value| {
                let mut next = state.clone();
                if stays {
                    next.contents[frame][cell] = value;
                }
                (next, [answers.as_slice(), &[value]].concat())
            })
        });
        found = extended.collect();
    }
    found.iter().map(|(next, answers)| Ok(answered(next, answers))).collect()
}

fn fill(image: &Image, state: &mut State, gpa: u64, length: u64) {
    let Some(frame) = index(Gpa(gpa).frame()) else { return };
    if !state.reach(frame).allow(Use::Write) {
        for cell in cells(gpa % PAGE_SIZE, length) {
            state.contents[frame][cell] = image.filled(cell);
        }
    }
}

/// SecVisor writes an entry of the nested tables; what the frame's class is now was stored before.
fn write_table(
    policy: &Policy<'_>,
    image: &Image,
    mut state: State,
    call: &Call,
    at: u64,
    value: u64,
    classes: [u8; FRAMES],
) -> Result<State, Property> {
    let (frame, views) = policy.entry_at(at).ok_or(Property::Entries)?;
    let [old, new] = [state.kept.classes, classes].map(|it| FrameClass::from_byte(it[frame]));
    let loosens = View::ALL.into_iter().any(|view| old.access(view).tightens(new.access(view)));
    if loosens && (0..FRAMES).any(|frame| state.is_stale(frame)) {
        return Err(Property::Flush);
    }
    if call.operation == Operation::Release
        && own(&state, call).is_none_or(|it| it & 1 << frame == 0)
    {
        return Err(Property::Release);
    }
    let executable = |state: &State| state.allowed(View::Kernel)[frame].allow(Use::Fetch);
    let was_executable = executable(&state);
    let kept = Rc::make_mut(&mut state.kept);
    kept.classes = classes;
    views.for_each(|view| kept.leaves[view as usize][frame] = value);
    if executable(&state) && !was_executable {
        if call.operation != Operation::Approve || call.page(image, &state, frame).is_none() {
            return Err(Property::Granted);
        }
        state.verified[frame] = true;
    }
    state.fill_caches();
    state.relied_upon[frame] &= matches!(new, FrameClass::Pending | FrameClass::Approved);
    if loosens && state.reach(frame).allow(Use::Write) {
        state.scribble(frame);
    }
    Ok(state)
}

/// The frames of the unit that a release names.
fn own(state: &State, call: &Call) -> Option<u8> {
    let base = call.unit.region().base;
    state.grants.iter().flatten().find(|it| it.base == base).map(|it| it.frames)
}

/// The call returns to the guest, on a processor that has flushed.
fn finish(
    image: &Image,
    mut state: State,
    call: &Call,
    start: &Kept,
    successful: bool,
    mut kept: Kept,
) -> Result<State, Property> {
    let changed = (0..FRAMES).filter(|&it| kept.classes[it] != start.classes[it]);
    let changed: u8 = changed.map(|frame| 1 << frame).sum();
    match (call.operation, successful) {
        (_, false) if changed != 0 => return Err(Property::Refused),
        (_, false) => {}
        (Operation::Approve, true) => {
            let frames = (0..FRAMES).filter(|frame| changed & 1 << frame != 0);
            let mut pages: Vec<_> = frames.map(|frame| call.page(image, &state, frame)).collect();
            pages.sort_unstable();
            if !pages.into_iter().eq((0..image.pages[call.number()]).map(Some)) {
                return Err(Property::Granted);
            }
            state.grants[call.number()] =
                Some(Grant { base: call.unit.region().base, frames: changed });
        }
        (Operation::Release, true) => {
            if own(&state, call) != Some(changed) {
                return Err(Property::Release);
            }
            let base = call.unit.region().base;
            state.grants.iter_mut().for_each(|it| *it = it.filter(|it| it.base != base));
        }
    }
    // Mirrors `discharge_flush` of `vcpu.rs`, before the guest runs again.
    if state.processors[0].owes_flush {
        state.flush(0, &View::ALL);
    }
    for unit in (0..image.pages.len()).filter(|&unit| state.grants[unit].is_none()) {
        kept.forget(image, unit);
    }
    state.kept = Rc::new(kept);
    Ok(state)
}
