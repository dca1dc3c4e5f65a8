//! Hypercalls from where kernels make none, with what no kernel would name.

use super::case::{Case, approved, run};
use super::{Attack, Plan, place_payload};
use crate::memory::PAGE;
#[cfg(target_arch = "x86_64")]
use crate::memory::poke;
use crate::modules::{
    self, ALPHA, APPROVE, APPROVE_CODE, CORE, DESCRIPTOR, Descriptor, Module, RELEASE,
};
#[cfg(target_arch = "x86_64")]
use crate::tables::SPARE_CS;
use crate::trap::{self, Frame, symbol};

/// A row: alpha's core with a changed bit, asked for in a special way.
macro_rules! call_row {
    ($name:literal, $change:expr) => {
        Attack {
            name: $name,
            plan: |_| {
                let mut case = Case::core();
                case.flip("alpha_entry", 9);
                let change: fn(&mut Case) = $change;
                change(&mut case);
                case.plan()
            },
        }
    };
}

/// The kernel's code segment for compatibility mode.
#[cfg(target_arch = "x86_64")]
pub fn set_code_segment() {
    poke(symbol!(gdt) + SPARE_CS, 0x00CF_9B00_0000_FFFF);
}

/// The rows.
pub const ROWS: &[Attack] = &[
    Attack {
        name: "call-user",
        // User mode releases approved code; the kernel writes to it.
        plan: |_| {
            let (module, frame) = approved();
            let mut unit = Descriptor::new(CORE, "");
            unit.core[0] = module.place.core;
            unit.store(DESCRIPTOR);
            trap::run_user(&Frame {
                ax: APPROVE_CODE,
                bx: RELEASE,
                cx: DESCRIPTOR,
                dx: size_of::<Descriptor>() as u64,
                ..Frame::user(symbol!(u_just_vmmcall))
            });
            Plan::call(frame, symbol!(write_marker), frame).at_target()
        },
    },
    #[cfg(target_arch = "x86_64")]
    call_row!("call-compatible", |case| {
        set_code_segment();
        case.by = (symbol!(vmmcall_compatible), 0);
    }),
    #[cfg(target_arch = "x86")]
    call_row!("call-unpaged", |case| case.by = (symbol!(vmmcall_without), 1 << 31)),
    #[cfg(target_arch = "x86")]
    call_row!("call-real-mode", |case| case.by = (symbol!(vmmcall_without), 1 << 31 | 1)),
    call_row!("descriptor-text", |case| case.at = symbol!(victim)),
    call_row!("descriptor-rom", |case| case.at = 0xF_0000),
    call_row!("descriptor-own-page", |case| {
        // In the page's slack, which approval makes INT3.
        case.at = case.module.place.core + 2 * PAGE - 256;
        case.unit.store(case.at);
    }),
    Attack {
        name: "descriptor-slack",
        // It ends as INT3, and so does the code beside it.
        plan: |_| {
            let (module, bytes) = (Module::load(ALPHA, 0), size_of::<Descriptor>() as u64);
            let at = (module.place.core + ALPHA.code_end(false)).next_multiple_of(8);
            module.unit(CORE).store(at);
            let code = place_payload(at + bytes);
            modules::hypercall(APPROVE, at, bytes);
            run(code, modules::physical(code))
        },
    },
];
