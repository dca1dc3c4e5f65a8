//! What SecVisor keeps beside its image: reserved at launch, in one block.

use policy::address::PhysicalRange;
use policy::nested::Geometry;
use policy::units::Slot;
use policy::violation::RING_BYTES;
use policy::{PAGE_SIZE, msr};

use crate::host::paging;
use crate::machine::Machine;
use crate::smp;
use crate::vcpu::Vcpu;

/// Ports times one bit, and the bits that an access at the last port runs over.
const PORT_MAP_BYTES: u64 = 3 * PAGE_SIZE;

/// Sizes of what SecVisor keeps beside its image, laid out one after the other.
struct Layout {
    next: u64,
}

impl Layout {
    /// The next `bytes`, as whole pages.
    fn take(&mut self, bytes: u64) -> PhysicalRange {
        let bytes = bytes.next_multiple_of(PAGE_SIZE);
        let range = PhysicalRange::new(self.next, bytes).expect("reserved memory does not wrap");
        self.next = range.end();
        range
    }
}

/// Where everything that SecVisor keeps lies.
pub struct Belongings {
    /// The processor's own state.
    pub vcpu: PhysicalRange,
    /// What processors share.
    pub machine: PhysicalRange,
    /// Records of violations.
    pub ring: PhysicalRange,
    /// I/O permission map.
    pub port_map: PhysicalRange,
    /// MSR permission map.
    pub msr_map: PhysicalRange,
    /// Stacks of parked processors.
    pub stacks: PhysicalRange,
    /// SecVisor's own page tables.
    pub host_tables: PhysicalRange,
    /// What is kept of each approved unit.
    pub slots: PhysicalRange,
    /// The frames of all units.
    pub unit_frames: PhysicalRange,
    /// Where each region's 4 KiB entries lie.
    pub leaves: PhysicalRange,
    /// The frame table.
    pub classes: PhysicalRange,
    /// Both views' tables.
    pub nested: PhysicalRange,
}

impl Belongings {
    /// Laid out from `start` on, for `split` regions with 4 KiB entries, memory mapped up to
    /// `mapped`, and so many slots and frames of units.
    pub fn at(
        start: u64,
        geometry: &Geometry,
        split: u64,
        mapped: u64,
        (slots, frames): (u64, u64),
    ) -> Self {
        let mut layout = Layout { next: start };
        Self {
            vcpu: layout.take(size_of::<Vcpu>() as u64),
            machine: layout.take(size_of::<Machine>() as u64),
            ring: layout.take(RING_BYTES as u64),
            port_map: layout.take(PORT_MAP_BYTES),
            msr_map: layout.take(msr::MAP_BYTES as u64),
            stacks: layout.take(smp::STACKS_BYTES),
            host_tables: layout.take(paging::table_bytes(mapped)),
            slots: layout.take(slots.saturating_mul(size_of::<Slot>() as u64)),
            unit_frames: layout.take(frames.saturating_mul(4)),
            leaves: layout.take(geometry.regions() * 4),
            classes: layout.take(geometry.frames()),
            nested: layout.take(geometry.table_pages(split) * PAGE_SIZE),
        }
    }
}
