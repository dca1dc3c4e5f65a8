//! What one processor does to others, and INIT by any way.

use super::{Batch, Effect, Row, Trace, WRITE};

const fn smp(name: &'static str) -> Row {
    Row { batch: Batch::Processors, ..Row::new(name, Trace::Kind(&["init"])) }
}

pub(super) const ROWS: &[Row] = &[
    smp("init-broadcast"),
    smp("init-directed"),
    Row { trace: Trace::Kind(&["init", "write"]), ..smp("init-user") },
    smp("init-x2apic-broadcast"),
    smp("init-x2apic-directed"),
    Row::alone("init-io-apic", Trace::Kind(&["init"]), Effect::Reset),
    Row::alone("init-message", WRITE, Effect::Reset),
    Row::alone("init-message-page", Trace::Frame(&["init"]), Effect::Reset),
];
