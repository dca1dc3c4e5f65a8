//! Releases that must not be done, and modules after approval: released, re-pointed, written.

use super::case::{Case, approved, release, run};
use super::{Act, Attack, Plan, place_payload};
use crate::memory::{self, MARKER, PAGE, URW, copy, poke8};
use crate::modules::{self, ALPHA, CORE, Descriptor, INIT, Module, RELEASE};
use crate::trap::{Frame, symbol};

/// The rows.
pub const ROWS: &[Attack] = &[
    // Release: what is no module's unit stays as it is.
    Attack {
        name: "release-unapproved",
        plan: |_| {
            let mut case = Case::core();
            case.operation = RELEASE;
            case.plan()
        },
    },
    Attack {
        name: "release-kernel-text",
        plan: |_| release(symbol!(text_start), 0, symbol!(victim)),
    },
    Attack {
        name: "release-kernel-text-as-init",
        plan: |_| {
            let mut case = Case::core();
            let size = symbol!(text_end) - symbol!(text_start);
            case.operation = RELEASE;
            case.unit = Descriptor::new(0, "kernel");
            case.unit.init = [symbol!(text_start), size];
            case.plan_write(symbol!(victim))
        },
    },
    Attack { name: "release-hidden", plan: |options| release(options.hidden, 0, options.hidden) },
    Attack {
        name: "release-inside",
        plan: |_| {
            let (module, frame) = approved();
            release(module.place.core + PAGE, 0, frame)
        },
    },
    Attack {
        name: "release-other-size",
        plan: |_| {
            let (module, frame) = approved();
            release(module.place.core, PAGE, frame)
        },
    },
    Attack {
        name: "release-twice",
        plan: |_| {
            let (module, _) = approved();
            modules::release(module.place.core);
            let mut case = Case::new(module, CORE, "alpha_entry");
            case.operation = RELEASE;
            case.plan()
        },
    },
    Attack {
        name: "release-init-twice",
        plan: |_| {
            let (module, _) = approved();
            modules::release(module.place.init);
            let mut case = Case::new(module, INIT, "alpha_init");
            case.operation = RELEASE;
            case.plan()
        },
    },
    // What was approved once, and what looks as if.
    Attack {
        name: "module-released",
        plan: |_| {
            let (module, frame) = approved();
            modules::release(module.place.core);
            // It is data again.
            poke8(module.place.core + PAGE, 0);
            run(module.symbol("alpha_entry"), frame)
        },
    },
    Attack {
        name: "module-released-init",
        plan: |_| {
            let (module, _) = approved();
            modules::release(module.place.init);
            poke8(module.place.init + PAGE - 1, 0);
            let entry = module.symbol("alpha_init");
            run(entry, modules::physical(entry))
        },
    },
    Attack {
        name: "module-repointed",
        plan: |_| {
            let (module, frame) = approved();
            let other = modules::frame();
            copy(frame, other, PAGE);
            modules::map(module.place.core, other);
            run(module.symbol("alpha_entry"), other)
        },
    },
    Attack {
        name: "module-data",
        plan: |_| {
            let (module, _) = approved();
            let code = place_payload(module.symbol("alpha_buffer"));
            run(code, modules::physical(code))
        },
    },
    Attack {
        name: "module-slack",
        plan: |_| {
            let module = Module::load(ALPHA, 0);
            let slack = place_payload(module.place.core + ALPHA.code_end(false));
            module.approve_all();
            run(slack, modules::physical(slack))
        },
    },
    Attack {
        name: "module-gap",
        plan: |_| {
            let module = Module::load(ALPHA, 0);
            let gap = place_payload(module.symbol("alpha_cold") + 0x40);
            module.approve_all();
            run(gap, modules::physical(gap))
        },
    },
    // Writes to what is approved, by every name that it has.
    Attack {
        name: "module-write",
        plan: |_| {
            let (module, frame) = approved();
            Plan::call(frame, symbol!(write_marker), module.place.core).at_target()
        },
    },
    Attack {
        name: "module-write-init",
        plan: |_| {
            let (module, _) = approved();
            let frame = modules::physical(module.place.init);
            Plan::call(frame, symbol!(write_marker), module.place.init).at_target()
        },
    },
    Attack {
        name: "module-write-identity",
        plan: |_| {
            let (_, frame) = approved();
            Plan::call(frame, symbol!(write_marker), frame).at_target()
        },
    },
    Attack {
        name: "module-write-large",
        plan: |_| {
            let (_, frame) = approved();
            Plan::call(frame, symbol!(write_marker), memory::map_large(frame)).at_target()
        },
    },
    #[cfg(target_arch = "x86_64")]
    Attack {
        name: "module-write-huge",
        plan: |_| {
            let (_, frame) = approved();
            Plan::call(frame, symbol!(write_marker), modules::huge_alias(frame)).at_target()
        },
    },
    Attack {
        name: "module-write-user",
        plan: |_| {
            let (_, frame) = approved();
            let di = memory::map(0, frame, URW);
            let frame_at_start = Frame { di, ax: MARKER, ..Frame::user(symbol!(u_store)) };
            Plan { act: Act::User(frame_at_start), ..Plan::user(frame, 0) }.at_target()
        },
    },
];
