//! scripts/run --demo: every attack without and with SecVisor, and what came of it.

use std::path::Path;
use std::time::Duration;

use harness::Result;
use harness::record::{Record, field, number};

use crate::artifacts::Guest;
use crate::kvm;
use crate::process::Progress;
use crate::run::{Options, choose_engine, run_directory};

/// A demo run that takes longer hangs.
const DEADLINE: Duration = Duration::from_secs(240);

/// One attack as the guest tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attack {
    /// Its name.
    pub name: String,
    /// The guest-physical address it aimed at; `None` where it aims at none.
    pub gpa: Option<u64>,
    /// What the guest saw come of it.
    pub succeeded: bool,
}

/// Every attack a console tells of.
pub fn attacks(console: &str) -> Vec<Attack> {
    let parse = |line: &str| {
        let rest = line.trim().strip_prefix("evil: ")?;
        Some(Attack {
            name: rest.split_whitespace().next()?.to_owned(),
            gpa: field(rest, "gpa").and_then(number).filter(|&gpa| gpa != 0),
            succeeded: match field(rest, "outcome")? {
                "succeeded" => true,
                "stopped" => false,
                _ => return None,
            },
        })
    };
    console.lines().filter_map(parse).collect()
}

/// Whether the workload ran after the attacks, without a failed check.
pub fn workload_ran(console: &str) -> bool {
    let after = console.rfind("evil: ").map_or(console, |at| &console[at..]);
    let clean = |line: &str| line.starts_with("workload: ") && line.ends_with(" 0 failed");
    after.contains("secvisor-guest: workload done") && after.lines().any(|line| clean(line.trim()))
}

/// Whether the approved module worked, before and after its changed copy was tried.
fn module_worked(console: &str) -> bool {
    let line = console.lines().find(|line| line.starts_with("evil: the approved module "));
    line.and_then(|line| field(line, "worked")).and_then(number).is_some_and(|times| times >= 2)
}

/// The kinds of record that an attack of this name must leave, any of them, the best first.
fn kinds(name: &str) -> &'static [&'static str] {
    let is = |part| name.contains(part);
    if is("clear") {
        &["pinned"]
    } else if name == "write-text" {
        // Where the kernel maps its text read-only, what stops the write is that CR0.WP stays on.
        &["write", "pinned"]
    } else if is("module") || is("hypercall") {
        &["hypercall"]
    } else if is("write") || is("mem") {
        &["write"]
    } else if name == "ret2user" {
        // Without SMEP it faults; where there is SMEP, what stops it is that SMEP stays on.
        &["kernel-fetch", "pinned"]
    } else {
        &["kernel-fetch"]
    }
}

/// Whether the record is what this attack must leave.
pub fn explains(attack: &Attack, record: &Record) -> bool {
    kinds(&attack.name).contains(&record.kind.as_str())
        && (attack.gpa.is_none() || record.kind == "pinned" || record.gpa == attack.gpa)
}

/// The record that each attack left, taken out of `records`. Those that leave one kind only take theirs
/// first: another attack at the same address may have left one of two kinds.
fn explained(attacks: &[Attack], records: &mut Vec<Record>) -> Vec<Option<Record>> {
    let mut found = vec![None; attacks.len()];
    let mut order: Vec<_> = attacks.iter().zip(&mut found).collect();
    order.sort_by_key(|(attack, _)| kinds(&attack.name).len());
    for (attack, found) in order {
        let place = kinds(&attack.name).iter().find_map(|kind| {
            records.iter().position(|record| record.kind == *kind && explains(attack, record))
        });
        *found = place.map(|place| records.remove(place));
    }
    found
}

/// What one run showed.
struct Shown {
    attacks: Vec<Attack>,
    records: Vec<Record>,
    module: bool,
    workload: bool,
}

fn show(
    options: &Options,
    secvisor: &Path,
    guest: &Guest,
    what: &str,
    directory: &Path,
) -> Result<Shown> {
    let directory = directory.join(what.replace(' ', "-"));
    let mut machine = options.machine(secvisor, guest, "demo", &directory)?;
    choose_engine(options, &mut machine)?;
    let progress = Progress::new(&format!("attacking {what}"));
    let mut running = machine.start(&directory, DEADLINE)?;
    let result = running.wait_done();
    drop(progress);
    let (console, log) = (running.console.text(), running.log());
    result.map_err(|error| {
        let refused = harness::record::refusal(&log).unwrap_or("");
        format!("{what}: {error} {refused} (see {})", directory.display())
    })?;
    Ok(Shown {
        attacks: attacks(&console),
        records: Record::all(&log),
        module: module_worked(&console),
        workload: workload_ran(&console),
    })
}

/// Runs the demo, prints its table, and says whether all held.
pub fn demo(options: &Options) -> Result<bool> {
    kvm::insist(options.kvm)?;
    demo_with(options, &options.secvisor()?, &options.guest()?, &run_directory()?)
}

/// The demo with this SecVisor and guest, its files in `directory`.
pub fn demo_with(
    options: &Options,
    secvisor: &Path,
    guest: &Guest,
    directory: &Path,
) -> Result<bool> {
    let run = |plain, what| {
        let options = Options { plain, ..options.clone() };
        show(&options, secvisor, guest, what, directory)
    };
    Ok(judge(&run(true, "without SecVisor")?, &run(false, "under SecVisor")?))
}

fn judge(plain: &Shown, guarded: &Shown) -> bool {
    let mut held = !plain.attacks.is_empty() && plain.attacks.len() == guarded.attacks.len();
    let mut left = guarded.records.clone();
    println!("{:<24} {:<16} {:<14} record", "attack", "without", "under SecVisor");
    let found = explained(&guarded.attacks, &mut left);
    let guarded_attacks = || guarded.attacks.iter().zip(&found);
    for attack in &plain.attacks {
        let same = guarded_attacks().find(|(other, _)| other.name == attack.name);
        let (same, record) =
            same.map_or((None, None), |(other, record)| (Some(other), record.as_ref()));
        let stopped = same.is_some_and(|other| !other.succeeded);
        let good = attack.succeeded && stopped && record.is_some();
        held &= good;
        let word = |succeeded| if succeeded { "succeeded" } else { "stopped" };
        let told = record.map_or("none of its kind and target".into(), |record| {
            let gpa = record.gpa.map_or("-".into(), |gpa| format!("{gpa:#x}"));
            format!("{} gpa={gpa} class={}", record.kind, record.class)
        });
        let under = same.map_or("did not run", |other| word(other.succeeded));
        let mark = if good { "" } else { "  <- not as it must be" };
        println!("{:<24} {:<16} {under:<14} {told}{mark}", attack.name, word(attack.succeeded));
    }
    // Most begin by switching the processor's own defences off.
    let refused = left.extract_if(.., |record| record.kind == "pinned").count();
    println!("attempts to switch CR0.WP and SMEP off before an attack, refused: {refused}");
    for record in &left {
        println!("no attack explains: {}", record.line);
    }
    let ways = [("without SecVisor", plain), ("under SecVisor", guarded)];
    let word = |ran| if ran { "ran" } else { "DID NOT RUN" };
    for (what, shown) in ways {
        println!("approved module {what}: {}", word(shown.module));
    }
    for (what, shown) in ways {
        println!("workload {what}: {}", word(shown.workload));
        held &= shown.workload && shown.module;
    }
    held &= left.is_empty() && plain.records.is_empty();
    println!("{}", if held { "All held." } else { "NOT all held." });
    held
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONSOLE: &str = "evil: exec-data gpa=0x1234 outcome=succeeded\n\
        evil: write-text-alias gpa=0x1000000 outcome=succeeded\n\
        evil: the approved module worked=2\n\
        workload: 12 checks passed, 0 failed\nsecvisor-guest: workload done\n";
    const LOG: &str = "secvisor: violation kind=kernel-fetch cpu=0 gpa=0x1234 rip=0x0 cr3=0x0 \
        cpl=0 class=data unit=- count=1 info=0x0\n\
        secvisor: violation kind=write cpu=0 gpa=0x1000000 rip=0x0 cr3=0x0 cpl=0 class=approved \
        unit=- count=2 info=0x0\n";

    fn shown(console: &str, log: &str) -> Shown {
        let (module, workload) = (module_worked(console), workload_ran(console));
        Shown { attacks: attacks(console), records: Record::all(log), module, workload }
    }

    #[test]
    fn a_demo_holds_only_if_everything_does() {
        let stopped = CONSOLE.replace("succeeded", "stopped");
        let plain = || shown(CONSOLE, "");
        assert!(judge(&plain(), &shown(&stopped, LOG)));
        assert!(!judge(&plain(), &shown(CONSOLE, LOG)));
        assert!(!judge(&plain(), &shown(&stopped, &LOG.replace("gpa=0x1234", "gpa=0x1235"))));
        assert!(!judge(&plain(), &shown(&stopped, &LOG.replace("kind=write", "kind=read"))));
        assert!(!judge(&plain(), &shown(&stopped, LOG.lines().next().unwrap_or(""))));
        assert!(!judge(&shown(&stopped, ""), &shown(&stopped, LOG)));
        assert!(!judge(&plain(), &shown(&stopped.replace(" 0 failed", " 1 failed"), LOG)));
        assert!(!judge(&plain(), &shown(&stopped.replace("worked=2", "worked=1"), LOG)));
        assert!(!judge(&shown("", ""), &shown("", "")));
    }

    #[test]
    fn an_attack_of_two_kinds_takes_no_record_of_another() {
        let console = |outcome: &str| {
            let lines = ["write-text", "write-text-alias", "devmem"]
                .map(|name| format!("evil: {name} gpa=0x1000 outcome={outcome}\n"));
            lines.concat()
        };
        let line = |kind: &str, count: u32| {
            let gpa = if kind == "write" { "0x1000" } else { "-" };
            format!(
                "secvisor: violation kind={kind} cpu=0 gpa={gpa} rip=0x0 cr3=0x0 cpl=0 \
                 class=approved unit=- count={count} info=0x0\n"
            )
        };
        for kinds in [["pinned", "write", "write"], ["write", "write", "write"]] {
            let log: String =
                kinds.iter().zip(1..).map(|(kind, count)| line(kind, count)).collect();
            let mut left = Record::all(&log);
            let attacks = attacks(&console("stopped"));
            let found = explained(&attacks, &mut left);
            let mut found: Vec<_> = found.into_iter().flatten().map(|record| record.kind).collect();
            assert_eq!(
                (found.remove(0).as_str(), found, left),
                (kinds[0], vec!["write".to_owned(); 2], vec![])
            );
        }
    }
}
