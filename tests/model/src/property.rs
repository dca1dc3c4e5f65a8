//! What the model holds the policy against, by name.

use std::fmt;

/// A property. Its name is what the mutants' patches say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Property {
    /// No fetch retires at CPL < 3 outside of verified bytes.
    KernelFetch,
    /// No approved or pending frame is writable through any view, cached translation or device, once
    /// its protection was settled.
    NoWrite,
    /// SecVisor's frames cannot be reached.
    Hidden,
    /// What becomes executable in kernel mode is, in every byte, what was verified, and nothing else does.
    Granted,
    /// No bytes are verified and no permission is given to anyone before every processor and the IOMMU
    /// acknowledged the flush that the permission taken away before needs.
    Flush,
    /// A release changes the frames of the unit that it names, and no others.
    Release,
    /// A refused call leaves all frames as they were.
    Refused,
    /// CPL < 3 never runs in the user view, and with GMET no fault there would load it.
    KernelView,
    /// With GMET an honest guest switches modes without an exit, and user mode gets no view of its own.
    NoExit,
    /// What the guest's kernel flushed is not used in the user view.
    GuestFlush,
    /// The tables change in the entries of frames only, and these lead to their own frames.
    Entries,
    /// An honest guest is never stopped, and comes to the end of its script.
    Honest,
}

impl Property {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::KernelFetch,
        Self::NoWrite,
        Self::Hidden,
        Self::Granted,
        Self::Flush,
        Self::Release,
        Self::Refused,
        Self::KernelView,
        Self::NoExit,
        Self::GuestFlush,
        Self::Entries,
        Self::Honest,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::KernelFetch => "kernel-fetches-only-verified-bytes",
            Self::NoWrite => "protected-frames-take-no-write",
            Self::Hidden => "secvisor-frames-are-unreachable",
            Self::Granted => "granted-equals-verified",
            Self::Flush => "tightening-waits-for-every-flush",
            Self::Release => "release-frees-own-frames-only",
            Self::Refused => "refused-leaves-no-trace",
            Self::KernelView => "kernel-mode-has-the-kernel-view",
            Self::NoExit => "mode-switches-take-no-exit",
            Self::GuestFlush => "guest-flushes-reach-the-user-view",
            Self::Entries => "tables-change-in-own-entries-only",
            Self::Honest => "honest-guest-is-never-stopped",
        }
    }
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
