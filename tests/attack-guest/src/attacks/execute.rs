//! The kernel runs what is not approved: data, user memory, re-pointed pages.

use super::{Attack, Plan, place_payload};
use crate::arch;
use crate::cpu;
use crate::memory::{self, HEAP, NX, PRESENT, RW, WRITE};
use crate::trap::{self, symbol};

/// Low memory that neither firmware nor boot code minds.
const LOW_MEMORY: u64 = 0x8000;
/// The VGA text buffer: device memory that can be filled.
const DEVICE_MEMORY: u64 = 0xB_8000;

/// Calls what is at an address.
pub fn run_code(address: u64, argument: u64) {
    // SAFETY: what is there is the experiment.
    unsafe { core::mem::transmute::<usize, extern "C" fn(u64)>(address as usize)(argument) };
}

/// The rows.
pub const ROWS: &[Attack] = &[
    Attack { name: "exec-data", plan: |_| Plan::jump(place_payload(symbol!(data_payload))) },
    Attack { name: "exec-bss", plan: |_| Plan::jump(place_payload(symbol!(bss_payload))) },
    Attack { name: "exec-heap", plan: |_| Plan::jump(place_payload(HEAP)) },
    Attack {
        name: "exec-stack",
        plan: |_| Plan::jump(place_payload(symbol!(boot_stack_top) - 0x7000)),
    },
    Attack { name: "exec-low-memory", plan: |_| Plan::jump(place_payload(LOW_MEMORY)) },
    Attack { name: "exec-device", plan: |_| Plan::jump(place_payload(DEVICE_MEMORY)) },
    Attack {
        name: "exec-nx-cleared",
        plan: |_| {
            place_payload(HEAP);
            memory::map(0, HEAP, RW | NX);
            Plan::call(HEAP, memory::map(0, HEAP, RW), 0)
        },
    },
    Attack {
        name: "exec-nxe-off",
        plan: |_| {
            place_payload(HEAP);
            cpu::wrmsr(cpu::EFER, cpu::rdmsr(cpu::EFER) & !cpu::EFER_NXE);
            Plan::jump(HEAP)
        },
    },
    Attack {
        name: "exec-large-page",
        plan: |_| {
            place_payload(symbol!(bss_payload));
            Plan::call(symbol!(bss_payload), memory::map_large(symbol!(bss_payload)), 0)
        },
    },
    Attack {
        name: "exec-after-text",
        // The first bytes behind the approved pages.
        plan: |_| Plan::jump(place_payload(symbol!(text_end))),
    },
    Attack {
        name: "exec-repointed-text",
        plan: |_| {
            place_payload(symbol!(bss_payload));
            memory::remap_image(symbol!(victim), symbol!(bss_payload), PRESENT | WRITE);
            Plan::call(symbol!(bss_payload), symbol!(victim), 0)
        },
    },
    Attack {
        name: "exec-own-cr3",
        plan: |_| {
            place_payload(symbol!(bss_payload));
            cpu::write_cr3(arch::own_tables(symbol!(bss_payload)));
            Plan::call(symbol!(bss_payload), symbol!(victim), 0)
        },
    },
    Attack { name: "ret2user", plan: |_| Plan::jump(place_payload(symbol!(user_payload))) },
    Attack {
        name: "ret2user-supervisor-page",
        plan: |_| {
            let page = place_payload(symbol!(user_payload));
            memory::remap_image(page, page, RW);
            Plan::jump(page)
        },
    },
    Attack {
        name: "ret2user-smep",
        plan: |_| {
            let page = place_payload(symbol!(user_payload));
            if cpu::cpuid(7).ebx >> 7 & 1 != 0 {
                cpu::write_cr4(cpu::cr4() | cpu::CR4_SMEP);
            }
            memory::remap_image(page, page, RW);
            Plan::jump(page)
        },
    },
    Attack {
        name: "ret2user-iret",
        plan: |_| {
            let page = place_payload(symbol!(user_payload));
            Plan::call(page, symbol!(iret_at_cpl0), page)
        },
    },
    Attack {
        name: "ret2dir",
        // The user's frame by the kernel's own name for it.
        plan: |_| {
            let page = place_payload(symbol!(user_payload));
            Plan::call(page, memory::map(0, page, RW), 0)
        },
    },
    Attack {
        name: "exec-after-user",
        // A frame that user mode has just run, then the kernel does.
        plan: |_| {
            let page = place_payload(symbol!(user_payload));
            trap::run_user_at(page);
            Plan::call(page, memory::map_large(page), 0)
        },
    },
];
