//! Attacks that end the machine, or the guest: each in a run of its own.

use super::entry::aimed_gate;
use super::hardware::{call, keyboard};
use super::{Attack, Plan};
use crate::cpu::under_secvisor;
use crate::cpu::{inb, outb, outw};
use crate::devices;
use crate::memory::{PAGE, copy};
use crate::trap::{KERNEL_CS, symbol};

/// The Q35's PM1a control port, and "sleep now, type S3".
const PM1_CONTROL: u16 = 0x604;
const SLEEP_S3: u16 = 1 << 13 | 1 << 10;

/// An I/O APIC entry: delivery mode INIT.
const AS_INIT: u32 = 0x500;

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

/// The rows.
pub const ROWS: &[Attack] = &[
    Attack { name: "reset-port-92", plan: |_| call(0x92, reset_92, 0) },
    Attack { name: "reset-keyboard", plan: |_| call(0x64, reset_keyboard, 0) },
    Attack { name: "sleep-s3", plan: |_| call(PM1_CONTROL.into(), sleep, 0) },
    Attack { name: "init-io-apic", plan: |_| call(devices::IO_APIC, init_by_io_apic, 0) },
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
                copy(symbol!(pml4), target, PAGE);
            }
            Plan::call(target, symbol!(load_cr3_and_mark), target)
        },
    },
];
