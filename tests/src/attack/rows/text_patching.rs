//! Approved code is written to.

use super::{Needs, Row, Trace, WRITE};

pub(super) const ROWS: &[Row] = &[
    Row::new("write-text-wp0", WRITE),
    Row::new("write-text-entry", WRITE),
    Row::new("write-text-alias", WRITE),
    Row::new("write-text-large-alias", WRITE),
    Row::new("write-text-user-alias", WRITE),
    Row::new("write-text-straddling", WRITE),
    Row::new("push-text", WRITE),
    Row::new("push-text-event", WRITE),
    Row::new("push-text-fault", WRITE),
    Row::new("push-text-entry-stack", WRITE),
    Row::new("page-walk-text", WRITE),
    // What the processor marks when it loads a descriptor, and where it leaves a task.
    Row::new("step-text-table", WRITE),
    Row::new("load-text-table", WRITE),
    Row::new("busy-text", WRITE),
    Row::new("task-state-text", WRITE).only(Needs::ProtectedMode),
    Row::new("svm-vmsave-text", Trace::Nothing),
    Row::new("write-text-string", WRITE),
    Row::new("write-text-exchange", WRITE),
    Row::new("write-text-compare", WRITE),
    Row::new("write-text-bit", WRITE),
    Row::new("write-text-nontemporal", WRITE),
    Row::new("write-text-masked", WRITE),
    Row::new("write-text-fxsave", WRITE),
    Row::new("write-text-environment", WRITE),
    Row::new("write-text-sgdt", WRITE),
    Row::new("write-text-pop", WRITE),
    Row::new("write-text-port", WRITE),
    Row::new("write-text-enter", WRITE),
    Row::new("write-text-call", WRITE),
    Row::new("write-text-slack", WRITE),
    Row::new("push-text-interrupt-stack", WRITE).only(Needs::LongMode),
    Row::new("page-walk-text-user", WRITE),
];
