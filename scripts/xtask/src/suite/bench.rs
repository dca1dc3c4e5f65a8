//! What scripts/bench counts, in short: a system call costs two exits and no more, with GMET none.

use clap::ValueEnum;
use harness::Result;

use super::{Context, Test};
use crate::artifacts::Arch;
use crate::lmbench::{self, Cost, NULL_CALL, Way};
use crate::run::Guard;

/// By how much a null call may differ with GMET from one without SecVisor.
const SAME: f64 = 0.01;

/// All of them.
pub fn tests() -> Vec<Test> {
    let of = |arch: Arch| {
        let name = |what: &str| format!("bench/{what}-{}", arch.name());
        [
            Test::new(name("exits-per-null-call"), move |context| two_views(context, arch)),
            Test::new(name("gmet-null-call-as-plain"), move |context| gmet(context, arch))
                .on_patched(),
        ]
    };
    Arch::value_variants().iter().copied().flat_map(of).collect()
}

fn null_call(context: &Context, arch: Arch, way: Way) -> Result<Cost> {
    let (secvisor, guest) = (context.hypervisor()?, context.guest_of(arch)?);
    let directory = context.directory(&format!("bench/{way:?}-{}", arch.name()))?;
    let console = lmbench::run(secvisor, guest, way, NULL_CALL, &directory)?;
    Ok(lmbench::cost(&console, NULL_CALL).ok_or("the guest told nothing of null calls")?)
}

fn two_views(context: &Context, arch: Arch) -> Result<()> {
    match null_call(context, arch, Way::Guarded(Guard::Events))?.exits {
        2.0 => Ok(()),
        exits => Err(format!("a null call takes {exits} exits, not 2").into()),
    }
}

fn gmet(context: &Context, arch: Arch) -> Result<()> {
    let cost = null_call(context, arch, Way::Gmet)?;
    let plain = null_call(context, arch, Way::Plain)?.instructions;
    if cost.exits != 0.0 {
        return Err(format!("a null call takes {} exits with GMET, not 0", cost.exits).into());
    }
    if (cost.instructions / plain - 1.0).abs() > SAME {
        let told =
            format!("{} instructions with GMET, {plain} without SecVisor", cost.instructions);
        return Err(format!("a null call takes {told}").into());
    }
    Ok(())
}
