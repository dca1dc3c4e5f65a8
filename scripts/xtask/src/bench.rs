//! scripts/bench: what SecVisor costs, counted rather than timed wherever that can be.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use harness::Result;
use harness::iso::Menu;
use harness::qemu::{Boot, Machine};
use harness::record::{field, number};

use crate::artifacts::{self, Guest};
use crate::lines;
use crate::process::{Progress, caller_path};
use crate::run::{self, Options as Run, SHELL};

const DEADLINE: Duration = Duration::from_secs(300);
/// Boots whose median time is taken.
const BOOTS: usize = 3;
/// Memory of the machine whose loss of memory is measured.
const MEMORY: &str = "1G";

/// Options of scripts/bench.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Write the figures here too, flat
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Figures by name, in the order in which they are printed.
#[derive(Default)]
struct Figures(Vec<(String, f64)>);

impl Figures {
    fn add(&mut self, name: impl Into<String>, value: f64) {
        self.0.push((name.into(), value));
    }

    fn json(&self) -> String {
        let lines: Vec<_> =
            self.0.iter().map(|(name, value)| format!("  \"{name}\": {}", short(*value))).collect();
        format!("{{\n{}\n}}\n", lines.join(",\n"))
    }
}

/// A number with at most two decimals.
fn short(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// What one loop of the freestanding guest cost.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Loop {
    iterations: f64,
    instructions: f64,
    exits: f64,
}

/// The loops that a console tells of, by name.
fn loops(console: &str) -> BTreeMap<String, Loop> {
    let parse = |line: &str| {
        let rest = line.trim().strip_prefix("bench: ")?;
        let value = |name| field(rest, name).and_then(number).map(|value| value as f64);
        let name = rest.split_whitespace().next()?.replace('-', "_");
        let counted = Loop {
            iterations: value("iterations")?,
            instructions: value("instructions")?,
            exits: value("exits")?,
        };
        Some((name, counted))
    };
    console.lines().filter_map(parse).collect()
}

/// Measures, prints one table, and writes the figures where asked to.
pub fn bench(options: &Options) -> Result<bool> {
    let directory = run::run_directory()?;
    let mut figures = Figures::default();
    count_instructions(&directory, &mut figures)?;
    let lines = lines::count()?;
    figures.add("lines_paper_equivalent", lines.paper() as f64);
    figures.add("lines_runtime", lines.runtime() as f64);
    let text = harness::elf::executable_bytes(&artifacts::hypervisor()?)?;
    figures.add("text_bytes", text as f64);
    time_linux(&directory, &mut figures)?;
    for (name, value) in &figures.0 {
        println!("{name:<44} {:>12}", short(*value));
    }
    if let Some(file) = &options.json {
        let path = caller_path(file);
        std::fs::write(&path, figures.json())
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    Ok(true)
}

/// The freestanding guest's loops, under `-icount` so that the TSC counts instructions.
fn count_instructions(directory: &Path, figures: &mut Figures) -> Result<()> {
    let run = |way: &str| freestanding(way, directory);
    let (plain, events, npf) = (run("plain")?, run("events")?, run("npf")?);
    let per = |way: &BTreeMap<String, Loop>, name: &str, what: fn(&Loop) -> f64| {
        let found = way.get(name).ok_or_else(|| format!("the guest told nothing of {name}"))?;
        Ok::<_, harness::Error>(what(found) / found.iterations)
    };
    // Going to user mode and back once is no part of the loop.
    let around = events.get("empty").map_or(0.0, |empty| empty.exits);
    let syscall = events.get("syscall").ok_or("the guest told nothing of syscall")?;
    figures.add("exits_per_null_syscall", (syscall.exits - around) / syscall.iterations);
    figures.add("exits_per_user_interrupt", per(&events, "user_interrupt", |l| l.exits)?);
    let instructions = |l: &Loop| l.instructions;
    figures.add("instructions_per_syscall_round_trip", per(&events, "syscall", instructions)?);
    figures.add("instructions_per_syscall_round_trip_npf", per(&npf, "syscall", instructions)?);
    figures.add("instructions_per_syscall_round_trip_plain", per(&plain, "syscall", instructions)?);
    for name in events.keys().filter(|name| !matches!(name.as_str(), "empty" | "syscall")) {
        figures.add(format!("instructions_per_{name}"), per(&events, name, instructions)?);
        if npf.contains_key(name) {
            figures.add(format!("instructions_per_{name}_npf"), per(&npf, name, instructions)?);
        }
    }
    Ok(())
}

fn freestanding(way: &str, directory: &Path) -> Result<BTreeMap<String, Loop>> {
    let kernel = artifacts::bare_metal("attack-guest")?;
    let directory = directory.join(format!("bench-{way}"));
    std::fs::create_dir_all(&directory)?;
    let mut menu = Menu {
        secvisor: None,
        kernel: Some(kernel.clone()),
        append: "run=bench".into(),
        initrd: None,
        approvals: None,
    };
    if way != "plain" {
        menu.secvisor = Some((artifacts::hypervisor()?, format!("entry-guard={way}")));
        menu.approvals = Some(artifacts::approve(&kernel)?.list);
    }
    let mut machine = Machine::new(Boot::Iso(menu.write(&directory)?));
    machine.cpu = "qemu64,+svm,+npt".into();
    machine.icount = true;
    let progress = Progress::new(&format!("counting instructions ({way})"));
    let mut running = machine.start(&directory, DEADLINE)?;
    running.wait_done()?;
    drop(progress);
    Ok(loops(&running.console.text()))
}

/// Linux: times as ratios of medians in one run, and the memory that is missing.
fn time_linux(directory: &Path, figures: &mut Figures) -> Result<()> {
    let guest = artifacts::guest()?;
    let mut times: [Vec<(f64, f64)>; 2] = Default::default();
    let mut memory = [0; 2];
    for _ in 0..BOOTS {
        for (way, plain) in [true, false].into_iter().enumerate() {
            let (shell, work, usable) = boot(&guest, plain, directory)?;
            times[way].push((shell, work));
            memory[way] = usable;
        }
    }
    let [plain, guarded] = times;
    let ratio = |what: fn(&(f64, f64)) -> f64| {
        let median = |runs: &[(f64, f64)]| {
            let mut values: Vec<f64> = runs.iter().map(what).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        median(&guarded) / median(&plain)
    };
    figures.add("shell_time_ratio", ratio(|run| run.0));
    figures.add("workload_time_ratio", ratio(|run| run.1));
    let [before, after] = memory;
    figures.add("ram_taken_bytes", before as f64 - after as f64);
    figures.add("ram_taken_percent", 100.0 * (before as f64 - after as f64) / (1u64 << 30) as f64);
    Ok(())
}

/// Seconds to the shell, seconds of the workload, and bytes of RAM that the guest was given.
fn boot(guest: &Guest, plain: bool, directory: &Path) -> Result<(f64, f64, u64)> {
    let options = Run { plain, memory: MEMORY.into(), ..Run::for_tests() };
    let directory = directory.join(if plain { "linux-plain" } else { "linux" });
    let machine = options.machine(guest, "workload", &directory)?;
    let progress = Progress::new("timing Linux");
    let start = Instant::now();
    let mut running = machine.start(&directory, DEADLINE)?;
    running.wait_for(SHELL)?;
    let shell = start.elapsed().as_secs_f64();
    running.wait_for("secvisor-guest: workload done")?;
    let work = start.elapsed().as_secs_f64() - shell;
    running.wait_done()?;
    drop(progress);
    Ok((shell, work, usable(&running.console.text())))
}

/// Bytes that the memory map of a Linux console calls usable.
fn usable(console: &str) -> u64 {
    let size = |line: &str| {
        let range = line.split_once("BIOS-e820: [mem ")?.1.strip_suffix("] usable")?;
        let (start, end) = range.split_once('-')?;
        Some(number(end)? - number(start)? + 1)
    };
    console.lines().filter_map(|line| size(line.trim())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_are_read_back() {
        let text = "bench: int iterations=10 instructions=5000 exits=20\nbench: x broke off\n";
        let found = loops(text);
        assert_eq!(found.len(), 1);
        assert_eq!(found["int"], Loop { iterations: 10.0, instructions: 5000.0, exits: 20.0 });
    }

    #[test]
    fn usable_memory_is_summed() {
        let text = "[ 0.0] BIOS-e820: [mem 0x0000-0x0fff] usable\n\
            BIOS-e820: [mem 0x1000-0x1fff] reserved\nBIOS-e820: [mem 0x2000-0x2fff] usable\n";
        assert_eq!(usable(text), 0x2000);
    }

    #[test]
    fn figures_are_flat_json() {
        let mut figures = Figures::default();
        figures.add("a", 2.0);
        figures.add("b", 1.256);
        assert_eq!(figures.json(), "{\n  \"a\": 2,\n  \"b\": 1.26\n}\n");
    }
}
