//! Small kernels for the tests: one segment per section, as little ELF as a loader needs.

/// A section and the segment that loads it.
#[derive(Clone)]
pub struct Section {
    pub name: &'static str,
    pub executable: bool,
    pub virtual_start: u64,
    pub physical: u64,
    pub bytes: Vec<u8>,
}

/// A kernel.
#[derive(Clone)]
pub struct Kernel {
    pub long: bool,
    pub entry: u64,
    pub sections: Vec<Section>,
    /// Name, section (from 0), address.
    pub symbols: Vec<(&'static str, u16, u64)>,
}

pub fn section(name: &'static str, physical: u64, offset: u64, bytes: Vec<u8>) -> Section {
    let executable = name.contains("text") || name.starts_with(".alt");
    Section { name, executable, virtual_start: physical.wrapping_add(offset), physical, bytes }
}

/// Fields of 32 or 64 bits in one file.
pub struct Writer {
    pub long: bool,
    pub bytes: Vec<u8>,
}

impl Writer {
    pub fn half(&mut self, value: u16) {
        self.bytes.extend(value.to_le_bytes());
    }

    pub fn word(&mut self, value: u32) {
        self.bytes.extend(value.to_le_bytes());
    }

    pub fn native(&mut self, value: u64) {
        if self.long {
            self.bytes.extend(value.to_le_bytes());
        } else {
            self.word(value as u32);
        }
    }
}

impl Kernel {
    /// The file.
    pub fn build(&self) -> Vec<u8> {
        let (header, segment_size, section_size, symbol_size) =
            if self.long { (64, 56, 64, 24) } else { (52, 32, 40, 16) };
        let mut at = header + segment_size * self.sections.len();
        let mut names = vec![0];
        let mut name_of = |name: &str| {
            let start = names.len() as u32;
            names.extend(name.as_bytes());
            names.push(0);
            start
        };
        let name_offsets: Vec<u32> = self.sections.iter().map(|s| name_of(s.name)).collect();
        let symbol_names: Vec<u32> = self.symbols.iter().map(|s| name_of(s.0)).collect();
        let offsets: Vec<usize> = self
            .sections
            .iter()
            .map(|section| {
                let start = at;
                at += section.bytes.len();
                start
            })
            .collect();
        let symbols_at = at;
        let names_at = symbols_at + symbol_size * (self.symbols.len() + 1);
        let table_at = names_at + names.len();
        let count = self.sections.len() as u16;

        let mut out = Writer { long: self.long, bytes: b"\x7fELF".to_vec() };
        out.bytes.extend([if self.long { 2 } else { 1 }, 1, 1]);
        out.bytes.resize(16, 0);
        out.half(2);
        out.half(if self.long { 62 } else { 3 });
        out.word(1);
        out.native(self.entry);
        out.native(header as u64);
        out.native(table_at as u64);
        out.word(0);
        for value in [header as u16, segment_size as u16, count, section_size, count + 3, count + 2]
        {
            out.half(value);
        }
        for (section, &offset) in self.sections.iter().zip(&offsets) {
            let size = section.bytes.len() as u64;
            out.word(1);
            if self.long {
                out.word(5);
            }
            for value in [offset as u64, section.virtual_start, section.physical, size, size] {
                out.native(value);
            }
            if !self.long {
                out.word(5);
            }
            out.native(1);
        }
        self.sections.iter().for_each(|section| out.bytes.extend(&section.bytes));
        out.bytes.resize(out.bytes.len() + symbol_size, 0);
        for (symbol, name) in self.symbols.iter().zip(symbol_names) {
            out.word(name);
            if self.long {
                out.half(0x12);
                out.half(symbol.1 + 1);
                out.native(symbol.2);
                out.native(0);
            } else {
                out.native(symbol.2);
                out.native(0);
                out.half(0x12);
                out.half(symbol.1 + 1);
            }
        }
        out.bytes.extend(&names);
        out.bytes.resize(table_at + usize::from(section_size), 0);
        for ((section, &offset), name) in self.sections.iter().zip(&offsets).zip(name_offsets) {
            let flags = if section.executable { 6 } else { 3 };
            let place = [flags, section.virtual_start, offset as u64, section.bytes.len() as u64];
            out.section(name, 1, place, 0, 0);
        }
        let symbols_size = names_at - symbols_at;
        let strings = u32::from(count) + 2;
        out.section(0, 2, [0, 0, symbols_at as u64, symbols_size as u64], strings, symbol_size);
        out.section(0, 3, [0, 0, names_at as u64, names.len() as u64], 0, 0);
        out.bytes
    }
}

impl Writer {
    fn section(&mut self, name: u32, kind: u32, place: [u64; 4], link: u32, entry: usize) {
        self.word(name);
        self.word(kind);
        place.into_iter().for_each(|value| self.native(value));
        self.word(link);
        self.word(0);
        self.native(1);
        self.native(entry as u64);
    }
}
