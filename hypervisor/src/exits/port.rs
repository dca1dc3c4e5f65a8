//! IN and OUT on watched ports, by the rules of [`policy::port`].
#![allow(unsafe_code, reason = "performs the accesses that the policy lets through")]

use policy::port::{Access, PCI_ADDRESS, Verdict};
use policy::violation::Kind;

use super::Resume;
use crate::machine::Refusal;
use crate::svm::cpu;
use crate::vcpu::Vcpu;

const INPUT: u64 = 1;
const STRING: u64 = 1 << 2;

/// Handles an access: EXITINFO1 describes it, EXITINFO2 is the next RIP (APM vol. 2, 15.10.2).
pub fn handle(vcpu: &mut Vcpu, info: u64, next: u64) -> Result<Resume, Refusal> {
    let size = (info >> 4 & 7) as u8;
    let port = (info >> 16) as u16;
    let rax = vcpu.vmcb.save.rax;
    let mask = u32::MAX >> (32 - 8 * u32::from(size).clamp(1, 4));
    let write = (info & INPUT == 0).then_some(rax as u32 & mask);
    let string = info & STRING != 0;
    let refused = Refusal { kind: Kind::Port, gpa: None, info: port.into() };
    let mut ports = vcpu.machine.ports.lock();
    let read = match ports.judge(&Access { port, size, string, write }) {
        Verdict::Violation(kind) => return Err(Refusal { kind, ..refused }),
        // Strings would need the guest's memory; nobody reads or writes these ports so.
        _ if string => return Err(refused),
        Verdict::Absent => u32::MAX,
        Verdict::Address(address) => address,
        Verdict::Reset => {
            log::info!("secvisor: the guest resets the machine");
            cpu::reset()
        }
        Verdict::Pass(value) => transfer(port, size, write.map(|_| value)),
        Verdict::Configuration { address, value } => {
            transfer(PCI_ADDRESS, 4, Some(address));
            let read = transfer(port, size, write.map(|_| value));
            transfer(PCI_ADDRESS, 4, Some(0));
            read
        }
    };
    if write.is_none() {
        let keep = if size == 4 { 0 } else { rax & !u64::from(mask) };
        vcpu.vmcb.save.rax = keep | u64::from(read & mask);
    }
    Ok(Resume::At(next))
}

/// Performs what the policy lets through.
fn transfer(port: u16, size: u8, write: Option<u32>) -> u32 {
    // SAFETY: the policy lets this value through to this port; reads of watched ports have no effect on
    // SecVisor, its own are Absent.
    unsafe {
        match write {
            Some(value) => cpu::port_write(port, size, value),
            None => return cpu::port_read(port, size),
        }
    }
    0
}
