//! From GRUB to the first guest instruction: boot information, memory plan, guest loader.
//!
//! All of it is safe code that allocates nothing and does not panic, whatever GRUB, the firmware
//! or the guest's files hold; physical memory is reached through [`memory::PhysicalMemory`].
//! Nothing of this crate runs after launch.
#![cfg_attr(not(test), no_std)]
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

pub mod acpi;
mod bytes;
#[cfg(target_os = "none")]
pub mod entry;
pub mod error;
pub mod information;
pub mod kernel;
pub mod linux;
pub mod memory;
pub mod options;
pub mod plan;
pub mod screen;
#[cfg(test)]
mod testing;
