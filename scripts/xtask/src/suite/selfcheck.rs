//! The image for real machines, in emulated ones: what it does, and what its report says.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use harness::Result;
use harness::qemu::{Boot, Machine};
use harness::record::{Record, field};

use super::{Built, Context, Test, once};
use crate::artifacts;
use crate::selfcheck::{self, ENTRIES, SETTINGS, settings};

const DEADLINE: Duration = Duration::from_secs(240);
/// Forged entries that must be among the attacks.
const ENTERING: [&str; 4] = ["idt-int", "gdt-call-gate", "entry-repointed", "lstar"];

/// The image, which every test copies.
static IMAGE: Built<PathBuf> = OnceLock::new();

/// All of them.
pub fn tests() -> Vec<Test> {
    vec![
        Test::new("selfcheck/two-views", two_views),
        Test::new("selfcheck/gmet", gmet),
        Test::new("selfcheck/fails-by-forged-entries", fails),
        // By the other firmware, so that both are seen.
        Test::new("selfcheck/control-by-uefi", control),
    ]
}

/// One boot of an entry: the report, and SecVisor's log.
struct Boots {
    report: String,
    log: String,
}

fn mtools(arguments: &[&str]) -> Result<String> {
    let output = Command::new("mtools").arg("-c").args(arguments).output()?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(format!("{}: {error}", arguments.join(" ")).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn check(
    context: &Context,
    name: &str,
    entry: &str,
    options: &str,
    change: impl FnOnce(&mut Machine, &Path) -> Result<()>,
) -> Result<Boots> {
    let image = once(&IMAGE, || {
        let image = context.directory("selfcheck/image")?.join("image");
        selfcheck::write(context.hypervisor()?, &artifacts::selfcheck_guest()?, &image)?;
        Ok(image)
    })?;
    let directory = context.directory(name)?;
    let stick = directory.join("stick");
    fs::copy(image, &stick)?;
    let number = ENTRIES.iter().position(|(check, ..)| *check == entry).ok_or("no such entry")?;
    // Nobody presses a key; and Linux gives up when a busy host's timer is late.
    let text = settings(number, 0, options, "sv.wait=no panic=-1 no_timer_check");
    fs::write(directory.join(SETTINGS), text)?;
    let volume = selfcheck::volume(&stick);
    let mine = directory.join(SETTINGS).display().to_string();
    mtools(&["mcopy", "-i", &volume, "-o", &mine, "::"])?;
    // An earlier report, which must stay.
    mtools(&["mcopy", "-i", &volume, &mine, "::report01.txt"])?;
    let mut machine = Machine::new(Boot::Stick(stick));
    change(&mut machine, &directory)?;
    let mut running = machine.start(&directory, DEADLINE)?;
    let status = running.wait()?;
    if status != 0 {
        return Err(format!("the machine did not end by itself, but with {status}").into());
    }
    if mtools(&["mtype", "-i", &volume, "::report01.txt"])? != fs::read_to_string(mine)? {
        return Err("an earlier report was overwritten".into());
    }
    let report = mtools(&["mtype", "-i", &volume, "::report02.txt"])?.replace('\r', "");
    Ok(Boots { report, log: running.log() })
}

/// The attacks of a report: name, outcome, violations.
fn attacks(report: &str) -> Vec<(&str, &str, u64)> {
    let of = |line| -> Option<_> {
        let mut words = str::strip_prefix(line, "hole: ")?.split(' ');
        let (name, outcome) = (words.next()?, words.next()?);
        Some((name, outcome, field(line, "violations")?.parse().ok()?))
    };
    report.lines().filter_map(of).collect()
}

/// What a report must say under SecVisor, where `exits` are those of a null system call.
fn passed(boots: &Boots, exits: &str) -> Result<()> {
    let (attacks, records) = (attacks(&boots.report), Record::all(&boots.log));
    let verdict = format!(
        "verdict: PASS: all {} attacks were stopped, {exits} exits per null system call",
        attacks.len()
    );
    says(boots, &[&verdict, "violations while booting: 0", "violations by honest programs: 0"])?;
    all_ran(&attacks, "stopped")?;
    // The log's own count, and what the report says of each.
    let counted: u64 = attacks.iter().map(|attack| attack.2).sum();
    match attacks.iter().find(|attack| attack.2 == 0) {
        Some(attack) => Err(format!("no violation by {}", attack.0).into()),
        None if counted != records.len() as u64 => {
            Err(format!("{counted} violations reported, {} logged", records.len()).into())
        }
        None => Ok(()),
    }
}

fn says(boots: &Boots, lines: &[&str]) -> Result<()> {
    match lines.iter().find(|wanted| !boots.report.lines().any(|line| line == **wanted)) {
        None => Ok(()),
        Some(missing) => {
            let told: Vec<_> =
                boots.report.lines().filter(|line| line.starts_with("verdict:")).collect();
            Err(format!("the report lacks {missing:?}; it has {told:?}").into())
        }
    }
}

fn all_ran(attacks: &[(&str, &str, u64)], wanted: &str) -> Result<()> {
    if let Some(missing) = ENTERING.iter().find(|name| attacks.iter().all(|a| a.0 != **name)) {
        return Err(format!("{missing} did not run").into());
    }
    match attacks.iter().find(|attack| attack.1 != wanted) {
        Some((name, outcome, _)) => Err(format!("{name} {outcome}, not {wanted}").into()),
        None => Ok(()),
    }
}

fn two_views(context: &Context) -> Result<()> {
    let boots = check(context, "selfcheck/two-views", "two", "", |_, _| Ok(()))?;
    passed(&boots, "2.00")
}

/// The paper's guard lets forged entries through, and the check must say so.
fn fails(context: &Context) -> Result<()> {
    let name = "selfcheck/fails-by-forged-entries";
    let boots = check(context, name, "two", "entry-guard=npf", |_, _| Ok(()))?;
    let attacks = attacks(&boots.report);
    let succeeded = attacks.iter().filter(|attack| attack.1 == "succeeded");
    let reasons: Vec<_> =
        succeeded.map(|(name, ..)| format!("  {name} succeeded violations=0")).collect();
    let verdict = format!("verdict: FAIL: reasons above: {}", reasons.len());
    says(&boots, &[&verdict, "  idt-int succeeded violations=0"])?;
    says(&boots, &reasons.iter().map(String::as_str).collect::<Vec<_>>())
}

/// On the emulator that this project patched: the entry that starts by itself takes GMET.
fn gmet(context: &Context) -> Result<()> {
    let boots = check(context, "selfcheck/gmet", "auto", "", |machine, _| {
        machine.emulator = artifacts::gmet_emulator()?;
        Ok(())
    })?;
    passed(&boots, "0.00")
}

/// Without SecVisor every attack succeeds, and nothing but the stick is written to.
fn control(context: &Context) -> Result<()> {
    let (mut other, mut before) = (PathBuf::new(), Vec::new());
    let boots = check(context, "selfcheck/control-by-uefi", "none", "", |machine, directory| {
        other = directory.join("other");
        fs::File::create(&other)?.set_len(4 << 20)?;
        let file = other.display().to_string();
        mtools(&["mformat", "-i", &file, "-T", "8192", "-h", "16", "-s", "63", "::"])?;
        before = fs::read(&other)?;
        machine.uefi = true;
        let drive = format!("if=none,id=other,format=raw,file={file}");
        machine.extra =
            ["-drive", &drive, "-device", "usb-storage,drive=other"].map(str::to_owned).into();
        Ok(())
    })?;
    let attacks = attacks(&boots.report);
    let verdict = format!(
        "verdict: CONTROL AS IT MUST BE: without SecVisor all {} attacks succeed",
        attacks.len()
    );
    says(&boots, &[&verdict, "ok       SVM: the processor has it"])?;
    all_ran(&attacks, "succeeded")?;
    if fs::read(&other)? != before {
        return Err("another disk was written to".into());
    }
    Ok(())
}
