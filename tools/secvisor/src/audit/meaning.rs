//! What a group of violations means to the kernel's owner, and what mends it.

/// Groups of violations, in the order in which they are told.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Meaning {
    /// Writes to approved code.
    Patching,
    /// Code that was changed runs again.
    ChangedCode,
    /// Code of the kernel that the list leaves out.
    KernelCode,
    /// Modules.
    ModuleCode,
    /// Any other code in kernel mode.
    OtherCode,
    /// User code in frames of the kernel's code.
    UserCode,
    /// Writes to model-specific registers.
    Registers,
    /// Accesses to ports, sleep states included.
    Ports,
    /// Writes to guarded devices.
    Devices,
    /// INIT, start-up and SMI.
    Processors,
    /// SecVisor's own memory.
    Hidden,
    /// What is pinned by `set_kernel_mode`.
    Pinned,
    /// Everything else.
    Other,
}

impl Meaning {
    /// The meaning of every kind but `kernel-fetch`.
    pub fn of(kind: &str, class: &str) -> Self {
        match (kind, class) {
            ("write" | "read", "hidden") => Self::Hidden,
            ("write", "guarded" | "device") => Self::Devices,
            ("write", _) => Self::Patching,
            ("user-fetch", _) => Self::UserCode,
            ("msr", _) => Self::Registers,
            ("port" | "sleep", _) => Self::Ports,
            ("init", _) => Self::Processors,
            ("pinned", _) => Self::Pinned,
            _ => Self::Other,
        }
    }

    /// Whether its addresses tell more than the class of the frame: registers of devices.
    pub fn has_addresses(self) -> bool {
        matches!(self, Self::Devices | Self::Processors)
    }

    /// What it is.
    pub fn title(self) -> &'static str {
        self.texts()[0]
    }

    /// What enforcement does.
    pub fn effect(self) -> &'static str {
        self.texts()[1]
    }

    /// What mends it.
    pub fn remedy(self) -> &'static str {
        self.texts()[2]
    }

    fn texts(self) -> [&'static str; 3] {
        match self {
            Self::Patching => [
                "writes to approved code",
                "The kernel changes its own code (alternatives, static calls, jump labels, ftrace), or \
                 reuses the memory of code that it freed: #GP at the first of them.",
                "CONFIG_SECVISOR_GUEST of the port builds a kernel that never changes its code, for a price \
                 in mitigations and tracing, and that tells SecVisor what it frees.",
            ],
            Self::ChangedCode => [
                "changed code that ran again",
                "The page was written to before and is no longer what the list says.",
                "Ends when nothing writes to code.",
            ],
            Self::KernelCode => [
                "kernel code that the list leaves out",
                "The kernel's own code, mostly of its initialisation, in pages that it shares with \
                 other sections.",
                "The port's vmlinux.lds.S gives .init.text pages of its own; approve then takes it.",
            ],
            Self::ModuleCode => [
                "modules",
                "Modules that nobody approved; loading one fails with EPERM.",
                "Approve them with --module or --modules; the port asks SecVisor for each that is \
                 loaded.",
            ],
            Self::OtherCode => [
                "code from elsewhere",
                "No part of the kernel's file: modules (a map names them), compiled BPF, trampolines of \
                 ftrace and kprobes, or an attack.",
                "Modules are approved; the port's configuration has no BPF compiler, ftrace and \
                 kprobes.",
            ],
            Self::UserCode => [
                "programs in the kernel's code",
                "A program runs in a frame that held kernel code, such as freed init text.",
                "The port gives init text back to SecVisor before it frees it.",
            ],
            Self::Registers => [
                "writes to model-specific registers",
                "#GP, which Linux takes as 'unchecked MSR access', warns of once and goes on without.",
                "Nothing to do if the kernel runs without: what moves memory or processors stays as \
                 the firmware left it.",
            ],
            Self::Ports => [
                "accesses to ports",
                "#GP, an oops in the driver that did it: bridges, sleep states and power management \
                 are not the guest's.",
                "Leave the driver out of the configuration.",
            ],
            Self::Devices => [
                "writes to guarded devices",
                "#GP, an oops in the driver that did it: interrupt controllers, the HPET and the \
                 configuration of bridges take what SecVisor understands and allows.",
                "Leave the driver out, or switch the device off on the kernel's command line.",
            ],
            Self::Processors => [
                "INIT, start-up and SMI",
                "#GP: the kernel tried to start or reset a processor, and SecVisor keeps all others.",
                "CONFIG_SMP off, or maxcpus=1 on the kernel's command line.",
            ],
            Self::Hidden => [
                "accesses to SecVisor's memory",
                "#GP, in audit too: the memory map does not offer that memory to the guest.",
                "Honest kernels have no reason to; find out what did it.",
            ],
            Self::Pinned => [
                "writes to what set_kernel_mode pinned",
                "#GP: control registers and entry points stay as they were when boot was complete.",
                "Honest kernels have no reason to; find out what did it.",
            ],
            Self::Other => [
                "others",
                "#GP, or the end of the machine: see README, 'Reading violation records'.",
                "Depends on the kind.",
            ],
        }
    }
}
