//! What a locked kernel tries to change.

use super::{Group, Needs, Row, Trace};

const fn row(name: &'static str) -> Row {
    Row { group: Group::Pinned, ..Row::new(name, Trace::Number("pinned")) }
}

/// What a processor without SecVisor refuses as well.
const fn impossible(name: &'static str) -> Row {
    Row { impossible: true, ..row(name) }
}

pub(super) const ROWS: &[Row] = &[
    row("lock-cr0-wp"),
    row("lock-cr0-wp-last"),
    row("lock-cr0-pg"),
    row("lock-cr0-pe"),
    row("lock-lmsw"),
    row("lock-cr4-smep"),
    row("lock-cr4-smap"),
    row("lock-cr4-umip"),
    // Not from 64-bit code.
    impossible("lock-cr4-la57").only(Needs::LongMode),
    row("lock-cr4-la57").only(Needs::ProtectedMode),
    row("lock-cr4-pae").only(Needs::AllButPae),
    row("lock-efer-nxe"),
    row("lock-efer-sce"),
    row("lock-efer-lme"),
    row("lock-star"),
    row("lock-lstar"),
    row("lock-cstar"),
    row("lock-sfmask"),
    row("lock-idtr"),
];
