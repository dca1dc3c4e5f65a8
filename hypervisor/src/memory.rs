//! The way to physical memory, which SecVisor maps one to one.
#![allow(unsafe_code, reason = "physical addresses become references here and nowhere else")]

use core::sync::atomic::AtomicU8;

use policy::PAGE_SIZE;
use policy::address::Gpa;
use policy::frame::FrameClass;
use policy::nested::TableMemory;

mod launch;

pub use launch::Launch;

/// The memory of the nested tables: reserved, and Hidden from the guest.
pub struct Tables(());

impl Tables {
    /// # Safety
    /// Only for the nested tables' own reserved range.
    pub const unsafe fn new() -> Self {
        Self(())
    }
}

impl TableMemory for Tables {
    fn read(&self, at: u64) -> u64 {
        // SAFETY: `Nested` passes only addresses of entries in its reserved range.
        unsafe { (at as *const u64).read_volatile() }
    }

    fn write(&mut self, at: u64, value: u64) {
        // SAFETY: as above; one aligned store, so a table walk sees the old or the new entry.
        unsafe { (at as *mut u64).write_volatile(value) }
    }
}

/// The guest's memory: RAM that is not Hidden. Racing writes by the guest are expected, so
/// everything is copied out by single volatile reads.
#[derive(Clone, Copy)]
pub struct Guest {
    classes: &'static [AtomicU8],
}

impl Guest {
    /// For the memory that the frame table describes.
    pub const fn new(classes: &'static [AtomicU8]) -> Self {
        Self { classes }
    }

    /// Whether the frame is the guest's RAM.
    #[inline(always)]
    pub fn is_ram(&self, gpa: Gpa) -> bool {
        let class = policy::nested::class_in(self.classes, gpa.frame());
        matches!(class, FrameClass::Data | FrameClass::Approved | FrameClass::Pending)
    }

    /// Whether the frame has this class, which is not [`FrameClass::Device`].
    #[inline(always)]
    pub fn is_class(&self, gpa: Gpa, class: FrameClass) -> bool {
        policy::nested::is_class_in(self.classes, gpa.frame(), class)
    }

    /// The class of a frame.
    #[inline(always)]
    pub fn class(&self, gpa: Gpa) -> FrameClass {
        policy::nested::class_in(self.classes, gpa.frame())
    }

    /// The 8 bytes at `gpa`, which must be a multiple of 8; `None` where the guest has no RAM.
    #[inline(always)]
    pub fn read(&self, gpa: Gpa) -> Option<u64> {
        if !self.is_ram(gpa) {
            return None;
        }
        // SAFETY: the frame is RAM, so it is mapped; aligned by the caller's promise and the mask.
        Some(unsafe { ((gpa.0 & !7) as *const u64).read_volatile() })
    }

    /// The 2 bytes at `gpa`, which must not cross a page; `None` where the guest has no RAM.
    #[inline(always)]
    pub fn read_u16(&self, gpa: Gpa) -> Option<u16> {
        #[repr(C, packed)]
        struct Unaligned(u16);
        if !self.is_ram(gpa) || gpa.0 & 0xFFF > 0xFFE {
            return None;
        }
        // SAFETY: both bytes are in a frame that is RAM; the type asks for no alignment.
        Some(unsafe { (gpa.0 as *const Unaligned).read_volatile().0 })
    }

    /// Copies the bytes from `gpa` on to `to`, as far as the frame and `to` reach; returns how
    /// many, 0 where the guest has no RAM.
    pub fn copy(&self, gpa: Gpa, to: &mut [u8]) -> usize {
        if !self.is_ram(gpa) {
            return 0;
        }
        let count = to.len().min((PAGE_SIZE - gpa.0 % PAGE_SIZE) as usize);
        for (offset, byte) in to.iter_mut().take(count).enumerate() {
            // SAFETY: the byte lies in the same frame, which is RAM.
            *byte = unsafe { (gpa.0 as *const u8).add(offset).read_volatile() };
        }
        count
    }
}
