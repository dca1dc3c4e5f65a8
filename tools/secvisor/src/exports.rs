//! What a kernel offers its modules.

use std::collections::{HashMap, HashSet};

use elf::ElfBytes;
use elf::abi;
use elf::endian::AnyEndian;

use crate::Error;

/// The symbols that modules may use, and what modules must be built for.
#[derive(Debug)]
pub struct Exports<'a> {
    /// Address of every exported symbol.
    pub addresses: HashMap<&'a str, u64>,
    /// What a module's vermagic must be; `None` if the kernel's symbols do not say where it is.
    pub vermagic: Option<&'a str>,
}

impl<'a> Exports<'a> {
    /// Reads a kernel's ELF.
    pub fn read(file: &'a [u8]) -> Result<Self, Error> {
        let elf = ElfBytes::<AnyEndian>::minimal_parse(file).map_err(broken)?;
        let (table, names) = elf.symbol_table().map_err(broken)?.ok_or(
            "the kernel has no symbol table, which modules need: give the vmlinux as the build \
             made it",
        )?;
        let (mut addresses, mut exported, mut vermagic) = (HashMap::new(), HashSet::new(), None);
        for symbol in table.iter().filter(|symbol| symbol.st_shndx != abi::SHN_UNDEF) {
            let name = names.get(symbol.st_name as usize).map_err(broken)?;
            if let Some(name) = name.strip_prefix("__ksymtab_") {
                exported.insert(name);
            } else if name == "vermagic" {
                vermagic = string(file, &elf, symbol.st_shndx, symbol.st_value);
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

/// The string at `address` in a section.
fn string<'a>(
    file: &'a [u8],
    elf: &ElfBytes<'a, AnyEndian>,
    section: u16,
    address: u64,
) -> Option<&'a str> {
    let header = elf.section_headers()?.get(section.into()).ok()?;
    let start = header.sh_offset.checked_add(address.checked_sub(header.sh_addr)?)?;
    let bytes = file.get(usize::try_from(start).ok()?..)?.split(|&byte| byte == 0).next()?;
    str::from_utf8(bytes).ok()
}

fn broken(error: elf::ParseError) -> Error {
    format!("no sound ELF: {error}")
}
