//! Model-specific registers: what the guest may read and write.
//!
//! One table, an allow list: a register that is not in it cannot be written.

mod map;

pub use map::{MAP_BYTES, fill_map};

/// What a guest's access to a register does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rule {
    /// Reads and writes reach the hardware with no exit.
    Pass,
    /// Reads reach the hardware; SecVisor performs the write after a check of its own.
    Checked,
    /// Reads reach the hardware; the write is dropped, the register keeps its value.
    Ignored,
    /// SecVisor answers reads and keeps what is written.
    Shadowed,
    /// Reads reach the hardware; a write is a violation.
    ReadOnly,
    /// Neither exists for the guest: #GP, and a write is a violation too.
    Absent,
}

/// Extended feature enable register.
pub const EFER: u32 = 0xC000_0080;
/// Selectors for SYSCALL and SYSRET.
pub const STAR: u32 = 0xC000_0081;
/// Entry point of 64-bit SYSCALL.
pub const LSTAR: u32 = 0xC000_0082;
/// Entry point of SYSCALL from compatibility mode.
pub const CSTAR: u32 = 0xC000_0083;
/// Flags that SYSCALL clears.
pub const SFMASK: u32 = 0xC000_0084;
/// Local APIC base.
pub const APIC_BASE: u32 = 0x1B;
/// Debug control.
pub const DEBUGCTL: u32 = 0x1D9;

/// A row of the table: first and last register, the rule, the reason.
pub type Row = (u32, u32, Rule, &'static str);

/// Every register that is not simply [`Rule::ReadOnly`]. Rows do not overlap.
pub const TABLE: &[Row] = &[
    (0x10, 0x10, Rule::Pass, "time stamp counter"),
    (APIC_BASE, APIC_BASE, Rule::Checked, "the local APIC's page is guarded where it is"),
    (0x48, 0x49, Rule::Pass, "speculation control: the guest's own"),
    (0x8B, 0x8B, Rule::Ignored, "microcode revision: kernels write 0 before they read it"),
    (0xE7, 0xE8, Rule::Pass, "frequency counters"),
    (0x174, 0x176, Rule::Ignored, "SYSENTER is hidden: its code segment stays 0"),
    (0x179, 0x17B, Rule::Ignored, "machine check control stays as firmware left it"),
    (DEBUGCTL, DEBUGCTL, Rule::Checked, "branch single-step would escape the segment-load step"),
    (0x277, 0x277, Rule::Pass, "page attributes: the VMCB holds the guest's own"),
    (0x400, 0x47F, Rule::Ignored, "machine check banks stay as firmware left them"),
    (0x800, 0x8FF, Rule::Checked, "x2APIC: INIT and SIPI are refused"),
    (EFER, EFER, Rule::Shadowed, "SVME is hidden, SCE is off in the user view"),
    (STAR, SFMASK, Rule::Checked, "SecVisor performs SYSCALL from the user view"),
    (0xC000_0100, 0xC000_0103, Rule::Pass, "FS, GS and KernelGS bases, TSC_AUX"),
    (0xC000_2000, 0xC000_2FFF, Rule::Ignored, "machine check banks stay as firmware left them"),
    (0xC001_0000, 0xC001_0007, Rule::Pass, "performance counters"),
    (0xC001_001F, 0xC001_001F, Rule::Ignored, "northbridge configuration stays as it is"),
    (
        0xC001_0114,
        0xC001_011B,
        Rule::Absent,
        "SVM: hidden, and VM_HSAVE_PA names SecVisor's memory",
    ),
    (0xC001_011F, 0xC001_011F, Rule::Pass, "speculation control, virtual form"),
    (0xC001_0200, 0xC001_020B, Rule::Pass, "performance counters"),
    (0xC001_1005, 0xC001_1005, Rule::Ignored, "CPUID features stay as firmware left them"),
    (0xC001_1020, 0xC001_102E, Rule::Ignored, "unit configuration: kernels switch errata off"),
];

/// The rule for a register.
pub fn rule(msr: u32) -> Rule {
    let row = TABLE.iter().find(|row| row.0 <= msr && msr <= row.1);
    row.map_or(Rule::ReadOnly, |row| row.2)
}

/// System call extensions.
pub const SCE: u64 = 1;
const LME: u64 = 1 << 8;
/// Long mode active.
pub const LMA: u64 = 1 << 10;
/// Secure virtual machine enable: set while the guest runs, never seen by it.
pub const SVME: u64 = 1 << 12;
/// No-execute pages.
pub const NXE: u64 = 1 << 11;
/// Fast FXSAVE and FXRSTOR.
pub const FFXSR: u64 = 1 << 14;
/// Translation cache extension.
pub const TCE: u64 = 1 << 15;

/// EFER after the guest wrote `new` where the hardware holds `old`; `None` if it must get #GP:
/// a bit that is not `supported` (of those above; any other is never the guest's), or LME changed
/// while `paging` is on (APM vol. 2, 3.1.7).
pub const fn efer_write(old: u64, new: u64, paging: bool, supported: u64) -> Option<u64> {
    let lme_changes = (old ^ new) & LME != 0;
    let known = supported & (SCE | NXE | FFXSR | TCE) | LME | LMA;
    if new & !known != 0 || (paging && lme_changes) {
        return None;
    }
    Some(new & !LMA | old & LMA | SVME)
}

/// Whether `address` is canonical for 48-bit virtual addresses, which the hardware demands of
/// entry points.
pub const fn is_canonical(address: u64) -> bool {
    let upper = address >> 47;
    upper == 0 || upper == 0x1_FFFF
}

#[cfg(test)]
mod tests {
    use super::map::exits;
    use super::*;

    #[test]
    fn rows_are_sorted_and_disjoint() {
        assert!(TABLE.iter().all(|row| row.0 <= row.1));
        assert!(TABLE.windows(2).all(|rows| rows[0].1 < rows[1].0));
    }

    #[test]
    fn what_moves_memory_or_processors_cannot_be_written() {
        let denied = [
            0x79,
            0x200,
            0x20F,
            0x250,
            0x268,
            0x2FF, // microcode, MTRRs
            0xC001_0010,
            0xC001_0015,
            0xC001_0016,
            0xC001_0019,
            0xC001_001A,
            0xC001_001D,
            0xC001_0020,
            0xC001_0058,
            0xC001_0111,
            0xC001_0112,
            0xC001_0113,
        ];
        assert!(denied.into_iter().all(|msr| rule(msr) == Rule::ReadOnly));
        assert!((0xC001_0114..=0xC001_011B).all(|msr| rule(msr) == Rule::Absent));
        assert_eq!(rule(0x1234_5678), Rule::ReadOnly);
    }

    #[test]
    fn the_map_says_what_the_table_does() {
        let mut map = [0; MAP_BYTES];
        fill_map(&mut map);
        let bits = |msr: u32| {
            let (slot, base) = match msr {
                0..0x2000 => (0, 0),
                0xC000_0000..0xC000_2000 => (2048, 0xC000_0000),
                _ => (4096, 0xC001_0000),
            };
            let at = (msr - base) as usize * 2;
            map[slot + at / 8] >> (at % 8) & 3
        };
        for base in [0, 0xC000_0000, 0xC001_0000] {
            for msr in base..base + 0x2000 {
                assert_eq!(bits(msr), exits(msr), "{msr:#x}");
            }
        }
        assert!(map[6144..].iter().all(|&byte| byte == 0xFF));
        assert_eq!((bits(0xC000_0101), bits(0x1B), bits(EFER), bits(0xC001_0010)), (0, 2, 3, 2));
    }

    #[test]
    fn efer_keeps_svme_and_lma() {
        assert_eq!(
            efer_write(SVME | LMA | LME, LME | SCE, true, SCE | NXE),
            Some(SVME | LMA | LME | SCE)
        );
        assert_eq!(efer_write(SVME, SVME, false, SCE | NXE), None);
        assert_eq!(efer_write(SVME | LMA | LME, SCE, true, SCE | NXE), None);
        assert_eq!(efer_write(SVME, 1 << 20, false, SCE | NXE), None);
        assert_eq!(efer_write(SVME, TCE, false, SCE | NXE), None);
        assert_eq!(efer_write(SVME, TCE, false, TCE | 1 << 20), Some(SVME | TCE));
    }

    #[test]
    fn efer_takes_what_there_is_and_is_supported() {
        // SCE, LME, LMA, NXE, FFXSR and TCE; LME and LMA are there wherever SVM is.
        let (known, always) = ([0, 8, 10, 11, 14, 15], [8, 10]);
        for bit in 0..64 {
            let new = 1 << bit;
            for old in [0x1000, 0x1400] {
                let written = new & !0x400 | old & 0x400 | 0x1000;
                let taken = |bits: &[i32]| bits.contains(&bit).then_some(written);
                assert_eq!(efer_write(old, new, false, !0), taken(&known), "bit {bit}");
                assert_eq!(efer_write(old, new, false, !new), taken(&always), "bit {bit}");
            }
            let paged = efer_write(0x1500, new | 0x100, true, !0);
            assert_eq!(paged, known.contains(&bit).then_some(new & !0x400 | 0x1500), "bit {bit}");
            assert_eq!(efer_write(0x1500, new & !0x100, true, !0), None, "bit {bit}");
        }
        assert_eq!(efer_write(0x1100, 0, false, !0), Some(0x1000));
    }

    #[test]
    fn canonical_addresses_are_told() {
        assert!(is_canonical(0x7FFF_FFFF_FFFF) && is_canonical(0xFFFF_8000_0000_0000));
        assert!(!is_canonical(0x8000_0000_0000) && !is_canonical(0x1000_0000_0000_0000));
    }
}
