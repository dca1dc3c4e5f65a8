//! What Linux's 64-bit boot protocol wants in memory (Documentation/x86/boot.rst, "64-bit Boot
//! Protocol", and struct boot_params in arch/x86/include/uapi/asm/bootparam.h).

use policy::PAGE_SIZE;
use policy::address::PhysicalRange;

use crate::bytes::put;
use crate::error::BootError;
use crate::memory::{MemoryMap, PhysicalMemory};
use crate::screen::{Framebuffer, Screen};

/// Bytes of a command line at most, without its final zero (COMMAND_LINE_SIZE).
pub const MAX_COMMAND_LINE: usize = 2047;

/// Offsets in the guest's low memory: boot_params, then a page of small things, then page tables.
const COMMAND_LINE: usize = 0x1000;
const RSDP: usize = 0x1800;
const GDT: usize = 0x1C00;
const PAGE_TABLES: usize = 0x2000;
/// Root, directory pointers and four directories.
const PAGE_TABLE_BYTES: usize = 6 * 0x1000;
/// What is used of the guest's low memory.
const USED_BYTES: u64 = (PAGE_TABLES + PAGE_TABLE_BYTES) as u64;

/// Null, null, __BOOT_CS (10h: 64-bit code), __BOOT_DS (18h: data), both flat and accessed.
const GDT_ENTRIES: [u64; 4] = [0, 0, 0x00AF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF];
const GDT_LIMIT: u16 = (size_of::<[u64; 4]>() - 1) as u16;

/// Page-table bits: present, writable.
const TABLE: u64 = 0x3;
/// And accessed, dirty, large: a leaf of 2 MiB.
const LARGE_LEAF: u64 = 0xE3;

/// What the guest is given.
pub struct LinuxInputs<'a> {
    /// Physical address of the kernel's first instruction.
    pub entry: u64,
    /// The kernel's command line.
    pub command_line: &'a str,
    /// Where the initrd lies, below 4 GiB.
    pub initrd: Option<PhysicalRange>,
    /// The memory that the guest is told of, in which the low memory is reserved.
    pub memory_map: &'a MemoryMap,
    /// The firmware's RSDP, 20 or 36 bytes.
    pub rsdp: Option<&'a [u8]>,
    /// What the screen shows.
    pub screen: Screen,
}

/// The registers that the guest starts with. CS is 10h, DS, ES and SS are 18h; interrupts are off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GuestStart {
    /// The kernel's first instruction.
    pub rip: u64,
    /// Physical address of boot_params.
    pub rsi: u64,
    /// Root of page tables that map the first 4 GiB one to one.
    pub cr3: u64,
    /// Physical address of the GDT.
    pub gdt_base: u64,
    /// Its last byte's offset.
    pub gdt_limit: u16,
}

/// Writes boot_params and what it points at into `low` ([`crate::plan::Plan::guest_low`]).
///
/// # Errors
/// A command line of more than [`MAX_COMMAND_LINE`] bytes, an initrd above 4 GiB or low memory
/// that is too small ([`BootError::NoRoom`]).
pub fn prepare(
    memory: &mut impl PhysicalMemory,
    low: PhysicalRange,
    inputs: &LinuxInputs<'_>,
) -> Result<GuestStart, BootError<'static>> {
    let command_line = inputs.command_line.as_bytes();
    if command_line.len() > MAX_COMMAND_LINE {
        return Err(BootError::CommandLine(command_line.len()));
    }
    let no_room = |what, size| BootError::NoRoom { what, size, limit: 1 << 32 };
    let base = u32::try_from(low.start()).ok();
    let base = base.filter(|base| {
        low.length() >= USED_BYTES
            && u64::from(*base).is_multiple_of(PAGE_SIZE)
            && low.end() <= 1 << 32
    });
    let base = base.ok_or(no_room("the guest's start", USED_BYTES))?;
    let (initrd, initrd_bytes) = match inputs.initrd {
        None => (0, 0),
        Some(range) => u32::try_from(range.start())
            .ok()
            .zip(u32::try_from(range.length()).ok())
            .ok_or(no_room("the initrd", range.length()))?,
    };
    let at = |offset: usize| base.wrapping_add(offset as u32);

    let bytes = memory.bytes_mut(low);
    bytes.fill(0);
    put(bytes, COMMAND_LINE, command_line);
    if let Some(rsdp) = inputs.rsdp {
        put(bytes, RSDP, rsdp);
        put(bytes, 0x070, &u64::from(at(RSDP)).to_le_bytes()); // acpi_rsdp_addr
    }
    for (slot, entry) in (GDT..).step_by(8).zip(GDT_ENTRIES) {
        put(bytes, slot, &entry.to_le_bytes());
    }
    write_page_tables(bytes, at(PAGE_TABLES).into());
    write_screen_info(bytes, &inputs.screen);

    // The setup header; what is not named stays zero.
    put(bytes, 0x1F2, &1u16.to_le_bytes()); // root_flags: read-only, as bzImage has it
    put(bytes, 0x1FA, &0xFFFFu16.to_le_bytes()); // vid_mode: normal
    put(bytes, 0x1FE, &0xAA55u16.to_le_bytes()); // boot_flag
    put(bytes, 0x202, b"HdrS"); // header
    put(bytes, 0x206, &0x020Fu16.to_le_bytes()); // version
    put(bytes, 0x210, &[0xFF, 1]); // type_of_loader: no assigned id; loadflags: LOADED_HIGH
    put(bytes, 0x218, &initrd.to_le_bytes()); // ramdisk_image
    put(bytes, 0x21C, &initrd_bytes.to_le_bytes()); // ramdisk_size
    put(bytes, 0x228, &at(COMMAND_LINE).to_le_bytes()); // cmd_line_ptr
    put(bytes, 0x22C, &0x7FFF_FFFFu32.to_le_bytes()); // initrd_addr_max
    put(bytes, 0x230, &0x20_0000u32.to_le_bytes()); // kernel_alignment
    put(bytes, 0x238, &(MAX_COMMAND_LINE as u32).to_le_bytes()); // cmdline_size
    put(bytes, 0x258, &inputs.entry.to_le_bytes()); // pref_address

    // The memory map: e820_entries and e820_table.
    let entries = inputs.memory_map.entries();
    put(bytes, 0x1E8, &[entries.len() as u8]);
    for (slot, entry) in (0x2D0..).step_by(20).zip(entries) {
        put(bytes, slot, &entry.start.to_le_bytes());
        put(bytes, slot.wrapping_add(8), &entry.end.wrapping_sub(entry.start).to_le_bytes());
        put(bytes, slot.wrapping_add(16), &entry.kind.to_le_bytes());
    }
    Ok(GuestStart {
        rip: inputs.entry,
        rsi: base.into(),
        cr3: at(PAGE_TABLES).into(),
        gdt_base: at(GDT).into(),
        gdt_limit: GDT_LIMIT,
    })
}

/// Page tables that map the first 4 GiB one to one by leaves of 2 MiB; the root is at `root`.
fn write_page_tables(bytes: &mut [u8], root: u64) {
    let directories = (2..6u64).map(|page| root.wrapping_add(page << 12) | TABLE);
    let leaves = (0..2048u64).map(|leaf| (leaf << 21) | LARGE_LEAF);
    let entries = core::iter::once(root.wrapping_add(0x1000) | TABLE)
        .chain(core::iter::repeat_n(0, 511))
        .chain(directories)
        .chain(core::iter::repeat_n(0, 508))
        .chain(leaves);
    let tables = bytes.iter_mut().skip(PAGE_TABLES);
    for (to, byte) in tables.zip(entries.flat_map(u64::to_le_bytes)) {
        *to = byte;
    }
}

/// struct screen_info at the start of boot_params (include/uapi/linux/screen_info.h).
fn write_screen_info(bytes: &mut [u8], screen: &Screen) {
    match screen {
        Screen::None => {}
        Screen::Text80x25 => {
            put(bytes, 0x06, &[3, 80]); // orig_video_mode, orig_video_cols
            put(bytes, 0x0E, &[25, 1, 16]); // orig_video_lines, _isVGA, _points
        }
        Screen::Linear(Framebuffer {
            pitch,
            width,
            height,
            bits_per_pixel,
            red,
            green,
            blue,
            ..
        }) => {
            let range = match screen.bytes() {
                Some(range) => range,
                None => return,
            };
            put(bytes, 0x0F, &[0x23]); // orig_video_isVGA: VIDEO_TYPE_VLFB
            put(bytes, 0x12, &width.to_le_bytes());
            put(bytes, 0x14, &height.to_le_bytes());
            put(bytes, 0x16, &u16::from(*bits_per_pixel).to_le_bytes());
            put(bytes, 0x18, &(range.start() as u32).to_le_bytes());
            let blocks = range.length().div_ceil(1 << 16) as u32;
            put(bytes, 0x1C, &blocks.to_le_bytes()); // lfb_size, in units of 64 KiB
            put(bytes, 0x24, &pitch.to_le_bytes());
            for (slot, channel) in [0x26, 0x28, 0x2A].into_iter().zip([red, green, blue]) {
                put(bytes, slot, &[channel.size, channel.position]);
            }
            put(bytes, 0x36, &2u32.to_le_bytes()); // VIDEO_CAPABILITY_64BIT_BASE
            put(bytes, 0x3A, &((range.start() >> 32) as u32).to_le_bytes()); // ext_lfb_base
        }
    }
}
