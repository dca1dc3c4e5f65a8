//! The virtual machine control block (AMD64 APM vol. 2, appendix B).

mod layout;

bitflags::bitflags! {
    /// Intercepts at offset 00Ch (low word) and 010h (high word).
    #[derive(Clone, Copy)]
    pub struct Intercepts: u64 {
        /// Physical interrupts.
        const INTR = 1 << 0;
        /// Non-maskable interrupts.
        const NMI = 1 << 1;
        /// INIT.
        const INIT = 1 << 3;
        /// CR0 writes that change more than TS and MP.
        const WRITES_CR0 = 1 << 5;
        /// LIDT.
        const WRITES_IDTR = 1 << 10;
        /// PUSHF.
        const PUSHF = 1 << 16;
        /// POPF.
        const POPF = 1 << 17;
        /// CPUID.
        const CPUID = 1 << 18;
        /// RSM.
        const RSM = 1 << 19;
        /// IRET.
        const IRET = 1 << 20;
        /// INT n.
        const SOFTWARE_INTERRUPT = 1 << 21;
        /// INVD.
        const INVD = 1 << 22;
        /// INVLPGA.
        const INVLPGA = 1 << 26;
        /// Ports by the I/O permission map.
        const IOIO = 1 << 27;
        /// RDMSR and WRMSR by the MSR permission map.
        const MSR = 1 << 28;
        /// Hardware task switches.
        const TASK_SWITCH = 1 << 29;
        /// Shutdown.
        const SHUTDOWN = 1 << 31;
        /// VMRUN, which the processor demands to be intercepted.
        const VMRUN = 1 << 32;
        /// VMMCALL.
        const VMMCALL = 1 << 33;
        /// VMLOAD.
        const VMLOAD = 1 << 34;
        /// VMSAVE.
        const VMSAVE = 1 << 35;
        /// STGI.
        const STGI = 1 << 36;
        /// CLGI.
        const CLGI = 1 << 37;
        /// SKINIT.
        const SKINIT = 1 << 38;
        /// INT1.
        const ICEBP = 1 << 40;
    }
}

/// A segment register.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Segment {
    /// Selector.
    pub selector: u16,
    /// Descriptor bits 40-47 and 52-55.
    pub attributes: u16,
    /// Limit in bytes.
    pub limit: u32,
    /// Base.
    pub base: u64,
}

/// RFLAGS: trap after each instruction.
pub const TRAP_FLAG: u64 = 1 << 8;
/// RFLAGS: interrupts on.
pub const INTERRUPT_FLAG: u64 = 1 << 9;
/// RFLAGS: the privilege that I/O and, in virtual-8086 mode, INT n need.
pub const IOPL: u64 = 3 << 12;
/// RFLAGS: virtual-8086 mode.
pub const VIRTUAL_8086: u64 = 1 << 17;
/// RFLAGS: no instruction breakpoint at this one.
pub const RESUME_FLAG: u64 = 1 << 16;

/// TLB control: flush every ASID of this processor (APM vol. 2, 15.16).
pub const FLUSH_ALL: u64 = 1 << 32;
/// TLB control: flush this guest's ASID; only where the processor has FlushByAsid.
pub const FLUSH_THIS: u64 = 3 << 32;

/// Nested control: nested paging is on (APM vol. 2, 15.25.3).
pub const NESTED_PAGING: u64 = 1;
/// Nested control: code of user pages of the nested tables faults at CPL below 3 (Guest Mode Execute
/// Trap; where CPUID 8000_000Ah EDX bit 17 says so).
pub const GMET: u64 = 1 << 3;

/// Control-register intercepts: writes of CR4.
pub const WRITES_CR4: u32 = 1 << (16 + 4);

/// Attribute bit of a 64-bit code segment.
pub const SEGMENT_LONG: u16 = 1 << 9;

/// The control area.
#[repr(C)]
pub struct Control {
    /// Low word: reads of control registers, by number; high word: writes.
    pub control_register_intercepts: u32,
    debug_register_intercepts: u32,
    /// Low word: intercepted exceptions by vector; high word: [`Intercepts`], low word.
    pub exceptions_and_intercepts: u64,
    /// [`Intercepts`], high word.
    pub intercepts_high: u32,
    reserved_014: [u8; 0x2C],
    /// Physical address of the I/O permission map.
    pub iopm_base: u64,
    /// Physical address of the MSR permission map.
    pub msrpm_base: u64,
    tsc_offset: u64,
    /// Low word: the guest's address space identifier (ASID), not 0; high word: what the next
    /// VMRUN flushes.
    pub address_space: u64,
    virtual_interrupt: u64,
    /// Bit 0: the guest is in an interrupt shadow.
    pub interrupt_shadow: u64,
    /// Why the guest stopped.
    pub exit_code: u64,
    /// First detail of the exit.
    pub exit_info_1: u64,
    /// Second detail of the exit.
    pub exit_info_2: u64,
    /// The event whose delivery the exit interrupted.
    pub exit_interrupt_info: u64,
    /// [`NESTED_PAGING`] and [`GMET`].
    pub nested_control: u64,
    reserved_098: [u8; 0x10],
    /// The event to inject at the next VMRUN.
    pub event_injection: u64,
    /// Root of the nested tables.
    pub nested_cr3: u64,
    lbr_control: u64,
    /// What the processor may keep from the last VMRUN: nothing.
    pub clean: u64,
    /// Address of the next instruction, where the processor tells it.
    pub next_rip: u64,
    reserved_0d0: [u8; 0x330],
}

/// The state-save area.
#[repr(C)]
pub struct Save {
    /// Extra segment.
    pub es: Segment,
    /// Code segment.
    pub cs: Segment,
    /// Stack segment.
    pub ss: Segment,
    /// Data segment.
    pub ds: Segment,
    /// FS; moved by VMLOAD and VMSAVE.
    pub fs: Segment,
    /// GS; moved by VMLOAD and VMSAVE.
    pub gs: Segment,
    /// Global descriptor table.
    pub gdtr: Segment,
    /// Local descriptor table; moved by VMLOAD and VMSAVE.
    pub ldtr: Segment,
    /// Interrupt descriptor table.
    pub idtr: Segment,
    /// Task register; moved by VMLOAD and VMSAVE.
    pub tr: Segment,
    reserved_0a0: [u8; 0x2B],
    /// Current privilege level.
    pub cpl: u8,
    reserved_0cc: u32,
    /// Extended features.
    pub efer: u64,
    reserved_0d8: [u8; 0x70],
    /// CR4.
    pub cr4: u64,
    /// CR3.
    pub cr3: u64,
    /// CR0.
    pub cr0: u64,
    /// Debug control.
    pub dr7: u64,
    /// Debug status.
    pub dr6: u64,
    /// Flags.
    pub rflags: u64,
    /// Instruction pointer.
    pub rip: u64,
    reserved_180: [u8; 0x58],
    /// Stack pointer.
    pub rsp: u64,
    reserved_1e0: [u8; 0x18],
    /// RAX.
    pub rax: u64,
    /// SYSCALL registers, KernelGSbase and SYSENTER registers; moved by VMLOAD and VMSAVE.
    system_call: [u64; 8],
    /// Address of the last page fault.
    pub cr2: u64,
    reserved_248: [u8; 0x20],
    /// Page attribute table of the guest.
    pub pat: u64,
    reserved_270: [u8; 0x990],
}

/// A VMCB: one page, page-aligned.
#[repr(C, align(4096))]
pub struct Vmcb {
    /// What is intercepted and what happened.
    pub control: Control,
    /// The guest's registers.
    pub save: Save,
}

/// An event for EVENTINJ, or from EXITINTINFO (APM vol. 2, 15.20).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Event(pub u64);

const EVENT_VALID: u64 = 1 << 31;
const EVENT_ERROR_CODE: u64 = 1 << 11;
const TYPE_EXCEPTION: u64 = 3 << 8;
const TYPE_SOFTWARE: u64 = 4 << 8;
const TYPE_NMI: u64 = 2 << 8;

impl Event {
    /// The exceptions that push an error code: #DF, #TS, #NP, #SS, #GP, #PF, #AC, #CP, #VC, #SX.
    const WITH_ERROR_CODE: u32 = 0x6022_7D00;

    /// An exception; `error_code` counts only for vectors that push one.
    pub fn exception(vector: u8, error_code: u32) -> Self {
        let event = EVENT_VALID | TYPE_EXCEPTION | u64::from(vector);
        if Self::WITH_ERROR_CODE & (1u32 << (vector & 31)) != 0 {
            Self(event | EVENT_ERROR_CODE | u64::from(error_code) << 32)
        } else {
            Self(event)
        }
    }

    /// INT n.
    pub fn software(vector: u8) -> Self {
        Self(EVENT_VALID | TYPE_SOFTWARE | u64::from(vector))
    }

    /// The event in EXITINTINFO, if any.
    ///
    /// Some emulators report an external interrupt as an exception: told apart by its vector.
    pub fn interrupted(exit_interrupt_info: u64) -> Option<Self> {
        if exit_interrupt_info & EVENT_VALID == 0 {
            return None;
        }
        let event = Self(exit_interrupt_info & (0xFFFF_FFFF_0000_0FFF | EVENT_VALID));
        match (event.0 & (7 << 8), event.vector()) {
            (TYPE_EXCEPTION, 2) => Some(Self(EVENT_VALID | TYPE_NMI | 2)),
            (TYPE_EXCEPTION, vector @ 32..) => Some(Self(EVENT_VALID | u64::from(vector))),
            _ => Some(event),
        }
    }

    /// Vector.
    pub const fn vector(self) -> u8 {
        self.0 as u8
    }

    /// Whether it is an exception, and so makes a fault during its delivery a double fault.
    pub const fn is_exception(self) -> bool {
        self.0 & (7 << 8) == TYPE_EXCEPTION
    }
}

impl Vmcb {
    /// A VMCB of all zeroes: nothing intercepted, no guest state.
    #[allow(unsafe_code, reason = "a page of zeroes, field by field, would be sixty lines")]
    pub const fn zeroed() -> Self {
        // SAFETY: all fields are integers or arrays of such, for which zero is a value.
        unsafe { core::mem::zeroed() }
    }

    /// Moves the instruction pointer past the instruction that exited: to where the processor
    /// says, else by `length` bytes.
    pub fn advance(&mut self, length: u64) {
        let next = self.control.next_rip;
        self.advance_to(if next != 0 { next } else { self.save.rip.wrapping_add(length) });
    }

    /// Moves the instruction pointer to `next`, and ends an interrupt shadow and the resume flag as
    /// the instruction itself would have.
    pub fn advance_to(&mut self, next: u64) {
        let wraps = self.save.cs.attributes & SEGMENT_LONG == 0;
        self.save.rip = if wraps { next & 0xFFFF_FFFF } else { next };
        self.control.interrupt_shadow = 0;
        self.save.rflags &= !RESUME_FLAG;
    }
}
