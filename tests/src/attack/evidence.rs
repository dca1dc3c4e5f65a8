//! What the guest and SecVisor say of an attack, and whether it is what they must say.

use super::rows::Trace;
use super::{Batch, Row};
use crate::record::{Record, field, number};

/// How SecVisor's lines about modules that it refused begin.
const REFUSED: &str = "secvisor: refused module ";
const GENERAL_PROTECTION: u64 = 13;
/// ENOENT: kernels release all memory of modules, and what was never approved leaves no record.
const NOTHING_TO_RELEASE: i64 = -2;

/// What the guest said before an attack.
pub(super) struct Attempt {
    pub(super) target: u64,
    pub(super) witness: u64,
    /// The relocated field that it changed, and the bytes that it left there.
    site: Option<(String, String)>,
}

impl Attempt {
    pub(super) fn find(console: &str, row: &Row) -> Option<Self> {
        let line = line_of(console, row, "attempt")?;
        let value = |name| field(line, name).and_then(number);
        let site = after(console, row, "site: ").and_then(|site| {
            let (place, bytes) = site.split_once(" [")?;
            let bytes = bytes.chars().filter(char::is_ascii_hexdigit).collect();
            Some((place.to_owned(), bytes))
        });
        Some(Self { target: value("target")?, witness: value("witness")?, site })
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
pub(super) fn told(console: &str, row: &Row) -> Option<(Attempt, bool)> {
    let effect = field(line_of(console, row, "done")?, "effect")? == "yes";
    Some((Attempt::find(console, row)?, effect))
}

/// What an attack without effect must have left, and did not.
pub(super) fn amiss(
    row: &Row,
    attempt: &Attempt,
    console: &str,
    log: &str,
    records: &[Record],
) -> Option<String> {
    if let Trace::Call { errno, log: text, then } = row.trace {
        let answer = answer(console, row);
        if answer != Some(errno) {
            return Some(format!("the call's answer is {answer:?}"));
        }
        let lines: Vec<_> = log.lines().filter(|line| line.starts_with(REFUSED)).collect();
        if let Some(why) = refusal_amiss(text, attempt, &lines) {
            return Some(format!("{why}: {lines:?}"));
        }
        let kinds: Vec<_> = records.iter().map(|record| record.kind.as_str()).collect();
        let quiet = text.is_empty() && errno == NOTHING_TO_RELEASE;
        let wanted = if quiet { vec![then] } else { vec!["hypercall", then] };
        if kinds != wanted {
            return Some(format!("records of {kinds:?} instead of {wanted:?}"));
        }
    }
    let stray = records.iter().find(|record| !matches(row, attempt, record));
    if let Some(stray) = stray {
        return Some(format!("a record that does not fit: {}", stray.line));
    }
    let many = matches!(row.batch, Batch::Modules | Batch::Pinned)
        && !matches!(row.trace, Trace::Call { .. });
    match records.len() {
        0 if row.trace != Trace::Nothing => return Some("no record".into()),
        2.. if many => return Some(format!("{} records instead of one", records.len())),
        _ => (),
    }
    let vector = line_of(console, row, "done").and_then(|line| field(line, "vector"));
    let vector = vector.and_then(number);
    (row.batch == Batch::Pinned && vector != Some(GENERAL_PROTECTION))
        .then(|| format!("it ended with vector {vector:?}"))
}

/// What is wrong with SecVisor's lines about a refused module, one of which must say `text`.
fn refusal_amiss(text: &str, attempt: &Attempt, lines: &[&str]) -> Option<String> {
    let [line] = lines else {
        return (text.is_empty() != lines.is_empty() || lines.len() > 1)
            .then(|| format!("{} refusals in the log", lines.len()));
    };
    if text.is_empty() || !line.contains(text) {
        return Some(format!("the refusal does not say {text:?}"));
    }
    let (place, bytes) = attempt.site.as_ref()?;
    let told = line.contains(&format!(": {place}: expected ")) && line.ends_with(bytes.as_str());
    (!told).then(|| format!("the refusal does not say that {place} holds {bytes}"))
}

/// Whether SecVisor said of this attack what it must, among all else that it said in a run.
pub(super) fn is_recorded(row: &Row, attempt: &Attempt, console: &str, log: &str) -> bool {
    let records = Record::all(log);
    let recorded = |kind: &str| {
        records.iter().any(|record| record.kind == kind && matches(row, attempt, record))
    };
    match row.trace {
        Trace::Nothing => true,
        Trace::Call { errno, log: text, then } => {
            let refused = |line: &str| line.starts_with(REFUSED) && line.contains(text);
            answer(console, row) == Some(errno)
                && (text.is_empty() || recorded("hypercall") && log.lines().any(refused))
                && recorded(then)
        }
        _ => records.iter().any(|record| matches(row, attempt, record)),
    }
}

/// What a row's hypercall answered.
fn answer(console: &str, row: &Row) -> Option<i64> {
    after(console, row, "call: result=")?.parse().ok()
}

/// Whether a record is what the attack must leave.
pub(super) fn matches(row: &Row, attempt: &Attempt, record: &Record) -> bool {
    let frame = record.gpa.map(|gpa| gpa >> 12);
    let at_target = frame == Some(attempt.target >> 12);
    match row.trace {
        Trace::Frame(kinds) => kinds.contains(&record.kind.as_str()) && at_target,
        Trace::Number(kind) => record.kind == kind && record.info == attempt.target,
        Trace::Kind(kinds) => kinds.contains(&record.kind.as_str()),
        Trace::Call { then, .. } => record.kind == "hypercall" || record.kind == then && at_target,
        Trace::Nothing => false,
    }
}
