//! What scripts/bench counts, in short: a system call costs two exits and no more.

use super::{Context, Test};
use crate::lmbench::{self, NULL_CALL, Way};
use crate::run::Guard;
use harness::Result;

/// All of them.
pub fn tests() -> Vec<Test> {
    vec![Test::new("bench/exits-per-null-call", null_call)]
}

fn null_call(context: &Context) -> Result<()> {
    let (secvisor, guest) = (context.hypervisor()?, context.guest()?);
    let directory = context.directory("bench/null-call")?;
    let way = Way::Guarded(Guard::Events);
    let console = lmbench::run(secvisor, guest, way, NULL_CALL, &directory)?;
    match lmbench::cost(&console, NULL_CALL) {
        Some(cost) if cost.exits == 2.0 => Ok(()),
        Some(cost) => Err(format!("a null call takes {} exits, not 2", cost.exits).into()),
        None => Err("the guest told nothing of null calls".into()),
    }
}
