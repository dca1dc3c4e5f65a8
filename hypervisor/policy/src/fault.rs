//! What a nested page fault means.

use crate::frame::{FrameClass, View};
use crate::violation::Kind;

/// What keeps kernel entries inside approved code (boot options `views` and `entry-guard`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EntryGuard {
    /// No event is ever delivered through guest tables while the user view is loaded.
    Events,
    /// The paper's way: events are delivered in the user view and the fault on approved code
    /// loads the kernel view. Unsound, for comparison and measurement only.
    Npf,
    /// The processor: it tells kernel and user fetches apart by itself (Guest Mode Execute Trap).
    Gmet,
}

/// A nested page fault as the processor reports it (APM vol. 2, 15.25.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// An instruction fetch.
    pub fetch: bool,
    /// A write, the guest's own page-table walk included.
    pub write: bool,
    /// Privilege level of the guest.
    pub cpl: u8,
    /// The view that was loaded.
    pub view: View,
    /// Class of the frame, read after the fault.
    pub class: FrameClass,
}

/// What follows a nested page fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// A mode switch: load this view.
    Load(View),
    /// The tables allow the access now: a stale translation. Flush and retry once.
    Retry,
    /// A write to a device register that SecVisor judges.
    Guarded,
    /// Not allowed.
    Violation(Kind),
}

/// Judges a fault. Decides by privilege level, never by the page alone.
pub const fn judge(fault: &Fault, guard: EntryGuard) -> Verdict {
    let kernel_mode = fault.cpl < 3;
    // One table holds both views then, and the processor goes by the mode.
    let by_mode = matches!(guard, EntryGuard::Gmet) && !kernel_mode;
    let view = if by_mode { View::User } else { fault.view };
    let access = fault.class.access(view);
    if !fault.fetch {
        return match (fault.write, fault.class) {
            (true, FrameClass::Guarded) => Verdict::Guarded,
            (true, _) if !access.write => Verdict::Violation(Kind::Write),
            (false, _) if !access.read => Verdict::Violation(Kind::Read),
            _ => Verdict::Retry,
        };
    }
    match (view, kernel_mode, fault.class) {
        (View::Kernel, false, FrameClass::Data) => Verdict::Load(View::User),
        (View::User, true, FrameClass::Approved) if matches!(guard, EntryGuard::Npf) => {
            Verdict::Load(View::Kernel)
        }
        _ if access.execute => Verdict::Retry,
        (_, true, _) => Verdict::Violation(Kind::KernelFetch),
        (_, false, _) => Verdict::Violation(Kind::UserFetch),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use FrameClass::*;

    fn fetch(view: View, cpl: u8, class: FrameClass, guard: EntryGuard) -> Verdict {
        judge(&Fault { fetch: true, write: false, cpl, view, class }, guard)
    }

    #[test]
    fn fetches_are_judged_as_the_design_says() {
        for cpl in 0..=3 {
            for class in FrameClass::ALL {
                let kernel = fetch(View::Kernel, cpl, class, EntryGuard::Events);
                let user = fetch(View::User, cpl, class, EntryGuard::Events);
                let (expected_kernel, expected_user) = match (cpl, class) {
                    (3, Data) => (Verdict::Load(View::User), Verdict::Retry),
                    (3, Approved) => (Verdict::Retry, Verdict::Violation(Kind::UserFetch)),
                    (3, _) => {
                        (Verdict::Violation(Kind::UserFetch), Verdict::Violation(Kind::UserFetch))
                    }
                    (_, Approved) => (Verdict::Retry, Verdict::Violation(Kind::KernelFetch)),
                    (_, Data) => (Verdict::Violation(Kind::KernelFetch), Verdict::Retry),
                    _ => (
                        Verdict::Violation(Kind::KernelFetch),
                        Verdict::Violation(Kind::KernelFetch),
                    ),
                };
                assert_eq!(kernel, expected_kernel, "cpl {cpl} {class}");
                assert_eq!(user, expected_user, "cpl {cpl} {class}");
            }
        }
    }

    #[test]
    fn only_the_npf_guard_enters_the_kernel_by_fault() {
        assert_eq!(fetch(View::User, 0, Approved, EntryGuard::Npf), Verdict::Load(View::Kernel));
        assert_eq!(
            fetch(View::User, 3, Approved, EntryGuard::Npf),
            Verdict::Violation(Kind::UserFetch)
        );
    }

    #[test]
    fn with_gmet_the_mode_is_the_view() {
        for class in FrameClass::ALL {
            for cpl in 0..3 {
                let verdict = fetch(View::Kernel, cpl, class, EntryGuard::Gmet);
                let expected = match class {
                    Approved => Verdict::Retry,
                    _ => Verdict::Violation(Kind::KernelFetch),
                };
                assert_eq!(verdict, expected, "cpl {cpl} {class}");
            }
            // No view is ever loaded for a mode.
            let expected = match class {
                Data => Verdict::Retry,
                _ => Verdict::Violation(Kind::UserFetch),
            };
            assert_eq!(fetch(View::Kernel, 3, class, EntryGuard::Gmet), expected, "{class}");
        }
    }

    #[test]
    fn no_verdict_ever_gives_more_than_the_class() {
        for view in View::ALL {
            for class in FrameClass::ALL {
                for (write, cpl) in [(false, 0), (true, 0), (false, 3), (true, 3)] {
                    let fault = Fault { fetch: false, write, cpl, view, class };
                    let access = class.access(view);
                    let allowed = if write { access.write } else { access.read };
                    let verdict = judge(&fault, EntryGuard::Events);
                    assert_eq!(verdict == Verdict::Retry, allowed, "{fault:?}");
                    assert_eq!(verdict == Verdict::Guarded, write && class == Guarded);
                }
            }
        }
    }
}
