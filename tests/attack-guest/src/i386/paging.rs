//! Page tables of 32 bits, in three formats.

use core::sync::atomic::{AtomicU8, Ordering};

use crate::cpu;
use crate::lock::{CR0_PG, CR4_PAE, CR4_PSE};
use crate::memory::{LARGE, NX, PAGE, RW, USER, copy, peek, peek32, poke, poke32};
use crate::trap::symbol;

/// Where attacks map frames anew: a page table's worth, then a large page.
pub const WINDOW: u64 = 0x4000_0000;
/// Where the window for modules starts and ends, as the approval list has it.
pub const MODULES_START: u64 = 0xC000_0000;
pub const MODULES_END: u64 = 0xFFFF_F000;
/// There are no larger pages; nothing is mapped here.
pub const MODULES_HUGE: u64 = 0xE000_0000;

/// Three levels, large pages of 2 MiB, NX.
const PAE: u8 = 0;
/// Two levels, large pages of 4 MiB.
const LARGE_PAGES: u8 = 1;
/// Two levels, no large pages.
const SMALL_PAGES: u8 = 2;
static FORMAT: AtomicU8 = AtomicU8::new(PAE);
/// The page tables of the third format: one for each 4 MiB, one to one.
const IDENTITY: u64 = 0xA00_0000;

fn format() -> u8 {
    FORMAT.load(Ordering::Relaxed)
}

/// Takes the format that the command line names, before paging is on.
pub fn choose_paging(name: Option<&str>) {
    let format = match name {
        Some("large") => LARGE_PAGES,
        Some("small") => SMALL_PAGES,
        _ => PAE,
    };
    FORMAT.store(format, Ordering::Relaxed);
    if format == SMALL_PAGES {
        (0..1 << 20)
            .for_each(|page| poke32(IDENTITY + page * 4, ((page * PAGE) | RW | USER) as u32));
    }
}

/// CR4's bits for the format.
pub fn cr4() -> u64 {
    match format() {
        PAE => CR4_PAE,
        LARGE_PAGES => CR4_PSE,
        _ => 0,
    }
}

/// A page-table entry's flags as a program asks for them: two bits of those that the processor
/// ignores are NX, and one that must be 0.
pub fn mapping(flags: u64) -> u64 {
    let asked = |bit: u64, entry: u64| if flags & bit != 0 { entry } else { 0 };
    flags & !0xC00 | asked(0x800, NX) | asked(0x400, 1 << 51)
}

/// Bytes of an entry of a page table.
pub fn entry_bytes() -> u64 {
    if format() == PAE { 8 } else { 4 }
}

/// Bytes of a large page, and what a page table maps.
pub fn large_bytes() -> u64 {
    if format() == PAE { 0x20_0000 } else { 0x40_0000 }
}

/// The entry of a page table at an address.
pub fn read_entry(address: u64) -> u64 {
    if format() == PAE { peek(address) } else { peek32(address).into() }
}

/// Writes it; what the format cannot say is lost.
pub fn write_entry(address: u64, entry: u64) {
    if format() == PAE { poke(address, entry) } else { poke32(address, entry as u32) }
}

/// What CR3 holds.
pub fn root() -> u64 {
    symbol!(page_root)
}

/// Where the directory's entry for an address lies.
fn directory_entry(address: u64) -> u64 {
    let directories = if format() == PAE { symbol!(page_directories) } else { root() };
    directories + address / large_bytes() * entry_bytes()
}

/// What a directory says of a large page, or of the table that stands for one.
fn large_entry(entry: u64) -> u64 {
    let table = IDENTITY + (entry >> 22) * PAGE;
    if format() == SMALL_PAGES && entry & LARGE != 0 { table | entry & 7 } else { entry }
}

/// Sets the directory's entry for the large window.
pub fn set_large_slot(entry: u64) {
    write_entry(directory_entry(WINDOW + large_bytes()), large_entry(entry));
}

/// Makes a frame a page directory, of those that PAE has four of; the first address that it maps.
pub fn map_directory(frame: u64) -> u64 {
    poke(root() + 8, frame | 1);
    cpu::write_cr3(root());
    WINDOW
}

/// The large page of the window for modules.
pub fn modules_large() -> u64 {
    MODULES_START + large_bytes()
}

/// Puts the tables above the image's and the window's into their first state, and paging on.
pub fn start_paging() {
    let modules = MODULES_START..modules_large() + large_bytes();
    for page in (0..1 << 32).step_by(large_bytes() as usize).filter(|page| !modules.contains(page))
    {
        write_entry(directory_entry(page), large_entry(page | RW | LARGE));
    }
    for (page, table) in [(0x100_0000, symbol!(pt_image)), (WINDOW, symbol!(pt_window))] {
        write_entry(directory_entry(page), table | RW | USER);
    }
    set_large_slot(0);
    if format() == PAE {
        (0..4).for_each(|at| poke(root() + at * 8, (symbol!(page_directories) + at * PAGE) | 1));
    }
    // Entries change their meaning: not while they are in use.
    let told = if format() == PAE { CR4_PAE } else { CR4_PAE | CR4_PSE };
    if cpu::cr4() & told != cr4() & told {
        cpu::write_cr0(cpu::cr0() & !CR0_PG);
        cpu::write_cr4(cpu::cr4() & !told | cr4());
    }
    cpu::write_cr3(root());
    if cpu::cr0() & CR0_PG == 0 {
        cpu::write_cr0(cpu::cr0() | CR0_PG);
    }
}

/// Opens the first large page, which maps low memory, to user mode.
pub fn open_low_memory() {
    let entry = directory_entry(0);
    write_entry(entry, read_entry(entry) | USER);
    cpu::write_cr3(root());
}

/// Whether the processor has 1 GiB pages: not here.
pub fn huge_pages() -> bool {
    false
}

/// The page table of the window for modules, in the memory that was given for tables.
pub fn module_tables(tables: u64) -> u64 {
    tables
}

/// The entry above it, and that of the large page beside it.
pub fn module_entries(_tables: u64) -> [u64; 3] {
    [MODULES_START, MODULES_START, modules_large()].map(directory_entry)
}

/// Puts the tables of the window for modules into their first state.
pub fn map_modules(tables: u64, large_frames: u64) {
    write_entry(directory_entry(MODULES_START), module_tables(tables) | RW);
    write_entry(directory_entry(modules_large()), large_entry(large_frames | RW | LARGE));
}

/// Puts a page table behind an address in the window.
pub fn add_module_table(_tables: u64, address: u64, _directory: u64, table: u64) {
    write_entry(directory_entry(address), table | RW);
}

/// Makes the root serve, with CR4.PAE turned over, for the image: CR4's bits that do this. From PAE
/// there is no such way.
pub fn other_pae() -> u64 {
    if format() == PAE {
        return 0;
    }
    // Its first two entries are one then, which leads to a directory of 1 GiB.
    let directory = symbol!(scratch_tables);
    (0..512).for_each(|at| poke(directory + at * 8, at << 21 | RW | LARGE));
    poke(root(), directory | 1);
    CR4_PAE
}

/// Page tables of the attacker's own in which the victim's page is `frame`, all else as ever.
pub fn own_tables(frame: u64) -> u64 {
    let (tables, victim) = (symbol!(scratch_tables), symbol!(victim));
    let sources = [root(), symbol!(page_directories), symbol!(pt_image)];
    for (at, source) in sources.into_iter().enumerate() {
        copy(source, tables + at as u64 * PAGE, PAGE);
    }
    let directory = if format() == PAE { tables + PAGE } else { tables };
    if format() == PAE {
        poke(tables, directory | 1);
    }
    let table = tables + 2 * PAGE;
    write_entry(directory + victim / large_bytes() * entry_bytes(), table | RW | USER);
    write_entry(table + victim % large_bytes() / PAGE * entry_bytes(), frame | RW);
    tables
}
