//! What one processor does to others, and INIT by any way.

use super::{Batch, Effect, Row, Trace, WRITE};

const fn smp(name: &'static str) -> Row {
    Row { batch: Batch::Processors, ..Row::new(name, Trace::Kind(&["init"])) }
}

pub(super) const ROWS: &[Row] = &[
    smp("init-broadcast"),
    smp("init-directed"),
    Row { trace: Trace::Kind(&["init", "write"]), ..smp("init-user") },
    Row::alone("init-io-apic", Trace::Kind(&["init"]), Effect::Reset),
    Row::alone("init-message", WRITE, Effect::Reset),
    Row::alone("init-message-page", Trace::Frame(&["init"]), Effect::Reset),
    Row { trace: WRITE, ..smp("parked-overwritten") },
    Row { trace: WRITE, ..smp("init-exchange") },
    Row { trace: WRITE, ..smp("init-string") },
    smp("init-vector"),
    smp("smi-vector"),
    smp("smi-command"),
    // They leave the local APIC in x2APIC mode.
    smp("init-x2apic-broadcast"),
    smp("init-x2apic-directed"),
    smp("init-x2apic-vector"),
    Row::alone("init-hpet", WRITE, Effect::Reset),
    Row {
        not_promised: Some("INIT that a device sends cannot be seen without interrupt remapping"),
        ..Row::alone("init-msi", Trace::Nothing, Effect::Reset)
    },
];
