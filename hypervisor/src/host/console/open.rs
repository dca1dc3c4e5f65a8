//! Opening the serial port, before the guest starts.
#![allow(unsafe_code, reason = "opens the serial port that is denied to the guest")]

use boot::options::LogPort;
use log::LevelFilter;
use uart_16550::{BaudRate, Config, Uart16550Tty};

use super::{CONSOLE, Port};

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
    let open = |first| unsafe { Uart16550Tty::new_port(first, config.clone()) }.ok().map(Port);
    *CONSOLE.0.lock() = first_port(port).and_then(open);
    // Only the first call can succeed, and that is enough.
    let _ = log::set_logger(&CONSOLE);
    log::set_max_level(LevelFilter::Info);
}
