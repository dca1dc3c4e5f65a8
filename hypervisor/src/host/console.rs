//! The log on a serial port, and refusals on the screen as well.
#![allow(unsafe_code, reason = "a panic takes the log from whoever holds it")]

use core::fmt::{self, Write};

use log::{Log, Metadata, Record};
use spin::Mutex;
use uart_16550::Uart16550Tty;
use uart_16550::backend::PioBackend;

mod open;

pub use open::{first_port, open};

/// How often a port is asked whether it takes a byte: more than 0.1 s.
const PATIENCE: u32 = 100_000;

struct Port(Uart16550Tty<PioBackend>);

impl Write for Port {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let port = self.0.inner_mut();
        let mut send = |byte| (0..PATIENCE).any(|_| port.try_send_byte(byte).is_ok());
        if text.bytes().all(&mut send) { Ok(()) } else { Err(fmt::Error) }
    }
}

struct Console(Mutex<Option<Port>>);

static CONSOLE: Console = Console(Mutex::new(None));

impl Log for Console {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        if let Some(port) = self.0.lock().as_mut() {
            // A port that does not answer loses its line, and nothing else: the guest may have laid a
            // device's ports over it.
            let _ = write!(port, "{}\r\n", record.args());
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
