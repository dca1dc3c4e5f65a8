//! The attack guest's judge: boots it in each column and decides from outside what happened.
//!
//! The guest says what it is about to do and waits; the judge reads the frames where a success
//! would show, lets it go on, reads them again, and holds SecVisor's log beside it. What the guest
//! itself thinks of the outcome counts for nothing.

mod evidence;
mod fuzz;
mod image;
mod rows;
mod session;
mod state;
mod unwatched;

use std::path::PathBuf;
use std::time::Duration;

pub use fuzz::{Fuzz, fuzz};
pub use rows::{Batch, Effect, Group, Needs, Row, rows, rows_of, rows_of_linux};
pub use session::{Asked, judge, judge_on};
pub use unwatched::{
    FIRST_ON_BOCHS_WHY, Run, attacks_on_bochs, honest_on_bochs, not_on_bochs, unwatched,
};

use crate::Result;
use crate::qemu::{Boot, EXIT_DONE, INSTALLED, Machine};

/// What is below the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Column {
    /// Nothing: the control.
    Plain,
    /// SecVisor with `entry-guard=npf`.
    Npf,
    /// SecVisor with `entry-guard=events`, the default without GMET.
    Events,
    /// SecVisor as it launches by itself on an emulator with GMET.
    Gmet,
}

impl Column {
    /// Every column.
    pub const ALL: [Self; 4] = [Self::Plain, Self::Npf, Self::Events, Self::Gmet];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Npf => "npf",
            Self::Events => "events",
            Self::Gmet => "gmet",
        }
    }

    /// What SecVisor's command line says for it: of GMET nothing, which it chooses by itself.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Plain | Self::Gmet => "",
            Self::Npf => "entry-guard=npf",
            Self::Events => "entry-guard=events",
        }
    }

    /// What SecVisor's log says where it launched so.
    pub const fn launched(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Npf => Some("secvisor: views=two entry-guard=npf "),
            Self::Events => Some("secvisor: views=two entry-guard=events "),
            Self::Gmet => Some("secvisor: views=gmet "),
        }
    }
}

/// A build of the attack guest, and its page tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Guest {
    /// 64-bit.
    Long,
    /// 32-bit, three levels of page tables (PAE).
    Pae,
    /// 32-bit, two levels, large pages (PSE).
    Large,
    /// 32-bit, two levels, no large pages.
    Small,
}

impl Guest {
    /// Every guest.
    pub const ALL: [Self; 4] = [Self::Long, Self::Pae, Self::Large, Self::Small];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Long => "x86_64",
            Self::Pae => "i386",
            Self::Large => "i386-large",
            Self::Small => "i386-small",
        }
    }

    /// How names of its tests begin.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Long => "",
            Self::Pae => "i386-pae-",
            Self::Large => "i386-large-",
            Self::Small => "i386-small-",
        }
    }

    /// What its command line ends with.
    const fn words(self) -> &'static str {
        match self {
            Self::Long => "",
            Self::Pae => " paging=pae",
            Self::Large => " paging=large",
            Self::Small => " paging=small",
        }
    }
}

/// The files of a run and where it may write.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Which guest.
    pub kind: Guest,
    /// The attack guest's ELF file.
    pub guest: PathBuf,
    /// SecVisor's ELF file; not used in [`Column::Plain`].
    pub secvisor: PathBuf,
    /// The approval list made from the guest; not used in [`Column::Plain`].
    pub approvals: PathBuf,
    /// Further options on SecVisor's command line.
    pub options: String,
    /// The QEMU that runs it.
    pub emulator: PathBuf,
    /// QEMU's processor model.
    pub cpu: String,
    /// A directory of this run's own.
    pub directory: PathBuf,
}

impl Setup {
    /// The reference machine.
    pub fn new(guest: PathBuf, secvisor: PathBuf, approvals: PathBuf, directory: PathBuf) -> Self {
        Self {
            kind: Guest::Long,
            guest,
            secvisor,
            approvals,
            options: String::new(),
            emulator: INSTALLED.into(),
            cpu: "max".into(),
            directory,
        }
    }

    /// A machine whose guest has this command line.
    fn machine(&self, column: Column, line: &str) -> Result<Machine> {
        let iso = image::write(self, column, &format!("{line}{}", self.kind.words()))?;
        let memory = "256M".into();
        let (emulator, cpu) = (self.emulator.clone(), self.cpu.clone());
        let launched = column.launched();
        Ok(Machine { emulator, cpu, memory, launched, ..Machine::new(Boot::Iso(iso)) })
    }

    fn place(&self, column: Column, what: &str) -> PathBuf {
        self.directory.join(format!("{}-{what}", column.name()))
    }

    /// Runs parts of the guest to their end; its console, and SecVisor's log.
    fn run_part(&self, column: Column, part: &str, icount: bool) -> Result<(String, String)> {
        let machine = Machine { icount, ..self.machine(column, &format!("run={part}"))? };
        let mut running =
            machine.start(&self.place(column, &part.replace(',', "-")), PART_DEADLINE)?;
        let status = running.wait()?;
        let console = running.console.text();
        if status != EXIT_DONE {
            let last = crate::console::tail(&console);
            return Err(format!("{part}: status {status}; last: {last}").into());
        }
        Ok((console, running.log()))
    }
}

const PART_DEADLINE: Duration = Duration::from_secs(300);

/// What became of an attack.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// No effect, the right records and no other, and the guest works on.
    Stopped,
    /// Its effect is there.
    Succeeded,
    /// Anything else: a hang, a crash, no record, a wrong one.
    Failed(String),
    /// It was not tried.
    NotRun,
}

impl Outcome {
    /// Its name.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Succeeded => "succeeded",
            Self::Failed(_) => "failed",
            Self::NotRun => "not-run",
        }
    }
}

/// An attack's outcome in a column.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The row.
    pub row: &'static Row,
    /// The column.
    pub column: Column,
    /// What became of it.
    pub outcome: Outcome,
    /// SecVisor's records of it.
    pub records: Vec<String>,
}

impl Verdict {
    /// Whether the outcome is what the table says.
    pub fn as_expected(&self) -> bool {
        self.outcome == self.row.expected(self.column)
    }

    /// The table's reason, where an outcome that nobody wants is expected.
    pub fn reason(&self) -> Option<&'static str> {
        match self.outcome {
            Outcome::Stopped if self.column == Column::Plain => self.row.impossible,
            Outcome::Succeeded if self.column != Column::Plain => self.row.not_promised,
            _ => None,
        }
    }
}

/// Lines of `text` with this first word, without it.
fn lines_of(text: &str, word: &str) -> Vec<String> {
    let prefix = format!("{word}: ");
    text.lines().filter_map(|line| line.strip_prefix(&prefix)).map(str::to_owned).collect()
}

/// What the honest programs see, but for those `left_out`: to be the same in every column.
///
/// # Errors
/// If the guest does not run to its end, a program does not, or SecVisor records a violation.
pub fn honest(setup: &Setup, column: Column, left_out: &[&str]) -> Result<Vec<String>> {
    let (console, log) = setup.run_part(column, "honest,lock", false)?;
    honest_lines(&console, &log, left_out)
}

fn honest_lines(console: &str, log: &str, left_out: &[&str]) -> Result<Vec<String>> {
    let mut lines = lines_of(console, "honest");
    lines.retain(|line| line.split(' ').next().is_none_or(|name| !left_out.contains(&name)));
    if let Some(line) = lines.iter().find(|line| line.ends_with("did not end")) {
        return Err(line.clone().into());
    }
    if let Some(record) = crate::record::Record::all(log).first() {
        return Err(format!("honest work was recorded: {}", record.line).into());
    }
    if lines.is_empty() {
        return Err("no honest program ran".into());
    }
    Ok(lines)
}

/// The first difference between what honest programs saw in two columns.
pub fn first_difference(one: &[String], other: &[String]) -> Option<String> {
    let pair = one.iter().zip(other).find(|(one, other)| one != other);
    match pair {
        Some((one, other)) => Some(format!("{one:?} became {other:?}")),
        None if one.len() != other.len() => {
            Some(format!("{} lines became {}", one.len(), other.len()))
        }
        None => None,
    }
}

/// Questions with one right answer: each that came out otherwise than it must.
///
/// # Errors
/// If the guest does not run to its end or leaves a question out.
pub fn checks(setup: &Setup, column: Column) -> Result<Vec<String>> {
    let (console, _) = setup.run_part(column, "checks,lock", false)?;
    let lines = lines_of(&console, "check");
    let mut wrong = Vec::new();
    for &(name, plain, guarded) in rows::CHECKS {
        let wanted = if column == Column::Plain { plain } else { guarded };
        let answer = lines
            .iter()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
            .ok_or_else(|| format!("no answer to {name}"))?;
        let holds = match (wanted, answer.split_once('/')) {
            (rows::Answer::All, Some((held, asked))) => held == asked,
            (rows::Answer::None, Some((held, _))) => held == "0",
            (_, None) => false,
        };
        if !holds {
            wrong.push(format!("{name}: {answer}, wanted {wanted:?}"));
        }
    }
    Ok(wrong)
}

/// A loop of the benchmark.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Figure {
    /// Its name: `empty`, `syscall`, `int`, `user-page-fault`, `user-segment-load`, `cpuid`,
    /// `vmmcall` (under SecVisor only), `user-interrupt` or `cr4-locked`, a toggle of CR4.PGE once
    /// the kernel is locked.
    pub name: String,
    /// Rounds.
    pub iterations: u64,
    /// Instructions of all rounds, SecVisor's included.
    pub instructions: u64,
    /// VM exits of all rounds.
    pub exits: u64,
}

impl Figure {
    fn parse(line: &str) -> Option<Self> {
        let number = |name| crate::record::number(crate::record::field(line, name)?);
        Some(Self {
            name: line.split(' ').next()?.to_owned(),
            iterations: number("iterations")?,
            instructions: number("instructions")?,
            exits: number("exits")?,
        })
    }

    /// Instructions of one round.
    pub fn instructions_per_round(&self) -> f64 {
        self.instructions as f64 / self.iterations as f64
    }

    /// VM exits of one round.
    pub fn exits_per_round(&self) -> f64 {
        self.exits as f64 / self.iterations as f64
    }
}

/// Measures under `-icount shift=0`, where the time stamp counter counts instructions.
///
/// # Errors
/// If the guest does not run to its end or a loop breaks off.
pub fn bench(setup: &Setup, column: Column) -> Result<Vec<Figure>> {
    let (console, _) = setup.run_part(column, "bench", true)?;
    let figure =
        |line: &String| Figure::parse(line).ok_or_else(|| format!("benchmark: {line}").into());
    lines_of(&console, "bench").iter().map(figure).collect()
}
