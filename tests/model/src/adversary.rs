//! The adversary: root and kernel in the guest, on both processors, and a device.

use std::fmt;

use policy::fault::EntryGuard;
use policy::hypercall::{Operation, UnitKind};

use crate::call::{Call, calls, step};
use crate::explore::{Found, Model};
use crate::guest::Entry;
use crate::image::Image;
use crate::property::Property;
use crate::state::{PROCESSORS, State, Use};
use crate::tables::{FRAMES, HIDDEN, INIT, Policy, TARGETS};

/// An action, as the way to a broken property names it.
#[derive(Debug)]
#[allow(missing_docs, reason = "the arguments of the action")]
pub enum Action {
    /// A processor uses a frame, through whatever virtual address.
    Access { processor: usize, what: Use, frame: usize },
    /// User mode comes to CPL 0 on a processor, by an entry pointer of the adversary's.
    Enter { processor: usize, by: Entry },
    /// CPL 0 goes to user mode.
    Leave { processor: usize },
    /// A processor that was told to flush does.
    Flush { processor: usize },
    /// The IOMMU does.
    FlushDma,
    /// A device uses a frame.
    Dma { what: Use, frame: usize },
    /// VMMCALL on the first processor, and its first access.
    Call { operation: Operation, kind: UnitKind, core: u64, init: u64, answer: usize },
    /// Its next access, with one of the answers that it can get.
    Step { answer: usize },
    /// The honest kernel goes on with its script.
    Deed { number: usize },
}

/// How much is explored.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// Pages of the module's core: 1 or 2.
    pub core_pages: usize,
    /// Frames in the adversary's hands from the beginning: 2 or 3. The kernel's init code makes one more.
    pub frames: usize,
    /// Bases that calls name inside of the window: 2 or 3.
    pub bases: usize,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { core_pages, frames, bases } = self;
        write!(f, "{core_pages} pages of core, {frames} frames, {bases} bases")
    }
}

impl Bound {
    /// What the tests explore.
    pub const TESTED: [Self; 2] =
        [Self { core_pages: 1, frames: 2, bases: 2 }, Self { core_pages: 2, frames: 2, bases: 2 }];
    /// What takes longer.
    pub const DEEP: [Self; 2] =
        [Self { core_pages: 1, frames: 3, bases: 3 }, Self { core_pages: 2, frames: 3, bases: 3 }];
}

/// The adversary against the policy.
pub struct Adversary<'a> {
    policy: Policy<'a>,
    image: &'a Image,
    guard: EntryGuard,
    frames: Vec<usize>,
    calls: Vec<Call>,
}

impl<'a> Adversary<'a> {
    /// An adversary with these limits.
    pub fn new(policy: Policy<'a>, image: &'a Image, bound: Bound, guard: EntryGuard) -> Self {
        let frames = (0..=bound.frames).chain([INIT, HIDDEN]).collect();
        Self { policy, image, guard, frames, calls: calls(image, bound.bases) }
    }
}

impl Model for Adversary<'_> {
    type State = State;
    type Action = Action;
    const GOAL_STAYS_IN_REACH: bool = false;

    fn initial(&self) -> State {
        State::launched(&self.policy.launched, self.image)
    }

    /// All of the module is approved.
    fn is_goal(&self, state: &State) -> bool {
        state.grants[..self.image.pages.len()].iter().all(Option::is_some)
    }

    fn check(&self, state: &State) -> Result<(), Property> {
        state.check(self.guard)
    }

    fn next(&mut self, state: &State, found: &mut Found<Action, State>) {
        // Whatever the page tables say when they are walked, the adversary wrote a moment before.
        let absent = |target: &u8| {
            (1..=FRAMES as u8).contains(target)
                && !self.frames.contains(&(usize::from(*target) - 1))
        };
        let targets: Vec<_> = (0..TARGETS).filter(|it| !absent(it)).collect();
        let targets = |_| targets.clone();
        for processor in usize::from(state.flight.is_some())..PROCESSORS {
            for what in [Use::Read, Use::Write, Use::Fetch] {
                for &frame in &self.frames {
                    let action = || Action::Access { processor, what, frame };
                    let outcomes = state.access(processor, what, frame, self.guard);
                    found.extend(outcomes.map(|(_, it)| (action(), it)));
                }
            }
            if state.processors[processor].user {
                let enter = |by| {
                    (Action::Enter { processor, by }, Ok(state.enter(processor, by, self.guard)))
                };
                found.extend(Entry::ALL.map(enter));
            } else {
                found.push((Action::Leave { processor }, Ok(state.leave(processor))));
            }
        }
        found.extend(acknowledged(state));
        for &frame in &self.frames {
            for what in [Use::Read, Use::Write] {
                if state.dma.cached[frame].allow(what) {
                    found.push((Action::Dma { what, frame }, state.performed(what, frame)));
                }
            }
        }
        if let Some(flight) = &state.flight {
            if !flight.settles || state.all_flushed() {
                let call = (flight.call, &self.calls[usize::from(flight.call)]);
                let steps = step(&mut self.policy, self.image, state, call, &targets);
                let steps = steps.into_iter().enumerate();
                found.extend(steps.map(|(answer, it)| (Action::Step { answer }, it)));
            }
        } else if !state.processors[0].user {
            for (number, call) in self.calls.iter().enumerate() {
                let (operation, unit) = (call.operation, call.unit);
                let steps =
                    step(&mut self.policy, self.image, state, (number as u16, call), &targets);
                found.extend(steps.into_iter().enumerate().map(|(answer, it)| {
                    let (kind, core, init) = (unit.kind, unit.core.base, unit.init.base);
                    (Action::Call { operation, kind, core, init, answer }, it)
                }));
            }
        }
    }
}

/// Whoever was told to flush does.
pub fn acknowledged(state: &State) -> Found<Action, State> {
    let mut found = Vec::new();
    let others = 1..PROCESSORS;
    for processor in others.filter(|&it| state.processors[it].owes_flush) {
        let mut next = state.clone();
        next.flush(processor, &policy::frame::View::ALL);
        found.push((Action::Flush { processor }, Ok(next)));
    }
    if state.dma.owes_flush {
        let mut next = state.clone();
        next.flush_dma();
        found.push((Action::FlushDma, Ok(next)));
    }
    found
}
