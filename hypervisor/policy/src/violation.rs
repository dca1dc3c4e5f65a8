//! Violations: what they are, how they are written down, what follows.

mod decode;

use core::fmt;

use crate::address::{Gpa, Gva};
use crate::frame::FrameClass;

/// What happened. The list is closed: names are part of the log's stable format.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// An instruction fetch in kernel mode from a frame that is not approved.
    KernelFetch = 1,
    /// An instruction fetch in user mode from a frame that no mode may execute.
    UserFetch = 2,
    /// A write to a frame that the current view may not write.
    Write = 3,
    /// A read of a hidden frame.
    Read = 4,
    /// A write to a model-specific register that SecVisor does not allow.
    Msr = 5,
    /// A port access that SecVisor does not allow.
    Port = 6,
    /// An attempt to raise INIT, SIPI or SMI on a processor.
    Init = 7,
    /// An attempt to enter a sleep state.
    Sleep = 8,
    /// A hypercall whose arguments do not hold.
    Hypercall = 9,
    /// A hardware task switch.
    TaskSwitch = 10,
    /// A state or an exit that SecVisor does not know.
    Unknown = 11,
    /// The guest shut the processor down (triple fault).
    Shutdown = 12,
    /// A register that `set_kernel_mode` pinned was to change.
    Pinned = 13,
}

impl Kind {
    /// The name in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::KernelFetch => "kernel-fetch",
            Self::UserFetch => "user-fetch",
            Self::Write => "write",
            Self::Read => "read",
            Self::Msr => "msr",
            Self::Port => "port",
            Self::Init => "init",
            Self::Sleep => "sleep",
            Self::Hypercall => "hypercall",
            Self::TaskSwitch => "task-switch",
            Self::Unknown => "unknown",
            Self::Shutdown => "shutdown",
            Self::Pinned => "pinned",
        }
    }
}

/// What follows a violation (boot option `violation`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum Action {
    /// The guest gets #GP: the offending task dies, the machine lives on.
    #[default]
    Inject = 0,
    /// The machine stops.
    Halt = 1,
    /// The access is allowed. No guarantee holds.
    Audit = 2,
}

/// Bytes of a unit's name that a record keeps.
pub const UNIT_NAME_BYTES: usize = 40;

/// One violation, as it is logged and kept in the ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Violation {
    /// What happened.
    pub kind: Kind,
    /// What followed.
    pub action: Action,
    /// Number of the processor.
    pub cpu: u32,
    /// The guest-physical address of the access; `None` for what has none.
    pub gpa: Option<Gpa>,
    /// Instruction pointer of the offender.
    pub rip: Gva,
    /// Its page-table root.
    pub cr3: u64,
    /// Its privilege level.
    pub cpl: u8,
    /// Class of the frame at `gpa`; `None` without one.
    pub class: Option<FrameClass>,
    /// Kind-dependent: MSR or port number, exit code, ICR value.
    pub info: u64,
    /// Violations so far, this one included.
    pub count: u64,
    /// Name of the approved unit nearest to `rip`, padded with zeroes.
    pub unit: [u8; UNIT_NAME_BYTES],
}

impl Violation {
    /// The unit's name as text; `-` if there is none or it is not plain text.
    pub fn unit_name(&self) -> &str {
        plain_text(&self.unit).unwrap_or("-")
    }
}

/// A name that is padded with zeroes; `None` if there is none or it is not plain text.
pub fn plain_text(bytes: &[u8]) -> Option<&str> {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    let text = bytes.get(..end).filter(|text| text.iter().all(u8::is_ascii_graphic))?;
    str::from_utf8(text).ok().filter(|text| !text.is_empty())
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "secvisor: violation kind={} cpu={} gpa=", self.kind.name(), self.cpu)?;
        match self.gpa {
            Some(gpa) => write!(f, "{gpa:#x}")?,
            None => f.write_str("-")?,
        }
        let class = self.class.map_or("-", FrameClass::name);
        write!(
            f,
            " rip={:#x} cr3={:#x} cpl={} class={class} unit={} count={} info={:#x}",
            self.rip,
            self.cr3,
            self.cpl,
            self.unit_name(),
            self.count,
            self.info
        )?;
        if self.action == Action::Audit {
            f.write_str(" audit=no-guarantee-holds")?;
        }
        Ok(())
    }
}

/// Size of a record in the ring, in bytes.
pub const RECORD_BYTES: usize = 128;
/// First bytes of the ring's header, by which a memory dump is searched.
pub const RING_MAGIC: [u8; 8] = *b"SVRING\x01\n";
/// Size of the ring's header: the magic, then zeroes.
pub const RING_HEADER_BYTES: usize = 64;
/// Records that the ring holds; the oldest is overwritten.
pub const RING_RECORDS: usize = 63;
/// Size of the whole ring, in bytes.
pub const RING_BYTES: usize = RING_HEADER_BYTES + RING_RECORDS * RECORD_BYTES;

/// Offset of the record with this `count` (1 for the first) in the ring.
pub const fn record_offset(count: u64) -> usize {
    let slot = match count.wrapping_sub(1).checked_rem(RING_RECORDS as u64) {
        Some(slot) => slot as usize,
        None => 0,
    };
    RING_HEADER_BYTES.wrapping_add(slot.wrapping_mul(RECORD_BYTES))
}

const ABSENT: u64 = u64::MAX;
const ABSENT_CLASS: u8 = u8::MAX;

impl Violation {
    /// The record's bytes: little-endian fields, then the unit's name, then a checksum, so that a
    /// slot that was never written or is torn is told apart.
    pub fn encode(&self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        let class = self.class.map_or(ABSENT_CLASS, |class| class as u8);
        let small = [self.kind as u8, self.action as u8, self.cpl, class];
        let gpa = self.gpa.map_or(ABSENT, |gpa| gpa.0);
        let words = [self.count, gpa, self.rip.0, self.cr3, self.info];
        let fields = small
            .into_iter()
            .chain(self.cpu.to_le_bytes())
            .chain(words.into_iter().flat_map(u64::to_le_bytes))
            .chain(self.unit);
        for (slot, byte) in bytes.iter_mut().zip(fields) {
            *slot = byte;
        }
        let sum = checksum(&bytes);
        for (slot, byte) in bytes.iter_mut().rev().zip(sum.to_be_bytes().into_iter().rev()) {
            *slot = byte;
        }
        bytes
    }
}

/// FNV-1a over the record without its last four bytes: finds torn and empty slots, not forgery.
fn checksum(bytes: &[u8; RECORD_BYTES]) -> u32 {
    bytes
        .iter()
        .take(RECORD_BYTES - 4)
        .fold(0x811C_9DC5, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Violation {
        let mut unit = [0; UNIT_NAME_BYTES];
        unit[..12].copy_from_slice(b"kernel/.text");
        Violation {
            kind: Kind::KernelFetch,
            action: Action::Inject,
            cpu: 0,
            gpa: Some(Gpa(0x7f_f000)),
            rip: Gva(0xffff_8880_007f_f000),
            cr3: 0x123_4000,
            cpl: 0,
            class: Some(FrameClass::Data),
            info: 0,
            count: 7,
            unit,
        }
    }

    #[test]
    fn the_line_is_stable() {
        assert_eq!(
            sample().to_string(),
            "secvisor: violation kind=kernel-fetch cpu=0 gpa=0x7ff000 rip=0xffff8880007ff000 \
             cr3=0x1234000 cpl=0 class=data unit=kernel/.text count=7 info=0x0"
        );
        let audit = Violation { action: Action::Audit, gpa: None, class: None, ..sample() };
        assert_eq!(
            audit.to_string(),
            "secvisor: violation kind=kernel-fetch cpu=0 gpa=- rip=0xffff8880007ff000 \
             cr3=0x1234000 cpl=0 class=- unit=kernel/.text count=7 info=0x0 audit=no-guarantee-holds"
        );
    }

    #[test]
    fn the_record_is_stable() {
        let record = Violation { cpu: 2, cpl: 3, info: 9, ..sample() }.encode();
        assert_eq!(record[..8], [1, 0, 3, 0, 2, 0, 0, 0]);
        let words = [7, 0x7f_f000, 0xffff_8880_007f_f000, 0x123_4000, 9u64];
        assert_eq!(record[8..48], words.map(u64::to_le_bytes).concat());
        assert_eq!(record[48..60], *b"kernel/.text");
        assert_eq!(record[60..124], [0; 64]);
        let fnv = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(16_777_619);
        assert_eq!(record[124..], record[..124].iter().fold(2_166_136_261, fnv).to_be_bytes());
    }

    #[test]
    fn slots_follow_one_another_around_the_ring() {
        assert_eq!(RING_BYTES, 64 + 63 * 128);
        for count in 1..200 {
            assert_eq!(record_offset(count), 64 + (count as usize - 1) % 63 * 128, "{count}");
        }
    }

    #[test]
    fn an_empty_slot_is_no_record() {
        assert_eq!(Violation::decode(&[0; RECORD_BYTES]), None);
    }

    proptest! {
        #[test]
        fn records_round_trip(kind in 0usize..13, gpa: Option<u32>, class in 0u8..6, count: u64, name in "[a-z/.]{0,40}") {
            let mut unit = [0; UNIT_NAME_BYTES];
            unit[..name.len()].copy_from_slice(name.as_bytes());
            let violation = Violation {
                kind: Kind::ALL[kind],
                gpa: gpa.map(|gpa| Gpa(gpa.into())),
                class: gpa.map(|_| FrameClass::from_byte(class)),
                count,
                unit,
                ..sample()
            };
            prop_assert_eq!(Violation::decode(&violation.encode()), Some(violation));
        }

        #[test]
        fn a_changed_byte_is_no_record(at in 0usize..RECORD_BYTES, change in 1u8..) {
            let mut bytes = sample().encode();
            bytes[at] ^= change;
            prop_assert_eq!(Violation::decode(&bytes), None);
        }

        #[test]
        fn slots_stay_inside_the_ring(count in 1u64..) {
            prop_assert!(record_offset(count) + RECORD_BYTES <= RING_BYTES);
        }
    }
}
