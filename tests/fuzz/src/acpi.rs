//! The firmware's tables.

use boot::acpi;

/// Bytes of a table's header, its checksum's place and its length's.
const HEADER: usize = 36;
const CHECKSUM: usize = 9;
const LENGTH: usize = 4;

/// Either memory as it comes, or tables with right headers around hostile bodies: without the
/// right sums nothing behind them would ever be read.
pub fn tables(data: &[u8]) {
    let Some((&framed, body)) = data.split_first() else { return };
    let memory = if framed % 2 == 0 { body.to_vec() } else { frame(body) };
    let bytes = |address: u64, length: usize| {
        let start = usize::try_from(address).ok()?;
        memory.get(start..start.checked_add(length)?)
    };
    let Some(rsdp) = memory.get(..HEADER) else { return };
    if let Ok(tables) = acpi::read(rsdp, &bytes) {
        let ids = &tables.processors;
        assert!(ids.iter().enumerate().all(|(index, id)| !ids[..index].contains(id)));
        assert!(tables.s5_sleep_type.is_none_or(|types| types.iter().all(|&kind| kind < 8)));
    }
}

/// RSDP, XSDT and one table for each piece of `body`, which a length of two bytes begins.
fn frame(mut body: &[u8]) -> Vec<u8> {
    const NAMES: [&[u8; 4]; 5] = [b"APIC", b"FACP", b"DSDT", b"HPET", b"MCFG"];
    let mut memory = vec![0; 256];
    let mut addresses = Vec::new();
    for name in NAMES {
        let Some((length, rest)) = body.split_first_chunk() else { break };
        let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
        let (piece, rest) = rest.split_at(length);
        body = rest;
        let at = memory.len();
        addresses.push(at as u64);
        let mut table = [&name[..], &[0; HEADER - 4], piece].concat();
        if name == b"FACP" && table.len() >= 148 {
            // The DSDT comes next.
            let dsdt = (at + table.len()) as u64;
            table[40..44].copy_from_slice(&dsdt.to_le_bytes()[..4]);
            table[140..148].copy_from_slice(&dsdt.to_le_bytes());
        }
        seal(&mut table);
        memory.extend(table);
    }
    let list: Vec<u8> = addresses.iter().flat_map(|address| address.to_le_bytes()).collect();
    let mut root = [&b"XSDT"[..], &[0; HEADER - 4], &list].concat();
    seal(&mut root);
    memory[24..32].copy_from_slice(&64u64.to_le_bytes());
    memory[64..64 + root.len()].copy_from_slice(&root);
    memory
}

/// Makes length and checksum right.
fn seal(table: &mut [u8]) {
    let length = table.len() as u32;
    table[LENGTH..LENGTH + 4].copy_from_slice(&length.to_le_bytes());
    table[CHECKSUM] = 0;
    let sum = table.iter().fold(0u8, |sum, &byte| sum.wrapping_add(byte));
    table[CHECKSUM] = 0u8.wrapping_sub(sum);
}
