//! The two hypercalls. Arguments are hostile: the descriptor is copied once, and the copy judged.

use core::sync::atomic::Ordering;

use policy::address::{Gpa, Gva};
use policy::hypercall::{
    APPROVE_CODE, Error, Operation, SET_KERNEL_MODE, UNIT_BYTES, Unit, UnitKind,
};
use policy::msr;
use policy::violation::{Action, Kind, plain_text};

use super::{INVALID_OPCODE, Resume, violation};
use crate::code::Code;
use crate::machine::Refusal;
use crate::svm::vmcb::Event;
use crate::vcpu::Vcpu;

/// Length of VMMCALL, in bytes.
const LENGTH: u64 = 3;

/// VMMCALL: #UD but for the kernel.
pub fn handle(vcpu: &mut Vcpu) -> Resume {
    if vcpu.vmcb.save.cpl != 0 {
        return Resume::Fault(Event::exception(INVALID_OPCODE, 0));
    }
    vcpu.clear_upper_halves();
    let result = match u32::try_from(vcpu.vmcb.save.rax) {
        Ok(APPROVE_CODE) => approve_code(vcpu),
        Ok(SET_KERNEL_MODE) => set_kernel_mode(vcpu),
        _ => Err(Error::NoSystemCall),
    };
    vcpu.vmcb.save.rax = result.map_or_else(Error::rax, |()| 0);
    Resume::Past(LENGTH)
}

fn set_kernel_mode(vcpu: &mut Vcpu) -> Result<(), Error> {
    if vcpu.machine.locked.swap(true, Ordering::Relaxed) {
        return Err(Error::Busy);
    }
    vcpu.pin_registers();
    log::info!("secvisor: the kernel-mode environment is complete");
    Ok(())
}

fn approve_code(vcpu: &mut Vcpu) -> Result<(), Error> {
    let operation = Operation::from_rbx(vcpu.registers.rbx);
    let (base, result) = match operation.and_then(|it| Ok((it, read_unit(vcpu)?))) {
        Ok((operation, unit)) => (unit.region().base, change(vcpu, operation, &unit)),
        Err(error) => (vcpu.registers.rcx, Err(error)),
    };
    // Kernels release all memory of modules, approved or not.
    let quiet = operation == Ok(Operation::Release) && result == Err(Error::NoEntry);
    if result.is_ok() || quiet {
        return result;
    }
    let gpa = vcpu.translate(Gva(base));
    violation::record(vcpu, Refusal { kind: Kind::Hypercall, gpa, info: base });
    // In audit a module runs on: each of its pages becomes approved when it is first entered.
    let audits = vcpu.machine.options.violation == Action::Audit;
    if audits && operation == Ok(Operation::Approve) { Ok(()) } else { result }
}

fn change(vcpu: &mut Vcpu, operation: Operation, unit: &Unit) -> Result<(), Error> {
    let machine = vcpu.machine;
    let (mut units, mut nested) = (machine.units.lock(), machine.nested.lock());
    if operation == Operation::Release {
        let name = units.release(unit, &mut nested, &mut Code(vcpu))?;
        log::info!("secvisor: released {}", plain_text(&name).unwrap_or("?"));
        return Ok(());
    }
    let part = if unit.kind == UnitKind::ModuleCore { "core" } else { "init" };
    units.approve(unit, &mut nested, &mut Code(vcpu)).map_err(|refused| {
        log::warn!("secvisor: refused module {}/{part}: {refused}", unit.name());
        refused.error
    })?;
    log::info!("secvisor: approved {}/{part}", unit.name());
    Ok(())
}

/// Copies the descriptor out of the guest's memory, word by word, and parses the copy.
fn read_unit(vcpu: &Vcpu) -> Result<Unit, Error> {
    let address = vcpu.registers.rcx;
    if vcpu.registers.rdx != UNIT_BYTES as u64 || !address.is_multiple_of(8) {
        return Err(Error::Invalid);
    }
    let mut bytes = [0; UNIT_BYTES];
    for (index, slot) in bytes.chunks_exact_mut(8).enumerate() {
        let gva = Gva(address.wrapping_add(index as u64 * 8));
        // The walk does not look at what is above bit 47.
        let gpa = vcpu.translate(gva).filter(|_| msr::is_canonical(gva.0));
        let word = gpa.and_then(|gpa: Gpa| vcpu.guest().read(gpa));
        slot.copy_from_slice(&word.ok_or(Error::Fault)?.to_le_bytes());
    }
    Unit::parse(&bytes)
}
