//! The log on a serial port, and refusals on the screen as well.
#![allow(unsafe_code, reason = "opens the serial port that is denied to the guest")]

use core::fmt::Write;

use boot::options::LogPort;
use log::{LevelFilter, Log, Metadata, Record};
use spin::Mutex;
use uart_16550::backend::PioBackend;
use uart_16550::{BaudRate, Config, Uart16550Tty};

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

/// First port of the UART, for those that have one.
pub fn first_port(port: LogPort) -> Option<u16> {
    match port {
        LogPort::None => None,
        LogPort::Com1 => Some(0x3F8),
        LogPort::Com2 => Some(0x2F8),
    }
}

/// Sends the log to `port` from now on.
pub fn open(port: LogPort) {
    // A record is written while the guest waits: at 115,200 baud that is some 20 ms.
    let config = Config { baud_rate: BaudRate::Baud115200, ..Config::default() };
    // SAFETY: the port is a PC's standard UART; SecVisor alone uses it, the guest is denied it.
    let open = |first| unsafe { Uart16550Tty::new_port(first, config.clone()) }.ok();
    *CONSOLE.0.lock() = first_port(port).and_then(open);
    // Only the first call can succeed, and that is enough.
    let _ = log::set_logger(&CONSOLE);
    log::set_max_level(LevelFilter::Info);
}

/// Frees the log from a lock that the panicking code may hold.
///
/// # Safety
/// Only when nothing else runs any more.
pub unsafe fn force_unlock() {
    // SAFETY: by the caller's promise.
    unsafe { CONSOLE.0.force_unlock() };
}
