//! The machine: processors with what they may have cached, a device, memory, and one call in progress.

use std::rc::Rc;

use policy::fault::EntryGuard;
use policy::frame::{Access, FrameClass, View};

use crate::image::{ANYTHING, CELLS, INIT_BASE, Image, Value};
use crate::property::Property;
use crate::tables::{FRAMES, HIDDEN, INIT, KERNEL, Kept};

/// Processors. The shipped hypervisor gives its guest the first alone: the second is **not shipped**.
pub const PROCESSORS: usize = 2;

/// Rights to a frame: read 1, write 2, execute 4.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Rights(u8);

impl From<Access> for Rights {
    fn from(access: Access) -> Self {
        Self(u8::from(access.read) | u8::from(access.write) << 1 | u8::from(access.execute) << 2)
    }
}

/// What is done with a frame.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs, reason = "named as what they are")]
pub enum Use {
    Read = 1,
    Write = 2,
    Fetch = 4,
}

impl Rights {
    /// Whether these rights allow it.
    pub fn allow(self, what: Use) -> bool {
        self.0 & what as u8 != 0
    }

    /// Whether these rights allow what `other` does not.
    pub fn exceed(self, other: Self) -> bool {
        self.0 & !other.0 != 0
    }

    fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// What the guest may do with each frame by a view's tables, or by what is cached of them.
pub type Map = [Rights; FRAMES];

/// A processor while it runs its guest.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Processor {
    /// CPL 3; else CPL 0.
    pub user: bool,
    /// The user view is loaded; else the kernel view.
    pub user_view: bool,
    /// It has been told to flush both its ASIDs, and has not done it.
    pub owes_flush: bool,
    /// What its TLB may hold of each view: not one translation, but every one that a walk could
    /// have found since the last flush, for whatever address the guest maps to the frame. With GMET
    /// there is one ASID, whose translations keep U and NX: what these give to each mode.
    pub cached: [Map; 2],
    /// The user view's ASID may hold what the guest's kernel has flushed from its own.
    pub stale_user_asid: bool,
}

impl Processor {
    /// The view that is loaded.
    pub fn view(&self) -> View {
        if self.user_view { View::User } else { View::Kernel }
    }
}

/// The DMA remapping hardware and its cache. **Not shipped**: there is no IOMMU protection.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct DmaRemapping {
    /// What its cache may hold.
    pub cached: Map,
    /// It has been told to flush, and has not done it.
    pub owes_flush: bool,
}

/// What a device may do with a frame of this class: the design's table, **not shipped**.
pub fn dma(class: FrameClass) -> Access {
    match class {
        FrameClass::Data => Access::RW,
        FrameClass::Approved | FrameClass::Pending => Access::R,
        FrameClass::Device | FrameClass::Guarded | FrameClass::Hidden => Access::NONE,
    }
}

/// A unit that was granted, as the model remembers it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Grant {
    /// Its base.
    pub base: u64,
    /// Its frames, a bit each.
    pub frames: u8,
}

/// A call that is in progress, on the first processor.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Flight {
    /// Which one.
    pub call: u16,
    /// What it began with.
    pub start: Rc<Kept>,
    /// Accesses that were performed.
    pub accesses: u16,
    /// What reading memory and walking tables gave, in order.
    pub answers: Vec<u8>,
    /// The last access was a settling: it returns when all have flushed.
    pub settles: bool,
}

/// The machine.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct State {
    /// The policy's state. While a call is in progress: tables and classes as they are now.
    pub kept: Rc<Kept>,
    /// The processors.
    pub processors: [Processor; PROCESSORS],
    /// The IOMMU.
    pub dma: DmaRemapping,
    /// What the frames hold.
    pub contents: [[Value; CELLS]; FRAMES],
    /// Frames whose bytes are those that were verified, and kernel code.
    pub verified: [bool; FRAMES],
    /// Frames that must not change any more: protected, and the flush acknowledged.
    pub relied_upon: [bool; FRAMES],
    /// What was granted: the module's core and init code, the kernel's init code.
    pub grants: [Option<Grant>; 3],
    /// The call in progress.
    pub flight: Option<Flight>,
    /// How far the honest kernel's script has come.
    pub script: u8,
}

impl State {
    /// As the hypervisor starts its guest: in the kernel view.
    pub fn launched(kept: &Kept, image: &Image) -> Self {
        let processor = Processor {
            user: false,
            user_view: false,
            owes_flush: false,
            cached: Default::default(),
            stale_user_asid: !kept.gmet,
        };
        let only_kernel = std::array::from_fn(|frame| matches!(frame, KERNEL | INIT));
        let init = Grant { base: INIT_BASE, frames: 1 << INIT };
        let mut state = Self {
            kept: Rc::new(kept.clone()),
            processors: std::array::from_fn(|_| processor.clone()),
            dma: DmaRemapping { cached: Map::default(), owes_flush: false },
            contents: std::array::from_fn(|frame| match frame {
                // Bytes of no module.
                KERNEL | INIT | HIDDEN => std::array::from_fn(|cell| *image.values(cell).end()),
                _ => [ANYTHING; CELLS],
            }),
            verified: only_kernel,
            relied_upon: only_kernel,
            grants: [None, None, Some(init)],
            flight: None,
            script: 0,
        };
        state.fill_caches();
        state
    }

    /// The class of a frame.
    pub fn class(&self, frame: usize) -> FrameClass {
        FrameClass::from_byte(self.kept.classes[frame])
    }

    /// What the tables of a view allow, or with GMET to its mode; nothing where an entry leads to another
    /// frame.
    pub fn allowed(&self, view: View) -> Map {
        let access = |frame| self.kept.access(view, frame).unwrap_or(Access::NONE).into();
        std::array::from_fn(access)
    }

    /// The view that a processor goes by: the one that is loaded, or with GMET its mode's.
    pub fn view_of(&self, processor: usize) -> View {
        let it = &self.processors[processor];
        if self.kept.gmet && it.user { View::User } else { it.view() }
    }

    fn allowed_to_devices(&self) -> Map {
        std::array::from_fn(|frame| dma(self.class(frame)).into())
    }

    /// Whatever the tables allow now may be cached from now on.
    pub fn fill_caches(&mut self) {
        let views = View::ALL.map(|view| self.allowed(view));
        let devices = self.allowed_to_devices();
        let caches = self.processors.iter_mut().flat_map(|it| it.cached.iter_mut().zip(&views));
        for (cached, allowed) in caches.chain([(&mut self.dma.cached, &devices)]) {
            cached.iter_mut().zip(allowed).for_each(|(right, now)| right.add(*now));
        }
    }

    /// A processor flushes the given views' ASIDs.
    pub fn flush(&mut self, processor: usize, views: &[View]) {
        for &view in views {
            let allowed = self.allowed(view);
            let processor = &mut self.processors[processor];
            processor.cached[view as usize] = allowed;
            processor.stale_user_asid &= view != View::User;
        }
        if views.len() == View::ALL.len() {
            self.processors[processor].owes_flush = false;
        }
    }

    /// The IOMMU flushes.
    pub fn flush_dma(&mut self) {
        self.dma = DmaRemapping { cached: self.allowed_to_devices(), owes_flush: false };
    }

    /// Tells all who may hold an old translation to flush. Mirrors `settle` in `hypervisor/src/code.rs`
    /// for the processor that calls; the others and the IOMMU are **not shipped**.
    pub fn request_flush(&mut self) {
        for processor in &mut self.processors {
            processor.owes_flush = true;
        }
        self.dma.owes_flush = true;
    }

    /// Whether all have flushed who were told to; the processor that calls does before it runs its
    /// guest again.
    pub fn all_flushed(&self) -> bool {
        !self.dma.owes_flush && self.processors.iter().skip(1).all(|it| !it.owes_flush)
    }

    /// Everything that anyone who runs now may do with a frame.
    pub fn reach(&self, frame: usize) -> Rights {
        let mut reach = self.dma.cached[frame];
        let calls = usize::from(self.flight.is_some());
        for processor in self.processors.iter().skip(calls) {
            processor.cached.iter().for_each(|map| reach.add(map[frame]));
        }
        for view in View::ALL {
            reach.add(self.allowed(view)[frame]);
        }
        reach
    }

    /// Whether someone who runs now may do with a frame what the tables do not allow any more.
    pub fn is_stale(&self, frame: usize) -> bool {
        let allowed = View::ALL.map(|view| self.allowed(view)[frame]);
        let calls = usize::from(self.flight.is_some());
        let by_processor =
            |it: &Processor| (0..2).any(|at| it.cached[at][frame].exceed(allowed[at]));
        self.dma.cached[frame].exceed(self.allowed_to_devices()[frame])
            || self.processors.iter().skip(calls).any(by_processor)
    }

    /// The adversary writes to a frame: it may hold anything from now on.
    pub fn scribble(&mut self, frame: usize) {
        self.contents[frame] = [ANYTHING; CELLS];
        self.verified[frame] = false;
    }

    /// What must hold in every state. With the `npf` guard events are delivered in the user view; with
    /// GMET nothing loads it.
    pub fn check(&self, guard: EntryGuard) -> Result<(), Property> {
        for frame in 0..FRAMES {
            if self.relied_upon[frame] && self.reach(frame).allow(Use::Write) {
                return Err(Property::NoWrite);
            }
            if View::ALL.into_iter().any(|view| self.kept.access(view, frame).is_none()) {
                return Err(Property::Entries);
            }
        }
        if self.reach(HIDDEN) != Rights::default() {
            return Err(Property::Hidden);
        }
        let astray = |it: &Processor| !it.user && it.user_view;
        match guard {
            EntryGuard::Events if self.processors.iter().any(astray) => Err(Property::KernelView),
            EntryGuard::Gmet => self.no_fault_loads_a_view(),
            _ => Ok(()),
        }
    }
}
