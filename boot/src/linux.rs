//! What Linux's boot protocols want in memory and in registers (Documentation/x86/boot.rst, "32-bit"
//! and "64-bit Boot Protocol", and struct boot_params in arch/x86/include/uapi/asm/bootparam.h).

use policy::PAGE_SIZE;
use policy::address::PhysicalRange;
use policy::approval::Architecture;

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

const GDT_LIMIT: u16 = (size_of::<[u64; 4]>() - 1) as u16;

/// Null, null, __BOOT_CS (10h: code), __BOOT_DS (18h: data), both flat and accessed.
const fn descriptors(architecture: Architecture) -> [u64; 4] {
    let code = match architecture {
        Architecture::X86_64 => 0x00AF_9B00_0000_FFFF,
        Architecture::I386 => 0x00CF_9B00_0000_FFFF,
    };
    [0, 0, code, 0x00CF_9300_0000_FFFF]
}

/// Page-table bits: present, writable.
const TABLE: u64 = 0x3;
/// And accessed, dirty, large: a leaf of 2 MiB.
const LARGE_LEAF: u64 = 0xE3;

/// What the guest is given.
pub struct LinuxInputs<'a> {
    /// What the kernel is made for.
    pub architecture: Architecture,
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

/// The registers that the guest starts with. CS is 10h, DS, ES and SS are 18h, all flat; interrupts
/// are off. A 64-bit kernel starts in long mode, a 32-bit one without paging.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GuestStart {
    /// The mode: which of the two protocols this is.
    pub architecture: Architecture,
    /// The kernel's first instruction.
    pub rip: u64,
    /// Physical address of boot_params.
    pub rsi: u64,
    /// Root of page tables that map the first 4 GiB one to one, for long mode.
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
    for (slot, entry) in (GDT..).step_by(8).zip(descriptors(inputs.architecture)) {
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
        architecture: inputs.architecture,
        rip: inputs.entry,
        rsi: base.into(),
        cr3: at(PAGE_TABLES).into(),
        gdt_base: at(GDT).into(),
        gdt_limit: GDT_LIMIT,
    })
}

/// Page tables that map the first 4 GiB one to one by leaves of 2 MiB; the root is at `root`.
fn write_page_tables(bytes: &mut [u8], root: u64) {
    let mut set = |slot: usize, entry: u64| {
        let offset = PAGE_TABLES.saturating_add(slot.saturating_mul(8));
        put(bytes, offset, &entry.to_le_bytes());
    };
    set(0, root.wrapping_add(0x1000) | TABLE);
    for (slot, page) in (512..516).zip(2u64..) {
        set(slot, root.wrapping_add(page << 12) | TABLE);
    }
    for (slot, leaf) in (1024..3072).zip(0u64..) {
        set(slot, (leaf << 21) | LARGE_LEAF);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::{u16_at, u32_at, u64_at};
    use crate::screen::Channel;
    use crate::testing::{Ram, range};

    const LOW: u64 = 0x8_0000;

    fn map() -> MemoryMap {
        let entries = [(0, 0x8_0000, 1), (0x8_0000, 0x1_0000, 2), (0x10_0000, 0xF0_0000, 1)];
        MemoryMap::from_entries(entries).unwrap()
    }

    fn prepared(inputs: &LinuxInputs) -> (GuestStart, Vec<u8>) {
        let mut ram = Ram(vec![0xEE; 1 << 20]);
        let low = range(LOW, LOW + 0x1_0000);
        let start = prepare(&mut ram, low, inputs).unwrap();
        assert!(ram.0[..LOW as usize].iter().all(|&byte| byte == 0xEE));
        assert!(ram.0[low.end() as usize..].iter().all(|&byte| byte == 0xEE));
        (start, ram.0[LOW as usize..low.end() as usize].to_vec())
    }

    fn inputs(map: &MemoryMap) -> LinuxInputs<'_> {
        LinuxInputs {
            architecture: Architecture::X86_64,
            entry: 0x100_0000,
            command_line: "console=ttyS0",
            initrd: Some(range(0x200_0000, 0x200_1234)),
            memory_map: map,
            rsdp: Some(&[0x52; 36]),
            screen: Screen::Text80x25,
        }
    }

    #[test]
    fn boot_params_hold_what_linux_reads() {
        let map = map();
        let (start, bytes) = prepared(&inputs(&map));
        assert_eq!((start.rip, start.rsi), (0x100_0000, LOW));
        let zero_page = &bytes[..0x1000];
        let (magic, version) = (&zero_page[0x202..0x206], u16_at(zero_page, 0x206));
        assert_eq!(
            (u16_at(zero_page, 0x1FE), magic, version),
            (Some(0xAA55), &b"HdrS"[..], Some(0x20F))
        );
        assert_eq!(zero_page[0x1EF], 0, "the sentinel");
        assert_eq!(u32_at(zero_page, 0x218), Some(0x200_0000));
        assert_eq!(u32_at(zero_page, 0x21C), Some(0x1234));
        let line = u32_at(zero_page, 0x228).unwrap() as usize - LOW as usize;
        assert_eq!(&bytes[line..line + 14], b"console=ttyS0\0");
        let rsdp = u64_at(zero_page, 0x70).unwrap() as usize - LOW as usize;
        assert_eq!(&bytes[rsdp..rsdp + 37], [&[0x52; 36][..], &[0]].concat());
        assert_eq!(zero_page[0x1E8], 3);
        let e820 = |n: usize| {
            let at = 0x2D0 + 20 * n;
            (u64_at(zero_page, at), u64_at(zero_page, at + 8), u32_at(zero_page, at + 16))
        };
        assert_eq!(e820(1), (Some(0x8_0000), Some(0x1_0000), Some(2)));
        assert_eq!(e820(2), (Some(0x10_0000), Some(0xF0_0000), Some(1)));
        assert_eq!(e820(3), (Some(0), Some(0), Some(0)));
        assert_eq!((zero_page[0x07], zero_page[0x0E], zero_page[0x0F]), (80, 25, 1));
    }

    #[test]
    fn the_first_4_gib_are_mapped_one_to_one() {
        let map = map();
        let (start, bytes) = prepared(&inputs(&map));
        let entry = |table: u64, index: u64| {
            let at = (table & 0xF_FFFF_FFFF_F000) - LOW + index * 8;
            u64_at(&bytes, at as usize).filter(|entry| entry & 3 == 3)
        };
        for address in (0..4u64 << 30).step_by(1 << 21) {
            let pointers = entry(start.cr3, address >> 39).unwrap();
            let directory = entry(pointers, address >> 30).unwrap();
            let leaf = entry(directory, address >> 21 & 0x1FF).unwrap();
            assert_eq!((leaf & !0xFFF, leaf & 0x80), (address, 0x80));
        }
        assert_eq!(entry(start.cr3, 1), None);
        assert_eq!(entry(entry(start.cr3, 0).unwrap(), 4), None);
    }

    #[test]
    fn descriptors_fit_the_mode() {
        let map = map();
        for (architecture, default, long) in
            [(Architecture::X86_64, 0, 1), (Architecture::I386, 1, 0)]
        {
            let (start, bytes) = prepared(&LinuxInputs { architecture, ..inputs(&map) });
            assert_eq!((start.architecture, start.gdt_limit), (architecture, 0x1F));
            let gdt = (start.gdt_base - LOW) as usize;
            let code = u64_at(&bytes, gdt + 0x10).unwrap();
            assert_eq!((code >> 53 & 1, code >> 54 & 1), (long, default));
            assert_eq!((code >> 47 & 1, code >> 43 & 1), (1, 1), "present, code");
            let data = u64_at(&bytes, gdt + 0x18).unwrap();
            assert_eq!((data >> 47 & 1, data >> 41 & 3), (1, 1), "present, writable data");
            for descriptor in [code, data] {
                let limit = descriptor & 0xFFFF | descriptor >> 32 & 0xF_0000;
                let base = descriptor >> 16 & 0xFF_FFFF | descriptor >> 56 << 24;
                assert_eq!((base, limit, descriptor >> 55), (0, 0xF_FFFF, 1), "flat");
            }
        }
    }

    #[test]
    fn a_framebuffer_is_described() {
        let map = map();
        let channel = |position| Channel { position, size: 8 };
        let linear = Framebuffer::new(
            0x12_C000_0000,
            7680,
            1920,
            1080,
            32,
            channel(16),
            channel(8),
            channel(0),
        );
        let screen = Screen::Linear(linear.unwrap());
        let (_, bytes) = prepared(&LinuxInputs { screen, ..inputs(&map) });
        assert_eq!(bytes[0x0F], 0x23);
        assert_eq!((u16_at(&bytes, 0x12), u16_at(&bytes, 0x14)), (Some(1920), Some(1080)));
        assert_eq!((u32_at(&bytes, 0x18), u32_at(&bytes, 0x3A)), (Some(0xC000_0000), Some(0x12)));
        assert!(u64::from(u32_at(&bytes, 0x1C).unwrap()) << 16 >= 7680 * 1080);
        assert_eq!(bytes[0x26..0x2C], [8, 16, 8, 8, 8, 0]);
    }

    #[test]
    fn bounds_are_kept() {
        let map = map();
        let refusal = |low, inputs| prepare(&mut Ram(vec![0; 1 << 20]), low, &inputs).err();
        let low = range(LOW, LOW + 0x1_0000);
        let line = "x".repeat(2047);
        let (_, bytes) = prepared(&LinuxInputs { command_line: &line, rsdp: None, ..inputs(&map) });
        assert_eq!(bytes[0x1000..0x1800], [line.as_bytes(), &[0]].concat());
        assert_eq!(u64_at(&bytes, 0x70), Some(0));
        let line = "x".repeat(2048);
        let long = LinuxInputs { command_line: &line, ..inputs(&map) };
        assert_eq!(refusal(low, long), Some(BootError::CommandLine(2048)));
        let initrd = Some(range(1 << 32, 1 << 33));
        assert!(refusal(low, LinuxInputs { initrd, ..inputs(&map) }).is_some());
        assert!(refusal(range(LOW, LOW + 0x7FFF), inputs(&map)).is_some());
        assert!(refusal(range(LOW + 1, LOW + 0x1_0001), inputs(&map)).is_some());
        assert!(refusal(range((1 << 32) - 0x1000, (1 << 32) + 0x1_0000), inputs(&map)).is_some());
    }

    #[test]
    fn a_full_memory_map_fits() {
        let entries = (0..128).map(|n| (n * 0x2000, 0x1000, 1));
        let map = MemoryMap::from_entries(entries).unwrap();
        let (_, bytes) = prepared(&inputs(&map));
        assert_eq!(bytes[0x1E8], 128);
        assert_eq!(u64_at(&bytes, 0x2D0 + 20 * 127), Some(127 * 0x2000));
        assert!(bytes[0x2D0 + 20 * 128..0x1000].iter().all(|&byte| byte == 0));
    }
}
