//! Kernel mode executes user memory.

use super::{KERNEL_FETCH, Row};

pub(super) const ROWS: &[Row] = &[
    Row::new("ret2user", KERNEL_FETCH),
    Row::new("ret2user-supervisor-page", KERNEL_FETCH),
    Row::new("ret2user-smep", KERNEL_FETCH),
    Row::new("ret2user-iret", KERNEL_FETCH),
];
