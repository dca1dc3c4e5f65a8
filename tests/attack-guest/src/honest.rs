//! Honest behaviour: programs in user mode, and everything the kernel sees of each event.
//!
//! The lines must be the same, byte for byte, without SecVisor and under both entry guards.

use crate::arch;
use crate::boot::Options;
use crate::cpu;
use crate::devices;
use crate::memory::{self, PAGE};
use crate::say;
use crate::tables;
use crate::trap::{
    self, DEBUG, DOUBLE_FAULT, Frame, NMI, NO_DEVICE, PAGE_FAULT, SYSCALL, TIMER, symbol,
};

/// One program: its name, its start, and what is set up before.
pub struct Program {
    pub name: &'static str,
    pub start: u64,
    pub prepare: fn(),
    /// Go back to user mode by SYSRET after a SYSCALL.
    pub sysret: bool,
    /// RFLAGS at the start.
    pub flags: u64,
    /// Wait for an interrupt, with all registers set.
    pub interrupted: bool,
    /// Print only every so-many-th event: for programs with many equal ones.
    pub every: usize,
}

/// A program that needs nothing special.
macro_rules! program {
    ($name:literal, $start:ident $(, $field:ident: $value:expr)*) => {
        $crate::honest::Program {
            $($field: $value,)*
            ..$crate::honest::Program { name: $name, start: $crate::trap::symbol!($start), prepare: || (), sysret: false,
                flags: 2, interrupted: false, every: 1 }
        }
    };
}

pub(crate) use program;

/// DR7's condition and length: a store to 8 bytes, or to what the architecture has at most.
const WATCHED: u64 = if size_of::<usize>() == 8 { 9 } else { 13 };
/// RFLAGS.RF.
const RESUME: u64 = 1 << 16;

/// Runs all programs but those that the command line leaves out.
pub fn run(options: &Options) {
    let programs = [
        program!("int-80", u_int80),
        program!("int-closed", u_int_closed),
        program!("breakpoints", u_breakpoints),
        program!("icebp", u_icebp),
        program!("step", u_step),
        program!("step-faults", u_step_faults),
        program!("mov-ss", u_mov_ss),
        program!("mov-ss-step", u_mov_ss, flags: 0x102),
        program!("segments-step", u_segments, flags: 0x102),
        program!("hw-break", u_hw_break, prepare: || {
            cpu::write_dr0(symbol!(u_hw_break_at));
            cpu::write_dr7(0x401);
        }),
        program!("hw-watch", u_hw_watch, prepare: || {
            cpu::write_dr0(symbol!(user_data));
            cpu::write_dr7(0x401 | WATCHED << 16);
        }),
        program!("divide", u_divide),
        program!("undefined", u_undefined),
        program!("privileged", u_privileged),
        program!("bad-selectors", u_bad_selectors),
        program!("segments", u_segments),
        program!("far", u_far),
        program!("flags", u_flags),
        program!("page-faults", u_faults),
        program!("mappings", u_mappings),
        program!("svm", u_svm),
        program!("call-gate", u_call_gate),
        program!("ldt-call-gate", u_ldt_gate),
        program!("timer", u_spin, prepare: devices::arm_timer, interrupted: true),
        program!("nmi", u_spin, prepare: devices::arm_nmi, interrupted: true),
    ];
    let own = arch::programs();
    for program in programs.iter().chain(&own).filter(|program| program.start != 0) {
        if options.leaves_out(program.name) {
            continue;
        }
        tables::reset();
        (program.prepare)();
        play(program);
    }
    tables::reset();
}

/// Runs one program to its end.
fn play(program: &Program) {
    let mut next = Frame::with_flags(program.start, program.flags);
    if program.interrupted {
        let spin = Frame::patterned(program.start, symbol!(u_spin_end));
        next = Frame { flags: 0x202, ..spin };
    }
    let mut by_sysret = false;
    for count in 1..200 {
        let frame = if by_sysret { trap::run_user_sysret(&next) } else { trap::run_user(&next) };
        if count % program.every == 0 || frame.is_end() {
            print(program.name, count, &frame);
        }
        if frame.is_end() {
            return;
        }
        if frame.vector == arch::SYSTEM_CALL && frame.ax == 1 {
            let user_frame = symbol!(user_frames) + (frame.si & 1) * PAGE;
            match frame.dx {
                0 => memory::map(frame.di, 0, 0),
                flags => memory::map(frame.di, user_frame, arch::mapping(flags)),
            };
        }
        next = frame;
        by_sysret = program.sysret && frame.vector == SYSCALL;
        // After a trap the saved IP is where to go on; after all else a register says.
        let is_trap = matches!(frame.vector, DEBUG | 3 | 4 | 0x80 | SYSCALL | 0x101);
        if !is_trap {
            next.ip = frame.resume();
            next.flags &= !RESUME;
        }
        if frame.vector == DOUBLE_FAULT {
            tables::set_entry_stack(symbol!(trap_stack_top));
        }
        if frame.vector == NO_DEVICE {
            cpu::clts();
        }
        if frame.vector == DEBUG {
            // Past the breakpoint that stopped here.
            next.flags |= if cpu::dr6() & 1 != 0 { RESUME } else { 0 };
            cpu::write_dr6(0xFFFF_0FF0);
        }
        if matches!(frame.vector, TIMER | NMI) {
            devices::reset();
            next.flags &= !0x200;
        }
    }
    say!("honest: {} did not end", program.name);
}

const RESUME_FLAG: u64 = 1 << 16;

fn print(name: &str, count: usize, frame: &Frame) {
    let cr2 = if frame.vector == PAGE_FAULT { cpu::cr2() } else { 0 };
    let dr6 = if frame.vector == DEBUG { cpu::dr6() } else { 0 };
    // INT n pushes RF as 0; QEMU leaves it where a fault set it until the block of code ends. What a
    // double fault saves of it is nowhere said.
    let flags = if frame.vector >= 32 || frame.vector == DOUBLE_FAULT {
        frame.flags & !RESUME_FLAG
    } else {
        frame.flags
    };
    say!(
        "honest: {name} {count} vector={:#x} error={:#x} ip={:#x} cs={:#x} flags={:#x} sp={:#x} \
         ss={:#x} cr2={cr2:#x} dr6={dr6:#x}",
        frame.vector,
        frame.error,
        frame.ip,
        frame.cs,
        flags,
        frame.sp,
        frame.ss
    );
    arch::print_registers(name, count, frame);
}
