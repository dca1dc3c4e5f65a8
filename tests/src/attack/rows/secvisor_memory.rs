//! SecVisor's own memory and log.

use super::{Effect, KERNEL_FETCH, Needs, READ, Row, Trace, WALK, WRITE};

pub(super) const ROWS: &[Row] = &[
    Row::new("hidden-read", READ),
    Row::new("hidden-read-user", READ),
    Row::new("hidden-write", WRITE),
    Row::new("hidden-write-user", WRITE),
    Row::new("hidden-exec", KERNEL_FETCH),
    Row::new("hidden-exec-user", Trace::Frame(&["user-fetch"])),
    Row::new("hidden-page-table", WALK),
    Row::new("hidden-stack", WRITE),
    Row::new("hidden-stack-event", WRITE),
    Row::new("hidden-entry-stack", WRITE),
    Row { effect: Effect::Log, ..Row::new("forge-log", Trace::Nothing) },
    Row { may_die: true, ..Row::alone("hidden-cr3", WALK, Effect::Memory) },
    // As what the processor itself reads.
    Row::new("hidden-idt", READ),
    Row::new("hidden-gdt", READ).only(Needs::LongMode),
    Row::new("hidden-ldt", READ).only(Needs::LongMode),
    // With the default guard nothing is read where task gates might be.
    Row::new("hidden-gdt", Trace::Delivered(&["read"])).only(Needs::ProtectedMode),
    Row::new("hidden-ldt", Trace::Delivered(&["read"])).only(Needs::ProtectedMode),
    Row::new("hidden-tss", READ).only(Needs::LongMode),
    // The task of the double fault cannot be reached by way of it.
    Row {
        may_die: true,
        ..Row::alone("hidden-tss", READ, Effect::Memory).only(Needs::ProtectedMode)
    },
    Row::new("hidden-port-map", READ),
    Row::new("hidden-page-directory", WALK).only(Needs::WideEntries),
    Row::new("svm-vmsave-hidden", Trace::Nothing),
    Row::new("svm-vmload-hidden", Trace::Nothing),
];
