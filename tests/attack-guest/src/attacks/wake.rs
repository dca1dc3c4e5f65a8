//! Parked processors, overwritten and woken; INIT and SMI by other instructions and registers than
//! the plain ones.

use core::arch::asm;

use super::fatal::AS_INIT;
use super::hardware::{call, mark};
use super::processors::{
    ICR, LOW_WITNESS, OTHERS, START, plant, planted, raise, send_directed, start, wait,
};
use super::routing::send_by_hpet;
use super::{Attack, Plan, ahci};
use crate::boot::Options;
use crate::cpu::{APIC_BASE, rdmsr, under_secvisor, wrmsr};
use crate::devices::{HPET, LAPIC};
use crate::memory::{CANARY, peek, peek32, poke32};

/// Real mode's vector of NMI, and a handler for it.
const NMI_VECTOR: u64 = 2 * 4;
const NMI_HANDLER: u64 = START + 0x100;
const AS_NMI: u64 = 0x4400;
const AS_SMI: u32 = 0x200;
const MODE: u32 = 0x700;
const MASKED: u32 = 1 << 16;
/// The local vector of performance counters, in both modes of the local APIC.
const COUNTERS: u64 = LAPIC + 0x340;
const X2APIC_COUNTERS: u32 = 0x834;

/// Where the other processor is parked: SecVisor's memory, or without it a loop of the guest's own.
fn parked(options: &Options) -> u64 {
    planted();
    if under_secvisor() {
        return options.hidden;
    }
    poke32(START, u32::from_le_bytes([0xFA, 0xF4, 0xEB, 0xFD])); // cli; 1: hlt; jmp 1b
    poke32(NMI_HANDLER, 0xCF); // iret
    poke32(NMI_VECTOR, NMI_HANDLER as u32);
    raise(send_directed);
    START
}

/// Code behind the loop's HLT.
extern "C" fn overwrite(place: u64) {
    plant(place + 2);
}

extern "C" fn wake(_: u64) {
    send_directed(AS_NMI);
    (0..4).take_while(|_| peek(LOW_WITNESS) == CANARY).for_each(|_| wait());
}

extern "C" fn exchange(_: u64) {
    start(|command| {
        let command = (OTHERS | command) as u32;
        // SAFETY: a store to the local APIC, which is the experiment.
        unsafe { asm!("xchg [{}], {:e}", in(reg) ICR as usize, inout(reg) command => _) }
    });
}

extern "C" fn string(_: u64) {
    start(|command| {
        let command = (OTHERS | command) as u32;
        // SAFETY: as above.
        unsafe { asm!("stosd", inout("edi") ICR as u32 => _, in("eax") command) }
    });
}

/// A local vector with a delivery mode that is none of its: it is there if it can be read back.
fn local_vector(mode: u32) {
    poke32(COUNTERS, MASKED | mode);
    if peek32(COUNTERS) & MODE == mode {
        mark();
    }
    poke32(COUNTERS, MASKED);
}

extern "C" fn init_by_vector(_: u64) {
    local_vector(AS_INIT);
}

extern "C" fn smi_by_vector(_: u64) {
    local_vector(AS_SMI);
}

/// SMI to a processor that is not there.
extern "C" fn smi(_: u64) {
    poke32(ICR + 0x10, 0xFE << 24);
    poke32(ICR, AS_SMI);
    if peek32(ICR) & MODE == AS_SMI {
        mark();
    }
}

extern "C" fn init_by_x2apic_vector(_: u64) {
    wrmsr(APIC_BASE, rdmsr(APIC_BASE) | 0xC00);
    wrmsr(X2APIC_COUNTERS, (MASKED | AS_INIT).into());
    if rdmsr(X2APIC_COUNTERS) as u32 & MODE == AS_INIT {
        mark();
    }
    wrmsr(X2APIC_COUNTERS, MASKED.into());
}

/// The HPET's message, to where messages become INIT.
extern "C" fn init_by_hpet(_: u64) {
    send_by_hpet(LAPIC, AS_INIT);
}

fn throw(function: extern "C" fn(u64)) -> Plan {
    planted();
    Plan { witness: LOW_WITNESS, ..call(LAPIC, function, 0) }
}

/// The rows that want a second processor.
pub const ROWS: &[Attack] = &[
    Attack {
        name: "parked-overwritten",
        plan: |options| {
            let target = parked(options);
            Plan { witness: LOW_WITNESS, ..call(target, wake, 0) }.after(overwrite, target)
        },
    },
    Attack { name: "init-exchange", plan: |_| throw(exchange) },
    Attack { name: "init-string", plan: |_| throw(string) },
    Attack { name: "init-vector", plan: |_| call(LAPIC, init_by_vector, 0) },
    Attack { name: "smi-vector", plan: |_| call(LAPIC, smi_by_vector, 0) },
    Attack { name: "smi-command", plan: |_| call(LAPIC, smi, 0) },
    Attack { name: "init-x2apic-vector", plan: |_| call(LAPIC, init_by_x2apic_vector, 0) },
];

/// The same from a PCI device, which nobody can see without interrupt remapping.
extern "C" fn init_by_msi(_: u64) {
    ahci::send(LAPIC, AS_INIT);
    wait();
}

/// The rows that end the machine.
pub const FATAL: &[Attack] = &[
    Attack { name: "init-hpet", plan: |_| call(HPET, init_by_hpet, 0) },
    Attack { name: "init-msi", plan: |_| call(LAPIC, init_by_msi, 0) },
];
