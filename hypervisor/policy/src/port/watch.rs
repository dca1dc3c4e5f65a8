//! Which ports are watched, told once before the guest starts.

use super::{
    FIRMWARE_CONFIGURATION_DMA, KEYBOARD_COMMAND, KEYBOARD_DATA, PCI_DATA, POWER_MANAGEMENT, Ports,
    RESET_CONTROL, SYSTEM_CONTROL_A, UART_PORTS, VIRTUAL_APIC,
};
use crate::pci;

impl Ports {
    /// `log` is the first port of SecVisor's own UART, `sleep` are the PM1 control registers and
    /// `soft_off` the sleep types of S5 for them (ACPI 4.8.3.2). Port CF8h holds 0.
    pub const fn new(
        log: Option<u16>,
        sleep: [Option<u16>; 2],
        soft_off: Option<[u8; 2]>,
        pci: pci::Guarded,
    ) -> Self {
        let (firmware_byte, output_port_next) = (true, false);
        Self { log, sleep, soft_off, firmware_byte, output_port_next, pci, pci_address: 0 }
    }

    /// Every port whose accesses must exit.
    pub fn watched(&self) -> impl Iterator<Item = u16> + '_ {
        let spans = self.log.into_iter().map(|port| (port, UART_PORTS));
        let spans =
            spans.chain([(FIRMWARE_CONFIGURATION_DMA, 8), (PCI_DATA, 4), (VIRTUAL_APIC, 2)]);
        let sleep = self.sleep.into_iter().flatten().map(|port| (port, 2));
        let fixed = [KEYBOARD_DATA, KEYBOARD_COMMAND, SYSTEM_CONTROL_A, RESET_CONTROL];
        let fixed = fixed.into_iter().chain(POWER_MANAGEMENT).map(|port| (port, 1));
        let all = spans.chain(sleep).chain(fixed);
        all.flat_map(|(port, count)| (0..count).map(move |index| port.wrapping_add(index)))
    }
}
