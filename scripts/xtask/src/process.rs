//! Other programs: run with progress, failing with one line and the log's name.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
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
    let progress = Progress::new(what);
    let status = attempt(command, log).map_err(|error| format!("{what}: {error}"))?;
    drop(progress);
    if status.success() {
        return Ok(());
    }
    Err(format!("{what} did not work: {} (log: {})", reason(log), log.display()).into())
}

/// Runs `command` to its end, however it ends, with its output in `log`.
pub fn attempt(command: &mut Command, log: &Path) -> Result<ExitStatus> {
    let output = std::fs::File::create(log)
        .map_err(|error| format!("cannot write {}: {error}", log.display()))?;
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    let program = command.get_program().to_string_lossy().into_owned();
    Ok(command.status().map_err(|error| format!("{program}: {error}"))?)
}

/// The line of a log that says what went wrong: the compiler's first, or the last of all.
fn reason(log: &Path) -> String {
    let text = String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).into_owned();
    let first = text.lines().find(|line| line.starts_with("error"));
    first.map_or_else(|| harness::console::tail(&text), harness::console::tail)
}

/// Elapsed time of one long step, told on stderr until this is dropped.
pub struct Progress {
    stop: Option<Sender<()>>,
    teller: Option<JoinHandle<()>>,
}

impl Progress {
    /// Begins to count.
    pub fn new(what: &str) -> Self {
        let what = what.to_owned();
        Self::telling(move || what.clone())
    }

    /// The same for a step that can say how far it is.
    pub fn telling(what: impl Fn() -> String + Send + 'static) -> Self {
        let (stop, stopped) = std::sync::mpsc::channel();
        let teller = std::thread::spawn(move || tell(&what, &stopped));
        Self { stop: Some(stop), teller: Some(teller) }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(teller) = self.teller.take() {
            let _ = teller.join();
        }
    }
}

fn tell(what: &dyn Fn() -> String, stopped: &Receiver<()>) {
    let terminal = std::io::stderr().is_terminal();
    let start = Instant::now();
    let mut told = false;
    // Without a terminal a line each half minute is enough.
    let mut due = SILENT;
    while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(due) {
        let (what, seconds) = (what(), start.elapsed().as_secs());
        if terminal {
            eprint!("\r{what} ... {seconds} s ");
            let _ = std::io::stderr().flush();
        } else {
            eprintln!("{what} ... {seconds} s");
        }
        told = true;
        due = Duration::from_secs(if terminal { 1 } else { 30 });
    }
    if told {
        let back = if terminal { "\r" } else { "" };
        eprintln!("{back}{}: {:.1} s      ", what(), start.elapsed().as_secs_f32());
    }
}
