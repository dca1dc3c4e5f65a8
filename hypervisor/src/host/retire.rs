//! The end of the launch: what has run for the last time can never run again.
#![allow(unsafe_code, reason = "takes pages out of SecVisor's own tables")]

use x86_64::registers::control::Cr3;

unsafe extern "C" {
    static launch_start: u8;
    static launch_end: u8;
}

const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;

/// Unmaps the code that the linker script sets apart for the launch, on this processor for good.
///
/// # Safety
/// The caller must not lie in that code and never return to it.
pub unsafe fn retire_launch_code() {
    let (root, flags) = Cr3::read();
    let pages = &raw const launch_start as u64..&raw const launch_end as u64;
    for page in pages.step_by(4096) {
        let mut table = root.start_address().as_u64();
        for shift in [39, 30, 21] {
            // SAFETY: the tables map memory one to one, and the image by pages of 4 KiB.
            table = unsafe { *entry(table, page, shift) } & ADDRESS;
        }
        // SAFETY: as above; nothing refers to the page any more.
        unsafe { entry(table, page, 12).write_volatile(0) };
    }
    // SAFETY: the same tables; this flushes what was cached of them.
    unsafe { Cr3::write(root, flags) };
}

fn entry(table: u64, page: u64, shift: u32) -> *mut u64 {
    (table + (page >> shift & 0x1FF) * 8) as *mut u64
}
