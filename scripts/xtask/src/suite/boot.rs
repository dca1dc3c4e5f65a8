//! What SecVisor refuses before any guest code runs, in one clear line, and what it makes harmless.

mod changes;

use std::time::{Duration, Instant};

use harness::Result;
use harness::attack::{Column, Group, Outcome};
use harness::iso::Menu;
use harness::qemu::{Boot, Machine, Running};
use harness::record::refusal;

use super::attack::emulator_of;
use super::matrix::Cell;
use super::{Context, Test};
use crate::artifacts::{Approved, Arch};
use changes::Change;

const DEADLINE: Duration = Duration::from_secs(90);
/// What a guest that was let in all the same would need to say a word.
const SILENCE: Duration = Duration::from_secs(1);
/// The guest's word that it runs, after which it waits.
const RUNS: &str = "guest: ask";

/// How an attack at boot is stopped.
enum Stop {
    /// By a refusal, whose line has these parts, in any case.
    Refused(&'static [&'static str]),
    /// The guest runs, and memory tells whether there is an effect.
    Harmless(fn(&Running, &Approved) -> Result<bool>),
}

/// One attack, or mistake, at boot.
struct Case {
    name: &'static str,
    /// Changes the menu that would boot.
    change: Change,
    cpu: &'static str,
    stop: Stop,
}

impl Case {
    const fn refused(name: &'static str, change: Change, says: &'static [&'static str]) -> Self {
        Self { name, change, cpu: "max", stop: Stop::Refused(says) }
    }

    /// A processor that SecVisor cannot run on.
    const fn on(name: &'static str, cpu: &'static str, says: &'static [&'static str]) -> Self {
        Self { cpu, ..Self::refused(name, |_, _, _| Ok(()), says) }
    }
}

/// What the owner does wrong, or the processor lacks: nothing that an adversary gains by.
const MISTAKES: [Case; 6] = [
    Case::on("no-svm", "qemu64,-svm", &["svm"]),
    Case::on("no-npt", "qemu64,+svm,-npt", &["nested"]),
    Case::refused("no-kernel", changes::no_kernel, &["kernel"]),
    Case::refused("kernel-is-no-elf", changes::no_elf, &["elf"]),
    Case::refused("unknown-option", changes::option, &["bogus"]),
    Case::refused("no-gmet", changes::gmet, &["views=gmet", "has no gmet"]),
];

/// What an adversary would change. Their control is the same kernel without SecVisor, which runs.
const ATTACKS: [Case; 15] = [
    Case::refused("list-missing", changes::no_list, &["policy"]),
    Case::refused("list-empty", changes::empty_list, &["policy", "empty"]),
    Case::refused("list-truncated", changes::half_a_list, &["list", "length"]),
    Case::refused("list-version", changes::version, &["unknown version: 0x2"]),
    Case::refused("list-overlapping-ranges", changes::overlap, &["kernel range 1: "]),
    Case::refused("list-range-wraps", changes::wrap, &["kernel range 0: ", "past the last"]),
    Case::refused("list-range-outside", changes::outside, &["lies outside the kernel"]),
    Case::refused("list-4g-ranges", |m, d, _| changes::count(m, d, 20), &["0xffffffff"]),
    Case::refused("list-4g-sections", |m, d, _| changes::count(m, d, 28), &["0xffffffff"]),
    Case::refused("list-of-another-kernel", changes::other_list, &["another kernel: i386"]),
    Case::refused("kernel-text-changed", changes::text, &["section .text: approved sha-256"]),
    Case::refused("kernel-init-changed", changes::init, &["section .init.text: approved"]),
    Case::refused("kernel-entry-moved", changes::entry, &["another kernel", "entry"]),
    Case {
        stop: Stop::Harmless(changes::slack_runs),
        ..Case::refused("text-slack", changes::slack, &[])
    },
    Case {
        stop: Stop::Harmless(changes::initrd_harms),
        ..Case::refused("initrd-over-kernel", changes::initrd, &[])
    },
];

/// All of them.
pub fn tests() -> Vec<Test> {
    let mistake = |case: &'static Case| {
        let name = format!("refusal/{}", case.name);
        Test::new(name.clone(), move |context| {
            expect(run(context, case, &name, Column::Events), &Outcome::Stopped).1
        })
    };
    let mut tests: Vec<_> = MISTAKES.iter().map(mistake).collect();
    for case in &ATTACKS {
        for column in Column::ALL {
            let test = attack(case, column);
            // A refusal comes before the guard counts.
            let always = column == Column::Events;
            tests.push(if always { test.in_matrix() } else { test.only_in_matrix() });
        }
    }
    tests
}

fn attack(case: &'static Case, column: Column) -> Test {
    let name = format!("boot/{}-{}", case.name, column.name());
    Test::new(name.clone(), move |context| {
        // GRUB hands no initrd to this kernel, and itself keeps modules off one that it starts.
        let note = "GRUB puts no module over a kernel that it starts itself";
        let left_out = column == Column::Plain && case.name == "initrd-over-kernel";
        let (outcome, verdict) = match column {
            Column::Plain if left_out => (Outcome::NotRun, Ok(())),
            Column::Plain => expect(run(context, case, &name, column), &Outcome::Succeeded),
            _ => expect(run(context, case, &name, column), &Outcome::Stopped),
        };
        let note = left_out.then(|| note.to_owned());
        let id = format!("boot/{}", case.name);
        context.tell(vec![Cell { id, group: Group::Boot.name(), column, outcome, note }]);
        verdict
    })
    .on_emulator_of(column)
}

/// The outcome, and whether it is the one that it must be.
fn expect(outcome: Result<Outcome>, wanted: &Outcome) -> (Outcome, Result<()>) {
    let outcome = outcome.unwrap_or_else(|error| Outcome::Failed(error.to_string()));
    let verdict = match &outcome {
        outcome if outcome == wanted => Ok(()),
        Outcome::Failed(why) => Err(why.clone().into()),
        other => Err(format!("it was {}, not {}", other.name(), wanted.name()).into()),
    };
    (outcome, verdict)
}

fn run(context: &Context, case: &Case, name: &str, column: Column) -> Result<Outcome> {
    let directory = context.directory(name)?;
    let guest = context.attack_guest(Arch::X86_64)?;
    let mut menu = Menu {
        secvisor: Some((context.hypervisor()?.clone(), column.words().into())),
        kernel: Some(guest.vmlinux.clone()),
        append: "ask".into(),
        initrd: None,
        approvals: Some(guest.list.clone()),
    };
    (case.change)(&mut menu, &directory, context)?;
    if column == Column::Plain {
        (menu.secvisor, menu.approvals) = (None, None);
    }
    let mut machine = Machine::new(Boot::Iso(menu.write(&directory)?));
    machine.cpu = case.cpu.into();
    machine.emulator = emulator_of(column)?;
    machine.launched = column.launched();
    let mut running = machine.start(&directory, DEADLINE)?;
    match case.stop {
        Stop::Refused(says) if column != Column::Plain => refused(&running, says),
        Stop::Refused(_) => {
            running.wait_for(RUNS)?;
            ended(&mut running, Outcome::Succeeded)
        }
        Stop::Harmless(harms) => {
            running.wait_for(RUNS)?;
            let effect = harms(&running, guest)?;
            ended(&mut running, if effect { Outcome::Succeeded } else { Outcome::Stopped })
        }
    }
}

/// A guest that runs must also end well.
fn ended(running: &mut Running, outcome: Outcome) -> Result<Outcome> {
    running.send("run=none\n")?;
    running.wait_done()?;
    Ok(outcome)
}

/// Stopped, if SecVisor says so in the right words and no guest ever speaks.
fn refused(running: &Running, says: &[&str]) -> Result<Outcome> {
    let end = Instant::now() + DEADLINE;
    let (mut line, mut words) = (None, String::new());
    while line.is_none() && words.is_empty() {
        if Instant::now() > end {
            let last = harness::console::tail(&running.log());
            return Err(format!("neither a refusal nor a guest; last: {last}").into());
        }
        std::thread::sleep(Duration::from_millis(50));
        line = refusal(&running.log()).map(str::to_lowercase);
        words = running.console.text().trim().to_owned();
    }
    std::thread::sleep(SILENCE);
    words = running.console.text().trim().to_owned();
    match line {
        _ if words.contains(RUNS) => Ok(Outcome::Succeeded),
        _ if !words.is_empty() => {
            Err(format!("somebody spoke: {}", harness::console::tail(&words)).into())
        }
        Some(line) => match says.iter().find(|part| !line.contains(**part)) {
            Some(missing) => Err(format!("the refusal does not say {missing:?}: {line}").into()),
            None => Ok(Outcome::Stopped),
        },
        None => Err("no line that begins with the refusal".into()),
    }
}
