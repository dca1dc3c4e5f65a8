//! Ways into the kernel, and out of its page tables, that only 32-bit processors have: tasks, legacy
//! SYSCALL and SYSENTER, virtual-8086 mode, paging switched off or to another format.

use super::entry::{aimed_gate, user_payload};
use super::{Act, Attack, Plan, place_payload};
use crate::arch::{LOW, OTHER_TSS, TASK_GATE, cr4, gate, own_tables, place_low, set_task};
use crate::cpu;
use crate::lock::{CR0_TS, CR4_PAE, CR4_PSE};
use crate::memory::{
    self, HEAP, LARGE, PAGE, PRESENT, RW, WINDOW, copy, peek, peek8, poke, poke8, poke32,
};
use crate::tables::{CALL_GATE, idt_gate, set_entry_stack};
use crate::trap::{Frame, KERNEL_CS, symbol};

/// SYSENTER's registers: CS, ESP, EIP.
const SYSENTER: [u32; 3] = [0x174, 0x175, 0x176];
/// Types of gates of 16 bits, for user mode.
const CALL_16: u64 = 0xE4;
const OPEN_16: u64 = 0xE6;
/// CR4.VME, and EFLAGS of virtual-8086 mode.
const CR4_VME: u64 = 1;
const VIRTUAL: u64 = 1 << 17 | 2;
const IOPL: u64 = 3 << 12;

/// A task that starts with the payload in user memory.
fn forged_task(tss: u64) -> u64 {
    let payload = user_payload();
    set_task(tss, payload);
    payload
}

/// User mode at `start` reaches for a task of the attacker's.
fn task(start: u64) -> Plan {
    Plan::user(forged_task(symbol!(other_tss)), start)
}

/// A task of the attacker's that looks as if the kernel's own had interrupted it.
fn back_link() -> Plan {
    let plan = task(symbol!(u_return_task));
    poke32(symbol!(tss), OTHER_TSS as u32);
    let kind = symbol!(gdt) + OTHER_TSS + 5;
    poke8(kind, peek8(kind) | 2);
    plan
}

/// Virtual-8086 mode with these flags fires INT 82h.
fn virtual_8086(flags: u64) -> Plan {
    let plan = aimed_gate(0x82, KERNEL_CS, 0);
    place_low(symbol!(u_virtual_int82), symbol!(u_virtual_int82_end));
    Plan { act: Act::User(Frame::with_flags(0, flags)), ..plan }
}

/// The kernel calls `function` with code in ordinary memory.
fn run(function: u64, argument: u64) -> Plan {
    Plan::call(place_payload(HEAP), function, argument)
}

/// The rows.
pub const ROWS: &[Attack] = &[
    Attack {
        name: "task-gate",
        plan: |_| {
            let plan = task(symbol!(u_int82));
            gate(idt_gate(0x82), 0, OTHER_TSS, TASK_GATE);
            plan
        },
    },
    Attack {
        name: "task-gate-fault",
        plan: |_| {
            let plan = task(symbol!(u_do_divide));
            gate(idt_gate(0), 0, OTHER_TSS, TASK_GATE);
            plan
        },
    },
    Attack { name: "task-jump", plan: |_| task(symbol!(u_jump_task)) },
    Attack { name: "task-jump-shadow", plan: |_| task(symbol!(u_shadow_jump_task)) },
    Attack { name: "task-call", plan: |_| task(symbol!(u_call_task)) },
    Attack {
        name: "task-call-gate",
        plan: |_| {
            let plan = task(symbol!(u_call_task_gate));
            gate(symbol!(gdt) + CALL_GATE, 0, OTHER_TSS, TASK_GATE);
            plan
        },
    },
    Attack {
        name: "task-return",
        // NT and a back link: IRET in user mode goes to a task that is busy.
        plan: |_| back_link(),
    },
    Attack {
        name: "task-double-fault",
        plan: |_| {
            let payload = forged_task(symbol!(fault_tss));
            set_entry_stack(WINDOW + PAGE);
            Plan::user(payload, symbol!(u_do_undefined))
        },
    },
    Attack {
        name: "task-kernel",
        plan: |_| {
            let payload = forged_task(symbol!(other_tss));
            Plan::call(payload, symbol!(jump_to_task), OTHER_TSS)
        },
    },
    Attack {
        name: "task-return-kernel",
        plan: |_| {
            let plan = back_link();
            Plan { act: Act::Call(symbol!(return_to_task), 0), ..plan }
        },
    },
    // Gates of 16 bits lead to the first 64 KiB.
    Attack {
        name: "gdt-call-gate-16",
        plan: |_| {
            gate(symbol!(gdt) + CALL_GATE, place_payload(LOW), KERNEL_CS, CALL_16);
            Plan::user(LOW, symbol!(u_call_gate))
        },
    },
    Attack {
        name: "idt-int-16",
        plan: |_| {
            gate(idt_gate(0x82), place_payload(LOW), KERNEL_CS, OPEN_16);
            Plan::user(LOW, symbol!(u_int82))
        },
    },
    Attack { name: "idt-overflow", plan: |_| aimed_gate(4, KERNEL_CS, symbol!(u_do_overflow)) },
    Attack {
        name: "idt-no-device",
        plan: |_| {
            cpu::write_cr0(cpu::cr0() | CR0_TS);
            aimed_gate(7, KERNEL_CS, symbol!(u_lazy_fpu))
        },
    },
    Attack {
        name: "star",
        plan: |_| {
            cpu::wrmsr(cpu::STAR, KERNEL_CS << 32 | user_payload());
            Plan::user(user_payload(), symbol!(u_do_syscall))
        },
    },
    Attack {
        name: "sysenter",
        plan: |_| {
            let (ip, sp) = (user_payload(), symbol!(trap_stack_top));
            for (msr, value) in SYSENTER.into_iter().zip([KERNEL_CS, sp, ip]) {
                cpu::wrmsr(msr, value);
            }
            Plan::user(ip, symbol!(u_do_sysenter))
        },
    },
    Attack { name: "virtual-int", plan: |_| virtual_8086(VIRTUAL | IOPL) },
    Attack {
        name: "virtual-int-closed",
        // With IOPL 0 the interrupt is the monitor's, whose gate is the attack.
        plan: |_| {
            let plan = virtual_8086(VIRTUAL);
            aimed_gate(13, KERNEL_CS, 0);
            plan
        },
    },
    Attack {
        name: "virtual-int-vme",
        // With virtual-mode extensions the map may say that an interrupt is the kernel's.
        plan: |_| {
            cpu::write_cr4(cpu::cr4() | CR4_VME);
            (104..136).step_by(4).for_each(|at| poke32(symbol!(tss) + at, u32::MAX));
            virtual_8086(VIRTUAL | IOPL)
        },
    },
    Attack {
        name: "virtual-syscall",
        plan: |_| {
            cpu::wrmsr(cpu::STAR, KERNEL_CS << 32 | user_payload());
            let plan = virtual_8086(VIRTUAL);
            place_low(symbol!(u_virtual_syscall), symbol!(u_virtual_syscall_end));
            plan
        },
    },
    Attack { name: "exec-paging-off", plan: |_| run(symbol!(jump_unpaged), HEAP) },
    Attack {
        name: "exec-other-format",
        plan: |_| {
            let other = other_format();
            run(symbol!(jump_in_other_format), other << 32 | HEAP)
        },
    },
    Attack {
        name: "exec-page-pointer",
        // The table that CR3 names has four entries: the first leads to the attacker's tables.
        plan: |_| {
            place_payload(symbol!(bss_payload));
            poke(memory::root(), peek(own_tables(symbol!(bss_payload))));
            cpu::write_cr3(memory::root());
            Plan::call(symbol!(bss_payload), symbol!(victim), 0)
        },
    },
];

/// Rows after which the guest may be past helping.
pub const FATAL: &[Attack] = &[Attack {
    name: "exec-long-mode",
    plan: |_| {
        let tables = symbol!(scratch_tables);
        poke(tables, (tables + PAGE) | RW);
        identity(tables + PAGE, RW);
        copy(symbol!(payload_64), HEAP, symbol!(payload_64_end) - symbol!(payload_64));
        Plan::call(HEAP, symbol!(jump_in_long_mode), HEAP)
    },
}];

/// Four directories of 2 MiB pages behind a table that names them, all one to one.
fn identity(table: u64, flags: u64) {
    for at in 0..4 {
        poke(table + at * 8, (table + (at + 1) * PAGE) | flags);
    }
    (0..2048).for_each(|at| poke(table + PAGE + at * 8, at << 21 | RW | LARGE));
}

/// Tables in the format that is not in use; CR4's bits for it.
fn other_format() -> u64 {
    let tables = symbol!(scratch_tables);
    if cr4() & CR4_PAE != 0 {
        (0..1024).for_each(|at| poke32(tables + at * 4, (at << 22 | RW | LARGE) as u32));
        return CR4_PSE;
    }
    identity(tables, PRESENT);
    CR4_PAE
}
