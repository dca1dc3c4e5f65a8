//! The matrix in writing: for people, for the README, for programs.

use std::fmt::Write;

use harness::attack::{Column, FIRST_ON_BOCHS_WHY, Group};

use super::{Matrix, Second};

type Cells<T> = [T; Column::ALL.len()];

impl Matrix {
    /// The matrix for people: a line for every attack, then the sums.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let width = self.lines.iter().map(|line| line.id.len()).max().unwrap_or(0);
        let mut row = |id: &str, group: &str, cells: Cells<&str>, note: &str| {
            let cells = cells.map(|cell| format!("{cell:<9}")).join("  ");
            let line = format!("{id:<width$}  {group:<15}  {cells}  {note}");
            let _ = writeln!(text, "{}", line.trim_end());
        };
        row("attack", "group", Column::ALL.map(Column::name), "note");
        for line in &self.lines {
            let cells = Column::ALL.map(|column| line.outcome(column).name());
            row(&line.id, line.group, cells, &line.note().unwrap_or_default());
        }
        let _ = writeln!(text, "\nattempted / stopped / succeeded");
        for (name, group) in self.groups() {
            let sums = Column::ALL.map(|column| {
                let sum = self.sum(group, column);
                let sum = format!("{} / {} / {}", sum.attempted(), sum.stopped, sum.succeeded);
                format!("{sum:<15}")
            });
            let _ = writeln!(text, "{}", format!("{name:<15}  {}", sums.join("  ")).trim_end());
        }
        text + &self.second_text()
    }

    /// What the second emulator showed, and what was not run there.
    fn second_text(&self) -> String {
        if self.second.is_empty() {
            return String::new();
        }
        let sum = |count: fn(&Second) -> usize| self.second.iter().map(count).sum::<usize>();
        let mut text = format!(
            "\non Bochs {} rows came out the same, {} of them without a record ({FIRST_ON_BOCHS_WHY}), \
             {} otherwise\n",
            sum(|second| second.same),
            sum(|second| second.unrecorded),
            sum(|second| second.otherwise.len())
        );
        for row in self.second.iter().flat_map(|second| &second.otherwise) {
            let _ = writeln!(text, "otherwise: {row}");
        }
        let left_out = self.second.iter().flat_map(|second| &second.left_out);
        let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
        for (id, why) in left_out {
            match reasons.iter_mut().find(|(reason, _)| reason == why) {
                Some((_, ids)) => ids.push(id),
                None => reasons.push((why, vec![id])),
            }
        }
        for (why, ids) in reasons {
            let _ = writeln!(text, "not run on Bochs, {why}: {}", ids.join(" "));
        }
        text
    }

    /// Names of the groups that have rows, and in the end the sum of all.
    fn groups(&self) -> impl Iterator<Item = (&'static str, Option<&'static str>)> {
        let has = |group: &&str| self.lines.iter().any(|line| line.group == *group);
        let groups: Vec<_> = Group::ALL.map(Group::name).into_iter().filter(has).collect();
        groups.into_iter().map(|name| (name, Some(name))).chain([("all", None)])
    }

    /// The README's summary.
    pub fn markdown(&self) -> String {
        let mut text = String::from(
            "| stopped / attempted | plain | `npf` | `events` | GMET* |\n|---|---:|---:|---:|---:|\n",
        );
        for (name, group) in self.groups() {
            let sums = Column::ALL.map(|column| {
                let sum = self.sum(group, column);
                format!("{} / {}", sum.stopped, sum.attempted())
            });
            let _ = writeln!(text, "| {name} | {} |", sums.join(" | "));
        }
        text + "\n\\* on a QEMU patched by this project\n"
    }

    /// The matrix for programs.
    pub fn json(&self) -> String {
        let columns = Column::ALL.map(|column| {
            let sum = self.sum(None, column);
            format!(
                "    \"{}\": {{\"attempted\": {}, \"stopped\": {}, \"succeeded\": {}}}",
                column.name(),
                sum.attempted(),
                sum.stopped,
                sum.succeeded
            )
        });
        let rows = self.lines.iter().map(|line| {
            let mut fields = vec![("id", line.id.clone()), ("group", line.group.into())];
            fields.extend(
                Column::ALL.map(|column| (column.name(), line.outcome(column).name().into())),
            );
            fields.extend(line.note().map(|note| ("note", note)));
            let fields: Vec<_> = fields
                .iter()
                .map(|(name, value)| format!("\"{name}\": {}", quoted(value)))
                .collect();
            format!("    {{{}}}", fields.join(", "))
        });
        format!(
            "{{\n  \"columns\": {{\n{}\n  }},\n  \"rows\": [\n{}\n  ]\n}}\n",
            columns.join(",\n"),
            rows.collect::<Vec<_>>().join(",\n")
        )
    }
}

/// A JSON string.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            control if control.is_control() => {
                let _ = write!(quoted, "\\u{:04x}", control as u32);
            }
            other => quoted.push(other),
        }
    }
    quoted + "\""
}
