//! Small kernel modules for the tests.

use crate::elf::Writer;

pub const WRITE: u64 = 1;
pub const ALLOC: u64 = 2;
pub const CODE: u64 = 4 | ALLOC;
pub const DATA: u64 = WRITE | ALLOC;
/// What the tests' kernels and modules are built for.
pub const VERMAGIC: &str = "6.1.0 mod_unload ";

/// A section, with its relocations: offset, type, symbol, addend. The file has no bytes for those
/// with `bss` in their names.
#[derive(Clone, Debug)]
pub struct Section {
    pub name: String,
    pub flags: u64,
    pub alignment: u64,
    pub bytes: Vec<u8>,
    pub relocations: Vec<(u64, u32, &'static str, i64)>,
}

pub fn section(name: &str, flags: u64, alignment: u64, bytes: Vec<u8>) -> Section {
    Section { name: name.into(), flags, alignment, bytes, relocations: Vec::new() }
}

/// Where a symbol is defined.
#[derive(Clone, Debug)]
pub enum Home {
    /// A section's name and an offset.
    In(String, u64),
    /// A section's number and a value.
    Number(u16, u64),
}

/// A module. Symbols that relocations name and that are not defined become undefined ones.
#[derive(Clone, Debug)]
pub struct Object {
    pub long: bool,
    /// Relocations of the other architecture's kind.
    pub foreign_relocations: bool,
    pub name: &'static str,
    pub info: Vec<(&'static str, &'static str)>,
    pub sections: Vec<Section>,
    pub symbols: Vec<Symbol>,
}

impl Object {
    pub fn new(name: &'static str, sections: Vec<Section>) -> Self {
        let info = vec![("vermagic", VERMAGIC), ("name", name)];
        let symbols = Vec::new();
        Self { long: true, foreign_relocations: false, name, info, sections, symbols }
    }

    /// A module with one function, whose relocations these are.
    pub fn code(name: &'static str, relocations: &[(u64, u32, &'static str, i64)]) -> Self {
        let mut text = section(".text", CODE, 16, vec![0; 0x40]);
        text.relocations = relocations.to_vec();
        Self::new(name, vec![text])
    }

    /// Defines a global symbol.
    pub fn define(mut self, name: &'static str, section: &str, value: u64) -> Self {
        self.symbols.push((name, 1, Home::In(section.into(), value)));
        self
    }

    /// Defines and exports a symbol; `entry` is its name with the prefix of export entries.
    pub fn export(mut self, entry: &'static str, section: &str, value: u64) -> Self {
        if !self.sections.iter().any(|section| section.name == "__ksymtab") {
            self.sections.push(self::section("__ksymtab", ALLOC, 4, vec![0; 24]));
        }
        self.symbols.push((entry, 0, Home::In("__ksymtab".into(), 0)));
        self.define(entry.strip_prefix("__ksymtab_").unwrap(), section, value)
    }

    /// The file.
    pub fn build(&self) -> Vec<u8> {
        let (header, section_header) = if self.long { (64, 64) } else { (52, 40) };
        let parts = self.parts();
        let mut out = Writer { long: self.long, bytes: vec![0; header] };
        let mut table = Writer { long: self.long, bytes: Vec::new() };
        let mut name = 0;
        for part in &parts {
            let section = &part.section;
            out.bytes.resize(out.bytes.len().next_multiple_of(8), 0);
            table.word(name);
            table.word(part.kind);
            let size = section.bytes.len() as u64;
            [section.flags, 0, out.bytes.len() as u64, size]
                .into_iter()
                .for_each(|field| table.native(field));
            [part.link, part.info].into_iter().for_each(|field| table.word(field));
            [section.alignment, part.entry_size(self.long)]
                .into_iter()
                .for_each(|field| table.native(field));
            name += section.name.len() as u32 + 1;
            if part.kind != NOBITS {
                out.bytes.extend(&section.bytes);
            }
        }
        let mut start = Writer { long: self.long, bytes: b"\x7fELF".to_vec() };
        start.bytes.extend([if self.long { 2 } else { 1 }, 1, 1]);
        start.bytes.resize(16, 0);
        start.half(1);
        start.half(if self.long { 62 } else { 3 });
        start.word(1);
        [0, 0, out.bytes.len() as u64].into_iter().for_each(|field| start.native(field));
        start.word(0);
        let count = parts.len() as u16;
        [header as u16, 0, 0, section_header as u16, count, count - 1]
            .into_iter()
            .for_each(|field| start.half(field));
        out.bytes[..header].copy_from_slice(&start.bytes);
        out.bytes.extend(&table.bytes);
        out.bytes
    }

    /// All sections of the file.
    fn parts(&self) -> Vec<Part> {
        let mut sections = vec![section("", 0, 0, vec![])];
        sections.extend(self.sections.iter().cloned());
        let info: String =
            self.info.iter().map(|(tag, value)| format!("{tag}={value}\0")).collect();
        sections.push(section(".modinfo", ALLOC, 1, info.into()));
        let (at, size) = if self.long { (24, 0x2c0) } else { (12, 0x180) };
        let mut module = vec![0; size];
        module[at..at + self.name.len()].copy_from_slice(self.name.as_bytes());
        sections.push(section(".gnu.linkonce.this_module", DATA, 64, module));

        let mut symbols = self.symbols.clone();
        for &(_, _, name, _) in sections.iter().flat_map(|section| &section.relocations) {
            if !name.is_empty() && !symbols.iter().any(|(found, ..)| *found == name) {
                let binding = if name.starts_with("weak_") { 2 } else { 1 };
                symbols.push((name, binding, Home::Number(0, 0)));
            }
        }
        let (symtab, strtab) = self.symbol_table(&sections, &symbols);
        let tables = sections.len() as u32;
        let kind_of = |(index, section): (usize, &Section)| match index {
            0 => 0,
            _ if section.name.contains("bss") => NOBITS,
            _ => PROGBITS,
        };
        let kinds: Vec<_> = sections.iter().enumerate().map(kind_of).collect();
        let mut parts: Vec<_> = sections
            .iter()
            .zip(kinds)
            .map(|(section, kind)| Part { section: section.clone(), kind, link: 0, info: 0 })
            .collect();
        let symtab = section(".symtab", 0, 8, symtab);
        // As in real files, what this counts is larger than the number of sections.
        parts.push(Part { section: symtab, kind: SYMTAB, link: tables + 1, info: 9999 });
        let strtab = section(".strtab", 0, 1, strtab);
        parts.push(Part { section: strtab, kind: STRTAB, link: 0, info: 0 });
        let rela = self.long != self.foreign_relocations;
        for (index, target) in sections.iter().enumerate() {
            let mut entries = Writer { long: self.long, bytes: Vec::new() };
            for &(offset, kind, name, addend) in &target.relocations {
                let symbol = symbols.iter().position(|(found, ..)| *found == name);
                let symbol = symbol.map_or(0, |at| at as u64 + 1);
                let kind = u64::from(kind);
                entries.native(offset);
                entries.native(if self.long { symbol << 32 | kind } else { symbol << 8 | kind });
                if rela {
                    entries.native(addend as u64);
                }
            }
            if !entries.bytes.is_empty() {
                let section = section(&format!(".rel{}", target.name), 0, 8, entries.bytes);
                let kind = if rela { RELA } else { REL };
                parts.push(Part { section, kind, link: tables, info: index as u32 });
            }
        }
        let names = parts.iter().map(|part| &*part.section.name).chain([".shstrtab"]);
        let names: String = names.map(|name| format!("{name}\0")).collect();
        let section = section(".shstrtab", 0, 1, names.into());
        parts.push(Part { section, kind: STRTAB, link: 0, info: 0 });
        parts
    }

    fn symbol_table(&self, sections: &[Section], symbols: &[Symbol]) -> (Vec<u8>, Vec<u8>) {
        let mut names = vec![0];
        let mut table = Writer { long: self.long, bytes: vec![0; if self.long { 24 } else { 16 }] };
        for (name, binding, home) in symbols {
            let (number, value) = match home {
                Home::Number(number, value) => (*number, *value),
                Home::In(name, value) => {
                    let number = sections.iter().position(|section| section.name == *name);
                    (number.unwrap() as u16, *value)
                }
            };
            table.word(names.len() as u32);
            if self.long {
                table.half(u16::from(binding << 4));
                table.half(number);
                [value, 0].into_iter().for_each(|field| table.native(field));
            } else {
                [value, 0].into_iter().for_each(|field| table.native(field));
                table.half(u16::from(binding << 4));
                table.half(number);
            }
            names.extend(name.as_bytes());
            names.push(0);
        }
        (table.bytes, names)
    }
}

const PROGBITS: u32 = 1;
const SYMTAB: u32 = 2;
const STRTAB: u32 = 3;
const RELA: u32 = 4;
const NOBITS: u32 = 8;
const REL: u32 = 9;

/// Name, binding (0 local, 1 global, 2 weak), home.
type Symbol = (&'static str, u8, Home);

/// A section as the file has it.
struct Part {
    section: Section,
    kind: u32,
    link: u32,
    info: u32,
}

impl Part {
    fn entry_size(&self, long: bool) -> u64 {
        match (self.kind, long) {
            (SYMTAB | RELA, true) => 24,
            (SYMTAB, false) | (REL, true) => 16,
            (RELA, false) => 12,
            (REL, false) => 8,
            _ => 0,
        }
    }
}
