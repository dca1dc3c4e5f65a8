//! Walks of the guest's own page tables, which are hostile and may change under the walk.
//!
//! A result tells what the tables said, never what is allowed: frame classes decide that.
//! (AMD64 APM vol. 2, 5.3)

use crate::address::{Gpa, Gva};

const PRESENT: u64 = 1;
const LARGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;
const PAGING: u64 = 1 << 31;
const LONG_MODE_ACTIVE: u64 = 1 << 10;
const PAGE_SIZE_EXTENSION: u64 = 1 << 4;
const PHYSICAL_ADDRESS_EXTENSION: u64 = 1 << 5;
const LA57: u64 = 1 << 12;

/// How the guest translates addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Paging {
    /// Not at all: a virtual address, of 32 bits, is a physical one.
    Off,
    /// Long mode: four levels, 48 bits. Five levels are hidden from the guest and not walked.
    FourLevels,
    /// 32-bit addresses, three levels of 8-byte entries (PAE).
    ThreeLevels,
    /// 32-bit addresses, two levels of 4-byte entries, with 4 MiB pages or without.
    TwoLevels {
        /// CR4.PSE.
        large: bool,
    },
    /// In no way that is walked: nothing is mapped.
    Unknown,
}

impl Paging {
    /// As the control registers say.
    #[inline(always)]
    pub const fn of(cr0: u64, cr4: u64, efer: u64) -> Self {
        if cr0 & PAGING == 0 {
            Self::Off
        } else if cr4 & LA57 != 0 {
            Self::Unknown
        } else if efer & LONG_MODE_ACTIVE != 0 {
            Self::FourLevels
        } else if cr4 & PHYSICAL_ADDRESS_EXTENSION != 0 {
            Self::ThreeLevels
        } else {
            Self::TwoLevels { large: cr4 & PAGE_SIZE_EXTENSION != 0 }
        }
    }

    /// Where `gva` lies. `read` gives the 8 bytes at a guest-physical address that is a multiple
    /// of 8, or `None` where the guest has no memory.
    #[inline(always)]
    pub fn translate(self, cr3: u64, gva: Gva, read: impl Fn(Gpa) -> Option<u64>) -> Option<Gpa> {
        match self {
            Self::Off => Some(Gpa(gva.0 & 0xFFFF_FFFF)),
            Self::FourLevels => four_levels(cr3, gva, read),
            Self::ThreeLevels => three_levels(cr3, gva, read),
            Self::TwoLevels { large } => two_levels(cr3, gva, large, read),
            Self::Unknown => None,
        }
    }
}

/// The present entry for `gva` in `table`, whose entries translate the bits from `shift` on.
#[inline(always)]
fn entry(table: u64, gva: Gva, shift: u32, read: &impl Fn(Gpa) -> Option<u64>) -> Option<u64> {
    let entry = read(Gpa(table & ADDRESS | ((gva.0 >> shift) & 0x1FF) << 3))?;
    if entry & PRESENT != 0 { Some(entry) } else { None }
}

/// Where the leaf `entry`, which translates the bits from `shift` on, maps `gva`.
#[inline(always)]
fn leaf(entry: u64, gva: Gva, shift: u32) -> Option<Gpa> {
    let offset = (1u64 << shift).wrapping_sub(1);
    Some(Gpa(entry & ADDRESS & !offset | gva.0 & offset))
}

/// Written out level by level: this walk is the longest part of a system call.
#[inline(always)]
fn four_levels(root: u64, gva: Gva, read: impl Fn(Gpa) -> Option<u64>) -> Option<Gpa> {
    let pointers = entry(root, gva, 39, &read)?;
    let directory = entry(pointers, gva, 30, &read)?;
    if directory & LARGE != 0 {
        return leaf(directory, gva, 30);
    }
    from_directory(directory, gva, read)
}

#[inline(always)]
fn from_directory(directory: u64, gva: Gva, read: impl Fn(Gpa) -> Option<u64>) -> Option<Gpa> {
    let table = entry(directory, gva, 21, &read)?;
    if table & LARGE != 0 {
        return leaf(table, gva, 21);
    }
    leaf(entry(table, gva, 12, &read)?, gva, 12)
}

/// APM vol. 2, 5.2.4: CR3 names four entries, 32 bytes together.
#[inline(never)]
fn three_levels(root: u64, gva: Gva, read: impl Fn(Gpa) -> Option<u64>) -> Option<Gpa> {
    let directory = read(Gpa(root & 0xFFFF_FFE0 | (gva.0 >> 30 & 3) << 3))?;
    if directory & PRESENT == 0 {
        return None;
    }
    from_directory(directory, gva, read)
}

/// APM vol. 2, 5.2.3. A 4 MiB page has bits 32 to 39 of its address in bits 13 to 20 (PSE-36).
#[inline(never)]
fn two_levels(root: u64, gva: Gva, large: bool, read: impl Fn(Gpa) -> Option<u64>) -> Option<Gpa> {
    let entry = |table: u64, shift: u32| {
        let at = table & 0xFFFF_F000 | (gva.0 >> shift & 0x3FF) << 2;
        let entry = read(Gpa(at & !7))? >> ((at & 4) << 3) & 0xFFFF_FFFF;
        if entry & PRESENT != 0 { Some(entry) } else { None }
    };
    let table = entry(root, 22)?;
    if large && table & LARGE != 0 {
        let high = (table >> 13 & 0xFF) << 32;
        return Some(Gpa(high | table & 0xFFC0_0000 | gva.0 & 0x3F_FFFF));
    }
    leaf(entry(table, 12)?, gva, 12)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    const LONG: (u64, u64, u64) = (PAGING | 1, 1 << 5, LONG_MODE_ACTIVE);

    #[test]
    fn the_mode_follows_from_the_control_registers() {
        assert_eq!(Paging::of(1, 0, 0), Paging::Off);
        assert_eq!(Paging::of(LONG.0, LONG.1, LONG.2), Paging::FourLevels);
        assert_eq!(Paging::of(LONG.0, LONG.1 | LA57, LONG.2), Paging::Unknown);
        assert_eq!(Paging::of(LONG.0, LONG.1, 0), Paging::ThreeLevels);
        assert_eq!(Paging::of(LONG.0, 0, 0), Paging::TwoLevels { large: false });
        assert_eq!(Paging::of(LONG.0, 1 << 4, 0), Paging::TwoLevels { large: true });
        assert_eq!(Paging::Off.translate(0, Gva(7 << 32 | 0x1234), |_| None), Some(Gpa(0x1234)));
        assert_eq!(Paging::Unknown.translate(0, Gva(0x1234), |_| Some(!0)), None);
    }

    /// Tables that map `gva` to `target` by a leaf at the last of `shifts`: 8-byte words of memory.
    fn mapped(
        gva: u64,
        root: u64,
        shifts: &[u32],
        entry_bits: u32,
        (target, flags): (u64, u64),
    ) -> HashMap<u64, u64> {
        let (mut memory, mut table) = (HashMap::new(), root);
        for (level, &shift) in shifts.iter().enumerate() {
            let last = level + 1 == shifts.len();
            let large = if last && shift > 12 { LARGE } else { 0 };
            let next = 0x10_0000 + (level as u64 + 1) * 0x1000;
            let to = if last { target } else { next };
            let at = table + ((gva >> shift & ((4096 >> entry_bits) - 1)) << entry_bits);
            let value = to | flags | large | PRESENT;
            // A 4-byte entry fills one half of its word, junk the other.
            let value = match (entry_bits, at & 4) {
                (3, _) => value,
                (_, 0) => value & 0xFFFF_FFFF | 0xDEAD_BEEE << 32,
                _ => value << 32 | 0xDEAD_BEEE,
            };
            memory.insert(at & !7, value);
            table = next;
        }
        memory
    }

    fn translate(paging: Paging, cr3: u64, gva: u64, memory: &HashMap<u64, u64>) -> Option<Gpa> {
        paging.translate(cr3, Gva(gva), |gpa| memory.get(&gpa.0).copied())
    }

    const PAGES: usize = 16;

    /// The manual's figures read once more: bits of an address per level, bytes of an entry.
    fn second_walker(paging: Paging, cr3: u64, gva: u64, memory: &[u8]) -> Option<u64> {
        let (levels, size): (&[u32], usize) = match paging {
            Paging::FourLevels => (&[9, 9, 9, 9], 8),
            Paging::ThreeLevels => (&[2, 9, 9], 8),
            _ => (&[10, 10], 4),
        };
        let mut left: u32 = 12 + levels.iter().sum::<u32>();
        let mut table = match paging {
            Paging::ThreeLevels => cr3 / 32 * 32 % (1 << 32),
            _ => cr3 / 4096 * 4096 % (1 << 52),
        };
        for (depth, bits) in levels.iter().enumerate() {
            left -= bits;
            let index = (gva >> left) % (1 << bits);
            let at = usize::try_from(table).unwrap() + index as usize * size;
            let mut entry = [0; 8];
            entry[..size].copy_from_slice(memory.get(at..at + size)?);
            let entry = u64::from_le_bytes(entry);
            let may_be_large = match paging {
                Paging::FourLevels => depth == 1 || depth == 2,
                Paging::ThreeLevels => depth == 1,
                Paging::TwoLevels { large } => large && depth == 0,
                _ => false,
            };
            if entry % 2 == 0 {
                return None;
            }
            let address = entry % (1 << 52);
            if left == 12 || may_be_large && entry / 128 % 2 == 1 {
                let page = 1 << left;
                // Above 4 MiB pages, bits 13 to 20 are bits 32 to 39.
                let high = if left == 22 { (entry / (1 << 13)) % 256 * (1 << 32) } else { 0 };
                return Some(high + address / page * page + gva % page);
            }
            table = address / 4096 * 4096;
        }
        None
    }

    proptest! {
        #[test]
        fn four_levels_are_walked_at_every_leaf_size(
            gva in 0u64..1 << 47, frame in 0u64..1 << 36, leaf in 1usize..4, junk: u64
        ) {
            let shifts = &[39, 30, 21, 12][..=leaf];
            let size = 1u64 << shifts[leaf];
            let target = (frame << 12) & !(size - 1) & ADDRESS;
            let flags = junk & 0xFFF0_0000_0000_0F7E;
            let memory = mapped(gva, 0x1000, shifts, 3, (target, flags));
            let found = translate(Paging::FourLevels, 0x1018, gva, &memory);
            prop_assert_eq!(found, Some(Gpa(target | gva & (size - 1))));
            prop_assert_eq!(translate(Paging::FourLevels, 0x9000, gva, &memory), None);
        }

        #[test]
        fn three_levels_are_walked_at_every_leaf_size(
            gva in 0u64..1 << 32, frame in 0u64..1 << 36, leaf in 1usize..3, root in 0u64..0x80, junk: u64
        ) {
            let shifts = &[30, 21, 12][..=leaf];
            let size = 1u64 << shifts[leaf];
            let target = (frame << 12) & !(size - 1) & ADDRESS;
            // The first table has four entries, 32 bytes anywhere in a page.
            let root = 0x2000 + root * 0x20;
            let mut memory = mapped(gva, 0, shifts, 3, (target, junk & 0x8000_0000_0000_0E7E));
            let first = memory.remove(&(gva >> 30 << 3)).unwrap();
            memory.insert(root + (gva >> 30 << 3), first & !0x8000_0000_0000_01E6);
            let found = translate(Paging::ThreeLevels, root | 0x1F, gva, &memory);
            prop_assert_eq!(found, Some(Gpa(target | gva & (size - 1))));
            // Only 32 bits of an address count.
            let high = gva | junk << 32;
            prop_assert_eq!(translate(Paging::ThreeLevels, root, high, &memory), found);
        }

        #[test]
        fn two_levels_are_walked_with_and_without_large_pages(
            gva in 0u64..1 << 32, frame in 0u64..1 << 20, high in 0u64..0x100, junk: u64
        ) {
            let flags = junk & 0xE7E;
            let small = mapped(gva, 0x3000, &[22, 12], 2, (frame << 12, flags));
            let expected = Some(Gpa(frame << 12 | gva & 0xFFF));
            for large in [false, true] {
                let found = translate(Paging::TwoLevels { large }, 0x3018, gva, &small);
                prop_assert_eq!(found, expected);
            }
            let target = frame << 12 & 0xFFC0_0000;
            let large = mapped(gva, 0x3000, &[22], 2, (target, flags | high << 13));
            let found = translate(Paging::TwoLevels { large: true }, 0x3000, gva, &large);
            prop_assert_eq!(found, Some(Gpa(high << 32 | target | gva & 0x3F_FFFF)));
        }

        #[test]
        fn random_tables_are_walked_as_a_second_walker_does(
            seed: u64, cr3 in 0u64..0x1_0000, gva: u64
        ) {
            // Entries point at one another most of the time; some are absent, some are large.
            let mut junk = seed;
            let entries: Vec<u64> = (0..PAGES * 512).map(|_| {
                junk = junk.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
                let kind = [1, 1, 1, 1, 1, 1, 0x81, 0][(junk >> 61) as usize];
                junk & 0x8000_0000_0000_0E00 | junk >> 32 & 0xF000 | kind
            }).collect();
            // Two of 4 bytes lie where one of 8 does.
            let wide: Vec<u8> = entries.iter().flat_map(|it| it.to_le_bytes()).collect();
            let narrow: Vec<u8> =
                entries.iter().flat_map(|it| (it & 0xFFFF | it << 32).to_le_bytes()).collect();
            for (paging, bytes) in [
                (Paging::FourLevels, &wide),
                (Paging::ThreeLevels, &wide),
                (Paging::TwoLevels { large: true }, &narrow),
                (Paging::TwoLevels { large: false }, &narrow),
            ] {
                let read = |gpa: Gpa| {
                    let at = bytes.get(gpa.0 as usize..)?.first_chunk()?;
                    Some(u64::from_le_bytes(*at))
                };
                let found = paging.translate(cr3, Gva(gva), read).map(|gpa| gpa.0);
                prop_assert_eq!(found, second_walker(paging, cr3, gva, bytes), "{:?}", paging);
            }
        }

        #[test]
        fn hostile_tables_end_the_walk(cr3: u64, gva: u64, entry: u64, large: bool) {
            for paging in [Paging::FourLevels, Paging::ThreeLevels, Paging::TwoLevels { large }] {
                let _ = paging.translate(cr3, Gva(gva), |gpa| {
                    assert!(gpa.0 % 8 == 0 && gpa.0 < 1 << 52);
                    Some(entry)
                });
            }
        }
    }
}
