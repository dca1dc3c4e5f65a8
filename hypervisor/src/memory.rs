//! The way to physical memory, which SecVisor maps one to one.
#![allow(unsafe_code, reason = "physical addresses become references here and nowhere else")]

use core::sync::atomic::AtomicU8;

use policy::PAGE_SIZE;
use policy::address::{Gpa, PhysicalRange};
use policy::frame::FrameClass;
use policy::nested::TableMemory;

/// All of physical memory, while SecVisor is alone on the machine: before the guest starts.
pub struct Launch(());

impl Launch {
    /// # Safety
    /// Only one may exist, and none once the guest runs.
    pub const unsafe fn new() -> Self {
        Self(())
    }

    /// Zeroes `range` and hands it out for good, as SecVisor's own.
    ///
    /// # Safety
    /// The range must be RAM that nothing else refers to, ever; zero must be a valid `T`.
    pub unsafe fn claim<T>(&mut self, range: PhysicalRange) -> &'static mut [T] {
        let count = range.length() as usize / size_of::<T>();
        assert!(range.start().is_multiple_of(align_of::<T>() as u64));
        // SAFETY: mapped one to one; the caller vouches that nobody else has it and for zero.
        unsafe {
            core::ptr::write_bytes(range.start() as *mut u8, 0, range.length() as usize);
            core::slice::from_raw_parts_mut(range.start() as *mut T, count)
        }
    }

    /// Moves `value` to the start of `range` for good.
    ///
    /// # Safety
    /// The range must be RAM that nothing else refers to, ever.
    pub unsafe fn place<T>(&mut self, range: PhysicalRange, value: T) -> &'static mut T {
        let fits = range.length() >= size_of::<T>() as u64;
        assert!(fits && range.start().is_multiple_of(align_of::<T>() as u64));
        let place = range.start() as *mut T;
        // SAFETY: mapped one to one, large enough and aligned; nobody else has it.
        unsafe {
            place.write(value);
            &mut *place
        }
    }

    /// The bytes in `range` for good, to be read.
    ///
    /// # Safety
    /// The range must be RAM that nobody writes any more.
    pub unsafe fn keep(&self, range: PhysicalRange) -> &'static [u8] {
        // SAFETY: mapped one to one; the caller vouches that it stays as it is.
        unsafe { core::slice::from_raw_parts(range.start() as *const u8, range.length() as usize) }
    }
}

impl boot::memory::PhysicalMemory for Launch {
    fn bytes(&self, range: PhysicalRange) -> &[u8] {
        // SAFETY: mapped one to one; `self` is borrowed, so nobody writes meanwhile.
        unsafe { core::slice::from_raw_parts(range.start() as *const u8, range.length() as usize) }
    }

    fn bytes_mut(&mut self, range: PhysicalRange) -> &mut [u8] {
        // SAFETY: mapped one to one; `self` is borrowed mutably, so nobody else looks.
        unsafe {
            core::slice::from_raw_parts_mut(range.start() as *mut u8, range.length() as usize)
        }
    }

    fn copy(&mut self, from: PhysicalRange, to: u64) {
        // SAFETY: mapped one to one, and `copy` allows the places to overlap.
        unsafe {
            core::ptr::copy(from.start() as *const u8, to as *mut u8, from.length() as usize);
        }
    }
}

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

/// A 32-bit device register, mapped one to one and never in RAM.
pub struct DeviceRegister(u64);

impl DeviceRegister {
    /// # Safety
    /// `address` must be the register of a device that reading and writing leaves SecVisor intact.
    pub const unsafe fn new(address: u64) -> Self {
        Self(address & !3)
    }

    /// Reads it.
    pub fn read(&self) -> u32 {
        // SAFETY: the constructor's caller vouched for the address.
        unsafe { (self.0 as *const u32).read_volatile() }
    }

    /// Writes it.
    pub fn write(&self, value: u32) {
        // SAFETY: the constructor's caller vouched for the address.
        unsafe { (self.0 as *mut u32).write_volatile(value) }
    }
}
