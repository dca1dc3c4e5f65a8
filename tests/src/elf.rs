//! Executable parts of an ELF file, as they must lie in a guest's memory.

use std::ops::Range;
use std::path::Path;

use elf::ElfBytes;
use elf::abi::{PF_X, PT_LOAD, SHN_UNDEF};
use elf::endian::LittleEndian;

use crate::Result;

/// Bytes that must stand at a physical address.
pub struct Part {
    /// Where it lies in the file.
    pub offset: u64,
    /// Where it lies in physical memory.
    pub physical: u64,
    /// The addresses that it is linked for.
    pub addresses: Range<u64>,
    /// What it holds.
    pub bytes: Vec<u8>,
}

/// The section `name` of the ELF file, at the physical address where its segment is loaded.
pub fn section(file: &Path, name: &str) -> Result<Part> {
    let data = std::fs::read(file)?;
    let elf = ElfBytes::<LittleEndian>::minimal_parse(&data)?;
    let header = elf
        .section_header_by_name(name)?
        .ok_or_else(|| format!("{} has no section {name}", file.display()))?;
    let physical = elf
        .segments()
        .into_iter()
        .flatten()
        .filter(|segment| segment.p_type == PT_LOAD)
        .find_map(|segment| {
            let offset = header.sh_addr.checked_sub(segment.p_vaddr)?;
            (offset < segment.p_memsz).then_some(segment.p_paddr + offset)
        })
        .ok_or_else(|| format!("no segment of {} loads {name}", file.display()))?;
    let addresses = header.sh_addr..header.sh_addr + header.sh_size;
    let bytes = elf.section_data(&header)?.0.to_vec();
    Ok(Part { offset: header.sh_offset, physical, addresses, bytes })
}

/// How symbols of Rust functions contain the end of a path, such as `fast::events`.
pub fn mangled(path: &str) -> String {
    path.split("::").map(|part| format!("{}{part}", part.len())).collect::<String>() + "17h"
}

/// The addresses of a symbol. A Rust function is named by the end of its path.
pub fn symbol(file: &Path, name: &str) -> Result<Range<u64>> {
    let data = std::fs::read(file)?;
    let elf = ElfBytes::<LittleEndian>::minimal_parse(&data)?;
    let (table, strings) = elf.symbol_table()?.ok_or("no symbol table")?;
    let end = mangled(name);
    let found = table.iter().find(|symbol| {
        let is = |other: &str| other == name || name.contains("::") && other.contains(&end);
        symbol.st_shndx != SHN_UNDEF && strings.get(symbol.st_name as usize).is_ok_and(is)
    });
    let found = found.ok_or_else(|| format!("{} has no symbol {name}", file.display()))?;
    Ok(found.st_value..found.st_value + found.st_size)
}

/// Bytes of the hypervisor's executable segments, without what is unmapped when the guest starts.
pub fn resident_bytes(file: &Path) -> Result<u64> {
    let data = std::fs::read(file)?;
    let elf = ElfBytes::<LittleEndian>::minimal_parse(&data)?;
    let launch = section(file, ".launch")?.addresses;
    let segments = elf.segments().into_iter().flatten();
    let executable = segments.filter(|it| it.p_type == PT_LOAD && it.p_flags & PF_X != 0);
    Ok(executable.filter(|it| it.p_vaddr != launch.start).map(|it| it.p_memsz).sum())
}
