//! Single instructions that have no safe form. Every function is one instruction, or few.
#![allow(unsafe_code, reason = "processor instructions; each block says why it is sound")]

use core::arch::{asm, naked_asm};

use super::vmcb::Vmcb;

pub use core::arch::x86_64::{__cpuid_count as cpuid, CpuidResult};

/// The processor raised #GP.
#[derive(Debug)]
pub struct GeneralProtection;

/// RDMSR that reports #GP instead of dying of it.
///
/// # Errors
/// The register does not exist.
pub fn read_msr(msr: u32) -> Result<u64, GeneralProtection> {
    let (low, high, failed): (u32, u32, u32);
    // SAFETY: reading an MSR has no effect on memory; #GP resumes at the fixup with ESI = 1.
    unsafe {
        asm!(
            "call {read}",
            read = sym read_msr_or_fail,
            in("ecx") msr, out("eax") low, out("edx") high, out("esi") failed,
        );
    }
    if failed == 0 { Ok(u64::from(high) << 32 | u64::from(low)) } else { Err(GeneralProtection) }
}

/// WRMSR that reports #GP instead of dying of it.
///
/// # Safety
/// The value must not break what SecVisor itself relies on (paging, SVM, its own entry points).
///
/// # Errors
/// The register does not exist or refuses the value.
pub unsafe fn write_msr(msr: u32, value: u64) -> Result<(), GeneralProtection> {
    let failed: u32;
    // SAFETY: the caller vouches for the value; #GP resumes at the fixup with ESI = 1.
    unsafe {
        asm!(
            "call {write}",
            write = sym write_msr_or_fail,
            in("ecx") msr, in("eax") value as u32, in("edx") (value >> 32) as u32,
            out("esi") failed,
        );
    }
    if failed == 0 { Ok(()) } else { Err(GeneralProtection) }
}

/// RDMSR alone. The first instruction may fault: the handler of #GP then resumes at the RET.
///
/// # Safety
/// Only for [`read_msr`], which has its calling convention.
#[unsafe(naked)]
pub unsafe extern "C" fn read_msr_or_fail() {
    naked_asm!("rdmsr", "xor esi, esi", "ret")
}

/// WRMSR alone, as [`read_msr_or_fail`].
///
/// # Safety
/// Only for [`write_msr`], which has its calling convention.
#[unsafe(naked)]
pub unsafe extern "C" fn write_msr_or_fail() {
    naked_asm!("wrmsr", "xor esi, esi", "ret")
}

/// Reads the selector in LDTR.
#[inline(always)]
pub fn local_descriptor_table() -> u16 {
    let selector: u32;
    // SAFETY: SLDT only reads a register.
    unsafe { asm!("sldt {:e}", out(reg) selector, options(nomem, nostack, preserves_flags)) };
    selector as u16
}

/// Makes LDTR null. SecVisor itself uses no local descriptors.
pub fn clear_local_descriptor_table() {
    // SAFETY: a null selector loads no descriptor and touches no memory.
    unsafe { asm!("lldt {:x}", in(reg) 0u32, options(nomem, nostack, preserves_flags)) };
}

/// Stores FS, GS, TR, LDTR, KernelGSbase, SYSCALL and SYSENTER registers into the VMCB.
pub fn save_hidden_state(vmcb: &mut Vmcb) {
    // SAFETY: VMSAVE writes only the VMCB at RAX, which is ours (APM vol. 2, 15.5.2).
    unsafe { asm!("vmsave rax", in("rax") vmcb, options(nostack, preserves_flags)) };
}

/// Loads what [`save_hidden_state`] stores.
pub fn load_hidden_state(vmcb: &Vmcb) {
    // SAFETY: SecVisor's own code uses none of these registers (APM vol. 2, 15.5.2).
    unsafe { asm!("vmload rax", in("rax") vmcb, options(nostack, preserves_flags)) };
}

/// Writes CR2, which some emulators do not load from the VMCB.
pub fn write_cr2(address: u64) {
    // SAFETY: CR2 only tells the guest's handler an address; SecVisor takes no page faults.
    unsafe { asm!("mov cr2, {}", in(reg) address, options(nomem, nostack, preserves_flags)) };
}

/// Holds interrupts, NMI and INIT back until the next VMRUN (APM vol. 2, 15.17).
pub fn clear_global_interrupt_flag() {
    // SAFETY: only delays events.
    unsafe { asm!("clgi", options(nomem, nostack)) };
}

/// Writes back and invalidates all caches, in place of the guest's INVD.
pub fn write_back_caches() {
    // SAFETY: WBINVD changes no memory contents.
    unsafe { asm!("wbinvd", options(nostack, preserves_flags)) };
}

/// Writes back and invalidates the cache lines of mapped memory, in every processor's caches.
pub fn flush_cache_lines(start: u64, length: u64) {
    // SAFETY: stores that still wait in write-combining buffers come first.
    unsafe { asm!("mfence", options(nostack, preserves_flags)) };
    // Every processor with SVM has lines of 64 bytes (CPUID 0000_0001h EBX[15:8]).
    for line in (start..start + length).step_by(64) {
        // SAFETY: CLFLUSH changes no memory contents.
        unsafe { asm!("clflush [{}]", in(reg) line, options(nostack, preserves_flags)) };
    }
    // SAFETY: orders the flushes before what follows.
    unsafe { asm!("mfence", options(nostack, preserves_flags)) };
}

/// Reads `size` (1, 2 or 4) bytes from a port.
///
/// # Safety
/// Reading the port must not break what SecVisor relies on.
pub unsafe fn port_read(port: u16, size: u8) -> u32 {
    // SAFETY: the caller vouches for the port.
    unsafe {
        match size {
            1 => x86_64::instructions::port::Port::<u8>::new(port).read().into(),
            2 => x86_64::instructions::port::Port::<u16>::new(port).read().into(),
            _ => x86_64::instructions::port::Port::<u32>::new(port).read(),
        }
    }
}

/// Writes `size` (1, 2 or 4) bytes to a port.
///
/// # Safety
/// The write must not break what SecVisor relies on.
pub unsafe fn port_write(port: u16, size: u8, value: u32) {
    // SAFETY: the caller vouches for the port and the value.
    unsafe {
        match size {
            1 => x86_64::instructions::port::Port::<u8>::new(port).write(value as u8),
            2 => x86_64::instructions::port::Port::<u16>::new(port).write(value as u16),
            _ => x86_64::instructions::port::Port::<u32>::new(port).write(value),
        }
    }
}

/// Stops this processor for good.
pub fn stop() -> ! {
    loop {
        x86_64::instructions::interrupts::disable();
        x86_64::instructions::hlt();
    }
}

/// Resets the whole machine: CF9 hard reset, and the keyboard controller where that is not heard.
pub fn reset() -> ! {
    for (port, value) in [(0xCF9, 0x02), (0xCF9, 0x0E), (0x64, 0xFE)] {
        // SAFETY: the machine's uptime ends here; nothing is relied upon any more.
        unsafe { port_write(port, 1, value) };
    }
    stop()
}
