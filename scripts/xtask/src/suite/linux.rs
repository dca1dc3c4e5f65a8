//! Linux under SecVisor: honest work undisturbed, text intact, attacks recorded.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use clap::ValueEnum;
use harness::Result;
use harness::qemu::Running;
use harness::record::{Record, ranges};

use super::{Context, Outcome, Test};
use crate::artifacts::{self, Arch, Guest};
use crate::demo;
use crate::run::{Guard, Options, SHELL, Violation};

pub(super) const DEADLINE: Duration = Duration::from_secs(120);
/// The firmware alone takes a good part of it.
const UEFI_DEADLINE: Duration = Duration::from_secs(240);
/// Processor models on which the kernel must leave its text alone.
const MODELS: [&str; 3] = ["max", "qemu64,+svm,+npt", "EPYC-Rome,+svm,+npt"];
const MEMORIES: [&str; 5] = ["64M", "96M", "256M", "1G", "4G"];
/// The guest's last word before its attack on command.
const WORK_DONE: &str = "secvisor-guest: workload done";

/// A test's name: those of 32-bit guests say so.
pub(super) fn name(arch: Arch, what: &str) -> String {
    match arch {
        Arch::X86_64 => format!("linux/{what}"),
        Arch::I386 => format!("linux/i386-{what}"),
    }
}

/// What is tested with either guest.
fn of_either(arch: Arch) -> Vec<Test> {
    let npf = move |options: &mut Options| {
        options.arch = arch;
        options.guard = Some(Guard::Npf);
    };
    let demo = move |context: &Context| {
        let directory = context.directory(&name(arch, "demo"))?;
        let guest = context.guest_of(arch)?;
        let held = demo::demo_with(&options(), context.hypervisor()?, guest, &directory)?;
        if held { Ok(Outcome::Passed) } else { Err("not all held, see the table".into()) }
    };
    let models = if arch == Arch::X86_64 { &MODELS[..] } else { &MODELS[..1] };
    let mut tests = vec![
        Test::new(name(arch, "workload-as-without-secvisor"), move |context| {
            workload(context, arch)
        }),
        Test::new(name(arch, "entry-guard-npf"), move |context| work(context, "npf", npf)),
        Test::with_outcome(name(arch, "demo"), demo),
    ];
    tests.extend(models.iter().map(|model| {
        let short = model.split(',').next().unwrap_or(model);
        Test::new(name(arch, &format!("text-intact-{short}")), move |context| {
            text_intact(context, arch, model)
        })
    }));
    tests
}

/// All of them.
pub fn tests() -> Vec<Test> {
    let mut tests = vec![
        Test::new("linux/shell-and-one-attack", one_attack),
        Test::new("linux/shell-takes-commands", commands),
        Test::new("linux/uefi", |context| work(context, "uefi", |o| o.uefi = true)),
        Test::new("linux/disk", |context| work(context, "disk", |o| o.disk = true)),
        Test::new("linux/violation-audit", audit),
        Test::new("linux/violation-halt-and-ring", halt),
    ];
    tests.extend(Arch::value_variants().iter().flat_map(|&arch| of_either(arch)));
    tests.extend(MEMORIES.map(|size| {
        Test::new(format!("linux/memory-{size}"), move |context| {
            work(context, &format!("memory-{size}"), |options| options.memory = size.into())
        })
    }));
    tests
}

fn options() -> Options {
    Options::for_tests()
}

pub(super) fn start(
    context: &Context,
    name: &str,
    what: &str,
    change: impl FnOnce(&mut Options),
) -> Result<Running> {
    let mut options = options();
    change(&mut options);
    let guest: &Guest = context.guest_of(options.arch)?;
    let directory = context.directory(&self::name(options.arch, name))?;
    let machine = options.machine(context.hypervisor()?, guest, what, &directory)?;
    machine.start(&directory, if machine.uefi { UEFI_DEADLINE } else { DEADLINE })
}

pub(super) fn none(log: &str) -> Result<()> {
    match Record::all(log).first() {
        Some(record) => Err(format!("a violation: {}", record.line).into()),
        None if log.contains("secvisor: launching") => Ok(()),
        None => Err("SecVisor's log does not say that it launched".into()),
    }
}

/// The lines that the workload prints.
fn results(console: &str) -> Vec<String> {
    let lines = console.lines().map(str::trim).filter(|line| line.starts_with("workload: "));
    lines.map(str::to_owned).collect()
}

fn worked(running: &mut Running) -> Result<Vec<String>> {
    running.wait_for(SHELL)?;
    running.wait_done()?;
    let console = running.console.text();
    if !demo::workload_ran(&console) {
        let last = results(&console).pop().unwrap_or_else(|| "it said nothing".into());
        return Err(format!("the workload did not pass: {last}").into());
    }
    Ok(results(&console))
}

/// Boots, works, and leaves no record.
fn work(context: &Context, name: &str, change: impl FnOnce(&mut Options)) -> Result<()> {
    let mut running = start(context, name, "workload", change)?;
    worked(&mut running)?;
    none(&running.log())
}

fn workload(context: &Context, arch: Arch) -> Result<()> {
    let of = |plain| move |options: &mut Options| (options.arch, options.plain) = (arch, plain);
    let mut plain = start(context, "workload-plain", "workload", of(true))?;
    let expected = worked(&mut plain)?;
    let mut guarded = start(context, "workload", "workload", of(false))?;
    let found = worked(&mut guarded)?;
    none(&guarded.log())?;
    match expected.iter().zip(&found).find(|(a, b)| a != b) {
        Some((a, b)) => Err(format!("{a:?} without SecVisor, {b:?} under it").into()),
        None if expected.len() != found.len() => {
            Err(format!("{} lines without SecVisor, {} under it", expected.len(), found.len())
                .into())
        }
        None => Ok(()),
    }
}

fn commands(context: &Context) -> Result<()> {
    let mut running = start(context, "commands", "shell", |_| ())?;
    running.wait_for(SHELL)?;
    running.send("echo sum=$((6 * 7))\n")?;
    running.wait_for("sum=42")?;
    running.send("exit-qemu 0x10\n")?;
    running.wait_done()?;
    none(&running.log())
}

/// The only records of a boot that ends with one attack are that attack's: it begins by switching
/// the processor's own defences off.
fn one_attack(context: &Context) -> Result<()> {
    let mut running = start(context, "one-attack", "attack1", |_| ())?;
    running.wait_for(WORK_DONE)?;
    running.wait_done()?;
    let attacks = demo::attacks(&running.console.text());
    let records = Record::all(&running.log());
    let first = records.iter().take_while(|record| record.kind == "pinned").count();
    match (attacks.as_slice(), &records[first..]) {
        ([attack], [record])
            if first > 0 && !attack.succeeded && demo::explains(attack, record) =>
        {
            Ok(())
        }
        _ => Err(format!("attacks {attacks:?}, records {records:?}").into()),
    }
}

fn audit(context: &Context) -> Result<()> {
    let change = |options: &mut Options| options.violation = Some(Violation::Audit);
    let mut running = start(context, "audit", "attack1", change)?;
    running.wait_done()?;
    let attacks = demo::attacks(&running.console.text());
    let records = Record::all(&running.log());
    let told = records.iter().all(|record| record.line.contains("audit=no-guarantee-holds"));
    let recorded = attacks.iter().all(|a| records.iter().any(|r| demo::explains(a, r)));
    if attacks.len() == 1 && attacks[0].succeeded && recorded && told {
        Ok(())
    } else {
        Err(format!("attacks {attacks:?}, records {records:?}").into())
    }
}

fn halt(context: &Context) -> Result<()> {
    let change = |options: &mut Options| options.violation = Some(Violation::Halt);
    let mut running = start(context, "halt", "attack1", change)?;
    running.wait_for_log("secvisor: violation ")?;
    // Whatever the guest still did, it would have told within the time of its last lines.
    std::thread::sleep(Duration::from_secs(2));
    if running.console.text().contains("secvisor-guest: attack done") {
        return Err("the guest went on".into());
    }
    let records = Record::all(&running.log());
    let [record] = records.as_slice() else {
        return Err(format!("records {records:?}").into());
    };
    let found = ring(&running, &context.directory("linux/ring")?.join("hidden.dump"))?;
    if found.contains(&record.line) {
        Ok(())
    } else {
        Err(format!("a dump gives back {found:?} instead of {:?}", record.line).into())
    }
}

/// What the host tool reads out of a dump of SecVisor's memory.
pub(super) fn ring(running: &Running, dump: &Path) -> Result<String> {
    let mut memory = Vec::new();
    for range in ranges(&running.log(), "secvisor: hidden") {
        memory.extend(running.memory(range.start, range.end - range.start)?);
    }
    std::fs::write(dump, memory)?;
    let output = Command::new(artifacts::tool()?).arg("ring").arg(dump).output()?;
    Ok(String::from_utf8(output.stdout)?)
}

/// The running kernel's text, read from outside, is the approved file's.
fn text_intact(context: &Context, arch: Arch, model: &str) -> Result<()> {
    let name = format!("text-{}", model.replace([',', '+'], "-"));
    let change = |options: &mut Options| {
        (options.arch, options.cpu) = (arch, Some(model.into()));
    };
    let mut running = start(context, &name, "shell", change)?;
    running.wait_for(SHELL)?;
    let text = harness::elf::section(&context.guest_of(arch)?.vmlinux, ".text")?;
    let memory = running.memory(text.physical, text.bytes.len() as u64)?;
    let differing = memory.iter().zip(&text.bytes).filter(|(a, b)| a != b).count();
    if differing > 0 {
        return Err(format!("{differing} of {} bytes differ", memory.len()).into());
    }
    none(&running.log())
}
