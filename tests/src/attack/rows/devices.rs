//! What devices and chipset do for a guest.

use super::{Effect, Needs, Row, Trace, WRITE};

/// Any guest may reset its machine.
const fn reset(name: &'static str) -> Row {
    Row {
        not_promised: Some("availability is no aim: a guest may reset its machine"),
        ..Row::alone(name, Trace::Nothing, Effect::Reset)
    }
}

pub(super) const ROWS: &[Row] = &[
    Row::new("a20-port-92", Trace::Nothing),
    Row::new("a20-keyboard", Trace::Nothing),
    Row::new("a20-in-between", Trace::Nothing),
    Row::new("pci-text-ports", Trace::Number("port")),
    Row::new("pci-text-memory", WRITE),
    Row::new("hpet-text", WRITE),
    Row::new("hpet-text-quads", WRITE).only(Needs::LongMode),
    Row::new("firmware-dma-text", Trace::Nothing),
    Row::new("pci-rom-opened", Trace::Number("port")),
    Row::new("pci-smram-opened", Trace::Number("port")),
    Row::new("pci-ecam-moved", Trace::Number("port")),
    Row {
        // Only these: what other registers lay over RAM, other rows try.
        impossible: Some("RAM outranks devices' base addresses in the chipset's map"),
        ..Row::new("pci-display-over-text", Trace::Nothing)
    },
    Row::new("virtual-apic-text", Trace::Nothing).only(Needs::LongMode),
    Row {
        not_promised: Some(
            "the log's lines: a device's ports can cover the UART; the ring has them all",
        ),
        ..Row::new("pci-ports-over-log", Trace::Nothing)
    },
    Row::new("pci-ports-over-address", Trace::Nothing),
    Row::new("a20-covered", Trace::Nothing),
    reset("reset-port-92"),
    reset("reset-keyboard"),
    Row::alone("sleep-s3", Trace::Kind(&["sleep"]), Effect::Sleep),
    Row::alone("sleep-moved", Trace::Number("port"), Effect::Sleep),
];
