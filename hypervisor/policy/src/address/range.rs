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
}
