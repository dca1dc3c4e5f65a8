//! What SecVisor decides, apart from the hardware that obeys.
//!
//! Everything here is safe, allocation-free code over plain values: it runs unchanged inside the
//! hypervisor, in the host tool and in the tests. No function of this crate panics.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::panic
    )
)]

pub mod address;
pub mod apic;
pub mod approval;
pub mod control;
pub mod fault;
pub mod flush;
pub mod frame;
pub mod hypercall;
pub mod msr;
pub mod nested;
pub mod pci;
pub mod port;
pub mod units;
pub mod violation;
pub mod walk;

/// Size of a page and of a frame, in bytes.
pub const PAGE_SIZE: u64 = 4096;
/// Size of a large page, the leaf of nested tables where classes do not meet, in bytes.
pub const LARGE_PAGE_SIZE: u64 = 2 << 20;
