//! The mutation score of the policy: cargo-mutants makes one fault after the other in it, and its unit
//! and property tests must fail for each.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use harness::Result;

use crate::artifacts::cargo;
use crate::cache::{self, Key};
use crate::process::{Progress, attempt, root, step, target_directory};

/// The tool, and the version of it that this reads the results of.
const TOOL: (&str, &str) = ("cargo-mutants", "27.1.0");
const POLICY: &str = "hypervisor/policy";
/// What the score depends on.
const SOURCES: [&str; 4] = [POLICY, "Cargo.toml", "Cargo.lock", "rust-toolchain.toml"];
/// Options of cargo: nobody looks at what these builds leave.
const WITHOUT_DEBUG: [&str; 2] = ["--config", "profile.dev.debug=0"];
/// A pass over the faults that are left.
struct Pass {
    tests: &'static str,
    /// For the policy's crate: builds without are fast, slow tests with are.
    optimization: &'static str,
    skipped: &'static [&'static str],
    /// Seconds after which tests hang.
    timeout: u32,
}

/// Few faults are left for the tests that take long.
const PASSES: [Pass; 3] = [
    Pass {
        tests: "fast tests",
        optimization: "profile.dev.package.secvisor-policy.opt-level=0",
        skipped: &[
            "after_every_write",
            "a_small_machine",
            "sixty_four_gibibytes",
            "what_is_reserved",
            "modules_come_and_go",
            "whatever_is_asked",
            "refusals_say_why",
            "random_tables",
        ],
        timeout: 20,
    },
    Pass {
        tests: "most tests",
        optimization: OPTIMIZED,
        skipped: &["after_every_write", "modules_come_and_go"],
        timeout: 40,
    },
    Pass { tests: "all tests", optimization: OPTIMIZED, skipped: &[], timeout: 120 },
];
const OPTIMIZED: &str = "profile.dev.package.secvisor-policy.opt-level=2";
/// The longest that a pass may take.
const LONGEST: Duration = Duration::from_secs(5400);
/// Where the tool leaves what it found in the last pass.
const FOUND: &str = "mutants.out";
/// What it found in the first: all builds after that are of the others.
const UNVIABLE: &str = "unviable.txt";
const EQUIVALENT: &str = "equivalent.txt";
/// cargo-mutants ends with this if faults were missed, and if tests hung.
const MISSED: [i32; 2] = [2, 3];
/// How the machine code of a change is made that is compared: with no place of a line in it.
const AS_SHIPPED: [&str; 10] = [
    "--config",
    "profile.dev.overflow-checks=false",
    "--config",
    "profile.dev.debug-assertions=false",
    "--config",
    "profile.dev.strip=true",
    "--config",
    "profile.dev.package.secvisor-policy.opt-level=3",
    "--target-dir",
    "machine-code",
];
/// What means something in a regular expression.
const META: &str = r"\.+*?()|[]{}^$";
/// What the tool leaves in a line that it changed.
const MARK: &str = " /* ~ changed by cargo-mutants ~ */";
/// Percents of the faults that must be found.
pub const ENOUGH: f64 = 95.0;

/// What became of the faults.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Score {
    /// Those for which a test failed, or hung.
    pub caught: usize,
    /// Those that no test noticed, in the tool's words.
    pub missed: Vec<String>,
    /// Changes that are no faults: the machine code is the same with and without.
    pub equivalent: Vec<String>,
    /// Those that do not compile: they count as nothing.
    pub unviable: usize,
}

impl Score {
    /// Percents caught of those that compile and are faults, rounded down to a tenth.
    pub fn percent(&self) -> f64 {
        let all = self.caught.saturating_add(self.missed.len()).max(1);
        (self.caught.saturating_mul(1000) / all) as f64 / 10.0
    }

    /// Reads what the tool wrote in its last pass, and what was kept of those before.
    fn read(folder: &Path) -> Result<Self> {
        let count = |file: &str| lines(&folder.join(FOUND).join(file)).map(|it| it.len());
        let equivalent = lines(&folder.join(EQUIVALENT))?;
        let mut missed = lines(&folder.join(FOUND).join("missed.txt"))?;
        missed.retain(|it| !equivalent.contains(it));
        let unviable = lines(&folder.join(UNVIABLE))?.len();
        // Those that do not compile are in the tool's list of what earlier passes settled.
        let settled =
            count("previously_caught.txt")? + count("caught.txt")? + count("timeout.txt")?;
        Ok(Self { caught: settled.saturating_sub(unviable), missed, equivalent, unviable })
    }
}

fn lines(file: &Path) -> Result<Vec<String>> {
    let text =
        std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// The score of these very sources: measured, or kept since they were.
pub fn score() -> Result<Score> {
    let compiler = Command::new("rustc").current_dir(root()).arg("-vV").output()?.stdout;
    let compiler = String::from_utf8(compiler)?;
    let tool = cache::entry(TOOL.0, Key::default().text(TOOL.1).text(&compiler), install)?;
    // All tests count in the end, whichever pass they are in.
    let mut key = Key::default().text(TOOL.1).text(&compiler);
    for path in SOURCES {
        key = key.path(&root().join(path))?;
    }
    let kept =
        cache::entry("mutation", key, |folder| measure(&tool.join("bin").join(TOOL.0), folder))?;
    let score = Score::read(&kept)?;
    if score.caught == 0 {
        return Err(format!("{} judged no fault ({})", TOOL.0, kept.display()).into());
    }
    Ok(score)
}

fn install(folder: &Path) -> Result<()> {
    let mut install = cargo(&["install", "--locked", "--version", TOOL.1, "--root"]);
    install.arg(folder).arg(TOOL.0).env_remove("CARGO_TARGET_DIR");
    let log = target_directory().join("install-cargo-mutants.log");
    step("installing cargo-mutants (some 3 minutes)", &mut install, &log)
}

/// Tries all faults with the fast tests, then what is left of them, and is a fault, with all tests.
fn measure(tool: &Path, folder: &Path) -> Result<()> {
    let alone = policy_alone(folder)?;
    let [first, second, last] = &PASSES;
    let found = folder.join(FOUND);
    try_all(tool, &alone, folder, first, &[])?;
    std::fs::copy(found.join(UNVIABLE), folder.join(UNVIABLE))?;
    try_all(tool, &alone, folder, second, &[])?;
    let equivalent = equivalent(&alone, &found)?;
    std::fs::write(folder.join(EQUIVALENT), equivalent.join("\n"))?;
    let left = [lines(&found.join("missed.txt"))?, lines(&found.join("timeout.txt"))?].concat();
    if left.iter().any(|it| !equivalent.contains(it)) {
        try_all(tool, &alone, folder, last, &equivalent)?;
    }
    // Hundreds of logs, of no use to anybody.
    for folder in
        [alone, folder.join(format!("{FOUND}.old")), found.join("log"), found.join("diff")]
    {
        std::fs::remove_dir_all(folder)?;
    }
    Ok(())
}

fn try_all(tool: &Path, alone: &Path, folder: &Path, pass: &Pass, but: &[String]) -> Result<()> {
    let jobs = std::thread::available_parallelism().map_or(1, |it| it.get().min(8)).to_string();
    let (timeout, longest) = (pass.timeout.to_string(), LONGEST.as_secs().to_string());
    let mut mutants = Command::new("timeout");
    mutants.current_dir(alone).arg(longest).arg(tool).args(["mutants", "--iterate"]);
    // Each job builds in a copy of its own, of what was built and tested without a fault.
    mutants.env_remove("CARGO_TARGET_DIR").args(["--copy-target=true", "--baseline=skip"]);
    mutants.args(["--jobs", &jobs, "--timeout", &timeout, "--colors=never", "--output"]);
    mutants.arg(folder).args(["-C", WITHOUT_DEBUG[0], "-C", WITHOUT_DEBUG[1]]);
    let literally = |text: &String| -> String {
        let escape = |c: char| if META.contains(c) { vec!['\\', c] } else { vec![c] };
        text.chars().flat_map(escape).collect()
    };
    for text in but {
        mutants.args(["--exclude-re", &literally(text)]);
    }
    mutants.args(["-C", "--config", "-C", pass.optimization, "--", "--lib", "--"]);
    mutants.args(pass.skipped.iter().flat_map(|test| ["--skip", test]));
    let log = target_directory().join("mutation.log");
    let progress = Progress::telling({
        let (tests, out, log) = (pass.tests, folder.join(FOUND), log.clone());
        move || told(tests, &out, &log)
    });
    let status = attempt(&mut mutants, &log)?;
    drop(progress);
    if status.success() || status.code().is_some_and(|code| MISSED.contains(&code)) {
        return Ok(());
    }
    Err(format!("{} did not work: {status} (log: {})", TOOL.0, log.display()).into())
}

/// A workspace of nothing but the policy, where cargo has little to look at each time, tested.
fn policy_alone(folder: &Path) -> Result<PathBuf> {
    let alone = folder.join("policy-alone");
    std::fs::create_dir_all(alone.join(POLICY))?;
    for path in SOURCES {
        let mut copy = Command::new("cp");
        copy.current_dir(root()).args(["-r", "--parents", path]).arg(&alone);
        step("copying the policy", &mut copy, &target_directory().join("mutation-copy.log"))?;
    }
    let manifest = alone.join("Cargo.toml");
    let text = std::fs::read_to_string(&manifest)?;
    let members =
        |line: &&str| !line.starts_with("members =") && !line.starts_with("default-members =");
    let others: Vec<_> = text.lines().filter(members).collect();
    let text =
        others.join("\n").replace("[workspace]", &format!("[workspace]\nmembers = [{POLICY:?}]"));
    std::fs::write(manifest, text)?;
    let mut test = cargo(&[&["test", "--lib"], &WITHOUT_DEBUG[..]].concat());
    test.current_dir(&alone).env_remove("CARGO_TARGET_DIR");
    step("testing the policy alone", &mut test, &target_directory().join("mutation-none.log"))?;
    Ok(alone)
}

/// The changes that no test noticed, because none can: with them the compiler makes the same machine code
/// of the policy and its tests. Code that no test reaches would be the same as well, so another change
/// of the same operator must have been noticed.
fn equivalent(alone: &Path, out: &Path) -> Result<Vec<String>> {
    let progress = Progress::new("comparing the machine code of what no test noticed");
    let caught =
        [lines(&out.join("previously_caught.txt"))?, lines(&out.join("caught.txt"))?].concat();
    let unchanged = machine_code(alone)?;
    let mut found = Vec::new();
    for missed in lines(&out.join("missed.txt"))? {
        let Some((place, _)) = missed.split_once(" with ") else { continue };
        let noticed = caught.iter().any(|it| it.starts_with(&format!("{place} with ")));
        if noticed && with_change(alone, out, &missed)? == unchanged {
            found.push(missed);
        }
    }
    drop(progress);
    Ok(found)
}

/// The machine code with a change, such as `a/b.rs:12:3: replace + with - in f`, which is taken out again.
fn with_change(alone: &Path, out: &Path, change: &str) -> Result<Vec<u8>> {
    let no_such = || format!("cargo-mutants left no diff of {change}");
    let mut parts = change.splitn(4, ':');
    let mut part = || parts.next().ok_or_else(no_such);
    let (file, line, column, what) = (part()?, part()?, part()?, part()?.trim_start());
    let name = format!("{}_line_{line}_col_{column}", file.replace('/', "__"));
    let mut diffs =
        std::fs::read_dir(out.join("diff"))?.filter_map(|entry| Some(entry.ok()?.path()));
    let diff = diffs.find(|path| {
        let named = path.file_name().map(|it| it.to_string_lossy().into_owned());
        let rest = named.as_ref().and_then(|it| it.strip_prefix(&name));
        rest.is_some_and(|it| it.starts_with(['.', '_']))
            && lines(path).is_ok_and(|it| it.get(1).is_some_and(|it| it.ends_with(what)))
    });
    let source = alone.join(file);
    let original = std::fs::read_to_string(&source)?;
    let mut patch = Command::new("patch");
    patch.arg("--silent").arg(&source).arg(diff.ok_or_else(no_such)?);
    step("applying a change", &mut patch, &target_directory().join("mutation-patch.log"))?;
    let changed = std::fs::read_to_string(&source)?.replace(MARK, "");
    std::fs::write(&source, changed)?;
    let code = machine_code(alone);
    std::fs::write(&source, original)?;
    code
}

/// The policy and its tests, compiled with optimization.
fn machine_code(alone: &Path) -> Result<Vec<u8>> {
    let mut build =
        cargo(&[&["test", "--lib", "--no-run"], &WITHOUT_DEBUG[..], &AS_SHIPPED].concat());
    build.current_dir(alone).env_remove("CARGO_TARGET_DIR");
    let log = target_directory().join("mutation-code.log");
    if !attempt(&mut build, &log)?.success() {
        return Err(format!("the policy does not build any more (log: {})", log.display()).into());
    }
    let mut built = std::fs::read_dir(alone.join("machine-code/debug/deps"))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_none())
        .filter(|path| {
            path.file_name().is_some_and(|it| it.to_string_lossy().starts_with("policy-"))
        });
    Ok(std::fs::read(built.next().ok_or("the policy's tests were not built")?)?)
}

/// How far the tool is.
fn told(tests: &str, out: &Path, log: &Path) -> String {
    let read = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    let judged = ["caught.txt", "missed.txt", "timeout.txt", "unviable.txt"]
        .map(|file| read(out.join(file)).lines().count());
    let text = read(log.into());
    let all = text.lines().find_map(|line| line.strip_prefix("Found ")?.split(' ').next());
    let all = all.unwrap_or("?");
    format!("mutating the policy, {tests}: {} of {all}", judged.iter().sum::<usize>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_passes_count() {
        let folder = std::env::temp_dir().join(format!("mutation-{}", std::process::id()));
        std::fs::create_dir_all(folder.join(FOUND)).unwrap();
        let files = [
            ("mutants.out/previously_caught.txt", "a\nb\nc\n"),
            ("mutants.out/caught.txt", "d\n"),
            ("mutants.out/timeout.txt", "e\n"),
            ("mutants.out/missed.txt", "f\ng\n"),
            (UNVIABLE, "b\n"),
        ];
        for (file, text) in files {
            std::fs::write(folder.join(file), text).unwrap();
        }
        assert!(Score::read(&folder).is_err(), "nobody looked for equivalent ones");
        std::fs::write(folder.join(EQUIVALENT), "g").unwrap();
        let score = Score::read(&folder).unwrap();
        let (missed, equivalent) = (vec!["f".into()], vec!["g".into()]);
        assert_eq!(score, Score { caught: 4, missed, equivalent, unviable: 1 });
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn percents_are_not_rounded_up() {
        let percent = |caught, missed: usize| {
            let missed = vec![String::new(); missed];
            Score { caught, missed, ..Score::default() }.percent()
        };
        assert_eq!(percent(94_999, 5_001), 94.9);
        assert_eq!((percent(19, 1), percent(3, 0), percent(0, 0)), (95.0, 100.0, 0.0));
    }
}
