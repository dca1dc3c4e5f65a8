//! The functions of a kernel, as System.map or /proc/kallsyms lists them.

use std::fmt;

use crate::Error;

/// More than the code of any function, in bytes.
const LARGEST: u64 = 64 << 10;

/// A function.
pub struct Symbol {
    address: u64,
    name: String,
    /// The module it belongs to, or what else made it (`bpf`).
    pub module: Option<String>,
}

/// Functions by ascending address.
#[derive(Default)]
pub struct Symbols(Vec<Symbol>);

impl Symbols {
    /// Reads lines of `ADDRESS TYPE NAME [MODULE]`.
    ///
    /// # Errors
    /// A file without any function's address.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let symbol = |line: &str| {
            let mut words = line.split_whitespace();
            let address = u64::from_str_radix(words.next()?, 16).ok()?;
            words.next().filter(|kind| matches!(*kind, "t" | "T" | "w" | "W"))?;
            let name = words.next()?.to_owned();
            let module = words.next().map(|word| word.trim_matches(['[', ']']).to_owned());
            Some(Symbol { address, name, module })
        };
        let mut symbols: Vec<_> = text.lines().filter_map(symbol).collect();
        if symbols.iter().all(|symbol| symbol.address == 0) {
            return Err("no function with an address: give System.map, or /proc/kallsyms as root \
                        reads it (Debian's System.map is in its -dbg package)"
                .into());
        }
        symbols.sort_by_key(|symbol| symbol.address);
        Ok(Self(symbols))
    }

    /// The function around `address`: the last that begins before it, if that is not far away.
    pub fn at(&self, address: u64) -> Option<&Symbol> {
        let before = self.0[..self.0.partition_point(|symbol| symbol.address <= address)].last();
        before.filter(|symbol| address - symbol.address < LARGEST)
    }
}

impl fmt::Display for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.module.as_ref().map_or(Ok(()), |module| write!(f, " [{module}]"))
    }
}
