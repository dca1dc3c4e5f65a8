//! Events at the border between user mode and the kernel, which the processor or SecVisor raises
//! there, and faults in their delivery.

use super::entry::{aimed_gate, user_payload, user_stores};
use super::hidden::hidden;
use super::{Act, Attack, Plan};
use crate::cpu;
use crate::devices;
use crate::memory::{self, MARKER, PAGE, PRESENT, URW, USER, copy, peek, peek32, poke, poke8};
use crate::tables::{self, CALL, OPEN, idt_gate};
use crate::trap::{Frame, KERNEL_CS, TIMER, symbol};

/// A row: the IDT's gate of a vector aimed at user memory, then user mode runs from `start`, with
/// these registers, once `prepare` is done.
macro_rules! gate_row {
    ($name:literal, $vector:expr, $start:ident $(, $field:ident: $value:expr)* $(; $prepare:expr)?) => {
        Attack {
            name: $name,
            plan: |_| {
                let plan = aimed_gate($vector, KERNEL_CS, 0);
                $($prepare;)?
                let frame = Frame { $($field: $value,)* ..Frame::user(symbol!($start)) };
                Plan { act: Act::User(frame), ..plan }
            },
        }
    };
}
pub(super) use gate_row;

/// DR7: breakpoint 0 stops execution; the same at an access to four bytes.
const BREAK: u64 = 0x401;
const WATCH: u64 = 0x401 | 0xF << 16;

/// Sets the first breakpoint.
pub fn breakpoint(address: u64, control: u64) {
    cpu::write_dr0(address);
    cpu::write_dr7(control);
}

/// A selector for SS that cannot be read unseen.
fn watch_stack_selector() {
    poke(symbol!(user_data), 0x2B);
    breakpoint(symbol!(user_data), WATCH);
}

/// Where INT 80h leads.
fn system_call_entry() -> u64 {
    symbol!(trap_stubs) + 0x80 * 16
}

/// A gate whose descriptor is not there.
fn remove_gate(vector: u64) {
    poke8(idt_gate(vector) + 5, 0xE);
}

#[cfg(target_arch = "x86_64")]
const IST: u8 = 2;

/// A vector's stack is surely there, that of all others is elsewhere.
#[cfg(target_arch = "x86_64")]
fn with_own_stack(vector: u64, entry_stack: u64) {
    poke8(idt_gate(vector) + 4, IST);
    tables::set_entry_stack(entry_stack);
}

/// The timer's interrupt is there before user mode is.
extern "C" fn await_timer(_: u64) {
    devices::arm_timer();
    while !devices::timer_is_pending() {}
}

/// The text page of the victim, open to user mode.
fn open_text() {
    memory::remap_image(symbol!(victim), symbol!(victim), PRESENT | USER);
}

/// A page that user mode may touch without SecVisor.
fn touched(page: u64) -> u64 {
    memory::map(0, page, URW)
}

/// The rows.
pub const ROWS: &[Attack] = &[
    gate_row!("step-int", 1, u_step_int),
    gate_row!("step-cpuid", 1, u_step_cpuid),
    gate_row!("step-port", 1, u_step_port, flags: 0x3002),
    Attack {
        name: "step-syscall",
        // SYSCALL keeps the trap flag: the trap comes at the kernel's first instruction.
        plan: |_| {
            cpu::wrmsr(cpu::SFMASK, 0);
            aimed_gate(1, KERNEL_CS, symbol!(u_step_syscall))
        },
    },
    gate_row!("breakpoint-entry", 1, u_int80; breakpoint(system_call_entry(), BREAK)),
    gate_row!("watch-shadow", 1, u_shadow_watch, di: symbol!(user_data);
        watch_stack_selector()),
    gate_row!("idt-icebp", 1, u_do_icebp),
    gate_row!("idt-math", 16, u_do_math),
    gate_row!("idt-not-present", 11, u_load_fs, cx: 0x93),
    gate_row!("idt-stack-fault", 12, u_load_ss, cx: 0x93),
    gate_row!("idt-gate-not-present", 11, u_do_undefined; remove_gate(6)),
    // The first fetch of user mode faults, before the user view is loaded.
    gate_row!("idt-first-fetch", 14, u_spin, ip: symbol!(victim)),
    Attack {
        name: "timer-first-fetch",
        plan: |_| {
            let plan = aimed_gate(TIMER, KERNEL_CS, 0).after(await_timer, 0);
            Plan { act: Act::User(Frame { flags: 0x202, ..Frame::user(symbol!(u_spin)) }), ..plan }
        },
    },
    // User mode runs approved code, which the kernel view lets it.
    gate_row!("int-from-text", 0x82, u_spin, ip: symbol!(victim_fire); open_text()),
    gate_row!("int-wrapped-segment", 0x82, u_spin, cs: WRAPPED_CS,
        ip: symbol!(u_int82) + WRAPPED_BACK; wrapped_segment()),
    gate_row!("inject-vmmcall", 6, u_do_vmmcall),
    gate_row!("inject-rsm", 6, u_do_rsm),
    Attack {
        name: "gdt-user-writes",
        // User mode itself writes the gate, into a table that was opened to it.
        plan: |_| {
            let (gdt, made) = (symbol!(gdt), symbol!(scratch_tables));
            tables::gate(made, user_payload(), KERNEL_CS, CALL);
            let page = gdt & !(PAGE - 1);
            (0..2).for_each(|at| memory::remap_image(page + at * PAGE, page + at * PAGE, URW));
            let plan = user_stores(symbol!(u_store_gate), gdt + tables::CALL_GATE, peek(made));
            let Act::User(frame) = plan.act else { return plan };
            let frame = Frame { dx: peek32(made + 4).into(), ..frame };
            Plan { target: user_payload(), act: Act::User(frame), ..plan }
        },
    },
    #[cfg(target_arch = "x86_64")]
    Attack { name: "sysenter", plan: |_| sysenter(symbol!(u_do_sysenter)) },
    #[cfg(target_arch = "x86_64")]
    Attack { name: "sysenter-compatibility", plan: |_| sysenter(symbol!(u_do_sysenter32)) },
    gate_row!("int-prefixed", 0x82, u_int_prefixed),
    gate_row!("int-page-border", 0x82, u_spin, ip: at_page_border(symbol!(u_int_bytes))),
    #[cfg(target_arch = "x86_64")]
    Attack { name: "lstar-prefixed", plan: |_| lstar(symbol!(u_syscall_prefixed)) },
    #[cfg(target_arch = "x86_64")]
    Attack { name: "lstar-page-border", plan: |_| lstar(at_page_border(symbol!(u_do_syscall))) },
    #[cfg(target_arch = "x86_64")]
    Attack {
        name: "star-odd",
        // Selectors that are no kernel's; SYSCALL does not look at descriptors.
        plan: |_| {
            cpu::wrmsr(cpu::STAR, 0xFFFF << 32);
            lstar(symbol!(u_do_syscall))
        },
    },
    #[cfg(target_arch = "x86_64")]
    gate_row!("idt-double-fault", 8, u_do_undefined;
        with_own_stack(8, memory::WINDOW + PAGE)),
    #[cfg(target_arch = "x86_64")]
    gate_row!("idt-entry-stack-non-canonical", 12, u_do_undefined;
        with_own_stack(12, 1 << 47)),
    #[cfg(target_arch = "x86_64")]
    gate_row!("idt-compatibility", 0x82, u_int82, cs: 0x23),
    #[cfg(target_arch = "x86_64")]
    gate_row!("idt-overflow", 4, u_do_overflow, cs: 0x23),
    gate_row!("idt-bound", 5, u_do_bound, cs: 0x23),
    gate_row!("idt-device", 7, u_do_fpu; cpu::write_cr0(cpu::cr0() | crate::lock::CR0_TS)),
];

/// User code in the LDT, whose base lets every address wrap around.
const WRAPPED_CS: u64 = 7;
const WRAPPED_BACK: u64 = 0x10_0000;

fn wrapped_segment() {
    poke(symbol!(ldt), 0xFFCF_FBF0_0000_FFFF);
}

/// A program's first bytes with the page's end behind the first of them.
fn at_page_border(program: u64) -> u64 {
    let start = symbol!(user_frames) + PAGE - 1;
    copy(program, start, 8);
    start
}

/// SYSCALL from `start` leads to user memory.
#[cfg(target_arch = "x86_64")]
fn lstar(start: u64) -> Plan {
    cpu::wrmsr(cpu::LSTAR, user_payload());
    Plan::user(user_payload(), start)
}

#[cfg(target_arch = "x86_64")]
fn sysenter(start: u64) -> Plan {
    let (ip, sp) = (user_payload(), symbol!(trap_stack_top));
    for (msr, value) in (0x174..).zip([KERNEL_CS, sp, ip]) {
        cpu::wrmsr(msr, value);
    }
    Plan::user(ip, start)
}

/// Rows whose own gate is what SecVisor's answer needs.
pub const FATAL: &[Attack] = &[
    gate_row!("inject-rdmsr", 13, u_do_rdmsr),
    // With SVM on beneath it is #GP, which SecVisor makes #UD.
    gate_row!("inject-vmrun", 6, u_do_vmrun; aimed_gate(13, KERNEL_CS, 0)),
    Attack {
        name: "inject-hidden",
        plan: |options| {
            let di = touched(hidden(options, |_| ()));
            let plan = aimed_gate(13, KERNEL_CS, 0);
            let frame = Frame { di, ..Frame::user(symbol!(u_touch)) };
            Plan { target: options.hidden, act: Act::User(frame), ..plan }
        },
    },
];

/// In a kernel that is locked: what set_kernel_mode does not promise.
pub const LOCKED: &[Attack] = &[Attack {
    name: "gate-mid-text",
    // The gate leads into approved code, but into the middle of a function.
    plan: |_| {
        crate::lock::engage();
        tables::gate(idt_gate(0x82), symbol!(write_marker_at), KERNEL_CS, OPEN);
        let di = symbol!(witness);
        let frame = Frame { di, cx: di, ax: MARKER, ..Frame::user(symbol!(u_int82)) };
        Plan { act: Act::User(frame), ..Plan::user(di, 0) }
    },
}];
