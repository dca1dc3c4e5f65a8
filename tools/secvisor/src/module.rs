//! Reads a kernel module's object file: its code, its symbols, and where a kernel will put them.

use std::collections::HashMap;

use elf::ElfBytes;
use elf::abi;
use elf::endian::AnyEndian;
use elf::section::SectionHeader;
use policy::approval::Architecture;

use crate::Error;
use crate::kernel::{self, broken};
use crate::layout::{Loader, Place};

/// Relocations that only live patching applies.
const LIVEPATCH: u64 = 0x10_0000;
/// Symbols that only live patching resolves.
const LIVEPATCH_SYMBOL: u16 = 0xFF20;

/// A kernel module.
#[derive(Debug)]
pub struct Module<'a> {
    /// What it is made for.
    pub architecture: Architecture,
    /// Its name, as the kernel will know it.
    pub name: &'a str,
    /// The kernel it was built for, in the kernel's own words.
    pub vermagic: &'a str,
    /// Whether it carries checksums of the interfaces that it uses.
    pub has_versions: bool,
    /// The modules that it says it needs, by file name.
    pub depends: Vec<&'a str>,
    /// All sections of the file.
    pub sections: Vec<Section<'a>>,
    /// All symbols of the file.
    pub symbols: Vec<Symbol<'a>>,
    /// What it exports: names and definitions.
    pub exports: Vec<(&'a str, Home)>,
    elf: ElfBytes<'a, AnyEndian>,
}

/// A section of the file.
#[derive(Debug)]
pub struct Section<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its header.
    pub header: SectionHeader,
    /// Where the kernel puts it; `None` before the layout, and if the kernel does not keep it.
    pub place: Option<Place>,
    /// Its bytes; empty for all but code, and before the layout.
    pub code: &'a [u8],
    /// Its relocations, by offset; empty for all but code, and before the layout.
    pub relocations: Vec<Relocation>,
}

/// A relocation as the file has it.
#[derive(Clone, Copy, Debug)]
pub struct Relocation {
    /// Where the field starts in its section.
    pub offset: u64,
    /// The architecture's number for what is to be done.
    pub kind: u32,
    /// Which symbol.
    pub symbol: usize,
    /// What is added; `None` if the field itself holds it.
    pub addend: Option<i64>,
}

/// A symbol of the file.
#[derive(Clone, Copy, Debug)]
pub struct Symbol<'a> {
    /// Its name.
    pub name: &'a str,
    /// Where it is defined.
    pub home: Home,
    /// Whether other files may see it.
    pub global: bool,
    /// Whether it may stay undefined.
    pub weak: bool,
}

/// Where a symbol is defined.
#[derive(Clone, Copy, Debug)]
pub enum Home {
    /// In another file.
    Elsewhere,
    /// Nowhere: it is a number.
    Absolute(u64),
    /// In a section, at an offset.
    Section(usize, u64),
    /// In a way that the kernel refuses or that only exists in the file.
    Unusable(&'static str),
}

impl<'a> Module<'a> {
    /// Reads an object file.
    pub fn read(file: &'a [u8]) -> Result<Self, Error> {
        let elf = ElfBytes::<AnyEndian>::minimal_parse(file).map_err(broken)?;
        let architecture = kernel::architecture(elf.ehdr.e_machine)?;
        if elf.ehdr.e_type != abi::ET_REL {
            let kind = elf.ehdr.e_type;
            return Err(format!("ELF of type {kind} is no kernel module (relocatable, type 1)"));
        }
        let sections = sections(&elf)?;
        let info = modinfo(&elf, &sections)?;
        let vermagic = value(&info, "vermagic").ok_or("no vermagic, so no kernel would load it")?;
        let name = name(&elf, &sections, architecture)?;
        if let Some(other) = value(&info, "name").filter(|other| *other != name) {
            return Err(format!(
                "its struct module has the name {name}, its .modinfo {other}: was it built for a \
                 kernel that randomizes the layout of structures?"
            ));
        }
        let symbols = symbols(&elf, sections.len())?;
        Ok(Self {
            architecture,
            name,
            vermagic,
            has_versions: sections.iter().any(|section| section.name == "__versions"),
            depends: value(&info, "depends")
                .map_or(vec![], |names| names.split(',').filter(|name| !name.is_empty()).collect()),
            exports: exports(&symbols),
            sections,
            symbols,
            elf,
        })
    }

    /// Lays it out as `loader` does, and reads its code.
    pub fn lay_out(&mut self, loader: Loader) -> Result<(), Error> {
        // With this word in its vermagic, the kernel keeps the code for unloading.
        let unload = self.vermagic.split(' ').any(|word| word == "mod_unload");
        loader.lay_out(&mut self.sections, unload)?;
        read_code(&self.elf, &mut self.sections)
    }

    /// Whether it has code that stays when it has started.
    pub fn has_core_code(&self) -> bool {
        let in_core = |section: &Section<'_>| section.place.is_some_and(|place| !place.init);
        self.sections.iter().any(|section| !section.code.is_empty() && in_core(section))
    }
}

impl Section<'_> {
    /// Whether the file marks it with all of `flags`.
    pub fn has(&self, flags: u32) -> bool {
        self.header.sh_flags & u64::from(flags) == u64::from(flags)
    }
}

fn sections<'a>(elf: &ElfBytes<'a, AnyEndian>) -> Result<Vec<Section<'a>>, Error> {
    let (Some(headers), Some(names)) = elf.section_headers_with_strtab().map_err(broken)? else {
        return Err("no section table: no kernel module".into());
    };
    let mut sections = Vec::new();
    for header in headers {
        let name = names.get(header.sh_name as usize).map_err(broken)?;
        sections.push(Section { name, header, place: None, code: &[], relocations: Vec::new() });
    }
    Ok(sections)
}

/// The bytes of the first section of this name that the kernel sees.
fn named<'a>(
    elf: &ElfBytes<'a, AnyEndian>,
    sections: &[Section<'a>],
    name: &str,
) -> Result<&'a [u8], Error> {
    let section = sections.iter().find(|s| s.name == name && s.has(abi::SHF_ALLOC));
    let section = section.ok_or(format!("no section {name}: no kernel module"))?;
    Ok(elf.section_data(&section.header).map_err(broken)?.0)
}

/// The strings `tag=value` that describe the module.
fn modinfo<'a>(
    elf: &ElfBytes<'a, AnyEndian>,
    sections: &[Section<'a>],
) -> Result<Vec<(&'a str, &'a str)>, Error> {
    let strings = named(elf, sections, ".modinfo")?.split(|&byte| byte == 0);
    let pair = |string: &'a [u8]| str::from_utf8(string).ok()?.split_once('=');
    Ok(strings.filter_map(pair).collect())
}

fn value<'a>(info: &[(&str, &'a str)], tag: &str) -> Option<&'a str> {
    info.iter().find(|(found, _)| *found == tag).map(|&(_, value)| value)
}

/// The name in `struct module`, after its state and two list pointers.
fn name<'a>(
    elf: &ElfBytes<'a, AnyEndian>,
    sections: &[Section<'a>],
    architecture: Architecture,
) -> Result<&'a str, Error> {
    let place = match architecture {
        Architecture::X86_64 => 24..24 + 56,
        Architecture::I386 => 12..12 + 60,
    };
    let module = named(elf, sections, ".gnu.linkonce.this_module")?;
    let name = module.get(place).and_then(|name| name.split(|&byte| byte == 0).next());
    let name = name.and_then(|name| str::from_utf8(name).ok()).filter(|name| !name.is_empty());
    name.ok_or("no name in its struct module: was it built for this kind of kernel?".into())
}

fn symbols<'a>(elf: &ElfBytes<'a, AnyEndian>, sections: usize) -> Result<Vec<Symbol<'a>>, Error> {
    let (table, names) = elf
        .symbol_table()
        .map_err(broken)?
        .ok_or("no symbol table: it is stripped, and no kernel would load it")?;
    let mut symbols = Vec::new();
    for symbol in table {
        let name = names.get(symbol.st_name as usize).map_err(broken)?;
        let home = match symbol.st_shndx {
            abi::SHN_UNDEF => Home::Elsewhere,
            abi::SHN_ABS => Home::Absolute(symbol.st_value),
            abi::SHN_COMMON => Home::Unusable("is a common one (build with -fno-common)"),
            LIVEPATCH_SYMBOL => Home::Unusable("is left to live patching"),
            section if usize::from(section) < sections => {
                Home::Section(section.into(), symbol.st_value)
            }
            _ => Home::Unusable("is in a section that the file does not have"),
        };
        let (global, weak) = match symbol.st_bind() {
            abi::STB_GLOBAL => (true, false),
            abi::STB_WEAK => (true, true),
            _ => (false, false),
        };
        symbols.push(Symbol { name, home, global, weak });
    }
    Ok(symbols)
}

/// The symbols that an entry of the export tables names.
fn exports<'a>(symbols: &[Symbol<'a>]) -> Vec<(&'a str, Home)> {
    let defined = |symbol: &&Symbol<'_>| !matches!(symbol.home, Home::Elsewhere);
    let homes: HashMap<_, _> = symbols
        .iter()
        .filter(|symbol| symbol.global)
        .filter(defined)
        .map(|symbol| (symbol.name, symbol.home))
        .collect();
    let entries = symbols.iter().filter(defined);
    let names = entries.filter_map(|symbol| symbol.name.strip_prefix("__ksymtab_"));
    names.filter_map(|name| Some((name, *homes.get(name)?))).collect()
}

/// Fills in the bytes and relocations of the code.
fn read_code<'a>(elf: &ElfBytes<'a, AnyEndian>, sections: &mut [Section<'a>]) -> Result<(), Error> {
    let is_code = |section: &Section<'_>| {
        section.place.is_some() && section.has(abi::SHF_EXECINSTR) && section.header.sh_size > 0
    };
    for section in sections.iter_mut().filter(|section| is_code(section)) {
        if section.header.sh_type == abi::SHT_NOBITS {
            return Err(format!("section {} is code without bytes in the file", section.name));
        }
        section.code = elf.section_data(&section.header).map_err(broken)?.0;
    }
    for index in 0..sections.len() {
        let header = sections[index].header;
        if ![abi::SHT_REL, abi::SHT_RELA].contains(&header.sh_type) {
            continue;
        }
        let Some(code) = sections.get_mut(header.sh_info as usize).filter(|code| is_code(code))
        else {
            continue;
        };
        if header.sh_flags & LIVEPATCH != 0 {
            return Err(format!("section {} is for live patching", code.name));
        }
        if header.sh_type == abi::SHT_RELA {
            let found = elf.section_data_as_relas(&header).map_err(broken)?;
            code.relocations.extend(found.map(|rela| Relocation {
                offset: rela.r_offset,
                kind: rela.r_type,
                symbol: rela.r_sym as usize,
                addend: Some(rela.r_addend),
            }));
        } else {
            let found = elf.section_data_as_rels(&header).map_err(broken)?;
            code.relocations.extend(found.map(|rel| Relocation {
                offset: rel.r_offset,
                kind: rel.r_type,
                symbol: rel.r_sym as usize,
                addend: None,
            }));
        }
    }
    sections.iter_mut().for_each(|code| code.relocations.sort_by_key(|site| site.offset));
    Ok(())
}
