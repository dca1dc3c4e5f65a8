//! SecVisor's memory: read, written, run, walked, used as a stack.
//!
//! Without SecVisor the same rows run against an ordinary frame, which shows that they would work.

use super::{Act, Attack, Plan, place_payload};
use crate::boot::Options;
use crate::cpu::under_secvisor;
use crate::memory::{self, MARKER, PAGE, RW, URW, copy, poke};
use crate::tables;
use crate::trap::{Frame, symbol};

/// The address, which the control's preparation fills if it is an ordinary frame.
pub fn hidden(options: &Options, prepare: impl Fn(u64)) -> u64 {
    if !under_secvisor() {
        prepare(options.hidden);
    }
    options.hidden
}

fn nothing(_: u64) {}

/// User mode at `start` with RDI = the hidden page and RSI = the witness, both mapped for it.
fn user(target: u64, start: u64) -> Plan {
    let di = memory::map(0, target, URW);
    let si = memory::map(1, symbol!(witness), URW);
    let frame = Frame { di, si, ax: MARKER, ..Frame::user(start) };
    Plan { act: Act::User(frame), ..Plan::user(target, 0) }
}

/// The rows.
pub const ROWS: &[Attack] = &[
    Attack {
        name: "hidden-read",
        plan: |options| {
            let target = hidden(options, |page| poke(page, MARKER));
            Plan::call(target, symbol!(read_marker), target)
        },
    },
    Attack {
        name: "hidden-read-user",
        plan: |options| user(hidden(options, |page| poke(page, MARKER)), symbol!(u_copy)),
    },
    Attack {
        name: "hidden-write",
        plan: |options| {
            let target = hidden(options, |page| poke(page, 0));
            Plan::call(target, symbol!(write_marker), target).at_target()
        },
    },
    Attack {
        name: "hidden-write-user",
        plan: |options| user(hidden(options, |page| poke(page, 0)), symbol!(u_store)).at_target(),
    },
    Attack {
        name: "hidden-exec",
        plan: |options| Plan::jump(hidden(options, |page| _ = place_payload(page))),
    },
    Attack {
        name: "hidden-exec-user",
        plan: |options| {
            let code = (symbol!(u_mark), symbol!(u_mark_end));
            let target = hidden(options, |page| copy(code.0, page, code.1 - code.0));
            user(target, symbol!(u_jump))
        },
    },
    Attack {
        name: "hidden-page-table",
        plan: |options| {
            poke(symbol!(bss_payload), MARKER);
            let target = hidden(options, |page| poke(page, symbol!(bss_payload) | RW));
            let window = memory::map_table(target);
            Plan::call(target, symbol!(read_marker), window)
        },
    },
    Attack {
        name: "hidden-stack",
        plan: |options| {
            let target = hidden(options, |page| memory::clear(page, PAGE));
            Plan::call(target, symbol!(push_on_stack), target + 8).at_target()
        },
    },
    Attack {
        name: "hidden-stack-event",
        plan: |options| {
            let target = hidden(options, |page| memory::clear(page, PAGE));
            let plan = Plan::call(target, symbol!(event_on_stack), target + 0x800);
            Plan { witness: target + 0x7C0, ..plan }
        },
    },
    Attack {
        name: "hidden-entry-stack",
        plan: |options| {
            let target = hidden(options, nothing);
            tables::set_entry_stack(target + 0x800);
            Plan { witness: target + 0x7C0, ..Plan::user(target, symbol!(u_int80)) }
        },
    },
];
