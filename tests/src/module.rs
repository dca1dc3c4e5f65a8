//! What a loaded kernel module's text must be, computed from its file and from where it lies: with
//! no help of the approval list or of the tool that makes it.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use elf::ElfBytes;
use elf::abi::{
    R_X86_64_32, R_X86_64_32S, R_X86_64_64, R_X86_64_PC32, R_X86_64_PLT32, SHF_ALLOC,
    SHF_EXECINSTR, SHN_UNDEF, SHT_REL, SHT_RELA, STB_WEAK,
};
use elf::endian::LittleEndian;
use elf::section::SectionHeader;

use crate::Result;
use crate::record::number;

const R_386_32: u32 = 1;
const R_386_PC32: u32 = 2;
const R_386_PLT32: u32 = 4;

/// Addresses of a module's sections by their names.
pub type Places = BTreeMap<String, u64>;

/// A section with code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// Its name.
    pub name: String,
    /// Its bytes; as the file has them, or as they must lie in memory.
    pub bytes: Vec<u8>,
    /// Where its bytes begin in the file.
    pub file_offset: u64,
    /// Its relocations: offset in the section, and where the file has their addend.
    pub relocations: Vec<(u64, u64)>,
}

/// How a relocated field is filled.
#[derive(Clone, Copy)]
enum Field {
    Absolute(usize),
    Relative,
}

struct Relocation {
    offset: u64,
    field: Field,
    symbol: usize,
    addend: i64,
    addend_at: u64,
}

struct Symbol {
    name: String,
    section: Option<usize>,
    value: u64,
    weak: bool,
}

/// A module's file.
pub struct Module {
    /// The kernel's name of it.
    pub name: String,
    sections: Vec<Section>,
    symbols: Vec<Symbol>,
}

struct Section {
    name: String,
    flags: u32,
    offset: u64,
    size: u64,
    align: u64,
    bytes: Vec<u8>,
    relocations: Vec<Relocation>,
}

impl Module {
    /// Reads a file.
    pub fn read(file: &Path) -> Result<Self> {
        let data = std::fs::read(file)?;
        let stem = file.file_stem().ok_or("no name")?.to_string_lossy().replace('-', "_");
        Self::parse(&stem, &data).map_err(|error| format!("{}: {error}", file.display()).into())
    }

    fn parse(name: &str, data: &[u8]) -> Result<Self> {
        let elf = ElfBytes::<LittleEndian>::minimal_parse(data)?;
        let (headers, names) = elf.section_headers_with_strtab()?;
        let (headers, names) = (headers.ok_or("no sections")?, names.ok_or("no names")?);
        let mut sections = Vec::new();
        for header in headers.iter() {
            let has_bytes = header.sh_flags & u64::from(SHF_EXECINSTR) != 0;
            let bytes = if has_bytes { elf.section_data(&header)?.0.to_vec() } else { Vec::new() };
            let name = names.get(header.sh_name as usize)?.to_owned();
            sections.push(Section {
                name,
                flags: u32::try_from(header.sh_flags)?,
                offset: header.sh_offset,
                size: header.sh_size,
                align: header.sh_addralign.max(1),
                bytes,
                relocations: Vec::new(),
            });
        }
        for header in headers.iter() {
            let Some(target) = sections.get_mut(header.sh_info as usize) else { continue };
            let relocations = match header.sh_type {
                SHT_RELA => with_addends(&elf, &header)?,
                SHT_REL if !target.bytes.is_empty() => in_place(&elf, &header, target)?,
                _ => continue,
            };
            target.relocations.extend(relocations);
        }
        let (table, strings) = elf.symbol_table()?.ok_or("no symbols")?;
        let mut symbols = Vec::new();
        for symbol in table.iter() {
            symbols.push(Symbol {
                name: strings.get(symbol.st_name as usize)?.to_owned(),
                section: (symbol.st_shndx != SHN_UNDEF).then_some(symbol.st_shndx as usize),
                value: symbol.st_value,
                weak: symbol.st_bind() == STB_WEAK,
            });
        }
        Ok(Self { name: name.to_owned(), sections, symbols })
    }

    /// The sections with code: those that stay, or those that go when the module has begun.
    pub fn texts(&self, init: bool) -> Vec<Text> {
        let wanted = |section: &&Section| {
            let code = section.flags & SHF_ALLOC != 0 && section.flags & SHF_EXECINSTR != 0;
            code && !section.bytes.is_empty() && section.name.starts_with(".init") == init
        };
        let relocations = |section: &Section| {
            section.relocations.iter().map(|site| (site.offset, site.addend_at)).collect()
        };
        let texts = self.sections.iter().filter(wanted).map(|section| Text {
            name: section.name.clone(),
            bytes: section.bytes.clone(),
            file_offset: section.offset,
            relocations: relocations(section),
        });
        texts.collect()
    }

    /// What the module exports, with its address.
    pub fn exports(&self, places: &Places) -> Vec<(String, u64)> {
        let exported = |name: &str| {
            self.symbols.iter().find(|symbol| symbol.name == name).and_then(|symbol| {
                let section = &self.sections.get(symbol.section?)?.name;
                Some((name.to_owned(), places.get(section)? + symbol.value))
            })
        };
        let names = self.symbols.iter().filter_map(|s| s.name.strip_prefix("__ksymtab_"));
        names.filter_map(exported).collect()
    }

    fn value(&self, index: usize, places: &Places, known: &HashMap<String, u64>) -> Result<u64> {
        let symbol = self.symbols.get(index).ok_or("no such symbol")?;
        let Some(section) = symbol.section else {
            return match known.get(&symbol.name) {
                Some(address) => Ok(*address),
                None if symbol.weak => Ok(0),
                None => Err(format!("{}: nobody exports {}", self.name, symbol.name).into()),
            };
        };
        let base = self.place(section, places).ok_or_else(|| {
            format!("{}: the kernel tells no place of {}'s section", self.name, symbol.name)
        })?;
        Ok(base + symbol.value)
    }

    /// Where a section begins. The kernel tells nothing of empty ones: they follow the one before
    /// them in the file that has the same use.
    fn place(&self, index: usize, places: &Places) -> Option<u64> {
        let section = self.sections.get(index)?;
        if let Some(place) = places.get(&section.name) {
            return Some(*place);
        }
        let same = |other: &&Section| other.flags == section.flags && other.size > 0;
        let before = self.sections.get(..index)?.iter().rev().find(same)?;
        Some((places.get(&before.name)? + before.size).next_multiple_of(section.align))
    }

    /// The texts that stay as they must lie in memory, each with its address.
    pub fn loaded(
        &self,
        places: &Places,
        known: &HashMap<String, u64>,
    ) -> Result<Vec<(u64, Text)>> {
        let mut loaded = Vec::new();
        for mut text in self.texts(false) {
            let base = *places.get(&text.name).ok_or_else(|| {
                format!("{}: the kernel tells no place of {}", self.name, text.name)
            })?;
            let section = self.sections.iter().find(|section| section.name == text.name);
            for site in section.map_or(&[][..], |section| &section.relocations) {
                let value =
                    self.value(site.symbol, places, known)?.wrapping_add_signed(site.addend);
                let here = base + site.offset;
                let (value, size) = match site.field {
                    Field::Absolute(size) => (value, size),
                    Field::Relative => (value.wrapping_sub(here), 4),
                };
                let at = usize::try_from(site.offset)?;
                let field = text.bytes.get_mut(at..at + size).ok_or("a relocation outside")?;
                field.copy_from_slice(&value.to_le_bytes()[..size]);
            }
            loaded.push((base, text));
        }
        Ok(loaded)
    }
}

/// Relocations of x86_64, whose records hold their addends.
fn with_addends(
    elf: &ElfBytes<'_, LittleEndian>,
    header: &SectionHeader,
) -> Result<Vec<Relocation>> {
    let relocation = |(n, rela): (usize, elf::relocation::Rela)| {
        let field = match rela.r_type {
            R_X86_64_64 => Field::Absolute(8),
            R_X86_64_32 | R_X86_64_32S => Field::Absolute(4),
            R_X86_64_PC32 | R_X86_64_PLT32 => Field::Relative,
            kind => return Err(format!("relocation type {kind}").into()),
        };
        Ok(Relocation {
            offset: rela.r_offset,
            field,
            symbol: rela.r_sym as usize,
            addend: rela.r_addend,
            addend_at: header.sh_offset + 24 * n as u64 + 16,
        })
    };
    elf.section_data_as_relas(header)?.enumerate().map(relocation).collect()
}

/// Relocations of i386, whose addends are what the fields of the file hold.
fn in_place(
    elf: &ElfBytes<'_, LittleEndian>,
    header: &SectionHeader,
    target: &Section,
) -> Result<Vec<Relocation>> {
    let relocation = |rel: elf::relocation::Rel| {
        let field = match rel.r_type {
            R_386_32 => Field::Absolute(4),
            R_386_PC32 | R_386_PLT32 => Field::Relative,
            kind => return Err(format!("relocation type {kind}").into()),
        };
        let at = usize::try_from(rel.r_offset)?;
        let bytes = target.bytes.get(at..).and_then(|bytes| bytes.first_chunk());
        Ok(Relocation {
            offset: rel.r_offset,
            field,
            symbol: rel.r_sym as usize,
            addend: i32::from_le_bytes(*bytes.ok_or("a relocation outside")?).into(),
            addend_at: target.offset + rel.r_offset,
        })
    };
    elf.section_data_as_rels(header)?.map(relocation).collect()
}

/// What `modules sections` told: the places of every loaded module's sections.
pub fn places(console: &str) -> BTreeMap<String, Places> {
    let mut all: BTreeMap<String, Places> = BTreeMap::new();
    for line in console.lines() {
        let Some((module, rest)) = line.trim().split_once("/sections/") else { continue };
        let Some((section, address)) = rest.rsplit_once(':') else { continue };
        if let Some(address) = number(address) {
            all.entry(module.to_owned()).or_default().insert(section.to_owned(), address);
        }
    }
    all
}
