//! Physical memory: the machine's map, and the way to its bytes.

use arrayvec::ArrayVec;
use policy::address::PhysicalRange;

use crate::error::BootError;

/// Entries that a map holds at most: as many as Linux takes (E820_MAX_ENTRIES_ZEROPAGE).
pub const MAX_ENTRIES: usize = 128;
/// E820 type of usable memory (ACPI spec, "Address Range Types").
pub const RAM: u32 = 1;
/// E820 type of what the guest must leave alone.
pub const RESERVED: u32 = 2;
/// E820 type of memory that is defective, the highest one that is kept.
const BAD: u32 = 5;
/// What AMD64 addresses can reach: 52 bits.
const ADDRESS_LIMIT: u64 = 1 << 52;

/// Physical memory as the loader sees it.
pub trait PhysicalMemory {
    /// The bytes in `range`, all of them.
    fn bytes(&self, range: PhysicalRange) -> &[u8];
    /// The bytes in `range`, all of them, to be written.
    fn bytes_mut(&mut self, range: PhysicalRange) -> &mut [u8];
    /// Copies the bytes in `from` to `to`; the two places may overlap.
    fn copy(&mut self, from: PhysicalRange, to: u64);
}

/// One entry of a memory map; both ends lie on page borders.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// First byte.
    pub start: u64,
    /// One past the last byte, greater than `start`.
    pub end: u64,
    /// E820 type: [`RAM`], [`RESERVED`], 3 ACPI tables, 4 ACPI non-volatile, 5 defective.
    pub kind: u32,
}

/// A memory map: sorted, without overlaps, neighbours of one kind merged.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MemoryMap {
    entries: ArrayVec<Entry, MAX_ENTRIES>,
}

impl MemoryMap {
    /// The map of `entries` (start, length in bytes, E820 type). Where they overlap the higher
    /// type wins, so RAM loses to everything; RAM shrinks to whole frames and the rest grows to
    /// them; unknown types are reserved.
    ///
    /// # Errors
    /// [`BootError::MemoryMapFull`] if [`MAX_ENTRIES`] do not suffice.
    pub fn from_entries(
        entries: impl IntoIterator<Item = (u64, u64, u32)>,
    ) -> Result<Self, BootError<'static>> {
        let mut map = Self::default();
        for (start, length, kind) in entries {
            let end = start.saturating_add(length).min(ADDRESS_LIMIT);
            let range = PhysicalRange::between(start, end);
            let kind = if (RAM..=BAD).contains(&kind) { kind } else { RESERVED };
            let frames = match kind {
                RAM => range.and_then(PhysicalRange::shrink_to_frames),
                _ => range.and_then(PhysicalRange::grow_to_frames),
            };
            if let Some(frames) = frames {
                map.insert(frames, kind)?;
            }
        }
        Ok(map)
    }

    /// The entries, as E820 tells them to the guest.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The usable memory, from the lowest.
    pub fn ram(&self) -> impl DoubleEndedIterator<Item = PhysicalRange> + '_ {
        let ram = self.entries.iter().filter(|entry| entry.kind == RAM);
        ram.filter_map(|entry| PhysicalRange::between(entry.start, entry.end))
    }

    /// One past the last byte of RAM; 0 without RAM.
    pub fn top_of_ram(&self) -> u64 {
        self.ram().next_back().map_or(0, PhysicalRange::end)
    }

    /// Whether all of `range` is usable memory in one piece.
    pub fn is_ram(&self, range: PhysicalRange) -> bool {
        self.ram().any(|ram| ram.contains(range))
    }

    /// Takes the frames that `range` touches away from the guest.
    ///
    /// # Errors
    /// [`BootError::MemoryMapFull`] if that splits entries beyond [`MAX_ENTRIES`].
    pub fn reserve(&mut self, range: PhysicalRange) -> Result<(), BootError<'static>> {
        range.grow_to_frames().map_or(Ok(()), |frames| self.insert(frames, RESERVED))
    }

    /// The highest place in RAM for `size` bytes, aligned to `align` bytes, that ends at or below
    /// `limit` and shares no byte with `taken`.
    pub fn find(
        &self,
        size: u64,
        align: u64,
        limit: u64,
        taken: &[PhysicalRange],
    ) -> Option<PhysicalRange> {
        self.ram().rev().find_map(|ram| {
            let mut end = ram.end().min(limit);
            // Every turn lowers `end` below one more taken range.
            loop {
                let start = end.checked_sub(size)?;
                let start = start.checked_sub(start.checked_rem(align)?)?;
                let place = PhysicalRange::new(start, size)?;
                if !ram.contains(place) {
                    return None;
                }
                match taken.iter().find(|other| other.overlaps(place)) {
                    Some(other) => end = other.start(),
                    None => return Some(place),
                }
            }
        })
    }

    /// The lowest place in RAM, as [`Self::find`], that starts at or above `floor`.
    pub fn find_low(
        &self,
        size: u64,
        align: u64,
        floor: u64,
        limit: u64,
        taken: &[PhysicalRange],
    ) -> Option<PhysicalRange> {
        self.ram().find_map(|ram| {
            let mut start = ram.start().max(floor);
            loop {
                let place = PhysicalRange::new(start.checked_next_multiple_of(align)?, size)?;
                if !ram.contains(place) || place.end() > limit {
                    return None;
                }
                match taken.iter().find(|other| other.overlaps(place)) {
                    Some(other) => start = other.end(),
                    None => return Some(place),
                }
            }
        })
    }

    /// Gives `range` the type `kind`, except where a higher type stands.
    fn insert(&mut self, range: PhysicalRange, kind: u32) -> Result<(), BootError<'static>> {
        let (start, end) = (range.start(), range.end());
        let mut merged = Self::default();
        // What of `range` is not written yet begins at `next`.
        let mut next = start;
        for old in &self.entries {
            merged.push(next, old.start.min(end), kind)?;
            if old.kind >= kind {
                merged.push(old.start, old.end, old.kind)?;
            } else {
                merged.push(old.start, old.end.min(start), old.kind)?;
                merged.push(old.start.max(start), old.end.min(end), kind)?;
                merged.push(old.start.max(end), old.end, old.kind)?;
            }
            next = next.max(old.end);
        }
        merged.push(next, end, kind)?;
        *self = merged;
        Ok(())
    }

    /// Appends `start..end` if it is not empty.
    fn push(&mut self, start: u64, end: u64, kind: u32) -> Result<(), BootError<'static>> {
        match self.entries.last_mut() {
            _ if start >= end => Ok(()),
            Some(last) if last.end == start && last.kind == kind => {
                last.end = end;
                Ok(())
            }
            _ => {
                let entry = Entry { start, end, kind };
                self.entries.try_push(entry).map_err(|_| BootError::MemoryMapFull)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(start: u64, end: u64) -> PhysicalRange {
        PhysicalRange::between(start, end).unwrap()
    }

    fn map(entries: &[(u64, u64, u32)]) -> MemoryMap {
        MemoryMap::from_entries(entries.iter().copied()).unwrap()
    }

    fn kind_at(map: &MemoryMap, address: u64) -> Option<u32> {
        map.entries().iter().find(|e| e.start <= address && address < e.end).map(|e| e.kind)
    }

    #[test]
    fn borders_inside_a_frame_are_lost_to_ram() {
        let map = map(&[(0, 0x9FC00, 1), (0x9FC00, 0x400, 2), (0x10_0800, 0x1800, 1)]);
        let expected = [(0, 0x9F000, RAM), (0x9F000, 0xA0000, RESERVED), (0x10_1000, 0x10_2000, 1)];
        let entries: Vec<_> = map.entries().iter().map(|e| (e.start, e.end, e.kind)).collect();
        assert_eq!(entries, expected);
        assert_eq!(map.top_of_ram(), 0x10_2000);
    }

    #[test]
    fn unknown_types_are_reserved_and_huge_lengths_do_not_wrap() {
        let map =
            map(&[(0, 1 << 36, 1), (0x1000, 0x1000, 0), (0x3000, 0x1000, 20), (1 << 40, !0, 2)]);
        assert_eq!(kind_at(&map, 0x1000), Some(RESERVED));
        assert_eq!(kind_at(&map, 0x3000), Some(RESERVED));
        assert_eq!(map.top_of_ram(), 1 << 36);
        assert_eq!(map.entries().last().unwrap().end, ADDRESS_LIMIT);
    }

    #[test]
    fn too_many_entries_are_an_error() {
        let entry = |n: u64| (n * 0x2000, 0x1000, RAM);
        assert!(MemoryMap::from_entries((0..128).map(entry)).is_ok());
        let error = MemoryMap::from_entries((0..129).map(entry));
        assert_eq!(error, Err(BootError::MemoryMapFull));
        // Neighbours merge, so their number does not matter.
        let merged = MemoryMap::from_entries((0..1000).map(|n| (n * 0x1000, 0x1000, RAM)));
        assert_eq!(merged.unwrap().entries().len(), 1);
        let mut full = map(&[(0, 1 << 40, 1)]);
        let results =
            (0..64).map(|n| full.reserve(range(0x1000 + n * 0x2000, 0x1001 + n * 0x2000)));
        let results: Vec<_> = results.collect();
        assert!(results[..63].iter().all(Result::is_ok));
        assert_eq!(results[63], Err(BootError::MemoryMapFull));
    }

    #[test]
    fn places_avoid_what_is_taken() {
        let map = map(&[(0, 0x9F000, 1), (0x10_0000, 0x3F0_0000, 1), (1 << 32, 1 << 36, 1)]);
        let top = (1 << 32) + (1 << 36);
        assert_eq!(
            map.find(0x1000, 0x20_0000, !0, &[]),
            Some(range(top - 0x20_0000, top - 0x1F_F000))
        );
        assert_eq!(map.find(0x1000, 1, 1 << 32, &[]), Some(range(0x3FF_F000, 0x400_0000)));
        let taken = [range(0x3FE_0001, 0x3FF_FFFF), range(0x100, 0x3FE_0000)];
        assert_eq!(map.find(1, 1, 1 << 32, &taken), Some(range(0x3FF_FFFF, 0x400_0000)));
        assert_eq!(map.find(2, 1, 1 << 32, &taken), Some(range(0xFE, 0x100)));
        assert_eq!(map.find(0x9F000, 0x1000, 0xA0000, &[]), Some(range(0, 0x9F000)));
        assert_eq!(map.find(0x9F001, 1, 0xA0000, &[]), None);
        assert_eq!(map.find_low(0x9F001, 0x1000, 0, !0, &[]), Some(range(0x10_0000, 0x19_F001)));
        assert_eq!(map.find_low(2, 2, 1, 0x1000, &[range(0, 7)]), Some(range(8, 10)));
        assert_eq!(map.find_low(2, 2, 1, 9, &[range(0, 7)]), None);
    }

    proptest! {
        #[test]
        fn maps_agree_with_a_list_of_frames(
            entries in prop::collection::vec((0u64..0x20_000, 0u64..0x8000, 0u32..8), 0..12),
            reserved in prop::option::of((0u64..0x20_000, 1u64..0x4000)),
        ) {
            let mut map = map(&entries);
            let mut frames = [0; 48];
            let known = |kind| if (1..6).contains(&kind) { kind } else { RESERVED };
            for (n, frame) in (0u64..).zip(&mut frames) {
                let (start, end) = (n * 0x1000, n * 0x1000 + 0x1000);
                for &(at, length, kind) in entries.iter().filter(|e| known(e.2) > RAM) {
                    if length > 0 && at < end && start < at + length {
                        *frame = known(kind).max(*frame);
                    }
                }
                let whole = entries.iter().any(|&(at, length, kind)| {
                    kind == RAM && at <= start && at + length >= end
                });
                *frame = (*frame).max(whole.into());
            }
            if let Some((at, length)) = reserved {
                map.reserve(range(at, at + length)).unwrap();
                for n in range(at, at + length).frames() {
                    frames[n as usize] = frames[n as usize].max(RESERVED);
                }
            }
            for (n, &kind) in (0u64..).zip(&frames) {
                prop_assert_eq!(kind_at(&map, n * 0x1000 + 0x7FF).unwrap_or(0), kind);
            }
            prop_assert!(map.entries().windows(2).all(|w| w[0].end < w[1].start
                || (w[0].end == w[1].start && w[0].kind != w[1].kind)));
        }

        #[test]
        fn any_entries_are_judged(entries in prop::collection::vec(any::<(u64, u64, u32)>(), 0..40)) {
            let _ = MemoryMap::from_entries(entries);
        }

        #[test]
        fn found_places_hold(
            size in 0u64..0x8000, align in 0u64..0x3000, floor in 0u64..0x10_000, limit in 0u64..0x18_000,
            taken in prop::collection::vec((0u64..0x18_000, 1u64..0x4000), 0..5),
        ) {
            let map = map(&[(0x1000, 0x6000, 1), (0x8000, 0xF000, 1)]);
            let taken: Vec<_> = taken.into_iter().map(|(at, n)| range(at, at + n)).collect();
            let fits = |place: PhysicalRange| map.is_ram(place) && place.end() <= limit
                && place.length() == size && place.start().is_multiple_of(align)
                && taken.iter().all(|other| !other.overlaps(place));
            let places = (0..0x18_000).filter(|_| align > 0)
                .filter_map(|at| PhysicalRange::new(at, size)).filter(|&place| fits(place));
            let places: Vec<_> = places.collect();
            prop_assert_eq!(map.find(size, align, limit, &taken), places.last().copied());
            let low = places.iter().find(|place| place.start() >= floor).copied();
            prop_assert_eq!(map.find_low(size, align, floor, limit, &taken), low);
        }
    }
}
