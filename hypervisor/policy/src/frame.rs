//! Frame classes and what each view may do with them.
//!
//! A permission belongs to a physical frame, never to a virtual address: aliases, re-pointed page
//! tables and CR3 switches cannot change it (Franklin et al., CMU-CyLab-08-008).

use core::fmt;

/// What a physical frame is used for. The representation is the byte in the frame table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum FrameClass {
    /// All RAM that nothing below claims.
    Data = 0,
    /// Kernel or module code that the owner approved and SecVisor verified.
    Approved = 1,
    /// Code under verification, or on its way out.
    Pending = 2,
    /// MMIO, ROM and what the firmware reserves.
    Device = 3,
    /// Device registers whose every write SecVisor judges (local APIC, I/O APIC).
    Guarded = 4,
    /// SecVisor itself, its tables and the approval list.
    Hidden = 5,
}

/// One of the two sets of nested page tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum View {
    /// Loaded while the guest's kernel runs: executes approved frames only.
    Kernel = 0,
    /// Loaded while user mode runs: executes everything but approved frames.
    User = 1,
}

impl View {
    /// Both views, in the order in which their tables are kept.
    pub const ALL: [View; 2] = [View::Kernel, View::User];
}

/// What a view or a device may do with a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// May be read.
    pub read: bool,
    /// May be written.
    pub write: bool,
    /// May be executed.
    pub execute: bool,
}

impl Access {
    /// No access at all.
    pub const NONE: Self = Self { read: false, write: false, execute: false };
    /// Read only.
    pub const R: Self = Self { read: true, ..Self::NONE };
    /// Read and write.
    pub const RW: Self = Self { write: true, ..Self::R };
    /// Read and execute.
    pub const RX: Self = Self { execute: true, ..Self::R };
    /// Read, write and execute.
    pub const RWX: Self = Self { execute: true, ..Self::RW };

    /// Whether this takes away something that `old` gave, so that cached translations of `old`
    /// must be flushed before it is relied upon.
    pub const fn tightens(self, old: Self) -> bool {
        (old.read && !self.read) || (old.write && !self.write) || (old.execute && !self.execute)
    }
}

impl FrameClass {
    /// Every class, in the order of their bytes.
    pub const ALL: [Self; 6] =
        [Self::Data, Self::Approved, Self::Pending, Self::Device, Self::Guarded, Self::Hidden];

    /// The class that a byte of the frame table stands for. A byte that stands for none is
    /// `Hidden`: what is not known gives no access.
    pub const fn from_byte(byte: u8) -> Self {
        match byte {
            0 => Self::Data,
            1 => Self::Approved,
            2 => Self::Pending,
            3 => Self::Device,
            4 => Self::Guarded,
            _ => Self::Hidden,
        }
    }

    /// What `view` may do with a frame of this class. Both nested tables derive from this.
    pub const fn access(self, view: View) -> Access {
        match (self, view) {
            (Self::Approved, View::Kernel) => Access::RX,
            (Self::Approved, View::User) => Access::R,
            (Self::Pending, _) => Access::R,
            (Self::Data, View::Kernel) => Access::RW,
            (Self::Data, View::User) => Access::RWX,
            (Self::Device, _) => Access::RW,
            (Self::Guarded, _) => Access::R,
            (Self::Hidden, _) => Access::NONE,
        }
    }

    /// The name in violation records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Approved => "approved",
            Self::Pending => "pending",
            Self::Device => "device",
            Self::Guarded => "guarded",
            Self::Hidden => "hidden",
        }
    }
}

impl fmt::Display for FrameClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_class_is_writable_anywhere_and_kernel_executable() {
        for class in FrameClass::ALL {
            if class.access(View::Kernel).execute {
                assert!(View::ALL.iter().all(|&view| !class.access(view).write), "{class}");
            }
        }
    }

    #[test]
    fn no_class_is_executable_in_both_views() {
        for class in FrameClass::ALL {
            assert!(!View::ALL.iter().all(|&view| class.access(view).execute), "{class}");
        }
    }

    #[test]
    fn only_approved_code_executes_in_the_kernel_view() {
        for class in FrameClass::ALL {
            assert_eq!(class.access(View::Kernel).execute, class == FrameClass::Approved);
        }
    }

    #[test]
    fn bytes_round_trip_and_unknown_ones_give_no_access() {
        for class in FrameClass::ALL {
            assert_eq!(FrameClass::from_byte(class as u8), class);
        }
        for byte in 6..=u8::MAX {
            let class = FrameClass::from_byte(byte);
            assert_eq!(class.access(View::Kernel), Access::NONE);
            assert_eq!(class.access(View::User), Access::NONE);
        }
    }

    #[test]
    fn whatever_is_taken_away_tightens() {
        let all = || (0..8).map(|bits| [1, 2, 4].map(|bit| bits & bit != 0));
        for (old, new) in all().flat_map(|old| all().map(move |new| (old, new))) {
            let lost = (0..3).any(|at| old[at] && !new[at]);
            let access = |[read, write, execute]: [bool; 3]| Access { read, write, execute };
            assert_eq!(access(new).tightens(access(old)), lost, "{old:?} {new:?}");
        }
    }

    #[test]
    fn records_call_classes_by_name() {
        let names = FrameClass::ALL.map(|class| class.to_string());
        assert_eq!(names, ["data", "approved", "pending", "device", "guarded", "hidden"]);
    }
}
