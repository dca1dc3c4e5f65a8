//! Events in the user view: exceptions and software interrupts are sent on through the kernel
//! view, segment loads are stepped with the guest's real descriptor tables.

use policy::address::Gva;
use policy::fault::EntryGuard;
use policy::frame::View;
use policy::msr;

use super::{GENERAL_PROTECTION, INVALID_OPCODE, Resume, general_protection};
use crate::fast::{Caller, perform_system_call};
use crate::instruction::Instruction;
use crate::machine::Refusal;
use crate::svm::cpu;
use crate::svm::vmcb::{Event, IOPL, RESUME_FLAG, TRAP_FLAG, VIRTUAL_8086};
use crate::vcpu::{Step, Vcpu};

const DEBUG: u8 = 1;
const BREAKPOINT: u8 = 3;
const OVERFLOW: u8 = 4;
const INVALID_TSS: u8 = 10;
const PAGE_FAULT: u8 = 14;
/// DR6: a single step; breakpoints 0 to 3.
const SINGLE_STEP: u64 = 1 << 14;
const BREAKPOINTS: u64 = 0xF;
/// DR6: all of what can cause #DB (B0-B3, BD, BS, BT).
const CAUSES: u64 = BREAKPOINTS | 7 << 13;

/// Delivers an exception to the guest in the kernel view, as a fault at its instruction.
pub fn deliver_fault(vcpu: &mut Vcpu, event: Event) {
    vcpu.vmcb.save.rflags |= RESUME_FLAG;
    vcpu.inject(event);
}

/// An exception that the user view intercepted.
pub fn exception(
    vcpu: &mut Vcpu,
    vector: u8,
    error_code: u32,
    address: u64,
    step: Option<Step>,
) -> Result<Resume, Refusal> {
    let rip = vcpu.vmcb.save.rip;
    match vector {
        INVALID_OPCODE => {
            let instruction = Instruction::fetch(vcpu);
            if vcpu.efer() & msr::SCE != 0 && instruction.is(&[0x0F, 0x05]) {
                return Ok(system_call(vcpu, instruction.length(2)));
            }
        }
        // VMRUN to INVLPGA: #GP in user mode because SVM is on, which the guest must not see.
        GENERAL_PROTECTION if error_code == 0 => {
            let instruction = Instruction::fetch(vcpu);
            let svm =
                instruction.is(&[0x0F, 0x01]) && matches!(instruction.byte(2), Some(0xD8..=0xDF));
            let vector = if svm { INVALID_OPCODE } else { vector };
            return Ok(Resume::Fault(Event::exception(vector, 0)));
        }
        // A descriptor could not be loaded: perhaps only because the tables are hidden. A second
        // fault at the same place, with the real ones, is genuine.
        GENERAL_PROTECTION | INVALID_TSS
            if error_code != 0
                && vcpu.view() == View::User
                && vcpu.vmcb.save.cpl == 3
                && step.is_none_or(|step| step.rip != rip)
                && !may_switch_tasks(vcpu, error_code) =>
        {
            let instruction = Instruction::fetch(vcpu);
            begin_step(vcpu, instruction.is(&[0xCF]));
            return Ok(Resume::Here);
        }
        PAGE_FAULT => {
            vcpu.vmcb.save.cr2 = address;
            cpu::write_cr2(address);
        }
        BREAKPOINT | OVERFLOW => return Ok(trap(vcpu, Event::exception(vector, 0), 1)),
        DEBUG => {
            let save = &mut vcpu.vmcb.save;
            // Some emulators set DR6 only when they deliver: a trap without a cause is a step.
            if save.dr6 & CAUSES == 0 {
                save.dr6 |= SINGLE_STEP;
            }
            vcpu.inject(Event::exception(DEBUG, 0));
            return Ok(Resume::Here);
        }
        _ => {}
    }
    Ok(Resume::Fault(Event::exception(vector, error_code)))
}

/// Whether to load what a fault's error code names could switch tasks: outside long mode, all but
/// segments and call gates. Not every emulator intercepts the switch, which would leave its end to
/// the #DB of the step alone.
fn may_switch_tasks(vcpu: &Vcpu, error_code: u32) -> bool {
    if vcpu.efer() & msr::LMA != 0 {
        return false;
    }
    let at = vcpu.descriptor(error_code).filter(|_| error_code & 3 == 0);
    // The type, with bit 4 set for code and data (APM vol. 2, 4.8.3).
    !at.and_then(|at| access_byte(vcpu, at)).is_some_and(|it| matches!(it & 0x1F, 4 | 0xC | 0x10..))
}

/// The byte of a descriptor or gate that holds its type, privilege level and presence. Tables may
/// begin at any address.
fn access_byte(vcpu: &Vcpu, at: Gva) -> Option<u8> {
    let mut byte = [0];
    let gpa = vcpu.translate(Gva(at.0.wrapping_add(5)))?;
    (vcpu.guest().copy(gpa, &mut byte) == 1).then_some(byte[0])
}

/// SYSCALL that the fast path left: single-stepped, with prefixes, or from 32-bit code.
fn system_call(vcpu: &mut Vcpu, length: u64) -> Resume {
    let next = vcpu.vmcb.save.rip.wrapping_add(length);
    let (next, caller) = match (vcpu.is_64_bit(), vcpu.efer() & msr::LMA != 0) {
        (true, _) => (next, Caller::Long),
        (false, true) => (next & 0xFFFF_FFFF, Caller::Compatibility),
        (false, false) => (next & 0xFFFF_FFFF, Caller::Legacy),
    };
    if !perform_system_call(vcpu, next, caller) {
        return Resume::Fault(Event::exception(INVALID_OPCODE, 0));
    }
    // The trap flag counts as SYSCALL left it.
    trap_if_stepping(vcpu);
    Resume::Here
}

/// #DB behind an instruction that SecVisor performed, if the guest single-steps.
pub fn trap_if_stepping(vcpu: &mut Vcpu) {
    if vcpu.vmcb.save.rflags & TRAP_FLAG != 0 {
        vcpu.vmcb.save.dr6 |= SINGLE_STEP;
        vcpu.inject(Event::exception(DEBUG, 0));
    }
}

/// An event that is reported behind its instruction of `length` bytes. Some processors push the
/// saved next RIP and some RIP itself: both say the same (APM vol. 2, 15.20).
fn trap(vcpu: &mut Vcpu, event: Event, length: u64) -> Resume {
    vcpu.vmcb.advance(length);
    vcpu.inject(event);
    Resume::Here
}

/// INT n; some processors report INT3 and INTO here too, and none of them says which.
pub fn software_interrupt(vcpu: &mut Vcpu) -> Resume {
    let instruction = Instruction::fetch(vcpu);
    let flags = vcpu.vmcb.save.rflags;
    match (instruction.byte(0), instruction.byte(1)) {
        (Some(0xCC), _) => trap(vcpu, Event::exception(BREAKPOINT, 0), instruction.length(1)),
        (Some(0xCE), _) => trap(vcpu, Event::exception(OVERFLOW, 0), instruction.length(1)),
        // In virtual-8086 mode it belongs to the kernel's monitor, unless IOPL is 3 (APM vol. 3, INT).
        (Some(0xCD), _) if flags & VIRTUAL_8086 != 0 && flags & IOPL != IOPL => {
            general_protection()
        }
        (Some(0xCD), Some(vector)) => {
            // RIP will be behind the instruction, but a refused gate leaves it in front.
            if gate_refuses(vcpu, vector) {
                let error_code = u32::from(vector) << 3 | 2;
                return Resume::Fault(Event::exception(GENERAL_PROTECTION, error_code));
            }
            trap(vcpu, Event::software(vector), instruction.length(2))
        }
        // The bytes changed under us: the guest raced itself.
        _ => general_protection(),
    }
}

/// Whether the gate of `vector` has a lower privilege level than the guest now has.
pub fn gate_refuses(vcpu: &Vcpu, vector: u8) -> bool {
    let save = &vcpu.vmcb.save;
    let size = if vcpu.efer() & msr::LMA != 0 { 16 } else { 8 };
    let offset = u64::from(vector) * size;
    let gate = save.idtr.base.wrapping_add(offset);
    if offset + size - 1 > u64::from(save.idtr.limit) {
        return true;
    }
    access_byte(vcpu, Gva(gate)).is_some_and(|access| access >> 5 & 3 < save.cpl)
}

/// INT1: #DB, reported behind the instruction.
pub fn ice_breakpoint(vcpu: &mut Vcpu) -> Resume {
    trap(vcpu, Event::exception(DEBUG, 0), 1)
}

/// Lets one instruction run with the real descriptor tables; #DB ends it before another can.
pub fn begin_step(vcpu: &mut Vcpu, pops_flags: bool) {
    debug_assert!(vcpu.machine.guard != EntryGuard::Npf);
    let save = &mut vcpu.vmcb.save;
    let step =
        Step { rip: save.rip, trap_flag: save.rflags & TRAP_FLAG, dr6: save.dr6, pops_flags };
    save.rflags |= TRAP_FLAG;
    // The processor only ever sets these: what is there afterwards came in the step.
    save.dr6 &= !BREAKPOINTS;
    vcpu.open_step(step);
}

/// The step did not come to its end: the guest gets its own trap flag back.
pub fn abandon_step(vcpu: &mut Vcpu, step: Step) {
    let save = &mut vcpu.vmcb.save;
    save.rflags = save.rflags & !TRAP_FLAG | step.trap_flag;
    save.dr6 |= step.dr6;
}

/// The stepped instruction is done. If it went through a gate, the kernel view comes before
/// anything else; if the guest itself was stepping, it gets its #DB.
pub fn finish_step(vcpu: &mut Vcpu, step: Step) -> Resume {
    if vcpu.vmcb.save.cpl < 3 {
        vcpu.enter_kernel_view();
    }
    let save = &mut vcpu.vmcb.save;
    let hit = save.dr6 & BREAKPOINTS & enabled_breakpoints(save.dr7);
    if !step.pops_flags {
        save.rflags = save.rflags & !TRAP_FLAG | step.trap_flag;
    }
    let stepped = if step.trap_flag != 0 { SINGLE_STEP } else { 0 };
    save.dr6 = step.dr6;
    if hit | stepped != 0 {
        save.dr6 |= hit | stepped;
        vcpu.inject(Event::exception(DEBUG, 0));
    }
    Resume::Here
}

/// Breakpoints that DR7 enables, locally or globally, as bits of DR6.
fn enabled_breakpoints(dr7: u64) -> u64 {
    (0..4).filter(|index| dr7 >> (index * 2) & 3 != 0).fold(0, |bits, index| bits | 1 << index)
}
