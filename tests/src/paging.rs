//! A guest's memory as its kernel sees it, read from outside.

use std::collections::HashMap;
use std::path::Path;

use crate::Result;

const PAGE: u64 = 4096;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Symbols of a kernel by name, from its System.map: global ones only.
pub fn symbols(system_map: &Path) -> Result<HashMap<String, u64>> {
    let text = std::fs::read_to_string(system_map)?;
    let parse = |line: &str| {
        let mut words = line.split_whitespace();
        let address = u64::from_str_radix(words.next()?, 16).ok()?;
        let global = words.next()?.starts_with(|c: char| c.is_ascii_uppercase());
        global.then_some((words.next()?.to_owned(), address))
    };
    Ok(text.lines().filter_map(parse).collect())
}

/// How a kernel that is not relocated maps memory.
#[derive(Clone, Copy)]
struct Format {
    /// Name of its page tables' root.
    root: &'static str,
    /// Where its image is mapped.
    map: u64,
    levels: u32,
    /// Bits of an address that a table translates, and bytes of its entries.
    bits: u32,
    entry: usize,
}

const LONG: Format =
    Format { root: "init_top_pgt", map: 0xffff_ffff_8000_0000, levels: 4, bits: 9, entry: 8 };
const PAE: Format = Format { root: "swapper_pg_dir", map: 0xc000_0000, levels: 3, ..LONG };
const LEGACY: Format = Format { levels: 2, bits: 10, entry: 4, ..PAE };

impl Format {
    /// That of the kernel with these symbols.
    fn of(symbols: &HashMap<String, u64>) -> Self {
        if symbols.contains_key(LONG.root) {
            LONG
        } else if symbols.contains_key("initial_pg_pmd") {
            PAE
        } else {
            LEGACY
        }
    }
}

/// All of a guest's RAM at one moment, and its kernel's page tables.
pub struct Snapshot {
    /// The RAM, from address 0 on.
    pub ram: Vec<u8>,
    root: u64,
    format: Format,
}

impl Snapshot {
    /// RAM of a kernel with these symbols.
    pub fn new(ram: Vec<u8>, symbols: &HashMap<String, u64>) -> Result<Self> {
        let format = Format::of(symbols);
        let root = symbols.get(format.root).and_then(|root| root.checked_sub(format.map));
        let root = root.ok_or_else(|| format!("{} is not in the image", format.root))?;
        Ok(Self { ram, root, format })
    }

    fn entry(&self, at: u64) -> Result<u64> {
        let at = usize::try_from(at)?;
        let size = self.format.entry;
        let bytes = self.ram.get(at..at + size).ok_or("a page table outside of the RAM")?;
        let mut entry = [0; 8];
        entry[..size].copy_from_slice(bytes);
        Ok(u64::from_le_bytes(entry))
    }

    /// The physical address behind a virtual one.
    pub fn physical(&self, address: u64) -> Result<u64> {
        let Format { levels, bits, entry: size, .. } = self.format;
        let mut table = self.root;
        for level in (0..levels).rev() {
            let shift = 12 + bits * level;
            let index = address >> shift & ((1 << bits) - 1);
            let entry = self.entry(table + index * size as u64)?;
            if entry & 1 == 0 {
                return Err(format!("{address:#x} is not mapped").into());
            }
            if level == 0 || (entry & 0x80 != 0 && level < 3) {
                let offset = (1 << shift) - 1;
                return Ok((entry & ADDRESS & !offset) | (address & offset));
            }
            table = entry & ADDRESS;
        }
        Err("no page".into())
    }

    /// Bytes at a virtual address, page by page.
    pub fn read(&self, address: u64, length: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let end = address + length;
        let mut at = address;
        while at < end {
            let part = (PAGE - at % PAGE).min(end - at);
            let from = usize::try_from(self.physical(at)?)?;
            let page = self.ram.get(from..from + usize::try_from(part)?);
            bytes.extend_from_slice(page.ok_or("a page outside of the RAM")?);
            at += part;
        }
        Ok(bytes)
    }
}

/// A leaf of page tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The address that it translates; of virtual ones the low 48 bits.
    pub address: u64,
    /// What it translates to.
    pub physical: u64,
    /// Its size.
    pub bytes: u64,
    /// Whether all levels let write.
    pub writable: bool,
    /// Whether all levels let execute.
    pub executable: bool,
    /// Whether all levels are the user's.
    pub user: bool,
}

/// All that tables of four levels map.
#[derive(Clone, Debug, Default)]
pub struct Map {
    /// Their leaves, by address.
    pub leaves: Vec<Mapping>,
    /// The pages of the tables themselves.
    pub tables: Vec<u64>,
}

const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;

impl Map {
    /// Walks the tables at `root`, which lie in `ram` as all memory from address 0 on.
    pub fn walk(ram: &[u8], root: u64) -> Result<Self> {
        let mut map = Self::default();
        let all = Mapping {
            address: 0,
            physical: 0,
            bytes: 1 << 48,
            writable: true,
            executable: true,
            user: true,
        };
        map.add(ram, root, all)?;
        Ok(map)
    }

    /// What the kernel and what the user may execute of nested tables that a processor reads with
    /// Guest Mode Execute Trap. That users may execute what the kernel may is left out: they gain
    /// nothing by it.
    pub fn by_mode(&self) -> [Self; 2] {
        [false, true].map(|user| {
            let mut map = self.clone();
            map.leaves.iter_mut().for_each(|leaf| leaf.executable &= leaf.user == user);
            map
        })
    }

    /// Adds what the table at `table` maps of `above`.
    fn add(&mut self, ram: &[u8], table: u64, above: Mapping) -> Result<()> {
        self.tables.push(table);
        let at = usize::try_from(table)?;
        let page = ram.get(at..).and_then(|rest| rest.first_chunk::<4096>());
        let page = page.ok_or_else(|| format!("a page table at {table:#x}, outside of the RAM"))?;
        let bytes = above.bytes / 512;
        for (entry, index) in page.as_chunks().0.iter().zip(0..) {
            let entry = u64::from_le_bytes(*entry);
            let here = Mapping {
                address: above.address + index * bytes,
                physical: entry & ADDRESS & !(bytes - 1),
                bytes,
                writable: above.writable && entry & WRITABLE != 0,
                executable: above.executable && entry & NO_EXECUTE == 0,
                user: above.user && entry & USER != 0,
            };
            if entry & 1 == 0 {
                continue;
            } else if bytes == PAGE || entry & LARGE != 0 {
                self.leaves.push(here);
            } else {
                self.add(ram, entry & ADDRESS, here)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leaf_allows_what_all_levels_allow() {
        let mut ram = vec![0; 0x6000];
        let mut put = |at: usize, entry: u64| ram[at..at + 8].copy_from_slice(&entry.to_le_bytes());
        put(0x1000 + 8, 0x2007);
        put(0x2000, 0x4000_0087 | NO_EXECUTE);
        put(0x2000 + 8, 0x3005);
        put(0x3000 + 511 * 8, 0x4007);
        put(0x4000, 0x7003);
        put(0x4000 + 8, 0x8001 | NO_EXECUTE);
        put(0x4000 + 16, 0x9005);
        let leaf = |address, physical, bytes, writable, executable, user| Mapping {
            address: (1u64 << 39) + address,
            physical,
            bytes,
            writable,
            executable,
            user,
        };
        let map = Map::walk(&ram, 0x1000).expect("a map");
        assert_eq!(map.tables, [0x1000, 0x2000, 0x3000, 0x4000]);
        let wanted = [
            leaf(0, 0x4000_0000, 1 << 30, true, false, true),
            leaf(0x7fe0_0000, 0x7000, 0x1000, false, true, false),
            leaf(0x7fe0_1000, 0x8000, 0x1000, false, false, false),
            leaf(0x7fe0_2000, 0x9000, 0x1000, false, true, true),
        ];
        assert_eq!(map.leaves, wanted);
        let executed = map.by_mode().map(|map| {
            let leaves = map.leaves.iter().filter(|leaf| leaf.executable);
            leaves.map(|leaf| leaf.physical).collect::<Vec<_>>()
        });
        assert_eq!(executed, [[0x7000], [0x9000]]);
        ram[0x3ff8 + 2] = 1;
        assert!(Map::walk(&ram, 0x1000).is_err());
    }

    #[test]
    fn pages_of_each_size_are_found() {
        let mut ram = vec![0; 0x40_0000];
        let mut put = |at: usize, entry: u64| ram[at..at + 8].copy_from_slice(&entry.to_le_bytes());
        put(0x1000 + 511 * 8, 0x2003);
        put(0x2000 + 511 * 8, 0x3003);
        put(0x3000, 0x20_0083); // 2 MiB
        put(0x3000 + 8, 0x4003);
        put(0x4000, 0x5000 | 1 << 63 | 1);
        ram[0x5123] = 7;
        let symbols = [(LONG.root.to_owned(), LONG.map + 0x1000)].into();
        let shot = Snapshot::new(ram, &symbols).expect("a root");
        let base = 0xffff_ffff_c000_0000;
        assert_eq!(shot.physical(base + 0x1_2345).expect("large"), 0x21_2345);
        assert_eq!(shot.physical(base + 0x20_0123).expect("small"), 0x5123);
        assert_eq!(shot.read(base + 0x20_0123, 1).expect("a byte"), [7]);
        assert!(shot.read(base + 0x20_0fff, 2).is_err());
        assert!(shot.physical(0x1000).is_err());
    }
    #[test]
    fn tables_of_32_bit_kernels_are_walked() {
        let mut ram = vec![0; 0x40_0000];
        ram[0x1000 + 3 * 8] = 1;
        ram[0x1000 + 3 * 8 + 1] = 0x20; // PAE: the last GiB
        ram[0x2000 + 8..0x2008 + 3].copy_from_slice(&[0x83, 0, 0x20]); // 2 MiB
        let mut symbols = HashMap::from([(PAE.root.to_owned(), PAE.map + 0x1000)]);
        symbols.insert("initial_pg_pmd".into(), 0);
        let shot = Snapshot::new(ram.clone(), &symbols).expect("a root");
        assert_eq!(shot.physical(0xc021_2345).expect("large"), 0x21_2345);
        assert!(shot.physical(0xc001_2345).is_err());
        symbols.remove("initial_pg_pmd");
        ram[0x1000 + 0x301 * 4..0x1000 + 0x301 * 4 + 2].copy_from_slice(&[3, 0x30]);
        ram[0x3000 + 5 * 4..0x3000 + 5 * 4 + 2].copy_from_slice(&[3, 0x70]);
        let shot = Snapshot::new(ram, &symbols).expect("a root");
        assert_eq!(shot.physical(0xc040_5123).expect("small"), 0x7123);
    }
}
