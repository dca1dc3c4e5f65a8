//! The console on COM1, polled.

use core::fmt::{self, Write};

use crate::cpu::{inb, outb};

const PORT: u16 = 0x3F8;

/// Eight bits, no parity, one stop bit, at 115200 baud; no interrupts.
pub fn start() {
    for (register, value) in [(1, 0), (3, 0x80), (0, 1), (1, 0), (3, 3), (4, 3)] {
        outb(PORT + register, value);
    }
}

/// COM1.
pub struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            while inb(PORT + 5) & 0x20 == 0 {}
            outb(PORT, byte);
        }
        Ok(())
    }
}

/// Waits until the last byte is out.
pub fn drain() {
    while inb(PORT + 5) & 0x40 == 0 {}
}

/// Waits for a byte.
pub fn read_byte() -> u8 {
    while inb(PORT + 5) & 1 == 0 {}
    inb(PORT)
}

/// Writes one line.
#[macro_export]
macro_rules! say {
    ($($argument:tt)*) => {{
        use core::fmt::Write;
        // COM1 takes everything: there is no error to handle.
        let _ = writeln!($crate::console::Console, $($argument)*);
    }};
}
