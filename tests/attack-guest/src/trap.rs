//! Traps: each one ends what was running and comes back as a value.

pub use crate::arch::Frame;
use crate::arch::Pushed;
use crate::cpu;
use crate::devices;
use crate::memory::peek;
use crate::say;

/// The address of a symbol of the assembly files or the linker script.
macro_rules! symbol {
    ($name:ident) => {{
        unsafe extern "C" {
            static $name: u8;
        }
        &raw const $name as u64
    }};
}
pub(crate) use symbol;

pub const DEBUG: u64 = 1;
pub const NMI: u64 = 2;
pub const UNDEFINED: u64 = 6;
pub const NO_DEVICE: u64 = 7;
pub const DOUBLE_FAULT: u64 = 8;
pub const PAGE_FAULT: u64 = 14;
/// Where the 8259 delivers IRQ 0.
pub const TIMER: u64 = 0x20;
/// "The end", from user mode and from payloads.
pub const END: u64 = 0x81;
/// SYSCALL from 64-bit code; 0x101 from compatibility mode.
pub const SYSCALL: u64 = 0x100;

pub const KERNEL_CS: u64 = 0x10;

unsafe extern "C" {
    fn guarded_call(function: u64, argument: u64) -> u32;
    fn enter_user();
    fn enter_user_sysret();
}

/// Called by the stubs: keeps the frame. Returns the stack for `land`; 0 means go on as before.
#[unsafe(no_mangle)]
extern "C" fn trap(pushed: &Pushed) -> usize {
    let frame = Frame::of(pushed);
    if (TIMER..TIMER + 16).contains(&frame.vector) {
        devices::end_of_interrupt();
    }
    if frame.vector == NMI && frame.cs & 3 == 0 {
        // Too early: it was meant for user mode.
        devices::arm_nmi();
        return 0;
    }
    let resume = peek(symbol!(recover_rsp));
    if resume == 0 {
        say!(
            "guest: stray trap vector={:#x} error={:#x} ip={:#x} cs={:#x} sp={:#x} cr2={:#x}",
            frame.vector,
            frame.error,
            frame.ip,
            frame.cs,
            frame.sp,
            cpu::cr2()
        );
        devices::exit(devices::FAILED);
    }
    let last = symbol!(last_frame) as *mut Frame;
    // SAFETY: `last_frame` is reserved for this and aligned.
    unsafe { last.write_volatile(frame) };
    resume as usize
}

/// The registers at the last trap.
pub fn last() -> Frame {
    let last = symbol!(last_frame) as *const Frame;
    // SAFETY: `last_frame` holds a frame, or zeroes, which are one too.
    unsafe { last.read_volatile() }
}

/// Calls kernel code anywhere; the trap that ended it, or `None` if it returned.
pub fn call(function: u64, argument: u64) -> Option<Frame> {
    // SAFETY: traps come back through `land`; what else happens is the experiment.
    let trapped = unsafe { guarded_call(function, argument) };
    (trapped != 0).then(last)
}

/// Calls a Rust function so that a trap in it comes back as a value.
pub fn attempt(function: extern "C" fn(u64), argument: u64) -> Option<Frame> {
    call(function as *const () as u64, argument)
}

fn set_user(frame: &Frame) {
    // SAFETY: `user_frame` is reserved for this and aligned.
    unsafe { (symbol!(user_frame) as *mut Pushed).write_volatile(frame.pushed()) };
}

/// Runs user mode (by IRET) until the next trap.
pub fn run_user(frame: &Frame) -> Frame {
    set_user(frame);
    // SAFETY: every trap comes back through `land`.
    unsafe { enter_user() };
    last()
}

/// The same by SYSRET.
pub fn run_user_sysret(frame: &Frame) -> Frame {
    set_user(frame);
    // SAFETY: as above.
    unsafe { enter_user_sysret() };
    last()
}

/// Runs user code at `ip` until the next trap.
pub fn run_user_at(ip: u64) -> Frame {
    run_user(&Frame::user(ip))
}
