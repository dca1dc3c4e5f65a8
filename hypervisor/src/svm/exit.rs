//! Why the guest stopped: exit codes, decoded (AMD64 APM vol. 2, appendix C).

use super::vmcb::Vmcb;

/// A `#VMEXIT` code as the processor writes it.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct ExitCode(pub u64);

#[allow(missing_docs, reason = "named as in the manual's table")]
impl ExitCode {
    pub const CR4_WRITE: Self = Self(0x14);
    pub const EXCEPTION_0: Self = Self(0x40);
    pub const EXCEPTION_UD: Self = Self(0x46);
    pub const INTR: Self = Self(0x60);
    pub const NMI: Self = Self(0x61);
    pub const INIT: Self = Self(0x63);
    pub const CR0_SELECTIVE_WRITE: Self = Self(0x65);
    pub const IDTR_WRITE: Self = Self(0x6A);
    pub const PUSHF: Self = Self(0x70);
    pub const POPF: Self = Self(0x71);
    pub const CPUID: Self = Self(0x72);
    pub const RSM: Self = Self(0x73);
    pub const IRET: Self = Self(0x74);
    pub const SOFTWARE_INTERRUPT: Self = Self(0x75);
    pub const INVD: Self = Self(0x76);
    pub const INVLPGA: Self = Self(0x7A);
    pub const IOIO: Self = Self(0x7B);
    pub const MSR: Self = Self(0x7C);
    pub const TASK_SWITCH: Self = Self(0x7D);
    pub const SHUTDOWN: Self = Self(0x7F);
    pub const VMMCALL: Self = Self(0x81);
    pub const ICEBP: Self = Self(0x88);
    pub const NPF: Self = Self(0x400);
}

/// An exit, decoded once; handlers never see a raw code.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// An exception that the user view intercepts, with its error code and, for #PF, address.
    Exception {
        /// Vector.
        vector: u8,
        /// Error code, if the vector has one.
        error_code: u32,
        /// EXITINFO2: the faulting address of #PF.
        address: u64,
    },
    /// INTR or NMI became pending in the user view.
    PendingInterrupt,
    /// INT n, and INT3 on processors that report it so.
    SoftwareInterrupt,
    /// INT1.
    IceBreakpoint,
    /// PUSHF, POPF or IRET while a segment load is being stepped.
    Flags,
    /// INIT.
    Init,
    /// A write to the control register with this number, once it is pinned.
    ControlRegister(u8),
    /// LIDT, once IDTR is pinned.
    InterruptTable,
    /// CPUID.
    Cpuid,
    /// RDMSR.
    ReadMsr,
    /// WRMSR.
    WriteMsr,
    /// IN, OUT, INS, OUTS.
    Port {
        /// EXITINFO1.
        info: u64,
        /// EXITINFO2: address of the next instruction.
        next: u64,
    },
    /// INVD.
    Invd,
    /// VMMCALL.
    Hypercall,
    /// An instruction that does not exist for the guest: SVM, SKINIT, RSM.
    Undefined,
    /// A hardware task switch.
    TaskSwitch,
    /// Shutdown.
    Shutdown,
    /// A nested page fault.
    NestedPageFault {
        /// EXITINFO1.
        info: u64,
        /// EXITINFO2: the guest-physical address.
        gpa: u64,
    },
    /// Anything else, VMEXIT_INVALID included.
    Unknown(u64),
}

impl Exit {
    /// Decodes what the VMCB holds.
    pub fn decode(vmcb: &Vmcb) -> Self {
        let control = &vmcb.control;
        let (info, address) = (control.exit_info_1, control.exit_info_2);
        match ExitCode(control.exit_code) {
            ExitCode(code @ 0x40..=0x5F) => {
                let vector = (code - ExitCode::EXCEPTION_0.0) as u8;
                Self::Exception { vector, error_code: info as u32, address }
            }
            ExitCode::INTR | ExitCode::NMI => Self::PendingInterrupt,
            ExitCode::INIT => Self::Init,
            ExitCode::PUSHF | ExitCode::POPF | ExitCode::IRET => Self::Flags,
            ExitCode::CR0_SELECTIVE_WRITE => Self::ControlRegister(0),
            ExitCode::CR4_WRITE => Self::ControlRegister(4),
            ExitCode::IDTR_WRITE => Self::InterruptTable,
            ExitCode::CPUID => Self::Cpuid,
            ExitCode::SOFTWARE_INTERRUPT => Self::SoftwareInterrupt,
            ExitCode::INVD => Self::Invd,
            ExitCode::IOIO => Self::Port { info, next: address },
            ExitCode::MSR if info & 1 != 0 => Self::WriteMsr,
            ExitCode::MSR => Self::ReadMsr,
            ExitCode::TASK_SWITCH => Self::TaskSwitch,
            ExitCode::SHUTDOWN => Self::Shutdown,
            ExitCode::VMMCALL => Self::Hypercall,
            ExitCode::ICEBP => Self::IceBreakpoint,
            // VMRUN, VMLOAD, VMSAVE, STGI, CLGI, SKINIT; VMMCALL is above.
            ExitCode(0x80..=0x86) | ExitCode::INVLPGA | ExitCode::RSM => Self::Undefined,
            ExitCode::NPF => Self::NestedPageFault { info, gpa: address },
            ExitCode(code) => Self::Unknown(code),
        }
    }
}
