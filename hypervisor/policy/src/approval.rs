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

use crate::PAGE_SIZE;
use crate::address::{Gpa, Gva, PhysicalRange};

mod check;
mod kernel;
mod module;
#[cfg(test)]
pub(crate) mod tests;

pub use check::ListError;
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
/// The processor mode that the kernel is made for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Architecture {
    /// 32-bit protected mode (`EM_386`).
    I386 = 3,
    /// Long mode (`EM_X86_64`).
    X86_64 = 62,
}

impl Architecture {
    /// The name in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::I386 => "i386",
            Self::X86_64 => "x86_64",
        }
    }
}

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
    /// What the kernel is made for.
    pub fn architecture(&self) -> Architecture {
        self.architecture
    }

    /// The kernel's physical entry point, inside one of its ranges.
    pub fn entry(&self) -> Gpa {
        self.entry
    }

    /// The virtual addresses that modules may lie at; empty if there are none.
    pub fn window(&self) -> Range<u64> {
        self.window.0..self.window.1
    }

    /// The kernel's code, by ascending physical address.
    pub fn kernel_ranges(&self) -> impl Iterator<Item = CodeRange<'a>> + Clone + use<'a> {
        self.ranges.iter().filter_map(|record| CodeRange::decode(record).ok())
    }
}

/// A range of kernel code: a section of vmlinux and the frames that it fills.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CodeRange<'a> {
    /// The section's name.
    pub name: &'a str,
    /// Its frames, whole ones.
    pub physical: PhysicalRange,
    /// The bytes that the section fills, from the start; these are hashed.
    pub filled: u64,
    /// Where the kernel runs it.
    pub virtual_start: Gva,
    /// Whether it is init code, which may be released once.
    pub init: bool,
    /// SHA-256 of the filled bytes.
    pub sha256: [u8; 32],
}

impl<'a> CodeRange<'a> {
    fn decode(record: &'a [u8; RANGE_BYTES]) -> Result<Self, Fault> {
        let mut fields = Fields(record);
        let name = fields.name::<NAME_BYTES>()?;
        let [start, filled, virtual_start, flags] = core::array::from_fn(|_| fields.u64());
        require(start.is_multiple_of(PAGE_SIZE), "physical start not on a page border", start)?;
        let aligned = virtual_start.is_multiple_of(PAGE_SIZE);
        require(aligned, "virtual start not on a page border", virtual_start)?;
        require(flags <= 1, "unknown flags", flags)?;
        let physical = PhysicalRange::new(start, filled).and_then(PhysicalRange::grow_to_frames);
        Ok(Self {
            name,
            physical: physical.ok_or(Fault("range empty or past the last address", filled))?,
            filled,
            virtual_start: Gva(virtual_start),
            init: flags == 1,
            sha256: *fields.bytes(),
        })
    }

    /// One past the last virtual address of its pages.
    pub fn virtual_end(&self) -> Gva {
        Gva(self.virtual_start.0.saturating_add(self.physical.length()))
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
