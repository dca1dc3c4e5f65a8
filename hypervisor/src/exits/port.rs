//! IN and OUT on watched ports, by the rules of [`policy::port`].
#![allow(unsafe_code, reason = "performs the accesses that the policy lets through")]

use policy::port::{Access, Verdict};
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
    let verdict = vcpu.machine.ports.lock().judge(&Access { port, size, string, write });
    let read = match verdict {
        Verdict::Violation(kind) => return Err(Refusal { kind, ..refused }),
        // Strings would need the guest's memory; nobody reads or writes these ports so.
        _ if string => return Err(refused),
        Verdict::Absent => u32::MAX,
        Verdict::Reset => {
            log::info!("secvisor: the guest resets the machine");
            cpu::reset()
        }
        Verdict::Pass(value) => match write {
            Some(_) => {
                // SAFETY: the policy lets this value through to this port.
                unsafe { cpu::port_write(port, size, value) };
                0
            }
            // SAFETY: reads of watched ports have no effect on SecVisor; its own are Absent.
            None => unsafe { cpu::port_read(port, size) },
        },
    };
    if write.is_none() {
        let keep = if size == 4 { 0 } else { rax & !u64::from(mask) };
        vcpu.vmcb.save.rax = keep | u64::from(read & mask);
    }
    Ok(Resume::At(next))
}
