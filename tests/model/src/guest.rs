//! What a processor does with its guest: accesses, faults, events and views.
//!
//! The decisions are the policy crate's (`judge`); what obeys them mirrors the hypervisor, whose own
//! code cannot run on a host. Each function names the lines that it mirrors.

use policy::fault::{EntryGuard, Fault, Verdict, judge};
use policy::frame::View;

use crate::property::Property;
use crate::state::{State, Use};
use crate::tables::{FRAMES, HIDDEN};

/// How user mode comes to CPL 0, with whatever entry pointer: where it leads is the next fetch's frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry {
    /// An interrupt, which stays pending until the kernel view is loaded (`fast.rs`, `interrupt`).
    Interrupt,
    /// An exception or INT n, injected again (`vcpu.rs`, `inject`).
    Exception,
    /// SYSCALL (`fast.rs`, `perform_system_call`).
    SystemCall,
    /// A call gate, in a step (`exits/event.rs`, `finish_step`).
    Gate,
}

impl Entry {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Interrupt, Self::Exception, Self::SystemCall, Self::Gate];
}

/// What came of an access.
pub type Outcome = Result<State, Property>;

impl State {
    /// Mirrors `Vcpu::load_user_view` and the flush that `vcpu/build.rs` puts into the user view's load.
    fn load_user_view(&mut self, processor: usize) {
        self.processors[processor].user_view = true;
        self.flush(processor, &[View::User]);
    }

    /// Mirrors `Vcpu::enter_kernel_view`.
    fn enter_kernel_view(&mut self, processor: usize) {
        self.processors[processor].user_view = false;
    }

    /// Delivers an event through the guest's tables: CPL 0, and the guest's kernel may change and flush
    /// its own translations there.
    fn deliver(&mut self, processor: usize) {
        let processor = &mut self.processors[processor];
        processor.user = false;
        processor.stale_user_asid = !self.kept.gmet;
    }

    /// An event in user mode. With the `events` guard none is delivered in the user view; with `npf` and
    /// with GMET the processor does as it likes, and nothing exits.
    pub fn enter(&self, processor: usize, entry: Entry, guard: EntryGuard) -> Self {
        let mut next = self.clone();
        match (guard, entry) {
            (EntryGuard::Npf | EntryGuard::Gmet, _) => {}
            (_, Entry::Interrupt | Entry::Exception | Entry::SystemCall | Entry::Gate) => {
                next.enter_kernel_view(processor);
            }
        }
        next.deliver(processor);
        next
    }

    /// IRET or SYSRET to user mode. The view stays until the first fetch there.
    pub fn leave(&self, processor: usize) -> Self {
        let mut next = self.clone();
        next.processors[processor].user = true;
        next
    }

    /// An access that the processor performs.
    pub fn retire(&self, processor: usize, what: Use, frame: usize) -> Outcome {
        let it = &self.processors[processor];
        if it.user && it.user_view && it.stale_user_asid {
            return Err(Property::GuestFlush);
        }
        if what == Use::Fetch && !it.user && !self.verified[frame] {
            return Err(Property::KernelFetch);
        }
        self.performed(what, frame)
    }

    /// An access that a processor or a device performs.
    pub fn performed(&self, what: Use, frame: usize) -> Outcome {
        let mut next = self.clone();
        match what {
            _ if frame == HIDDEN => return Err(Property::Hidden),
            Use::Write if self.relied_upon[frame] => return Err(Property::NoWrite),
            Use::Write => next.scribble(frame),
            Use::Read | Use::Fetch => {}
        }
        Ok(next)
    }

    /// What the policy makes of a nested page fault.
    pub fn verdict(&self, processor: usize, what: Use, frame: usize, guard: EntryGuard) -> Verdict {
        let it = &self.processors[processor];
        let fault = Fault {
            fetch: what == Use::Fetch,
            write: what == Use::Write,
            cpl: if it.user { 3 } else { 0 },
            view: it.view(),
            class: self.class(frame),
        };
        judge(&fault, guard)
    }

    /// With GMET no fetch that faults loads a view, not even one that faults by a stale translation: all
    /// are judged, whatever the tables allow.
    pub fn no_fault_loads_a_view(&self) -> Result<(), Property> {
        for (at, processor) in self.processors.iter().enumerate() {
            let verdict = |frame| self.verdict(at, Use::Fetch, frame, EntryGuard::Gmet);
            if (0..FRAMES).any(|frame| matches!(verdict(frame), Verdict::Load(_))) {
                return Err(if processor.user { Property::NoExit } else { Property::KernelView });
            }
        }
        Ok(())
    }

    /// A nested page fault. Mirrors `nested_page_fault`, `refuse` and what `slow` does after them
    /// (`exits/mod.rs`, `exits/violation.rs`); the mode switches of `fast.rs` are the same two.
    pub fn fault(&self, processor: usize, what: Use, frame: usize, guard: EntryGuard) -> Outcome {
        let mut next = self.clone();
        match self.verdict(processor, what, frame, guard) {
            // What stands behind every exit would mend it, but must not need to.
            Verdict::Load(View::User) if !self.processors[processor].user => {
                return Err(Property::KernelView);
            }
            Verdict::Load(View::User) => next.load_user_view(processor),
            Verdict::Load(View::Kernel) => next.enter_kernel_view(processor),
            Verdict::Retry => next.flush(processor, &View::ALL),
            Verdict::Guarded | Verdict::Violation(_) => {
                next.enter_kernel_view(processor);
                next.deliver(processor);
            }
        }
        if guard != EntryGuard::Npf && !next.processors[processor].user {
            next.enter_kernel_view(processor);
        }
        Ok(next)
    }

    /// All that can come of an access, and whether it was performed: what a cached translation allows is,
    /// what the tables do not allow may fault.
    pub fn access(
        &self,
        processor: usize,
        what: Use,
        frame: usize,
        guard: EntryGuard,
    ) -> impl Iterator<Item = (bool, Outcome)> {
        let view = self.view_of(processor);
        let performed = self.processors[processor].cached[view as usize][frame].allow(what);
        let faults = !self.allowed(view)[frame].allow(what);
        let performed = performed.then(|| (true, self.retire(processor, what, frame)));
        let faulted = faults.then(|| (false, self.fault(processor, what, frame, guard)));
        performed.into_iter().chain(faulted)
    }
}
