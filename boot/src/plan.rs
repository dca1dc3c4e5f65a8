//! Where everything goes, decided before the first byte moves.
//!
//! GRUB leaves modules anywhere, also where the kernel wants to go. Every destination here is free
//! of all sources, of the kernel's place, of SecVisor and of the other destinations, so the order
//! of the moves does not matter.

use arrayvec::ArrayVec;
use policy::address::PhysicalRange;
use policy::{LARGE_PAGE_SIZE, PAGE_SIZE};

use crate::error::BootError;
use crate::information::Information;
use crate::kernel::Kernel;
use crate::memory::{MemoryMap, PhysicalMemory};

/// Bytes of low memory that the guest starts with.
pub const GUEST_LOW_BYTES: u64 = 64 << 10;
/// Where conventional memory ends.
const LOW_LIMIT: u64 = 640 << 10;
/// Where an initrd must end: Linux's default for initrd_addr_max, rounded down to a frame.
const INITRD_LIMIT: u64 = 0x7FFF_F000;

/// Where everything goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    /// SecVisor's tables: whole frames, aligned to 2 MiB, as high in RAM as they fit.
    pub reserved: PhysicalRange,
    /// Where the approval list is kept, from a frame's start: as high as it fits.
    pub policy: PhysicalRange,
    /// Where the kernel's file is to be read from: where it is, or clear of the kernel's place.
    pub kernel_file: PhysicalRange,
    /// Where the guest finds its initrd, from a frame's start: where it is or high in RAM, always
    /// below 7FFF_F000h.
    pub initrd: Option<PhysicalRange>,
    /// [`GUEST_LOW_BYTES`] below 640 KiB for what the guest starts with.
    pub guest_low: PhysicalRange,
    /// A frame below 640 KiB where the other processors start.
    pub startup: PhysicalRange,
}

/// Finds places one after the other, none over another.
struct Finder<'a> {
    memory: &'a MemoryMap,
    taken: ArrayVec<PhysicalRange, 16>,
}

impl Finder<'_> {
    /// The highest place for whole frames below `limit`, taken from then on.
    fn take(
        &mut self,
        what: &'static str,
        size: u64,
        align: u64,
        limit: u64,
    ) -> Result<PhysicalRange, BootError<'static>> {
        let none = BootError::NoRoom { what, size, limit };
        let frames = size.checked_next_multiple_of(PAGE_SIZE).ok_or(none)?;
        let place = self.memory.find(frames, align, limit, &self.taken).ok_or(none)?;
        self.taken.try_push(place).map_err(|_| none)?;
        PhysicalRange::new(place.start(), size).ok_or(none)
    }
}

impl Plan {
    /// Decides where everything goes. `kernel` was read from module `kernel`, `image` is SecVisor,
    /// `reserved_size` the bytes of its tables; nothing is put at `limit` or above.
    ///
    /// # Errors
    /// A module over SecVisor, a kernel whose place is not all RAM or lies over SecVisor, and what
    /// there is no room for.
    pub fn new(
        information: &Information<'_>,
        kernel: &Kernel<'_>,
        image: PhysicalRange,
        reserved_size: u64,
        limit: u64,
    ) -> Result<Self, BootError<'static>> {
        let target = kernel.span();
        let (file, policy) = (information.kernel.range, information.policy.range);
        let initrd = information.initrd.map(|module| module.range);
        let memory = &information.memory;
        let names = ["kernel", "policy", "initrd"];
        for (name, module) in names.into_iter().zip([Some(file), Some(policy), initrd]) {
            if module.is_some_and(|module| module.overlaps(image)) {
                return Err(BootError::ModuleOverlap(name, "SecVisor"));
            }
        }
        if !memory.is_ram(target) || target.overlaps(image) {
            return Err(BootError::KernelPlace(target));
        }
        // The first frame holds the BIOS data area.
        let first_frame = PhysicalRange::between(0, PAGE_SIZE);
        let sources = [first_frame, Some(image), Some(target), Some(file), Some(policy), initrd];
        let mut finder = Finder { memory, taken: sources.into_iter().flatten().collect() };

        let low = LOW_LIMIT.min(limit);
        let guest_low = finder.take("the guest's start", GUEST_LOW_BYTES, PAGE_SIZE, low)?;
        let startup = finder.take("the processors' start", PAGE_SIZE, PAGE_SIZE, low)?;
        let reserved = reserved_size.checked_next_multiple_of(PAGE_SIZE).unwrap_or(reserved_size);
        let reserved = finder.take("SecVisor's tables", reserved, LARGE_PAGE_SIZE, limit)?;
        let policy = finder.take("the approval list", policy.length(), PAGE_SIZE, limit)?;
        let kernel_file = match file.overlaps(target) {
            false => file,
            true => finder.take("the kernel's file", file.length(), PAGE_SIZE, limit)?,
        };
        let stays = |range: PhysicalRange| {
            !range.overlaps(target)
                && range.start().is_multiple_of(PAGE_SIZE)
                && range.end() <= INITRD_LIMIT
                && memory.is_ram(range)
        };
        let initrd = match initrd {
            Some(range) if !stays(range) => {
                let below = INITRD_LIMIT.min(limit);
                Some(finder.take("the initrd", range.length(), PAGE_SIZE, below)?)
            }
            other => other,
        };
        Ok(Self { reserved, policy, kernel_file, initrd, guest_low, startup })
    }

    /// Moves the modules to where they go. Whatever was read from them in place is then stale.
    pub fn move_modules(&self, information: &Information<'_>, memory: &mut impl PhysicalMemory) {
        let initrd = information.initrd.map(|module| module.range).zip(self.initrd);
        let file = (information.kernel.range, self.kernel_file);
        let policy = (information.policy.range, self.policy);
        for (from, to) in [Some(file), Some(policy), initrd].into_iter().flatten() {
            if from != to {
                memory.copy(from, to.start());
            }
        }
    }

    /// What the guest is told of `memory`: without SecVisor at `image` and its belongings, and with
    /// [`Self::guest_low`] reserved, so that the RSDP in it lasts.
    ///
    /// # Errors
    /// [`BootError::MemoryMapFull`].
    pub fn guest_memory(
        &self,
        memory: &MemoryMap,
        image: PhysicalRange,
    ) -> Result<MemoryMap, BootError<'static>> {
        let mut map = memory.clone();
        for range in [image, self.reserved, self.policy, self.guest_low, self.startup] {
            map.reserve(range)?;
        }
        Ok(map)
    }
}
