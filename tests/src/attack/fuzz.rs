//! The fuzzer's judge: what the guest says of its rounds, and what is left in SecVisor after them.

use std::time::{Duration, Instant};

use super::evidence::Text;
use super::state::Watched;
use super::{Column, Setup};
use crate::Result;
use crate::qemu::{EXIT_DONE, Running};
use crate::record::{field, number, ranges};

/// From power-on to the guest's question.
const BOOT: Duration = Duration::from_secs(60);
/// What nobody can go on from.
const UNKNOWN: &str = "kind=unknown";

/// What is fuzzed, and how long.
#[derive(Clone, Copy, Debug)]
pub struct Fuzz {
    /// The guest's part, `fuzz-` left out.
    pub part: &'static str,
    /// Its rounds.
    pub rounds: u64,
    /// What its numbers come from.
    pub seed: u64,
    /// Whether the kernel's gates may be aimed at user memory.
    pub gates: bool,
    /// Whether SecVisor keeps its log to itself: a line takes longer than a round. Nobody looks at
    /// the kinds of violations then, for its ring keeps only the last ones.
    pub quiet: bool,
    /// How long it may take.
    pub deadline: Duration,
}

impl Fuzz {
    fn line(&self) -> String {
        let Self { part, rounds, seed, gates, .. } = self;
        let gates = if *gates { " gates" } else { "" };
        format!("run=fuzz-{part} seed={seed} rounds={rounds}{gates}")
    }
}

/// Fuzzes a column: the outcomes that the guest counted.
///
/// # Errors
/// If a round had an outcome that it must not have, the machine did not end as it should, or anything
/// in SecVisor's tables or the guest's approved code is not as it was before the first round.
pub fn fuzz(setup: &Setup, column: Column, fuzz: &Fuzz) -> Result<Vec<(String, u64)>> {
    let told = start(setup, column)?;
    let (log, console) = (told.log(), told.console.text());
    let watched = Watched::find(&log, &console, &Text::of(&setup.guest, 0..0)?, true)?;
    let hidden = ranges(&log, "secvisor: hidden").next().ok_or("nothing is hidden")?.start;
    let mut running = if fuzz.quiet {
        drop(told);
        // It lies in the same places when nobody says where.
        let options = format!("{} log=none", setup.options);
        start(&Setup { options, ..setup.clone() }, column)?
    } else {
        told
    };
    running.deadline = Instant::now() + fuzz.deadline;
    running.send(&format!("{} hidden={hidden:#x}\n", fuzz.line()))?;
    let judged = judge(&mut running, &watched, fuzz);
    judged.map_err(|error| explain(&running, fuzz, &error.to_string()).into())
}

fn start(setup: &Setup, column: Column) -> Result<Running> {
    let machine = setup.machine(column, "ask")?;
    let mut running = machine.start(&setup.place(column, "fuzz"), BOOT)?;
    running.wait_for("guest: ask")?;
    Ok(running)
}

fn judge(running: &mut Running, watched: &Watched, fuzz: &Fuzz) -> Result<Vec<(String, u64)>> {
    let pause = |when| format!("fuzz: {} pause {when}", fuzz.part);
    running.wait_for(&pause("before"))?;
    let (tables, code) = (watched.tables(running)?, watched.code(running)?);
    running.send("g")?;
    running.wait_for(&pause("after"))?;
    let changed = watched.tables(running)?.difference(&tables);
    let code_now = watched.code(running)?;
    if let Some(what) = changed.or_else(|| code_now.difference(&code)) {
        return Err(format!("since the first round {what}").into());
    }
    running.send("g")?;
    let status = running.wait()?;
    let (log, console) = (running.log(), running.console.text());
    if status != EXIT_DONE {
        return Err(format!("ended with status {status}").into());
    }
    if let Some(line) = log.lines().find(|line| line.contains(UNKNOWN)) {
        return Err(format!("SecVisor did not know: {line}").into());
    }
    let start = format!("fuzz: {} outcome ", fuzz.part);
    let counts = console.lines().filter_map(|line| line.strip_prefix(&start)?.split_once('='));
    Ok(counts.filter_map(|(name, count)| Some((name.to_owned(), number(count)?))).collect())
}

/// What went wrong, in which round, and how to see it again.
fn explain(running: &Running, fuzz: &Fuzz, error: &str) -> String {
    let console = running.console.text();
    if let Some(line) = console.lines().find(|line| line.contains(" failed in round ")) {
        return format!("{}; repeat by {}", line.trim(), fuzz.line());
    }
    let progress = console.lines().find_map(|line| number(field(line, "progress")?));
    let round = progress
        .and_then(|at| running.memory(at, 8).ok())
        .and_then(|bytes| Some(u64::from_le_bytes(bytes.try_into().ok()?)));
    // Of a machine that is gone only the guest's last words on it are left.
    let said = || console.lines().rev().find_map(|line| number(field(line, "reached")?));
    let when = match round {
        Some(round) => format!("in round {round}"),
        None => format!("after round {}", said().unwrap_or(0)),
    };
    format!("{error}; {when} of {}", fuzz.line())
}
