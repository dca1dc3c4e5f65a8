//! A model of the machine that runs SecVisor's policy crate, and an exploration of all its states.
//!
//! What runs is the crate that the hypervisor is linked with, not a copy of it: [`Units`] approve and
//! release, [`Nested`] writes tables that a walk of the model reads back, [`judge`] judges faults,
//! [`Paging`] walks the adversary's page tables, [`FlushDuty`] says what must be flushed.
//!
//! [`Units`]: policy::units::Units
//! [`Nested`]: policy::nested::Nested
//! [`judge`]: policy::fault::judge
//! [`Paging`]: policy::walk::Paging
//! [`FlushDuty`]: policy::flush::FlushDuty
//!
//! # What is modelled
//!
//! - **Frames**: the kernel's code, its init code, which can be released once and is the guest's then, two
//!   (deep: three) more in the guest's hands, and one of SecVisor's: the root of its own nested tables.
//!   One module in a real approval list: a core of one page or of two, and a page of init code, each
//!   with a relocated field and gaps.
//! - **Two processors**, each with CPL, loaded view and a TLB, and **one device** behind an IOMMU with a
//!   cache. The second processor and the IOMMU are *not shipped*; they hang on the same duty to flush.
//! - **Each back end that must be sound**, explored on its own: two views with the `events` guard, where the
//!   hypervisor loads a view at every mode switch, and GMET, where it does nothing: one table, one ASID,
//!   every event delivered natively through the guest's pointers, and fetches judged by CPL from what the
//!   walk found of U in all levels. (The `npf` guard is shown to be unsound.)
//! - **The adversary** is the kernel and the processes of the guest: it reads, writes and fetches from any
//!   frame at CPL 0 and 3, enters the kernel by interrupts, exceptions, SYSCALL and call gates wherever
//!   it likes, makes calls with any arguments, and lets the device read and write. All this it also does
//!   between any two accesses to memory of a call that the first processor makes (`tables` tells how).
//!   The second processor could make calls too, in place of the first: processors are alike, and a lock
//!   lets one in at a time.
//!
//! # What stands for more than it shows
//!
//! - *Page tables* have no state: whatever a walk finds, the adversary wrote a moment before, so each
//!   walk is answered in every way (`tables::TARGETS`). That is every edit of an entry at every moment.
//! - *A TLB* holds not one translation for each view but all that a walk could have found since the last
//!   flush; so does the IOMMU's cache. What is cached but gives no more than the tables is used too.
//! - *Bytes* that someone can write have no value until SecVisor reads them, and then any: right, right for
//!   other bases, wrong. What it read stays only where nobody can write any more.
//!
//! # What is not modelled
//!
//! Caches and memory types (`CodeMemory::settle`'s write-back), `violation=audit`, several modules, how
//! descriptors are copied out of the guest's memory, splits of large pages (one region of 4 KiB entries
//! holds all frames; `policy/nested/tests.rs` has them), modes other than long mode, and that a frame's
//! class is stored one store before its first entry. The hypervisor's own code is mirrored, in few lines,
//! each of which names its original: `guest` for views, events and faults (`vcpu.rs`, `vcpu/build.rs`,
//! `fast.rs`, `exits/`), [`State::request_flush`] and the end of a call for flushes (`code.rs`, `vcpu.rs`).
//! That mirror and original agree is for the emulator's tests.
//!
//! Of GMET the model knows what the manual's list of features and KVM's patches say, as does the emulator
//! that this project patches; no hardware was asked. It takes for granted that VMCB 090h bit 3 is set
//! whenever the guest runs (`vcpu.rs`), that a fetch at CPL < 3 faults exactly where U is 1 in all levels,
//! from the TLB as from the tables, and that CPL 1 and 2 are as CPL 0. It lets CPL 3 execute what U = 0
//! marks, and neither data nor walks of the guest's tables ask for U: hardware may be stricter. A
//! translation that gives *less* than the tables is not kept: what would follow is a fault that is judged
//! for every frame all the same ([`State::no_fault_loads_a_view`]), and a flush.
//!
//! # Why no library
//!
//! Stateright was looked at: its `eventually` is sound on graphs without cycles only, which this is not,
//! it brings a web server along, and the policy's objects borrow what a state would have to own. What
//! is needed of it is the loop in `explore`.

use policy::fault::EntryGuard;

use adversary::{Adversary, Bound};
use explore::{Report, explore};
use honest::Honest;
use image::Image;
#[cfg(doc)]
use state::State;
use tables::with_policy;

pub mod adversary;
pub mod call;
pub mod explore;
pub mod guest;
pub mod honest;
pub mod image;
pub mod property;
pub mod state;
pub mod tables;

/// Explores the honest guest until all states are known, or `most` of them.
pub fn explore_honest(guard: EntryGuard, most: usize) -> Report {
    let image = Image::new(1);
    with_policy(&image, guard == EntryGuard::Gmet, |policy| {
        explore(&mut Honest::new(policy, &image, guard), most)
    })
}

/// Explores what an adversary can do within `bound` until all states are known, or `most` of them.
pub fn explore_adversary(bound: Bound, guard: EntryGuard, most: usize) -> Report {
    let image = Image::new(bound.core_pages);
    with_policy(&image, guard == EntryGuard::Gmet, |policy| {
        explore(&mut Adversary::new(policy, &image, bound, guard), most)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use property::Property;

    #[test]
    fn an_honest_guest_is_never_stopped() {
        for guard in [EntryGuard::Events, EntryGuard::Gmet] {
            let report = explore_honest(guard, usize::MAX);
            assert!(report.complete && report.broken.is_none(), "{guard:?}: {report:#?}");
            // It went through the script: that is longer than any way that leaves a deed out.
            assert!(report.depth > 100, "{guard:?}: {report:#?}");
        }
    }

    #[test]
    fn the_adversarys_first_states_keep_all_properties() {
        for bound in Bound::TESTED.into_iter().chain(Bound::DEEP) {
            for guard in [EntryGuard::Events, EntryGuard::Gmet] {
                let report = explore_adversary(bound, guard, 10_000);
                assert!(report.states >= 10_000 && report.broken.is_none(), "{report:#?}");
            }
        }
    }

    #[test]
    fn with_the_npf_guard_the_kernel_runs_what_was_never_verified() {
        let report = explore_adversary(Bound::TESTED[0], EntryGuard::Npf, usize::MAX);
        let (property, way) = report.broken.expect("the npf guard is unsound");
        assert_eq!((property, way.len()), (Property::KernelFetch, 4), "{way:#?}");
    }
}
