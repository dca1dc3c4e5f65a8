//! Approved text written by every instruction that is no plain store, and by what the processor itself
//! writes: see stores.s.

use super::execute::run_code;
use super::write::{STACK, through_alias};
use super::{Act, Attack, Plan, place_payload};
use crate::arch::entry_bytes;
use crate::memory::{self, PAGE};
#[cfg(target_arch = "x86_64")]
use crate::memory::{RW, poke, poke8};
#[cfg(target_arch = "x86_64")]
use crate::tables;
use crate::trap::{Frame, symbol};

/// A row: an instruction that writes to the victim's page.
macro_rules! store_row {
    ($name:literal, $function:ident) => {
        Attack { name: $name, plan: |_| through_alias(symbol!($function), 0, 0) }
    };
}

/// A row: an instruction that writes below its stack pointer, which lies there.
macro_rules! stack_row {
    ($name:literal, $function:ident) => {
        Attack { name: $name, plan: |_| through_alias(symbol!($function), STACK, STACK - 64) }
    };
}

/// Puts code behind the last instruction of the text, and runs it.
extern "C" fn fill_slack(alias: u64) {
    place_payload(alias);
    run_code(symbol!(victim) + alias % PAGE, 0);
}

/// The rows.
pub const ROWS: &[Attack] = &[
    store_row!("write-text-string", store_string),
    store_row!("write-text-exchange", store_exchange),
    store_row!("write-text-compare", store_compare),
    store_row!("write-text-bit", store_bit),
    store_row!("write-text-nontemporal", store_nontemporal),
    store_row!("write-text-masked", store_masked),
    store_row!("write-text-fxsave", store_fxsave),
    store_row!("write-text-environment", store_environment),
    store_row!("write-text-sgdt", store_descriptor_table),
    store_row!("write-text-pop", store_pop),
    store_row!("write-text-port", store_port),
    stack_row!("write-text-enter", store_enter),
    stack_row!("write-text-call", store_call),
    Attack {
        name: "write-text-slack",
        plan: |_| {
            let slack = PAGE - 0x100;
            let plan = through_alias(fill_slack as *const () as u64, slack, slack);
            Plan { witness: symbol!(witness), ..plan }
        },
    },
    #[cfg(target_arch = "x86_64")]
    Attack {
        name: "push-text-interrupt-stack",
        // The stack that a gate names by number.
        plan: |_| {
            poke(symbol!(tss) + 36 + 3 * 8, memory::map(0, symbol!(victim), RW) + STACK);
            poke8(tables::idt_gate(0x81) + 4, 4);
            let (watched, stack) = (symbol!(victim) + STACK - 64, symbol!(trap_stack_top));
            Plan::call(watched, symbol!(event_on_stack), stack).at_target()
        },
    },
    Attack {
        name: "page-walk-text-user",
        // The text page as a page table for user mode.
        plan: |_| {
            let entry = symbol!(victim_user_entry);
            let di = memory::map_table(symbol!(victim)) + entry % PAGE / entry_bytes() * PAGE;
            let frame = Frame { di, si: symbol!(user_data), ..Frame::user(symbol!(u_copy)) };
            Plan { act: Act::User(frame), ..Plan::user(entry, 0) }.at_target()
        },
    },
];
