//! Registers at a trap.

use crate::say;
use crate::trap::{END, symbol};

const USER_CS: u64 = 0x33;
const USER_SS: u64 = 0x2B;

/// Registers at a trap, as the stubs in entry.s push them.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct Frame {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub di: u64,
    pub si: u64,
    pub bp: u64,
    pub bx: u64,
    pub dx: u64,
    pub cx: u64,
    pub ax: u64,
    pub vector: u64,
    pub error: u64,
    pub ip: u64,
    pub cs: u64,
    pub flags: u64,
    pub sp: u64,
    pub ss: u64,
}

/// The same, as the processor and the stubs have it.
pub type Pushed = Frame;

impl Frame {
    /// A user-mode start at `ip`.
    pub fn user(ip: u64) -> Self {
        let sp = symbol!(user_stack_top);
        Self { ip, sp, cs: USER_CS, ss: USER_SS, flags: 2, ..Self::default() }
    }

    /// The same with these flags.
    pub fn with_flags(ip: u64, flags: u64) -> Self {
        Self { flags, ..Self::user(ip) }
    }

    /// What the stubs left.
    pub fn of(pushed: &Pushed) -> Self {
        *pushed
    }

    /// What IRET and the stubs take.
    pub fn pushed(&self) -> Pushed {
        *self
    }

    /// Where a program wants to go on after a fault.
    pub fn resume(&self) -> u64 {
        self.r15
    }

    /// Whether a program is at its end.
    pub fn is_end(&self) -> bool {
        self.vector == END
    }

    /// The register that the benchmark counts down.
    pub fn counter(&mut self) -> &mut u64 {
        &mut self.r15
    }

    /// User mode with a pattern in each register.
    pub fn patterned(ip: u64, resume: u64) -> Self {
        let pattern = |digit: u64| digit * 0x1111_1111_1111_1111;
        Self {
            ax: pattern(1),
            bx: pattern(2),
            cx: pattern(3),
            dx: pattern(4),
            si: pattern(5),
            di: pattern(6),
            bp: pattern(7),
            r8: pattern(8),
            r9: pattern(9),
            r10: pattern(10),
            r11: pattern(11),
            r12: pattern(12),
            r13: pattern(13),
            r14: pattern(14),
            r15: resume,
            ..Self::user(ip)
        }
    }
}

/// Says what the general-purpose registers hold.
pub fn print_registers(name: &str, count: usize, frame: &Frame) {
    say!(
        "honest: {name} {count} registers {:x} {:x} {:x} {:x} {:x} {:x} {:x} {:x} {:x} {:x} {:x} \
         {:x} {:x} {:x} {:x}",
        frame.ax,
        frame.bx,
        frame.cx,
        frame.dx,
        frame.si,
        frame.di,
        frame.bp,
        frame.r8,
        frame.r9,
        frame.r10,
        frame.r11,
        frame.r12,
        frame.r13,
        frame.r14,
        frame.r15
    );
}
