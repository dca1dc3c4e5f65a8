//! SecVisor's interrupt descriptors. GIF is clear while it runs beside a guest, so these catch
//! only its own faults, NMIs before the guest starts and on parked processors, and the #SX that
//! an INIT becomes there.
#![allow(unsafe_code, reason = "interrupt entry points")]

use core::arch::naked_asm;
use core::sync::atomic::{AtomicU64, Ordering};

use x86_64::VirtAddr;
use x86_64::instructions::tables::lidt;
use x86_64::structures::DescriptorTablePointer;

use crate::svm::cpu;

const VECTORS: usize = 32;
const DEBUG: usize = 1;
const NMI: usize = 2;
const GENERAL_PROTECTION: usize = 13;
const SECURITY: usize = 30;
/// Present, 64-bit interrupt gate.
const GATE: u64 = 0x8E00;
/// The code segment of the early GDT, which SecVisor keeps.
const CODE_SELECTOR: u64 = 8;

static TABLE: [AtomicU64; VECTORS * 2] = [const { AtomicU64::new(0) }; VECTORS * 2];

/// Fills the table.
pub fn fill() {
    for (vector, gate) in TABLE.chunks_exact(2).enumerate() {
        let handler: unsafe extern "C" fn() = match vector {
            DEBUG | NMI => ignore,
            GENERAL_PROTECTION => general_protection,
            SECURITY => ignore_with_error_code,
            _ => unexpected,
        };
        let address = handler as *const () as u64;
        let (middle, low) = (address >> 16 & 0xFFFF, address & 0xFFFF);
        gate[0].store(low | CODE_SELECTOR << 16 | GATE << 32 | middle << 48, Ordering::Relaxed);
        gate[1].store(address >> 32, Ordering::Relaxed);
    }
}

/// Loads the table on this processor.
pub fn load() {
    let base = VirtAddr::from_ptr(TABLE.as_ptr());
    let limit = (size_of_val(&TABLE) - 1) as u16;
    // SAFETY: the table is static and filled; nothing writes it any more.
    unsafe { lidt(&DescriptorTablePointer { limit, base }) };
}

/// A leftover single step of the guest on some emulators; an NMI that nobody waits for.
#[unsafe(naked)]
unsafe extern "C" fn ignore() {
    naked_asm!("iretq")
}

#[unsafe(naked)]
unsafe extern "C" fn ignore_with_error_code() {
    naked_asm!("add rsp, 8", "iretq")
}

/// #GP of a RDMSR or WRMSR on the guest's behalf resumes behind it with ESI = 1.
#[unsafe(naked)]
unsafe extern "C" fn general_protection() {
    naked_asm!(
        "push rax",
        "push rcx",
        "push rdx",
        "push rdi",
        "push r8",
        "push r9",
        "push r10",
        "push r11",
        "mov rdi, [rsp + 72]", // RIP: eight registers and the error code lie below it
        "call {resume}",
        "mov [rsp + 72], rax",
        "pop r11",
        "pop r10",
        "pop r9",
        "pop r8",
        "pop rdi",
        "pop rdx",
        "pop rcx",
        "pop rax",
        "mov esi, 1",
        "add rsp, 8",
        "iretq",
        resume = sym resume,
    )
}

extern "C" fn resume(rip: u64) -> u64 {
    match cpu::fixup(rip) {
        Some(rip) => rip,
        None => panic!("#GP in SecVisor at {rip:#x}"),
    }
}

#[unsafe(naked)]
unsafe extern "C" fn unexpected() {
    naked_asm!("mov rdi, [rsp]", "mov rsi, [rsp + 8]", "and rsp, -16", "call {die}", die = sym die)
}

extern "C" fn die(first: u64, second: u64) -> ! {
    panic!("exception in SecVisor: stack {first:#x} {second:#x}")
}
