//! The log on a serial port, and refusals on the screen as well.
#![allow(unsafe_code, reason = "a panic takes the log from whoever holds it")]

use core::fmt::Write;

use log::{Log, Metadata, Record};
use spin::Mutex;
use uart_16550::Uart16550Tty;
use uart_16550::backend::PioBackend;

mod open;

pub use open::{first_port, open};

struct Console(Mutex<Option<Uart16550Tty<PioBackend>>>);

static CONSOLE: Console = Console(Mutex::new(None));

impl Log for Console {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        if let Some(port) = self.0.lock().as_mut() {
            // A port that does not answer loses its line, and nothing else.
            let _ = writeln!(port, "{}", record.args());
        }
    }

    fn flush(&self) {}
}

/// Frees the log from a lock that the panicking code may hold.
///
/// # Safety
/// Only when nothing else runs any more.
pub unsafe fn force_unlock() {
    // SAFETY: by the caller's promise.
    unsafe { CONSOLE.0.force_unlock() };
}
