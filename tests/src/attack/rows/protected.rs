//! What only 32-bit guests can try: tasks, legacy SYSCALL, virtual-8086 mode, other formats of page
//! tables.

use super::{Effect, KERNEL_FETCH, Needs, Row, Trace};

/// An attack by way of the user view, which `entry-guard=npf` lets through.
const fn entry(name: &'static str) -> Row {
    Row::entry(name).only(Needs::ProtectedMode)
}

/// The same, but for the descriptor that cannot be loaded: nothing is left to stop, nor to record.
const fn hidden(name: &'static str) -> Row {
    Row { trace: Trace::Nothing, ..entry(name) }
}

/// An attack by the kernel itself.
const fn kernel(name: &'static str) -> Row {
    Row::new(name, KERNEL_FETCH).only(Needs::ProtectedMode)
}

pub(super) const ROWS: &[Row] = &[
    entry("task-gate"),
    entry("task-gate-fault"),
    hidden("task-jump"),
    // Begun inside the step that MOV SS opened.
    entry("task-jump-shadow"),
    hidden("task-call"),
    hidden("task-call-gate"),
    hidden("task-return"),
    entry("task-double-fault"),
    kernel("task-kernel"),
    kernel("task-return-kernel"),
    entry("gdt-call-gate-16"),
    entry("idt-int-16"),
    entry("idt-overflow"),
    entry("idt-no-device"),
    entry("star"),
    // SYSENTER does not exist for guests, with either guard.
    Row { passes_npf: false, ..hidden("sysenter") },
    entry("virtual-int"),
    entry("virtual-int-closed"),
    entry("virtual-int-vme"),
    kernel("exec-paging-off"),
    kernel("exec-other-format"),
    kernel("exec-page-pointer").only(Needs::PagePointers),
    Row {
        may_die: true,
        ..Row::alone("exec-long-mode", KERNEL_FETCH, Effect::Memory).only(Needs::ProtectedMode)
    },
];
