//! CPUID: SVM, SYSENTER and memory encryption do not exist for the guest; SecVisor does.

use core::sync::atomic::Ordering;

use policy::hypercall::{INTERFACE_VERSION, SIGNATURE};

use super::Resume;
use crate::svm::cpu::{self, CpuidResult};
use crate::vcpu::Vcpu;

const HYPERVISOR: u32 = 1 << 31;
const OSXSAVE: u32 = 1 << 27;
const SYSENTER: u32 = 1 << 11;
const OS_PROTECTION_KEYS: u32 = 1 << 4;
/// Leaf 8000_0001h: SVM, SKINIT, and instruction-based sampling, whose registers are not passed.
const SVM_SKINIT_AND_IBS: u32 = 1 << 2 | 1 << 12 | 1 << 10;
/// Leaf 8000_0008h: counting retired instructions is switched on in HWCR, which the guest may not
/// write; INVLPGB is off in the VMCB.
const INSTRUCTIONS_RETIRED_AND_INVLPGB: u32 = 1 << 1 | 1 << 3;
/// Leaf 7: shadow stacks, whose registers the guest may not write, and five-level paging.
const SHADOW_STACKS_AND_LA57: u32 = 1 << 7 | 1 << 16;
/// Leaf 7: indirect branch tracking, as shadow stacks.
const BRANCH_TRACKING: u32 = 1 << 20;
/// Leaf 8000_0021h: automatic IBRS, a bit of EFER that the guest may not set.
const AUTOMATIC_IBRS: u32 = 1 << 8;

/// SecVisor's own leaves.
fn own_leaf(vcpu: &Vcpu, leaf: u32) -> CpuidResult {
    let word = |at: usize| {
        let bytes = SIGNATURE.get(at..).and_then(|tail| tail.first_chunk());
        bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
    };
    let (eax, ebx, ecx, edx) = match leaf {
        0x4000_0000 => (0x4000_0002, word(0), word(4), word(8)),
        0x4000_0001 => {
            let locked = vcpu.machine.locked.load(Ordering::Relaxed);
            let violations = vcpu.machine.ring.lock().count();
            (INTERFACE_VERSION, locked.into(), violations as u32, 0)
        }
        0x4000_0002 => (vcpu.exits as u32, (vcpu.exits >> 32) as u32, 0, 0),
        _ => (0, 0, 0, 0),
    };
    CpuidResult { eax, ebx, ecx, edx }
}

/// Answers CPUID.
pub fn handle(vcpu: &mut Vcpu) -> Resume {
    let (leaf, subleaf) = (vcpu.vmcb.save.rax as u32, vcpu.registers.rcx as u32);
    let cr4 = vcpu.vmcb.save.cr4;
    let bit_if = |bit: u32, cr4_bit: u32| if cr4 >> cr4_bit & 1 != 0 { bit } else { 0 };
    let mut result = match leaf {
        0x4000_0000..=0x4000_00FF => own_leaf(vcpu, leaf),
        _ => cpu::cpuid(leaf, subleaf),
    };
    match leaf {
        1 => {
            result.ecx = result.ecx & !OSXSAVE | bit_if(OSXSAVE, 18) | HYPERVISOR;
            result.edx &= !SYSENTER;
        }
        7 if subleaf == 0 => {
            let hidden = OS_PROTECTION_KEYS | SHADOW_STACKS_AND_LA57;
            result.ecx = result.ecx & !hidden | bit_if(OS_PROTECTION_KEYS, 22);
            result.edx &= !BRANCH_TRACKING;
        }
        0x8000_0001 => result.ecx &= !SVM_SKINIT_AND_IBS,
        0x8000_0008 => result.ebx &= !INSTRUCTIONS_RETIRED_AND_INVLPGB,
        0x8000_0021 => result.eax &= !AUTOMATIC_IBRS,
        // SVM, memory encryption, and performance counters whose control the guest may not write.
        0x8000_000A | 0x8000_001F | 0x8000_0022 => {
            result = CpuidResult { eax: 0, ebx: 0, ecx: 0, edx: 0 }
        }
        _ => {}
    }
    vcpu.vmcb.save.rax = result.eax.into();
    vcpu.registers.rbx = result.ebx.into();
    vcpu.registers.rcx = result.ecx.into();
    vcpu.registers.rdx = result.edx.into();
    Resume::Past(2)
}
