//! What SecVisor and the guest keep, read from outside: compared before and after.

use std::ops::Range;

use crate::Result;
use crate::qemu::Running;
use crate::record::number;

/// What is to stay as it is.
#[derive(Clone, Default)]
pub(super) struct Watched {
    /// SecVisor's class of every frame.
    frame_table: Range<u64>,
    /// The frames that the guest loads modules into.
    modules: Range<u64>,
}

/// What it was.
#[derive(PartialEq, Eq)]
pub(super) struct State {
    frame_table: Vec<u8>,
    modules: Vec<u8>,
    registers: Vec<String>,
}

/// The range that a line names, such as `secvisor: frame table 0x1000-0x2000`.
pub(super) fn range(text: &str, what: &str) -> Option<Range<u64>> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix(what)?.strip_prefix(' '))?;
    let (start, end) = line.split_once('-')?;
    Some(number(start)?..number(end)?)
}

impl Watched {
    pub(super) fn find(log: &str, console: &str) -> Result<Self> {
        let range = |text, what| range(text, what).ok_or_else(|| format!("nobody said {what:?}"));
        Ok(Self {
            frame_table: range(log, "secvisor: frame table")?,
            modules: range(console, "guest: modules")?,
        })
    }

    /// All of it now.
    pub(super) fn state(&self, running: &Running) -> Result<State> {
        let read = |range: &Range<u64>| running.memory(range.start, range.end - range.start);
        Ok(State {
            frame_table: self.frame_table(running)?,
            modules: read(&self.modules)?,
            registers: registers(&running.monitor("info registers")?),
        })
    }

    /// The frame table now.
    pub(super) fn frame_table(&self, running: &Running) -> Result<Vec<u8>> {
        running.memory(self.frame_table.start, self.frame_table.end - self.frame_table.start)
    }
}

/// The control registers and tables that can be pinned, from the monitor's answer.
fn registers(answer: &str) -> Vec<String> {
    let words = answer.split_whitespace().map(str::to_owned);
    let pinned = |word: &String| ["CR0=", "CR4=", "EFER="].iter().any(|it| word.starts_with(it));
    let table = answer.lines().filter(|line| line.starts_with("IDT=")).map(str::to_owned);
    words.filter(pinned).chain(table).collect()
}

impl State {
    /// What is not as it was.
    pub(super) fn difference(&self, before: &Self) -> Option<String> {
        let first = |now: &[u8], then: &[u8]| now.iter().zip(then).position(|(a, b)| a != b);
        if let Some(frame) = first(&self.frame_table, &before.frame_table) {
            let (then, now) = (before.frame_table[frame], self.frame_table[frame]);
            return Some(format!("frame {frame:#x} was of class {then} and is of class {now}"));
        }
        if let Some(at) = first(&self.modules, &before.modules) {
            return Some(format!("byte {at:#x} of the modules' frames was changed"));
        }
        (self != before).then(|| format!("{:?} became {:?}", before.registers, self.registers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_registers_are_found() {
        let log = "secvisor: x\r\nsecvisor: frame table 0x1000-0x3000\r\n";
        assert_eq!(range(log, "secvisor: frame table"), Some(0x1000..0x3000));
        assert_eq!(range(log, "secvisor: hidden"), None);
        let answer = "IDT=     0000 ffff\nCR0=80010033 CR2=1 CR3=2 CR4=620\nEFER=500";
        assert_eq!(
            registers(answer),
            ["CR0=80010033", "CR4=620", "EFER=500", "IDT=     0000 ffff"]
        );
    }

    #[test]
    fn a_frame_of_another_class_is_a_difference() {
        let state =
            |class| State { frame_table: vec![0, class], modules: vec![], registers: vec![] };
        assert_eq!(state(1).difference(&state(1)), None);
        let said = state(2).difference(&state(1));
        assert_eq!(said.as_deref(), Some("frame 0x1 was of class 1 and is of class 2"));
    }
}
