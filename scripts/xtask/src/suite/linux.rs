//! Linux under SecVisor: honest work undisturbed, text intact, attacks recorded.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harness::Result;
use harness::attack::Column;
use harness::qemu::Running;
use harness::record::{Record, ranges};

use super::{Context, Outcome, Test};
use crate::artifacts::{self, Arch, Guest};
use crate::demo;
use crate::run::{Emulator, Guard, Options, SHELL, Violation};

pub(super) const DEADLINE: Duration = Duration::from_secs(120);
/// The firmware alone takes a good part of it.
const UEFI_DEADLINE: Duration = Duration::from_secs(240);
/// Processor models on which the kernel must leave its text alone.
const MODELS: [&str; 3] = ["max", "qemu64,+svm,+npt", "EPYC-Rome,+svm,+npt"];
const MEMORIES: [&str; 5] = ["64M", "96M", "256M", "1G", "4G"];
/// The guest's last word before its attack on command.
const WORK_DONE: &str = "secvisor-guest: workload done";

/// One of this checkout's guests, and what runs it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct On {
    /// The guest.
    pub arch: Arch,
    /// The emulator: SecVisor launches by itself with GMET on the one that has it.
    pub emulator: Emulator,
}

impl On {
    /// The 64-bit guest on the installed emulator.
    pub const REFERENCE: Self = Self { arch: Arch::X86_64, emulator: Emulator::Installed };
    /// Each guest on each emulator.
    pub const ALL: [Self; 4] = [
        Self::REFERENCE,
        Self { arch: Arch::I386, ..Self::REFERENCE },
        Self { emulator: Emulator::Gmet, ..Self::REFERENCE },
        Self { arch: Arch::I386, emulator: Emulator::Gmet },
    ];

    /// A test's name: those of 32-bit guests and of GMET say so.
    pub fn name(self, what: &str) -> String {
        let arch = if self.arch == Arch::I386 { "i386-" } else { "" };
        let emulator = if self.emulator == Emulator::Gmet { "gmet-" } else { "" };
        format!("linux/{emulator}{arch}{what}")
    }

    /// The test of this name.
    pub fn test(
        self,
        what: &str,
        body: impl Fn(&Context, Self) -> Result<Outcome> + Send + Sync + 'static,
    ) -> Test {
        let test = Test::with_outcome(self.name(what), move |context| body(context, self));
        if self.emulator == Emulator::Gmet { test.on_patched() } else { test }
    }

    /// A guest on the emulator of a column, and the options of that column.
    pub fn in_column(arch: Arch, column: Column) -> (Self, Options) {
        let gmet = column == Column::Gmet;
        let on = Self { arch, emulator: if gmet { Emulator::Gmet } else { Emulator::Installed } };
        let guard = (column == Column::Npf).then_some(Guard::Npf);
        (on, Options { plain: column == Column::Plain, guard, ..on.options() })
    }

    /// Options of a machine of which nothing else was asked.
    pub fn options(self) -> Options {
        Options { arch: self.arch, emulator: self.emulator, ..Options::for_tests() }
    }
}

/// What is tested with each guest on each emulator.
fn of_each(on: On) -> Vec<Test> {
    let demo = |context: &Context, on: On| {
        let directory = context.directory(&on.name("demo"))?;
        let guest = context.guest_of(on.arch)?;
        let held = demo::demo_with(&on.options(), context.hypervisor()?, guest, &directory)?;
        if held { Ok(Outcome::Passed) } else { Err("not all held, see the table".into()) }
    };
    // The processor models make no difference to what GMET does.
    let models = if on == On::REFERENCE { &MODELS[..] } else { &MODELS[..1] };
    let mut tests = vec![
        on.test("workload-as-without-secvisor", |context, on| passed(workload(context, on))),
        on.test("demo", demo),
    ];
    if on.emulator == Emulator::Installed {
        tests.push(on.test("entry-guard-npf", |context, on| {
            passed(work(context, on, "npf", |options| options.guard = Some(Guard::Npf)))
        }));
    }
    tests.extend(models.iter().map(|model| {
        let short = model.split(',').next().unwrap_or(model);
        on.test(&format!("text-intact-{short}"), |context, on| {
            passed(text_intact(context, on, model))
        })
    }));
    tests
}

/// What is tested with the 64-bit guest on each emulator.
fn of_long(on: On) -> [Test; 2] {
    [
        on.test("violation-audit", |context, on| passed(audit(context, on))),
        on.test("violation-halt-and-ring", |context, on| passed(halt(context, on))),
    ]
}

/// All of them.
pub fn tests() -> Vec<Test> {
    let on = On::REFERENCE;
    let mut tests = vec![
        Test::new("linux/shell-and-one-attack", one_attack),
        Test::new("linux/shell-takes-commands", commands),
        Test::new("linux/uefi", move |context| work(context, on, "uefi", |o| o.uefi = true)),
        Test::new("linux/disk", move |context| work(context, on, "disk", |o| o.disk = true)),
    ];
    tests.extend(On::ALL.into_iter().filter(|on| on.arch == Arch::X86_64).flat_map(of_long));
    tests.extend(On::ALL.into_iter().flat_map(of_each));
    tests.extend(MEMORIES.map(|size| {
        Test::new(format!("linux/memory-{size}"), move |context| {
            work(context, on, &format!("memory-{size}"), |options| options.memory = size.into())
        })
    }));
    tests
}

/// A test that only passes or fails.
pub(super) fn passed(result: Result<()>) -> Result<Outcome> {
    result.map(|()| Outcome::Passed)
}

pub(super) fn start(
    context: &Context,
    on: On,
    name: &str,
    what: &str,
    change: impl FnOnce(&mut Options),
) -> Result<Running> {
    let mut options = on.options();
    change(&mut options);
    let guest: &Guest = context.guest_of(on.arch)?;
    let directory = context.directory(&on.name(name))?;
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
fn work(context: &Context, on: On, name: &str, change: impl FnOnce(&mut Options)) -> Result<()> {
    let mut running = start(context, on, name, "workload", change)?;
    worked(&mut running)?;
    none(&running.log())
}

fn workload(context: &Context, on: On) -> Result<()> {
    let mut plain = start(context, on, "workload-plain", "workload", |o| o.plain = true)?;
    let expected = worked(&mut plain)?;
    let mut guarded = start(context, on, "workload", "workload", |_| ())?;
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
    let mut running = start(context, On::REFERENCE, "commands", "shell", |_| ())?;
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
    let mut running = start(context, On::REFERENCE, "one-attack", "attack1", |_| ())?;
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

fn audit(context: &Context, on: On) -> Result<()> {
    let change = |options: &mut Options| options.violation = Some(Violation::Audit);
    let mut running = start(context, on, "audit", "attack1", change)?;
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

fn halt(context: &Context, on: On) -> Result<()> {
    let change = |options: &mut Options| options.violation = Some(Violation::Halt);
    let mut running = start(context, on, "halt", "attack1", change)?;
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
    let found = ring(&running, &context.directory(&on.name("ring"))?.join("hidden.dump"))?;
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
fn text_intact(context: &Context, on: On, model: &str) -> Result<()> {
    let name = format!("text-{}", model.replace([',', '+'], "-"));
    let change = |options: &mut Options| options.cpu = Some(model.into());
    let mut running = start(context, on, &name, "shell", change)?;
    running.wait_for(SHELL)?;
    let text = harness::elf::section(&context.guest_of(on.arch)?.vmlinux, ".text")?;
    let memory = running.memory(text.physical, text.bytes.len() as u64)?;
    let differing = memory.iter().zip(&text.bytes).filter(|(a, b)| a != b).count();
    if differing > 0 {
        return Err(format!("{differing} of {} bytes differ", memory.len()).into());
    }
    none(&running.log())
}
