//! Entry pointers aimed at user memory, then fired from user mode.

use super::{Act, Attack, Plan, place_payload};
use crate::arch::GATE_BYTES;
use crate::cpu;
use crate::memory::{self, PAGE, URW, copy};
use crate::tables::{
    self, CALL, CALL_GATE, CLOSED, CPL1_CS, CPL2_CS, LDT_GATE, OPEN, idt_gate, load_idt,
};
use crate::trap::{Frame, KERNEL_CS, NMI, TIMER, symbol};

/// The payload in user memory.
pub fn user_payload() -> u64 {
    place_payload(symbol!(user_payload))
}

/// A row: the IDT's gate of a vector aimed at user memory, then user mode runs from `start`.
macro_rules! gate_row {
    ($name:literal, $vector:expr, $start:ident) => {
        Attack { name: $name, plan: |_| aimed_gate($vector, KERNEL_CS, symbol!($start)) }
    };
}

pub fn aimed_gate(vector: u64, selector: u64, start: u64) -> Plan {
    let kind = if matches!(vector, 0x82 | 3 | 4) { OPEN } else { CLOSED };
    tables::gate(idt_gate(vector), user_payload(), selector, kind);
    Plan::user(user_payload(), start)
}

/// User mode stores `value` at `address`, then goes on in the program at `start`. Nothing of the
/// old translation is cached by then: an attacker evicts it, the guest just flushes.
pub fn user_stores(start: u64, address: u64, value: u64) -> Plan {
    cpu::write_cr3(memory::root());
    let frame = Frame { di: address, ax: value, ..Frame::user(start) };
    Plan { act: Act::User(frame), ..Plan::user(symbol!(user_payload), 0) }
}

/// Opens the image's page table to user mode and puts the payload where `entry` lies in its page.
pub fn open_page_table(entry: u64) {
    let table = symbol!(pt_image);
    memory::remap_image(table, table, URW);
    place_payload(symbol!(user_payload) + (entry & 0xFFF));
}

/// A call gate at an address, aimed at user memory.
pub fn far_gate(address: u64, selector: u64, start: u64) -> Plan {
    tables::gate(address, user_payload(), selector, CALL);
    Plan::user(user_payload(), start)
}

/// The rows.
pub const ROWS: &[Attack] = &[
    gate_row!("idt-int", 0x82, u_int82),
    gate_row!("idt-divide", 0, u_do_divide),
    gate_row!("idt-step", 1, u_do_step),
    gate_row!("idt-breakpoint", 3, u_do_breakpoint),
    gate_row!("idt-undefined", 6, u_do_undefined),
    gate_row!("idt-page-fault", 14, u_do_page_fault),
    Attack {
        name: "idt-timer",
        plan: |_| {
            let plan = aimed_gate(TIMER, KERNEL_CS, 0);
            // User mode lets it in itself (IOPL 3): before that it would meet the kernel view.
            let spin = Frame { flags: 0x3002, ..Frame::user(symbol!(b_interrupt)) };
            Plan { act: Act::Timer(spin), ..plan }
        },
    },
    Attack {
        name: "idt-nmi",
        plan: |_| {
            let plan = aimed_gate(NMI, KERNEL_CS, 0);
            Plan { act: Act::Nmi(Frame::user(symbol!(u_spin))), ..plan }
        },
    },
    Attack { name: "idt-cpl1", plan: |_| aimed_gate(0x82, CPL1_CS | 1, symbol!(u_int82)) },
    Attack { name: "idt-cpl2", plan: |_| aimed_gate(0x82, CPL2_CS | 2, symbol!(u_int82)) },
    #[cfg(target_arch = "x86_64")]
    Attack {
        name: "lstar",
        plan: |_| {
            cpu::wrmsr(cpu::LSTAR, user_payload());
            Plan::user(user_payload(), symbol!(u_do_syscall))
        },
    },
    #[cfg(target_arch = "x86_64")]
    Attack {
        name: "cstar",
        plan: |_| {
            cpu::wrmsr(cpu::CSTAR, user_payload());
            Plan::user(user_payload(), symbol!(u_do_syscall32))
        },
    },
    Attack {
        name: "idt-handler-repointed",
        // The gate is honest; user mode itself re-points the handler's page.
        plan: |_| {
            let gate = symbol!(victim_gate);
            open_page_table(gate);
            tables::gate(idt_gate(0x82), gate, KERNEL_CS, OPEN);
            let entry = memory::image_entry(gate);
            user_stores(symbol!(u_store_int82), entry, symbol!(user_payload) | URW)
        },
    },
    #[cfg(target_arch = "x86_64")]
    Attack {
        name: "lstar-repointed",
        plan: |_| {
            let gate = symbol!(victim_gate);
            open_page_table(gate);
            cpu::wrmsr(cpu::LSTAR, gate);
            let entry = memory::image_entry(gate);
            user_stores(symbol!(u_store_syscall), entry, symbol!(user_payload) | URW)
        },
    },
    Attack {
        name: "idt-page-repointed",
        // IDTR is honest; user mode puts a table of its own under it.
        plan: |_| {
            let table = own_idt();
            open_page_table(0);
            let entry = memory::image_entry(symbol!(idt));
            user_stores(symbol!(u_store_int82), entry, table | URW)
        },
    },
    Attack {
        name: "idtr-moved",
        plan: |_| {
            load_idt(own_idt());
            Plan::user(symbol!(user_payload), symbol!(u_int82))
        },
    },
    Attack {
        name: "gdt-call-gate",
        plan: |_| far_gate(symbol!(gdt) + CALL_GATE, KERNEL_CS, symbol!(u_call_gate)),
    },
    Attack {
        name: "ldt-call-gate",
        plan: |_| far_gate(symbol!(ldt) + LDT_GATE, KERNEL_CS, symbol!(u_ldt_gate)),
    },
    Attack {
        name: "call-gate-cpl1",
        plan: |_| far_gate(symbol!(gdt) + CALL_GATE, CPL1_CS, symbol!(u_call_gate)),
    },
    Attack {
        name: "call-gate-cpl2",
        plan: |_| far_gate(symbol!(ldt) + LDT_GATE, CPL2_CS, symbol!(u_ldt_gate)),
    },
];

/// A copy of the IDT in user memory, its gate 0x82 aimed at the payload.
fn own_idt() -> u64 {
    let table = symbol!(user_frames);
    copy(symbol!(idt), table, PAGE);
    tables::gate(table + 0x82 * GATE_BYTES, user_payload(), KERNEL_CS, OPEN);
    table
}
