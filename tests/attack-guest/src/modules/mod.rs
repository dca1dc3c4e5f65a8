//! The kernel's module loader: finds memory, lays modules out, has them approved.

pub mod checks;
pub mod object;

use core::sync::atomic::{AtomicUsize, Ordering};

use object::Object;

pub use crate::arch::huge_pages;
use crate::arch::{self, entry_bytes, large_bytes, read_entry, write_entry};
pub use crate::arch::{MODULES_END as END, MODULES_START as START};
use crate::arch::{MODULES_HUGE as HUGE_PAGE, modules_large};
use crate::cpu;
use crate::memory::{HEAP, PAGE, RW, clear, copy, root};
use crate::trap::symbol;

pub const ALPHA: Object =
    Object { name: "alpha", file: include_bytes!(concat!(env!("OUT_DIR"), "/alpha.ko")) };
pub const BETA: Object =
    Object { name: "beta", file: include_bytes!(concat!(env!("OUT_DIR"), "/beta.ko")) };
pub const GAMMA: Object =
    Object { name: "gamma", file: include_bytes!(concat!(env!("OUT_DIR"), "/gamma.ko")) };

/// The address of what the kernel exports to modules.
fn kernel_symbol(name: &str) -> Option<u64> {
    match name {
        "mod_kernel_add" => Some(symbol!(mod_kernel_add)),
        "mod_kernel_word" => Some(symbol!(mod_kernel_word)),
        _ => None,
    }
}

/// Inside the window, and never mapped.
pub const NOWHERE: u64 = START + 0x1F_0000;
/// The frames that the window's large page maps.
const LARGE_FRAMES: u64 = 0x600_0000;
/// Frames that are free, which the window's 1 GiB page maps, where there is one: from 0 on.
const HUGE_FRAMES: u64 = 0x500_0000;
/// The frames that modules are scattered over.
pub const FRAMES: u64 = 0x400_0000;
pub const FRAME_COUNT: u64 = 256;
/// The window's page tables, in the same 2 MiB: one page of each level below the root.
const TABLES: u64 = FRAMES + FRAME_COUNT * PAGE;
/// Where descriptors are written.
pub const DESCRIPTOR: u64 = HEAP + 0x70_0800;

pub const APPROVE_CODE: u64 = 0x5EC0_0001;
pub const APPROVE: u64 = 1;
pub const RELEASE: u64 = 2;
pub const CORE: u64 = 1;
pub const INIT: u64 = 2;

/// Where a module's two regions lie.
#[derive(Clone, Copy)]
pub struct Place {
    pub core: u64,
    pub init: u64,
}

impl Place {
    /// In the window's small pages: there is room for eight modules.
    pub fn small(slot: u64) -> Self {
        let core = START + slot * 0x1_0000;
        Self { core, init: core + 0x8000 }
    }

    /// In its 2 MiB page, not at its beginning.
    pub fn large() -> Self {
        Self { core: modules_large() + 0x5000, init: modules_large() + 0x1_0000 }
    }

    /// In its 1 GiB page.
    pub fn huge() -> Self {
        let core = HUGE_PAGE + HUGE_FRAMES;
        Self { core, init: core + 0x7000 }
    }

    /// Where the upper half of its data's address spells STOSD and RET.
    pub fn planted() -> Self {
        let core = START & !0xFFFF_FFFF | 0xC3AB_0000;
        Self { core, init: core + 0x8000 }
    }

    pub fn base(&self, init: bool) -> u64 {
        if init { self.init } else { self.core }
    }
}

/// Frames handed out since the last reset.
static TAKEN: AtomicUsize = AtomicUsize::new(0);

/// A free frame, nowhere near the last one.
pub fn frame() -> u64 {
    let index = TAKEN.fetch_add(1, Ordering::Relaxed);
    FRAMES + index as u64 * 37 % FRAME_COUNT * PAGE
}

/// Whether any was, since.
pub fn in_use() -> bool {
    TAKEN.load(Ordering::Relaxed) != 0
}

/// Where the page-table entry of a small page of the window lies.
pub fn entry(address: u64) -> u64 {
    arch::module_tables(TABLES) + address % large_bytes() / PAGE * entry_bytes()
}

/// Where the entries above the window's page tables lie.
pub fn upper_entries() -> [u64; 3] {
    arch::module_entries(TABLES)
}

/// Maps a small page of the window.
pub fn map(address: u64, frame: u64) {
    write_entry(entry(address), if frame == 0 { 0 } else { frame | RW });
    cpu::invlpg(address);
}

/// The physical address behind one of the window's small pages.
pub fn physical(address: u64) -> u64 {
    read_entry(entry(address)) & 0xF_FFFF_FFFF_F000 | address & 0xFFF
}

/// Another address of a frame below 1 GiB: in the 1 GiB page, where there is one.
#[cfg(target_arch = "x86_64")]
pub fn huge_alias(frame: u64) -> u64 {
    if huge_pages() { HUGE_PAGE + frame } else { frame }
}

/// Gives back whatever is approved, empties the window and frees all frames.
pub fn reset() {
    let small = (0..8).map(Place::small);
    for place in small.chain([Place::large(), Place::huge(), Place::planted()]) {
        release(place.core);
        release(place.init);
    }
    clear(TABLES, 3 * PAGE);
    arch::map_modules(TABLES, LARGE_FRAMES);
    cpu::write_cr3(root());
    TAKEN.store(0, Ordering::Relaxed);
}

/// Empties the window, and has a module come and go: SecVisor's tables for the frames that modules
/// lie in are then as they will be again after each of them.
pub fn start() {
    reset();
    Module::load(GAMMA, 0).approve_all();
    reset();
}

/// What the guest tells SecVisor of a unit: `struct secvisor_unit`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Descriptor {
    pub version: u32,
    pub kind: u32,
    pub core: [u64; 2],
    pub init: [u64; 2],
    pub reserved: [u64; 3],
    name: [u8; 64],
}

impl Descriptor {
    /// Of a unit with nothing said but its kind and name.
    pub fn new(kind: u64, name: &str) -> Self {
        let mut unit = Self {
            version: 1,
            kind: kind as u32,
            core: [0; 2],
            init: [0; 2],
            reserved: [0; 3],
            name: [0; 64],
        };
        unit.set_name(name);
        unit
    }

    pub fn set_name(&mut self, name: &str) {
        self.name = [0; 64];
        self.name.iter_mut().zip(name.bytes()).for_each(|(slot, byte)| *slot = byte);
    }

    /// Writes it down.
    pub fn store(&self, address: u64) {
        copy(&raw const *self as u64, address, size_of::<Self>() as u64);
    }
}

/// `approve_code`; without SecVisor, as the Linux port has it, nothing and success.
pub fn hypercall(operation: u64, address: u64, size: u64) -> i64 {
    match cpu::under_secvisor() {
        true => cpu::vmmcall(APPROVE_CODE, operation, address, size),
        false => 0,
    }
}

/// The same with a descriptor.
pub fn call(operation: u64, unit: &Descriptor) -> i64 {
    unit.store(DESCRIPTOR);
    hypercall(operation, DESCRIPTOR, size_of::<Descriptor>() as u64)
}

/// Releases the unit at `base`, as a kernel does that knows no more than the base.
pub fn release(base: u64) -> i64 {
    let mut unit = Descriptor::new(CORE, "");
    unit.core[0] = base;
    unit.init[0] = base;
    call(RELEASE, &unit)
}

/// A module in memory.
#[derive(Clone, Copy)]
pub struct Module {
    pub object: Object,
    pub place: Place,
}

impl Module {
    /// Loads a module that needs no other into scattered frames.
    pub fn load(object: Object, slot: u64) -> Self {
        Self::load_with(object, slot, None)
    }

    /// Loads a module that needs another.
    pub fn load_with(object: Object, slot: u64, needed: Option<&Module>) -> Self {
        let place = Place::small(slot);
        for init in [false, true] {
            for page in 0..object.pages(init).1 {
                map(place.base(init) + page * PAGE, frame());
            }
        }
        Self::load_at(object, place, needed)
    }

    /// Loads a module where its data's address spells instructions.
    pub fn load_planted(object: Object) -> Self {
        let (place, directory) = (Place::planted(), TABLES + 3 * PAGE);
        let table = directory + PAGE;
        clear(directory, 2 * PAGE);
        arch::add_module_table(TABLES, place.core, directory, table);
        for init in [false, true] {
            for address in (0..object.pages(init).1).map(|page| place.base(init) + page * PAGE) {
                let entry = table + address % large_bytes() / PAGE * entry_bytes();
                write_entry(entry, frame() | RW);
            }
        }
        cpu::write_cr3(root());
        Self::load_at(object, place, None)
    }

    /// Loads a module into what is mapped there.
    pub fn load_at(object: Object, place: Place, needed: Option<&Module>) -> Self {
        for init in [false, true] {
            let bytes = object.pages(init).1 * PAGE;
            clear(place.base(init), bytes);
        }
        object.copy(&place);
        let needed = needed.as_ref().map(|module| (&module.object, &module.place));
        object.relocations(&place, needed, |site, value| object::write_field(&site, value));
        Self { object, place }
    }

    pub fn symbol(&self, name: &str) -> u64 {
        self.object.symbol(name, &self.place).unwrap_or(0)
    }

    /// The honest descriptor of one of its regions.
    pub fn unit(&self, kind: u64) -> Descriptor {
        let size = |init| self.object.pages(init).0 * PAGE;
        Descriptor {
            core: [self.place.core, size(false)],
            init: [self.place.init, size(true)],
            ..Descriptor::new(kind, self.object.name)
        }
    }

    /// Has a region approved.
    pub fn approve(&self, kind: u64) -> i64 {
        call(APPROVE, &self.unit(kind))
    }

    /// Has both regions approved.
    pub fn approve_all(&self) -> i64 {
        let [core, init] = [false, true].map(|init| self.object.pages(init).0 != 0);
        let result = if core { self.approve(CORE) } else { 0 };
        if result == 0 && init { self.approve(INIT) } else { result }
    }
}
