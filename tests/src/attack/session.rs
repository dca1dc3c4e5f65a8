//! One machine and the rows that it runs, step by step.

use std::time::{Duration, Instant};

use super::rows::{Effect, Trace};
use super::{Column, Group, Outcome, Row, Setup, Verdict};
use crate::Result;
use crate::qemu::{Machine, Running};
use crate::record::{Record, field, number};

/// From power-on to the guest's question.
const BOOT: Duration = Duration::from_secs(60);
/// From one pause to the next.
const STEP: Duration = Duration::from_secs(20);
/// Bytes compared at the witness.
const WATCHED: u64 = 64;
/// Records of an attack that a verdict quotes.
const TOLD: usize = 3;
/// How often a machine that may have ended is asked for its state.
const ASK: Duration = Duration::from_millis(500);
/// What only the guest writes to SecVisor's log.
const FORGED: &str = "secvisor: forged";

/// Whether the guest wrote to SecVisor's log.
pub fn forged(log: &str) -> bool {
    log.contains(FORGED)
}

/// Judges rows in a column: as few boots as possible, and a new one after each crash.
///
/// # Errors
/// If the guest does not even boot.
pub fn judge(setup: &Setup, column: Column, rows: &[&'static Row]) -> Result<Vec<Verdict>> {
    let machine = setup.machine(column, "ask")?;
    let mut verdicts = Vec::new();
    for group in [Group::Ordinary, Group::Processors, Group::Alone] {
        let mut left: Vec<&'static Row> =
            rows.iter().copied().filter(|row| row.group == group).collect();
        while !left.is_empty() {
            let count = if group == Group::Alone { 1 } else { left.len() };
            let mut session = Session::start(setup, &machine, column, &left[..count])?;
            for row in &left[..count] {
                let (outcome, records) = session.row(row);
                let broken = matches!(outcome, Outcome::Failure(_)) || !session.is_alive();
                verdicts.push(Verdict { row, column, outcome, records });
                if broken {
                    break;
                }
            }
            let done = verdicts.iter().filter(|v| v.row.group == group).count();
            left = rows.iter().copied().filter(|row| row.group == group).skip(done).collect();
        }
    }
    Ok(verdicts)
}

/// A booted guest that works through a list of rows.
struct Session {
    running: Running,
    column: Column,
    alive: bool,
}

/// What the guest said before an attack.
pub(super) struct Attempt {
    target: u64,
    witness: u64,
}

impl Attempt {
    fn find(console: &str, row: &Row) -> Option<Self> {
        let line = line_of(console, row, "attempt")?;
        let value = |name| field(line, name).and_then(number);
        Some(Self { target: value("target")?, witness: value("witness")? })
    }
}

/// The guest's line about a row that begins with this word.
fn line_of<'a>(console: &'a str, row: &Row, word: &str) -> Option<&'a str> {
    let start = format!("attack: {} {word} ", row.name);
    console.lines().find(|line| line.starts_with(&start))
}

/// A row that the guest ran unwatched: what it aimed at, and whether it saw an effect.
pub(super) fn told(console: &str, row: &Row) -> Option<(Attempt, bool)> {
    let effect = field(line_of(console, row, "done")?, "effect")? == "yes";
    Some((Attempt::find(console, row)?, effect))
}

/// Whether one of the records is of this attack.
pub(super) fn is_recorded(row: &Row, attempt: &Attempt, records: &[Record]) -> bool {
    row.trace == Trace::Nothing || records.iter().any(|record| matches(row, attempt, record))
}

impl Session {
    fn start(setup: &Setup, machine: &Machine, column: Column, rows: &[&Row]) -> Result<Self> {
        let smp = rows.iter().any(|row| row.group == Group::Processors);
        let mut machine = Machine { cpus: if smp { 2 } else { 1 }, ..machine.clone() };
        // A machine that ends stays to be looked at.
        machine.extra.extend(["-action", "shutdown=pause"].map(String::from));
        let mut running = machine.start(&setup.place(column, "judge"), BOOT)?;
        running.wait_for("guest: ask")?;
        let names: Vec<&str> = rows.iter().map(|row| row.name).collect();
        let mut line = format!("run={}", names.join(","));
        if let Some(hidden) = hidden_address(&running.log()) {
            line.push_str(&format!(" hidden={hidden:#x}"));
        }
        running.send(&format!("{line}\n"))?;
        Ok(Self { running, column, alive: true })
    }

    fn is_alive(&self) -> bool {
        self.alive
    }

    fn row(&mut self, row: &Row) -> (Outcome, Vec<String>) {
        let known = Record::all(&self.running.log()).len();
        let outcome = self.judge(row, known).unwrap_or_else(|error| {
            self.alive = false;
            Outcome::Failure(error.to_string())
        });
        let records = self.records(known).into_iter().map(|record| record.line);
        let records = records.take(TOLD).collect();
        (outcome, records)
    }

    /// SecVisor's records since there were `known`.
    fn records(&self, known: usize) -> Vec<Record> {
        Record::all(&self.running.log()).into_iter().skip(known).collect()
    }

    fn judge(&mut self, row: &Row, known: usize) -> Result<Outcome> {
        let attempt = self.attempt(row)?;
        let before = self.running.memory(attempt.witness, WATCHED)?;
        self.running.send("g")?;
        if let Err(error) = self.reach(row, "pause after") {
            self.alive = false;
            return Ok(self.ended(row, &attempt, &before, known, &error.to_string()));
        }
        let after = self.running.memory(attempt.witness, WATCHED)?;
        self.running.send("g")?;
        let effect = match row.effect {
            Effect::Log => forged(&self.running.log()),
            Effect::Memory => before != after,
            Effect::Sleep | Effect::Reset => false,
        };
        let survived = self.reach(row, "survived");
        self.alive = survived.is_ok();
        if effect {
            return Ok(Outcome::Succeeded);
        }
        if let Err(error) = survived {
            return Ok(Outcome::Failure(format!("not well afterwards: {error}")));
        }
        Ok(self.stopped(row, &attempt, known))
    }

    /// Waits until the guest is about to attack, and reads where its success would show.
    fn attempt(&mut self, row: &Row) -> Result<Attempt> {
        self.reach(row, "pause before")?;
        Ok(Attempt::find(&self.running.console.text(), row)
            .ok_or("an attempt without addresses")?)
    }

    fn reach(&mut self, row: &Row, what: &str) -> Result<()> {
        let end = Instant::now() + STEP;
        loop {
            self.running.deadline = Instant::now() + ASK;
            let reached = self.running.wait_for(&format!("attack: {} {what}", row.name));
            if reached.is_ok() || Instant::now() > end || self.status() != "running" {
                return reached;
            }
        }
    }

    /// The machine's state in the monitor's words.
    fn status(&self) -> String {
        let answer = self.running.monitor("info status").unwrap_or_default();
        answer.trim().trim_start_matches("VM status: ").lines().next().unwrap_or("").to_owned()
    }

    /// An attack without effect: the records decide.
    fn stopped(&self, row: &Row, attempt: &Attempt, known: usize) -> Outcome {
        if self.column == Column::Plain {
            return Outcome::Failure("no effect, though nothing stops it".into());
        }
        let records = self.records(known);
        if let Some(stray) = records.iter().find(|record| !matches(row, attempt, record)) {
            return Outcome::Failure(format!("a record that does not fit: {}", stray.line));
        }
        if records.is_empty() && row.trace != Trace::Nothing {
            return Outcome::Failure("no effect, but no record".into());
        }
        Outcome::Stopped
    }

    /// The guest did not come back from an attack.
    fn ended(
        &self,
        row: &Row,
        attempt: &Attempt,
        before: &[u8],
        known: usize,
        error: &str,
    ) -> Outcome {
        match (self.status().as_str(), row.effect) {
            ("paused (shutdown)", Effect::Reset) if row.allowed => return Outcome::Reset,
            ("paused (shutdown)", Effect::Reset) | ("paused (suspended)", Effect::Sleep) => {
                return Outcome::Succeeded;
            }
            _ => (),
        }
        let intact = self.running.memory(attempt.witness, WATCHED).is_ok_and(|now| now == before);
        if row.may_die && intact && self.records(known).iter().any(|r| matches(row, attempt, r)) {
            return Outcome::Stopped;
        }
        Outcome::Failure(error.into())
    }
}

/// Whether a record is what the attack must leave.
fn matches(row: &Row, attempt: &Attempt, record: &Record) -> bool {
    match row.trace {
        Trace::Frame(kinds) => {
            let frame = record.gpa.map(|gpa| gpa >> 12);
            kinds.contains(&record.kind.as_str()) && frame == Some(attempt.target >> 12)
        }
        Trace::Number(kind) => record.kind == kind && record.info == attempt.target,
        Trace::Kind(kinds) => kinds.contains(&record.kind.as_str()),
        Trace::Nothing => false,
    }
}

/// Start of the memory that SecVisor says it hides.
fn hidden_address(log: &str) -> Option<u64> {
    let range = log.lines().find_map(|line| line.trim().strip_prefix("secvisor: hidden "))?;
    number(range.split('-').next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hidden_range_is_found() {
        let log = "secvisor: start\r\nsecvisor: hidden 0xf000000-0x10000000\r\n";
        assert_eq!(hidden_address(log), Some(0xF00_0000));
        assert_eq!(hidden_address("secvisor: start"), None);
    }
}
