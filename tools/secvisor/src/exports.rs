//! What a kernel offers its modules.

use std::collections::{HashMap, HashSet};

use elf::ElfBytes;
use elf::abi;
use elf::endian::AnyEndian;
use elf::file::Class;
use elf::section::SectionHeader;

use crate::Error;
use crate::kernel::broken;

/// The symbols that modules may use, and what modules must be built for.
#[derive(Debug)]
pub struct Exports<'a> {
    /// Address of every exported symbol.
    pub addresses: HashMap<&'a str, u64>,
    /// What a module's vermagic must be; `None` if no symbol says where it is.
    pub vermagic: Option<&'a str>,
    /// Whether it knows its own symbols (CONFIG_KALLSYMS), as far as it has any to tell by.
    pub kallsyms: bool,
}

impl<'a> Exports<'a> {
    /// Reads a kernel's ELF.
    pub fn read(file: &'a [u8]) -> Result<Self, Error> {
        let elf = ElfBytes::<AnyEndian>::minimal_parse(file).map_err(broken)?;
        let (mut vermagic, mut kallsyms) = (None, false);
        let (mut addresses, mut exported) = (HashMap::new(), HashSet::new());
        let symbols = elf.symbol_table().map_err(broken)?;
        if let Some((table, names)) = &symbols {
            for symbol in table.iter().filter(|symbol| symbol.st_shndx != abi::SHN_UNDEF) {
                let name = names.get(symbol.st_name as usize).map_err(broken)?;
                if let Some(name) = name.strip_prefix("__ksymtab_") {
                    exported.insert(name);
                } else if name == "vermagic" {
                    vermagic = string(&elf, symbol.st_value);
                } else if symbol.st_bind() != abi::STB_LOCAL {
                    addresses.insert(name, symbol.st_value);
                }
                kallsyms |= name == "kallsyms_names";
            }
        }
        // What the kernel itself looks up: not all that is there is a global symbol.
        let old = vermagic.is_some_and(|it| is_release(it, "2.6.20"));
        let told = tables(&elf, old)?;
        if !told.is_empty() {
            addresses = told;
        } else if symbols.is_none() {
            return Err(
                "the kernel has neither symbols nor tables of exports, which modules need: \
                        give the vmlinux as the build made it"
                    .into(),
            );
        } else if !exported.is_empty() {
            // A kernel that was stripped of these names exports some of its global symbols.
            addresses.retain(|name, _| exported.contains(name));
        }
        Ok(Self { addresses, vermagic, kallsyms })
    }
}

/// Whether the kernel that a vermagic names has this version, whatever is appended to it.
pub fn is_release(vermagic: &str, version: &str) -> bool {
    let rest = vermagic.strip_prefix(version);
    rest.is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_digit()))
}

/// The kernel's own tables of exports. Each entry is three words, relative to themselves, of address,
/// name and namespace; in `old` kernels two words, of address and name. Nothing if they
/// make no sense so.
fn tables<'a>(elf: &ElfBytes<'a, AnyEndian>, old: bool) -> Result<HashMap<&'a str, u64>, Error> {
    let mut addresses = HashMap::new();
    let (headers, names) = elf.section_headers_with_strtab().map_err(broken)?;
    for header in headers.into_iter().flatten() {
        let name = names.and_then(|names| names.get(header.sh_name as usize).ok());
        let kind = name.and_then(|name| name.strip_prefix("__ksymtab"));
        if kind.is_none_or(|kind| kind == "_strings") {
            continue;
        }
        let words = elf.section_data(&header).map_err(broken)?.0.as_chunks().0;
        let words: Vec<_> = words
            .iter()
            .map(|word| u32::from_le_bytes(*word))
            .zip((header.sh_addr..).step_by(4))
            .map(|(word, at)| match (old, elf.ehdr.class) {
                (true, _) => word.into(),
                (_, Class::ELF32) => (at as u32).wrapping_add(word).into(),
                (_, Class::ELF64) => at.wrapping_add_signed(word.cast_signed().into()),
            })
            .collect();
        for entry in words.chunks(if old { 2 } else { 3 }) {
            if let &[address, name, ..] = entry {
                let Some(name) = string(elf, name) else { return Ok(HashMap::new()) };
                addresses.insert(name, address);
            }
        }
    }
    Ok(addresses)
}

/// The string at `address`.
fn string<'a>(elf: &ElfBytes<'a, AnyEndian>, address: u64) -> Option<&'a str> {
    let inside = |header: &SectionHeader| {
        let offset = address.checked_sub(header.sh_addr);
        header.sh_type == abi::SHT_PROGBITS && offset.is_some_and(|offset| offset < header.sh_size)
    };
    let header = elf.section_headers()?.iter().find(inside)?;
    let bytes = elf.section_data(&header).ok()?.0.get((address - header.sh_addr) as usize..)?;
    str::from_utf8(bytes.split(|&byte| byte == 0).next()?).ok()
}
