//! The exits of every mode switch, finished with the few registers that a call may change.
//!
//! One user-kernel-user round trip takes two of them: into the kernel view and out of it.
#![allow(unsafe_code, reason = "called by the world switch with the address of its vCPU")]

use policy::address::{Gpa, Gva};
use policy::fault::EntryGuard;
use policy::frame::{FrameClass, View};
use policy::msr;
use policy::walk::Paging;

use crate::exits::gate_refuses;
use crate::svm::exit::ExitCode;
use crate::svm::vmcb::{Event, INTERRUPT_FLAG, RESUME_FLAG, SEGMENT_LONG, TRAP_FLAG, VIRTUAL_8086};
use crate::vcpu::Vcpu;

/// EXITINFO1 of a nested page fault: an instruction fetch.
const FETCH: u64 = 1 << 4;
const EVENT_VALID: u64 = 1 << 31;
const SYSCALL: u16 = 0x050F;
const CR4_LA57: u64 = 1 << 12;
/// Attributes of the segments that SYSCALL loads: flat, present, ring 0 (APM vol. 3, SYSCALL).
const CODE_64: u16 = 0xA9B;
const CODE_32: u16 = 0xC9B;
const DATA: u16 = 0xC93;

/// The exits of the `events` guard. Returns the vCPU if the guest can go on, else null.
///
/// # Safety
/// For the world switch only: `vcpu` is its vCPU, and nobody else refers to it.
pub unsafe extern "C" fn events(vcpu: *mut Vcpu) -> *mut Vcpu {
    // SAFETY: by the caller's promise.
    finish(unsafe { &mut *vcpu }, EntryGuard::Events)
}

/// The exits of the `npf` guard. Returns the vCPU if the guest can go on, else null.
///
/// # Safety
/// For the world switch only: `vcpu` is its vCPU, and nobody else refers to it.
pub unsafe extern "C" fn npf(vcpu: *mut Vcpu) -> *mut Vcpu {
    // SAFETY: by the caller's promise.
    finish(unsafe { &mut *vcpu }, EntryGuard::Npf)
}

/// With GMET no mode switch exits: leaves all to the slow path.
///
/// # Safety
/// For the world switch only: `vcpu` is its vCPU, and nobody else refers to it.
pub unsafe extern "C" fn gmet(vcpu: *mut Vcpu) -> *mut Vcpu {
    // SAFETY: by the caller's promise.
    finish(unsafe { &mut *vcpu }, EntryGuard::Gmet)
}

#[inline(always)]
fn finish(vcpu: &mut Vcpu, guard: EntryGuard) -> *mut Vcpu {
    vcpu.exits += 1;
    let control = &mut vcpu.vmcb.control;
    control.event_injection = 0;
    let done = match ExitCode(control.exit_code) {
        _ if guard == EntryGuard::Gmet => false,
        ExitCode::NPF => mode_switch(vcpu, guard),
        ExitCode::EXCEPTION_UD if guard == EntryGuard::Events => system_call(vcpu),
        ExitCode::INTR if guard == EntryGuard::Events => interrupt(vcpu),
        _ => return software_interrupt(vcpu),
    };
    if done { vcpu } else { core::ptr::null_mut() }
}

/// A fetch that means a mode switch; see [`policy::fault::judge`] for all the others.
#[inline(always)]
fn mode_switch(vcpu: &mut Vcpu, guard: EntryGuard) -> bool {
    let control = &vcpu.vmcb.control;
    if control.exit_info_1 & FETCH == 0 || control.exit_interrupt_info & EVENT_VALID != 0 {
        return false;
    }
    let gpa = Gpa(control.exit_info_2);
    let user_mode = vcpu.vmcb.save.cpl == 3;
    if vcpu.view() == View::Kernel {
        if !user_mode || !vcpu.guest().is_class(gpa, FrameClass::Data) {
            return false;
        }
        match guard {
            EntryGuard::Npf => vcpu.load_plain(View::User),
            _ => vcpu.load_user_view(),
        }
    } else {
        let entry = guard == EntryGuard::Npf && !user_mode;
        if !entry || !vcpu.guest().is_class(gpa, FrameClass::Approved) {
            return false;
        }
        vcpu.load_plain(View::Kernel);
    }
    true
}

/// An interrupt became pending in user mode: it stays pending and is taken in the kernel view. Only
/// the user view intercepts it.
#[inline(always)]
fn interrupt(vcpu: &mut Vcpu) -> bool {
    if vcpu.step.is_some() {
        return false;
    }
    vcpu.load_kernel_view();
    true
}

/// INT n, the system call of 32-bit programs: only the user view intercepts it. Apart, so that the
/// exits above save no registers for it.
#[inline(never)]
fn software_interrupt(vcpu: &mut Vcpu) -> *mut Vcpu {
    let left = core::ptr::null_mut();
    let save = &vcpu.vmcb.save;
    let rip = save.rip;
    // Left to the slow path: virtual-8086 mode, prefixes, one across a page border, a refusing gate.
    let exit = ExitCode(vcpu.vmcb.control.exit_code);
    if exit != ExitCode::SOFTWARE_INTERRUPT
        || save.rflags & VIRTUAL_8086 != 0
        || vcpu.step.is_some()
    {
        return left;
    }
    let gpa = vcpu.translate(vcpu.instruction_address(vcpu.is_64_bit()));
    match gpa.and_then(|gpa| vcpu.guest().read_u16(gpa)).map(u16::to_le_bytes) {
        Some([0xCD, vector]) if opens_gate(vcpu, vector) => {
            vcpu.vmcb.advance_to(rip.wrapping_add(2));
            vcpu.inject(Event::software(vector));
            vcpu
        }
        _ => left,
    }
}

/// Whether the gate of `vector` lets user mode in; the last one that did is remembered. Should it have
/// changed since, the guest's #GP names the address behind the instruction, as any fault of a delivery.
#[inline(always)]
fn opens_gate(vcpu: &mut Vcpu, vector: u8) -> bool {
    let idtr = &vcpu.vmcb.save.idtr;
    let gate = Some((idtr.base, idtr.limit, vector));
    if vcpu.open_gate != gate {
        if gate_refuses(vcpu, vector) {
            return false;
        }
        vcpu.open_gate = gate;
    }
    true
}

/// SYSCALL from 64-bit user code, which raised #UD because the user view has EFER.SCE off: done
/// here as the manual says, into the kernel view (APM vol. 3, SYSCALL).
#[inline(always)]
fn system_call(vcpu: &mut Vcpu) -> bool {
    let save = &vcpu.vmcb.save;
    let rip = save.rip;
    // Left to the slow path: compatibility mode, five levels, a single-stepped SYSCALL, one across
    // a page border. Only the user view intercepts #UD.
    let long = save.cs.attributes & SEGMENT_LONG != 0 && save.efer & msr::LMA != 0;
    if !long
        || save.cr4 & CR4_LA57 != 0
        || save.rflags & TRAP_FLAG != 0
        || rip & 0xFFF > 0xFF8
        || vcpu.step.is_some()
    {
        return false;
    }
    let guest = vcpu.guest();
    let Some(gpa) = Paging::FourLevels.translate(save.cr3, Gva(rip), |at| guest.read(at)) else {
        return false;
    };
    if guest.read_u16(gpa) != Some(SYSCALL) {
        return false;
    }
    perform_system_call(vcpu, rip.wrapping_add(2), Caller::Long)
}

/// The mode that SYSCALL is executed in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// 64-bit mode.
    Long,
    /// Compatibility mode.
    Compatibility,
    /// Legacy protected mode.
    Legacy,
}

/// What SYSCALL does, from the user view; `false` if the guest has it disabled (APM vol. 3, SYSCALL).
#[inline(always)]
pub fn perform_system_call(vcpu: &mut Vcpu, next: u64, caller: Caller) -> bool {
    vcpu.load_kernel_view();
    let registers = vcpu.system_call;
    let save = &mut vcpu.vmcb.save;
    if save.efer & msr::SCE == 0 {
        return false;
    }
    let rflags = save.rflags & !RESUME_FLAG;
    vcpu.registers.rcx = next;
    let mask = if caller == Caller::Legacy {
        INTERRUPT_FLAG | VIRTUAL_8086
    } else {
        vcpu.registers.r11 = rflags;
        registers.sfmask
    };
    save.rip = match caller {
        Caller::Long => registers.lstar,
        Caller::Compatibility => registers.cstar,
        Caller::Legacy => registers.star & 0xFFFF_FFFF,
    };
    save.rflags = rflags & !mask | 2;
    let selector = (registers.star >> 32) as u16;
    save.cs.selector = selector & !3;
    save.cs.attributes = if caller == Caller::Legacy { CODE_32 } else { CODE_64 };
    save.cs.limit = u32::MAX;
    save.cs.base = 0;
    save.ss.selector = selector.wrapping_add(8) & !3;
    save.ss.attributes = DATA;
    save.ss.limit = u32::MAX;
    save.ss.base = 0;
    save.cpl = 0;
    vcpu.vmcb.control.interrupt_shadow = 0;
    true
}
