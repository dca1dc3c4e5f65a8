//! Kernel mode executes user memory.

use super::{KERNEL_FETCH, Needs, Row};

pub(super) const ROWS: &[Row] = &[
    Row::new("ret2user", KERNEL_FETCH),
    Row::new("ret2user-supervisor-page", KERNEL_FETCH),
    Row::new("ret2user-smep", KERNEL_FETCH),
    Row::new("ret2user-iret", KERNEL_FETCH),
    Row::new("ret2user-cpl1", KERNEL_FETCH),
    Row::new("ret2user-cpl2", KERNEL_FETCH),
    Row::new("ret2user-far", KERNEL_FETCH),
    Row::new("exec-smep-off", KERNEL_FETCH),
    Row::new("ret2user-compatibility", KERNEL_FETCH).only(Needs::LongMode),
    Row::new("ret2user-segment-base", KERNEL_FETCH).only(Needs::ProtectedMode),
];
