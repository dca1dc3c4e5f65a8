//! SecVisor's interrupt descriptors. GIF is clear while it runs beside a guest, so these catch
//! only its own faults, which end it (`panic.rs`), NMIs before the guest starts and on parked
//! processors, and the #SX that an INIT becomes there.
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

/// #GP of a RDMSR or WRMSR on the guest's behalf resumes at the RET behind it (2 bytes) and the XOR
/// (2 bytes), with ESI = 1.
#[unsafe(naked)]
unsafe extern "C" fn general_protection() {
    naked_asm!(
        "push rax",
        "lea rax, [rip + {read}]",
        "cmp rax, [rsp + 16]", // RIP: RAX and the error code lie below it
        "je 2f",
        "lea rax, [rip + {write}]",
        "cmp rax, [rsp + 16]",
        "2: pop rax",
        "jne exception_entries + 13 * 16",
        "add rsp, 8",
        "add qword ptr [rsp], 4",
        "mov esi, 1",
        "iretq",
        read = sym cpu::read_msr_or_fail,
        write = sym cpu::write_msr_or_fail,
    )
}
