//! The 32-bit guest: protected mode, with and without physical address extension.

mod descriptors;
mod frame;
pub mod object;
mod paging;
mod programs;

use core::arch::asm;

pub use descriptors::{
    GATE_BYTES, OTHER_TSS, SEGMENTS, TASK_GATE, gate, reset_segments, set_entry_stack,
    set_system_call, set_system_segments, set_task, special_gates, system_descriptor,
};
pub use frame::{Frame, Pushed, print_registers};
pub use paging::{
    MODULES_END, MODULES_HUGE, MODULES_START, WINDOW, add_module_table, choose_paging, cr4,
    entry_bytes, huge_pages, large_bytes, map_directory, map_modules, mapping, module_entries,
    module_tables, modules_large, open_low_memory, other_pae, own_tables, read_entry, root,
    set_large_slot, start_paging, write_entry,
};
pub use programs::{LOW, place_low, programs};

core::arch::global_asm!(
    include_str!("entry.s"),
    include_str!("actions.s"),
    ".set BITS, 32",
    include_str!("../victim.s"),
    include_str!("../actions_entry.s"),
    include_str!("../stores.s"),
    include_str!("calls.s"),
    include_str!("data.s"),
    include_str!("runtime.s"),
    include_str!("user.s"),
    include_str!("user_attack.s"),
    include_str!("../user_entry.s"),
    include_str!("user_state.s"),
);

/// What programs ask the kernel for a mapping by.
pub const SYSTEM_CALL: u64 = 0x80;
/// General-purpose registers.
pub const REGISTERS: u64 = 8;

/// VMMCALL with its registers.
pub fn vmmcall(number: u64, ebx: u64, ecx: u64, edx: u64) -> i64 {
    let result: i32;
    // SAFETY: see `cpu`.
    unsafe {
        asm!("vmmcall", inout("eax") number as u32 => result, in("ebx") ebx as u32,
            in("ecx") ecx as u32, in("edx") edx as u32)
    }
    result.into()
}
