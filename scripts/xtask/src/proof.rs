//! The model of the policy, explored, and the faults that it must find when they are put back.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use clap::Args;
use harness::Result;

use crate::artifacts::cargo;
use crate::process::{root, step, target_directory};
use crate::suite;

const PACKAGE: &str = "secvisor-model";
/// The exit code of the model where a property is broken.
const BROKEN: i32 = 1;

/// Options of `cargo xtask proof`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Do only those steps whose name contains one of these
    names: Vec<String>,
    /// Explore more frames, pages and bases, without putting faults back; takes many minutes
    #[arg(long)]
    deep: bool,
}

/// Explores the model, and puts the faults back as `scripts/test --proof` does; false if one was not found.
pub fn run(options: &Options) -> Result<bool> {
    if options.deep {
        println!("model_states {}", explore(&["--deep"])?);
        return Ok(true);
    }
    suite::test(&suite::Options::proof(&options.names))
}

/// Explores the model of these sources; gives the number of states.
pub fn explore(arguments: &[&str]) -> Result<u64> {
    let log = target_directory().join("model.log");
    let build = ["run", "--quiet", "--profile", "model", "-p", PACKAGE, "--"];
    step("exploring the model", &mut cargo(&[&build, arguments].concat()), &log)?;
    let text = std::fs::read_to_string(&log)?;
    text.lines().filter(|line| line.contains(" states, ")).for_each(|line| println!("{line}"));
    states(&text)
        .ok_or_else(|| format!("the model says nothing of states ({})", log.display()).into())
}

/// The states that a model counted which holds.
fn states(text: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix("all properties hold in "))?;
    rest.strip_suffix(" states")?.parse().ok()
}

/// A fault, as a patch of the sources.
#[derive(Debug, PartialEq, Eq)]
pub struct Mutant {
    /// Its name, that of the patch.
    pub name: String,
    patch: PathBuf,
    /// The property that it must break.
    pub expected: String,
}

/// All faults of a checkout. Each patch begins with what it does, and a line `Expect: ` with a property's name.
pub fn mutants(root: &Path) -> Result<Vec<Mutant>> {
    let folder = root.join("tests/model/mutants");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&folder)? {
        let patch = entry?.path();
        let (Some(name), Some("patch")) =
            (patch.file_stem(), patch.extension().and_then(|it| it.to_str()))
        else {
            return Err(format!("{} is no patch", patch.display()).into());
        };
        let name = name.to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&patch)?;
        let expected = text.lines().find_map(|line| line.strip_prefix("Expect: "));
        let expected =
            expected.ok_or_else(|| format!("{} expects nothing", patch.display()))?.to_owned();
        found.push(Mutant { name, patch, expected });
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// A copy of the checkout, to put faults in, in a folder of its own that is always the same: what was
/// built there stays built.
pub fn copy_of_the_sources() -> Result<PathBuf> {
    let (root, copy) = (root(), target_directory().join("mutants"));
    let sources = copy.join("sources");
    if sources.exists() {
        std::fs::remove_dir_all(&sources)?;
    }
    let files = Command::new("git")
        .current_dir(&root)
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .output()?;
    for file in String::from_utf8(files.stdout)?.split_terminator('\0') {
        let (from, to) = (root.join(file), sources.join(file));
        // Links and what is deleted but not yet committed stay behind.
        if from.is_file() {
            std::fs::create_dir_all(to.parent().ok_or("a file lies in no folder")?)?;
            std::fs::copy(&from, &to)?;
        }
    }
    Ok(sources)
}

impl Mutant {
    /// Puts the fault in, explores, and takes it out. How many steps it takes to break the property,
    /// or why that did not happen.
    pub fn judge(&self, sources: &Path) -> Result<std::result::Result<usize, String>> {
        let apply = |arguments: &[&str]| {
            let mut patch = Command::new("patch");
            patch
                .current_dir(sources)
                .args(["-p1", "--silent", "--fuzz=0", "--no-backup-if-mismatch"])
                .args(arguments);
            patch.arg("-i").arg(&self.patch).output()
        };
        if !apply(&["--dry-run"])?.status.success() {
            return Ok(Err(format!("{} does not apply: mend it", self.patch.display())));
        }
        apply(&[])?;
        let explored = self.explore(sources);
        if !apply(&["--reverse"])?.status.success() {
            return Err(format!("{} cannot be taken out again", self.patch.display()).into());
        }
        Ok(match explored {
            Ok(output) => verdict(&output, &self.expected),
            Err(error) => Err(error.to_string()),
        })
    }

    fn explore(&self, sources: &Path) -> Result<Output> {
        let target = sources.with_file_name("target");
        std::fs::create_dir_all(&target)?;
        let log = target.join(format!("{}.log", self.name));
        let mut build = cargo(&["build", "--quiet", "--profile", "model", "-p", PACKAGE]);
        build.current_dir(sources).env("CARGO_TARGET_DIR", &target);
        step(&format!("building {}", self.name), &mut build, &log)?;
        Ok(Command::new(target.join("model").join(PACKAGE)).output()?)
    }
}

/// Whether the model broke exactly this property, and in how many steps.
fn verdict(output: &Output, expected: &str) -> std::result::Result<usize, String> {
    let text = String::from_utf8_lossy(&output.stdout);
    let broken = text.lines().find_map(|line| line.strip_prefix("broken: "));
    match (output.status.code(), broken) {
        (Some(BROKEN), Some(broken)) if broken == expected => {
            Ok(text.lines().filter(|line| line.starts_with("  ")).count())
        }
        (_, Some(broken)) => Err(format!("breaks {broken} instead of {expected}")),
        (Some(0), None) => Err(format!("was not found, {expected} holds")),
        (code, None) => Err(format!("the model ended with {code:?} and broke nothing")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    fn ended(code: i32, text: &str) -> Output {
        let status = ExitStatus::from_raw(code << 8);
        Output { status, stdout: text.as_bytes().to_vec(), stderr: vec![] }
    }

    #[test]
    fn only_the_named_property_counts() {
        let broken = "adversary: 7 states, 9 steps\n  Leave\n  Enter\nbroken: a-name\n";
        assert_eq!(verdict(&ended(1, broken), "a-name"), Ok(2));
        assert_eq!(verdict(&ended(1, broken), "b"), Err("breaks a-name instead of b".into()));
        let held = ended(0, "all properties hold in 12 states\n");
        assert_eq!(verdict(&held, "b"), Err("was not found, b holds".into()));
        assert!(verdict(&ended(101, ""), "b").is_err());
        assert_eq!(states("x\nall properties hold in 12 states\n"), Some(12));
        assert_eq!(states(broken), None);
    }

    #[test]
    fn every_fault_names_a_property_of_the_model() {
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let properties =
            std::fs::read_to_string(checkout.join("tests/model/src/property.rs")).unwrap();
        let mutants = mutants(&checkout).unwrap();
        assert!(mutants.len() >= 10);
        for mutant in mutants {
            assert!(properties.contains(&format!("\"{}\"", mutant.expected)), "{mutant:?}");
        }
    }
}
