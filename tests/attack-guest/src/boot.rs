//! The command line and the memory map, from either way of booting.

use crate::console;
use crate::memory::{HEAP, peek, peek8, peek32};
use crate::say;
use crate::trap::symbol;

const MULTIBOOT2: u64 = 0x36D7_6289;
const LINE_BYTES: usize = 8192;

/// What this run is to do.
pub struct Options {
    line: [u8; LINE_BYTES],
    length: usize,
    /// An address in SecVisor's memory; without SecVisor one in ordinary RAM, as the control.
    pub hidden: u64,
    /// Whether the judge drives the run over COM1.
    pub ask: bool,
    /// Where the boot information lies.
    pub information: u64,
}

impl Options {
    /// Reads the boot information.
    pub fn read(information: u64) -> Self {
        let line = [0; LINE_BYTES];
        let mut options = Self { line, length: 0, hidden: HEAP, ask: false, information };
        if peek(symbol!(boot_magic)) == MULTIBOOT2 {
            options.read_multiboot(information);
        } else {
            options.read_boot_params(information);
        }
        options.ask = options.has("ask");
        options
    }

    /// Takes what the judge sends over COM1 instead, where the command line says `ask`.
    pub fn or_asked(self) -> Self {
        let mut options = self;
        if options.ask {
            say!("guest: ask");
            options.length = 0;
            loop {
                match console::read_byte() {
                    b'\n' | b'\r' => break,
                    byte => options.push(byte),
                }
            }
        }
        if let Some(hidden) = options.number("hidden") {
            options.hidden = hidden;
        }
        options
    }

    fn push(&mut self, byte: u8) {
        if let Some(slot) = self.line.get_mut(self.length) {
            *slot = byte;
            self.length += 1;
        }
    }

    fn push_string(&mut self, mut address: u64) {
        while peek8(address) != 0 {
            self.push(peek8(address));
            address += 1;
        }
    }

    /// Linux's boot_params: command line at 0x228, E820 at 0x2D0 with its count at 0x1E8.
    fn read_boot_params(&mut self, params: u64) {
        self.push_string(u64::from(peek32(params + 0x228)));
        // SecVisor's memory is RAM that the map calls reserved: the longest such piece.
        let end = self.ram().map(|entry| entry.0 + entry.1).max().unwrap_or(0);
        let inside = self.map().filter(|entry| entry.2 != 1 && (0x10_0000..end).contains(&entry.0));
        self.hidden = inside.max_by_key(|entry| entry.1).map_or(self.hidden, |entry| entry.0);
    }

    /// The memory map of boot_params: start, length, type.
    fn map(&self) -> impl Iterator<Item = (u64, u64, u32)> + use<> {
        let params = self.information;
        (0..u64::from(peek8(params + 0x1E8))).map(move |index| {
            let entry = params + 0x2D0 + index * 20;
            (peek(entry), peek(entry + 8), peek32(entry + 16))
        })
    }

    /// What of it is RAM.
    pub fn ram(&self) -> impl Iterator<Item = (u64, u64, u32)> + use<> {
        self.map().filter(|entry| entry.2 == 1)
    }

    /// The multiboot2 tags; only the command line (type 1) matters.
    fn read_multiboot(&mut self, information: u64) {
        let mut tag = information + 8;
        while peek32(tag) != 0 {
            if peek32(tag) == 1 {
                self.push_string(tag + 8);
            }
            tag = (tag + u64::from(peek32(tag + 4))).next_multiple_of(8);
        }
    }

    fn words(&self) -> impl Iterator<Item = &str> {
        let line = self.line.get(..self.length).unwrap_or_default();
        core::str::from_utf8(line).unwrap_or_default().split_ascii_whitespace()
    }

    /// Whether a word stands on the command line.
    pub fn has(&self, word: &str) -> bool {
        self.words().any(|it| it == word)
    }

    /// A number on the command line.
    pub fn number(&self, key: &str) -> Option<u64> {
        parse_number(self.value(key)?)
    }

    pub fn value(&self, key: &str) -> Option<&str> {
        self.words().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }

    /// The names after `run=`.
    pub fn chosen(&self) -> impl Iterator<Item = &str> {
        self.value("run").unwrap_or("all").split(',')
    }

    /// Whether a whole part of the guest is asked for.
    pub fn wants(&self, part: &str) -> bool {
        self.chosen().any(|name| name == part || name == "all")
    }

    /// Whether a name stands after `without=`.
    pub fn leaves_out(&self, name: &str) -> bool {
        self.value("without").is_some_and(|names| names.split(',').any(|it| it == name))
    }
}

fn parse_number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}
