//! Approved code is written to.

use super::{Row, WRITE};

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
];
