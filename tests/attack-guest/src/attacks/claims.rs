//! What a kernel may say of modules, and what it does with that: claims, the list's first copy, units
//! that outlive others.

use super::case::{Case, approved, field, run};
use super::places::list;
use super::{Attack, Plan, place_payload};
use crate::arch::object::{CALL, TO_DATA};
use crate::boot::Options;
use crate::cpu::under_secvisor;
use crate::memory::{HEAP, peek, peek8, peek32, poke};
use crate::modules::object::Site;
use crate::modules::{self, ALPHA, CORE, Module};
use crate::trap::symbol;

/// In an approval list: the counts in its header, and the bytes of header and records.
const COUNTS: [u64; 3] = [20, 24, 28];
const HEADER_BYTES: u64 = 64;
const RECORD_BYTES: [u64; 3] = [96, 64, 80];
const RELOCATIONS: u64 = 32;
const RELOCATION_BYTES: u64 = 16;
const RELATIVE_FIELD: u8 = 3;

/// Aims a relocated field elsewhere in the copy of the list that the boot loader left.
fn edit_list(options: &Options, site: &Site) {
    let list = list(options);
    let tables = COUNTS.into_iter().zip(RECORD_BYTES);
    let before: u64 = tables.map(|(count, bytes)| u64::from(peek32(list + count)) * bytes).sum();
    let first = list + HEADER_BYTES + before;
    let mut edited = 0;
    for at in (0..u64::from(peek32(list + RELOCATIONS))).map(|row| first + row * RELOCATION_BYTES) {
        if u64::from(peek32(at)) == site.offset && peek8(at + 4) == RELATIVE_FIELD {
            poke(at + 8, peek(at + 8) + 0x10);
            edited += 1;
        }
    }
    assert!(edited > 0, "the list does not name the field");
}

/// The rows.
pub const ROWS: &[Attack] = &[
    Attack {
        name: "list-edited",
        plan: |options| {
            let mut case = Case::core();
            case.aim(".text", (CALL, 0), None);
            if let Some(site) = case.site.filter(|_| under_secvisor()) {
                edit_list(options, &site);
            }
            case.plan()
        },
    },
    Attack {
        name: "module-init-claimed",
        // The core is approved with an init region that nobody asks for.
        plan: |_| {
            let module = Module::load(ALPHA, 0);
            module.approve(CORE);
            let code = place_payload(module.place.init);
            run(code, modules::physical(code))
        },
    },
    Attack {
        name: "module-core-gone",
        // Approved init code calls its core, which is data again.
        plan: |_| {
            let (module, _) = approved();
            modules::release(module.place.core);
            let code = place_payload(module.symbol("alpha_far"));
            Plan::call(modules::physical(code), module.symbol("alpha_init"), HEAP)
        },
    },
    Attack {
        name: "module-planted",
        // At this base an address that the module holds spells STOSD and RET.
        plan: |_| {
            let module = Module::load_planted(ALPHA);
            module.approve(CORE);
            let code = field(&module, ".text", TO_DATA, None).map_or(0, |site| site.address + 2);
            Plan::call(code, symbol!(call_with_witness), code)
        },
    },
];
