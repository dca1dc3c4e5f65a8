//! Executable parts of an ELF file, as they must lie in a guest's memory.

use std::path::Path;

use elf::ElfBytes;
use elf::abi::{PF_X, PT_LOAD};
use elf::endian::LittleEndian;

use crate::Result;

/// Bytes that must stand at a physical address.
pub struct Part {
    /// Where it lies in physical memory.
    pub physical: u64,
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
    Ok(Part { physical, bytes: elf.section_data(&header)?.0.to_vec() })
}

/// Bytes of the file's executable segments.
pub fn executable_bytes(file: &Path) -> Result<u64> {
    let data = std::fs::read(file)?;
    let elf = ElfBytes::<LittleEndian>::minimal_parse(&data)?;
    let executable = |flags: u32| flags & PF_X != 0;
    let segments = elf.segments().into_iter().flatten();
    let loaded = segments.filter(|part| part.p_type == PT_LOAD && executable(part.p_flags));
    Ok(loaded.map(|part| part.p_memsz).sum())
}
