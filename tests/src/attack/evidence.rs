//! What the guest and SecVisor say of an attack, and whether it is what they must say.

use std::ops::Range;
use std::path::Path;

use super::rows::Trace;
use super::{Batch, Column, Row};
use crate::Result;
use crate::elf::{Part, section};
use crate::record::{Record, field, number};

/// How SecVisor's lines about modules that it refused begin.
const REFUSED: &str = "secvisor: refused module ";
const PAGE: u64 = 4096;
const LONGEST_INSTRUCTION: u64 = 15;
const GENERAL_PROTECTION: u64 = 13;
/// ENOENT: kernels release all memory of modules, and what was never approved leaves no record.
const NOTHING_TO_RELEASE: i64 = -2;

/// The guest's own approved code.
pub(super) struct Text {
    kernel: Vec<Part>,
    /// The addresses of its modules.
    modules: Range<u64>,
}

impl Text {
    pub(super) fn of(guest: &Path, modules: Range<u64>) -> Result<Self> {
        let sections = [".text", ".init.text"].into_iter().map(|name| section(guest, name));
        Ok(Self { kernel: sections.collect::<Result<_>>()?, modules })
    }

    fn contains(&self, address: u64) -> bool {
        self.modules.contains(&address)
            || self.kernel.iter().any(|part| part.addresses.contains(&address))
    }

    /// Where it lies in physical memory.
    pub(super) fn places(&self) -> impl Iterator<Item = Range<u64>> {
        self.kernel.iter().map(|part| part.physical..part.physical + part.bytes.len() as u64)
    }
}

/// What the guest said before an attack.
pub(super) struct Attempt<'a> {
    row: &'a Row,
    text: &'a Text,
    /// What SecVisor must say of it in this column.
    trace: Trace,
    target: u64,
    pub(super) witness: u64,
    /// The relocated field that it changed, and the bytes that it left there.
    site: Option<(String, String)>,
}

impl<'a> Attempt<'a> {
    pub(super) fn find(
        console: &str,
        row: &'a Row,
        column: Column,
        text: &'a Text,
    ) -> Option<Self> {
        let line = line_of(console, row, "attempt")?;
        let value = |name| field(line, name).and_then(number);
        let site = after(console, row, "site: ").and_then(|site| {
            let (place, bytes) = site.split_once(" [")?;
            let bytes = bytes.chars().filter(char::is_ascii_hexdigit).collect();
            Some((place.to_owned(), bytes))
        });
        let (target, witness) = (value("target")?, value("witness")?);
        Some(Self { row, text, trace: row.trace_in(column), target, witness, site })
    }

    /// What an attack without effect must have left, and did not.
    pub(super) fn amiss(&self, console: &str, log: &str, records: &[Record]) -> Option<String> {
        let row = self.row;
        if let Trace::Call { errno, log: text, then } = self.trace {
            let answer = answer(console, row);
            if answer != Some(errno) {
                return Some(format!("the call's answer is {answer:?}"));
            }
            let lines: Vec<_> = log.lines().filter(|line| line.starts_with(REFUSED)).collect();
            if let Some(why) = self.refusal_amiss(text, &lines) {
                return Some(format!("{why}: {lines:?}"));
            }
            let kinds: Vec<_> = records.iter().map(|record| record.kind.as_str()).collect();
            let quiet = text.is_empty() && errno == NOTHING_TO_RELEASE;
            let wanted = if quiet { vec![then] } else { vec!["hypercall", then] };
            if kinds != wanted {
                return Some(format!("records of {kinds:?} instead of {wanted:?}"));
            }
        }
        let stray = records.iter().find(|record| !self.matches(record));
        if let Some(stray) = stray {
            return Some(format!("a record that does not fit: {}", stray.line));
        }
        let many = matches!(row.batch, Batch::Modules | Batch::Pinned)
            && !matches!(self.trace, Trace::Call { .. });
        match records.len() {
            0 if self.trace != Trace::Nothing => return Some("no record".into()),
            2.. if many => return Some(format!("{} records instead of one", records.len())),
            _ => (),
        }
        let vector = line_of(console, row, "done").and_then(|line| field(line, "vector"));
        let vector = vector.and_then(number);
        (row.batch == Batch::Pinned && vector != Some(GENERAL_PROTECTION))
            .then(|| format!("it ended with vector {vector:?}"))
    }

    /// What is wrong with SecVisor's lines about a refused module, one of which must say `text`.
    fn refusal_amiss(&self, text: &str, lines: &[&str]) -> Option<String> {
        let [line] = lines else {
            return (text.is_empty() != lines.is_empty() || lines.len() > 1)
                .then(|| format!("{} refusals in the log", lines.len()));
        };
        if text.is_empty() || !line.contains(text) {
            return Some(format!("the refusal does not say {text:?}"));
        }
        let (place, bytes) = self.site.as_ref()?;
        let told =
            line.contains(&format!(": {place}: expected ")) && line.ends_with(bytes.as_str());
        (!told).then(|| format!("the refusal does not say that {place} holds {bytes}"))
    }

    /// Whether SecVisor said of this attack what it must, among all else that it said in a run.
    pub(super) fn is_recorded(&self, console: &str, log: &str) -> bool {
        let records = Record::all(log);
        let recorded =
            |kind: &str| records.iter().any(|record| record.kind == kind && self.matches(record));
        match self.trace {
            Trace::Nothing => true,
            Trace::Call { errno, log: text, then } => {
                let refused = |line: &str| line.starts_with(REFUSED) && line.contains(text);
                answer(console, self.row) == Some(errno)
                    && (text.is_empty() || recorded("hypercall") && log.lines().any(refused))
                    && recorded(then)
            }
            _ => records.iter().any(|record| self.matches(record)),
        }
    }

    /// Whether a record is what the attack must leave.
    pub(super) fn matches(&self, record: &Record) -> bool {
        let frame = record.gpa.map(|gpa| gpa >> 12);
        let at_target = frame == Some(self.target >> 12);
        let fits = match self.trace {
            Trace::Frame(kinds) => kinds.contains(&record.kind.as_str()) && at_target,
            Trace::Number(kind) => record.kind == kind && record.info == self.target,
            Trace::Kind(kinds) => kinds.contains(&record.kind.as_str()),
            Trace::Call { then, .. } => {
                record.kind == "hypercall" || record.kind == then && at_target
            }
            Trace::Nothing | Trace::Delivered(_) => false,
        };
        fits && self.fits_rip(record)
    }

    /// Whether the offender stood where it can have: at the byte that it fetched, else in approved code
    /// or, in user mode, outside it.
    fn fits_rip(&self, record: &Record) -> bool {
        let offset = |address: u64| address % PAGE;
        match (record.kind.as_str(), record.gpa) {
            ("kernel-fetch" | "user-fetch", Some(gpa)) => {
                // An instruction may cross into the page.
                let crosses = offset(gpa) == 0 && offset(record.rip) + LONGEST_INSTRUCTION > PAGE;
                offset(gpa) == offset(record.rip) || crosses
            }
            _ => self.text.contains(record.rip) == (record.cpl < 3),
        }
    }
}

/// The guest's line about a row that begins with this word.
fn line_of<'a>(console: &'a str, row: &Row, word: &str) -> Option<&'a str> {
    let start = format!("attack: {} {word} ", row.name);
    console.lines().find(|line| line.starts_with(&start))
}

/// The rest of the line that begins with `word`, of those between a row's attempt and the next.
fn after<'a>(console: &'a str, row: &Row, word: &str) -> Option<&'a str> {
    let start = format!("attack: {} attempt ", row.name);
    let lines = console.lines().skip_while(|line| !line.starts_with(&start)).skip(1);
    let mut own = lines.take_while(|line| !line.contains(" attempt "));
    own.find_map(|line| line.strip_prefix(word))
}

/// A row that the guest ran unwatched: what it aimed at, and whether it saw an effect.
pub(super) fn told<'a>(
    console: &str,
    row: &'a Row,
    column: Column,
    text: &'a Text,
) -> Option<(Attempt<'a>, bool)> {
    let effect = field(line_of(console, row, "done")?, "effect")? == "yes";
    Some((Attempt::find(console, row, column, text)?, effect))
}

/// What a row's hypercall answered.
fn answer(console: &str, row: &Row) -> Option<i64> {
    after(console, row, "call: result=")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::{Guest, rows_of};

    #[test]
    fn a_record_of_another_place_fits_no_attack() {
        let row = |name| rows_of(Guest::Long).find(|row| row.name == name).expect("a row");
        let addresses = 0x10_0000..0x10_2000;
        let kernel = vec![Part { offset: 0, physical: 0, addresses, bytes: vec![] }];
        let text = Text { kernel, modules: 0..0 };
        let fits = |name, kind: &str, gpa: &str, rip: &str, cpl: u8| {
            let console = format!("attack: {name} attempt target=0x5000 witness=0x6000\n");
            let attempt =
                Attempt::find(&console, row(name), Column::Events, &text).expect("an attempt");
            let line = format!(
                "secvisor: violation kind={kind} cpu=0 gpa={gpa} rip={rip} cr3=0x0 cpl={cpl} \
                 class=data unit=- count=1 info=0x0"
            );
            attempt.matches(&Record::parse(&line).expect("a record"))
        };
        let fetched = |gpa, rip| fits("exec-heap", "kernel-fetch", gpa, rip, 0);
        assert!(fetched("0x5010", "0xffff000000007010"));
        assert!(fetched("0x5000", "0x100fff"));
        assert!(!fetched("0x5010", "0x7018"));
        assert!(!fetched("0x5000", "0x100ff0"));
        assert!(!fetched("0x6010", "0x7010"));
        let written = |rip, cpl| fits("write-text-alias", "write", "0x5008", rip, cpl);
        assert!(written("0x101fff", 0) && written("0x102000", 3));
        assert!(!written("0x102000", 0) && !written("0x101fff", 3));
        assert!(!fits("write-text-alias", "read", "0x5008", "0x101fff", 0));
    }
}
