//! An honest guest: its kernel loads a module, runs it, runs processes and unloads it, while another
//! processor runs what it likes in a process of its own and a device uses its buffer.

use policy::PAGE_SIZE;
use policy::fault::{EntryGuard, Verdict};
use policy::hypercall::{Operation, Region, Unit, UnitKind};

use crate::adversary::{Action, acknowledged};
use crate::call::{Call, step};
use crate::explore::{Found, Model};
use crate::guest::Entry;
use crate::image::{BASES, INIT_BASE, Image, MODULE};
use crate::property::Property;
use crate::state::{State, Use};
use crate::tables::{INIT, KERNEL, Policy};

const FIRST: usize = 1;
const SECOND: usize = 2;
/// The kernel's init code, among the units.
const KERNEL_INIT: usize = 2;
/// The frame of the process and the device.
const PROCESS: usize = 3;

/// What the honest kernel does on the first processor, and the process that it runs.
#[derive(Clone, Copy, Debug)]
enum Deed {
    /// Writes a unit of the module to its frame, relocated.
    Load(usize),
    Approve(usize),
    Release(usize),
    /// Uses the frame of a unit.
    Unit(Use, usize),
    /// Uses a frame of its own.
    Own(Use, usize),
    Leave,
    Enter(Entry),
}
use Deed::{Approve, Enter, Leave, Load, Own, Release, Unit as OfUnit};

/// What the kernel does once: it gives its init code back.
const BEGIN: [Deed; 1] = [Release(KERNEL_INIT)];
/// One round: a module comes, runs and goes; its memory becomes a process's, which writes code and runs it.
const ROUND: [Deed; 22] = [
    Load(0),
    Load(1),
    Approve(0),
    Approve(1),
    Own(Use::Fetch, KERNEL),
    OfUnit(Use::Fetch, 0),
    OfUnit(Use::Fetch, 1),
    Leave,
    Own(Use::Write, PROCESS),
    Own(Use::Fetch, PROCESS),
    Enter(Entry::SystemCall),
    Own(Use::Fetch, KERNEL),
    Release(1),
    Release(0),
    Leave,
    OfUnit(Use::Write, 0),
    OfUnit(Use::Fetch, 0),
    OfUnit(Use::Write, 1),
    OfUnit(Use::Fetch, 1),
    OfUnit(Use::Read, 1),
    Enter(Entry::Exception),
    Own(Use::Fetch, KERNEL),
];
/// In the second the units lie in each other's frames, at each other's bases.
const ROUNDS: usize = 2;

/// The honest guest.
pub struct Honest<'a> {
    policy: Policy<'a>,
    image: &'a Image,
    guard: EntryGuard,
}

impl<'a> Honest<'a> {
    /// With a module whose core is one page.
    pub fn new(policy: Policy<'a>, image: &'a Image, guard: EntryGuard) -> Self {
        Self { policy, image, guard }
    }

    /// An access that nothing may be wrong with: what comes of it, and whether it was performed, as with
    /// GMET it is at once.
    fn uses(
        &self,
        state: &State,
        processor: usize,
        what: Use,
        frame: usize,
    ) -> Vec<(bool, Result<State, Property>)> {
        match state.verdict(processor, what, frame, self.guard) {
            Verdict::Violation(_) | Verdict::Guarded => vec![(false, Err(Property::Honest))],
            Verdict::Load(_) | Verdict::Retry => {
                let outcomes = state.access(processor, what, frame, self.guard);
                let native = |performed| performed || self.guard != EntryGuard::Gmet;
                let judged =
                    |it: (bool, _)| if native(it.0) { it } else { (it.0, Err(Property::NoExit)) };
                outcomes.map(judged).collect()
            }
        }
    }

    /// Frame and base of a unit in the round that the script is in.
    fn place(state: &State, unit: usize) -> (usize, u64) {
        let swapped = usize::from(state.script).saturating_sub(BEGIN.len()) / ROUND.len() % 2;
        if unit == swapped { (FIRST, BASES[0]) } else { (SECOND, BASES[1]) }
    }

    fn call(
        &mut self,
        state: &State,
        operation: Operation,
        unit: usize,
    ) -> Vec<Result<State, Property>> {
        if state.flight.as_ref().is_some_and(|it| it.settles) && !state.all_flushed() {
            return Vec::new();
        }
        let region = |unit: usize| Region {
            base: Self::place(state, unit).1,
            size: self.image.pages[unit] as u64 * PAGE_SIZE,
        };
        let mut name = [0; 64];
        name[..MODULE.len()].copy_from_slice(MODULE.as_bytes());
        let kernel_init = Region { base: INIT_BASE, size: PAGE_SIZE };
        let (kind, core, init) = match unit {
            0 => (UnitKind::ModuleCore, region(0), region(1)),
            1 => (UnitKind::ModuleInit, region(0), region(1)),
            _ => (UnitKind::KernelInit, Region { base: 0, size: 0 }, kernel_init),
        };
        let call = Call { operation, unit: Unit { kind, core, init, name } };
        let targets = |gva| {
            let units = [Self::place(state, 0), Self::place(state, 1), (INIT, INIT_BASE)];
            let at = units.into_iter().find(|(_, base)| *base == gva);
            at.map(|(frame, _)| frame as u8 + 1).into_iter().collect()
        };
        let mut steps = step(&mut self.policy, self.image, state, (0, &call), &targets);
        for it in steps.iter_mut().flatten().filter(|it| it.flight.is_none()) {
            it.script += 1;
        }
        let granted = operation == Operation::Approve;
        let refused = |it: &State| it.flight.is_none() && it.grants[unit].is_some() != granted;
        let amiss = steps.is_empty() || steps.iter().flatten().any(refused);
        if amiss { vec![Err(Property::Honest)] } else { steps }
    }

    fn deed(&mut self, state: &State, deed: Deed) -> Vec<Result<State, Property>> {
        let (what, frame) = match deed {
            Approve(unit) => return self.call(state, Operation::Approve, unit),
            Release(unit) => return self.call(state, Operation::Release, unit),
            Leave => return vec![Ok(advanced(state.leave(0)))],
            Enter(by) => return vec![Ok(advanced(state.enter(0, by, self.guard)))],
            Own(what, frame) => (what, frame),
            OfUnit(what, unit) => (what, Self::place(state, unit).0),
            Load(unit) => (Use::Write, Self::place(state, unit).0),
        };
        let outcomes = self.uses(state, 0, what, frame).into_iter();
        let outcomes = outcomes.map(|(performed, it)| {
            let mut next = if performed { advanced(it?) } else { it? };
            if let (Load(unit), true) = (deed, performed) {
                let (core, init) = (Self::place(state, 0).1, Self::place(state, 1).1);
                next.contents[frame] =
                    self.image.loaded(unit, core, init).ok_or(Property::Honest)?;
            }
            Ok(next)
        });
        outcomes.collect()
    }
}

fn advanced(mut state: State) -> State {
    state.script += 1;
    state
}

impl Model for Honest<'_> {
    type State = State;
    type Action = Action;
    const GOAL_STAYS_IN_REACH: bool = true;

    fn initial(&self) -> State {
        State::launched(&self.policy.launched, self.image)
    }

    /// The script is done.
    fn is_goal(&self, state: &State) -> bool {
        usize::from(state.script) == BEGIN.len() + ROUND.len() * ROUNDS
    }

    fn check(&self, state: &State) -> Result<(), Property> {
        state.check(self.guard)
    }

    fn next(&mut self, state: &State, found: &mut Found<Action, State>) {
        if !self.is_goal(state) {
            let number = usize::from(state.script);
            let mut script = BEGIN.iter().chain(ROUND.iter().cycle());
            let deed = *script.nth(number).expect("rounds have no end");
            let outcomes = self.deed(state, deed);
            found.extend(outcomes.into_iter().map(|it| (Action::Deed { number }, it)));
        }
        let second = &state.processors[1];
        let own: &[(Use, usize)] = if second.user {
            &[(Use::Read, PROCESS), (Use::Write, PROCESS), (Use::Fetch, PROCESS)]
        } else {
            &[(Use::Read, PROCESS), (Use::Write, PROCESS), (Use::Fetch, KERNEL)]
        };
        for &(what, frame) in own {
            let outcomes = self.uses(state, 1, what, frame).into_iter();
            found
                .extend(outcomes.map(|(_, it)| (Action::Access { processor: 1, what, frame }, it)));
        }
        if second.user {
            let enter =
                |by| (Action::Enter { processor: 1, by }, Ok(state.enter(1, by, self.guard)));
            found.extend(Entry::ALL.map(enter));
        } else {
            found.push((Action::Leave { processor: 1 }, Ok(state.leave(1))));
        }
        found.extend(acknowledged(state));
        for what in [Use::Read, Use::Write] {
            let allowed = state.dma.cached[PROCESS].allow(what);
            let outcome =
                if allowed { state.performed(what, PROCESS) } else { Err(Property::Honest) };
            found.push((Action::Dma { what, frame: PROCESS }, outcome));
        }
    }
}
