//! Addresses that cannot be mistaken for one another, and ranges that cannot wrap.

use core::fmt;

use crate::PAGE_SIZE;

mod range;

pub use range::PhysicalRange;

/// A guest-physical address. SecVisor maps the guest one to one, so it is the host-physical
/// address too (identity, constant, injective).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Gpa(pub u64);

/// A guest-virtual address, as the guest's own page tables see it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Gva(pub u64);

impl Gpa {
    /// The number of the frame that holds this address.
    pub const fn frame(self) -> u64 {
        self.0 / PAGE_SIZE
    }
}

impl fmt::LowerHex for Gpa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.0, f)
    }
}

impl fmt::LowerHex for Gva {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_address_is_its_number_and_lies_in_one_frame(number: u64) {
            let frame = Gpa(number).frame();
            prop_assert!(frame * PAGE_SIZE <= number && number - frame * PAGE_SIZE < PAGE_SIZE);
            let shown = format!("{number:x} {number:#x}");
            prop_assert_eq!(format!("{:x} {:#x}", Gpa(number), Gpa(number)), shown.as_str());
            prop_assert_eq!(format!("{:x} {:#x}", Gva(number), Gva(number)), shown.as_str());
        }
    }
}
