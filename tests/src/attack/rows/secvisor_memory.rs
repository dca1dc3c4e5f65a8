//! SecVisor's own memory and log.

use super::{Effect, KERNEL_FETCH, READ, Row, Trace, WALK, WRITE};

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
];
