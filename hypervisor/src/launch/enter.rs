//! The guest's first instruction.
#![allow(unsafe_code, reason = "enters the guest")]

use core::sync::atomic::Ordering;

use boot::linux::GuestStart;
use boot::screen::Screen;
use policy::approval::Architecture;
use policy::fault::EntryGuard;
use policy::msr;

use super::refuse;
use crate::host::retire::run_without_launch_code;
use crate::svm::{cpu, vmcb::Segment};
use crate::vcpu::Vcpu;
use crate::{exits, fast, hardware, panic};

/// Gives the processor the state that Linux's boot protocols ask for, and runs the guest.
pub fn enter(vcpu: &'static mut Vcpu, start: &GuestStart, screen: &Screen) -> ! {
    if hardware::enable_svm(vcpu.host_save_area()).is_err() {
        refuse(screen, format_args!("the processor refuses to switch SVM on"));
    }
    let segment = |selector, attributes| Segment { selector, attributes, limit: u32::MAX, base: 0 };
    let save = &mut vcpu.vmcb.save;
    match start.architecture {
        Architecture::X86_64 => {
            save.cs = segment(0x10, 0xA9B);
            save.cr0 = 0x8000_0011; // PG, ET, PE
            save.cr3 = start.cr3;
            save.cr4 = 0x20; // PAE
            save.efer = msr::SVME | 0x500; // LMA, LME
        }
        Architecture::I386 => {
            save.cs = segment(0x10, 0xC9B);
            save.cr0 = 0x11; // ET, PE
            save.efer = msr::SVME;
        }
    }
    save.ss = segment(0x18, 0xC93);
    save.ds = save.ss;
    save.es = save.ss;
    save.tr = Segment { selector: 0, attributes: 0x8B, limit: 0xFFFF, base: 0 };
    save.gdtr.base = start.gdt_base;
    save.gdtr.limit = start.gdt_limit.into();
    save.rflags = 2;
    save.dr6 = 0xFFFF_0FF0;
    save.dr7 = 0x400;
    save.pat = 0x0007_0406_0007_0406;
    save.rip = start.rip;
    vcpu.registers.rsi = start.rsi;
    vcpu.discharge_flush();
    let fast = match vcpu.machine.guard {
        EntryGuard::Events => fast::events,
        EntryGuard::Npf => fast::npf,
        EntryGuard::Gmet => fast::gmet,
    };
    panic::VCPU.store(vcpu, Ordering::Relaxed);
    // What was hashed in the caches is what memory holds, for uncached aliases too.
    cpu::write_back_caches();
    cpu::clear_global_interrupt_flag();
    cpu::load_hidden_state(&vcpu.vmcb);
    // SAFETY: the VMCB is complete: nested paging on, an ASID that is not 0, the kernel view; GIF
    // is clear.
    unsafe { run_without_launch_code(vcpu, fast, exits::slow) }
}
