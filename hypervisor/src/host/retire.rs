//! The end of the launch: what has run for the last time can never run again.
#![allow(unsafe_code, reason = "takes pages out of SecVisor's own tables")]

use x86_64::registers::control::Cr3;

use crate::svm::world_switch;
use crate::vcpu::Vcpu;

unsafe extern "C" {
    static launch_start: u8;
    static launch_end: u8;
}

const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;

/// Unmaps the code that the linker script sets apart for the launch, on this processor for good,
/// and runs the guest.
///
/// # Safety
/// As for [`world_switch::run`].
#[inline(never)]
pub unsafe extern "C" fn run_without_launch_code(
    vcpu: *mut Vcpu,
    fast: unsafe extern "C" fn(*mut Vcpu) -> *mut Vcpu,
    slow: unsafe extern "C" fn(*mut Vcpu),
) -> ! {
    let (root, flags) = Cr3::read();
    let pages = &raw const launch_start as u64..&raw const launch_end as u64;
    for page in pages.step_by(4096) {
        let mut table = root.start_address().as_u64();
        for shift in [39, 30, 21] {
            // SAFETY: the tables map memory one to one, and the image by pages of 4 KiB.
            table = unsafe { *entry(table, page, shift) } & ADDRESS;
        }
        // SAFETY: as above; this function is no part of that code and does not return to it.
        unsafe { entry(table, page, 12).write_volatile(0) };
    }
    // SAFETY: the same tables; this flushes what was cached of them.
    unsafe { Cr3::write(root, flags) };
    // SAFETY: by the caller's promise.
    unsafe { world_switch::run(vcpu, fast, slow) }
}

fn entry(table: u64, page: u64, shift: u32) -> *mut u64 {
    (table + (page >> shift & 0x1FF) * 8) as *mut u64
}
