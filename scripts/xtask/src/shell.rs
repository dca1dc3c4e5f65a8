//! The guest's shell, spoken to by a test.

use std::time::Duration;

use harness::Result;
use harness::qemu::Running;

use crate::run::SHELL;

/// A guest that waits for commands.
pub struct Shell {
    running: Running,
    commands: u32,
    read: usize,
}

impl Shell {
    /// Waits for the shell, and makes the kernel keep its remarks for `dmesg`.
    pub fn new(mut running: Running) -> Result<Self> {
        running.wait_for(SHELL)?;
        let mut shell = Self { running, commands: 0, read: 0 };
        shell.run("dmesg -n 1")?;
        Ok(shell)
    }

    /// The machine.
    pub fn machine(&self) -> &Running {
        &self.running
    }

    /// The machine, with nobody at its shell any more.
    pub fn into_machine(self) -> Running {
        self.running
    }

    /// Types a command, waits for its end, and gives what was printed meanwhile.
    pub fn run(&mut self, command: &str) -> Result<String> {
        self.commands += 1;
        let number = 5000 + self.commands;
        let line = format!("{command}; echo end-$(({number}+5000))\n");
        // The guest's serial port holds 16 bytes, and its shell echoes them as they come.
        for piece in line.as_bytes().chunks(8) {
            self.running.send(&String::from_utf8_lossy(piece))?;
            std::thread::sleep(Duration::from_millis(2));
        }
        let end = format!("end-{}", number + 5000);
        self.running.wait_for(&end)?;
        let text = self.running.console.text();
        let new = text.get(self.read..).unwrap_or_default().to_owned();
        self.read = text.find(&end).map_or(text.len(), |at| at + end.len());
        Ok(new)
    }

    /// As [`Shell::run`], failing unless `wanted` is among what is printed.
    pub fn expect(&mut self, command: &str, wanted: &str) -> Result<String> {
        let answer = self.run(command)?;
        if answer.contains(wanted) {
            Ok(answer)
        } else {
            Err(format!("{command:?} should print {wanted:?}, printed {answer:?}").into())
        }
    }

    /// Ends the machine.
    pub fn end(mut self) -> Result<Running> {
        self.running.send("exit-qemu 0x10\n")?;
        self.running.wait_done()?;
        Ok(self.running)
    }
}
