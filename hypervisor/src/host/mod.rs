//! SecVisor's own environment: its log, its page tables, its interrupt descriptors, device
//! registers.

pub mod console;
pub mod device;
pub mod interrupts;
pub mod paging;
pub mod retire;
