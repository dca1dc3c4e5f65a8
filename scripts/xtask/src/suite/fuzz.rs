//! Fuzzing from inside the freestanding guest: a short slice with fixed seeds, or a soak.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use harness::Result;
use harness::attack::{Column, Fuzz, Guest, fuzz};

use super::{Context, Test};

/// How long a slice may take, boot included, on a busy machine; and a soak.
const SLICE: Duration = Duration::from_secs(120);
const SOAK: Duration = Duration::from_secs(3600);

/// A part of the guest's fuzzer.
struct Part {
    name: &'static str,
    /// Rounds of a slice, and of a soak.
    rounds: [u64; 2],
    /// Whether the entry guard makes a difference to it.
    guarded: bool,
    /// Outcomes that a run must have seen.
    seen: &'static [&'static str],
}

const PARTS: [Part; 6] = [
    // Sixteen calls each.
    Part {
        name: "hypercalls",
        rounds: [200, 65_536],
        guarded: false,
        seen: &["granted", "released", "undefined", "not-permitted", "fault", "busy", "invalid"],
    },
    Part {
        name: "msrs",
        rounds: [2000, 200_000],
        guarded: false,
        seen: &["changed", "kept", "protection", "refused"],
    },
    Part {
        name: "ports",
        rounds: [2000, 200_000],
        guarded: false,
        seen: &["read", "written", "refused"],
    },
    Part {
        name: "control-registers",
        rounds: [2000, 200_000],
        guarded: false,
        seen: &["performed", "refused", "undefined"],
    },
    Part {
        name: "user-code",
        rounds: [2000, 200_000],
        guarded: true,
        seen: &["end", "syscall", "protection", "page-fault", "undefined", "gate"],
    },
    Part {
        name: "kernel-code",
        rounds: [2000, 200_000],
        guarded: true,
        seen: &["jumped", "returned", "after-user"],
    },
];

/// All of them.
pub fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    for (guest, prefix) in [(Guest::Long, ""), (Guest::Pae, "i386-")] {
        for part in &PARTS {
            tests.push(test(guest, prefix, part, Column::Events));
            if part.guarded {
                tests.push(test(guest, prefix, part, Column::Npf));
                tests.push(test(guest, prefix, part, Column::Gmet));
            }
        }
    }
    tests
}

fn test(guest: Guest, prefix: &str, part: &'static Part, column: Column) -> Test {
    let mut name = format!("fuzz/{prefix}{}", part.name);
    if column != Column::Events {
        name = format!("{name}-{}", column.name());
    }
    let test = name.clone();
    Test::new(name, move |context| run(context, &test, guest, part, column)).on_emulator_of(column)
}

fn run(context: &Context, name: &str, guest: Guest, part: &Part, column: Column) -> Result<()> {
    let soak = context.soak();
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| now.as_secs());
    let seed = context.seed().unwrap_or_else(|| if soak { clock() } else { 1 });
    let run = Fuzz {
        part: part.name,
        rounds: part.rounds[usize::from(soak)],
        seed,
        // That guard lets such gates through: that is what the default is for.
        gates: column != Column::Npf,
        quiet: soak,
        deadline: if soak { SOAK } else { SLICE },
    };
    let setup = super::attack::setup(context, name, guest, column)?;
    let counts = fuzz(&setup, column, &run)?;
    let told: Vec<_> = counts.iter().map(|(what, count)| format!("{what}={count}")).collect();
    println!("{name}: seed={seed} rounds={} {}", run.rounds, told.join(" "));
    let unseen = part.seen.iter().find(|seen| counts.iter().all(|count| count.0 != **seen));
    match unseen {
        Some(outcome) => Err(format!("seed {seed} never came to {outcome:?}").into()),
        None => Ok(()),
    }
}
