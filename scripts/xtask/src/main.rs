//! What scripts/run, scripts/test and scripts/bench do.

mod artifacts;
mod bench;
mod cache;
mod demo;
mod fuzz;
mod kvm;
mod lines;
mod lmbench;
mod mutation;
mod own;
mod process;
mod proof;
mod run;
mod selfcheck;
mod shell;
mod stock;
mod suite;
mod trust;

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

/// SecVisor's build, run, test and measurement tasks.
#[derive(Parser)]
#[command(bin_name = "scripts")]
enum Task {
    /// Boots Linux under SecVisor in QEMU.
    Run(run::Options),
    /// Runs the tests; the last line is "N passed, N failed".
    Test(suite::Options),
    /// Measures what SecVisor costs.
    Bench(bench::Options),
    /// Makes an image for a USB stick that checks a real machine.
    Selfcheck(selfcheck::Options),
    /// Builds the hypervisor and prints its path.
    Build,
    /// Builds QEMU with GMET, patched by this project, and prints its path.
    Emulator,
    /// Prints the lines of code per part against their budgets.
    Lines,
    /// Prints what must be trusted: lines, unsafe code with its reasons, code by crate, dependencies.
    Trust,
    /// Fuzzes what reads hostile bytes, with the code's coverage as a guide.
    Fuzz(fuzz::Options),
    /// Explores the model of the policy, puts faults back that it must find, and mutates the policy.
    Proof(proof::Options),
}

fn told(path: &Path) -> bool {
    println!("{}", path.display());
    true
}

fn main() -> ExitCode {
    let task = match Task::try_parse() {
        Ok(task) => task,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp) => {
            print!("{error}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            // Bad use gets one line, whatever clap would say.
            let text = error.to_string();
            let line = text.lines().next().unwrap_or("error: bad use");
            eprintln!("{} (see --help)", line.trim_end_matches(':'));
            return ExitCode::from(2);
        }
    };
    let result = match task {
        Task::Run(options) if options.demo => demo::demo(&options),
        Task::Run(options) => run::run(&options),
        Task::Test(options) => suite::test(&options),
        Task::Bench(options) => bench::bench(&options),
        Task::Selfcheck(options) => selfcheck::run(&options),
        Task::Build => artifacts::hypervisor().map(|path| told(&path)),
        Task::Emulator => artifacts::gmet_emulator().map(|path| told(&path)),
        Task::Lines => lines::print(),
        Task::Trust => trust::print(),
        Task::Fuzz(options) => fuzz::run(&options),
        Task::Proof(options) => proof::run(&options),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
