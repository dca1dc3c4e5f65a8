//! Writes approval lists. The format is told in `policy::approval`.

use policy::approval::{Architecture, HEADER_BYTES, MAGIC, NAME_BYTES, VERSION};
use sha2::{Digest, Sha256};

use crate::Error;
use crate::kernel::Kernel;

/// What a list is to hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Contents {
    /// What the kernel is made for.
    pub architecture: Architecture,
    /// Physical entry point.
    pub entry: u64,
    /// The kernel's code.
    pub ranges: Vec<Range>,
}

/// A range of kernel code.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Range {
    /// The section's name.
    pub name: String,
    /// First physical address.
    pub physical: u64,
    /// Bytes that the section fills.
    pub filled: u64,
    /// First virtual address.
    pub virtual_start: u64,
    /// Whether it is init code.
    pub init: bool,
    /// SHA-256 of the filled bytes.
    pub sha256: [u8; 32],
}

impl Contents {
    /// What approves `kernel`.
    pub fn of(kernel: &Kernel<'_>) -> Self {
        let range = |section: &crate::kernel::Code<'_>| Range {
            name: section.name.into(),
            physical: section.physical,
            filled: section.bytes.len() as u64,
            virtual_start: section.virtual_start,
            init: section.init,
            sha256: Sha256::digest(section.bytes).into(),
        };
        Self {
            architecture: kernel.architecture,
            entry: kernel.entry,
            ranges: kernel.code.iter().map(range).collect(),
        }
    }
}

/// The bytes of a list, ordered as the format wants it, so that order of input does not matter.
pub fn encode(contents: &Contents) -> Result<Vec<u8>, Error> {
    let mut sorted = contents.clone();
    sorted.ranges.sort_by_key(|range| range.physical);
    let mut ranges = Vec::new();
    for range in &sorted.ranges {
        ranges.extend(name::<NAME_BYTES>(&range.name)?);
        let numbers = [range.physical, range.filled, range.virtual_start, range.init.into()];
        ranges.extend(numbers.into_iter().flat_map(u64::to_le_bytes));
        ranges.extend(range.sha256);
    }
    Ok([
        MAGIC.to_vec(),
        VERSION.to_le_bytes().into(),
        count(HEADER_BYTES + ranges.len())?.into(),
        (sorted.architecture as u32).to_le_bytes().into(),
        count(sorted.ranges.len())?.into(),
        // No modules, their sections and relocations, and four reserved bytes.
        vec![0; 16],
        sorted.entry.to_le_bytes().into(),
        vec![0; 16],
        ranges,
    ]
    .concat())
}

fn count(number: usize) -> Result<[u8; 4], Error> {
    let number = u32::try_from(number).map_err(|_| format!("{number} does not fit 32 bits"))?;
    Ok(number.to_le_bytes())
}

fn name<const N: usize>(text: &str) -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    let slots = bytes.get_mut(..text.len());
    slots
        .ok_or(format!("the name {text} is longer than {N} bytes"))?
        .copy_from_slice(text.as_bytes());
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::approval::ApprovalList;
    use proptest::prelude::*;

    /// What a parsed list says, in the shape it was made from.
    fn contents(list: ApprovalList<'_>) -> Contents {
        let ranges = list.kernel_ranges().map(|range| Range {
            name: range.name.into(),
            physical: range.physical.start(),
            filled: range.filled,
            virtual_start: range.virtual_start.0,
            init: range.init,
            sha256: range.sha256,
        });
        Contents {
            architecture: list.architecture(),
            entry: list.entry().0,
            ranges: ranges.collect(),
        }
    }

    fn ranges() -> impl Strategy<Value = Vec<Range>> {
        let one = (1u64..0x4000, 0u64..3, any::<bool>(), any::<[u8; 32]>());
        prop::collection::vec(one, 1..6).prop_map(|parts| {
            let mut physical = 0x10_0000;
            let range =
                |(index, (filled, gap, init, sha256)): (usize, (u64, u64, bool, [u8; 32]))| {
                    let start = physical + gap * 0x1000;
                    physical = start + filled.next_multiple_of(0x1000);
                    let name = format!(".text{index}");
                    Range {
                        name,
                        physical: start,
                        filled,
                        virtual_start: 0xC000_0000 + start,
                        init,
                        sha256,
                    }
                };
            parts.into_iter().enumerate().map(range).collect()
        })
    }

    proptest! {
        #[test]
        fn lists_round_trip_whatever_the_order(ranges in ranges(), i386: bool) {
            let architecture = if i386 { Architecture::I386 } else { Architecture::X86_64 };
            let entry = ranges[0].physical + ranges[0].filled - 1;
            let honest = Contents { architecture, entry, ranges };
            let bytes = encode(&honest).unwrap();
            prop_assert_eq!(contents(ApprovalList::parse(&bytes).unwrap()), honest.clone());
            let mut turned = honest;
            turned.ranges.reverse();
            prop_assert_eq!(encode(&turned).unwrap(), bytes);
        }
    }

    #[test]
    fn names_that_do_not_fit_are_refused() {
        assert!(name::<4>("four").is_ok());
        assert_eq!(name::<4>("fives").unwrap_err(), "the name fives is longer than 4 bytes");
    }
}
