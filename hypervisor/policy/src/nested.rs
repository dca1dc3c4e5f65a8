//! The frame table and the nested page tables that derive from it.
//!
//! Everything is reserved before the guest starts: each 2 MiB region whose class can ever change
//! owns a page for its 4 KiB entries in each view, so splitting a large leaf cannot fail. Every
//! change is a sequence of single 64-bit writes after each of which a table walk sees, for every
//! frame, the old or the new permission and nothing else. (AMD64 APM vol. 2, 15.25)
//!
//! Where the processor has GMET, one table holds both views: kernel mode executes only what is not
//! marked as the user's, in all levels, and user mode executes that too.

use core::sync::atomic::{AtomicU8, Ordering};

use crate::PAGE_SIZE;
use crate::flush::FlushDuty;
use crate::frame::{Access, FrameClass, View};

mod build;

pub use build::Geometry;

const ENTRIES: u64 = 512;
const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
/// Accessed and dirty: set from the start, so that no walk ever writes to a nested table.
const TOUCHED: u64 = 3 << 5;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;
/// Intermediate entries allow everything: leaves decide. Guest accesses count as user accesses.
const TABLE: u64 = PRESENT | WRITABLE | USER | TOUCHED;
/// The memory that holds nested tables, by physical address of an 8-byte entry.
pub trait TableMemory {
    /// Reads an entry.
    fn read(&self, at: u64) -> u64;
    /// Writes an entry in one piece.
    fn write(&mut self, at: u64, value: u64);
}

/// The class of every frame, and both views' tables that say the same.
pub struct Nested<'a, M> {
    memory: M,
    geometry: Geometry,
    classes: &'a [AtomicU8],
    /// Per region the page of its 4 KiB entries in the kernel view's table, as a page number
    /// relative to `tables`; the user view's follows. 0 for a region that never changes.
    leaves: &'a mut [u32],
    tables: u64,
    roots: [u64; 2],
}

/// Address of the `index`th entry of the table at `table`.
fn entry(table: u64, index: u64) -> u64 {
    (table & ADDRESS) | ((index & 0x1FF) << 3)
}

impl<'a, M: TableMemory> Nested<'a, M> {
    /// The entry for a frame of this class; with GMET `view` is the kernel's.
    fn leaf(&self, frame: u64, class: FrameClass, view: View) -> u64 {
        let Access { read: true, write, execute } = class.access(view) else { return 0 };
        let gmet = self.geometry.gmet;
        let write = if write { WRITABLE } else { 0 };
        let user = if gmet && execute { 0 } else { USER };
        let execute = execute || gmet && class.access(View::User).execute;
        let no_execute = if execute { 0 } else { NO_EXECUTE };
        frame.wrapping_mul(PAGE_SIZE) | PRESENT | TOUCHED | user | write | no_execute
    }

    fn region_frames(&self, region: u64) -> Option<core::ops::Range<u64>> {
        let first = region.checked_mul(ENTRIES)?;
        Some(first..first.checked_add(ENTRIES)?)
    }

    /// Address of the region's page of 4 KiB entries in `view`; `None` if it has none.
    fn leaf_page(&self, region: u64, view: View) -> Option<u64> {
        let number = u64::from(*self.leaves.get(usize::try_from(region).ok()?)?);
        if number == 0 {
            return None;
        }
        let number = number.checked_add(view as u64)?;
        self.tables.checked_add(number.checked_mul(PAGE_SIZE)?)
    }

    /// Writes the region's 4 KiB entries from the frame table; returns the entry that links them.
    fn fill_leaves(&mut self, region: u64, view: View) -> Option<u64> {
        let page = self.leaf_page(region, view)?;
        for frame in self.region_frames(region)? {
            self.memory.write(entry(page, frame), self.leaf(frame, self.class(frame), view));
        }
        Some(page | TABLE)
    }

    /// Physical address of the root of `view`, for nCR3.
    pub const fn root(&self, view: View) -> u64 {
        match view {
            View::Kernel => self.roots[0],
            View::User => self.roots[1],
        }
    }

    /// The class of a frame. Frames above the table are devices.
    pub fn class(&self, frame: u64) -> FrameClass {
        class_in(self.classes, frame)
    }

    /// The class of every frame, for readers on other processors.
    pub fn classes(&self) -> &'a [AtomicU8] {
        self.classes
    }

    /// Gives a frame the class `class`, in the frame table and in both views. `None`, with nothing
    /// changed, where classes never change.
    pub fn set_class(&mut self, frame: u64, class: FrameClass) -> Option<FlushDuty> {
        let region = frame / ENTRIES;
        let slot = self.classes.get(usize::try_from(frame).ok()?)?;
        self.leaf_page(region, View::Kernel)?;
        self.split(region)?;
        let old = self.class(frame);
        slot.store(class as u8, Ordering::Relaxed);
        for &view in self.geometry.tables() {
            let page = self.leaf_page(region, view)?;
            self.memory.write(entry(page, frame), self.leaf(frame, class, view));
        }
        let tightens = |view: &View| class.access(*view).tightens(old.access(*view));
        Some(FlushDuty::new(View::ALL.iter().any(tightens)))
    }

    /// Replaces the region's large leaves by pages of 4 KiB entries that say the same.
    fn split(&mut self, region: u64) -> Option<()> {
        for &view in self.geometry.tables() {
            let at = self.region_entry(region, view);
            let page = self.leaf_page(region, view)?;
            if self.memory.read(at) & !TOUCHED != (page | TABLE) & !TOUCHED {
                let link = self.fill_leaves(region, view)?;
                self.memory.write(at, link);
            }
        }
        Some(())
    }

    /// Address of the page-directory entry that translates the region in `view`.
    fn region_entry(&self, region: u64, view: View) -> u64 {
        let giant = region / ENTRIES;
        let pointers = self.memory.read(entry(self.root(view), giant / ENTRIES));
        let directory = self.memory.read(entry(pointers, giant));
        entry(directory, region)
    }
}

/// The class of a frame by the table's bytes. Frames above the table are devices.
pub fn class_in(classes: &[AtomicU8], frame: u64) -> FrameClass {
    let byte = usize::try_from(frame).ok().and_then(|index| classes.get(index));
    byte.map_or(FrameClass::Device, |byte| FrameClass::from_byte(byte.load(Ordering::Relaxed)))
}

/// Whether a frame has this class, which is not [`FrameClass::Device`]: one load and comparison,
/// for the path that every mode switch takes.
#[inline(always)]
pub fn is_class_in(classes: &[AtomicU8], frame: u64, class: FrameClass) -> bool {
    let byte = classes.get(frame as usize);
    byte.is_some_and(|byte| byte.load(Ordering::Relaxed) == class as u8)
}

#[cfg(test)]
mod tests;
