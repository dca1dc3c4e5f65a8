//! What scripts/bench counts, in short: a system call costs two exits and no more.

use clap::ValueEnum;
use harness::Result;

use super::{Context, Test};
use crate::artifacts::Arch;
use crate::lmbench::{self, NULL_CALL, Way};
use crate::run::Guard;

/// All of them.
pub fn tests() -> Vec<Test> {
    let of = |arch: Arch| {
        let name = format!("bench/exits-per-null-call-{}", arch.name());
        Test::new(name, move |context| null_call(context, arch))
    };
    Arch::value_variants().iter().copied().map(of).collect()
}

fn null_call(context: &Context, arch: Arch) -> Result<()> {
    let (secvisor, guest) = (context.hypervisor()?, context.guest_of(arch)?);
    let directory = context.directory(&format!("bench/null-call-{}", arch.name()))?;
    let way = Way::Guarded(Guard::Events);
    let console = lmbench::run(secvisor, guest, way, NULL_CALL, &directory)?;
    match lmbench::cost(&console, NULL_CALL) {
        Some(cost) if cost.exits == 2.0 => Ok(()),
        Some(cost) => Err(format!("a null call takes {} exits, not 2", cost.exits).into()),
        None => Err("the guest told nothing of null calls".into()),
    }
}
