//! Walks of the guest's page tables.

use policy::address::{Gpa, Gva};
use policy::walk::Paging;

/// CR3, an address, and memory that is what is left of the bytes.
pub fn walk(data: &[u8]) {
    let Some((words, memory)) = data.split_first_chunk::<16>() else { return };
    let [cr3, gva] = [0, 8].map(|at| {
        let word: [u8; 8] = words[at..at + 8].try_into().expect("8 bytes");
        u64::from_le_bytes(word)
    });
    for paging in [
        Paging::Off,
        Paging::FourLevels,
        Paging::ThreeLevels,
        Paging::TwoLevels { large: true },
        Paging::TwoLevels { large: false },
        Paging::Unknown,
    ] {
        let reads = std::cell::Cell::new(0);
        let found = paging.translate(cr3, Gva(gva), |gpa: Gpa| {
            assert!(gpa.0.is_multiple_of(8) && gpa.0 < 1 << 52);
            reads.set(reads.get() + 1);
            let at = usize::try_from(gpa.0).ok()?;
            memory.get(at..at.checked_add(8)?)?.first_chunk().map(|it| u64::from_le_bytes(*it))
        });
        assert!(reads.get() <= 4 && found.is_none_or(|gpa| gpa.0 < 1 << 52));
        assert!(found.is_none_or(|gpa| gpa.0 % 4096 == gva % 4096));
    }
}
