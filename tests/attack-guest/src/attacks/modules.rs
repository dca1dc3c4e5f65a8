//! Modules that must not be approved: each is run all the same.

use super::Attack;
use super::case::{Case, approved};
use super::hidden::hidden;
use crate::arch::object::{ABSOLUTE_32, AT_BORDER, CALL, FROM_INIT, RELATIVE, TO_INIT, TO_OTHER};
#[cfg(target_arch = "x86_64")]
use crate::arch::object::{ABSOLUTE_64, SIGNED_32};
use crate::arch::write_entry;
use crate::boot::Options;
use crate::cpu;
use crate::memory::{self, HEAP, PAGE, RW, WINDOW, clear};
use crate::modules::{self, ALPHA, BETA, CORE, END, GAMMA, INIT, Module, NOWHERE};
use crate::trap::symbol;

/// A row from a change to alpha's core, which is asked for and run.
macro_rules! core_row {
    ($name:literal, $change:expr) => {
        Attack {
            name: $name,
            plan: |options| {
                let mut case = Case::core();
                let change: fn(&mut Case, &Options) = $change;
                change(&mut case, options);
                case.plan()
            },
        }
    };
}

/// The same with alpha's init region.
macro_rules! init_row {
    ($name:literal, $change:expr) => {
        Attack {
            name: $name,
            plan: |_| {
                let mut case = Case::init();
                let change: fn(&mut Case) = $change;
                change(&mut case);
                case.plan()
            },
        }
    };
}

/// The same with the kernel's core and a frame behind its second page.
macro_rules! page_row {
    ($name:literal, $frame:expr) => {
        core_row!($name, |case, options| {
            let frame: fn(&Case, &Options) -> u64 = $frame;
            case.second_page(frame(case, options));
        })
    };
}

/// The rows.
pub const ROWS: &[Attack] = &[
    // One bit, in every section.
    core_row!("module-flip-text", |case, _| case.flip("alpha_entry", 9)),
    core_row!("module-flip-text-page", |case, _| case.flip("alpha_far", 0x100)),
    core_row!("module-flip-unlikely", |case, _| case.flip("alpha_cold", 3)),
    core_row!("module-flip-exit", |case, _| case.flip("alpha_exit", 3)),
    init_row!("module-flip-init", |case| case.flip("alpha_init", 9)),
    init_row!("module-flip-init-more", |case| case.flip("alpha_more", 0)),
    // One relocation of every type, and between every two kinds of places.
    #[cfg(target_arch = "x86_64")]
    core_row!("module-aim-64", |case, _| case.aim(".text", (ABSOLUTE_64, 0), None)),
    core_row!("module-aim-pc32", |case, _| case.aim(".text", (RELATIVE, 0), None)),
    core_row!("module-aim-plt32", |case, _| case.aim(".text", (CALL, 0), None)),
    #[cfg(target_arch = "x86_64")]
    core_row!("module-aim-32s", |case, _| case.aim(".text", (SIGNED_32, 0), None)),
    core_row!("module-aim-32", |case, _| case.aim(".text", (ABSOLUTE_32, 0), None)),
    core_row!("module-aim-page-border", |case, _| case.aim(".text", AT_BORDER, None)),
    core_row!("module-aim-init", |case, _| case.aim(".text", TO_INIT, None)),
    init_row!("module-aim-init-to-core", |case| case.aim(".init.text", (CALL, 0), None)),
    init_row!("module-aim-init-to-data", |case| case.aim(".init.text", FROM_INIT, None)),
    Attack {
        name: "module-aim-other-module",
        plan: |_| {
            let (alpha, _) = approved();
            let beta = Module::load_with(BETA, 1, Some(&alpha));
            let mut case = Case::new(beta, CORE, "beta_entry");
            case.aim(".text", TO_OTHER, Some(&alpha));
            case.plan()
        },
    },
    // Bases.
    core_row!("module-base-unaligned", |case, _| case.unit.core[0] += 8),
    core_row!("module-base-zero", |case, _| case.unit.core[0] = 0),
    core_row!("module-base-outside", |case, _| {
        // The same frames where no module lies.
        for page in 0..2 {
            let frame = modules::physical(case.module.place.core + page * PAGE);
            memory::map(page, frame, RW);
        }
        case.unit.core[0] = WINDOW;
    }),
    core_row!("module-base-end", |case, _| case.unit.core[0] = END - PAGE),
    core_row!("module-base-non-canonical", |case, _| case.unit.core[0] = 1 << 63),
    core_row!("module-base-unmapped", |case, _| case.unit.core[0] = NOWHERE),
    core_row!("module-base-other", |case, _| {
        // The same frames elsewhere in the window: relocated for another place.
        case.unit.core[0] = modules::Place::small(3).core;
        for page in 0..2 {
            let frame = modules::physical(case.module.place.core + page * PAGE);
            modules::map(case.unit.core[0] + page * PAGE, frame);
        }
    }),
    core_row!("module-init-base-wrong", |case, _| case.unit.init[0] += PAGE),
    core_row!("module-init-base-zero", |case, _| case.unit.init[0] = 0),
    core_row!("module-init-base-outside", |case, _| case.unit.init[0] = WINDOW),
    init_row!("module-core-base-wrong", |case| case.unit.core[0] += PAGE),
    Attack {
        name: "module-init-first",
        plan: |_| Case::new(Module::load(ALPHA, 0), INIT, "alpha_init").plan(),
    },
    // Names and kinds.
    Attack {
        name: "module-name-other",
        plan: |_| {
            approved();
            let mut case = Case::new(Module::load(GAMMA, 1), CORE, "gamma_entry");
            case.unit.set_name("beta");
            case.plan()
        },
    },
    core_row!("module-name-unknown", |case, _| case.unit.set_name("delta")),
    core_row!("module-name-empty", |case, _| case.unit.set_name("")),
    core_row!("module-name-no-text", |case, _| case.unit.set_name("alpha\nsecvisor: forged")),
    Attack {
        name: "module-name-kernel",
        plan: |_| {
            let mut case = Case::new(Module::load(GAMMA, 0), CORE, "gamma_entry");
            case.unit.kind = 0;
            case.unit.init = case.unit.core;
            case.unit.set_name("kernel");
            case.plan()
        },
    },
    Attack {
        name: "module-core-as-init",
        plan: |_| {
            let module = Module::load(GAMMA, 0);
            module.approve(CORE);
            let copied = Module::load(GAMMA, 1);
            let mut case = Case::new(copied, INIT, "gamma_entry");
            case.unit.core[0] = module.place.core;
            case.unit.init[0] = copied.place.core;
            case.plan()
        },
    },
    // Lengths.
    core_row!("module-length-zero", |case, _| case.unit.core[1] = 0),
    core_row!("module-length-shorter", |case, _| case.unit.core[1] -= PAGE),
    core_row!("module-length-longer", |case, _| case.unit.core[1] += PAGE),
    core_row!("module-length-wrap", |case, _| case.unit.core[0] = !0xFFF),
    // What lies behind its second page.
    page_row!("module-page-text", |_, _| symbol!(victim)),
    page_row!("module-page-hidden", |_, options| hidden(options, |page| clear(page, PAGE))),
    page_row!("module-page-local-apic", |_, _| crate::devices::LAPIC),
    page_row!("module-page-device", |_, _| breakpoints(0xB_8000)),
    page_row!("module-page-beyond", |_, _| 1 << 40),
    page_row!("module-page-far-beyond", |_, _| 1 << 45),
    page_row!("module-page-unmapped", |_, _| 0),
    page_row!("module-page-twice", |case, _| modules::physical(case.module.place.core)),
    page_row!("module-page-own-table", |case, _| modules::entry(case.module.place.core) & !0xFFF),
    core_row!("module-page-zero", |case, _| {
        // Frame 0 itself, not an entry that is 0.
        let page = case.module.place.core + PAGE;
        write_entry(modules::entry(page), RW);
        cpu::invlpg(page);
    }),
    core_row!("module-page-approved", |case, _| {
        let other = Module::load(GAMMA, 1);
        other.approve_all();
        case.second_page(modules::physical(other.place.core));
    }),
    // Order, and what is there already.
    Attack {
        name: "module-dependency-missing",
        plan: |_| {
            let alpha = Module::load(ALPHA, 0);
            let beta = Module::load_with(BETA, 1, Some(&alpha));
            Case::new(beta, CORE, "beta_entry").plan()
        },
    },
    Attack {
        name: "module-dependency-moved",
        plan: |_| {
            let (alpha, _) = approved();
            let beta = Module::load_with(BETA, 1, Some(&alpha));
            modules::release(alpha.place.core);
            Module::load(ALPHA, 2).approve(CORE);
            Case::new(beta, CORE, "beta_entry").plan()
        },
    },
    Attack {
        name: "module-approved-twice",
        plan: |_| {
            approved();
            Case::new(Module::load(ALPHA, 1), CORE, "alpha_entry").plan()
        },
    },
    Attack {
        name: "module-overlap",
        plan: |_| {
            let (alpha, _) = approved();
            let mut case = Case::new(Module::load(GAMMA, 1), CORE, "gamma_entry");
            case.unit.core[0] = alpha.place.core + PAGE;
            case.plan()
        },
    },
    // The descriptor itself.
    core_row!("descriptor-version", |case, _| case.unit.version = 2),
    core_row!("descriptor-kind", |case, _| case.unit.kind = 3),
    core_row!("descriptor-reserved", |case, _| case.unit.reserved[2] = 1 << 63),
    core_row!("descriptor-operation", |case, _| case.operation = 3),
    core_row!("descriptor-size", |case, _| case.size = 120),
    core_row!("descriptor-unaligned", |case, _| {
        case.at = HEAP + 0x70_0004;
        case.unit.store(case.at);
    }),
    core_row!("descriptor-half-unmapped", |case, _| {
        memory::map(0, HEAP, RW);
        case.at = WINDOW + PAGE - 64;
    }),
    core_row!("descriptor-local-apic", |case, _| case.at = crate::devices::LAPIC),
    core_row!("descriptor-hidden", |case, options| case.at = options.hidden),
    #[cfg(target_arch = "x86_64")]
    core_row!("descriptor-non-canonical", |case, _| case.at = 1 << 63),
];

/// A page of nothing but INT3, where a control would run whatever is there.
fn breakpoints(page: u64) -> u64 {
    (page..page + PAGE).for_each(|at| crate::memory::poke8(at, 0xCC));
    page
}
