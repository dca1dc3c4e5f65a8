//! Honest programs that only protected mode has.

use super::{WINDOW, cr4, open_low_memory};
use crate::cpu;
use crate::honest::{Program, program};
use crate::lock::{CR0_TS, CR4_PAE};
use crate::memory::{PAGE, copy};
use crate::tables::set_entry_stack;
use crate::trap::symbol;

/// Where programs for virtual-8086 mode run.
pub const LOW: u64 = 0x8000;
const VIRTUAL: u64 = 1 << 17 | 2;
const IOPL: u64 = 3 << 12;

/// Puts a program for virtual-8086 mode into its segment, and opens that.
pub fn place_low(start: u64, end: u64) {
    open_low_memory();
    copy(start, LOW, end - start);
}

/// The programs; those that the format of page tables does not have start at 0.
pub fn programs() -> [Program; 7] {
    let no_execute = if cr4() & CR4_PAE != 0 { symbol!(u_no_execute) } else { 0 };
    [
        program!("syscall", u_syscall),
        program!("into-bound", u_into_bound),
        program!("double-fault", u_double_fault, prepare: || set_entry_stack(WINDOW + PAGE)),
        program!("lazy-fpu", u_lazy_fpu, prepare: || cpu::write_cr0(cpu::cr0() | CR0_TS)),
        Program { start: no_execute, ..program!("no-execute", u_no_execute) },
        program!("virtual-open", u_virtual_open, flags: VIRTUAL | IOPL,
            prepare: || place_low(symbol!(u_virtual_open), symbol!(u_virtual_open_end))),
        program!("virtual-closed", u_virtual_closed, flags: VIRTUAL,
            prepare: || place_low(symbol!(u_virtual_closed), symbol!(u_virtual_closed_end))),
    ]
}
