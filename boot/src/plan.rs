//! Where everything goes, decided before the first byte moves.
//!
//! GRUB leaves modules anywhere, also where the kernel wants to go. Every destination here is free
//! of all sources, of the kernel's place, of SecVisor and of the other destinations, so the order
//! of the moves does not matter.

use arrayvec::ArrayVec;
use policy::address::PhysicalRange;
use policy::approval::Architecture;
use policy::{LARGE_PAGE_SIZE, PAGE_SIZE};

use crate::error::BootError;
use crate::information::Information;
use crate::kernel::Kernel;
use crate::memory::{MemoryMap, PhysicalMemory};

/// Bytes of low memory that the guest starts with.
pub const GUEST_LOW_BYTES: u64 = 64 << 10;
/// Where conventional memory ends, but for its last frame, which kernels search for BIOS tables.
const LOW_LIMIT: u64 = 636 << 10;
/// Where an initrd must end, a frame's border: Linux's default for initrd_addr_max; 32-bit kernels
/// before 3.10 need it in what they map of themselves, the first 896 MiB.
const fn initrd_limit(architecture: Architecture) -> u64 {
    match architecture {
        Architecture::X86_64 => 0x7FFF_F000,
        Architecture::I386 => 0x3800_0000,
    }
}

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
    /// below what the kernel can reach when it starts.
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
        let initrd_limit = initrd_limit(kernel.architecture());
        let stays = |range: PhysicalRange| {
            !range.overlaps(target)
                && range.start().is_multiple_of(PAGE_SIZE)
                && range.end() <= initrd_limit
                && memory.is_ram(range)
        };
        let initrd = match initrd {
            Some(range) if !stays(range) => {
                let below = initrd_limit.min(limit);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::information;
    use crate::testing::{Ram, memory_tag, module, range, vmlinux};
    use Architecture::{I386, X86_64};
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    /// Information of a PC with RAM up to `top`, below the PCI hole and above 4 GiB.
    fn pc(
        top: u64,
        kernel: PhysicalRange,
        policy: PhysicalRange,
        initrd: Option<PhysicalRange>,
    ) -> Vec<u8> {
        let low = top.min(3 * GIB);
        let high = (top > low).then(|| (4 * GIB, top - low, 1));
        let map = [(0, 0x9FC00, 1), (0xF0000, 0x10000, 2), (MIB, low - MIB, 1)];
        let map: Vec<_> = map.into_iter().chain(high).collect();
        let module =
            |range: PhysicalRange, name| module(range.start() as u32, range.end() as u32, name);
        let mut tags = vec![memory_tag(&map), module(kernel, "kernel"), module(policy, "policy")];
        tags.extend(initrd.map(|range| module(range, "initrd")));
        crate::testing::information(&tags)
    }

    /// A kernel whose place is 1 MiB at `start`.
    fn kernel(architecture: Architecture, start: u64) -> Vec<u8> {
        vmlinux(architecture, start, &[(start, MIB, b"code")])
    }

    /// What any plan must hold to.
    fn assert_sound(plan: &Plan, from: &Information, target: PhysicalRange, image: PhysicalRange) {
        let mut fixed = vec![image, target, from.kernel.range, from.policy.range];
        fixed.extend(from.initrd.map(|module| module.range));
        let moved = |to: PhysicalRange, source: PhysicalRange| (to != source).then_some(to);
        let mut places = vec![plan.reserved, plan.policy, plan.guest_low, plan.startup];
        places.extend(moved(plan.kernel_file, from.kernel.range));
        places.extend(plan.initrd.zip(from.initrd).and_then(|(to, m)| moved(to, m.range)));
        for (n, place) in places.iter().enumerate() {
            assert!(from.memory.is_ram(place.grow_to_frames().unwrap()), "{place}");
            assert!(place.start().is_multiple_of(PAGE_SIZE) && place.start() > 0, "{place}");
            let others = fixed.iter().chain(&places[n + 1..]);
            others.for_each(|other| assert!(!other.overlaps(*place), "{place} {other}"));
        }
        assert!(!plan.kernel_file.overlaps(target));
        assert!(plan.reserved.start().is_multiple_of(LARGE_PAGE_SIZE));
        assert!(plan.reserved.is_page_aligned());
        assert!(plan.guest_low.end() <= LOW_LIMIT && plan.startup.end() <= LOW_LIMIT);
        assert_eq!(plan.guest_low.length(), GUEST_LOW_BYTES);
        assert_eq!(plan.kernel_file.length(), from.kernel.range.length());
        assert_eq!(plan.policy.length(), from.policy.range.length());
        assert_eq!(plan.initrd.is_some(), from.initrd.is_some());
        if let Some((to, module)) = plan.initrd.zip(from.initrd) {
            assert_eq!(to.length(), module.range.length());
            assert!(!to.overlaps(target) && to.end() <= 0x7FFF_F000);
        }
    }

    #[test]
    fn small_and_large_machines_get_what_they_can_give() {
        // As GRUB leaves it: modules from 1 MiB on, across the kernel's place at 16 MiB.
        let (file, policy) = (range(MIB, 25 * MIB - 7), range(25 * MIB, 25 * MIB + 99));
        let initrd = range(25 * MIB + 0x1000, 28 * MIB + 1);
        for (top, limit) in [(64 * MIB, !0), (GIB, 4 * GIB), (64 * GIB, 4 * GIB), (64 * GIB, !0)] {
            let image = range(top.min(3 * GIB) - MIB, top.min(3 * GIB));
            let bytes = pc(top, file, policy, Some(initrd));
            let from = information::parse(&bytes).unwrap();
            let kernel = kernel(X86_64, 16 * MIB);
            let kernel = Kernel::parse(&kernel).unwrap();
            let plan = Plan::new(&from, &kernel, image, 300_000, limit).unwrap();
            assert_sound(&plan, &from, kernel.span(), image);
            assert_eq!(plan.initrd, Some(initrd), "it may stay");
            let highest = match (top, limit) {
                (_, u64::MAX) if top > 3 * GIB => top + GIB,
                _ => top.min(3 * GIB) - MIB,
            };
            assert!(plan.reserved.end() > highest - 3 * MIB, "{}", plan.reserved);
            let guest = plan.guest_memory(&from.memory, image).unwrap();
            for hidden in [image, plan.reserved, plan.policy, plan.guest_low, plan.startup] {
                assert!(guest.ram().all(|ram| !ram.overlaps(hidden)));
            }
            let all = |map: &MemoryMap| map.ram().map(PhysicalRange::length).sum::<u64>();
            assert!(all(&guest) > all(&from.memory) - 2 * MIB);
        }
    }

    #[test]
    fn an_initrd_that_cannot_stay_moves_high() {
        let file = range(4 * MIB, 5 * MIB);
        // Over the kernel's place, outside RAM, too high for Linux, not at a frame's start.
        for start in [15 * MIB, 0xF000_0000, 2 * GIB, GIB + 1] {
            let initrd = range(start, start + 25 * MIB);
            let bytes = pc(64 * GIB, file, range(MIB, MIB + 1), Some(initrd));
            let from = information::parse(&bytes).unwrap();
            let image = range(2 * MIB, 3 * MIB);
            for (architecture, end) in [(X86_64, 0x7FFF_F000), (I386, 896 * MIB)] {
                let kernel = kernel(architecture, 16 * MIB);
                let kernel = Kernel::parse(&kernel).unwrap();
                let plan = Plan::new(&from, &kernel, image, 1, !0).unwrap();
                assert_sound(&plan, &from, kernel.span(), image);
                assert_eq!(plan.initrd.unwrap().end(), end);
                assert_eq!(plan.kernel_file, file);
            }
        }
    }

    #[test]
    fn shortages_and_collisions_are_told() {
        let file = range(4 * MIB, 20 * MIB);
        let bytes = pc(32 * MIB, file, range(MIB, MIB + 1), None);
        let from = information::parse(&bytes).unwrap();
        let image = range(2 * MIB, 3 * MIB);
        let error = |target: u64, image, reserved| {
            let kernel = kernel(X86_64, target);
            let kernel = Kernel::parse(&kernel).unwrap();
            Plan::new(&from, &kernel, image, reserved, !0).unwrap_err().to_string()
        };
        let shortage = error(16 * MIB, image, 1);
        assert!(shortage.starts_with("no 16777216 bytes of RAM"), "{shortage}");
        assert!(shortage.contains("the kernel's file"), "{shortage}");
        assert!(error(24 * MIB, image, 16 * MIB).contains("SecVisor's tables"));
        assert!(error(24 * MIB, image, u64::MAX).contains("SecVisor's tables"));
        assert!(error(24 * MIB, range(MIB, 2 * MIB), 1).contains("'policy' lies over SecVisor"));
        assert!(error(32 * MIB - 0x1000, image, 1).contains("0x1fff000-0x20ff000"));
        assert!(error(2 * MIB + 0x1000, image, 1).contains("not free RAM"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_moves_arrives_wherever_grub_put_it(
            starts in [1u64..12 * 256, 0..12 * 256, 0..12 * 256],
            lengths in [0x1000u64..0x20_0000, 1..0x8000, 1..0x20_0000],
            target in 0u64..14 * 256,
            image in 0u64..15 * 256,
            unaligned in 0u64..0x1000,
        ) {
            let place = |n: usize, skew| {
                let start = MIB + starts[n] * PAGE_SIZE + skew;
                range(start, start + lengths[n])
            };
            let (file, policy, initrd) = (place(0, 0), place(1, unaligned), place(2, unaligned / 2 * 2));
            let bytes = pc(16 * MIB, file, policy, Some(initrd));
            let Ok(from) = information::parse(&bytes) else { return Ok(()) };
            let image = range(MIB + image * PAGE_SIZE, MIB + image * PAGE_SIZE + 0x8000);
            let target = MIB + target * PAGE_SIZE;

            let mut ram = Ram(vec![0; 16 * MIB as usize]);
            for (n, &range) in [file, policy, initrd].iter().enumerate() {
                ram.bytes_mut(range).fill(n as u8 + 1);
            }
            let code: Vec<u8> = (0..0x800).map(|n| n as u8).collect();
            let contents = vmlinux(I386, target, &[(target, MIB, &code)]);
            ram.bytes_mut(file)[..contents.len()].copy_from_slice(&contents);
            let kernel = Kernel::parse(&contents).unwrap();
            let Ok(plan) = Plan::new(&from, &kernel, image, 0x12345, !0) else { return Ok(()) };
            assert_sound(&plan, &from, kernel.span(), image);

            plan.move_modules(&from, &mut ram);
            let moved = ram.bytes(plan.kernel_file).to_vec();
            Kernel::parse(&moved).unwrap().load(&mut ram);
            prop_assert_eq!(ram.bytes(range(target, target + 0x800)), code);
            prop_assert!(ram.bytes(range(target + 0x800, target + MIB)).iter().all(|&b| b == 0));
            prop_assert!(ram.bytes(plan.policy).iter().all(|&b| b == 2));
            prop_assert!(ram.bytes(plan.initrd.unwrap()).iter().all(|&b| b == 3));
        }
    }
}
