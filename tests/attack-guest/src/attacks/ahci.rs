//! A message of a PCI device's: Q35's disk controller ends a command, and says so by MSI.

use crate::devices::pci_write;
use crate::memory::{HEAP, PAGE, clear, poke32};

/// Device 1Fh, function 2; its registers where nothing else is, its MSI capability.
const CONTROLLER: u32 = 0x1F << 3 | 2;
const REGISTERS: u64 = 0xE000_0000;
const MSI: u32 = 0x80;
/// The port of the CD that the machine booted from.
const PORT: u64 = REGISTERS + 0x100 + 2 * 0x80;
/// The command's list, table and answer.
const LIST: u64 = HEAP + 0x4000;
const TABLE: u64 = LIST + 0x400;
const ANSWER: u64 = LIST + 0x800;

/// Lets the controller send `value` to `address`, by a command that fails.
pub fn send(address: u64, value: u32) {
    /// IDENTIFY DEVICE, which no CD drive has: it ends at once.
    const IDENTIFY: u32 = 0xEC;
    let configuration = [
        (0x24, REGISTERS as u32),
        (4, 6),
        (MSI + 4, address as u32),
        (MSI + 8, 0),
        (MSI + 0xC, value),
        (MSI, 1 << 16),
    ];
    configuration.into_iter().for_each(|(register, value)| pci_write(CONTROLLER, register, value));
    clear(LIST, PAGE);
    poke32(LIST, 5);
    poke32(LIST + 8, TABLE as u32);
    poke32(TABLE, IDENTIFY << 16 | 0x8027);
    let start = [
        (REGISTERS + 4, 1 << 31 | 2), // on, with interrupts
        (PORT + 0x18, 0),
        (PORT, LIST as u32),
        (PORT + 4, 0),
        (PORT + 8, ANSWER as u32),
        (PORT + 0xC, 0),
        (PORT + 0x10, u32::MAX),
        (PORT + 0x14, 1 << 30 | 1),
        (PORT + 0x18, 0x11),
        (PORT + 0x38, 1),
    ];
    start.into_iter().for_each(|(register, value)| poke32(register, value));
}
