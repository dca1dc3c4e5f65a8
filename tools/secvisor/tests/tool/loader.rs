//! Linux 6.1's module loader, told once more from its source and for the tests only: what
//! `layout_sections`, `simplify_symbols` and `apply_relocate_add` of an x86_64 kernel do.

use std::collections::HashMap;

const WRITE: u64 = 1;
const ALLOC: u64 = 2;
const EXECINSTR: u64 = 4;
const RO_AFTER_INIT: u64 = 0x20_0000;
const INIT_OFFSET_MASK: u64 = 1 << 63;

fn u16_at(bytes: &[u8], at: u64) -> u64 {
    u16::from_le_bytes(bytes[at as usize..][..2].try_into().unwrap()).into()
}

fn u32_at(bytes: &[u8], at: u64) -> u64 {
    u32::from_le_bytes(bytes[at as usize..][..4].try_into().unwrap()).into()
}

fn u64_at(bytes: &[u8], at: u64) -> u64 {
    u64::from_le_bytes(bytes[at as usize..][..8].try_into().unwrap())
}

fn text_at(bytes: &[u8], at: u64) -> &str {
    let bytes = &bytes[at as usize..];
    str::from_utf8(&bytes[..bytes.iter().position(|&byte| byte == 0).unwrap()]).unwrap()
}

/// Elf64_Shdr.
#[derive(Clone)]
struct Header {
    name: String,
    kind: u64,
    flags: u64,
    addr: u64,
    offset: u64,
    size: u64,
    info: u64,
    addralign: u64,
    entsize: u64,
    link: u64,
}

fn headers(file: &[u8]) -> Vec<Header> {
    let (table, count) = (u64_at(file, 0x28), u16_at(file, 0x3C));
    let names = u64_at(file, table + 64 * u16_at(file, 0x3E) + 0x18);
    let header = |index| {
        let at = table + 64 * index;
        Header {
            name: text_at(file, names + u32_at(file, at)).into(),
            kind: u32_at(file, at + 4),
            flags: u64_at(file, at + 8),
            addr: u64_at(file, at + 0x10),
            offset: u64_at(file, at + 0x18),
            size: u64_at(file, at + 0x20),
            link: u32_at(file, at + 0x28),
            info: u32_at(file, at + 0x2C),
            addralign: u64_at(file, at + 0x30),
            entsize: u64_at(file, at + 0x38),
        }
    };
    (0..count).map(header).collect()
}

/// What `find_symbol` finds: name and address of each entry of the export tables.
fn exports(headers: &[Header], memory: impl Fn(u64) -> Vec<u8>) -> Vec<(String, u64)> {
    let tables = headers.iter().filter(|h| ["__ksymtab", "__ksymtab_gpl"].contains(&&*h.name));
    // Three words that are each relative to themselves: value, name, namespace.
    let entries = tables.flat_map(|table| (table.addr..table.addr + table.size).step_by(12));
    let relative = |at: u64| at.wrapping_add_signed((u32_at(&memory(at), 0) as i32).into());
    let export = |at| (text_at(&memory(relative(at + 4)), 0).to_owned(), relative(at));
    entries.map(export).collect()
}

/// The exports of a vmlinux.
pub fn kernel_exports(vmlinux: &[u8]) -> HashMap<String, u64> {
    let headers = headers(vmlinux);
    let memory = |address: u64| {
        let inside = |h: &&Header| {
            h.kind == 1 && h.addr != 0 && (h.addr..h.addr + h.size).contains(&address)
        };
        let section = headers.iter().find(inside).unwrap();
        let start = (section.offset + (address - section.addr)) as usize;
        vmlinux[start..(start + 256).min(vmlinux.len())].to_vec()
    };
    exports(&headers, memory).into_iter().collect()
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
pub fn load(
    file: &[u8],
    bases: [u64; 2],
    symbols: &HashMap<String, u64>,
) -> Result<Loaded, String> {
    let mut sections = headers(file);
    let find = |sections: &[Header], name: &str| {
        sections.iter().position(|s| s.flags & ALLOC != 0 && s.name == name).unwrap_or(0)
    };
    let info = find(&sections, ".modinfo");
    let versions = find(&sections, "__versions");
    sections[info].flags &= !ALLOC;
    sections[versions].flags &= !ALLOC;
    assert_eq!(find(&sections, ".data..percpu"), 0);
    for name in [".data..ro_after_init", "__jump_table"] {
        let index = find(&sections, name);
        sections[index].flags |= RO_AFTER_INIT;
    }
    let (sizes, text_size) = layout_sections(&mut sections);

    let mut blocks = [0, 1].map(|block: usize| (bases[block], vec![0u8; sizes[block] as usize]));
    for section in &mut sections {
        if section.flags & ALLOC == 0 {
            continue;
        }
        let block = usize::from(section.entsize & INIT_OFFSET_MASK != 0);
        let start = section.entsize & !INIT_OFFSET_MASK;
        if section.kind != 8 {
            let bytes = &file[section.offset as usize..][..section.size as usize];
            blocks[block].1[start as usize..][..bytes.len()].copy_from_slice(bytes);
        }
        section.addr = bases[block] + start;
    }
    let values = simplify_symbols(file, &sections, symbols)?;
    for relocations in &sections {
        let Some(target) = sections.get(relocations.info as usize) else { continue };
        if relocations.kind != 4 || target.flags & ALLOC == 0 {
            continue;
        }
        for entry in (relocations.offset..relocations.offset + relocations.size).step_by(24) {
            apply_relocate_add(&mut blocks, target.addr, file, entry, &values);
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
    let name = text_at(file, module.offset + 24).to_owned();
    let exports = exports(&sections, memory);
    Ok(Loaded { name, blocks, text_size, exports })
}

/// Gives every section its place in `entsize`, and returns the sizes of both blocks.
fn layout_sections(sections: &mut [Header]) -> ([u64; 2], [u64; 2]) {
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
        for (number, mask) in MASKS.iter().enumerate() {
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
                (2, 1) | (3, _) => {}
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
    file: &[u8],
    sections: &[Header],
    symbols: &HashMap<String, u64>,
) -> Result<Vec<u64>, String> {
    let table = sections.iter().find(|section| section.kind == 2).unwrap();
    let names = sections[table.link as usize].offset;
    let mut values = Vec::new();
    for at in (table.offset..table.offset + table.size).step_by(24) {
        let name = text_at(file, names + u32_at(file, at));
        let weak = file[at as usize + 4] >> 4 == 2;
        let value = u64_at(file, at + 8);
        values.push(match (u16_at(file, at + 6), symbols.get(name)) {
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

fn apply_relocate_add(
    blocks: &mut [(u64, Vec<u8>); 2],
    target: u64,
    file: &[u8],
    entry: u64,
    values: &[u64],
) {
    let location = target + u64_at(file, entry);
    let info = u64_at(file, entry + 8);
    let value = values[(info >> 32) as usize].wrapping_add(u64_at(file, entry + 16));
    let inside =
        |block: &&mut (u64, Vec<u8>)| (block.0..block.0 + block.1.len() as u64).contains(&location);
    let (base, bytes) = blocks.iter_mut().find(inside).unwrap();
    let field = &mut bytes[(location - *base) as usize..];
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
