//! The permission map that the processor reads, filled once before the guest starts.

use super::{Rule, rule};

/// Size of the permission map, in bytes (APM vol. 2, 15.11).
pub const MAP_BYTES: usize = 8192;

/// The permission map that follows from the table: two bits per register (read, write) for each
/// of the three ranges that it covers; accesses outside always exit.
pub fn fill_map(map: &mut [u8; MAP_BYTES]) {
    for (slot, base) in map.chunks_mut(2048).zip([0, 0xC000_0000, 0xC001_0000, u32::MAX]) {
        for (registers, byte) in slot.iter_mut().enumerate() {
            *byte = (0..4u32).fold(0, |bits, index| {
                let register = (registers as u32).wrapping_mul(4).wrapping_add(index);
                let exits = if base == u32::MAX { 3 } else { exits(base | register) };
                bits | exits << index.wrapping_mul(2)
            });
        }
    }
}

/// Bit 0: reads exit; bit 1: writes exit.
pub(super) fn exits(msr: u32) -> u8 {
    match rule(msr) {
        Rule::Pass => 0,
        Rule::Checked | Rule::Ignored | Rule::ReadOnly => 2,
        Rule::Shadowed | Rule::Absent => 3,
    }
}
