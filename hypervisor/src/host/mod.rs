//! SecVisor's own environment: its log, its page tables, its interrupt descriptors.

pub mod console;
pub mod interrupts;
pub mod paging;
