//! Sums up SecVisor's log: what a kernel did that enforcement stops, and what mends it.

mod meaning;
mod symbols;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::ops::Range;

use meaning::Meaning;
use policy::PAGE_SIZE;
use policy::approval::Architecture;
use symbols::Symbol;
pub use symbols::Symbols;

use crate::Error;
use crate::kernel::Section;
use crate::list::module_space;

/// Where 64-bit Linux puts code that it loads or makes.
const MODULES: Range<u64> = module_space(Architecture::X86_64);
/// Where 32-bit Linux does, between mappings of memory as it lies.
const MAPPED: Range<u64> = module_space(Architecture::I386);

/// What addresses mean.
#[derive(Default)]
pub struct Names {
    /// The kernel's sections; empty if its file was not given.
    pub sections: Vec<Section>,
    /// Its functions; empty if no map was given.
    pub symbols: Symbols,
}

/// A violation as the log tells it.
struct Record<'a> {
    kind: &'a str,
    gpa: Option<u64>,
    rip: u64,
    user: bool,
    class: &'a str,
    unit: &'a str,
    count: u64,
    info: u64,
}

impl<'a> Record<'a> {
    /// Reads a line; `None` if it is no violation, or damaged.
    fn parse(line: &'a str) -> Option<Self> {
        let (_, line) = line.split_once("secvisor: violation ")?;
        let field = |name: &str| {
            line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
        };
        let number = |name| {
            let text = field(name)?;
            let digits = text.strip_prefix("0x");
            digits.map_or_else(|| text.parse().ok(), |hex| u64::from_str_radix(hex, 16).ok())
        };
        Some(Self {
            kind: field("kind")?,
            gpa: number("gpa"),
            rip: number("rip")?,
            user: number("cpl")? == 3,
            class: field("class")?,
            unit: field("unit")?,
            count: number("count")?,
            info: number("info")?,
        })
    }

    fn frame(&self) -> Option<u64> {
        self.gpa.map(|gpa| gpa / PAGE_SIZE)
    }
}

/// What is told of as one: how often, and the first and last record.
struct Row {
    times: u64,
    first: u64,
    last: u64,
}

impl Names {
    /// The kernel's section at a physical address.
    fn section_at(&self, gpa: u64) -> Option<&str> {
        let section = self.sections.iter().find(|section| section.physical.contains_address(gpa));
        section.map(|section| section.name.as_str())
    }

    /// The code at `rip`: its function, else its section, else the approved unit near it.
    fn code(&self, record: &Record<'_>) -> String {
        if record.user {
            return "a program".into();
        }
        let place = |section: &&Section| {
            let offset = record.rip.checked_sub(section.virtual_start);
            section.executable && offset.is_some_and(|at| at < section.physical.length())
        };
        let section = self.sections.iter().find(place).map(|section| section.name.as_str());
        match self.symbols.at(record.rip) {
            Some(symbol) => symbol.to_string(),
            None if self.sections.is_empty() => format!("code near {}", record.unit),
            None => section.map_or_else(|| format!("code at {:#x}", record.rip), str::to_owned),
        }
    }

    /// Whether code that runs there is neither the kernel's nor in memory as it maps all of it.
    fn is_loaded(&self, record: &Record<'_>) -> bool {
        let offset =
            |section: &Section| section.virtual_start.wrapping_sub(section.physical.start());
        let direct = self.sections.first().map(offset).zip(record.frame());
        let is_direct = |(offset, frame)| record.rip.wrapping_sub(offset) / PAGE_SIZE == frame;
        MODULES.contains(&record.rip)
            || (MAPPED.contains(&record.rip) && direct.is_some_and(|direct| !is_direct(direct)))
    }

    /// What was touched, and by what, in words.
    fn describe(&self, record: &Record<'_>, meaning: Meaning) -> String {
        let section = record.gpa.and_then(|gpa| self.section_at(gpa));
        let code = self.code(record);
        match (record.kind, record.gpa, section) {
            ("kernel-fetch", _, Some(section)) => section.into(),
            ("kernel-fetch", _, None) => match self.symbols.at(record.rip) {
                Some(Symbol { module: Some(module), .. }) => format!("[{module}]"),
                _ if self.is_loaded(record) => "where Linux loads modules and BPF".into(),
                _ => code,
            },
            ("msr", ..) => format!("MSR {:#x} by {code}", record.info),
            ("port" | "sleep", ..) => format!("port {:#x} by {code}", record.info),
            (_, Some(_), Some(section)) => format!("{section} by {code}"),
            (_, Some(gpa), None) if meaning.has_addresses() => format!("{gpa:#x} by {code}"),
            (_, Some(_), None) => format!("{} memory by {code}", record.class),
            (_, None, _) => format!("by {code}"),
        }
    }

    /// The kind of code that was fetched.
    fn fetched(&self, record: &Record<'_>, changed: &BTreeSet<u64>) -> Meaning {
        if record.frame().is_some_and(|frame| changed.contains(&frame)) {
            return Meaning::ChangedCode;
        }
        let module = self.symbols.at(record.rip).and_then(|symbol| symbol.module.as_deref());
        match (record.gpa.and_then(|gpa| self.section_at(gpa)), module) {
            (Some(_), _) => Meaning::KernelCode,
            (None, Some(name)) if name != "bpf" && !name.starts_with("__builtin") => {
                Meaning::ModuleCode
            }
            _ => Meaning::OtherCode,
        }
    }
}

/// The summary of `log`.
///
/// # Errors
/// A log without SecVisor's lines.
pub fn summary(log: &str, names: &Names) -> Result<String, Error> {
    if !log.contains("secvisor: ") {
        return Err("no line of SecVisor's log: record its serial port, COM2 by default".into());
    }
    let mut records: Vec<Record<'_>> = Vec::new();
    let mut earlier = false;
    for record in log.lines().filter_map(Record::parse) {
        if record.count == 1 && !records.is_empty() {
            earlier = true;
            records.clear();
        }
        records.push(record);
    }
    let mut groups: BTreeMap<Meaning, BTreeMap<String, Row>> = BTreeMap::new();
    let mut changed = BTreeSet::new();
    for record in &records {
        let meaning = match record.kind {
            "kernel-fetch" => names.fetched(record, &changed),
            kind => Meaning::of(kind, record.class),
        };
        if meaning == Meaning::Patching {
            changed.extend(record.frame());
        }
        let rows = groups.entry(meaning).or_default();
        let new = Row { times: 0, first: record.count, last: record.count };
        let row = rows.entry(names.describe(record, meaning)).or_insert(new);
        (row.times, row.last) = (row.times + 1, record.count);
    }
    let last = records.last().map_or(0, |record| record.count);
    let mut text = print(&groups, records.len() as u64, last, earlier);
    if names.sections.is_empty() {
        text.push_str(
            "\nNo --kernel was given: the kernel's own code is not told from other code.\n",
        );
    }
    Ok(text)
}

fn print(
    groups: &BTreeMap<Meaning, BTreeMap<String, Row>>,
    read: u64,
    last: u64,
    earlier: bool,
) -> String {
    let mut text = format!("{read} violations read, the last says count={last}");
    match last.saturating_sub(read) {
        0 => text.push_str(": none is missing\n"),
        lost => drop(writeln!(text, ": {lost} lines are missing or damaged")),
    }
    if earlier {
        text.push_str("(of the last boot; earlier ones in this log are left out)\n");
    }
    for (meaning, rows) in groups {
        let times: u64 = rows.values().map(|row| row.times).sum();
        // Writing to a string does not fail.
        let _ = writeln!(text, "\n{}: {times}", meaning.title());
        let mut rows: Vec<_> = rows.iter().collect();
        rows.sort_by_key(|(name, row)| (std::cmp::Reverse(row.times), *name));
        for (name, row) in rows {
            let _ =
                writeln!(text, "{:8}  {name}  (count {} to {})", row.times, row.first, row.last);
        }
        let _ = writeln!(text, "  {}\n  {}", meaning.effect(), meaning.remedy());
    }
    text
}
