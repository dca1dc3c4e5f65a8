//! The exits that the fast path leaves: one `match`, one place where their outcome is applied.
#![allow(unsafe_code, reason = "called by the world switch with the address of its vCPU")]

mod control;
mod cpuid;
mod event;
mod guarded;
mod hypercall;
mod msr;
mod port;
mod violation;

pub use event::gate_refuses;

use policy::address::Gpa;
use policy::fault::{EntryGuard, Fault, Verdict, judge};
use policy::frame::View;
use policy::violation::{Action, Kind};

use crate::machine::Refusal;
use crate::svm::cpu;
use crate::svm::exit::Exit;
use crate::svm::vmcb::Event;
use crate::vcpu::Vcpu;

/// How the guest goes on.
pub enum Resume {
    /// As it stands.
    Here,
    /// Behind the instruction of this many bytes, if the processor does not tell where that is.
    Past(u64),
    /// At this address.
    At(u64),
    /// With this exception at the instruction.
    Fault(Event),
}

/// With #GP(0) at the instruction.
fn general_protection() -> Resume {
    Resume::Fault(Event::exception(GENERAL_PROTECTION, 0))
}

const INVALID_OPCODE: u8 = 6;
const GENERAL_PROTECTION: u8 = 13;
/// #SX: INIT, redirected by VM_CR.R_INIT.
const SECURITY: u8 = 30;
const CODE_FETCH: u64 = 1 << 4;
const WRITE: u64 = 1 << 1;
/// The fault came in the guest's own page-table walk.
const TABLE_WALK: u64 = 1 << 33;

/// Handles an exit.
///
/// # Safety
/// For the world switch only: `vcpu` is its vCPU, and nobody else refers to it.
pub unsafe extern "C" fn slow(vcpu: *mut Vcpu) {
    // SAFETY: by the caller's promise.
    let vcpu = unsafe { &mut *vcpu };
    vcpu.forget_stale_next_rip();
    vcpu.note_exit();
    let exit = Exit::decode(&vcpu.vmcb);
    // Whatever an exit interrupted is delivered after it, and never lost.
    let interrupted = Event::interrupted(vcpu.vmcb.control.exit_interrupt_info);
    match handle(vcpu, exit) {
        Ok(Resume::Here) => reinject(vcpu, interrupted),
        Ok(Resume::Past(length)) => {
            vcpu.vmcb.advance(length);
            event::trap_if_stepping(vcpu);
        }
        Ok(Resume::At(next)) => {
            vcpu.vmcb.advance_to(next);
            event::trap_if_stepping(vcpu);
        }
        Ok(Resume::Fault(event)) => event::deliver_fault(vcpu, event),
        Err(refusal) => violation::refuse(vcpu, refusal, interrupted),
    }
    // Kernel mode never runs in the user view, whatever led here; but for one instruction in audit.
    let audits = vcpu.machine.options.violation == Action::Audit && vcpu.step.is_some();
    if vcpu.machine.guard != EntryGuard::Npf && vcpu.vmcb.save.cpl < 3 && !audits {
        vcpu.enter_kernel_view();
    }
    // An injected event goes through the guest's gates: in the kernel view, or not at all.
    let injects = vcpu.vmcb.control.event_injection != 0;
    assert!(!injects || vcpu.view() == View::Kernel, "event injected in the user view");
    vcpu.discharge_flush();
}

fn handle(vcpu: &mut Vcpu, exit: Exit) -> Result<Resume, Refusal> {
    let step = vcpu.close_step();
    if let Some(step) = step {
        if let Exit::Exception { vector: 1, .. } = exit {
            return Ok(event::finish_step(vcpu, step));
        }
        event::abandon_step(vcpu, step);
    }
    match exit {
        Exit::NestedPageFault { info, gpa } => nested_page_fault(vcpu, info, Gpa(gpa)),
        Exit::Exception { vector: SECURITY, .. } => {
            violation::record(vcpu, Refusal::of(Kind::Init, 0));
            Ok(Resume::Here)
        }
        Exit::Exception { vector, error_code, address } => {
            event::exception(vcpu, vector, error_code, address, step)
        }
        Exit::PendingInterrupt => {
            vcpu.enter_kernel_view();
            Ok(Resume::Here)
        }
        Exit::SoftwareInterrupt => Ok(event::software_interrupt(vcpu)),
        Exit::IceBreakpoint => Ok(event::ice_breakpoint(vcpu)),
        Exit::Flags => Ok(Resume::Here),
        Exit::ControlRegister(number) => control::write(vcpu, number),
        Exit::InterruptTable => Err(Refusal::of(Kind::Pinned, vcpu.vmcb.save.idtr.base)),
        Exit::Cpuid => Ok(cpuid::handle(vcpu)),
        Exit::ReadMsr => Ok(msr::read(vcpu)),
        Exit::WriteMsr => msr::write(vcpu),
        Exit::Port { info, next } => port::handle(vcpu, info, next),
        Exit::Invd => {
            cpu::write_back_caches();
            Ok(Resume::Past(2))
        }
        Exit::Hypercall => Ok(hypercall::handle(vcpu)),
        Exit::Undefined => Ok(Resume::Fault(Event::exception(INVALID_OPCODE, 0))),
        Exit::TaskSwitch => Err(Refusal::of(Kind::TaskSwitch, 0)),
        Exit::Init => violation::unresumable(vcpu, Kind::Init, 0),
        Exit::Shutdown => Err(Refusal::of(Kind::Shutdown, 0)),
        Exit::Unknown(code) => violation::unresumable(vcpu, Kind::Unknown, code),
    }
}

fn nested_page_fault(vcpu: &mut Vcpu, info: u64, gpa: Gpa) -> Result<Resume, Refusal> {
    let retried = vcpu.retried.take();
    let fault = Fault {
        fetch: info & CODE_FETCH != 0,
        write: info & WRITE != 0,
        cpl: vcpu.vmcb.save.cpl,
        view: vcpu.view(),
        class: vcpu.guest().class(gpa),
    };
    // Not a walk of the guest's tables and not the push of an event's frame.
    let interrupted = Event::interrupted(vcpu.vmcb.control.exit_interrupt_info);
    let by_instruction = info & TABLE_WALK == 0 && interrupted.is_none();
    match judge(&fault, vcpu.machine.guard) {
        Verdict::Load(View::User) => vcpu.enter_user_view(),
        Verdict::Load(View::Kernel) => vcpu.enter_kernel_view(),
        Verdict::Guarded if by_instruction => return guarded::write(vcpu, gpa),
        Verdict::Guarded => return Err(Refusal::at(Kind::Write, gpa)),
        Verdict::Retry => {
            let here = Some((gpa.0, vcpu.vmcb.save.rip));
            if retried == here {
                return Err(Refusal { kind: Kind::Unknown, gpa: Some(gpa), info });
            }
            vcpu.retried = here;
            vcpu.flush_owed = true;
            return Ok(Resume::Here);
        }
        Verdict::Violation(kind) => return Err(Refusal { kind, gpa: Some(gpa), info }),
    }
    Ok(Resume::Here)
}

fn reinject(vcpu: &mut Vcpu, interrupted: Option<Event>) {
    if let Some(event) = interrupted
        && vcpu.vmcb.control.event_injection == 0
    {
        vcpu.inject(event);
    }
}
