//! SecVisor's interrupt descriptors. GIF is clear while it runs beside a guest, so these catch
//! only its own faults, NMIs before the guest starts and on parked processors, and the #SX that
//! an INIT becomes there.
#![allow(unsafe_code, reason = "interrupt entry points")]

use core::arch::naked_asm;

use crate::svm::cpu;

mod table;

pub use table::{fill, load};

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
