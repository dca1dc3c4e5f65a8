//! Finds violation records in a memory dump.

use std::io::{self, Read, Write};

use policy::violation::{
    RECORD_BYTES, RING_BYTES, RING_HEADER_BYTES, RING_MAGIC, Violation, record_offset,
};

/// How much of a dump is read at once.
const CHUNK: u64 = 16 << 20;
/// Rings lie on page borders in memory, but an ELF core may shift them by whole words.
const ALIGNMENT: usize = 4;

/// Prints the records of every ring in `dump`, oldest first, and says whether there was a ring.
pub fn print(mut dump: impl Read, out: &mut impl Write) -> io::Result<bool> {
    let (mut window, mut base, mut found) = (Vec::new(), 0, false);
    loop {
        let read = dump.by_ref().take(CHUNK).read_to_end(&mut window)?;
        // A ring that the window may cut off waits for the next chunk, but for the last one.
        let judged = if read == 0 { window.len() } else { window.len().saturating_sub(RING_BYTES) };
        for at in (0..judged).step_by(ALIGNMENT).filter(|&at| window[at..].starts_with(&RING_MAGIC))
        {
            let end = window.len().min(at + RING_BYTES);
            if let Some(records) = records(&window[at..end]) {
                found = true;
                print_ring(base + at, &records, out)?;
            }
        }
        if read == 0 {
            return Ok(found);
        }
        window.drain(..judged);
        base += judged;
    }
}

fn print_ring(at: usize, records: &[Violation], out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "ring at offset {at:#x}: {} records", records.len())?;
    if let Some(lost) =
        records.first().map(|first| first.count.saturating_sub(1)).filter(|&n| n > 0)
    {
        writeln!(out, "{lost} earlier records are overwritten")?;
    }
    records.iter().try_for_each(|record| writeln!(out, "{record}"))
}

/// The records of a ring by count; `None` if the bytes only happen to begin like a ring.
fn records(ring: &[u8]) -> Option<Vec<Violation>> {
    let header = ring.get(RING_MAGIC.len()..RING_HEADER_BYTES)?;
    if header.iter().any(|&byte| byte != 0) {
        return None;
    }
    let slots = ring[RING_HEADER_BYTES..].as_chunks::<RECORD_BYTES>().0.iter();
    let offsets = (RING_HEADER_BYTES..).step_by(RECORD_BYTES);
    let mut records: Vec<_> = slots
        .zip(offsets)
        .filter_map(|(slot, offset)| {
            Violation::decode(slot).filter(|record| record_offset(record.count) == offset)
        })
        .collect();
    records.sort_by_key(|record| record.count);
    Some(records)
}
