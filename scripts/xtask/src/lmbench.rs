//! The rows of lmbench in Linux guests, counted: instructions and exits per operation.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use harness::Result;
use harness::record::{Record, field};

use crate::artifacts::Guest;
use crate::process::Progress;
use crate::run::{Emulator, Guard, Options as Run, Views};

/// The processor model on which instructions are counted.
pub const CPU: &str = "qemu64,+svm,+npt";
/// The same with GMET, as only the emulator has it that this project patched.
pub const CPU_GMET: &str = "qemu64,+svm,+npt,+gmet";
/// What is to be known of its figures.
pub const GMET_NOTE: &str = "GMET: counted on a QEMU that this project patched, for no released \
    emulator has it; the other columns on the installed QEMU. Nothing was measured on hardware.";
const DEADLINE: Duration = Duration::from_secs(900);
/// The same in every run: where programs and their stacks lie, and the time of day.
const SAME_ADDRESSES: &str = "norandmaps";
const SAME_TIME: [&str; 2] = ["-rtc", "base=2026-01-01,clock=vm"];

/// The first row, as the guest names it.
pub const NULL_CALL: &str = "null-call";
/// What is measured, as the guest names it and as the table does.
const ROWS: [(&str, &str); 12] = [
    (NULL_CALL, "null call"),
    ("int80", "INT 0x80 round trip"),
    ("read", "read"),
    ("fork", "fork"),
    ("exec", "exec"),
    ("protection-fault", "protection fault"),
    ("page-fault", "page fault"),
    ("context-switch", "context switch"),
    ("pipe", "pipe"),
    ("archive", "archive"),
    ("module-load", "module load"),
    ("module-unload", "module unload"),
];

/// How a guest is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Without SecVisor.
    Plain,
    /// Under SecVisor with two views and this guard.
    Guarded(Guard),
    /// Under SecVisor with GMET, on the patched emulator.
    Gmet,
}

/// All of them, with their names and the ends of their figures' names.
const WAYS: [(Way, &str, &str); 4] = [
    (Way::Plain, "plain", "_plain"),
    (Way::Guarded(Guard::Npf), "npf", "_npf"),
    (Way::Guarded(Guard::Events), "events", ""),
    (Way::Gmet, "gmet", "_gmet"),
];

/// What one operation costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// Instructions of the guest and of SecVisor.
    pub instructions: f64,
    /// Exits to SecVisor.
    pub exits: f64,
    /// Between the first and the third quartile of the rounds, as a part of the instructions.
    pub spread: f64,
}

/// What the operation `row` costs, as a console tells it.
pub fn cost(console: &str, row: &str) -> Option<Cost> {
    let told =
        |line: &str| line.trim().strip_prefix("lmbench: ")?.strip_prefix(row).map(str::to_owned);
    let line = console.lines().filter_map(told).find(|rest| rest.starts_with(' '))?;
    let value = |name| field(&line, name)?.parse::<f64>().ok();
    let (operations, instructions) = (value("operations")?, value("instructions")?);
    Some(Cost {
        instructions: instructions / operations,
        exits: value("exits")? / operations,
        spread: value("spread")? / instructions,
    })
}

/// Runs the guest in one way and gives its console; `what` is `lmbench`, or [`NULL_CALL`] for that
/// row only.
pub fn run(
    secvisor: &Path,
    guest: &Guest,
    way: Way,
    what: &str,
    directory: &Path,
) -> Result<String> {
    let (append, cpu) = (SAME_ADDRESSES.into(), Some(CPU.into()));
    let same = Run { append, cpu, ..Run::for_tests() };
    let options = match way {
        Way::Plain => Run { plain: true, ..same },
        Way::Guarded(guard) => Run { guard: Some(guard), ..same },
        Way::Gmet => Run {
            views: Some(Views::Gmet),
            emulator: Emulator::Gmet,
            cpu: Some(CPU_GMET.into()),
            ..same
        },
    };
    let mut machine = options.machine(secvisor, guest, what, directory)?;
    machine.icount = true;
    machine.extra.extend(SAME_TIME.map(String::from));
    let mut running = machine.start(directory, DEADLINE)?;
    running.wait_done()?;
    if let Some(record) = Record::all(&running.log()).first() {
        return Err(format!("an honest program left a violation: {}", record.line).into());
    }
    let console = running.console.text();
    if console.contains("lmbench: done") {
        return Ok(console);
    }
    let last = console.lines().rfind(|line| line.starts_with("lmbench: "));
    Err(format!("lmbench broke off: {}", last.unwrap_or("it said nothing")).into())
}

/// A guest's table.
pub struct Table {
    name: String,
    /// By row and way; none where the guest has no module to load.
    costs: Vec<[Option<Cost>; WAYS.len()]>,
}

impl Table {
    /// Runs the guest in all ways; without a name it has the one that it gives itself.
    pub fn measure(
        name: Option<&str>,
        secvisor: &Path,
        guest: &Guest,
        directory: &Path,
    ) -> Result<Self> {
        let mut name = name.map(str::to_owned);
        let mut costs = vec![[None; WAYS.len()]; ROWS.len()];
        for (index, (way, what, _)) in WAYS.into_iter().enumerate() {
            let place = directory.join(format!("lmbench-{what}"));
            let told = name.as_deref().unwrap_or("the given kernel");
            let _progress = Progress::new(&format!("counting lmbench's rows ({told}, {what})"));
            let console = run(secvisor, guest, way, "lmbench", &place)?;
            for (costs, (row, _)) in costs.iter_mut().zip(ROWS) {
                costs[index] = cost(&console, row);
            }
            name = name.or_else(|| own_name(&console));
        }
        Ok(Self { name: name.ok_or("the guest told no name")?, costs })
    }

    /// The figures by name, such as `exits_per_null_call_linux_6_1_i386_npf`.
    pub fn figures(&self) -> Vec<(String, f64)> {
        let guest = self.name.to_lowercase().replace([' ', '.'], "_");
        let mut figures = Vec::new();
        for ((_, row), costs) in ROWS.iter().zip(&self.costs) {
            let row = row.to_lowercase().replace(' ', "_");
            for ((way, what, end), cost) in WAYS.iter().zip(costs) {
                let Some(cost) = cost else { continue };
                let name = format!("per_{row}_{guest}{end}");
                figures.push((format!("instructions_{name}"), cost.instructions));
                if *way != Way::Plain {
                    figures.push((format!("exits_{name}"), cost.exits));
                    let plain = costs[0].map_or(f64::NAN, |plain| plain.instructions);
                    figures
                        .push((format!("ratio_{row}_{guest}_{what}"), cost.instructions / plain));
                }
            }
        }
        let spreads = self.costs.iter().flatten().flatten().map(|cost| 100.0 * cost.spread);
        figures.push((format!("spread_percent_{guest}"), spreads.fold(0.0, f64::max)));
        figures
    }

    /// The table in Markdown.
    pub fn markdown(&self) -> String {
        let mut text = format!(
            "| {} | plain | `npf` / plain | `events` / plain | GMET / plain | exits `npf` | exits `events` | exits GMET |\n\
             |---|---:|---:|---:|---:|---:|---:|---:|\n",
            self.name
        );
        for ((_, row), costs) in ROWS.iter().zip(&self.costs) {
            let [Some(plain), Some(npf), Some(events), Some(gmet)] = costs else { continue };
            let ratio = |cost: &Cost| cost.instructions / plain.instructions;
            let _ = writeln!(
                text,
                "| {row} | {} | {:.3} | {:.3} | {:.3} | {:.2} | {:.2} | {:.2} |",
                grouped(plain.instructions),
                ratio(npf),
                ratio(events),
                ratio(gmet),
                npf.exits,
                events.exits,
                gmet.exits
            );
        }
        text
    }
}

/// What a guest calls itself: `Linux 2.6.20 i386`.
fn own_name(console: &str) -> Option<String> {
    let line = console.lines().find_map(|line| line.trim().strip_prefix("lmbench: runs on "))?;
    let (release, machine) = (field(line, "release")?, field(line, "machine")?);
    let version = release.split('-').next()?;
    Some(format!("Linux {version} {}", if machine == "x86_64" { machine } else { "i386" }))
}

/// A whole number with its thousands apart.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONSOLE: &str = "lmbench: null-call operations=1000 instructions=531000 exits=2000 spread=0\r\n\
        lmbench: pipe operations=200 instructions=500000 exits=1600 spread=1000\r\nlmbench: done\r\n";

    #[test]
    fn a_console_tells_costs_by_operation() {
        let (null_call, pipe) = (cost(CONSOLE, "null-call"), cost(CONSOLE, "pipe"));
        assert_eq!(null_call, Some(Cost { instructions: 531.0, exits: 2.0, spread: 0.0 }));
        assert_eq!(pipe, Some(Cost { instructions: 2500.0, exits: 8.0, spread: 0.002 }));
        assert_eq!(cost(CONSOLE, "null"), None);
        assert_eq!(cost(CONSOLE, "fork"), None);
    }

    #[test]
    fn a_table_has_the_rows_that_were_counted() {
        let mut costs = vec![[None; WAYS.len()]; ROWS.len()];
        costs[0] = [(1250.0, 0.0), (500.0, 2.0), (1234567.0, 2.0), (1251.0, 0.0)]
            .map(|(instructions, exits)| Some(Cost { instructions, exits, spread: exits / 100.0 }));
        let table = Table { name: "Linux 6.1 i386".into(), costs };
        let text = table.markdown();
        let rows: Vec<_> = text.lines().skip(2).collect();
        assert_eq!(rows, ["| null call | 1,250 | 0.400 | 987.654 | 1.001 | 2.00 | 2.00 | 0.00 |"]);
        let figures = table.figures();
        let has = |name: &str, value| figures.contains(&(name.to_owned(), value));
        assert!(has("instructions_per_null_call_linux_6_1_i386", 1234567.0));
        assert!(has("exits_per_null_call_linux_6_1_i386_npf", 2.0));
        assert!(has("ratio_null_call_linux_6_1_i386_npf", 0.4));
        assert!(has("spread_percent_linux_6_1_i386", 2.0));
        assert_eq!(figures.len(), 11);
    }

    #[test]
    fn a_guest_tells_its_name() {
        let name = |line: &str| own_name(line).unwrap_or_default();
        let old = "lmbench: runs on release=2.6.20-secvisor machine=i686\r\n";
        assert_eq!(name(old), "Linux 2.6.20 i386");
        let new = "lmbench: runs on release=6.1.2 machine=x86_64";
        assert_eq!(name(new), "Linux 6.1.2 x86_64");
        assert_eq!(name(CONSOLE), "");
    }

    #[test]
    fn thousands_are_apart() {
        let texts = [0.4, 999.6, -123.0, 1e6].map(grouped);
        assert_eq!(texts, ["0", "1,000", "-123", "1,000,000"]);
    }
}
