//! One machine and the rows that it runs, step by step.

use std::ops::Range;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::evidence::{Attempt, Text};
use super::rows::Effect;
use super::state::{State, Tables, Watched};
use super::{Batch, Column, Outcome, Row, Setup, Verdict};
use crate::Result;
use crate::qemu::{EXIT_DONE, Machine, Running};
use crate::record::{Record, ranges};

/// From power-on to the guest's question.
const BOOT: Duration = Duration::from_secs(180);
/// From one pause to the next.
const STEP: Duration = Duration::from_secs(40);
/// From the last row to the end of the guest's work.
const WORK: Duration = Duration::from_secs(90);
/// Bytes compared at the witness.
const WATCHED: u64 = 64;
/// Records of an attack that a verdict quotes.
const TOLD: usize = 3;
/// What the guest keeps of a request, but for some bytes that are no names.
const REQUEST: usize = 4000;
/// How often a machine that may have ended is asked for its state.
const ASK: Duration = Duration::from_millis(500);
/// The state of a machine that was reset or switched off, in the monitor's words.
const SHUT_DOWN: &str = "paused (shutdown)";
/// What only the guest writes to SecVisor's log.
const FORGED: &str = "secvisor: forged";

/// Whether the guest wrote to SecVisor's log.
pub fn forged(log: &str) -> bool {
    log.contains(FORGED)
}

/// A guest that asks what to do, as the attack guest does.
pub struct Asked {
    /// What boots it.
    pub machine: Machine,
    /// Its kernel as ELF.
    pub kernel: PathBuf,
    /// Where it has the code of its modules.
    pub modules: Range<u64>,
    /// Whether its console tells of a guest that does its work when the attacks are over.
    pub works: fn(&str) -> bool,
    /// A directory of this run's own.
    pub directory: PathBuf,
}

/// Judges rows in a column: as few boots as possible, and a new one after each crash.
///
/// # Errors
/// If the guest does not even boot.
pub fn judge(setup: &Setup, column: Column, rows: &[&'static Row]) -> Result<Vec<Verdict>> {
    let asked = Asked {
        machine: setup.machine(column, "ask")?,
        kernel: setup.guest.clone(),
        modules: 0..0,
        works: |_| true,
        directory: setup.place(column, "judge"),
    };
    judge_on(&asked, column, rows)
}

/// The same on another guest.
///
/// # Errors
/// If the guest does not even boot.
pub fn judge_on(asked: &Asked, column: Column, rows: &[&'static Row]) -> Result<Vec<Verdict>> {
    let text = Text::of(&asked.kernel, asked.modules.clone())?;
    let mut verdicts = Vec::new();
    for batch in Batch::ALL {
        let mut left: Vec<&'static Row> =
            rows.iter().copied().filter(|row| row.batch == batch).collect();
        while !left.is_empty() {
            let count = if batch == Batch::Alone { 1 } else { fitting(&left) };
            let mut session = match Session::start(asked, column, &left[..count], &text) {
                Ok(session) => session,
                // What earlier boots showed still counts.
                Err(error) => {
                    let failed = || Outcome::Failed(error.to_string());
                    let verdict = |row| Verdict { row, column, outcome: failed(), records: vec![] };
                    verdicts.extend(left.drain(..count).map(verdict));
                    continue;
                }
            };
            for (index, row) in left[..count].iter().enumerate() {
                let (mut outcome, records) = session.row(row);
                if session.is_alive() && index + 1 == count {
                    session.end(asked.works, &mut outcome);
                }
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

/// How many rows can be asked for at once.
fn fitting(rows: &[&Row]) -> usize {
    let lengths = rows.iter().scan(0, |length, row| {
        *length += row.name.len() + 1;
        Some(*length)
    });
    lengths.take_while(|length| *length < REQUEST).count()
}

/// A booted guest that works through a list of rows.
struct Session<'a> {
    running: Running,
    text: &'a Text,
    column: Column,
    alive: bool,
    /// What is compared before and after each row under SecVisor, and its tables before the first.
    watched: Option<(Watched, Tables)>,
}

/// How much SecVisor had said before a row.
#[derive(Clone, Copy)]
struct Known {
    records: usize,
    bytes: usize,
}

impl<'a> Session<'a> {
    fn start(asked: &Asked, column: Column, rows: &[&Row], text: &'a Text) -> Result<Self> {
        let smp = rows.iter().any(|row| row.batch == Batch::Processors);
        let mut machine = Machine { cpus: if smp { 2 } else { 1 }, ..asked.machine.clone() };
        // A machine that ends stays to be looked at.
        machine.extra.extend(["-action", "shutdown=pause"].map(String::from));
        let mut running = machine.start(&asked.directory, BOOT)?;
        running.wait_for("guest: ask")?;
        let names: Vec<&str> = rows.iter().map(|row| row.name).collect();
        let mut line = format!("run={}", names.join(","));
        if let Some(hidden) = ranges(&running.log(), "secvisor: hidden").next() {
            line.push_str(&format!(" hidden={:#x}", hidden.start));
        }
        let more = rows.iter().any(|row| matches!(row.batch, Batch::Modules | Batch::Pinned));
        let mut watched = None;
        if column != Column::Plain {
            let found = Watched::find(&running.log(), &running.console.text(), text, more)?;
            let tables = found.tables(&running)?;
            watched = Some((found, tables));
        }
        let mut session = Self { running, text, column, alive: true, watched };
        session.running.send(&format!("{line}\n"))?;
        Ok(session)
    }

    fn is_alive(&self) -> bool {
        self.alive
    }

    /// After its last row a guest ends as it does when all is well; else that row is at fault.
    fn end(&mut self, works: fn(&str) -> bool, outcome: &mut Outcome) {
        self.running.deadline = Instant::now() + WORK;
        let ended = self.running.wait_for("guest: done").and_then(|()| self.exit());
        let why = match ended {
            Ok(EXIT_DONE) if works(&self.running.console.text()) => return,
            Ok(EXIT_DONE) => "the guest did not do its work afterwards".into(),
            Ok(status) => format!("the guest ended with status {status}"),
            Err(error) => format!("the guest did not end: {error}"),
        };
        *outcome = Outcome::Failed(why);
    }

    /// The status of a machine that has ended or is about to.
    fn exit(&mut self) -> Result<i32> {
        let end = Instant::now() + STEP;
        while self.status() == "running" && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(50));
        }
        // Older emulators end by themselves, and then nobody answers.
        let _ = self.running.monitor("quit");
        self.running.deadline = end;
        self.running.wait()
    }

    fn row(&mut self, row: &'static Row) -> (Outcome, Vec<String>) {
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
        self.watched.as_ref().map(|(watched, _)| watched.state(&self.running)).transpose()
    }

    fn judge(&mut self, row: &'static Row, known: Known) -> Result<Outcome> {
        let attempt = self.attempt(row)?;
        let before = self.running.memory(attempt.witness, WATCHED)?;
        let state = self.state()?;
        self.running.send("g")?;
        if let Err(error) = self.reach(row, "pause after") {
            self.alive = false;
            return Ok(self.ended(row, &attempt, (&before, state), known, &error.to_string()));
        }
        let after = self.running.memory(attempt.witness, WATCHED)?;
        let changed = self.changed(state)?;
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

    /// What is not as it was `then`.
    fn changed(&self, then: Option<State>) -> Result<Option<String>> {
        Ok(self.state()?.zip(then).and_then(|(now, then)| now.difference(&then)))
    }

    /// What a row left in SecVisor's tables that was not there before the first.
    fn not_restored(&self) -> Result<Option<String>> {
        let Some((watched, before)) = &self.watched else { return Ok(None) };
        let left = watched.tables(&self.running)?.difference(before);
        Ok(left.map(|what| format!("since the first row {what}")))
    }

    /// Waits until the guest is about to attack, and reads where its success would show.
    fn attempt(&mut self, row: &'a Row) -> Result<Attempt<'a>> {
        self.reach(row, "pause before")?;
        Ok(Attempt::find(&self.running.console.text(), row, self.column, self.text)
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
        match attempt.amiss(&console, log, &Record::all(log)) {
            Some(why) => Outcome::Failed(why),
            None => Outcome::Stopped,
        }
    }

    /// The guest did not come back from an attack.
    fn ended(
        &mut self,
        row: &Row,
        attempt: &Attempt,
        (witness, state): (&[u8], Option<State>),
        known: Known,
        error: &str,
    ) -> Outcome {
        match (self.status().as_str(), row.effect) {
            ("paused (suspended)", Effect::Sleep) => return Outcome::Succeeded,
            // SecVisor ends a guest that merely crashed by a reset, too, and says so.
            (SHUT_DOWN, Effect::Reset)
                if self.records(known).iter().any(|record| record.kind == "shutdown") =>
            {
                return Outcome::Failed("the guest crashed instead of a reset".into());
            }
            // A guest that gives up pauses the machine too, but with a status.
            (SHUT_DOWN, Effect::Reset) if self.exit().is_ok_and(|status| status == 0) => {
                return Outcome::Succeeded;
            }
            _ => (),
        }
        let intact = self.running.memory(attempt.witness, WATCHED).is_ok_and(|now| now == witness)
            && self.changed(state).is_ok_and(|changed| changed.is_none());
        if row.may_die && intact && self.records(known).iter().any(|record| attempt.matches(record))
        {
            return Outcome::Stopped;
        }
        Outcome::Failed(error.into())
    }
}
