//! Kernel mode executes what nobody approved.

use super::{Effect, KERNEL_FETCH, Needs, Row, Trace};

pub(super) const ROWS: &[Row] = &[
    Row::new("exec-data", KERNEL_FETCH),
    Row::new("exec-bss", KERNEL_FETCH),
    Row::new("exec-heap", KERNEL_FETCH),
    Row::new("exec-stack", KERNEL_FETCH),
    Row::new("exec-low-memory", KERNEL_FETCH),
    Row::new("exec-device", KERNEL_FETCH),
    Row::new("exec-nx-cleared", KERNEL_FETCH).only(Needs::WideEntries),
    Row::new("exec-nxe-off", KERNEL_FETCH).only(Needs::WideEntries),
    Row::new("exec-large-page", KERNEL_FETCH),
    Row::new("exec-after-text", KERNEL_FETCH),
    Row::new("ret2dir", KERNEL_FETCH),
    Row::new("exec-after-user", KERNEL_FETCH),
    Row::new("exec-bios-rom", KERNEL_FETCH),
    Row::new("exec-option-rom", KERNEL_FETCH),
    Row::new("exec-acpi-table", KERNEL_FETCH),
    Row::new("exec-ebda", KERNEL_FETCH),
    Row::new("exec-vga-window", KERNEL_FETCH),
    Row::new("exec-boot-information", KERNEL_FETCH),
    Row::new("exec-list-loaded", KERNEL_FETCH),
    Row::new("exec-page-table", KERNEL_FETCH),
    Row::new("exec-copy-of-text", KERNEL_FETCH),
    Row::new("exec-paging-off", KERNEL_FETCH),
    Row {
        may_die: true,
        ..Row::alone("exec-long-mode", KERNEL_FETCH, Effect::Memory).only(Needs::ProtectedMode)
    },
    Row {
        may_die: true,
        ..Row::alone("exec-real-mode", KERNEL_FETCH, Effect::Memory).only(Needs::ProtectedMode)
    },
    Row::new("svm-vmrun", Trace::Nothing),
];
