//! SecVisor's own page tables: memory one to one, the image where it was linked for, nothing both
//! writable and executable.
#![allow(unsafe_code, reason = "loads CR3 and writes the tables")]

use policy::address::PhysicalRange;
use policy::{LARGE_PAGE_SIZE, PAGE_SIZE};
use x86_64::PhysAddr;
use x86_64::registers::control::{Cr3, Cr3Flags};
use x86_64::structures::paging::PhysFrame;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const GIANT: u64 = 1 << 30;

unsafe extern "C" {
    static image_start: u8;
    static launch_start: u8;
    static text_end: u8;
    static data_start: u8;
    static image_end: u8;
    static stack_guard: u8;
}

/// SecVisor's image: linked for the top 2 GiB, loaded anywhere below 4 GiB.
#[derive(Clone, Copy)]
pub struct Image {
    /// Where it lies in physical memory.
    pub physical: PhysicalRange,
}

impl Image {
    /// The image whose first byte GRUB loaded to `physical`.
    pub fn at(physical: u64) -> Option<Self> {
        let length = &raw const image_end as u64 - &raw const image_start as u64;
        Some(Self { physical: PhysicalRange::new(physical, length)? })
    }
}

/// Flags of the page of the image at this virtual address.
fn image_flags(page: u64) -> u64 {
    // The launch's code lies right below the rest.
    let text = &raw const launch_start as u64..&raw const text_end as u64;
    let (data, guard) = (&raw const data_start as u64, &raw const stack_guard as u64);
    if text.contains(&page) {
        PRESENT
    } else if page == guard {
        0
    } else if page >= data {
        PRESENT | WRITABLE | NO_EXECUTE
    } else {
        PRESENT | NO_EXECUTE
    }
}

/// Bytes that the tables for memory up to `top` take.
pub fn table_bytes(top: u64) -> u64 {
    // Root, a table of pointers per 512 GiB, a directory per GiB; leaves where the one-to-one map
    // leaves the image out; pointers, directory and leaves for the image itself.
    (1 + top.div_ceil(GIANT << 9) + top.div_ceil(GIANT) + 2 + 3) * PAGE_SIZE
}

/// Tables under construction: consecutive pages from `base`, below 4 GiB.
struct Builder {
    entries: &'static mut [u64],
    base: u64,
    used: usize,
}

impl Builder {
    /// The index of entry `address >> shift` in the table that `parent` links, made if there is
    /// none yet.
    fn entry(&mut self, parent: usize, address: u64, shift: u32) -> usize {
        if self.entries[parent] == 0 {
            self.entries[parent] = (self.base + self.used as u64 * PAGE_SIZE) | PRESENT | WRITABLE;
            self.used += 1;
        }
        let table = (self.entries[parent] - self.base) / PAGE_SIZE;
        table as usize * 512 + (address >> shift & 0x1FF) as usize
    }

    /// The index of the entry for `address` at the level of `shift`, with all tables above it.
    fn walk(&mut self, address: u64, shift: u32) -> usize {
        let mut index = (address >> 39 & 0x1FF) as usize;
        for level in [30, 21, 12].into_iter().filter(|&level| level >= shift) {
            index = self.entry(index, address, level);
        }
        index
    }
}

/// Builds the tables in `entries` (zeroed, [`table_bytes`] long, below 4 GiB) and loads them:
/// memory up to `top` one to one and not executable, but for the image, which is mapped only where
/// it was linked for. Returns their root.
pub fn load(entries: &'static mut [u64], top: u64, image: Image) -> u64 {
    let base = entries.as_ptr() as u64;
    let mut tables = Builder { entries, base, used: 1 };
    for address in (0..top).step_by(LARGE_PAGE_SIZE as usize) {
        let here = PhysicalRange::new(address, LARGE_PAGE_SIZE);
        if here.is_some_and(|here| here.overlaps(image.physical)) {
            for page in (address..address + LARGE_PAGE_SIZE).step_by(PAGE_SIZE as usize) {
                let index = tables.walk(page, 12);
                if !image.physical.contains_address(page) {
                    tables.entries[index] = page | PRESENT | WRITABLE | NO_EXECUTE;
                }
            }
        } else {
            let index = tables.walk(address, 21);
            tables.entries[index] = address | PRESENT | WRITABLE | NO_EXECUTE | LARGE;
        }
    }
    let linked = &raw const image_start as u64;
    for offset in (0..image.physical.length()).step_by(PAGE_SIZE as usize) {
        let index = tables.walk(linked + offset, 12);
        let flags = image_flags(linked + offset);
        tables.entries[index] = (image.physical.start() + offset) | flags;
    }
    switch_to(base);
    base
}

/// Loads the tables that [`load`] built.
pub fn switch_to(root: u64) {
    let frame = PhysFrame::containing_address(PhysAddr::new(root));
    // SAFETY: they map the image and memory as the tables before them do; EFER.NXE is set.
    unsafe { Cr3::write(frame, Cr3Flags::empty()) };
}
