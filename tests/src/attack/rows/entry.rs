//! Entries into the kernel from user mode.

use super::{Batch, Effect, KERNEL_FETCH, Needs, Row, Trace};

/// What only 32-bit guests can try: tasks, legacy SYSCALL, virtual-8086 mode.
const fn protected(name: &'static str) -> Row {
    Row::entry(name).only(Needs::ProtectedMode)
}

/// The same; the entry guard hides the descriptor, so that nothing is left to stop, nor to record.
const fn hidden(name: &'static str) -> Row {
    Row { trace: Trace::Delivered(&["kernel-fetch"]), ..protected(name) }
}

/// A task that the kernel itself switches to.
const fn kernel(name: &'static str) -> Row {
    Row::new(name, KERNEL_FETCH).only(Needs::ProtectedMode)
}

/// What is stopped with either guard.
const fn stopped(name: &'static str, trace: Trace) -> Row {
    Row::new(name, trace)
}

/// The same in 64-bit guests.
const fn long(name: &'static str, trace: Trace) -> Row {
    Row::new(name, trace).only(Needs::LongMode)
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
    Row { passes_npf: false, trace: Trace::Nothing, ..protected("sysenter") },
    protected("virtual-int"),
    protected("virtual-int-closed"),
    protected("virtual-int-vme"),
    protected("virtual-syscall"),
    // Events at the border, and faults in their delivery.
    Row {
        impossible: Some("INT n drops the trap that TF would raise behind it"),
        ..stopped("step-int", Trace::Nothing)
    },
    // SecVisor performs these itself, with either guard.
    stopped("step-cpuid", KERNEL_FETCH),
    stopped("step-port", KERNEL_FETCH),
    stopped("idt-icebp", KERNEL_FETCH),
    stopped("inject-vmmcall", KERNEL_FETCH),
    stopped("inject-rsm", KERNEL_FETCH),
    Row::entry("step-syscall"),
    Row::entry("breakpoint-entry"),
    Row::entry("watch-shadow"),
    Row::entry("idt-math"),
    Row::entry("idt-not-present"),
    Row::entry("idt-stack-fault"),
    Row::entry("idt-gate-not-present"),
    // The kernel view is still loaded, with either guard.
    stopped("idt-first-fetch", KERNEL_FETCH),
    stopped("timer-first-fetch", KERNEL_FETCH),
    stopped("int-from-text", KERNEL_FETCH),
    Row::entry("int-wrapped-segment"),
    Row::entry("gdt-user-writes"),
    Row {
        impossible: Some(
            "64-bit code has no SYSENTER on AMD's processors; in compatibility mode QEMU has it",
        ),
        ..long("sysenter", Trace::Nothing)
    },
    long("sysenter-compatibility", Trace::Nothing),
    Row::entry("int-prefixed"),
    Row::entry("int-page-border"),
    Row::entry("lstar-prefixed").only(Needs::LongMode),
    Row::entry("lstar-page-border").only(Needs::LongMode),
    Row::entry("star-odd").only(Needs::LongMode),
    Row::entry("idt-double-fault").only(Needs::LongMode),
    Row::entry("idt-entry-stack-non-canonical").only(Needs::LongMode),
    Row::entry("idt-compatibility").only(Needs::LongMode),
    // From compatibility mode.
    Row::entry("idt-overflow").only(Needs::LongMode),
    Row::entry("idt-bound"),
    Row::entry("idt-device"),
    protected("gate-segment-base"),
    Row { may_die: true, batch: Batch::Alone, ..Row::entry("inject-rdmsr") },
    Row {
        may_die: true,
        ..Row::alone("inject-hidden", Trace::Kind(&["read", "kernel-fetch"]), Effect::Memory)
    },
    Row { may_die: true, batch: Batch::Alone, ..Row::entry("inject-vmrun") },
    Row {
        not_promised: Some("control-flow integrity inside approved code"),
        batch: Batch::Pinned,
        ..stopped("gate-mid-text", Trace::Nothing)
    },
    // Out of the step that lets user mode load a segment.
    Row { trace: Trace::Kind(&["msr", "kernel-fetch"]), ..Row::entry("step-btf") },
    Row::entry("step-popf"),
    Row::entry("step-iret"),
    Row::entry("shadow-popf"),
    Row::entry("shadow-pushf"),
    Row::entry("shadow-iret"),
    Row::entry("shadow-call-gate"),
    Row::entry("shadow-chain"),
    Row::entry("shadow-call-gate-cpl1"),
    Row::entry("shadow-call-gate-cpl2"),
    Row::entry("shadow-int"),
    Row::entry("shadow-int3"),
    stopped("shadow-icebp", KERNEL_FETCH),
    Row::entry("shadow-undefined"),
    Row::entry("shadow-syscall"),
    Row::entry("step-breakpoint"),
    Row::entry("step-page-fault").only(Needs::LongMode),
    // No step is opened for a descriptor that SecVisor cannot read.
    hidden("step-page-fault"),
    protected("pop-ss-int"),
    protected("pop-ss-int3"),
    protected("pop-ss-into"),
];
