//! I/O ports that can reset a processor, move memory, enter a sleep state or forge the log.

use crate::pci;
use crate::violation::Kind;

mod watch;

/// An access to a port, as the processor reports it (APM vol. 2, 15.10.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// First port.
    pub port: u16,
    /// Bytes: 1, 2 or 4.
    pub size: u8,
    /// INS or OUTS.
    pub string: bool,
    /// The value that OUT writes; `None` for IN.
    pub write: Option<u32>,
}

/// What follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Perform it; a write with this value.
    Pass(u32),
    /// As if nothing were there: writes vanish, reads give all ones.
    Absent,
    /// The address for PCI configuration is kept as this, and told as this to who reads it. It never
    /// reaches the hardware alone: there, the guest could have laid a device's ports over it.
    Address(u32),
    /// Perform it, a write with this value, between telling the hardware the address and 0.
    Configuration {
        /// The address.
        address: u32,
        /// The value.
        value: u32,
    },
    /// The guest wants the machine reset: reset all of it, SecVisor included.
    Reset,
    /// Not allowed.
    Violation(Kind),
}

/// Ports that SecVisor watches, and what it remembers of what was written to them.
#[derive(Clone, Debug)]
pub struct Ports {
    log: Option<u16>,
    sleep: [Option<u16>; 2],
    soft_off: Option<[u8; 2]>,
    /// Firmware may have left the keyboard controller waiting for its output port.
    firmware_byte: bool,
    /// The guest's next data byte is for the output port, which it does not reach.
    output_port_next: bool,
    pci: pci::Guarded,
    pci_address: u32,
}

const KEYBOARD_DATA: u16 = 0x60;
const KEYBOARD_COMMAND: u16 = 0x64;
const SYSTEM_CONTROL_A: u16 = 0x92;
const RESET_CONTROL: u16 = 0xCF9;
/// Address of PCI configuration.
pub const PCI_ADDRESS: u16 = 0xCF8;
const PCI_DATA: u16 = 0xCFC;
/// QEMU's firmware configuration can write anywhere in memory, from here.
const FIRMWARE_CONFIGURATION_DMA: u16 = 0x514;
/// QEMU's paravirtual APIC takes from here where its state lies, which says what it writes to.
const VIRTUAL_APIC: u16 = 0x7E;
/// Index and data of the FCH's power management registers, which can move PM1_CNT.
const POWER_MANAGEMENT: [u16; 2] = [0xCD6, 0xCD7];
const UART_PORTS: u16 = 8;
/// A20 gate and reset line (active low) of the keyboard controller's output port.
const OUTPUT_PORT_KEEP: u32 = 3;
const SLEEP_ENABLE: u32 = 1 << 13;

impl Ports {
    /// Judges an access that touches a watched port.
    pub fn judge(&mut self, access: &Access) -> Verdict {
        let touches = |port: u16| port.wrapping_sub(access.port) < u16::from(access.size);
        let touches_span =
            |first: u16, count| (0..count).any(|index| touches(first.wrapping_add(index)));
        if self.log.is_some_and(|log| touches_span(log, UART_PORTS))
            || touches_span(FIRMWARE_CONFIGURATION_DMA, 8)
            || touches_span(VIRTUAL_APIC, 2)
        {
            return Verdict::Absent;
        }
        if access.port == PCI_ADDRESS && access.size == 4 && !access.string {
            self.pci_address = access.write.unwrap_or(self.pci_address);
            return Verdict::Address(self.pci_address);
        }
        if touches_span(PCI_DATA, 4) {
            let (address, size) = (self.pci_address, access.size);
            let lane = access.port.wrapping_sub(PCI_DATA);
            let inside = lane.saturating_add(size.into()) <= 4;
            let allowed = access.write.is_none() || self.pci.write_allowed(address, lane, size);
            return if inside && allowed && !access.string {
                Verdict::Configuration { address, value: access.write.unwrap_or(0) }
            } else {
                Verdict::Violation(Kind::Port)
            };
        }
        let Some(value) = access.write else { return Verdict::Pass(0) };
        for (index, sleep) in self.sleep.into_iter().enumerate() {
            let Some(sleep) = sleep else { continue };
            if touches(sleep) || touches(sleep.wrapping_add(1)) {
                let offset = u32::from(access.port.wrapping_sub(sleep)).wrapping_mul(8);
                let soft_off = self.soft_off.and_then(|types| types.get(index).copied());
                return match value.checked_shl(offset) {
                    Some(value) if !access.string => judge_sleep(value, access.write, soft_off),
                    _ => Verdict::Violation(Kind::Sleep),
                };
            }
        }
        if POWER_MANAGEMENT.into_iter().any(touches) {
            return Verdict::Violation(Kind::Sleep);
        }
        if access.size != 1 || access.string {
            return Verdict::Violation(Kind::Port);
        }
        match (access.port, value & 0xFF) {
            // Neither command nor data reach the controller: it would wait for the data, which a
            // device's ports, laid over these, could keep from it until nobody watches.
            (KEYBOARD_COMMAND, 0xD1) => {
                self.output_port_next = true;
                Verdict::Absent
            }
            (KEYBOARD_DATA, _) if core::mem::take(&mut self.output_port_next) => Verdict::Absent,
            (KEYBOARD_DATA, value) => {
                let firmware_byte = core::mem::take(&mut self.firmware_byte);
                Verdict::Pass(if firmware_byte { value | OUTPUT_PORT_KEEP } else { value })
            }
            // Pulse output lines: bit 0 is the reset line; A20 and the rest are not the guest's.
            (KEYBOARD_COMMAND, command @ 0xF0..=0xFF) if command & 1 == 0 => Verdict::Reset,
            (KEYBOARD_COMMAND, 0xF0..=0xFF | 0xDD | 0xDF) => Verdict::Absent,
            (SYSTEM_CONTROL_A, value) if value & 1 != 0 => Verdict::Reset,
            (SYSTEM_CONTROL_A, value) => Verdict::Pass(value | 2),
            (RESET_CONTROL, value) if value & 4 != 0 => Verdict::Reset,
            (_, value) => Verdict::Pass(value),
        }
    }
}

fn judge_sleep(value: u32, written: Option<u32>, soft_off: Option<u8>) -> Verdict {
    let sleep_type = (value >> 10) & 7;
    if value & SLEEP_ENABLE != 0 && soft_off.map(u32::from) != Some(sleep_type) {
        return Verdict::Violation(Kind::Sleep);
    }
    Verdict::Pass(written.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(log: Option<u16>, sleep: [Option<u16>; 2], soft_off: Option<[u8; 2]>) -> Ports {
        Ports::new(log, sleep, soft_off, pci::Guarded::find(|_| (0x8086, 0x0600)))
    }

    fn ports() -> Ports {
        new(Some(0x2F8), [Some(0x604), None], Some([0, 0]))
    }

    fn out(ports: &mut Ports, port: u16, size: u8, value: u32) -> Verdict {
        ports.judge(&Access { port, size, string: false, write: Some(value) })
    }

    #[test]
    fn the_log_cannot_be_forged() {
        let mut ports = ports();
        for (port, size) in [(0x2F8, 1), (0x2FF, 1), (0x2F7, 2), (0x2F5, 4)] {
            assert_eq!(out(&mut ports, port, size, 0x41), Verdict::Absent);
            let read = Access { port, size, string: true, write: None };
            assert_eq!(ports.judge(&read), Verdict::Absent);
        }
        for beside in [0x2F7, 0x300] {
            assert_eq!(out(&mut ports, beside, 1, 0x41), Verdict::Pass(0x41), "{beside:#x}");
        }
    }

    #[test]
    fn sleep_is_refused_but_for_soft_off() {
        let mut off_only = new(None, [Some(0x604), None], Some([5, 0]));
        assert_eq!(
            out(&mut off_only, 0x604, 2, 5 << 10 | 1 << 13),
            Verdict::Pass(5 << 10 | 1 << 13)
        );
        let mut unknown = new(None, [Some(0x604), None], None);
        for ports in [&mut off_only, &mut unknown] {
            assert_eq!(out(ports, 0x604, 2, 1 << 10 | 1 << 13), Verdict::Violation(Kind::Sleep));
            assert_eq!(out(ports, 0x604, 4, 1 << 10 | 1 << 13), Verdict::Violation(Kind::Sleep));
            assert_eq!(out(ports, 0x605, 1, 1 << 2 | 1 << 5), Verdict::Violation(Kind::Sleep));
            assert_eq!(out(ports, 0x603, 2, 0x2000), Verdict::Violation(Kind::Sleep));
            assert_eq!(out(ports, 0x602, 4, 0x2400_0000), Verdict::Violation(Kind::Sleep));
            assert_eq!(out(ports, 0x604, 2, 1), Verdict::Pass(1));
            let string = Access { port: 0x604, size: 2, string: true, write: Some(0) };
            assert_eq!(ports.judge(&string), Verdict::Violation(Kind::Sleep));
        }
        assert_eq!(out(&mut off_only, 0xCD6, 1, 0x60), Verdict::Violation(Kind::Sleep));
        assert_eq!(out(&mut off_only, 0xCD5, 4, 0), Verdict::Violation(Kind::Sleep));
    }

    #[test]
    fn a20_stays_open() {
        let mut ports = ports();
        assert_eq!(out(&mut ports.clone(), 0x60, 1, 0xD2), Verdict::Pass(0xD3));
        assert_eq!(out(&mut ports, 0x92, 1, 0), Verdict::Pass(2));
        assert_eq!(out(&mut ports, 0x92, 1, 2), Verdict::Pass(2));
        assert_eq!(out(&mut ports, 0x60, 1, 0), Verdict::Pass(3), "left waiting by the firmware");
        assert_eq!(out(&mut ports, 0x64, 1, 0xD1), Verdict::Absent);
        assert_eq!(out(&mut ports, 0x60, 1, 0xDD), Verdict::Absent);
        assert_eq!(out(&mut ports, 0x60, 1, 0xDD), Verdict::Pass(0xDD));
        for command in [0xDD, 0xDF, 0xFD, 0xF1] {
            assert_eq!(out(&mut ports, 0x64, 1, command), Verdict::Absent);
        }
        assert_eq!(out(&mut ports, 0x91, 2, 0), Verdict::Violation(Kind::Port));
        let string = Access { port: 0x92, size: 1, string: true, write: Some(0) };
        assert_eq!(ports.judge(&string), Verdict::Violation(Kind::Port));
    }

    #[test]
    fn nothing_in_between_makes_the_output_port_forgotten() {
        for (port, value) in [(0x64, 0xFF), (0x64, 0xAE), (0x92, 0), (0xCF9, 0)] {
            let mut ports = ports();
            out(&mut ports, 0x60, 1, 0);
            out(&mut ports, 0x64, 1, 0xD1);
            out(&mut ports, port, 1, value);
            assert_eq!(out(&mut ports, 0x60, 1, 0xDC), Verdict::Absent, "{port:#x}");
        }
    }

    #[test]
    fn memory_routing_stays() {
        let mut ports = ports();
        assert_eq!(out(&mut ports, 0xCF8, 4, 0x8000_0060), Verdict::Address(0x8000_0060));
        let read = |port, size| Access { port, size, string: false, write: None };
        assert_eq!(ports.judge(&read(0xCF8, 4)), Verdict::Address(0x8000_0060));
        let (address, value) = (0x8000_0060, 0);
        assert_eq!(ports.judge(&read(0xCFE, 2)), Verdict::Configuration { address, value });
        assert_eq!(ports.judge(&read(0xCFB, 2)), Verdict::Violation(Kind::Port));
        for (port, size) in [(0xCFC, 4), (0xCFD, 1), (0xCFE, 2), (0xCFB, 2), (0xCFF, 2)] {
            assert_eq!(out(&mut ports, port, size, 1), Verdict::Violation(Kind::Port));
        }
        out(&mut ports, 0xCF8, 4, 0x8000_0010);
        let (address, value) = (0x8000_0010, 5);
        assert_eq!(out(&mut ports, 0xCFC, 4, 5), Verdict::Configuration { address, value });
        let string = Access { port: 0xCFC, size: 4, string: true, write: Some(5) };
        assert_eq!(ports.judge(&string), Verdict::Violation(Kind::Port));
        assert_eq!(out(&mut ports, 0x518, 4, 5), Verdict::Absent);
        assert_eq!(out(&mut ports, 0x7E, 2, 5), Verdict::Absent);
    }

    #[test]
    fn resets_become_full_resets() {
        let mut ports = ports();
        for (port, value) in
            [(0x64, 0xFE), (0x64, 0xF0), (0x92, 1), (0x92, 3), (0xCF9, 4), (0xCF9, 0xE)]
        {
            assert_eq!(out(&mut ports, port, 1, value), Verdict::Reset, "{port:#x} {value:#x}");
        }
        assert_eq!(out(&mut ports, 0xCF9, 1, 2), Verdict::Pass(2));
        assert_eq!(out(&mut ports, 0xCF8, 4, 0x8000_F800), Verdict::Address(0x8000_F800));
        assert_eq!(out(&mut ports, 0xCF8, 2, 0x0400), Verdict::Violation(Kind::Port));
    }

    #[test]
    fn every_watched_port_is_listed() {
        let watched: Vec<u16> = ports().watched().collect();
        for port in [0x2F8, 0x2FF, 0x604, 0x605, 0x7E, 0x7F, 0x60, 0x64, 0x92, 0xCF9, 0xCD6, 0xCD7]
        {
            assert!(watched.contains(&port), "{port:#x}");
        }
        assert_eq!(watched.len(), 30);
    }
}
