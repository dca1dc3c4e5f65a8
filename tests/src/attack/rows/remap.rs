//! Addresses are pointed elsewhere.

use super::modules::row;
use super::{KERNEL_FETCH, Needs, Row, WRITE};

/// What approved bytes spell otherwise than their author meant.
const SPELLING: Option<&str> = Some(
    "control flow inside approved code: its bytes run from the middle, in another mode, or with another \
     approved page behind",
);

pub(super) const ROWS: &[Row] = &[
    Row::new("exec-repointed-text", KERNEL_FETCH),
    Row::new("exec-own-cr3", KERNEL_FETCH),
    Row::new("exec-other-format", KERNEL_FETCH).only(Needs::ProtectedMode),
    row("alias-write-warm", WRITE),
    row("alias-write-warm-user", WRITE),
    row("alias-exec-warm", KERNEL_FETCH),
    row("alias-exec-straddling", KERNEL_FETCH),
    row("write-text-huge-alias", WRITE).only(Needs::LongMode),
    Row { not_promised: SPELLING, ..row("text-other-order", KERNEL_FETCH) },
    Row { not_promised: SPELLING, ..row("text-other-mode", KERNEL_FETCH) }.only(Needs::LongMode),
    Row::new("exec-page-pointer", KERNEL_FETCH).only(Needs::PagePointers),
];
