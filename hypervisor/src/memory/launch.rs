//! All of physical memory, for the time before the guest starts.
#![allow(unsafe_code, reason = "physical addresses become references, while nobody else has any")]

use policy::address::PhysicalRange;

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
