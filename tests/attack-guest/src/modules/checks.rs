//! Modules that must load: by pages of every size, one with another, again and elsewhere.

use super::{ALPHA, BETA, GAMMA, Module, Place, huge_pages, release, reset};
use crate::arch::object::ALPHA_RESULT;
use crate::memory::{PAGE, peek, poke};
use crate::trap::{self, symbol};

/// What the modules' functions leave, each digit by a relocation of its own.
const RESULTS: [(&str, u64); 5] = [
    ("alpha_entry", ALPHA_RESULT),
    ("alpha_init", 0x60_000B),
    ("beta_entry", 0x60_00B1),
    ("gamma_entry", 0xC),
    ("gamma_init", 0xD),
];

/// Whether a function of a module runs and has the right result.
fn runs(module: &Module, name: &str) -> bool {
    let wanted = RESULTS.iter().find(|result| result.0 == name).map(|result| result.1);
    let result = symbol!(witness) + 8;
    poke(result, 0);
    trap::call(module.symbol(name), symbol!(witness)).is_none() && Some(peek(result)) == wanted
}

/// Approves alpha and runs both its regions.
fn alpha_runs(module: &Module) -> bool {
    module.approve_all() == 0 && runs(module, "alpha_entry") && runs(module, "alpha_init")
}

fn released(module: &Module) -> bool {
    release(module.place.init) == 0 && release(module.place.core) == 0
}

fn count(held: &[bool]) -> (u64, u64) {
    reset();
    (held.iter().filter(|held| **held).count() as u64, held.len() as u64)
}

/// Scattered frames, twice, at different places; its data stays data.
pub fn small_pages() -> (u64, u64) {
    reset();
    let first = Module::load(ALPHA, 0);
    let at_first = alpha_runs(&first);
    let data = first.symbol("alpha_buffer");
    poke(data & !7, 1);
    let gone = released(&first);
    // What was code takes data again.
    poke(first.place.core, 0);
    poke(first.place.init + PAGE - 8, 0);
    let again = alpha_runs(&Module::load(ALPHA, 3));
    count(&[at_first, gone, again])
}

/// One 2 MiB page.
pub fn large_page() -> (u64, u64) {
    reset();
    let module = Module::load_at(ALPHA, Place::large(), None);
    count(&[alpha_runs(&module), released(&module)])
}

/// One 1 GiB page, where the processor has such.
pub fn huge_page() -> (u64, u64) {
    reset();
    if !huge_pages() {
        return (0, 0);
    }
    let module = Module::load_at(ALPHA, Place::huge(), None);
    count(&[alpha_runs(&module), released(&module)])
}

/// A module that needs another, and one that needs nothing.
pub fn together() -> (u64, u64) {
    reset();
    let alpha = Module::load(ALPHA, 5);
    let alone = alpha_runs(&alpha);
    let beta = Module::load_with(BETA, 1, Some(&alpha));
    let needs = beta.approve_all() == 0 && runs(&beta, "beta_entry");
    let gamma = Module::load(GAMMA, 2);
    let third = gamma.approve_all() == 0 && runs(&gamma, "gamma_entry");
    let init = runs(&gamma, "gamma_init");
    count(&[alone, needs, third, init])
}

/// Loaded and released over and over, wherever there is room.
pub fn cycles() -> (u64, u64) {
    reset();
    let held = core::array::from_fn::<bool, 16, _>(|round| {
        let module = Module::load(ALPHA, round as u64 % 8);
        alpha_runs(&module) && released(&module)
    });
    count(&held)
}
