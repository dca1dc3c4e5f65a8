//! Attacks that nobody outside watches: many guests in seconds, and a second emulator.

use std::time::Duration;

use super::evidence::{self, Text};
use super::{Batch, Column, Effect, Outcome, Row, Setup, honest_lines, image, rows_of, session};
use crate::{Result, bochs};

const BOCHS_DEADLINE: Duration = Duration::from_secs(900);
/// Why rows are not run unwatched, and so not on Bochs.
const WATCHED: [(Batch, &str); 2] = [
    (Batch::Processors, "it needs a second processor"),
    (Batch::Alone, "it may end the machine, which only somebody outside can judge"),
];
const NO_Q35: &str = "Bochs has no Q35 chipset";
const VIRTUAL: &str =
    "Bochs loads RFLAGS too late in an exit from virtual-8086 mode to a 64-bit host, and ends";
/// What Bochs cannot run even where nothing forbids it, and why.
const NOT_ON_BOCHS: [(&str, &str); 16] = [
    ("exec-device", "Bochs stops at code in device memory"),
    ("pci-text-ports", NO_Q35),
    ("pci-text-memory", NO_Q35),
    ("firmware-dma-text", "Bochs has no QEMU firmware configuration"),
    ("pci-rom-opened", NO_Q35),
    ("pci-smram-opened", NO_Q35),
    ("pci-ecam-moved", NO_Q35),
    ("pci-display-over-text", "Bochs' display is no PCI function"),
    ("virtual-apic-text", "Bochs has no paravirtual APIC"),
    ("pci-ports-over-log", NO_Q35),
    ("pci-ports-over-address", NO_Q35),
    ("a20-covered", NO_Q35),
    ("virtual-int", VIRTUAL),
    ("virtual-int-closed", VIRTUAL),
    ("virtual-int-vme", VIRTUAL),
    ("virtual-syscall", VIRTUAL),
];
/// Honest programs that Bochs cannot run, as the guest's command line says it.
const HONEST_ON_BOCHS: &str = "honest,lock without=virtual-open,virtual-closed";

/// Rows that leave no record on Bochs.
const FIRST_ON_BOCHS: [&str; 5] =
    ["lock-cr0-pg", "lock-cr0-pe", "lock-cr4-umip", "lock-cr4-la57", "lock-cr4-pae"];

/// Why those leave none.
pub const FIRST_ON_BOCHS_WHY: &str =
    "a processor refuses them by itself, by #GP, before it asks whether to exit; QEMU exits first";

fn must_be_watched(row: &Row) -> Option<&'static str> {
    WATCHED.iter().find(|(batch, _)| *batch == row.batch).map(|(_, why)| *why)
}

/// Why a row is not run on Bochs, if it is not.
pub fn not_on_bochs(row: &Row) -> Option<&'static str> {
    let own = || NOT_ON_BOCHS.iter().find(|(name, _)| *name == row.name).map(|(_, why)| *why);
    must_be_watched(row).or_else(own)
}

/// What came of rows that nobody watched.
pub struct Run {
    /// Rows that were to be tried.
    pub tried: usize,
    /// Those that came out otherwise than the table says, with what came of them.
    pub wrong: Vec<String>,
    /// Those that left no record and need not.
    pub unrecorded: usize,
}

/// As [`super::honest`], on Bochs.
///
/// # Errors
/// As [`super::honest`].
pub fn honest_on_bochs(setup: &Setup, column: Column, left_out: &[&str]) -> Result<Vec<String>> {
    let ended = on_bochs(setup, column, HONEST_ON_BOCHS)?;
    honest_lines(&ended.console, &ended.log, left_out)
}

/// The attacks, but for those that need a second processor or may end the machine. Nobody looks at the
/// memory while they run, so the guest's own witness counts here, beside SecVisor's log, and frame
/// tables are not compared: this is weaker than [`super::judge`], and quicker.
///
/// # Errors
/// If the guest does not run to its end.
pub fn unwatched(setup: &Setup, column: Column) -> Result<Run> {
    let chosen: Vec<&Row> =
        rows_of(setup.kind).filter(|row| must_be_watched(row).is_none()).collect();
    let (console, log) = setup.run_part(column, "attacks,modules,pinned", false)?;
    unwatched_rows(setup, &chosen, column, (&console, &log), &[])
}

/// The same on Bochs.
///
/// # Errors
/// As [`unwatched`].
pub fn attacks_on_bochs(setup: &Setup, column: Column) -> Result<Run> {
    let chosen: Vec<&Row> = rows_of(setup.kind).filter(|row| not_on_bochs(row).is_none()).collect();
    // Whole batches by their names: command lines are short.
    let part =
        format!("attacks,modules,pinned without={}", NOT_ON_BOCHS.map(|(name, _)| name).join(","));
    let ended = on_bochs(setup, column, &part)?;
    let told = (ended.console.as_str(), ended.log.as_str());
    unwatched_rows(setup, &chosen, column, told, &FIRST_ON_BOCHS)
}

/// Judges rows by what guest and SecVisor said; those of `unrecorded` leave no record.
fn unwatched_rows(
    setup: &Setup,
    chosen: &[&Row],
    column: Column,
    (console, log): (&str, &str),
    unrecorded: &[&str],
) -> Result<Run> {
    let text = Text::of(&setup.guest, 0..0)?;
    let (mut wrong, mut without) = (Vec::new(), 0);
    for row in chosen {
        let Some((attempt, seen)) = evidence::told(console, row, column, &text) else {
            wrong.push(format!("{}: not tried", row.name));
            continue;
        };
        let effect = match row.effect {
            Effect::Log if column != Column::Plain => session::forged(log),
            _ => seen,
        };
        let recorded = || attempt.is_recorded(console, log);
        if effect != (row.expected(column) == Outcome::Succeeded) {
            wrong.push(format!("{}: {}", row.name, if effect { "succeeded" } else { "no effect" }));
        } else if column != Column::Plain && !effect && !recorded() {
            if unrecorded.contains(&row.name) {
                without += 1;
            } else {
                wrong.push(format!("{}: no record", row.name));
            }
        }
    }
    Ok(Run { tried: chosen.len(), wrong, unrecorded: without })
}

fn on_bochs(setup: &Setup, column: Column, part: &str) -> Result<bochs::Ended> {
    let line = format!("run={part}{}", setup.kind.words());
    let iso = image::write(setup, column, &line)?;
    let machine = bochs::Machine { iso, megabytes: 256 };
    let what = if part.starts_with("honest") { "bochs-honest" } else { "bochs-attacks" };
    let ended = machine.run(&setup.place(column, what), BOCHS_DEADLINE)?;
    if !ended.shut_down || !ended.console.contains("guest: done") {
        let last = crate::console::tail(&ended.console);
        return Err(format!("Bochs did not end; last: {last}").into());
    }
    Ok(ended)
}
