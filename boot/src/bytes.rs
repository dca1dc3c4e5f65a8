//! Little-endian fields of byte slices: `None` where a slice ends too early.

use core::ops::Range;

/// The `N` bytes at `offset`.
fn field<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}

/// The 16-bit field at `offset`.
pub fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    field(bytes, offset).map(u16::from_le_bytes)
}

/// The 32-bit field at `offset`.
pub fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    field(bytes, offset).map(u32::from_le_bytes)
}

/// The 64-bit field at `offset`.
pub fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    field(bytes, offset).map(u64::from_le_bytes)
}

/// Whether the bytes in `range` are all there and add up to zero, as ACPI checksums do.
pub fn sums_to_zero(bytes: &[u8], range: Range<usize>) -> bool {
    bytes.get(range).is_some_and(|b| b.iter().fold(0u8, |sum, &x| sum.wrapping_add(x)) == 0)
}

/// Writes `bytes` at `offset`, as far as `slot` reaches.
#[inline(never)] // dozens of callers: small rather than fast
pub fn put(slot: &mut [u8], offset: usize, bytes: &[u8]) {
    for (to, &from) in slot.iter_mut().skip(offset).zip(bytes) {
        *to = from;
    }
}
