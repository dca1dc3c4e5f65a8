//! What GRUB hands over: the multiboot2 information (Multiboot2 spec, "Boot information format").

use policy::address::PhysicalRange;

use crate::bytes::{sums_to_zero, u16_at, u32_at, u64_at};
use crate::error::BootError;
use crate::memory::MemoryMap;
use crate::screen::{Channel, Framebuffer, Screen, TEXT_BUFFER};

/// Tag types of the information.
mod tag {
    pub const END: u32 = 0;
    pub const COMMAND_LINE: u32 = 1;
    pub const MODULE: u32 = 3;
    pub const MEMORY_MAP: u32 = 6;
    pub const FRAMEBUFFER: u32 = 8;
    pub const ELF_SECTIONS: u32 = 9;
    pub const RSDP_V1: u32 = 14;
    pub const RSDP_V2: u32 = 15;
}

/// A file that GRUB loaded for SecVisor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Module<'a> {
    /// Where it lies: always below 4 GiB.
    pub range: PhysicalRange,
    /// What follows the name on its line.
    pub command_line: &'a str,
}

/// What GRUB hands over, checked.
#[derive(Clone, Debug)]
pub struct Information<'a> {
    /// SecVisor's own command line.
    pub command_line: &'a str,
    /// The machine's memory.
    pub memory: MemoryMap,
    /// Module `kernel`: the guest's vmlinux and its command line.
    pub kernel: Module<'a>,
    /// Module `initrd`.
    pub initrd: Option<Module<'a>>,
    /// Module `policy`: the approval list.
    pub policy: Module<'a>,
    /// The firmware's RSDP: 36 bytes of version 2, else 20 of version 1, with a right checksum.
    pub rsdp: Option<&'a [u8]>,
    /// What the screen shows.
    pub screen: Screen,
    /// Where GRUB left SecVisor's own symbol table and the names in it: anywhere.
    pub symbols: Option<[PhysicalRange; 2]>,
}

/// The modules by name, as far as they were seen.
#[derive(Default)]
struct Modules<'a> {
    kernel: Option<Module<'a>>,
    initrd: Option<Module<'a>>,
    policy: Option<Module<'a>>,
}

/// Reads the information from `bytes`, SecVisor's copy of it with its header of 8 bytes; what
/// follows its own size is ignored.
///
/// # Errors
/// Bytes that are cut short or break the format, no memory map, modules that are unknown, missing,
/// empty, there twice, or overlap.
pub fn parse(bytes: &[u8]) -> Result<Information<'_>, BootError<'_>> {
    let short = BootError::Information("it is cut short");
    let size = u32_at(bytes, 0).ok_or(short)?;
    let mut rest = bytes.get(8..size as usize).ok_or(short)?;
    let mut command_line = "";
    let mut memory = None;
    let mut modules = Modules::default();
    let mut rsdp = [None; 2];
    let mut screen = Screen::None;
    let mut symbols = None;
    loop {
        let kind = u32_at(rest, 0).ok_or(short)?;
        let size = u32_at(rest, 4).ok_or(short)? as usize;
        let body = rest.get(8..size).ok_or(short)?;
        match kind {
            tag::END => break,
            tag::COMMAND_LINE => command_line = text(body)?,
            tag::MODULE => modules.add(body)?,
            tag::MEMORY_MAP => memory = Some(memory_map(body)?),
            tag::FRAMEBUFFER => screen = self::screen(body).unwrap_or_default(),
            tag::ELF_SECTIONS => symbols = self::symbols(body),
            tag::RSDP_V1 => rsdp[1] = body.get(..20).filter(|body| sums_to_zero(body, 0..20)),
            tag::RSDP_V2 => {
                let right = |body: &&[u8]| {
                    sums_to_zero(body, 0..20)
                        && sums_to_zero(body, 0..36)
                        && u32_at(body, 20).is_some_and(|length| length >= 36)
                };
                rsdp[0] = body.get(..36).filter(right);
            }
            _ => {}
        }
        // A size below 8 left no body, so every turn moves on.
        let next = size.checked_next_multiple_of(8).ok_or(short)?;
        rest = rest.get(next..).ok_or(short)?;
    }
    let rsdp = rsdp.into_iter().flatten().find(|rsdp| rsdp.starts_with(b"RSD PTR "));
    let memory = memory.ok_or(BootError::Information("it has no memory map"))?;
    let kernel = modules.kernel.ok_or(BootError::ModuleMissing("kernel"))?;
    let policy = modules.policy.ok_or(BootError::ModuleMissing("policy"))?;
    let initrd = modules.initrd;
    if kernel.range.overlaps(policy.range) {
        return Err(BootError::ModuleOverlap("kernel", "policy"));
    }
    if let Some(Module { range, .. }) = initrd {
        for (name, other) in [("kernel", kernel), ("policy", policy)] {
            if range.overlaps(other.range) {
                return Err(BootError::ModuleOverlap("initrd", name));
            }
        }
    }
    Ok(Information { command_line, memory, kernel, initrd, policy, rsdp, screen, symbols })
}

impl<'a> Modules<'a> {
    /// Files a module under its name, the first word of its line (section "Modules").
    fn add(&mut self, body: &'a [u8]) -> Result<(), BootError<'a>> {
        let short = BootError::Information("a module's tag is cut short");
        let start = u32_at(body, 0).ok_or(short)?;
        let end = u32_at(body, 4).ok_or(short)?;
        let line = text(body.get(8..).ok_or(short)?)?.trim_matches(' ');
        let (name, command_line) = line.split_once(' ').unwrap_or((line, ""));
        let (name, slot) = match name {
            "kernel" => ("kernel", &mut self.kernel),
            "initrd" => ("initrd", &mut self.initrd),
            "policy" => ("policy", &mut self.policy),
            _ => return Err(BootError::ModuleUnknown(name)),
        };
        let range = PhysicalRange::between(start.into(), end.into());
        let range = range.ok_or(BootError::ModuleEmpty(name))?;
        let command_line = command_line.trim_matches(' ');
        match slot.replace(Module { range, command_line }) {
            None => Ok(()),
            Some(_) => Err(BootError::ModuleTwice(name)),
        }
    }
}

/// The text up to the first zero byte.
fn text(bytes: &[u8]) -> Result<&str, BootError<'_>> {
    let text = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
    core::str::from_utf8(text)
        .map_err(|_| BootError::Information("a command line is not UTF-8 text"))
}

/// Section "Memory map": size and version of an entry, then entries of at least 24 bytes.
fn memory_map(body: &[u8]) -> Result<MemoryMap, BootError<'_>> {
    let bad = BootError::Information("its memory map is damaged");
    let size = u32_at(body, 0).filter(|&size| size >= 24).ok_or(bad)? as usize;
    let entries = body.get(8..).ok_or(bad)?.chunks_exact(size);
    MemoryMap::from_entries(
        entries
            .filter_map(|entry| Some((u64_at(entry, 0)?, u64_at(entry, 8)?, u32_at(entry, 16)?))),
    )
}

/// Section "Framebuffer info". `None` for what SecVisor cannot write to: it does without.
fn screen(body: &[u8]) -> Option<Screen> {
    let (address, pitch) = (u64_at(body, 0)?, u32_at(body, 8)?);
    let (width, height) = (u32_at(body, 12)?, u32_at(body, 16)?);
    let [bits_per_pixel, kind] = u16_at(body, 20)?.to_le_bytes();
    match kind {
        1 => {
            let channel = |offset: usize| {
                let [position, size] = u16_at(body, offset)?.to_le_bytes();
                Some(Channel { position, size })
            };
            let (red, green, blue) = (channel(24)?, channel(26)?, channel(28)?);
            Framebuffer::new(address, pitch, width, height, bits_per_pixel, red, green, blue)
                .map(Screen::Linear)
        }
        2 if (address, width, height) == (TEXT_BUFFER, 80, 25) => Some(Screen::Text80x25),
        _ => None,
    }
}

/// Section "ELF-Symbols": number and size of an ELF64 image's section headers, then these (ELF
/// specification, "Section header").
fn symbols(body: &[u8]) -> Option<[PhysicalRange; 2]> {
    const HEADER_BYTES: usize = 64;
    const SYMBOL_TABLE: u32 = 2;
    let size = u32_at(body, 4).filter(|&size| size as usize >= HEADER_BYTES)? as usize;
    let mut headers = body.get(12..)?.chunks_exact(size);
    let range = |header: &[u8]| {
        let start = u64_at(header, 16).filter(|&start| start != 0)?;
        PhysicalRange::new(start, u64_at(header, 32)?)
    };
    let table = headers.clone().find(|header| u32_at(header, 4) == Some(SYMBOL_TABLE))?;
    let names = headers.nth(u32_at(table, 40)? as usize)?;
    Some([range(table)?, range(names)?])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{information, memory_tag, module, range};
    use proptest::prelude::*;

    const MIB: u32 = 1 << 20;

    fn memory() -> (u32, Vec<u8>) {
        memory_tag(&[(0, 0x9F000, 1), (0x10_0000, 0x3F0_0000, 1), (0xFFFC_0000, 0x4_0000, 2)])
    }

    fn modules() -> [(u32, Vec<u8>); 3] {
        [
            module(MIB, 2 * MIB, " kernel  console=ttyS0 root=/dev/vda "),
            module(2 * MIB, 3 * MIB, "policy"),
            module(3 * MIB, 4 * MIB, "initrd"),
        ]
    }

    /// The error, if any, of information with a memory map and these modules.
    fn error_of(modules: &[(u32, Vec<u8>)]) -> Option<String> {
        let bytes = information(&[&[memory()], modules].concat());
        parse(&bytes).err().map(|error| error.to_string())
    }

    fn rsdp(length: usize) -> Vec<u8> {
        let mut rsdp = b"RSD PTR \0SECVIS\x02".to_vec();
        rsdp.resize(length, 0x11);
        if length == 36 {
            rsdp[20..24].copy_from_slice(&36u32.to_le_bytes());
        }
        let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |sum, &x| sum.wrapping_sub(x));
        rsdp[8] = sum(&rsdp[..20]);
        if length == 36 {
            rsdp[32] = rsdp[32].wrapping_add(sum(&rsdp));
        }
        rsdp
    }

    #[test]
    fn honest_information_parses() {
        let [kernel, policy, initrd] = modules();
        let line = (1, b"entry-guard=npf\0".to_vec());
        let tags = [line, kernel, (14, rsdp(20)), policy, memory(), (15, rsdp(36)), initrd];
        let bytes = information(&tags);
        let information = parse(&bytes).unwrap();
        assert_eq!(information.command_line, "entry-guard=npf");
        assert_eq!(information.kernel.command_line, "console=ttyS0 root=/dev/vda");
        assert_eq!(information.kernel.range, range(0x10_0000, 0x20_0000));
        assert_eq!(information.policy.command_line, "");
        assert_eq!(information.initrd.unwrap().range, range(0x30_0000, 0x40_0000));
        assert_eq!(information.memory.top_of_ram(), 0x400_0000);
        assert_eq!(information.rsdp, Some(&rsdp(36)[..]));
        assert_eq!(information.screen, Screen::None);
    }

    #[test]
    fn a_damaged_rsdp_is_not_used() {
        let of = |tags: &[(u32, Vec<u8>)]| {
            let bytes = information(&[&modules()[..], &[memory()], tags].concat());
            parse(&bytes).unwrap().rsdp.map(<[u8]>::len)
        };
        let damaged = |length, at: usize| {
            let mut rsdp = rsdp(length);
            rsdp[at] ^= 1;
            rsdp
        };
        assert_eq!(of(&[(15, rsdp(36)), (14, rsdp(20))]), Some(36));
        assert_eq!(of(&[(15, damaged(36, 35)), (14, rsdp(20))]), Some(20));
        assert_eq!(of(&[(15, damaged(36, 12)), (14, damaged(20, 3))]), None);
        assert_eq!(of(&[(15, rsdp(20)), (14, rsdp(20)[..19].to_vec())]), None);
    }

    #[test]
    fn modules_that_do_not_hold_are_named() {
        let [kernel, policy, initrd] = modules();
        assert_eq!(error_of(&modules()), None);
        for (modules, expected) in [
            (vec![], "'kernel' is missing"),
            (vec![kernel.clone(), initrd.clone()], "'policy' is missing"),
            (vec![kernel.clone(), initrd, kernel.clone()], "'kernel' is there twice"),
            (vec![module(0, 1, "vmlinux kernel")], "'vmlinux'"),
            (vec![module(0, 1, "")], "''"),
            (vec![module(7, 7, "initrd")], "'initrd' is empty"),
            (vec![module(7, 6, "kernel")], "'kernel' is empty"),
            (vec![kernel.clone(), module(0, MIB + 1, "policy")], "'kernel' lies over policy"),
            (vec![kernel, policy, module(MIB, 9 * MIB, "initrd")], "'initrd' lies over kernel"),
        ] {
            let error = error_of(&modules).unwrap();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn information_cut_anywhere_is_an_error() {
        let bytes = information(&[&modules()[..], &[memory()]].concat());
        for length in 0..bytes.len() {
            assert!(parse(&bytes[..length]).is_err(), "{length}");
            // Its own size tells of the cut as well; only the end tag's padding may be missing.
            let mut cut = bytes.clone();
            cut[..4].copy_from_slice(&(length as u32).to_le_bytes());
            assert!(parse(&cut).is_err(), "{length}");
        }
        for size in [0u8, 1, 23] {
            let mut memory = memory();
            memory.1[0] = size;
            let bytes = information(&[&modules()[..], &[memory]].concat());
            assert!(parse(&bytes).unwrap_err().to_string().contains("memory map is damaged"));
        }
        let no_memory = information(&modules());
        assert!(parse(&no_memory).unwrap_err().to_string().contains("no memory map"));
    }

    #[test]
    fn screens_are_told_apart() {
        let of = |address: u64, geometry: [u32; 3], [bits, kind]: [u8; 2]| {
            let mut body = address.to_le_bytes().to_vec();
            body.extend(geometry.into_iter().flat_map(u32::to_le_bytes));
            body.extend([bits, kind, 0, 0, 16, 8, 8, 8, 0, 8]);
            let bytes = information(&[&modules()[..], &[memory(), (8, body)]].concat());
            parse(&bytes).unwrap().screen
        };
        assert_eq!(of(0xB8000, [160, 80, 25], [16, 2]), Screen::Text80x25);
        assert_eq!(of(0xB8000, [264, 132, 50], [16, 2]), Screen::None);
        let Screen::Linear(linear) = of(0xFD00_0000, [4096, 1024, 768], [32, 1]) else { panic!() };
        assert_eq!(linear.range(), range(0xFD00_0000, 0xFD30_0000));
        assert_eq!(linear.red, Channel { position: 16, size: 8 });
        for (geometry, kinds) in [
            ([4095, 1024, 768], [32, 1]), // lines longer than the pitch
            ([4096, 1024, 768], [8, 1]),  // no colours
            ([4096, 1024, 768], [32, 0]), // a palette
            ([!0, 1024, !0], [32, 1]),
            ([4096, 0, 768], [32, 1]),
            ([4096, 1024, 0], [32, 1]),
        ] {
            assert_eq!(of(1 << 40, geometry, kinds), Screen::None);
        }
        assert_eq!(of(u64::MAX - 5, [4096, 1024, 768], [32, 1]), Screen::None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(bytes: Vec<u8>) {
            let _ = parse(&bytes).map_err(|error| error.to_string());
        }

        #[test]
        fn any_tags_are_judged(tags in prop::collection::vec((0u32..17, any::<Vec<u8>>()), 0..9)) {
            let bytes = information(&[&tags[..], &modules(), &[memory()]].concat());
            let _ = parse(&bytes).map_err(|error| error.to_string());
        }

        #[test]
        fn any_change_is_judged(changes in prop::collection::vec((0usize..400, any::<u8>()), 1..9)) {
            let mut bytes = information(&[&modules()[..], &[memory(), (15, rsdp(36))]].concat());
            for (at, byte) in changes {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            let _ = parse(&bytes).map_err(|error| error.to_string());
        }
    }

    #[test]
    fn symbols_are_where_the_section_headers_say() {
        let header = |kind: u32, address: u64, size: u64, link: u32| {
            let mut bytes = [0; 64];
            bytes[4..8].copy_from_slice(&kind.to_le_bytes());
            bytes[16..24].copy_from_slice(&address.to_le_bytes());
            bytes[32..40].copy_from_slice(&size.to_le_bytes());
            bytes[40..44].copy_from_slice(&link.to_le_bytes());
            bytes
        };
        let tag = |entry_size: u32, link| {
            let words = [3, entry_size, 0].map(u32::to_le_bytes).concat();
            let headers =
                [header(0, 0, 0, 0), header(2, 0x1000, 48, link), header(3, 0x2000, 9, 0)];
            (tag::ELF_SECTIONS, [words, headers.concat()].concat())
        };
        let found = |tag| {
            let bytes = information(&[&[memory(), tag], &modules()[..]].concat());
            parse(&bytes).unwrap().symbols
        };
        assert_eq!(found(tag(64, 2)), Some([range(0x1000, 0x1030), range(0x2000, 0x2009)]));
        for (entry_size, link) in [(64, 3), (64, u32::MAX), (64, 0), (0, 2), (40, 2), (u32::MAX, 2)]
        {
            assert_eq!(found(tag(entry_size, link)), None);
        }
    }
}
