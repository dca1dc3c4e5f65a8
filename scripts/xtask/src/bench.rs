//! scripts/bench: what SecVisor costs, counted rather than timed wherever that can be.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use harness::Result;
use harness::attack::{self, Column, Setup};
use harness::record::{Record, field, number};

use crate::artifacts::{self, Arch, Guest};
use crate::lines;
use crate::lmbench::{CPU, CPU_GMET, GMET_NOTE, Table};
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
    /// Count only lmbench's rows
    #[arg(long)]
    lmbench: bool,
    /// Count lmbench's rows in this kernel too: a vmlinux (with the port) and the bzImage of its build
    #[arg(long, value_name = "PATH", value_parser = run::file)]
    kernel: Option<PathBuf>,
    /// A folder with that kernel's modules; crc-ccitt.ko among them is what is loaded
    #[arg(long, requires = "kernel", value_name = "DIR", value_parser = run::folder)]
    modules: Option<PathBuf>,
}

/// Figures by name, in the order in which they are printed.
#[derive(Default)]
struct Figures(Vec<(String, f64)>);

impl Figures {
    fn add(&mut self, name: impl Into<String>, value: f64) {
        self.0.push((name.into(), value));
    }

    fn json(&self) -> String {
        let lines: Vec<_> = self
            .0
            .iter()
            .map(|(name, value)| format!("  \"{name}\": {}", short(*value, 4)))
            .collect();
        format!("{{\n{}\n}}\n", lines.join(",\n"))
    }
}

/// A number with at most so many decimals.
fn short(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Measures, prints what the README has of it, and writes the figures where asked to.
pub fn bench(options: &Options) -> Result<bool> {
    let directory = run::run_directory()?;
    let mut figures = Figures::default();
    if !options.lmbench {
        measure(&directory, &mut figures)?;
    }
    for (name, value) in &figures.0 {
        println!("    {name:<44} {:>12}", short(*value, 2));
    }
    let mut guests = Vec::new();
    for arch in Arch::value_variants() {
        let name = format!("Linux 6.1 {}", arch.name());
        guests.push((Some(name), artifacts::guest(*arch)?));
    }
    if options.kernel.is_some() {
        let (kernel, modules) = (options.kernel.clone(), options.modules.clone());
        // As for the demo: with SecVisor and without.
        guests.push((None, Run { kernel, modules, demo: true, ..Run::for_tests() }.guest()?));
    }
    let secvisor = artifacts::hypervisor()?;
    println!("\n{GMET_NOTE}");
    for (name, guest) in guests {
        let table = Table::measure(name.as_deref(), &secvisor, &guest, &directory)?;
        print!("\n{}", table.markdown());
        figures.0.extend(table.figures());
    }
    if let Some(file) = &options.json {
        let path = caller_path(file);
        std::fs::write(&path, figures.json())
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    Ok(true)
}

/// All but lmbench's rows.
fn measure(directory: &Path, figures: &mut Figures) -> Result<()> {
    count_instructions(directory, figures)?;
    let lines = lines::count()?;
    figures.add("lines_paper_equivalent", lines.paper() as f64);
    figures.add("lines_runtime", lines.runtime() as f64);
    let hypervisor = artifacts::hypervisor()?;
    figures.add("text_bytes", harness::elf::resident_bytes(&hypervisor)? as f64);
    let launch = harness::elf::section(&hypervisor, ".launch")?;
    figures.add("launch_text_bytes", launch.bytes.len() as f64);
    count_modules(directory, figures)?;
    time_linux(directory, figures)
}

/// The freestanding guest's loops, under `-icount` so that the TSC counts instructions.
fn count_instructions(directory: &Path, figures: &mut Figures) -> Result<()> {
    let (guest, secvisor) = (artifacts::attack_guest(artifacts::TARGET)?, artifacts::hypervisor()?);
    let files = (guest.vmlinux, secvisor, guest.list);
    let setup = Setup::new(files.0, files.1, files.2, directory.to_path_buf());
    let installed = Setup { cpu: CPU.into(), ..setup.clone() };
    let emulator = artifacts::gmet_emulator()?;
    let (cpu, directory) = (CPU_GMET.into(), directory.join("gmet"));
    let patched = Setup { emulator, cpu, directory, ..setup };
    let run = |what: &str, setup: &Setup, column: Column| {
        let _progress = Progress::new(&format!("counting instructions ({what})"));
        attack::bench(setup, column)
    };
    let plain = run("plain", &installed, Column::Plain)?;
    let events = run("events", &installed, Column::Events)?;
    let npf = run("npf", &installed, Column::Npf)?;
    let gmet = run("gmet", &patched, Column::Gmet)?;
    for (end, way) in [("", &events), ("_gmet", &gmet)] {
        let find = |name: &str| {
            let found = way.iter().find(|figure| figure.name == name);
            found.ok_or_else(|| format!("the guest told nothing of {name}"))
        };
        // Going to user mode and back once is no part of the loop.
        let (around, syscall) = (find("empty")?.exits, find("syscall")?);
        let exits = syscall.exits.saturating_sub(around) as f64 / syscall.iterations as f64;
        figures.add(format!("exits_per_null_syscall{end}"), exits);
        let interrupt = find("user-interrupt")?.exits_per_round();
        figures.add(format!("exits_per_user_interrupt{end}"), interrupt);
    }
    for (end, way) in [("", &events), ("_npf", &npf), ("_gmet", &gmet), ("_plain", &plain)] {
        for figure in way {
            let name = match figure.name.as_str() {
                "empty" => continue,
                "syscall" => "syscall_round_trip".into(),
                other => other.replace('-', "_"),
            };
            let value = figure.instructions_per_round();
            figures.add(format!("instructions_per_{name}{end}"), value);
        }
    }
    Ok(())
}

/// Linux's modules, under `-icount`: the calls by which each is approved and released, from before
/// the first CPUID that asks for SecVisor to after the last VMMCALL, counted by the demo kernel.
fn count_modules(directory: &Path, figures: &mut Figures) -> Result<()> {
    let (secvisor, guest) = (artifacts::hypervisor()?, artifacts::guest(Arch::X86_64)?);
    let options = Run { cpu: Some(CPU.into()), ..Run::for_tests() };
    let directory = directory.join("modules");
    let mut machine = options.machine(&secvisor, &guest, "measure", &directory)?;
    machine.icount = true;
    let progress = Progress::new("counting what modules cost");
    let mut running = machine.start(&directory, DEADLINE)?;
    running.wait_done()?;
    drop(progress);
    if let Some(record) = Record::all(&running.log()).first() {
        return Err(format!("a module left a violation: {}", record.line).into());
    }
    let console = running.console.text();
    let done = |what: &str| {
        let lines = console.lines().filter_map(|line| line.trim().strip_prefix(what));
        lines.filter_map(|rest| rest.strip_suffix(" ok")).collect::<BTreeSet<_>>()
    };
    let (loaded, unloaded) = (done("modules: load "), done("modules: unload "));
    figures.add("modules_loaded", loaded.intersection(&unloaded).count() as f64);
    let told = console.lines().find(|line| line.contains("demo: measured "));
    let told = told.ok_or("the guest told nothing of its modules")?;
    let value = |name: &str| {
        let value = field(told, name).and_then(number);
        value.map(|value| value as f64).ok_or_else(|| format!("no {name} in {told:?}"))
    };
    let (modules, kib) = (value("modules")?, value("text")? / 1024.0);
    for (what, unit, by) in [
        ("load", "module_load", modules),
        ("load", "module_text_kib", kib),
        ("release", "module_release", modules),
    ] {
        figures.add(format!("instructions_per_{unit}"), value(what)? / by);
        figures.add(format!("exits_per_{unit}"), value(&format!("{what}-exits"))? / by);
    }
    Ok(())
}

/// Linux: times as ratios of medians in one run, and the memory that is missing.
fn time_linux(directory: &Path, figures: &mut Figures) -> Result<()> {
    let (secvisor, guest) = (artifacts::hypervisor()?, artifacts::guest(Arch::X86_64)?);
    let mut times: [Vec<(f64, f64)>; 2] = Default::default();
    let mut memory = [0; 2];
    for _ in 0..BOOTS {
        for (way, plain) in [true, false].into_iter().enumerate() {
            let (shell, work, usable) = boot(&secvisor, &guest, plain, directory)?;
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
fn boot(secvisor: &Path, guest: &Guest, plain: bool, directory: &Path) -> Result<(f64, f64, u64)> {
    let options = Run { plain, memory: MEMORY.into(), ..Run::for_tests() };
    let directory = directory.join(if plain { "linux-plain" } else { "linux" });
    let machine = options.machine(secvisor, guest, "workload", &directory)?;
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
    fn usable_memory_is_summed() {
        let text = "[ 0.0] BIOS-e820: [mem 0x0000-0x0fff] usable\n\
            BIOS-e820: [mem 0x1000-0x1fff] reserved\nBIOS-e820: [mem 0x2000-0x2fff] usable\n";
        assert_eq!(usable(text), 0x2000);
    }

    #[test]
    fn figures_are_flat_json() {
        let mut figures = Figures::default();
        figures.add("a", 2.0);
        figures.add("b", 1.00256);
        assert_eq!(figures.json(), "{\n  \"a\": 2,\n  \"b\": 1.0026\n}\n");
    }
}
