//! The approval list: what the owner signs off, read in place.
//!
//! One file without gaps, all fields little-endian, all reserved bytes zero, names printable ASCII
//! without spaces, padded with zeroes:
//!
//! ```text
//! header       64: magic[8] version:u32 length:u32 machine:u32 ranges:u32 modules:u32
//!                  sections:u32 relocations:u32 reserved:u32 entry:u64 window:u64 window_end:u64
//! kernel range 96: name[32] physical:u64 filled:u64 virtual:u64 flags:u64 sha256[32]
//! module       64: name[56] sections:u32 reserved:u32
//! section      80: name[32] offset:u32 size:u32 region:u32 relocations:u32 sha256[32]
//! relocation   16: offset:u32 field:u8 base:u8 module:u16 value:u64
//! ```
//!
//! `length` is the whole file's, `machine` is ELF's `e_machine`, `entry` is physical. Kernel
//! ranges ascend by physical start and share no page; `filled` bytes are hashed and SecVisor
//! fills the rest of the last page with INT3; flag bit 0 marks init code, which may be released.
//!
//! A module's `sections` is one past its last section in the table of sections, and a section's
//! `relocations` likewise; the first of each follows the owner before. A module has two regions, 0
//! core and 1 init, each with one page-aligned base between `window` and `window_end`, which the
//! running kernel chooses. A section lies at `offset` in its region; its hash is over its bytes
//! with relocated fields zeroed; what sections leave of their pages is INT3. A relocated field is 1
//! four bytes zero-extended, 2 four bytes sign-extended, 3 four bytes relative to the field, 4
//! eight bytes; it holds `value`, which is symbol plus addend, counted from `base`: 0 nothing (a
//! kernel address), 1 the core region of module number `module`, 2 the init region of its own
//! module. Modules ascend by name, sections by region and offset, relocations by offset, and none
//! overlap.
//!
//! The file is hostile until [`ApprovalList::parse`] has seen all of it: every rule is checked
//! there, once, and the accessors of a parsed list only read.

use core::fmt;
use core::ops::Range;

use crate::address::Gpa;

mod check;
mod kernel;
mod module;
#[cfg(test)]
pub(crate) mod tests;

pub use check::ListError;
pub use kernel::{Architecture, CodeRange};
pub use module::{Base, Field, Module, Relocation, Section};

/// First bytes of every approval list.
pub const MAGIC: [u8; 8] = *b"SVAPPROV";
/// The version that this code reads and the host tool writes.
pub const VERSION: u32 = 1;
/// Size of the header, in bytes.
pub const HEADER_BYTES: usize = 64;
/// Size of a kernel range, in bytes.
pub const RANGE_BYTES: usize = 96;
/// Size of a module, in bytes.
pub const MODULE_BYTES: usize = 64;
/// Size of a section, in bytes.
pub const SECTION_BYTES: usize = 80;
/// Size of a relocation, in bytes.
pub const RELOCATION_BYTES: usize = 16;
/// Space for the name of a module, in bytes.
pub const MODULE_NAME_BYTES: usize = 56;
/// Space for the name of a kernel range or a section, in bytes.
pub const NAME_BYTES: usize = 32;
/// Most kernel ranges that a list may hold.
pub const MAX_RANGES: u32 = 16;
/// Most modules that a list may hold: their numbers in relocations have 16 bits.
pub const MAX_MODULES: u32 = 1 << 16;
/// A broken rule and the value that breaks it.
#[derive(Debug)]
struct Fault(&'static str, u64);

fn require(holds: bool, fault: &'static str, value: impl Into<u64>) -> Result<(), Fault> {
    if holds { Ok(()) } else { Err(Fault(fault, value.into())) }
}

/// The fields of a record that are not read yet. What lies past its end reads as zeroes.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn bytes<const N: usize>(&mut self) -> &'a [u8; N] {
        let (head, tail) = self.0.split_first_chunk().unwrap_or((const { &[0; N] }, &[]));
        self.0 = tail;
        head
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(*self.bytes())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(*self.bytes())
    }

    fn name<const N: usize>(&mut self) -> Result<&'a str, Fault> {
        let bytes = self.bytes::<N>();
        let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(N);
        let (text, padding) = bytes.split_at_checked(end).unwrap_or((bytes, &[]));
        let bad = text.iter().find(|byte| !byte.is_ascii_graphic());
        match bad.or(padding.iter().find(|&&byte| byte != 0)) {
            Some(&byte) => Err(Fault("byte in a name that is not printable", byte.into())),
            None if text.is_empty() => Err(Fault("empty name, of bytes", N as u64)),
            None => Ok(str::from_utf8(text).unwrap_or_default()),
        }
    }
}

/// An approval list whose every byte has been checked.
#[derive(Clone, Copy, Debug)]
pub struct ApprovalList<'a> {
    architecture: Architecture,
    entry: Gpa,
    window: (u64, u64),
    ranges: &'a [[u8; RANGE_BYTES]],
    modules: &'a [[u8; MODULE_BYTES]],
    sections: &'a [[u8; SECTION_BYTES]],
    relocations: &'a [[u8; RELOCATION_BYTES]],
}

impl<'a> ApprovalList<'a> {
    /// The virtual addresses that modules may lie at; empty if there are none.
    pub fn window(&self) -> Range<u64> {
        self.window.0..self.window.1
    }

    /// Name of the kernel's range with this number, and whether it is init code.
    pub fn kernel_range(&self, number: usize) -> Option<(&'a str, bool)> {
        let mut fields = Fields(self.ranges.get(number)?);
        let name = fields.name::<NAME_BYTES>().ok()?;
        let [_, _, _, flags] = core::array::from_fn(|_| fields.u64());
        Some((name, flags == 1))
    }
}

/// Code that is not what the owner approved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mismatch<'a> {
    /// The section's name.
    pub name: &'a str,
    /// SHA-256 in the approval list.
    pub expected: [u8; 32],
    /// SHA-256 of the bytes that are there.
    pub found: [u8; 32],
}

impl fmt::Display for Mismatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, expected, found) = (self.name, Hex(&self.expected), Hex(&self.found));
        write!(f, "section {name}: approved SHA-256 {expected}, found {found}")
    }
}

/// Bytes shown as hexadecimal digits.
#[derive(Clone, Copy, Debug)]
pub struct Hex<'a>(pub &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
