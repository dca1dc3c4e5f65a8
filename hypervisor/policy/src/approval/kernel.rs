//! The kernel of an approval list, and the comparison with the one that was loaded, before it runs.

use sha2::{Digest, Sha256};

use super::{ApprovalList, Fault, Fields, Mismatch, NAME_BYTES, RANGE_BYTES, require};
use crate::PAGE_SIZE;
use crate::address::{Gpa, Gva, PhysicalRange};

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

impl<'a> ApprovalList<'a> {
    /// What the kernel is made for.
    pub fn architecture(&self) -> Architecture {
        self.architecture
    }

    /// The kernel's physical entry point, inside one of its ranges.
    pub fn entry(&self) -> Gpa {
        self.entry
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
    pub(super) fn decode(record: &'a [u8; RANGE_BYTES]) -> Result<Self, Fault> {
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

    /// Whether the byte at `address` is one of the filled ones.
    pub fn holds(&self, address: Gpa) -> bool {
        address.0.checked_sub(self.physical.start()).is_some_and(|offset| offset < self.filled)
    }

    /// What the section leaves of its last page, to be filled with INT3; `None` if nothing.
    pub fn slack(&self) -> Option<PhysicalRange> {
        let start = self.physical.start().checked_add(self.filled)?;
        PhysicalRange::between(start, self.physical.end())
    }

    /// Compares the section's bytes, as loaded, with what the owner approved.
    ///
    /// # Errors
    /// [`Mismatch`] if a byte or the length differs.
    pub fn verify(&self, bytes: &[u8]) -> Result<(), Mismatch<'a>> {
        let found: [u8; 32] = Sha256::digest(bytes).into();
        if bytes.len() as u64 == self.filled && found == self.sha256 {
            Ok(())
        } else {
            Err(Mismatch { name: self.name, expected: self.sha256, found })
        }
    }
}
