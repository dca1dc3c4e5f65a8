//! A guest's memory as its kernel sees it, read from outside.

use std::path::Path;

use crate::Result;

/// Where the kernel's image is mapped, for a kernel that is not relocated.
const KERNEL_MAP: u64 = 0xffff_ffff_8000_0000;
const PAGE: u64 = 4096;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Symbols of a kernel by name, from its System.map: global ones only.
pub fn symbols(system_map: &Path) -> Result<std::collections::HashMap<String, u64>> {
    let text = std::fs::read_to_string(system_map)?;
    let parse = |line: &str| {
        let mut words = line.split_whitespace();
        let address = u64::from_str_radix(words.next()?, 16).ok()?;
        let global = words.next()?.starts_with(|c: char| c.is_ascii_uppercase());
        global.then_some((words.next()?.to_owned(), address))
    };
    Ok(text.lines().filter_map(parse).collect())
}

/// All of a guest's RAM at one moment, and the root of its kernel's page tables.
pub struct Snapshot {
    /// The RAM, from address 0 on.
    pub ram: Vec<u8>,
    root: u64,
}

impl Snapshot {
    /// RAM of a kernel whose `init_top_pgt` lies at this virtual address.
    pub fn new(ram: Vec<u8>, init_top_pgt: u64) -> Result<Self> {
        let root =
            init_top_pgt.checked_sub(KERNEL_MAP).ok_or("init_top_pgt is not in the image")?;
        Ok(Self { ram, root })
    }

    fn entry(&self, at: u64) -> Result<u64> {
        let at = usize::try_from(at)?;
        let bytes = self.ram.get(at..at + 8).ok_or("a page table outside of the RAM")?;
        Ok(u64::from_le_bytes(bytes.try_into()?))
    }

    /// The physical address behind a virtual one.
    pub fn physical(&self, address: u64) -> Result<u64> {
        let mut table = self.root;
        for level in (0..4).rev() {
            let shift = 12 + 9 * level;
            let entry = self.entry(table + (address >> shift & 0x1ff) * 8)?;
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

#[cfg(test)]
mod tests {
    use super::*;

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
        let shot = Snapshot::new(ram, KERNEL_MAP + 0x1000).expect("a root");
        let base = 0xffff_ffff_c000_0000;
        assert_eq!(shot.physical(base + 0x1_2345).expect("large"), 0x21_2345);
        assert_eq!(shot.physical(base + 0x20_0123).expect("small"), 0x5123);
        assert_eq!(shot.read(base + 0x20_0123, 1).expect("a byte"), [7]);
        assert!(shot.read(base + 0x20_0fff, 2).is_err());
        assert!(shot.physical(0x1000).is_err());
    }
}
