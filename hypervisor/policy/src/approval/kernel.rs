//! Comparing the kernel with its approval list, once, before it runs.

use sha2::{Digest, Sha256};

use super::{CodeRange, Mismatch};
use crate::address::{Gpa, PhysicalRange};

impl<'a> CodeRange<'a> {
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
