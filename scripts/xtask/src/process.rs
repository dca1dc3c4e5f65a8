//! Other programs: run with progress, failing with one line and the log's name.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use harness::Result;

/// Shorter steps stay silent.
const SILENT: Duration = Duration::from_secs(2);

/// The checkout.
pub fn root() -> PathBuf {
    std::env::var_os("SECVISOR_ROOT").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").components().collect(),
        PathBuf::from,
    )
}

/// A path as the caller of the script meant it.
pub fn caller_path(path: &Path) -> PathBuf {
    std::env::var_os("SECVISOR_CWD").map_or_else(PathBuf::new, PathBuf::from).join(path)
}

/// Where cargo builds.
pub fn target_directory() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Runs `command` to its end with its output in `log`, telling the time if it takes long.
pub fn step(what: &str, command: &mut Command, log: &Path) -> Result<()> {
    let output = std::fs::File::create(log)
        .map_err(|error| format!("cannot write {}: {error}", log.display()))?;
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command.spawn().map_err(|error| format!("{what}: {program}: {error}"))?;
    let mut progress = Progress::new(what);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        progress.tick();
        std::thread::sleep(Duration::from_millis(25));
    };
    progress.end();
    if status.success() {
        return Ok(());
    }
    Err(format!("{what} did not work: {} (log: {})", reason(log), log.display()).into())
}

/// The line of a log that most likely says what went wrong.
fn reason(log: &Path) -> String {
    let text = String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).into_owned();
    let telling = |line: &&str| {
        let lower = line.to_lowercase();
        lower.contains("error") || lower.contains("no space") || lower.contains("refused")
    };
    text.lines().find(telling).map_or_else(|| harness::console::tail(&text), harness::console::tail)
}

/// Elapsed time of one long step, on stderr.
pub struct Progress {
    what: String,
    start: Instant,
    shown: Option<u64>,
}

impl Progress {
    /// Begins to count.
    pub fn new(what: &str) -> Self {
        Self { what: what.to_owned(), start: Instant::now(), shown: None }
    }

    /// Shows the time if another second has passed.
    pub fn tick(&mut self) {
        let terminal = std::io::stderr().is_terminal();
        let elapsed = self.start.elapsed();
        let seconds = elapsed.as_secs();
        // Without a terminal one line per half minute is enough.
        let due = self.shown.is_none_or(|last| seconds >= last + if terminal { 1 } else { 30 });
        if elapsed < SILENT || !due {
            return;
        }
        self.shown = Some(seconds);
        if terminal {
            eprint!("\r{} ... {seconds} s ", self.what);
            let _ = std::io::stderr().flush();
        } else {
            eprintln!("{} ... {seconds} s", self.what);
        }
    }

    /// Says how long it took, if it ever said anything.
    pub fn end(self) {
        if self.shown.is_some() {
            let start = if std::io::stderr().is_terminal() { "\r" } else { "" };
            eprintln!("{start}{}: {:.1} s      ", self.what, self.start.elapsed().as_secs_f32());
        }
    }
}
