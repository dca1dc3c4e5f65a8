//! A second processor thrown into code of the attacker's own, by INIT and SIPI.

use super::hardware::call;
use super::{Act, Attack, Plan};
use crate::cpu::{APIC_BASE, rdmsr, wrmsr};
use crate::devices::LAPIC;
use crate::memory::{self, CANARY, MARKER, URW, peek, poke, poke8, poke32};
use crate::trap::{Frame, symbol};

/// Where the second processor would start, and the mark it would leave.
pub const START: u64 = 0x8000;
pub const LOW_WITNESS: u64 = 0x9000;

const INIT: u64 = 0x4500;
const SIPI: u64 = 0x4600 | START >> 12;
pub const OTHERS: u64 = 0xC_0000;
pub const ICR: u64 = LAPIC + 0x300;
const X2APIC_ICR: u32 = 0x830;

/// Real-mode code that stores the marker, then halts.
pub fn plant(place: u64) {
    let [low, high] = [MARKER as u32, (MARKER >> 32) as u32].map(u32::to_le_bytes);
    let store =
        |at: u8, word: [u8; 4]| [0x66, 0xC7, 0x06, at, 0x90, word[0], word[1], word[2], word[3]];
    let parts: [&[u8]; 4] =
        [&[0xFA, 0x31, 0xC0, 0x8E, 0xD8], &store(0, low), &store(4, high), &[0xF4, 0xEB, 0xFD]];
    for (at, byte) in parts.into_iter().flatten().enumerate() {
        poke8(place + at as u64, *byte);
    }
}

pub fn wait() {
    for _ in 0..2_000_000 {
        core::hint::spin_loop();
    }
}

/// INIT, then SIPI twice, through `send`.
pub fn start(send: impl Fn(u64)) {
    raise(send);
    // A busy host may let the other processor wait.
    (0..100).take_while(|_| peek(LOW_WITNESS) == CANARY).for_each(|_| wait());
}

pub fn raise(send: impl Fn(u64)) {
    for command in [INIT, SIPI, SIPI] {
        send(command);
        wait();
    }
}

extern "C" fn broadcast(_: u64) {
    start(|command| poke32(ICR, (OTHERS | command) as u32));
}

/// A command to the processor with APIC ID 1.
pub fn send_directed(command: u64) {
    poke32(ICR + 0x10, 1 << 24);
    poke32(ICR, command as u32);
}

extern "C" fn directed(_: u64) {
    start(send_directed);
}

extern "C" fn x2apic(destination: u64) {
    let base = rdmsr(APIC_BASE);
    wrmsr(APIC_BASE, base | 0xC00);
    start(|command| wrmsr(X2APIC_ICR, destination | command));
}

/// The attacker's code where a processor would start, and a witness without its mark.
pub fn planted() -> u64 {
    plant(START);
    poke(LOW_WITNESS, CANARY);
    START
}

fn plan(function: extern "C" fn(u64), argument: u64) -> Plan {
    Plan { witness: LOW_WITNESS, ..call(planted(), function, argument) }
}

/// The rows. The last two leave the local APIC in x2APIC mode.
pub const ROWS: &[Attack] = &[
    Attack { name: "init-broadcast", plan: |_| plan(broadcast, 0) },
    Attack { name: "init-directed", plan: |_| plan(directed, 0) },
    Attack {
        name: "init-user",
        plan: |_| {
            planted();
            let di = memory::map(0, LAPIC, URW) + 0x300;
            let ax = OTHERS | INIT;
            let dx = OTHERS | SIPI;
            let frame = Frame { di, ax, dx, ..Frame::user(symbol!(u_start_others)) };
            Plan { witness: LOW_WITNESS, act: Act::User(frame), ..Plan::user(START, 0) }
        },
    },
    Attack { name: "init-x2apic-broadcast", plan: |_| plan(x2apic, OTHERS) },
    Attack { name: "init-x2apic-directed", plan: |_| plan(x2apic, 1 << 32) },
];
