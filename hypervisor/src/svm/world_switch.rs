//! The switch between SecVisor and its guest.
//!
//! VMRUN loads the guest's state from the VMCB at RAX and runs it; the next intercepted event is a
//! #VMEXIT, which stores the guest's state back, reloads RSP, RAX and the rest of SecVisor's own
//! from the host save area, and goes on behind VMRUN (AMD64 APM vol. 2, 15.5 and 15.6). RAX then
//! again holds the address of the VMCB, which is the first field of [`Vcpu`]: so the registers that
//! VMRUN does not switch are stored relative to it.
//!
//! An exit that the fast path can finish costs the registers that a Rust call may change and no
//! others. GIF stays clear from #VMEXIT to VMRUN: no interrupt, NMI or INIT arrives in SecVisor.
#![allow(unsafe_code, reason = "the world switch; the only way in and out of the guest")]

use core::arch::naked_asm;
use core::mem::offset_of;

use crate::vcpu::{Registers, Vcpu};

macro_rules! at {
    ($register:ident) => {
        offset_of!(Vcpu, registers) + offset_of!(Registers, $register)
    };
}

/// Runs the guest for good: `fast` sees every exit first and returns the vCPU if it is done, null
/// if `slow` must see it, with all registers stored.
///
/// # Safety
/// The VMCB must be complete and hold a state that keeps the guarantee; GIF must be clear.
#[unsafe(naked)]
pub unsafe extern "C" fn run(
    vcpu: *mut Vcpu,
    fast: unsafe extern "C" fn(*mut Vcpu) -> *mut Vcpu,
    slow: unsafe extern "C" fn(*mut Vcpu),
) -> ! {
    naked_asm!(
        // Nobody returns: the stack begins anew. [rsp] = vcpu, [rsp + 8] = fast, [rsp + 16] = slow;
        // RSP is 16-byte aligned for calls.
        "lea rsp, [rip + early_stack_end - 8]",
        "push rdx",
        "push rsi",
        "push rdi",
        "mov rax, rdi",
        "2:",
        "mov rbx, [rax + {rbx}]",
        "mov rbp, [rax + {rbp}]",
        "mov r12, [rax + {r12}]",
        "mov r13, [rax + {r13}]",
        "mov r14, [rax + {r14}]",
        "mov r15, [rax + {r15}]",
        "3:",
        "mov rcx, [rax + {rcx}]",
        "mov rdx, [rax + {rdx}]",
        "mov rsi, [rax + {rsi}]",
        "mov rdi, [rax + {rdi}]",
        "mov r8, [rax + {r8}]",
        "mov r9, [rax + {r9}]",
        "mov r10, [rax + {r10}]",
        "mov r11, [rax + {r11}]",
        "vmrun rax",
        "mov [rax + {rcx}], rcx",
        "mov [rax + {rdx}], rdx",
        "mov [rax + {rsi}], rsi",
        "mov [rax + {rdi}], rdi",
        "mov [rax + {r8}], r8",
        "mov [rax + {r9}], r9",
        "mov [rax + {r10}], r10",
        "mov [rax + {r11}], r11",
        "mov rdi, rax",
        "call [rsp + 8]",
        "test rax, rax",
        "jnz 3b",
        "mov rdi, [rsp]",
        "mov [rdi + {rbx}], rbx",
        "mov [rdi + {rbp}], rbp",
        "mov [rdi + {r12}], r12",
        "mov [rdi + {r13}], r13",
        "mov [rdi + {r14}], r14",
        "mov [rdi + {r15}], r15",
        "call [rsp + 16]",
        "mov rax, [rsp]",
        "jmp 2b",
        rcx = const at!(rcx),
        rdx = const at!(rdx),
        rbx = const at!(rbx),
        rbp = const at!(rbp),
        rsi = const at!(rsi),
        rdi = const at!(rdi),
        r8 = const at!(r8),
        r9 = const at!(r9),
        r10 = const at!(r10),
        r11 = const at!(r11),
        r12 = const at!(r12),
        r13 = const at!(r13),
        r14 = const at!(r14),
        r15 = const at!(r15),
    )
}
