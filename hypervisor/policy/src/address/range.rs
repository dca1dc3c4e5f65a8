//! Ranges of physical memory, as the launch lays it out.

use core::fmt;

use crate::PAGE_SIZE;

/// A non-empty range of physical memory, `start..end` in bytes, that does not wrap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PhysicalRange {
    start: u64,
    end: u64,
}

impl PhysicalRange {
    /// The range of `length` bytes from `start`; `None` if it is empty or wraps.
    pub const fn new(start: u64, length: u64) -> Option<Self> {
        match start.checked_add(length) {
            Some(end) if length > 0 => Some(Self { start, end }),
            _ => None,
        }
    }

    /// The range `start..end`; `None` if it is empty or upside down.
    pub const fn between(start: u64, end: u64) -> Option<Self> {
        if start < end { Some(Self { start, end }) } else { None }
    }

    /// First byte.
    pub const fn start(self) -> u64 {
        self.start
    }

    /// One past the last byte.
    pub const fn end(self) -> u64 {
        self.end
    }

    /// Length in bytes, never zero.
    pub const fn length(self) -> u64 {
        self.end.wrapping_sub(self.start)
    }

    /// Whether the two ranges share a byte.
    pub const fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// Whether every byte of `other` lies in this range.
    pub const fn contains(self, other: Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// Whether the byte at `address` lies in this range.
    pub const fn contains_address(self, address: u64) -> bool {
        self.start <= address && address < self.end
    }

    /// Whether both ends lie on a page border.
    pub const fn is_page_aligned(self) -> bool {
        self.start.is_multiple_of(PAGE_SIZE) && self.end.is_multiple_of(PAGE_SIZE)
    }

    /// The whole frames that lie inside this range; `None` if there are none.
    pub const fn shrink_to_frames(self) -> Option<Self> {
        match self.start.checked_next_multiple_of(PAGE_SIZE) {
            Some(start) => Self::between(start, self.end & !0xFFF),
            None => None,
        }
    }

    /// The frames that this range touches; `None` if they would wrap.
    pub const fn grow_to_frames(self) -> Option<Self> {
        match self.end.checked_next_multiple_of(PAGE_SIZE) {
            Some(end) => Self::between(self.start & !0xFFF, end),
            None => None,
        }
    }

    /// The numbers of the frames that this range touches.
    pub const fn frames(self) -> core::ops::Range<u64> {
        self.start / PAGE_SIZE..self.end.div_ceil(PAGE_SIZE)
    }
}

impl fmt::Display for PhysicalRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}-{:#x}", self.start, self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ranges_agree_with_wide_arithmetic(start: u64, length: u64, byte: u64) {
            let end = u128::from(start) + u128::from(length);
            let range = PhysicalRange::new(start, length);
            prop_assert_eq!(range.is_some(), length > 0 && end <= u128::from(u64::MAX));
            if let Some(range) = range {
                let inside = u128::from(byte) >= u128::from(start) && u128::from(byte) < end;
                prop_assert_eq!(range.contains_address(byte), inside);
                prop_assert_eq!(range.length(), length);
                if let Some(whole) = range.shrink_to_frames() {
                    prop_assert!(range.contains(whole) && whole.is_page_aligned());
                }
                if let Some(touched) = range.grow_to_frames() {
                    prop_assert!(touched.contains(range) && touched.is_page_aligned());
                    prop_assert_eq!(touched.frames(), range.frames());
                }
            }
        }

        #[test]
        fn overlap_is_symmetric_and_means_a_shared_byte(a in 0u64..64, b in 1u64..64, c in 0u64..64, d in 1u64..64) {
            let (x, y) = (PhysicalRange::new(a, b).unwrap(), PhysicalRange::new(c, d).unwrap());
            let shared = (0..128).any(|byte| x.contains_address(byte) && y.contains_address(byte));
            prop_assert_eq!(x.overlaps(y), shared);
            prop_assert_eq!(y.overlaps(x), shared);
        }
    }
    /// Numbers on both sides of page borders, at both ends of what 64 bits hold.
    fn borders() -> Vec<u64> {
        let pages = [0, PAGE_SIZE, 2 * PAGE_SIZE, !0 << 13, !0 << 12];
        let mut all: Vec<u64> = pages
            .iter()
            .flat_map(|page: &u64| [!0, 0, 1].map(|by| page.wrapping_add(by)))
            .collect();
        all.sort_unstable();
        all
    }

    fn ranges() -> Vec<PhysicalRange> {
        let pairs = borders().into_iter().flat_map(|a| borders().into_iter().map(move |b| (a, b)));
        pairs.filter_map(|(start, end)| PhysicalRange::between(start, end)).collect()
    }

    #[test]
    fn borders_count_as_in_wide_arithmetic() {
        let page = u128::from(PAGE_SIZE);
        let between = |start: u128, end: u128| {
            PhysicalRange::between(start.try_into().ok()?, end.try_into().ok()?)
        };
        assert_eq!(ranges().len(), 15 * 14 / 2);
        for range in ranges() {
            let (start, end) = (range.start(), range.end());
            assert_eq!(PhysicalRange::new(start, end - start), Some(range));
            let (first, last) = (u128::from(start), u128::from(end));
            let (down, up) = (|at: u128| at / page * page, |at: u128| at.div_ceil(page) * page);
            assert_eq!(range.shrink_to_frames(), between(up(first), down(last)), "{range}");
            assert_eq!(range.grow_to_frames(), between(down(first), up(last)), "{range}");
            let frames = range.frames();
            assert_eq!(u128::from(frames.start) * page, down(first), "{range}");
            assert_eq!(u128::from(frames.end) * page, up(last), "{range}");
            assert_eq!(range.is_page_aligned(), (start | end) % PAGE_SIZE == 0, "{range}");
            assert_eq!(range.to_string(), format!("{start:#x}-{end:#x}"));
            for byte in borders() {
                assert_eq!(range.contains_address(byte), (start..end).contains(&byte), "{range}");
            }
            for other in ranges() {
                let inside = start <= other.start && other.end - 1 < end;
                assert_eq!(range.contains(other), inside, "{range} {other}");
                let shared = start.max(other.start)..end.min(other.end);
                assert_eq!(range.overlaps(other), !shared.is_empty(), "{range} {other}");
            }
        }
    }
}
