//! Honest programs that only long mode has.

use crate::honest::{Program, program};

/// The programs.
pub fn programs() -> [Program; 6] {
    [
        program!("syscall", u_syscall),
        program!("syscall-sysret", u_syscall, sysret: true),
        program!("step-sysret", u_step, sysret: true),
        program!("segments-sysret", u_segments, sysret: true),
        program!("compatibility", u_compatibility),
        program!("registers", u_registers, sysret: true, every: 20),
    ]
}
