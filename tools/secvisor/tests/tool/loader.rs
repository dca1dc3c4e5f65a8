//! Linux's module loaders, told once more from their sources and for the tests only: what
//! `layout_sections`, `simplify_symbols` and `apply_relocate(_add)` do in 6.1 for x86_64 and i386, and
//! in 2.6.20 with the port for i386.

use std::collections::HashMap;

const WRITE: u64 = 1;
const ALLOC: u64 = 2;
const EXECINSTR: u64 = 4;
const RO_AFTER_INIT: u64 = 0x20_0000;
const INIT_OFFSET_MASK: u64 = 1 << 63;

/// A file, or a piece of memory, of one class.
#[derive(Clone, Copy)]
struct Bytes<'a> {
    bytes: &'a [u8],
    long: bool,
}

impl<'a> Bytes<'a> {
    fn elf(bytes: &'a [u8]) -> Self {
        Self { bytes, long: bytes[4] == 2 }
    }

    fn half(self, at: u64) -> u64 {
        u16::from_le_bytes(self.bytes[at as usize..][..2].try_into().unwrap()).into()
    }

    fn word(self, at: u64) -> u64 {
        u32::from_le_bytes(self.bytes[at as usize..][..4].try_into().unwrap()).into()
    }

    fn native(self, at: u64) -> u64 {
        if self.long { self.word(at) | self.word(at + 4) << 32 } else { self.word(at) }
    }

    fn text(self, at: u64) -> &'a str {
        let bytes = &self.bytes[at as usize..];
        str::from_utf8(&bytes[..bytes.iter().position(|&byte| byte == 0).unwrap()]).unwrap()
    }

    /// The one of two numbers that is its class's.
    fn pick(self, short: u64, long: u64) -> u64 {
        if self.long { long } else { short }
    }
}

/// Elf32_Shdr or Elf64_Shdr.
#[derive(Clone)]
struct Header {
    name: String,
    kind: u64,
    flags: u64,
    addr: u64,
    offset: u64,
    size: u64,
    link: u64,
    info: u64,
    addralign: u64,
    entsize: u64,
}

fn headers(file: Bytes<'_>) -> Vec<Header> {
    let size = file.pick(40, 64);
    let (table, count) = (file.native(file.pick(0x20, 0x28)), file.half(file.pick(0x30, 0x3C)));
    let last = table + size * file.half(file.pick(0x32, 0x3E));
    let names = file.native(last + file.pick(0x10, 0x18));
    let header = |index| {
        let at = table + size * index;
        let native = |number: u64| file.native(at + 8 + file.pick(4, 8) * number);
        let tail = at + file.pick(0x18, 0x28);
        Header {
            name: file.text(names + file.word(at)).into(),
            kind: file.word(at + 4),
            flags: native(0),
            addr: native(1),
            offset: native(2),
            size: native(3),
            link: file.word(tail),
            info: file.word(tail + 4),
            addralign: file.native(tail + 8),
            entsize: 0,
        }
    };
    (0..count).map(header).collect()
}

/// A running kernel, as far as loading modules goes.
#[derive(Clone)]
pub struct Kernel {
    /// Whether it is Linux 2.6.20.
    pub old: bool,
    /// Whether it has CONFIG_KALLSYMS.
    pub kallsyms: bool,
    /// What is exported so far.
    pub symbols: HashMap<String, u64>,
}

impl Kernel {
    /// That of a vmlinux, with nothing loaded.
    pub fn read(vmlinux: &[u8]) -> Self {
        let contains = |text: &[u8]| vmlinux.windows(text.len()).any(|window| window == text);
        let (file, old) = (Bytes::elf(vmlinux), contains(b"Linux version 2.6.20"));
        let headers = headers(file);
        let memory = |address: u64| {
            let inside = |h: &&Header| {
                h.kind == 1 && h.addr != 0 && (h.addr..h.addr + h.size).contains(&address)
            };
            let section = headers.iter().find(inside).unwrap();
            let start = (section.offset + (address - section.addr)) as usize;
            vmlinux[start..(start + 256).min(vmlinux.len())].to_vec()
        };
        let symbols = exports(&headers, old, file.long, memory).into_iter().collect();
        Self { old, kallsyms: contains(b"\0kallsyms_names\0"), symbols }
    }
}

/// What `find_symbol` finds: name and address of each entry of the export tables.
fn exports(
    headers: &[Header],
    old: bool,
    long: bool,
    memory: impl Fn(u64) -> Vec<u8>,
) -> Vec<(String, u64)> {
    let tables: &[_] = match old {
        true => &["", "_gpl", "_gpl_future", "_unused", "_unused_gpl"],
        false => &["", "_gpl"],
    };
    let table =
        |h: &&Header| h.name.strip_prefix("__ksymtab").is_some_and(|it| tables.contains(&it));
    let word = |at: u64| Bytes { bytes: &memory(at), long }.word(0);
    let target = |at: u64| match (old, long) {
        (true, _) => word(at),
        (_, true) => at.wrapping_add_signed((word(at) as i32).into()),
        (_, false) => (at + word(at)) & 0xFFFF_FFFF,
    };
    let export =
        |at| (Bytes { bytes: &memory(target(at + 4)), long }.text(0).to_owned(), target(at));
    // Value and name; and before them, relative to themselves, with a namespace.
    let entries = headers.iter().filter(table);
    let entries =
        entries.flat_map(|it| (it.addr..it.addr + it.size).step_by(if old { 8 } else { 12 }));
    entries.map(export).collect()
}

/// A module in memory.
pub struct Loaded {
    pub name: String,
    /// Address and bytes of the core and the init block.
    pub blocks: [(u64, Vec<u8>); 2],
    /// Size of the executable part of each.
    pub text_size: [u64; 2],
    pub exports: Vec<(String, u64)>,
}

/// Loads a module at these addresses; `Err` names a symbol that nothing loaded exports.
pub fn load(file: &[u8], bases: [u64; 2], kernel: &Kernel) -> Result<Loaded, String> {
    let file = Bytes::elf(file);
    let mut sections = headers(file);
    let find = |sections: &[Header], name: &str| {
        sections.iter().position(|s| s.flags & ALLOC != 0 && s.name == name).unwrap_or(0)
    };
    let info = find(&sections, ".modinfo");
    let versions = find(&sections, "__versions");
    sections[info].flags &= !ALLOC;
    if kernel.old {
        let symbols = sections.iter().position(|section| section.kind == 2).unwrap();
        let strings = sections[symbols].link as usize;
        if kernel.kallsyms {
            sections[symbols].flags |= ALLOC;
            sections[strings].flags |= ALLOC;
        }
    } else {
        sections[versions].flags &= !ALLOC;
        for name in [".data..ro_after_init", "__jump_table"] {
            let index = find(&sections, name);
            sections[index].flags |= RO_AFTER_INIT;
        }
    }
    assert_eq!(find(&sections, ".data..percpu"), 0);
    let (sizes, text_size) = layout_sections(&mut sections, kernel.old);

    let mut blocks = [0, 1].map(|block: usize| (bases[block], vec![0u8; sizes[block] as usize]));
    for section in &mut sections {
        if section.flags & ALLOC == 0 {
            continue;
        }
        let block = usize::from(section.entsize & INIT_OFFSET_MASK != 0);
        let start = section.entsize & !INIT_OFFSET_MASK;
        if section.kind != 8 {
            let bytes = &file.bytes[section.offset as usize..][..section.size as usize];
            blocks[block].1[start as usize..][..bytes.len()].copy_from_slice(bytes);
        }
        section.addr = bases[block] + start;
    }
    let values = simplify_symbols(file, &sections, &kernel.symbols)?;
    for relocations in &sections {
        let Some(target) = sections.get(relocations.info as usize) else { continue };
        if relocations.kind != file.pick(9, 4) || target.flags & ALLOC == 0 {
            continue;
        }
        let size = file.pick(8, 24);
        for entry in
            (relocations.offset..relocations.offset + relocations.size).step_by(size as usize)
        {
            apply_relocate(&mut blocks, target.addr, file, entry, &values);
        }
    }
    let memory = |address: u64| {
        let (base, bytes) = blocks
            .iter()
            .find(|(base, bytes)| (*base..*base + bytes.len() as u64).contains(&address))
            .unwrap();
        bytes[(address - base) as usize..].to_vec()
    };
    let module = &sections[find(&sections, ".gnu.linkonce.this_module")];
    let name = file.text(module.offset + file.pick(12, 24)).to_owned();
    let exports = exports(&sections, kernel.old, file.long, memory);
    Ok(Loaded { name, blocks, text_size, exports })
}

/// Gives every section its place in `entsize`, and returns the sizes of both blocks.
fn layout_sections(sections: &mut [Header], old: bool) -> ([u64; 2], [u64; 2]) {
    const MASKS: [[u64; 2]; 5] = [
        [EXECINSTR | ALLOC, 0],
        [ALLOC, WRITE],
        [RO_AFTER_INIT | ALLOC, 0],
        [WRITE | ALLOC, 0],
        [ALLOC, 0],
    ];
    let (mut sizes, mut text_sizes) = ([0u64; 2], [0; 2]);
    sections.iter_mut().for_each(|section| section.entsize = u64::MAX);
    for block in [0, 1] {
        for (number, mask) in MASKS.iter().enumerate().filter(|(number, _)| !old || *number != 2) {
            for section in sections.iter_mut() {
                if section.flags & mask[0] != mask[0]
                    || section.flags & mask[1] != 0
                    || section.entsize != u64::MAX
                    || section.name.starts_with(".init") != (block == 1)
                {
                    continue;
                }
                let start = sizes[block].next_multiple_of(section.addralign.max(1));
                sizes[block] = start + section.size;
                section.entsize = start | if block == 1 { INIT_OFFSET_MASK } else { 0 };
            }
            match (number, block) {
                (0, _) => sizes[block] = sizes[block].next_multiple_of(4096),
                (2, 1) | (3, _) => {}
                _ if old => {}
                _ => sizes[block] = sizes[block].next_multiple_of(4096),
            }
            if number == 0 {
                text_sizes[block] = sizes[block];
            }
        }
    }
    (sizes, text_sizes)
}

fn simplify_symbols(
    file: Bytes<'_>,
    sections: &[Header],
    symbols: &HashMap<String, u64>,
) -> Result<Vec<u64>, String> {
    let table = sections.iter().find(|section| section.kind == 2).unwrap();
    let names = sections[table.link as usize].offset;
    let mut values = Vec::new();
    let size = file.pick(16, 24);
    for at in (table.offset..table.offset + table.size).step_by(size as usize) {
        let name = file.text(names + file.word(at));
        let weak = file.bytes[(at + file.pick(12, 4)) as usize] >> 4 == 2;
        let value = file.native(at + file.pick(4, 8));
        values.push(match (file.half(at + file.pick(14, 6)), symbols.get(name)) {
            (0, _) if values.is_empty() => 0,
            (0, Some(&address)) => address,
            (0, None) if weak => value,
            (0, None) => return Err(name.to_owned()),
            (0xFFF1, _) => value,
            (section, _) => value.wrapping_add(sections[section as usize].addr),
        });
    }
    Ok(values)
}

fn apply_relocate(
    blocks: &mut [(u64, Vec<u8>); 2],
    target: u64,
    file: Bytes<'_>,
    entry: u64,
    values: &[u64],
) {
    let location = target + file.native(entry);
    let info = file.native(entry + file.pick(4, 8));
    let symbol = values[(info >> file.pick(8, 32)) as usize];
    let inside =
        |block: &&mut (u64, Vec<u8>)| (block.0..block.0 + block.1.len() as u64).contains(&location);
    let (base, bytes) = blocks.iter_mut().find(inside).unwrap();
    let field = &mut bytes[(location - *base) as usize..];
    if !file.long {
        let held = u32::from_le_bytes(field[..4].try_into().unwrap()).wrapping_add(symbol as u32);
        let value = match info as u8 {
            1 => held,
            2 | 4 => held.wrapping_sub(location as u32),
            kind => panic!("unknown relocation {kind}"),
        };
        field[..4].copy_from_slice(&value.to_le_bytes());
        return;
    }
    let value = symbol.wrapping_add(file.native(entry + 16));
    let (value, width) = match info as u32 {
        0 => return,
        1 => (value, 8),
        2 | 4 => (value.wrapping_sub(location), 4),
        10 => (u64::from(value as u32), 4),
        11 => {
            assert_eq!(value as i32 as u64, value);
            (value, 4)
        }
        24 => (value.wrapping_sub(location), 8),
        kind => panic!("unknown relocation {kind}"),
    };
    assert!(field[..width].iter().all(|&byte| byte == 0));
    field[..width].copy_from_slice(&value.to_le_bytes()[..width]);
}
