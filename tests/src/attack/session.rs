//! One machine and the rows that it runs, step by step.

use std::time::{Duration, Instant};

use super::evidence::{self, Attempt};
use super::rows::Effect;
use super::state::{State, Tables, Watched};
use super::{Batch, Column, Outcome, Row, Setup, Verdict};
use crate::Result;
use crate::qemu::{Machine, Running};
use crate::record::{Record, ranges};

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
    for batch in Batch::ALL {
        let mut left: Vec<&'static Row> =
            rows.iter().copied().filter(|row| row.batch == batch).collect();
        while !left.is_empty() {
            let count = if batch == Batch::Alone { 1 } else { left.len() };
            let mut session = Session::start(setup, &machine, column, &left[..count])?;
            for row in &left[..count] {
                let (outcome, records) = session.row(row);
                let broken = matches!(outcome, Outcome::Failed(_)) || !session.is_alive();
                verdicts.push(Verdict { row, column, outcome, records });
                if broken {
                    break;
                }
            }
            let done = verdicts.iter().filter(|v| v.row.batch == batch).count();
            left = rows.iter().copied().filter(|row| row.batch == batch).skip(done).collect();
        }
    }
    Ok(verdicts)
}

/// A booted guest that works through a list of rows.
struct Session {
    running: Running,
    column: Column,
    alive: bool,
    /// What is compared before and after each row, if that is.
    watched: Option<Watched>,
    /// SecVisor's tables before the first row.
    tables: Tables,
}

/// How much SecVisor had said before a row.
#[derive(Clone, Copy)]
struct Known {
    records: usize,
    bytes: usize,
}

impl Session {
    fn start(setup: &Setup, machine: &Machine, column: Column, rows: &[&Row]) -> Result<Self> {
        let smp = rows.iter().any(|row| row.batch == Batch::Processors);
        let mut machine = Machine { cpus: if smp { 2 } else { 1 }, ..machine.clone() };
        // A machine that ends stays to be looked at.
        machine.extra.extend(["-action", "shutdown=pause"].map(String::from));
        let mut running = machine.start(&setup.place(column, "judge"), BOOT)?;
        running.wait_for("guest: ask")?;
        let names: Vec<&str> = rows.iter().map(|row| row.name).collect();
        let mut line = format!("run={}", names.join(","));
        if let Some(hidden) = ranges(&running.log(), "secvisor: hidden").next() {
            line.push_str(&format!(" hidden={:#x}", hidden.start));
        }
        let kept = rows.iter().any(|row| matches!(row.batch, Batch::Modules | Batch::Pinned));
        let mut session =
            Self { running, column, alive: true, watched: None, tables: Tables::default() };
        if kept && column != Column::Plain {
            let watched = Watched::find(&session.running.log(), &session.running.console.text())?;
            session.tables = watched.tables(&session.running)?;
            session.watched = Some(watched);
        }
        session.running.send(&format!("{line}\n"))?;
        Ok(session)
    }

    fn is_alive(&self) -> bool {
        self.alive
    }

    fn row(&mut self, row: &Row) -> (Outcome, Vec<String>) {
        let log = self.running.log();
        let known = Known { records: Record::all(&log).len(), bytes: log.len() };
        let outcome = self.judge(row, known).unwrap_or_else(|error| {
            self.alive = false;
            Outcome::Failed(error.to_string())
        });
        let records = self.records(known).into_iter().map(|record| record.line);
        let records = records.take(TOLD).collect();
        (outcome, records)
    }

    /// SecVisor's records since there were `known`.
    fn records(&self, known: Known) -> Vec<Record> {
        Record::all(&self.running.log()).into_iter().skip(known.records).collect()
    }

    /// What must stay as it is, if that is compared.
    fn state(&self) -> Result<Option<State>> {
        self.watched.as_ref().map(|watched| watched.state(&self.running)).transpose()
    }

    fn judge(&mut self, row: &Row, known: Known) -> Result<Outcome> {
        let attempt = self.attempt(row)?;
        let before = self.running.memory(attempt.witness, WATCHED)?;
        let state = self.state()?;
        self.running.send("g")?;
        if let Err(error) = self.reach(row, "pause after") {
            self.alive = false;
            return Ok(self.ended(row, &attempt, &before, known, &error.to_string()));
        }
        let after = self.running.memory(attempt.witness, WATCHED)?;
        let changed = self.state()?.zip(state).and_then(|(now, then)| now.difference(&then));
        self.running.send("g")?;
        let effect = match row.effect {
            Effect::Log => forged(&self.running.log()),
            Effect::Memory => before != after,
            Effect::Sleep | Effect::Reset => false,
        };
        let survived = self.reach(row, "pause over");
        self.alive = survived.is_ok();
        let outcome = match survived {
            _ if effect => Outcome::Succeeded,
            Err(error) => Outcome::Failed(format!("not well afterwards: {error}")),
            Ok(()) => match changed.map_or_else(|| self.not_restored(), |what| Ok(Some(what)))? {
                Some(what) => Outcome::Failed(what),
                None => self.stopped(row, &attempt, known),
            },
        };
        // Only now may the next row begin.
        if self.alive {
            self.running.send("g")?;
        }
        Ok(outcome)
    }

    /// What a row left in SecVisor's tables that was not there before the first.
    fn not_restored(&self) -> Result<Option<String>> {
        let Some(watched) = &self.watched else { return Ok(None) };
        let left = watched.tables(&self.running)?.difference(&self.tables);
        Ok(left.map(|what| format!("since the first row {what}")))
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

    /// An attack without effect: what was said of it decides.
    fn stopped(&self, row: &Row, attempt: &Attempt, known: Known) -> Outcome {
        if self.column == Column::Plain {
            return match row.impossible {
                Some(_) => Outcome::Stopped,
                None => Outcome::Failed("no effect, though nothing stops it".into()),
            };
        }
        let (console, log) = (self.running.console.text(), self.running.log());
        let log = log.get(known.bytes..).unwrap_or_default();
        match evidence::amiss(row, attempt, &console, log, &Record::all(log)) {
            Some(why) => Outcome::Failed(why),
            None => Outcome::Stopped,
        }
    }

    /// The guest did not come back from an attack.
    fn ended(
        &self,
        row: &Row,
        attempt: &Attempt,
        before: &[u8],
        known: Known,
        error: &str,
    ) -> Outcome {
        match (self.status().as_str(), row.effect) {
            ("paused (shutdown)", Effect::Reset) | ("paused (suspended)", Effect::Sleep) => {
                return Outcome::Succeeded;
            }
            _ => (),
        }
        let intact = self.running.memory(attempt.witness, WATCHED).is_ok_and(|now| now == before);
        if row.may_die
            && intact
            && self.records(known).iter().any(|r| evidence::matches(row, attempt, r))
        {
            return Outcome::Stopped;
        }
        Outcome::Failed(error.into())
    }
}
