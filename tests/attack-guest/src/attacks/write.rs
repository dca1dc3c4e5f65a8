//! Approved text changed: by aliases, by stacks, by the CPU's own page walk.

use super::{Act, Attack, Plan};
use crate::arch::entry_bytes;
use crate::cpu;
use crate::memory::{self, MARKER, PAGE, RW, URW};
use crate::tables;
use crate::trap::{Frame, symbol};

/// Room for a stack in the victim's page; the watched bytes are those below its top.
pub const STACK: u64 = 0x800;
const BELOW: u64 = STACK - 64;

/// The kernel calls `function` with a writable alias of the victim's page plus `offset`.
pub fn through_alias(function: u64, offset: u64, watch: u64) -> Plan {
    let alias = memory::map(0, symbol!(victim), RW);
    Plan::call(symbol!(victim) + watch, function, alias + offset).at_target()
}

/// The rows.
pub const ROWS: &[Attack] = &[
    Attack {
        name: "write-text-wp0",
        plan: |_| {
            cpu::write_cr0(cpu::cr0() & !cpu::CR0_WP);
            Plan::call(symbol!(victim), symbol!(write_marker), symbol!(victim)).at_target()
        },
    },
    Attack {
        name: "write-text-entry",
        plan: |_| {
            memory::remap_image(symbol!(victim), symbol!(victim), RW);
            Plan::call(symbol!(victim), symbol!(write_marker), symbol!(victim)).at_target()
        },
    },
    Attack { name: "write-text-alias", plan: |_| through_alias(symbol!(write_marker), 0, 0) },
    Attack {
        name: "write-text-large-alias",
        plan: |_| {
            let alias = memory::map_large(symbol!(victim));
            Plan::call(symbol!(victim), symbol!(write_marker), alias).at_target()
        },
    },
    Attack {
        name: "write-text-user-alias",
        plan: |_| {
            let alias = memory::map(0, symbol!(victim), URW);
            let frame = Frame { di: alias, ax: MARKER, ..Frame::user(symbol!(u_store)) };
            Plan { act: Act::User(frame), ..Plan::user(symbol!(victim), 0) }.at_target()
        },
    },
    Attack {
        name: "write-text-straddling",
        // A store that begins in data and ends in text.
        plan: |_| {
            memory::map(0, symbol!(text_start) - PAGE, RW);
            let alias = memory::map(1, symbol!(text_start), RW);
            let text = symbol!(text_start);
            Plan::call(text, symbol!(write_marker), alias - size_of::<usize>() as u64 / 2)
                .at_target()
        },
    },
    Attack { name: "push-text", plan: |_| through_alias(symbol!(push_on_stack), STACK, BELOW) },
    Attack {
        name: "push-text-event",
        plan: |_| through_alias(symbol!(event_on_stack), STACK, BELOW),
    },
    Attack {
        name: "push-text-fault",
        plan: |_| through_alias(symbol!(fault_on_stack), STACK, BELOW),
    },
    Attack {
        name: "push-text-entry-stack",
        plan: |_| {
            tables::set_entry_stack(memory::map(0, symbol!(victim), RW) + STACK);
            Plan::user(symbol!(victim) + BELOW, symbol!(u_int80)).at_target()
        },
    },
    Attack {
        name: "page-walk-text",
        // The text page as a page table: the walk sets the accessed bit in it.
        plan: |_| {
            let entry = symbol!(victim_entry);
            let address = memory::map_table(symbol!(victim)) + entry % PAGE / entry_bytes() * PAGE;
            Plan::call(entry, symbol!(read_marker), address).at_target()
        },
    },
];
