//! RDMSR and WRMSR, by the rules of [`policy::msr`].
#![allow(unsafe_code, reason = "writes the registers that the policy lets through")]

use core::sync::atomic::Ordering;

use policy::apic;
use policy::control;
use policy::msr::{self, Rule};
use policy::violation::Kind;

use super::{Resume, general_protection};
use crate::machine::Refusal;
use crate::svm::cpu;
use crate::vcpu::Vcpu;

const PAGING: u64 = 1 << 31;
const BRANCH_SINGLE_STEP: u64 = 1 << 1;

/// What the guest reads from a register.
fn current(vcpu: &Vcpu, register: u32) -> Result<u64, cpu::GeneralProtection> {
    match msr::rule(register) {
        Rule::Shadowed => Ok(vcpu.efer() & !msr::SVME),
        Rule::Absent => Err(cpu::GeneralProtection),
        _ => cpu::read_msr(register),
    }
}

/// RDMSR of a register whose reads exit.
pub fn read(vcpu: &mut Vcpu) -> Resume {
    let Ok(value) = current(vcpu, vcpu.registers.rcx as u32) else { return general_protection() };
    vcpu.vmcb.save.rax = value & 0xFFFF_FFFF;
    vcpu.registers.rdx = value >> 32;
    Resume::Past(2)
}

/// WRMSR of a register whose writes exit.
pub fn write(vcpu: &mut Vcpu) -> Result<Resume, Refusal> {
    let register = vcpu.registers.rcx as u32;
    let value = vcpu.vmcb.save.rax & 0xFFFF_FFFF | vcpu.registers.rdx << 32;
    let denied = |kind| Err(Refusal { kind, gpa: None, info: register.into() });
    if vcpu.machine.locked.load(Ordering::Relaxed) && control::is_pinned_msr(register) {
        let keeps = current(vcpu, register).is_ok_and(|old| old == value);
        return if keeps { Ok(Resume::Past(2)) } else { denied(Kind::Pinned) };
    }
    match msr::rule(register) {
        Rule::Ignored => return Ok(Resume::Past(2)),
        Rule::Shadowed => {
            let paging = vcpu.vmcb.save.cr0 & PAGING != 0;
            let Some(efer) = msr::efer_write(vcpu.efer(), value, paging, vcpu.machine.efer) else {
                return Ok(general_protection());
            };
            vcpu.vmcb.save.efer = efer;
            return Ok(Resume::Past(2));
        }
        Rule::ReadOnly | Rule::Absent | Rule::Pass => return denied(Kind::Msr),
        Rule::Checked => {}
    }
    match register {
        msr::APIC_BASE => {
            let old = cpu::read_msr(register).unwrap_or(0);
            if !apic::base_write_allowed(old, value) {
                return denied(Kind::Msr);
            }
        }
        0x800..=0x8FF if !apic::x2apic_write_allowed(register, value) => {
            return Err(Refusal::of(Kind::Init, value));
        }
        msr::DEBUGCTL if value & BRANCH_SINGLE_STEP != 0 => return denied(Kind::Msr),
        msr::LSTAR | msr::CSTAR if !msr::is_canonical(value) => return Ok(general_protection()),
        msr::STAR => vcpu.system_call.star = value,
        msr::SFMASK => vcpu.system_call.sfmask = value & 0xFFFF_FFFF,
        _ => {}
    }
    match register {
        msr::LSTAR => vcpu.system_call.lstar = value,
        msr::CSTAR => vcpu.system_call.cstar = value,
        _ => {}
    }
    // SAFETY: the register is one that the policy lets the guest write, and the value passed its
    // check; SecVisor itself uses none of them.
    match unsafe { cpu::write_msr(register, value) } {
        Ok(()) => Ok(Resume::Past(2)),
        Err(cpu::GeneralProtection) => Ok(general_protection()),
    }
}
