//! A processor's state before the guest's first instruction.

use policy::fault::EntryGuard;
use policy::frame::View;

use super::{Load, Noted, Registers, SystemCall, Vcpu};
use crate::hardware::Features;
use crate::machine::Machine;
use crate::svm::vmcb::{FLUSH_ALL, FLUSH_THIS, GMET, Intercepts, NESTED_PAGING, Vmcb};

const ASID_KERNEL: u64 = 1;
const ASID_USER: u64 = 2;
const ALL_EXCEPTIONS: u64 = 0xFFFF_FFFF;
/// #SX, which INIT becomes (VM_CR.R_INIT): no view lets it reach the guest.
const SECURITY_EXCEPTION: u64 = 1 << 30;

impl Vcpu {
    /// Intercepts of both views.
    const ALWAYS: Intercepts = Intercepts::CPUID
        .union(Intercepts::RSM)
        .union(Intercepts::INVD)
        .union(Intercepts::INVLPGA)
        .union(Intercepts::IOIO)
        .union(Intercepts::MSR)
        .union(Intercepts::SHUTDOWN)
        .union(Intercepts::VMRUN)
        .union(Intercepts::VMMCALL)
        .union(Intercepts::VMLOAD)
        .union(Intercepts::VMSAVE)
        .union(Intercepts::STGI)
        .union(Intercepts::CLGI)
        .union(Intercepts::SKINIT);
    /// What the events guard adds in the user view. A task switch in the kernel view, as by a double
    /// fault's gate, ends in approved code or faults there.
    const USER_EVENTS: Intercepts = Intercepts::INTR
        .union(Intercepts::NMI)
        .union(Intercepts::SOFTWARE_INTERRUPT)
        .union(Intercepts::TASK_SWITCH)
        .union(Intercepts::ICEBP);

    /// A processor in the kernel view, with the guest's registers all zero. INIT is intercepted
    /// unless it is redirected to #SX, which is.
    pub fn new(
        number: u32,
        machine: &'static Machine,
        features: &Features,
        init_is_redirected: bool,
    ) -> Self {
        let init = if init_is_redirected { Intercepts::empty() } else { Intercepts::INIT };
        let always = Self::ALWAYS | init;
        let low = |intercepts: Intercepts| intercepts.bits() << 32 | SECURITY_EXCEPTION;
        let user = match machine.guard {
            EntryGuard::Npf => low(always),
            _ => low(always | Self::USER_EVENTS) | ALL_EXCEPTIONS,
        };
        // The user view of a processor with GMET is for audit alone: nothing is kept from executing.
        let kernel = if machine.guard == EntryGuard::Gmet { GMET } else { 0 };
        let flush = if features.flush_by_asid { FLUSH_THIS } else { FLUSH_ALL };
        let loads = [
            Load {
                nested_cr3: machine.roots[0],
                address_space: ASID_KERNEL,
                exceptions_and_intercepts: low(always),
            },
            // The guest's TLB maintenance acts on the kernel view's ASID only, so each load of
            // the user view starts with an empty one.
            Load {
                nested_cr3: machine.roots[1],
                address_space: ASID_USER | flush,
                exceptions_and_intercepts: user,
            },
        ];
        let mut vcpu = Self {
            vmcb: Vmcb::zeroed(),
            host_save_area: [0; 4096],
            registers: Registers::default(),
            exits: 0,
            view: View::Kernel,
            loads,
            nested_controls: [NESTED_PAGING | kernel, NESTED_PAGING],
            hidden_efer: 0,
            hidden_gdt_limit: 0,
            hidden_ldtr: None,
            system_call: SystemCall::default(),
            step: None,
            retried: None,
            open_gate: None,
            saves_next_rip: features.next_rip,
            flush_owed: true,
            recent: [Noted::default(); 8],
            noted: 0,
            number,
            guest: machine.guest,
            machine,
        };
        let control = &mut vcpu.vmcb.control;
        control.intercepts_high = (Self::ALWAYS.union(Self::USER_EVENTS).bits() >> 32) as u32;
        control.iopm_base = machine.port_map;
        control.msrpm_base = machine.msr_map;
        vcpu.load_plain(View::Kernel);
        vcpu
    }
}
