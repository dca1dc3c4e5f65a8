//! Tests that need no emulator: unit and property tests, lints, format, budgets.

use std::ops::Range;
use std::path::Path;
use std::process::Command;

use harness::Result;

use super::{Context, Outcome, Test};
use crate::artifacts::{Arch, TARGET, TARGET_32, cargo};
use crate::fuzz::{self, Bound};
use crate::lines;
use crate::process::{step, target_directory};
use crate::proof;
use crate::trust;

/// Largest size of the code that stays when the guest runs.
const TEXT_BUDGET: u64 = 64 * 1024;
/// Packages that run on no operating system.
const BARE_METAL: [&str; 2] = ["secvisor-hypervisor", "attack-guest"];

/// All of them.
pub fn tests() -> Vec<Test> {
    vec![
        unit_tests(),
        Test::new("host/modules", |context| real_modules(&context.guest()?.vmlinux)),
        Test::new("host/modules-i386", |context| {
            real_modules(&context.guest_of(Arch::I386)?.vmlinux)
        }),
        Test::new("host/clippy", |_| {
            // The fuzz targets too, without the options that they are run with.
            let mut arguments = vec!["clippy", "--workspace", "--all-targets"];
            BARE_METAL.iter().for_each(|package| arguments.extend(["--exclude", package]));
            arguments.extend(["--", "-D", "warnings"]);
            checked("clippy", &arguments)
        }),
        Test::new("host/clippy-bare-metal", |_| {
            let mut arguments = vec!["clippy", "--target", TARGET];
            BARE_METAL.iter().for_each(|package| arguments.extend(["-p", package]));
            arguments.extend(["--", "-D", "warnings"]);
            checked("clippy-bare-metal", &arguments)?;
            let guest = [
                "clippy",
                "--release",
                "--target",
                TARGET_32,
                "-p",
                "attack-guest",
                "--",
                "-D",
                "warnings",
            ];
            checked("clippy-32-bit", &guest)
        }),
        Test::new("host/format", |_| checked("format", &["fmt", "--all", "--", "--check"])),
        Test::with_outcome("host/fuzz", fuzz_parsers),
        Test::new("host/model", |_| proof::explore(&[]).map(drop)),
        Test::new("host/lines", |_| lines::check()),
        Test::new("host/dependencies", |_| trust::check()),
        Test::new("host/text-bytes", |context| text_bytes(context.hypervisor()?)),
        Test::new("host/launch-is-left-behind", |context| {
            launch_is_left_behind(context.hypervisor()?)
        }),
    ]
}

/// The unit and property tests of every host crate.
pub fn unit_tests() -> Test {
    Test::with_outcome("host/unit", |context| {
        let mut arguments = vec!["test", "--no-fail-fast", "--"];
        arguments.extend(context.names.iter().map(String::as_str));
        let log = target_directory().join("host-unit.log");
        let ran = step("unit and property tests", &mut cargo(&arguments), &log);
        let text = String::from_utf8_lossy(&std::fs::read(&log)?).into_owned();
        let (passed, mut failed) = count(&text);
        if let (Err(error), true) = (ran, failed.is_empty()) {
            failed.push(error.to_string());
        }
        Ok(Outcome::Counted(passed, failed))
    })
}

/// Holds the host tool's list of the guest's modules against a second telling of Linux's loader.
fn real_modules(vmlinux: &Path) -> Result<()> {
    let build = vmlinux.parent().ok_or("vmlinux lies in no folder")?;
    let mut test = cargo(&["test", "-p", "secvisor", "--test", "tool", "--", "--ignored"]);
    let log = target_directory().join("host-modules.log");
    step("the guest's modules", test.env("SECVISOR_TEST_MODULES", build), &log)?;
    match count(&String::from_utf8_lossy(&std::fs::read(&log)?)) {
        (1, failed) if failed.is_empty() => Ok(()),
        (passed, _) => Err(format!("{passed} tests ran instead of one").into()),
    }
}

/// Tests that passed and names of those that failed, from what cargo test prints.
fn count(text: &str) -> (u32, Vec<String>) {
    let passed = |line: &str| {
        let rest = line.trim().strip_prefix("test result: ")?;
        rest.split_once(". ")?.1.split(' ').next()?.parse::<u32>().ok()
    };
    let failed = |line: &str| {
        let name = line.trim().strip_prefix("test ")?.strip_suffix(" ... FAILED")?;
        Some(name.to_owned())
    };
    (text.lines().filter_map(passed).sum(), text.lines().filter_map(failed).collect())
}

/// Inputs for each target: a few seconds.
const FUZZ_RUNS: u32 = 20_000;

/// A short run of each fuzz target, the same one each time; the long one is `cargo xtask fuzz`.
fn fuzz_parsers(context: &Context) -> Result<Outcome> {
    let fuzzer = fuzz::build()?;
    let directory = context.directory("host/fuzz")?;
    let mut failed = Vec::new();
    for target in fuzz::TARGETS {
        let bound = Bound::Runs(FUZZ_RUNS);
        if let Err(error) = fuzz::fuzz(&fuzzer, target, bound, &directory.join(target)) {
            failed.push(error.to_string());
        }
    }
    let passed = fuzz::TARGETS.len().saturating_sub(failed.len());
    Ok(Outcome::Counted(u32::try_from(passed)?, failed))
}

fn checked(what: &str, arguments: &[&str]) -> Result<()> {
    let log = target_directory().join(format!("host-{what}.log"));
    step(what, &mut cargo(arguments), &log)
}

fn text_bytes(hypervisor: &Path) -> Result<()> {
    match harness::elf::resident_bytes(hypervisor)? {
        0 => Err("the hypervisor has no code that stays".into()),
        bytes if bytes > TEXT_BUDGET => {
            Err(format!("{bytes} bytes of code that stays, budget {TEXT_BUDGET}").into())
        }
        _ => Ok(()),
    }
}

/// Code that stays must not refer to what is unmapped when the guest starts.
fn launch_is_left_behind(hypervisor: &Path) -> Result<()> {
    let launch = harness::elf::section(hypervisor, ".launch")?.addresses;
    let mut objdump = Command::new("objdump");
    objdump.args(["-d", "--no-show-raw-insn", "-j", ".text"]).arg(hypervisor);
    let output = objdump.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let instructions = text.lines().filter(|line| line.contains('\t'));
    let operands = instructions.filter_map(|line| line.rsplit_once('\t'));
    let refers = |operands: &str| {
        let words = operands.split(|c: char| !c.is_ascii_hexdigit());
        words.filter_map(|word| u64::from_str_radix(word, 16).ok()).any(|it| launch.contains(&it))
    };
    let (mut count, mut wrong) = (0, Vec::new());
    for (place, operands) in operands {
        count += 1;
        if refers(operands) {
            wrong.push(format!("{} {operands}", place.trim()));
        }
    }
    if !output.status.success() || count < 1000 {
        return Err(format!("objdump shows {count} instructions").into());
    }
    wrong.extend(pointers_to(hypervisor, &launch)?);
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ").into()) }
}

/// What may point into the launch's code: its own bounds, and the writer with which a refusal before
/// the guest starts is put together for the screen.
const POINTED_TO: [&str; 2] = ["launch_start", "ArrayString"];

/// Pointers to the launch's code among constants and variables, but for those that may be there.
fn pointers_to(hypervisor: &Path, launch: &Range<u64>) -> Result<Vec<String>> {
    let output = Command::new("nm").args(["-C", "--defined-only"]).arg(hypervisor).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let symbols: Vec<_> = text.lines().filter_map(|line| line.split_once(' ')).collect();
    let mut words = Vec::new();
    for section in [".rodata", ".data"] {
        let bytes = harness::elf::section(hypervisor, section)?.bytes;
        words.extend(bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)));
    }
    let mut wrong = Vec::new();
    for word in words.into_iter().filter(|word| launch.contains(word)) {
        let here = |(address, _): &&(&str, &str)| u64::from_str_radix(address, 16) == Ok(word);
        let mut names = symbols.iter().filter(here).map(|(_, name)| *name);
        if !names.any(|name| POINTED_TO.iter().any(|known| name.contains(known))) {
            wrong.push(format!("a constant points to {word:#x}"));
        }
    }
    Ok(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargos_results_are_summed() {
        let text = "test a::b ... ok\ntest a::c ... FAILED\n\
            test result: FAILED. 1 passed; 1 failed; 0 ignored\n\
            test result: ok. 41 passed; 0 failed; 0 ignored\n";
        assert_eq!(count(text), (42, vec!["a::c".to_owned()]));
        assert_eq!(count("error: could not compile"), (0, vec![]));
    }
}
