//! Writes to control registers, which exit once `set_kernel_mode` has pinned them.

use policy::control;
use policy::violation::Kind;

use super::{Resume, general_protection};
use crate::instruction::Instruction;
use crate::machine::Refusal;
use crate::vcpu::Vcpu;

/// MOV to CR0 or CR4. LMSW, which no kernel needs, is refused.
pub fn write(vcpu: &mut Vcpu, number: u8) -> Result<Resume, Refusal> {
    let instruction = Instruction::fetch(vcpu);
    let Some(value) = instruction.moved_to_control_register(vcpu) else {
        return Err(Refusal::of(Kind::Pinned, number.into()));
    };
    let save = &mut vcpu.vmcb.save;
    let register = if number == 0 { &mut save.cr0 } else { &mut save.cr4 };
    if !control::keeps_pinned(number, *register, value) {
        return Err(Refusal::of(Kind::Pinned, value));
    }
    if number == 0 && !control::is_valid_cr0(value) {
        return Ok(general_protection());
    }
    *register = value;
    // As the write itself would: CR4.PGE and PSE empty the TLB (APM vol. 2, 5.5).
    vcpu.flush_owed = true;
    Ok(Resume::Past(instruction.length(3)))
}
