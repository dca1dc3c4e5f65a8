//! What GRUB hands over, and the kernel's file.

use boot::information::{self, Information};
use boot::kernel::Kernel;
use boot::memory::PhysicalMemory;
use boot::plan::Plan;
use policy::address::PhysicalRange;

const MIB: u64 = 1 << 20;
const LIMIT: u64 = 4 << 30;
/// Where SecVisor lies, and the bytes of its tables.
const IMAGE: (u64, u64) = (0x0FC0_0000, 0x4_0000);
const TABLES: u64 = 3 * MIB;

/// The information, and the plan that follows from it for a small kernel.
pub fn multiboot(data: &[u8]) {
    let Ok(information) = information::parse(data) else { return };
    let map = &information.memory;
    assert!(map.entries().windows(2).all(|pair| pair[0].end <= pair[1].start));
    assert!(map.entries().iter().all(|entry| entry.start < entry.end && entry.end % 4096 == 0));
    let file = small_kernel();
    let kernel = Kernel::parse(&file).expect("a right kernel");
    let image = PhysicalRange::new(IMAGE.0, IMAGE.1).expect("a range");
    if let Ok(plan) = Plan::new(&information, &kernel, image, TABLES, LIMIT) {
        judge(&information, &kernel, image, &plan);
    }
}

/// No destination over a source, SecVisor, or another destination, and all of them in RAM.
fn judge(information: &Information<'_>, kernel: &Kernel<'_>, image: PhysicalRange, plan: &Plan) {
    let sources = [information.kernel.range, information.policy.range];
    let initrd = information.initrd.map(|module| module.range);
    let moved = |to: PhysicalRange, from: Option<PhysicalRange>| (Some(to) != from).then_some(to);
    let fresh = [
        Some(plan.reserved),
        Some(plan.policy),
        Some(plan.guest_low),
        Some(plan.startup),
        moved(plan.kernel_file, Some(information.kernel.range)),
        plan.initrd.and_then(|to| moved(to, initrd)),
    ];
    let fresh: Vec<_> = fresh.into_iter().flatten().collect();
    for (index, &place) in fresh.iter().enumerate() {
        assert!(information.memory.is_ram(place), "{place}");
        assert!(!place.overlaps(image) && !place.overlaps(kernel.span()), "{place}");
        assert!(sources.iter().chain(&initrd).all(|source| !source.overlaps(place)), "{place}");
        assert!(fresh[..index].iter().all(|other| !other.overlaps(place)), "{place}");
    }
    assert!(!plan.kernel_file.overlaps(kernel.span()));
    assert!(plan.initrd.is_none_or(|initrd| !initrd.overlaps(kernel.span())));
}

/// The kernel's file, loaded where it says.
pub fn elf(data: &[u8]) {
    let Ok(kernel) = Kernel::parse(data) else { return };
    let span = kernel.span();
    assert!(span.start() >= MIB && span.end() <= LIMIT, "{span}");
    let segments: Vec<_> = kernel.segments().map(|segment| segment.physical).collect();
    for (index, segment) in segments.iter().enumerate() {
        assert!(span.contains(*segment));
        assert!(segments[..index].iter().all(|other| !other.overlaps(*segment)));
    }
    assert!(segments.iter().any(|segment| segment.contains_address(kernel.entry())));
    if span.length() <= 4 * MIB {
        kernel.load(&mut Window { base: span.start(), bytes: vec![0; span.length() as usize] });
    }
}

/// A part of physical memory.
struct Window {
    base: u64,
    bytes: Vec<u8>,
}

impl Window {
    fn place(&self, range: PhysicalRange) -> std::ops::Range<usize> {
        (range.start() - self.base) as usize..(range.end() - self.base) as usize
    }
}

impl PhysicalMemory for Window {
    fn bytes(&self, range: PhysicalRange) -> &[u8] {
        &self.bytes[self.place(range)]
    }
    fn bytes_mut(&mut self, range: PhysicalRange) -> &mut [u8] {
        let place = self.place(range);
        &mut self.bytes[place]
    }
    fn copy(&mut self, from: PhysicalRange, to: u64) {
        let from = self.place(from);
        self.bytes.copy_within(from, (to - self.base) as usize);
    }
}

/// An x86_64 executable of one page at 16 MiB.
fn small_kernel() -> Vec<u8> {
    let mut file = vec![0; 120];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"\x7FELF\x02\x01\x01");
    put(16, &[2, 0, 62, 0, 1, 0, 0, 0]);
    put(24, &(16 * MIB).to_le_bytes());
    put(32, &64u64.to_le_bytes());
    put(54, &[56, 0, 1, 0]);
    put(64, &1u32.to_le_bytes());
    put(64 + 24, &(16 * MIB).to_le_bytes());
    put(64 + 40, &4096u64.to_le_bytes());
    file
}
