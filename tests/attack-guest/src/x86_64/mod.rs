//! The 64-bit guest: long mode, four levels of page tables.

mod descriptors;
mod frame;
pub mod object;
mod paging;
mod programs;

pub use descriptors::{
    GATE_BYTES, SEGMENTS, gate, reset_segments, set_entry_stack, set_system_call,
    set_system_segments, special_gates, system_descriptor,
};
pub use frame::{Frame, Pushed, print_registers};
pub use paging::{
    MODULES_END, MODULES_HUGE, MODULES_START, WINDOW, add_module_table, choose_paging, cr4,
    entry_bytes, huge_pages, large_bytes, map_directory, map_modules, mapping, module_entries,
    module_tables, modules_large, other_pae, own_tables, read_entry, root, set_large_slot,
    start_paging, write_entry,
};
pub use programs::programs;

core::arch::global_asm!(
    include_str!("entry.s"),
    include_str!("actions.s"),
    ".set BITS, 64",
    include_str!("../victim.s"),
    include_str!("../actions_entry.s"),
    include_str!("../stores.s"),
    include_str!("calls.s"),
    include_str!("data.s"),
    include_str!("user.s"),
    include_str!("user_attack.s"),
    include_str!("../user_entry.s"),
    include_str!("user_state.s"),
);

/// What programs ask the kernel for a mapping by.
pub const SYSTEM_CALL: u64 = crate::trap::SYSCALL;
/// General-purpose registers.
pub const REGISTERS: u64 = 16;

/// VMMCALL with its registers.
pub fn vmmcall(number: u64, rbx: u64, rcx: u64, rdx: u64) -> i64 {
    let result;
    // SAFETY: see `cpu`; RBX cannot be named, so it is swapped in.
    unsafe {
        core::arch::asm!("xchg rbx, rsi; vmmcall; xchg rbx, rsi", inout("rax") number => result,
            in("rsi") rbx, in("rcx") rcx, in("rdx") rdx)
    }
    result
}
