//! What follows a violation: one place records it and acts.

use policy::address::Gpa;
use policy::fault::EntryGuard;
use policy::frame::FrameClass;
use policy::violation::{Action, Kind};

use super::{GENERAL_PROTECTION, event, reinject};
use crate::instruction::Instruction;
use crate::machine::Refusal;
use crate::svm::cpu;
use crate::svm::exit::ExitCode;
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
        (_, Action::Audit)
            if interrupted.is_none()
                && let Some(next) = behind(vcpu) =>
        {
            vcpu.vmcb.advance_to(next);
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

/// Behind an instruction that audit drops: one that writes to an MSR, a port or a guarded device. An
/// unported kernel does not survive #GP at each.
fn behind(vcpu: &Vcpu) -> Option<u64> {
    let control = &vcpu.vmcb.control;
    let length = match ExitCode(control.exit_code) {
        ExitCode::IOIO => return Some(control.exit_info_2),
        ExitCode::MSR => 2,
        ExitCode::NPF if vcpu.guest().is_class(Gpa(control.exit_info_2), FrameClass::Guarded) => {
            Instruction::fetch(vcpu).stored_value(vcpu)?.2
        }
        _ => return None,
    };
    Some(vcpu.vmcb.save.rip.wrapping_add(length))
}

/// Whether the instruction lies in the frame that it writes to.
fn writes_to_its_own_frame(vcpu: &Vcpu, refusal: Refusal) -> bool {
    let here = vcpu.instruction_address(vcpu.is_64_bit());
    let frame = vcpu.translate(here).map(Gpa::frame);
    refusal.kind == Kind::Write
        && vcpu.machine.guard != EntryGuard::Npf
        && vcpu.vmcb.save.cpl < 3
        && vcpu.vmcb.control.event_injection == 0
        && frame == refusal.gpa.map(Gpa::frame)
}

/// An exit that nobody knows how to go on from.
pub fn unresumable(vcpu: &Vcpu, kind: Kind, info: u64) -> ! {
    vcpu.machine.record(vcpu, Refusal::of(kind, info));
    panic!("exit {:#x} cannot be resumed", vcpu.vmcb.control.exit_code);
}

fn halt() -> ! {
    log::error!("secvisor: halted");
    cpu::stop()
}
