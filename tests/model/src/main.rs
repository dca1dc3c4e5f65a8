//! Explores the model: every interleaving of SecVisor's policy with an adversary, and an honest guest.

use std::process::ExitCode;
use std::time::Instant;

use model::adversary::Bound;
use model::explore::Report;
use model::{explore_adversary, explore_honest};
use policy::fault::EntryGuard;

const USE: &str = "use: secvisor-model [--deep] [--npf] [--most STATES]";
/// What must be sound. Without views there are fewer states: what is broken there is found sooner.
const SOUND: &[EntryGuard] = &[EntryGuard::Gmet, EntryGuard::Events];

fn main() -> ExitCode {
    let (mut bounds, mut guards, mut most) = (Bound::TESTED, SOUND, u32::MAX as usize);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--deep" => bounds = Bound::DEEP,
            "--npf" => guards = &[EntryGuard::Npf],
            "--most" => match arguments.next().and_then(|it| it.parse().ok()) {
                Some(states) => most = states,
                None => return usage("--most needs a number of states"),
            },
            _ => return usage(&format!("unknown argument {argument}")),
        }
    }
    let mut states = vec![0; guards.len()];
    let mut explored = |at: usize, name: &str, explore: &dyn Fn(EntryGuard, usize) -> Report| {
        let (start, guard) = (Instant::now(), guards[at]);
        let report = explore(guard, most);
        states[at] += report.states;
        tell(&format!("{guard:?}, {name}"), &report, start)
    };
    let all = 0..guards.len();
    // With the `npf` guard an honest guest needs a fault that the model lets it do without.
    let mut honest = all.clone().filter(|&at| guards[at] != EntryGuard::Npf);
    let hold = honest.all(|at| explored(at, "honest guest", &explore_honest))
        && bounds.into_iter().all(|bound| {
            let name = format!("adversary, {bound}");
            let explore = |guard, most| explore_adversary(bound, guard, most);
            all.clone().all(|at| explored(at, &name, &explore))
        });
    if !hold {
        return ExitCode::FAILURE;
    }
    for (guard, states) in guards.iter().zip(&states) {
        println!("{guard:?}: {states} states, and in each of them all properties hold");
    }
    println!("all properties hold in {} states", states.iter().sum::<usize>());
    ExitCode::SUCCESS
}

/// Prints what an exploration found; whether that is that all is well.
fn tell(name: &str, report: &Report, start: Instant) -> bool {
    let Report { states, steps, goals, depth, complete, broken } = report;
    let seconds = start.elapsed().as_secs_f32();
    println!(
        "{name}: {states} states, {goals} of them goals, {steps} steps, depth {depth}, {seconds:.1} s"
    );
    if let Some((property, way)) = broken {
        way.iter().for_each(|action| println!("  {action}"));
        println!("broken: {property}");
    } else if !complete {
        println!("not complete");
    } else if *goals == 0 {
        println!("no goal was reached");
    }
    broken.is_none() && *complete && *goals > 0
}

fn usage(wrong: &str) -> ExitCode {
    eprintln!("error: {wrong}; {USE}");
    ExitCode::from(2)
}
