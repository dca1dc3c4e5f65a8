//! What a kernel offers its modules.

use std::collections::{HashMap, HashSet};

use elf::ElfBytes;
use elf::abi;
use elf::endian::AnyEndian;
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
}

impl<'a> Exports<'a> {
    /// Reads a kernel's ELF.
    pub fn read(file: &'a [u8]) -> Result<Self, Error> {
        let elf = ElfBytes::<AnyEndian>::minimal_parse(file).map_err(broken)?;
        let Some((table, names)) = elf.symbol_table().map_err(broken)? else {
            return Ok(Self { addresses: tables(&elf)?, vermagic: None });
        };
        let (mut addresses, mut exported, mut vermagic) = (HashMap::new(), HashSet::new(), None);
        for symbol in table.iter().filter(|symbol| symbol.st_shndx != abi::SHN_UNDEF) {
            let name = names.get(symbol.st_name as usize).map_err(broken)?;
            if let Some(name) = name.strip_prefix("__ksymtab_") {
                exported.insert(name);
            } else if name == "vermagic" {
                vermagic = string(&elf, symbol.st_value);
            } else if symbol.st_bind() != abi::STB_LOCAL {
                addresses.insert(name, symbol.st_value);
            }
        }
        // A kernel that was stripped of these names exports some of its global symbols.
        if !exported.is_empty() {
            addresses.retain(|name, _| exported.contains(name));
        }
        Ok(Self { addresses, vermagic })
    }
}

/// What a kernel without symbols says itself, as one in a bzImage: each entry is three words,
/// relative to themselves, of address, name and namespace.
fn tables<'a>(elf: &ElfBytes<'a, AnyEndian>) -> Result<HashMap<&'a str, u64>, Error> {
    let mut addresses = HashMap::new();
    for name in ["__ksymtab", "__ksymtab_gpl"] {
        let found = elf.section_header_by_name(name).map_err(broken)?;
        let Some(header) = found.filter(|_| elf.ehdr.e_machine == abi::EM_X86_64) else { continue };
        let entries = elf.section_data(&header).map_err(broken)?.0.as_chunks::<12>().0;
        for (entry, at) in entries.iter().zip((header.sh_addr..).step_by(12)) {
            let [address, name, _] = std::array::from_fn(|word| {
                let field = entry.as_chunks().0.get(word).copied().unwrap_or_default();
                let at = at.wrapping_add(4 * word as u64);
                at.wrapping_add_signed(i32::from_le_bytes(field).into())
            });
            addresses.extend(string(elf, name).map(|name| (name, address)));
        }
    }
    if addresses.is_empty() {
        return Err(
            "the kernel has neither symbols nor tables of exports, which modules need: give \
                    the vmlinux as the build made it"
                .into(),
        );
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
