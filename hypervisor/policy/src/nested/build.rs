//! Building both views' tables, once, before the guest starts.

use core::sync::atomic::AtomicU8;

use super::{ENTRIES, LARGE, Nested, TABLE, TableMemory, entry};
use crate::address::PhysicalRange;
use crate::frame::{FrameClass, View};
use crate::{LARGE_PAGE_SIZE, PAGE_SIZE};

const GIANT_PAGE_SIZE: u64 = LARGE_PAGE_SIZE * ENTRIES;
/// Four levels of nested tables translate this many bits.
const TRANSLATED_BITS: u32 = 48;

/// What decides how much memory the tables take.
#[derive(Clone, Copy, Debug)]
pub struct Geometry {
    covered: u64,
    address_bits: u32,
    giant_pages: bool,
    pub(super) gmet: bool,
}

impl Geometry {
    /// For RAM up to `top_of_ram` (bytes) on a processor with `address_bits` of physical address
    /// and perhaps 1 GiB pages (CPUID 8000_0008h EAX and 8000_0001h EDX bit 26), for tables of both
    /// views or, with `gmet`, one for all.
    pub fn new(top_of_ram: u64, address_bits: u32, giant_pages: bool, gmet: bool) -> Self {
        // Everything below 4 GiB is covered frame by frame: the guarded registers live there.
        let covered = top_of_ram.max(4 << 30).next_multiple_of(GIANT_PAGE_SIZE);
        Self { covered, address_bits: address_bits.min(TRANSLATED_BITS), giant_pages, gmet }
    }

    /// The views that have tables of their own.
    pub(super) const fn tables(&self) -> &'static [View] {
        if self.gmet { &[View::Kernel] } else { &View::ALL }
    }

    /// Frames in the frame table; the frames above it are devices.
    pub const fn frames(&self) -> u64 {
        self.covered / PAGE_SIZE
    }

    /// 2 MiB regions in the frame table.
    pub const fn regions(&self) -> u64 {
        self.covered / LARGE_PAGE_SIZE
    }

    fn giants(&self) -> u64 {
        self.covered / GIANT_PAGE_SIZE
    }

    fn all_giants(&self) -> u64 {
        let giants = 1u64.checked_shl(self.address_bits.saturating_sub(30)).unwrap_or(1);
        giants.max(self.giants())
    }

    /// Pages that the tables take if `split` regions may need 4 KiB entries.
    pub fn table_pages(&self, split: u64) -> u64 {
        let mixed_directories = self.giants().div_ceil(ENTRIES);
        let device_directories =
            self.all_giants().div_ceil(ENTRIES).saturating_sub(mixed_directories);
        let device_tables =
            if self.giant_pages { 0 } else { self.all_giants().saturating_sub(self.giants()) };
        let per_view = 1u64
            .saturating_add(mixed_directories)
            .saturating_add(self.giants())
            .saturating_add(split);
        let views = self.tables().len() as u64;
        per_view
            .saturating_mul(views)
            .saturating_add(device_directories)
            .saturating_add(device_tables)
    }
}

/// Pages handed out one after the other from a reserved range.
struct Pages {
    next: u64,
    end: u64,
}

impl Pages {
    fn take(&mut self) -> Option<u64> {
        let page = self.next;
        self.next = page.checked_add(PAGE_SIZE)?;
        (self.next <= self.end).then_some(page)
    }

    /// One for each view; with GMET the same.
    fn take_for_views(&mut self, geometry: &Geometry) -> Option<[u64; 2]> {
        let page = self.take()?;
        Some([page, if geometry.gmet { page } else { self.take()? }])
    }
}

impl<'a, M: TableMemory> Nested<'a, M> {
    /// Builds both views' tables in `tables` from `classes`, which holds one byte per frame of
    /// the geometry. `leaves` (one per region) is filled in. `None` if `tables` is too small or
    /// a slice has not the geometry's length.
    pub fn build(
        memory: M,
        geometry: Geometry,
        classes: &'a [AtomicU8],
        leaves: &'a mut [u32],
        tables: PhysicalRange,
    ) -> Option<Self> {
        if classes.len() as u64 != geometry.frames() || leaves.len() as u64 != geometry.regions() {
            return None;
        }
        let mut pages = Pages { next: tables.start(), end: tables.end() };
        let roots = pages.take_for_views(&geometry)?;
        let mut nested = Self { memory, geometry, classes, leaves, tables: tables.start(), roots };
        for directory in 0..geometry.all_giants().div_ceil(ENTRIES) {
            nested.build_directory(directory, &mut pages)?;
        }
        Some(nested)
    }

    /// Fills the 512 GiB that one page-directory-pointer table translates.
    fn build_directory(&mut self, directory: u64, pages: &mut Pages) -> Option<()> {
        let first = directory.checked_mul(ENTRIES)?;
        let last = first.checked_add(ENTRIES)?.min(self.geometry.all_giants());
        // Views differ only below the top of what the frame table covers.
        let mixed = first < self.geometry.giants();
        let pointers =
            if mixed { pages.take_for_views(&self.geometry)? } else { [pages.take()?; 2] };
        for giant in first..last {
            let entries = if giant < self.geometry.giants() {
                let tables = pages.take_for_views(&self.geometry)?;
                self.build_regions(giant, tables, pages)?;
                tables.map(|table| table | TABLE)
            } else {
                [self.build_devices(giant, pages)?; 2]
            };
            for (table, value) in pointers.into_iter().zip(entries) {
                self.memory.write(entry(table, giant), value);
            }
        }
        for (root, table) in self.roots.into_iter().zip(pointers) {
            self.memory.write(entry(root, directory), table | TABLE);
        }
        Some(())
    }

    /// A gibibyte of nothing but devices, the same in both views.
    fn build_devices(&mut self, giant: u64, pages: &mut Pages) -> Option<u64> {
        let first = giant.checked_mul(ENTRIES)?;
        if self.geometry.giant_pages {
            return Some(self.large_leaf(first, FrameClass::Device, View::Kernel));
        }
        let table = pages.take()?;
        for index in 0..ENTRIES {
            let region = first.checked_add(index)?;
            let value = self.large_leaf(region, FrameClass::Device, View::Kernel);
            self.memory.write(entry(table, index), value);
        }
        Some(table | TABLE)
    }

    fn build_regions(&mut self, giant: u64, tables: [u64; 2], pages: &mut Pages) -> Option<()> {
        for index in 0..ENTRIES {
            let region = giant.checked_mul(ENTRIES)?.checked_add(index)?;
            let first = self.class(region.checked_mul(ENTRIES)?);
            let frames = self.region_frames(region)?;
            let uniform = frames.clone().all(|frame| self.class(frame) == first);
            if !(uniform && first == FrameClass::Device) {
                let [page, _] = pages.take_for_views(&self.geometry)?;
                let number = page.checked_sub(self.tables)? / PAGE_SIZE;
                *self.leaves.get_mut(usize::try_from(region).ok()?)? = number.try_into().ok()?;
            }
            for (&view, table) in self.geometry.tables().iter().zip(tables) {
                let value = if uniform {
                    self.large_leaf(region, first, view)
                } else {
                    self.fill_leaves(region, view)?
                };
                self.memory.write(entry(table, index), value);
            }
        }
        Some(())
    }

    fn large_leaf(&self, region: u64, class: FrameClass, view: View) -> u64 {
        let value = self.leaf(region.wrapping_mul(ENTRIES), class, view);
        if value == 0 { 0 } else { value | LARGE }
    }
}
