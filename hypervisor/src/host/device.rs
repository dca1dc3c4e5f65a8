//! Device registers in memory.
#![allow(unsafe_code, reason = "reads and writes registers at physical addresses")]

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
