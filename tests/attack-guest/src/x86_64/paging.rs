//! Four levels of page tables; most are in data.s, ready-made.

use crate::cpu;
use crate::lock::{CR4_PAE, CR4_PSE};
use crate::memory::{LARGE, PAGE, RW, copy, peek, poke};
use crate::trap::symbol;

/// Where attacks map frames anew: 512 pages, then 2 MiB pages at will.
pub const WINDOW: u64 = 1 << 39;

/// Where the window for modules starts and ends, as the approval list has it.
pub const MODULES_START: u64 = 0xFFFF_FFFF_A000_0000;
pub const MODULES_END: u64 = 0xFFFF_FFFF_FF00_0000;
/// A 1 GiB page in the window.
pub const MODULES_HUGE: u64 = 0xFFFF_FFFF_C000_0000;

/// There is one format of page tables.
pub fn choose_paging(_name: Option<&str>) {}

/// CR4's bits for it.
pub fn cr4() -> u64 {
    CR4_PAE
}

/// A page-table entry's flags as a program asks for them.
pub fn mapping(flags: u64) -> u64 {
    flags
}

/// Bytes of an entry of a page table.
pub fn entry_bytes() -> u64 {
    8
}

/// Bytes of a large page, and what a page table maps.
pub fn large_bytes() -> u64 {
    0x20_0000
}

/// The entry of a page table at an address.
pub fn read_entry(address: u64) -> u64 {
    peek(address)
}

/// Writes it.
pub fn write_entry(address: u64, entry: u64) {
    poke(address, entry);
}

/// What CR3 holds.
pub fn root() -> u64 {
    symbol!(pml4)
}

/// Sets the directory's entry for the large window.
pub fn set_large_slot(entry: u64) {
    poke(symbol!(pd_window) + 8, entry);
}

/// Makes a frame a page directory; the first address that it maps.
pub fn map_directory(frame: u64) -> u64 {
    poke(symbol!(pdpt_window) + 8, frame | 7);
    cpu::write_cr3(root());
    WINDOW + (1 << 30)
}

/// The large page of the window for modules.
pub fn modules_large() -> u64 {
    MODULES_START + large_bytes()
}

/// Whether the processor has 1 GiB pages.
pub fn huge_pages() -> bool {
    cpu::cpuid(0x8000_0001).edx >> 26 & 1 != 0
}

/// Puts the tables above the image's and the window's into their first state.
pub fn start_paging() {
    set_large_slot(0);
    poke(symbol!(pd_window), symbol!(pt_window) | 7);
    cpu::write_cr3(root());
}

/// The page table of the window for modules, in the memory that was given for tables.
pub fn module_tables(tables: u64) -> u64 {
    tables + 2 * PAGE
}

/// The entries above it.
pub fn module_entries(tables: u64) -> [u64; 3] {
    [root() + 511 * 8, tables + 510 * 8, tables + PAGE + 256 * 8]
}

/// Puts the tables of the window for modules into their first state.
pub fn map_modules(tables: u64, large_frames: u64) {
    poke(root() + 511 * 8, tables | RW);
    poke(tables + 510 * 8, (tables + PAGE) | RW);
    if huge_pages() {
        poke(tables + 511 * 8, RW | LARGE);
    }
    poke(tables + PAGE + 256 * 8, module_tables(tables) | RW);
    poke(tables + PAGE + 257 * 8, large_frames | RW | LARGE);
}

/// Puts a page table behind an address in the window's last GiB, by way of a directory.
pub fn add_module_table(tables: u64, address: u64, directory: u64, table: u64) {
    poke(tables + 511 * 8, directory | RW);
    poke(directory + (address >> 21 & 511) * 8, table | RW);
}

/// Makes the root serve, with CR4.PAE turned over, for the image: CR4's bits that do this.
pub fn other_pae() -> u64 {
    // It is a page directory then: one large page for all that this takes.
    poke(root() + 2 * 8, 0x100_0083);
    CR4_PAE | CR4_PSE
}

/// Page tables of the attacker's own in which the victim's page is `frame`, all else as ever.
pub fn own_tables(frame: u64) -> u64 {
    let tables = symbol!(scratch_tables);
    let sources = [symbol!(pml4), symbol!(pdpt_low), symbol!(pd_low), symbol!(pt_image)];
    for (at, source) in sources.into_iter().enumerate() {
        copy(source, tables + at as u64 * PAGE, PAGE);
    }
    poke(tables, (tables + PAGE) | 7);
    poke(tables + PAGE, (tables + 2 * PAGE) | 7);
    poke(tables + 2 * PAGE + 8 * 8, (tables + 3 * PAGE) | 7);
    poke(tables + 3 * PAGE + (symbol!(victim) >> 12 & 511) * 8, frame | RW);
    tables
}
