//! What follows a violation: one place records it and acts.

use policy::address::{Gpa, Gva};
use policy::fault::EntryGuard;
use policy::violation::{Action, Kind};

use super::{GENERAL_PROTECTION, Resume, event, reinject};
use crate::machine::Refusal;
use crate::svm::cpu;
use crate::svm::vmcb::Event;
use crate::vcpu::Vcpu;

const DOUBLE_FAULT: u8 = 8;

/// Records a violation that the guest is told of in another way than by #GP.
pub fn record(vcpu: &Vcpu, refusal: Refusal) {
    vcpu.machine.record(vcpu, refusal);
    if vcpu.machine.options.violation == Action::Halt {
        halt();
    }
}

/// In audit, a refused write that is not to memory is dropped and the guest goes on at `behind`: an
/// unported kernel does not survive #GP at each.
pub fn drop_in_audit(
    vcpu: &Vcpu,
    result: Result<Resume, Refusal>,
    behind: Resume,
) -> Result<Resume, Refusal> {
    match result {
        Err(refusal) if vcpu.machine.options.violation == Action::Audit => {
            vcpu.machine.record(vcpu, refusal);
            Ok(behind)
        }
        result => result,
    }
}

/// Records a violation, then does what the owner chose.
pub fn refuse(vcpu: &mut Vcpu, refusal: Refusal, interrupted: Option<Event>) {
    let machine = vcpu.machine;
    machine.record(vcpu, refusal);
    match (refusal.kind, machine.options.violation) {
        (_, Action::Halt) => halt(),
        (Kind::Shutdown, _) => {
            log::error!("secvisor: the guest shut its processor down; resetting the machine");
            cpu::reset();
        }
        (_, Action::Audit) if machine.allow(vcpu, refusal) => {
            reinject(vcpu, interrupted);
            if writes_to_its_own_frame(vcpu, refusal) {
                // Only the user view lets it be executed and written.
                vcpu.enter_user_view();
                event::begin_step(vcpu, false);
            }
        }
        _ => match interrupted {
            // A fault while an exception is delivered is a double fault, and during that a shutdown.
            Some(event) if event.is_exception() && event.vector() == DOUBLE_FAULT => {
                machine.record(vcpu, Refusal::of(Kind::Shutdown, 0));
                cpu::reset();
            }
            Some(event) if event.is_exception() => {
                event::deliver_fault(vcpu, Event::exception(DOUBLE_FAULT, 0));
            }
            _ => {
                event::deliver_fault(vcpu, Event::exception(GENERAL_PROTECTION, 0));
            }
        },
    }
}

/// Whether the instruction lies in the frame that it writes to.
fn writes_to_its_own_frame(vcpu: &Vcpu, refusal: Refusal) -> bool {
    let frame = vcpu.translate(Gva(vcpu.vmcb.save.rip)).map(Gpa::frame);
    refusal.kind == Kind::Write
        && vcpu.machine.options.entry_guard == EntryGuard::Events
        && vcpu.vmcb.save.cpl < 3
        && vcpu.vmcb.control.event_injection == 0
        && frame == refusal.gpa.map(Gpa::frame)
}

/// An exit that nobody knows how to go on from.
pub fn unresumable(vcpu: &Vcpu, kind: Kind, info: u64) -> ! {
    vcpu.machine.record(vcpu, Refusal::of(kind, info));
    let control = &vcpu.vmcb.control;
    log::error!(
        "secvisor: exit {:#x} info {:#x} {:#x} cannot be resumed",
        control.exit_code,
        control.exit_info_1,
        control.exit_info_2,
    );
    halt()
}

fn halt() -> ! {
    log::error!("secvisor: halted");
    cpu::stop()
}
