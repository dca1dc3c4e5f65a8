//! A kernel module's object file, laid out and relocated as Linux's module loader does it.

use super::{Place, kernel_symbol};
use crate::arch::object;
use crate::memory::{PAGE, copy, peek8, poke8};

/// A module's file.
#[derive(Clone, Copy)]
pub struct Object {
    /// Its name.
    pub name: &'static str,
    /// Its bytes.
    pub file: &'static [u8],
}

/// A row of the section table.
#[derive(Clone, Copy)]
struct Section {
    name: &'static str,
    kind: u64,
    flags: u64,
    offset: u64,
    size: u64,
    link: u64,
    info: u64,
    align: u64,
}

const WORD: u64 = size_of::<usize>() as u64;
const SYMBOLS: u64 = 2;
const WRITE: u64 = 1;
const ALLOCATED: u64 = 2;
const EXECUTABLE: u64 = 4;

/// A relocated field.
#[derive(Clone, Copy)]
pub struct Site {
    /// Its section's name.
    pub section: &'static str,
    /// Where it starts in its section.
    pub offset: u64,
    /// Where it starts in memory.
    pub address: u64,
    /// Its type.
    pub kind: u64,
}

impl Site {
    /// Its width in bytes.
    pub fn width(&self) -> u64 {
        object::width(self.kind)
    }
}

impl Object {
    fn number(&self, at: u64, bytes: usize) -> u64 {
        let bytes = self.file.iter().skip(at as usize).take(bytes);
        bytes.rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
    }

    fn string(&self, at: u64) -> &'static str {
        let tail = self.file.get(at as usize..).unwrap_or_default();
        let end = tail.iter().position(|&byte| byte == 0).unwrap_or(0);
        core::str::from_utf8(tail.get(..end).unwrap_or_default()).unwrap_or_default()
    }

    /// A word of the file: an address, an offset, a size.
    fn word(&self, at: u64) -> u64 {
        self.number(at, size_of::<usize>())
    }

    fn section(&self, index: u64) -> Section {
        let header = |index: u64| self.word(object::SECTIONS) + index * object::SECTION_BYTES;
        let (at, names) = (header(index), header(self.number(object::NAMES, 2)));
        // Name and type, then words but for the two numbers in the middle.
        let word = |index: u64| self.word(at + 8 + index * WORD);
        Section {
            name: self.string(self.word(names + 8 + 2 * WORD) + self.number(at, 4)),
            kind: self.number(at + 4, 4),
            flags: word(0),
            offset: word(2),
            size: word(3),
            link: self.number(at + 8 + 4 * WORD, 4),
            info: self.number(at + 12 + 4 * WORD, 4),
            align: self.word(at + 16 + 4 * WORD).max(1),
        }
    }

    fn sections(self) -> impl Iterator<Item = (u64, Section)> {
        (0..self.number(object::NAMES - 2, 2)).map(move |index| (index, self.section(index)))
    }

    /// Runs through what is kept in a region: `each` gets index, offset and section. Returns the
    /// ends of its code and of all of it.
    fn lay_out(&self, init: bool, mut each: impl FnMut(u64, u64, Section)) -> (u64, u64) {
        let (mut code, mut end) = (0, 0);
        let group = |section: &Section| match section.flags & (WRITE | EXECUTABLE) {
            EXECUTABLE => 0,
            0 => 1,
            _ => 2,
        };
        for wanted in 0..3 {
            for (index, section) in self.sections() {
                let kept = section.flags & ALLOCATED != 0 && section.name != ".modinfo";
                let in_init = section.name.starts_with(".init");
                if !kept || in_init != init || group(&section) != wanted {
                    continue;
                }
                let start = u64::next_multiple_of(end, section.align);
                each(index, start, section);
                end = start + section.size;
                code = if wanted == 0 && section.size > 0 { end } else { code };
            }
            end = if wanted < 2 { end.next_multiple_of(PAGE) } else { end };
        }
        (code, end)
    }

    /// Pages of a region: those of its code, and all of them.
    pub fn pages(&self, init: bool) -> (u64, u64) {
        let (code, all) = self.lay_out(init, |_, _, _| ());
        (code.div_ceil(PAGE), all.div_ceil(PAGE))
    }

    /// Where a region's code ends.
    pub fn code_end(&self, init: bool) -> u64 {
        self.lay_out(init, |_, _, _| ()).0
    }

    /// The address of the section with this index, once laid out.
    fn address(&self, wanted: u64, place: &Place) -> u64 {
        let mut address = 0;
        for init in [false, true] {
            let base = place.base(init);
            self.lay_out(init, |index, offset, _| {
                address = if index == wanted { base + offset } else { address };
            });
        }
        address
    }

    fn symbol_at(&self, table: &Section, index: u64, place: &Place) -> (&'static str, Option<u64>) {
        let at = table.offset + index * object::SYMBOL_BYTES;
        let names = self.section(table.link).offset;
        let section = self.number(at + object::SYMBOL_SECTION, 2);
        let address = match section {
            0 => None,
            _ => Some(
                self.address(section, place).wrapping_add(self.word(at + object::SYMBOL_VALUE)),
            ),
        };
        (self.string(names + self.number(at, 4)), address)
    }

    /// The address of a symbol that the module defines.
    pub fn symbol(&self, name: &str, place: &Place) -> Option<u64> {
        let table = self.sections().find(|(_, section)| section.kind == SYMBOLS)?.1;
        let symbols = (1..table.size / object::SYMBOL_BYTES)
            .map(|index| self.symbol_at(&table, index, place));
        symbols.filter(|symbol| symbol.0 == name).find_map(|symbol| symbol.1)
    }

    /// Copies the module to its place, without relocating it.
    pub fn copy(&self, place: &Place) {
        for init in [false, true] {
            self.lay_out(init, |_, offset, section| {
                let from = self.file.as_ptr() as u64 + section.offset;
                copy(from, place.base(init) + offset, section.size);
            });
        }
    }

    /// Runs through all relocated fields; `each` gets the field and the value that belongs there.
    pub fn relocations(
        &self,
        place: &Place,
        needed: Option<(&Object, &Place)>,
        mut each: impl FnMut(Site, u64),
    ) {
        let tables = self.sections().filter(|(_, section)| section.kind == object::RELOCATIONS);
        for (_, table) in tables {
            let symbols = self.section(table.link);
            let section = self.section(table.info);
            let start = self.address(table.info, place);
            let rows = table.offset..table.offset + table.size;
            for at in rows.step_by(object::RELOCATION_BYTES) {
                let (offset, info) = (self.word(at), self.word(at + WORD));
                let (symbol, kind) = object::relocation(info);
                let site = Site { section: section.name, offset, address: start + offset, kind };
                // The addend stands beside the field's place, or in the field.
                let addend = match object::RELOCATION_BYTES {
                    8 => self.number(section.offset + offset, 4),
                    _ => self.word(at + 2 * WORD),
                };
                let (name, own) = self.symbol_at(&symbols, symbol, place);
                let other = || needed.and_then(|(object, place)| object.symbol(name, place));
                let symbol = own.or_else(|| kernel_symbol(name)).or_else(other);
                let value = symbol.unwrap_or(0).wrapping_add(addend);
                let relative = matches!(kind, object::RELATIVE | object::CALL);
                each(site, if relative { value.wrapping_sub(site.address) } else { value });
            }
        }
    }
}

/// A field as a number.
pub fn read_field(site: &Site) -> u64 {
    (0..site.width()).rev().fold(0, |value, at| value << 8 | u64::from(peek8(site.address + at)))
}

/// Writes a field, byte by byte: it may lie across a page border.
pub fn write_field(site: &Site, value: u64) {
    for (at, byte) in (0..site.width()).zip(value.to_le_bytes()) {
        poke8(site.address + at, byte);
    }
}
