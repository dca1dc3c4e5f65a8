//! What SecVisor and the guest keep, read from outside: compared before and after.

use std::ops::Range;

use super::evidence::Text;
use crate::Result;
use crate::qemu::Running;
use crate::record::ranges;

/// What is to stay as it is.
pub(super) struct Watched {
    /// SecVisor's class of every frame.
    frame_table: Range<u64>,
    /// The frames of the guest's approved code.
    text: Vec<Range<u64>>,
    /// What rows about modules and pinned registers have to leave alone, too.
    more: Option<More>,
}

/// What only rows about modules and pinned registers leave as it was, since others may split large
/// pages and change registers that nobody has pinned.
struct More {
    /// What follows from the frame table for both views. Once a 2 MiB page was split it stays so: the
    /// guest sees to that for the page that modules lie in.
    nested_tables: Range<u64>,
    /// The frames that the guest loads modules into.
    modules: Range<u64>,
}

/// SecVisor's tables as they were.
#[derive(PartialEq, Eq)]
pub(super) struct Tables {
    frames: Vec<u8>,
    nested: Vec<u8>,
}

/// The guest's approved code as it was, by section.
#[derive(PartialEq, Eq)]
pub(super) struct Code(Vec<Vec<u8>>);

/// All of it as it was.
#[derive(PartialEq, Eq)]
pub(super) struct State {
    tables: Tables,
    code: Code,
    modules: Vec<u8>,
    registers: Vec<String>,
}

impl Watched {
    pub(super) fn find(log: &str, console: &str, text: &Text, more: bool) -> Result<Self> {
        let range =
            |text, what| ranges(text, what).next().ok_or_else(|| format!("nobody said {what:?}"));
        let found = || -> Result<_> {
            let nested_tables = range(log, "secvisor: nested tables")?;
            Ok(More { nested_tables, modules: range(console, "guest: modules")? })
        };
        Ok(Self {
            frame_table: range(log, "secvisor: frame table")?,
            text: text.places().collect(),
            more: more.then(found).transpose()?,
        })
    }

    /// All of it now.
    pub(super) fn state(&self, running: &Running) -> Result<State> {
        let (mut modules, mut registers) = (Vec::new(), Vec::new());
        if let Some(more) = &self.more {
            modules = read(running, &more.modules)?;
            registers = self::registers(&running.monitor("info registers")?);
        }
        Ok(State { tables: self.tables(running)?, code: self.code(running)?, modules, registers })
    }

    /// The guest's approved code now.
    pub(super) fn code(&self, running: &Running) -> Result<Code> {
        self.text.iter().map(|range| read(running, range)).collect::<Result<_>>().map(Code)
    }

    /// SecVisor's tables now.
    pub(super) fn tables(&self, running: &Running) -> Result<Tables> {
        let nested = self.more.as_ref().map(|more| read(running, &more.nested_tables));
        let frames = read(running, &self.frame_table)?;
        Ok(Tables { frames, nested: nested.transpose()?.unwrap_or_default() })
    }
}

fn read(running: &Running, range: &Range<u64>) -> Result<Vec<u8>> {
    running.memory(range.start, range.end - range.start)
}

/// The control registers and tables that can be pinned, from the monitor's answer.
fn registers(answer: &str) -> Vec<String> {
    let words = answer.split_whitespace().map(str::to_owned);
    let pinned = |word: &String| ["CR0=", "CR4=", "EFER="].iter().any(|it| word.starts_with(it));
    let table = answer.lines().filter(|line| line.starts_with("IDT=")).map(str::to_owned);
    words.filter(pinned).chain(table).collect()
}

fn first_difference(now: &[u8], then: &[u8]) -> Option<usize> {
    now.iter().zip(then).position(|(now, then)| now != then)
}

impl Tables {
    /// What is not as it was.
    pub(super) fn difference(&self, before: &Self) -> Option<String> {
        if let Some(frame) = first_difference(&self.frames, &before.frames) {
            let (then, now) = (before.frames[frame], self.frames[frame]);
            return Some(format!("frame {frame:#x} was of class {then} and is of class {now}"));
        }
        let at = first_difference(&self.nested, &before.nested)?;
        let (then, now) = (before.nested[at], self.nested[at]);
        Some(format!("byte {at:#x} of the nested tables was {then:#x} and is {now:#x}"))
    }
}

impl Code {
    /// What is not as it was.
    pub(super) fn difference(&self, before: &Self) -> Option<String> {
        let mut sections = self.0.iter().zip(&before.0);
        let at = sections.find_map(|(now, then)| first_difference(now, then))?;
        Some(format!("byte {at:#x} of approved code was changed"))
    }
}

impl State {
    /// What is not as it was.
    pub(super) fn difference(&self, before: &Self) -> Option<String> {
        let modules = || first_difference(&self.modules, &before.modules);
        let registers = || format!("{:?} became {:?}", before.registers, self.registers);
        self.tables
            .difference(&before.tables)
            .or_else(|| self.code.difference(&before.code))
            .or_else(|| {
                modules().map(|at| format!("byte {at:#x} of the modules' frames was changed"))
            })
            .or_else(|| (self.registers != before.registers).then(registers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_registers_are_found() {
        let log = "secvisor: x\r\nsecvisor: frame table 0x1000-0x3000\r\n";
        assert_eq!(ranges(log, "secvisor: frame table").next(), Some(0x1000..0x3000));
        assert_eq!(ranges(log, "secvisor: hidden").next(), None);
        let answer = "IDT=     0000 ffff\nCR0=80010033 CR2=1 CR3=2 CR4=620\nEFER=500";
        assert_eq!(
            registers(answer),
            ["CR0=80010033", "CR4=620", "EFER=500", "IDT=     0000 ffff"]
        );
    }

    #[test]
    fn a_frame_of_another_class_is_a_difference() {
        let tables = |class, entry| Tables { frames: vec![0, class], nested: vec![entry] };
        assert_eq!(tables(1, 7).difference(&tables(1, 7)), None);
        let said = tables(2, 7).difference(&tables(1, 7));
        assert_eq!(said.as_deref(), Some("frame 0x1 was of class 1 and is of class 2"));
        let said = tables(1, 5).difference(&tables(1, 7));
        assert_eq!(said.as_deref(), Some("byte 0x0 of the nested tables was 0x7 and is 0x5"));
    }

    #[test]
    fn changed_code_is_a_difference() {
        let code = |last| Code(vec![vec![1, 2], vec![3, last]]);
        assert_eq!(code(4).difference(&code(4)), None);
        let said = code(5).difference(&code(4));
        assert_eq!(said.as_deref(), Some("byte 0x1 of approved code was changed"));
    }
}
