//! Reserving room for all units, and the kernel's own, once, before the guest starts.

use super::{Slot, Units};
use crate::PAGE_SIZE;
use crate::approval::ApprovalList;

impl<'a> Units<'a> {
    /// How many slots and how many frames the units of `list` take.
    pub fn room(list: &ApprovalList<'_>) -> (u64, u64) {
        let kernel = list.kernel_ranges().map(|range| range.physical.length() / PAGE_SIZE);
        let modules =
            list.modules().flat_map(|it| [it.pages(false), it.pages(true)].map(u64::from));
        let mut slots = 0u64;
        let count = kernel.chain(modules).fold(0, |sum: u64, pages| {
            slots = slots.saturating_add(1);
            sum.saturating_add(pages)
        });
        (slots, count)
    }

    /// All units of `list`, the kernel's approved. `None` if the slices are not as long as
    /// [`Units::room`] says, or a frame has a number that does not fit.
    pub fn new(
        list: ApprovalList<'a>,
        slots: &'a mut [Slot],
        frames: &'a mut [u32],
    ) -> Option<Self> {
        let (mut next_slot, mut first) = (slots.iter_mut(), 0u32);
        let mut kernel = 0usize;
        for range in list.kernel_ranges() {
            let count = u32::try_from(range.physical.length() / PAGE_SIZE).ok()?;
            let end = first.checked_add(count)?;
            for (slot, frame) in frames
                .get_mut(first as usize..end as usize)?
                .iter_mut()
                .zip(range.physical.frames())
            {
                *slot = u32::try_from(frame).ok()?;
            }
            *next_slot.next()? = Slot { base: range.virtual_start.0, first, pages: count };
            first = end;
            kernel = kernel.checked_add(1)?;
        }
        for module in list.modules() {
            for pages in [module.pages(false), module.pages(true)] {
                *next_slot.next()? = Slot { base: 0, first, pages };
                first = first.checked_add(pages)?;
            }
        }
        let exact = next_slot.next().is_none() && first as usize == frames.len();
        exact.then_some(Self { list, kernel, slots, frames })
    }

    /// The units of `list` as other units of it left these slots and frames: for a model, which goes
    /// back and forth in time.
    #[cfg(feature = "model")]
    pub fn resume(list: ApprovalList<'a>, slots: &'a mut [Slot], frames: &'a mut [u32]) -> Self {
        Self { kernel: list.kernel_ranges().count(), list, slots, frames }
    }
}
