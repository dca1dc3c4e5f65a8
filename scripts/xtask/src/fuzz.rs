//! Coverage-guided fuzzing of what reads hostile bytes (`tests/fuzz`), by libFuzzer, which the
//! compiler's own coverage options feed: no other toolchain is needed.

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use harness::Result;

use crate::cache;
use crate::process::{Progress, root, step, target_directory};

/// What can be fuzzed: the folders of the corpus.
pub const TARGETS: [&str; 6] = ["multiboot", "elf", "acpi", "approval", "hypercall", "walker"];
/// LLVM's SanitizerCoverage as libFuzzer wants it, and Rust's own checks.
const FLAGS: [&str; 8] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
    "-Coverflow-checks=yes",
    "-Cdebug-assertions=yes",
];
const HOST: &str = "x86_64-unknown-linux-gnu";
/// Longest input, in bytes: a module with its memory.
const LONGEST: u32 = 40 << 10;

/// Options of `cargo xtask fuzz`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// What to fuzz; all, one after the other, if nothing is named
    #[arg(value_parser = TARGETS)]
    targets: Vec<String>,
    /// How long each is fuzzed
    #[arg(long, default_value_t = 900)]
    seconds: u32,
    /// Add the inputs that reach more of the code to the corpus of the checkout, smallest first
    #[arg(long)]
    keep: bool,
}

/// How long a target is fuzzed.
#[derive(Clone, Copy)]
pub enum Bound {
    /// So many inputs, the same ones each time.
    Runs(u32),
    /// So many seconds, beginning with a seed from the clock.
    Seconds(u32),
}

/// What a run came to.
#[derive(Debug, PartialEq, Eq)]
pub struct Ran {
    /// Inputs tried.
    pub executions: u64,
    /// Edges of the code's flow that were reached.
    pub edges: u64,
}

impl Ran {
    /// Reads libFuzzer's report.
    fn parse(log: &str) -> Option<Self> {
        let executions = log.lines().find_map(|line| {
            line.strip_prefix("stat::number_of_executed_units:")?.trim().parse().ok()
        })?;
        let edges = log
            .lines()
            .rev()
            .find_map(|line| line.split_once(" cov: ")?.1.split(' ').next()?.parse().ok())?;
        Some(Self { executions, edges })
    }
}

/// Builds the fuzzer.
pub fn build() -> Result<PathBuf> {
    let target = target_directory().join("fuzz");
    std::fs::create_dir_all(&target)?;
    let mut cargo = Command::new("cargo");
    cargo.current_dir(root()).args(["build", "--release", "--target", HOST, "-p", "secvisor-fuzz"]);
    cargo.env("CARGO_TARGET_DIR", &target).env("RUSTFLAGS", FLAGS.join(" "));
    step("building the fuzzer", &mut cargo, &target_directory().join("build-fuzz.log"))?;
    Ok(target.join(HOST).join("release/secvisor-fuzz"))
}

fn corpus(target: &str) -> PathBuf {
    root().join("tests/fuzz/corpus").join(target)
}

/// Fuzzes a target, from the corpus of the checkout and what is in `found`, where new inputs go.
///
/// # Errors
/// An input for which it fails, with the name of the file that holds it.
pub fn fuzz(fuzzer: &Path, target: &str, bound: Bound, found: &Path) -> Result<Ran> {
    std::fs::create_dir_all(found)?;
    let crashes = target_directory().join(format!("crash-{target}-"));
    let mut command = Command::new(fuzzer);
    command.env("SECVISOR_FUZZ", target).env("RUST_BACKTRACE", "0");
    command.args(["-print_final_stats=1", "-timeout=20", &format!("-max_len={LONGEST}")]);
    command.arg(format!("-artifact_prefix={}", crashes.display()));
    command.args(match bound {
        Bound::Runs(runs) => [format!("-runs={runs}"), "-seed=1".into()],
        Bound::Seconds(seconds) => [format!("-max_total_time={seconds}"), "-seed=0".into()],
    });
    let log = target_directory().join(format!("fuzz-{target}.log"));
    let output = std::fs::File::create(&log)?;
    command.stderr(output.try_clone()?).stdout(output).arg(found).arg(corpus(target));
    let progress = Progress::new(&format!("fuzzing {target}"));
    let status = command.status()?;
    drop(progress);
    let text = String::from_utf8_lossy(&std::fs::read(&log)?).into_owned();
    if status.success() {
        let ran = Ran::parse(&text).filter(|ran| ran.executions > 0 && ran.edges > 0);
        return Ok(ran.ok_or("the fuzzer did not say what it did")?);
    }
    let why = text.lines().find(|line| line.contains("panicked at") || line.contains("ERROR:"));
    let reason =
        why.map(|line| text.lines().skip_while(|it| *it != line).take(2).collect::<Vec<_>>());
    let input =
        text.lines().find_map(|line| line.split_once("Test unit written to ").map(|it| it.1));
    let reason = reason.unwrap_or_default().join(" ");
    Err(format!(
        "{target}: {reason}; the input is {} (log: {})",
        input.unwrap_or("-"),
        log.display()
    )
    .into())
}

/// `cargo xtask fuzz`.
pub fn run(options: &Options) -> Result<bool> {
    let fuzzer = build()?;
    let all = || TARGETS.map(String::from).to_vec();
    let targets = if options.targets.is_empty() { all() } else { options.targets.clone() };
    for target in &targets {
        let found = cache::directory().join("fuzz").join(target);
        let Ran { executions, edges } =
            fuzz(&fuzzer, target, Bound::Seconds(options.seconds), &found)?;
        println!("{target:<10} {executions:>12} inputs, {edges} edges reached");
        if options.keep {
            let mut merge = Command::new(&fuzzer);
            merge.env("SECVISOR_FUZZ", target).args(["-merge=1", &format!("-max_len={LONGEST}")]);
            merge.arg(corpus(target)).arg(&found);
            let log = target_directory().join(format!("merge-{target}.log"));
            step("choosing inputs to keep", &mut merge, &log)?;
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read() {
        let log = "#2\tINITED cov: 9 ft: 10 corp: 1/1b\n#30\tDONE   cov: 12 ft: 40 corp: 3/9b\n\
            Done 30 runs in 0 second(s)\nstat::number_of_executed_units: 30\n";
        assert_eq!(Ran::parse(log), Some(Ran { executions: 30, edges: 12 }));
        assert_eq!(Ran::parse("stat::number_of_executed_units: 30"), None);
    }

    #[test]
    fn each_target_has_a_corpus() {
        for target in TARGETS {
            let inputs = std::fs::read_dir(corpus(target)).expect("a folder");
            assert!(inputs.count() > 0, "{target}");
        }
    }
}
