//! Entries into the kernel from user mode.

use super::{Batch, KERNEL_FETCH, Needs, Row, Trace};

/// What only 32-bit guests can try: tasks, legacy SYSCALL, virtual-8086 mode.
const fn protected(name: &'static str) -> Row {
    Row::entry(name).only(Needs::ProtectedMode)
}

/// The same, but for the descriptor that cannot be loaded: nothing is left to stop, nor to record.
const fn hidden(name: &'static str) -> Row {
    Row { trace: Trace::Nothing, ..protected(name) }
}

/// A task that the kernel itself switches to.
const fn kernel(name: &'static str) -> Row {
    Row::new(name, KERNEL_FETCH).only(Needs::ProtectedMode)
}

pub(super) const ROWS: &[Row] = &[
    Row::entry("idt-int"),
    Row::entry("idt-divide"),
    Row::entry("idt-step"),
    Row::entry("idt-breakpoint"),
    Row::entry("idt-undefined"),
    Row::entry("idt-page-fault"),
    Row::entry("idt-timer"),
    Row::entry("idt-nmi"),
    Row::entry("idt-cpl1"),
    Row::entry("idt-cpl2"),
    Row::entry("lstar").only(Needs::LongMode),
    Row::entry("cstar").only(Needs::LongMode),
    Row::entry("idt-handler-repointed"),
    Row::entry("lstar-repointed").only(Needs::LongMode),
    Row::entry("idt-page-repointed"),
    Row::entry("idtr-moved"),
    Row::entry("gdt-call-gate"),
    Row::entry("ldt-call-gate"),
    Row::entry("call-gate-cpl1"),
    Row::entry("call-gate-cpl2"),
    Row { may_die: true, batch: Batch::Alone, ..Row::entry("idt-protection") },
    protected("task-gate"),
    protected("task-gate-fault"),
    hidden("task-jump"),
    // Begun inside the step that MOV SS opened.
    protected("task-jump-shadow"),
    hidden("task-call"),
    hidden("task-call-gate"),
    hidden("task-return"),
    protected("task-double-fault"),
    kernel("task-kernel"),
    kernel("task-return-kernel"),
    protected("gdt-call-gate-16"),
    protected("idt-int-16"),
    protected("idt-overflow"),
    protected("idt-no-device"),
    protected("star"),
    // SYSENTER does not exist for guests, with either guard.
    Row { passes_npf: false, ..hidden("sysenter") },
    protected("virtual-int"),
    protected("virtual-int-closed"),
    protected("virtual-int-vme"),
];
