//! Harness that boots SecVisor and its guests in emulators and judges them from outside.

pub mod attack;
pub mod bochs;
pub mod console;
pub mod elf;
pub mod gdb;
pub mod iso;
pub mod module;
pub mod outside;
pub mod paging;
pub mod qemu;
pub mod record;

/// What went wrong, as one readable text.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
/// A result whose error is a readable text.
pub type Result<T> = std::result::Result<T, Error>;
