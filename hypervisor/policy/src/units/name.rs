//! Names of units, for records.

use super::{Slot, Units};
use crate::address::Gva;
use crate::violation::UNIT_NAME_BYTES;

impl Units<'_> {
    /// The name of the approved unit nearest to `rip`, as `kernel/.text` or `fat/core`.
    pub fn nearest(&self, rip: Gva) -> [u8; UNIT_NAME_BYTES] {
        let distance = |slot: &Slot| {
            let below = slot.base.saturating_sub(rip.0);
            below.max(rip.0.saturating_sub(slot.end().saturating_sub(1)))
        };
        let approved = self.slots.iter().enumerate().filter(|(_, slot)| slot.base != 0);
        let nearest = approved.min_by_key(|(_, slot)| distance(slot));
        nearest.map_or([0; UNIT_NAME_BYTES], |(index, _)| self.name(index))
    }

    /// The name of the unit in this slot.
    pub(super) fn name(&self, index: usize) -> [u8; UNIT_NAME_BYTES] {
        let (owner, part) = match index.checked_sub(self.kernel) {
            None => ("kernel", self.list.kernel_range(index).map(|(name, _)| name)),
            Some(region) => {
                let module = self.list.module(region / 2);
                let part = if region % 2 == 0 { "core" } else { "init" };
                (module.map_or("?", |module| module.name), Some(part))
            }
        };
        let mut name = [0; UNIT_NAME_BYTES];
        let bytes = owner.bytes().chain(*b"/").chain(part.unwrap_or_default().bytes());
        name.iter_mut().zip(bytes).for_each(|(slot, byte)| *slot = byte);
        name
    }
}
