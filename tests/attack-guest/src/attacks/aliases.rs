//! Approved frames by other names: in another order, across borders, by translations that are older
//! than the approval or the release.

use super::case::{approved, run};
use super::{Act, Attack, Plan, place_payload};
use crate::memory::{self, MARKER, PAGE, PRESENT, RW, URW, WINDOW, copy, peek, peek8, poke8};
use crate::modules::{self, ALPHA, CORE, Module};
use crate::trap::{self, Frame, symbol};

/// Where alpha's core has an instruction across its pages' border, and its bytes in the second page.
const ACROSS: u64 = 4093;
const BEHIND: u64 = 2;

/// The rows.
pub const ROWS: &[Attack] = &[
    Attack {
        name: "alias-write-warm",
        // Written by another address before the approval, and again after it.
        plan: |_| {
            let module = Module::load(ALPHA, 0);
            let frame = modules::physical(module.place.core);
            let alias = memory::map(0, frame, RW);
            poke8(alias, peek8(alias));
            module.approve(CORE);
            Plan::call(frame, symbol!(write_marker), alias).at_target()
        },
    },
    Attack {
        name: "alias-write-warm-user",
        plan: |_| {
            let module = Module::load(ALPHA, 0);
            let frame = modules::physical(module.place.core);
            let di = memory::map(0, frame, URW);
            let store = Frame { di, ax: peek(frame), ..Frame::user(symbol!(u_store)) };
            trap::run_user(&store);
            module.approve(CORE);
            let act = Act::User(Frame { ax: MARKER, ..store });
            Plan { act, ..Plan::user(frame, 0) }.at_target()
        },
    },
    Attack {
        name: "alias-exec-warm",
        // Run while it was approved, and again after the release.
        plan: |_| {
            let (module, frame) = approved();
            let entry = module.symbol("alpha_entry");
            trap::call(entry, symbol!(bss_payload));
            modules::release(module.place.core);
            run(place_payload(entry), frame)
        },
    },
    Attack {
        name: "alias-exec-straddling",
        // An instruction that begins in approved code and ends in the attacker's frame.
        plan: |_| {
            let (module, _) = approved();
            let (core, other) = (module.place.core, modules::frame());
            copy(core + PAGE, other, PAGE);
            place_payload(other + BEHIND);
            modules::map(core + PAGE, other);
            run(core + ACROSS, other)
        },
    },
    #[cfg(target_arch = "x86_64")]
    Attack {
        name: "write-text-huge-alias",
        plan: |_| {
            let (text, alias) = (symbol!(victim), modules::huge_alias(symbol!(victim)));
            Plan::call(text, symbol!(write_marker), alias).at_target()
        },
    },
    Attack {
        name: "text-other-order",
        // Two approved pages, side by side as no linker put them.
        plan: |_| {
            memory::map(0, symbol!(spell_first), PRESENT);
            memory::map(1, symbol!(spell_other), PRESENT);
            let entry = WINDOW + symbol!(spell_entry) % PAGE;
            Plan::call(symbol!(spell_other), entry, symbol!(witness))
        },
    },
    #[cfg(target_arch = "x86_64")]
    Attack {
        name: "text-other-mode",
        // Approved bytes of 64-bit code, run as 32-bit code.
        plan: |_| {
            super::calls::set_code_segment();
            let code = symbol!(spell_constant);
            Plan::call(code, symbol!(call_as_32_bit), code)
        },
    },
];
