//! `fuzz-hypercalls`: rounds of calls about modules, most of them wrong in some way.
//!
//! Nothing may be granted but a module of the list, whole and where it was said to be; nothing be
//! released but what was granted. Each refusal must be recorded, and nothing else.

mod call;
mod module;

use call::Call;
use module::{CASES, Loaded};

use super::Fuzz;
use crate::memory::poke;
use crate::modules;
use crate::trap;

/// Calls of a round.
const CALLS: usize = 16;
/// Memory of the test machine that is in the frame table as RAM.
const RAM: u64 = 0x1000_0000;

/// What is granted, by case and region.
#[derive(Default)]
pub struct Granted {
    /// Where.
    bases: [[u64; 2]; CASES],
    /// Whether those frames are surely approved that are mapped there.
    certain: [[bool; 2]; CASES],
}

/// Copies the modules as they must be. Then gives the kernel's init text away, and has a page named
/// in every 2 MiB of memory: SecVisor's tables are after that as they will be at the end.
pub fn start(fuzz: &mut Fuzz<'_>) {
    module::keep();
    call::release_init_text();
    for frame in (0..RAM).step_by(0x20_0000) {
        call::name_frame(frame);
    }
    modules::reset();
    fuzz.risen();
}

pub fn round(fuzz: &mut Fuzz<'_>) {
    let mut granted = Granted::default();
    let loaded = Loaded::choose(fuzz, &mut granted);
    for _ in 0..CALLS {
        let mut call = Call::choose(fuzz, &loaded);
        let spoiled = loaded.spoil(fuzz, &granted);
        call.certain = !spoiled.moves_frames();
        call.make(fuzz, &mut granted);
        spoiled.undo(fuzz);
    }
    // Init regions first: the core that they belong to is known by its base.
    for init in [1, 0] {
        for case in 0..CASES {
            let base = granted.bases[case][init];
            if base != 0 && modules::release(base) != 0 {
                fuzz.fail(format_args!("what lies at {base:#x} cannot be released"));
            }
        }
    }
    extern "C" fn write(address: u64) {
        poke(address, 0);
    }
    if let Some(end) = trap::attempt(write, loaded.place().core) {
        fuzz.unexpected(format_args!("what was released cannot be written"), &end);
    }
}
