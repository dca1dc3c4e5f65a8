//! The matrix of attacks and columns, put together from what the tests tell.

mod writing;

use std::path::Path;

use harness::Result;
use harness::attack::{Column, Group, Outcome};

use crate::process::caller_path;

/// What became of an attack in a column.
#[derive(Clone, Debug)]
pub struct Cell {
    /// Its name in the matrix, such as `x86_64/exec-heap`.
    pub id: String,
    /// Its section of the catalogue of attacks.
    pub group: &'static str,
    /// What was below the guest.
    pub column: Column,
    /// What became of it.
    pub outcome: Outcome,
    /// Why it is stopped without SecVisor, or succeeds under it, or was not tried.
    pub note: Option<String>,
}

/// What came of a guest's rows on the second emulator, as shipped and unwatched.
pub struct Second {
    /// How many came out as they must.
    pub same: usize,
    /// How many of those left no record, and need not.
    pub unrecorded: usize,
    /// Ids of those that did not, with what came of them.
    pub otherwise: Vec<String>,
    /// Ids of those that were not run, with the reason.
    pub left_out: Vec<(String, &'static str)>,
}

/// How much of what is amiss is told; all of it stands in the matrix.
const TOLD: usize = 5;
/// What stands before the slash of an id, in the order of the matrix.
const GUESTS: [&str; 5] = ["x86_64", "i386", "linux-x86_64", "linux-i386", "boot"];

/// An attack in all columns.
struct Line {
    id: String,
    group: &'static str,
    cells: [Option<Cell>; Column::ALL.len()],
}

impl Line {
    fn outcome(&self, column: Column) -> &Outcome {
        self.cells[column as usize].as_ref().map_or(&Outcome::NotRun, |cell| &cell.outcome)
    }

    /// All reasons, each once; failures with their column.
    fn note(&self) -> Option<String> {
        let mut notes = Vec::new();
        for cell in self.cells.iter().flatten() {
            let note = match &cell.outcome {
                Outcome::Failed(why) => Some(format!("{}: {why}", cell.column.name())),
                _ => cell.note.clone(),
            };
            notes.extend(note.filter(|note| !notes.contains(note)));
        }
        (!notes.is_empty()).then(|| notes.join("; "))
    }
}

/// How often attacks of a column came to what: what came to nothing clear counts as neither.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Sum {
    stopped: u32,
    succeeded: u32,
}

impl Sum {
    fn attempted(self) -> u32 {
        self.stopped + self.succeeded
    }
}

/// What tests tell.
#[derive(Default)]
pub struct Told {
    /// The outcomes.
    pub cells: Vec<Cell>,
    /// What the second emulator shows, by guest.
    pub second: Vec<Second>,
    /// Whether tests were chosen, so that cells may be missing.
    pub chosen: bool,
}

/// All attacks, in the catalogue's order.
struct Matrix {
    lines: Vec<Line>,
    second: Vec<Second>,
}

fn place(names: impl IntoIterator<Item = &'static str>, name: &str) -> usize {
    names.into_iter().take_while(|known| *known != name).count()
}

impl Matrix {
    /// The matrix of what was told.
    fn new(told: Told) -> Self {
        let mut lines: Vec<Line> = Vec::new();
        for cell in told.cells {
            let at = lines.iter().position(|line| line.id == cell.id).unwrap_or(lines.len());
            if at == lines.len() {
                let (id, group) = (cell.id.clone(), cell.group);
                lines.push(Line { id, group, cells: Default::default() });
            }
            let slot = &mut lines[at].cells[cell.column as usize];
            let outcome = match slot {
                Some(_) => Outcome::Failed("told twice".into()),
                None => cell.outcome.clone(),
            };
            *slot = Some(Cell { outcome, ..cell });
        }
        for line in lines.iter_mut().filter(|_| told.chosen) {
            for (slot, column) in line.cells.iter_mut().zip(Column::ALL) {
                let (id, group, outcome) = (line.id.clone(), line.group, Outcome::NotRun);
                let note = Some("the test of a column was not chosen".into());
                slot.get_or_insert(Cell { id, group, column, outcome, note });
            }
        }
        let order = |line: &Line| {
            let guest = line.id.split('/').next().unwrap_or_default();
            (place(GUESTS, guest), place(Group::ALL.map(Group::name), line.group))
        };
        lines.sort_by_key(order);
        Self { lines, second: told.second }
    }

    fn sum(&self, group: Option<&str>, column: Column) -> Sum {
        let mut sum = Sum::default();
        for line in self.lines.iter().filter(|line| group.is_none_or(|group| line.group == group)) {
            match line.outcome(column) {
                Outcome::Stopped => sum.stopped += 1,
                Outcome::Succeeded => sum.succeeded += 1,
                Outcome::Failed(_) | Outcome::NotRun => (),
            }
        }
        sum
    }

    /// What must not stand in a matrix: failures, and without a reason an attack that is stopped
    /// without SecVisor, gets through as shipped, or was not tried.
    fn amiss(&self) -> Vec<String> {
        let mut amiss = Vec::new();
        for line in &self.lines {
            for column in Column::ALL {
                let cell = line.cells[column as usize].as_ref();
                let reason = cell.is_some_and(|cell| cell.note.is_some());
                let outcome = line.outcome(column);
                let fits = match (outcome, column) {
                    (Outcome::Failed(_), _) => false,
                    (Outcome::Stopped, Column::Plain)
                    | (Outcome::Succeeded, Column::Events | Column::Gmet) => reason,
                    (Outcome::NotRun, _) => reason,
                    _ => true,
                };
                if !fits {
                    amiss.push(match outcome {
                        Outcome::Failed(why) => format!("{} {}: {why}", line.id, column.name()),
                        _ => format!(
                            "{} {}: {}, and nothing says why",
                            line.id,
                            column.name(),
                            outcome.name()
                        ),
                    });
                }
            }
        }
        amiss
    }
}

/// Prints the matrix of what was told and writes it to `json`; an error names all that is amiss.
pub fn show(told: Told, json: Option<&Path>) -> Result<()> {
    let matrix = Matrix::new(told);
    println!(
        "\n{}\n<!-- attacks:begin -->\n\n{}\n<!-- attacks:end -->\n",
        matrix.text(),
        matrix.markdown()
    );
    if let Some(file) = json {
        let path = caller_path(file);
        std::fs::write(&path, matrix.json())
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    match matrix.amiss().as_slice() {
        _ if matrix.lines.is_empty() => Err("no attack was judged".into()),
        [] => Ok(()),
        amiss => {
            let more = amiss.len().saturating_sub(TOLD);
            let more = if more > 0 { format!("; and {more} more") } else { String::new() };
            Err(format!("{}{more}", amiss[..amiss.len().min(TOLD)].join("; ")).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(id: &str, column: Column, outcome: Outcome, note: Option<&str>) -> Cell {
        let note = note.map(str::to_owned);
        Cell { id: id.into(), group: Group::Remap.name(), column, outcome, note }
    }

    fn failed() -> Outcome {
        Outcome::Failed("it \"hung\"".into())
    }

    /// An attack that is to be stopped by either guard, with this outcome in the shipped column.
    fn line(id: &str, events: Outcome) -> Vec<Cell> {
        vec![
            cell(id, Column::Plain, Outcome::Succeeded, None),
            cell(id, Column::Npf, Outcome::Stopped, None),
            cell(id, Column::Events, events, None),
            cell(id, Column::Gmet, Outcome::Stopped, None),
        ]
    }

    fn matrix(cells: Vec<Cell>) -> Matrix {
        Matrix::new(Told { cells, ..Told::default() })
    }

    #[test]
    fn attempted_is_stopped_and_succeeded_and_a_failure_is_neither() {
        let mut cells = line("x86_64/a", Outcome::Stopped);
        cells.extend(line("x86_64/b", Outcome::Succeeded));
        cells.extend(line("i386/c", failed()));
        cells.extend(line("boot/d", Outcome::Stopped).drain(..1));
        let matrix = matrix(cells);
        let sums = Column::ALL.map(|column| matrix.sum(None, column));
        let [plain, npf, events, gmet] = sums;
        assert_eq!(gmet, npf);
        assert_eq!(plain, Sum { stopped: 0, succeeded: 4 });
        assert_eq!(npf, Sum { stopped: 3, succeeded: 0 });
        assert_eq!(events, Sum { stopped: 1, succeeded: 1 });
        assert_eq!(events.attempted(), 2);
        assert_eq!(matrix.sum(Some("remap"), Column::Events), events);
        assert_eq!(matrix.sum(Some("entry"), Column::Events), Sum::default());
    }

    #[test]
    fn what_needs_a_reason_and_has_none_is_amiss() {
        let amiss = |cells| matrix(cells).amiss();
        assert!(amiss(line("x86_64/a", Outcome::Stopped)).is_empty());
        assert_eq!(amiss(line("x86_64/a", failed())), ["x86_64/a events: it \"hung\""]);
        let through = "x86_64/a events: succeeded, and nothing says why";
        assert_eq!(amiss(line("x86_64/a", Outcome::Succeeded)), [through]);
        let mut cells = line("x86_64/a", Outcome::Succeeded);
        cells[2].note = Some("not promised".into());
        assert!(amiss(cells.clone()).is_empty());
        cells[0].outcome = Outcome::Stopped;
        assert_eq!(amiss(cells.clone()), ["x86_64/a plain: stopped, and nothing says why"]);
        cells.truncate(1);
        assert_eq!(amiss(cells.clone()).len(), 4);
        // Of the missing ones only the reason is at hand.
        let chosen = Matrix::new(Told { cells, chosen: true, ..Told::default() });
        assert_eq!(chosen.amiss(), ["x86_64/a plain: stopped, and nothing says why"]);
        assert_eq!(chosen.sum(None, Column::Npf), Sum::default());
        let mut cells = line("x86_64/a", Outcome::Stopped);
        cells.extend(line("x86_64/a", Outcome::Stopped));
        assert_eq!(amiss(cells).len(), 4);
    }

    #[test]
    fn rows_are_ordered_by_guest_and_group_and_written_as_json() {
        let mut cells = line("i386/c", failed());
        cells.extend(line("x86_64/a", Outcome::Stopped));
        let json = matrix(cells).json();
        let told = "  \"columns\": {\n    \
            \"plain\": {\"attempted\": 2, \"stopped\": 0, \"succeeded\": 2},\n    \
            \"npf\": {\"attempted\": 2, \"stopped\": 2, \"succeeded\": 0},\n    \
            \"events\": {\"attempted\": 1, \"stopped\": 1, \"succeeded\": 0},\n    \
            \"gmet\": {\"attempted\": 2, \"stopped\": 2, \"succeeded\": 0}\n  },\n  \
            \"rows\": [\n    \
            {\"id\": \"x86_64/a\", \"group\": \"remap\", \"plain\": \"succeeded\", \
            \"npf\": \"stopped\", \"events\": \"stopped\", \"gmet\": \"stopped\"},\n    \
            {\"id\": \"i386/c\", \"group\": \"remap\", \"plain\": \"succeeded\", \
            \"npf\": \"stopped\", \"events\": \"failed\", \"gmet\": \"stopped\", \
            \"note\": \"events: it \\\"hung\\\"\"}\n  ]\n";
        assert_eq!(json, format!("{{\n{told}}}\n"));
    }
}
