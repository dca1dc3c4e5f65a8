//! Reading records back, on the host.

use super::{ABSENT, ABSENT_CLASS, Action, Kind, RECORD_BYTES, Violation, checksum};
use crate::address::{Gpa, Gva};
use crate::frame::FrameClass;

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 13] = [
        Self::KernelFetch,
        Self::UserFetch,
        Self::Write,
        Self::Read,
        Self::Msr,
        Self::Port,
        Self::Init,
        Self::Sleep,
        Self::Hypercall,
        Self::TaskSwitch,
        Self::Unknown,
        Self::Shutdown,
        Self::Pinned,
    ];
}

impl Violation {
    /// Reads a record back; `None` for bytes that are none.
    pub fn decode(bytes: &[u8; RECORD_BYTES]) -> Option<Self> {
        let (body, sum) = bytes.split_last_chunk::<4>()?;
        let mut clean = [0; RECORD_BYTES];
        clean.get_mut(..body.len())?.copy_from_slice(body);
        if checksum(&clean) != u32::from_be_bytes(*sum) {
            return None;
        }
        let byte = |at: usize| bytes.get(at).copied();
        let word = |index: usize| {
            let at = index.checked_mul(8)?.checked_add(8)?;
            Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
        };
        let kind = byte(0)?;
        let class = byte(3)?;
        Some(Self {
            kind: *Kind::ALL.iter().find(|known| **known as u8 == kind)?,
            action: match byte(1)? {
                0 => Action::Inject,
                1 => Action::Halt,
                2 => Action::Audit,
                _ => return None,
            },
            cpl: byte(2)?,
            class: (class != ABSENT_CLASS).then(|| FrameClass::from_byte(class)),
            cpu: u32::from_le_bytes(*bytes.get(4..)?.first_chunk()?),
            count: word(0)?,
            gpa: Some(word(1)?).filter(|&gpa| gpa != ABSENT).map(Gpa),
            rip: Gva(word(2)?),
            cr3: word(3)?,
            info: word(4)?,
            unit: *bytes.get(48..)?.first_chunk()?,
        })
    }
}
