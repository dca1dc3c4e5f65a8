//! Explores the model: every interleaving of SecVisor's policy with an adversary, and an honest guest.

use std::process::ExitCode;
use std::time::Instant;

use model::adversary::Bound;
use model::explore::Report;
use model::{explore_adversary, explore_honest};
use policy::fault::EntryGuard;

const USE: &str = "use: secvisor-model [--deep] [--npf] [--most STATES]";

fn main() -> ExitCode {
    let (mut bounds, mut guard, mut most) = (Bound::TESTED, EntryGuard::Events, u32::MAX as usize);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--deep" => bounds = Bound::DEEP,
            "--npf" => guard = EntryGuard::Npf,
            "--most" => match arguments.next().and_then(|it| it.parse().ok()) {
                Some(states) => most = states,
                None => return usage("--most needs a number of states"),
            },
            _ => return usage(&format!("unknown argument {argument}")),
        }
    }
    let mut states = 0;
    let mut explored = |name: &str, explore: &dyn Fn() -> Report| {
        let start = Instant::now();
        let report = explore();
        states += report.states;
        tell(name, &report, start)
    };
    // With the `npf` guard an honest guest needs a fault that the model lets it do without.
    let honest =
        guard == EntryGuard::Npf || explored("honest guest", &|| explore_honest(guard, most));
    let all = honest
        && bounds.into_iter().all(|bound| {
            let name = format!("adversary, {bound}");
            explored(&name, &|| explore_adversary(bound, guard, most))
        });
    if !all {
        return ExitCode::FAILURE;
    }
    println!("all properties hold in {states} states");
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
