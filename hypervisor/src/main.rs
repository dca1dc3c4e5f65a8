//! SecVisor: a micro-hypervisor for AMD SVM that lets only approved code run in kernel mode.
//!
//! GRUB enters at `boot::entry`, [`launch`] checks and prepares everything, then
//! [`svm::world_switch`] runs the guest for good: [`fast`] finishes mode switches, [`exits`] all
//! other exits. What is allowed is decided in the `policy` crate; this one obeys.
#![no_std]
#![no_main]

mod code;
mod exits;
mod fast;
mod hardware;
mod host;
mod instruction;
mod launch;
mod machine;
mod memory;
mod panic;
mod smp;
mod svm;
mod vcpu;

/// Where the assembly of [`boot::entry`] goes: `information` is GRUB's, `image` and `tables` are
/// the physical addresses of SecVisor and of the page tables that it starts with.
#[allow(unsafe_code, reason = "the entry point, named in assembly")]
#[unsafe(no_mangle)]
extern "C" fn secvisor_main(information: u64, image: u64, tables: u64) -> ! {
    // SAFETY: called once, by the entry code, before any guest runs.
    unsafe { launch::launch(information, image, tables) }
}
