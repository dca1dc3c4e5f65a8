//! Writes to the registers of the local APIC, the I/O APICs and the HPET, by the rules of
//! [`policy::apic`].
#![allow(unsafe_code, reason = "performs the device writes that the policy lets through")]

use policy::PAGE_SIZE;
use policy::address::Gpa;
use policy::apic;
use policy::msr::APIC_BASE;
use policy::violation::Kind;

use super::Resume;
use crate::host::device::DeviceRegister;
use crate::instruction::Instruction;
use crate::machine::Refusal;
use crate::svm::cpu;
use crate::vcpu::Vcpu;

/// I/O APIC: index and data of its registers, and the EOI register of newer ones.
const INDEX: u64 = 0;
const DATA: u64 = 0x10;
const EOI: u64 = 0x40;

/// A write to a guarded page. The address is the processor's word; the decoded instruction only
/// says which value it stores.
pub fn write(vcpu: &mut Vcpu, gpa: Gpa) -> Result<Resume, Refusal> {
    let instruction = Instruction::fetch(vcpu);
    let Some((value, size, length)) = instruction.stored_value(vcpu) else {
        return Err(Refusal::at(Kind::Write, gpa));
    };
    store(vcpu, gpa, value, size)?;
    Ok(Resume::At(vcpu.vmcb.save.rip.wrapping_add(length)))
}

/// Performs a store if the device's rule lets it through.
fn store(vcpu: &Vcpu, gpa: Gpa, value: u64, size: u64) -> Result<(), Refusal> {
    let refused = Err(Refusal::at(Kind::Write, gpa));
    let hpet = vcpu.machine.acpi.hpet == Some(gpa.0 & !(PAGE_SIZE - 1));
    // A store across two registers would be judged as one and land on another. Only the HPET has
    // registers of 64 bits.
    if !gpa.0.is_multiple_of(size) || (size == 8 && !hpet) {
        return refused;
    }
    let halves = (0..size).step_by(4).map(|at| (at, (value >> (8 * at)) as u32));
    let value = value as u32;
    let (page, offset) = (gpa.0 & !(PAGE_SIZE - 1), gpa.0 % PAGE_SIZE);
    // SAFETY: used only below, in pages of the interrupt controllers and the HPET.
    let register = |offset: u64| unsafe { DeviceRegister::new(page + offset) };
    let acpi = &vcpu.machine.acpi;
    let allowed = if acpi.local_apic == Some(page) {
        if !cpu::read_msr(APIC_BASE).is_ok_and(apic::page_holds_registers) {
            return refused;
        }
        // Registers lie 16 bytes apart.
        offset.is_multiple_of(16) && apic::local_write_allowed(offset, value.into())
    } else if acpi.io_apics.iter().any(|&address| address == gpa.0 - offset % 0x100) {
        match offset % 0x100 {
            INDEX | EOI => true,
            DATA => {
                let index = register(offset - DATA + INDEX).read();
                apic::io_write_allowed(index as u8, value)
            }
            _ => false,
        }
    } else if hpet && halves.clone().all(|(at, half)| apic::hpet_write_allowed(offset + at, half)) {
        true
    } else {
        return refused;
    };
    if !allowed {
        return Err(Refusal { kind: Kind::Init, gpa: Some(gpa), info: value.into() });
    }
    halves.for_each(|(at, half)| register(offset + at).write(half));
    Ok(())
}
