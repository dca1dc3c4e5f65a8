//! What several tests need: physical memory, and files and tables as GRUB and firmware have them.

use policy::address::PhysicalRange;
use policy::approval::Architecture;

use crate::memory::PhysicalMemory;

/// RAM from address 0 on.
pub struct Ram(pub Vec<u8>);

impl PhysicalMemory for Ram {
    fn bytes(&self, range: PhysicalRange) -> &[u8] {
        &self.0[range.start() as usize..range.end() as usize]
    }

    fn bytes_mut(&mut self, range: PhysicalRange) -> &mut [u8] {
        &mut self.0[range.start() as usize..range.end() as usize]
    }

    fn copy(&mut self, from: PhysicalRange, to: u64) {
        self.0.copy_within(from.start() as usize..from.end() as usize, to as usize);
    }
}

pub fn range(start: u64, end: u64) -> PhysicalRange {
    PhysicalRange::between(start, end).unwrap()
}

/// Multiboot2 information with these tags and an end tag.
pub fn information(tags: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = vec![0; 8];
    for (kind, body) in tags.iter().chain(&[(0, Vec::new())]) {
        bytes.extend(kind.to_le_bytes());
        bytes.extend((body.len() as u32 + 8).to_le_bytes());
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(8), 0xAA);
    }
    let size = bytes.len() as u32;
    bytes[..4].copy_from_slice(&size.to_le_bytes());
    bytes
}

pub fn module(start: u32, end: u32, line: &str) -> (u32, Vec<u8>) {
    let mut body = [start.to_le_bytes(), end.to_le_bytes()].concat();
    body.extend(line.bytes().chain([0]));
    (3, body)
}

/// The tag of a memory map of entries of 24 bytes.
pub fn memory_tag(entries: &[(u64, u64, u32)]) -> (u32, Vec<u8>) {
    let mut body = [24u32.to_le_bytes(), [0; 4]].concat();
    for &(start, length, kind) in entries {
        body.extend(start.to_le_bytes().into_iter().chain(length.to_le_bytes()));
        body.extend(u64::from(kind).to_le_bytes());
    }
    (6, body)
}

/// A vmlinux: physical address, size in memory and file contents of each segment.
pub fn vmlinux(architecture: Architecture, entry: u64, segments: &[(u64, u64, &[u8])]) -> Vec<u8> {
    let wide = architecture == Architecture::X86_64;
    let (class, machine, header, program_header) =
        if wide { (2, 62, 64, 56) } else { (1, 3, 52, 32) };
    let word = |value: u64| match wide {
        true => value.to_le_bytes().to_vec(),
        false => (value as u32).to_le_bytes().to_vec(),
    };
    let mut file = vec![0x7F, b'E', b'L', b'F', class, 1, 1];
    file.resize(16, 0);
    file.extend([2u16, machine].into_iter().flat_map(u16::to_le_bytes));
    file.extend(1u32.to_le_bytes());
    file.extend([entry, header, 0].into_iter().flat_map(word));
    file.extend(0u32.to_le_bytes());
    let sizes = [header as u16, program_header as u16, segments.len() as u16, 0, 0, 0];
    file.extend(sizes.into_iter().flat_map(u16::to_le_bytes));
    let mut offset = header + program_header * segments.len() as u64;
    for &(address, size, bytes) in segments {
        let fields = [offset, !0, address, bytes.len() as u64, size];
        let fields = fields.into_iter().flat_map(word);
        // The flags come second in 64-bit files and before the alignment in 32-bit ones.
        let flags = 5u32.to_le_bytes();
        file.extend(1u32.to_le_bytes());
        file.extend(flags.into_iter().filter(|_| wide));
        file.extend(fields);
        file.extend(flags.into_iter().filter(|_| !wide));
        file.extend(word(0x1000));
        offset += bytes.len() as u64;
    }
    file.extend(segments.iter().flat_map(|segment| segment.2));
    file
}
