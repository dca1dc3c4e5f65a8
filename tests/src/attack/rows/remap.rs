//! Addresses are pointed elsewhere.

use super::{KERNEL_FETCH, Needs, Row};

pub(super) const ROWS: &[Row] = &[
    Row::new("exec-repointed-text", KERNEL_FETCH),
    Row::new("exec-own-cr3", KERNEL_FETCH),
    Row::new("exec-other-format", KERNEL_FETCH).only(Needs::ProtectedMode),
    Row::new("exec-page-pointer", KERNEL_FETCH).only(Needs::PagePointers),
];
