//! What `set_kernel_mode` pins.

use crate::msr::{CSTAR, EFER, LSTAR, SFMASK, STAR};

const MP: u64 = 1 << 1;
const EM: u64 = 1 << 2;
const TS: u64 = 1 << 3;
const NE: u64 = 1 << 5;
const AM: u64 = 1 << 18;
const NW: u64 = 1 << 29;
const CD: u64 = 1 << 30;
/// What the kernel may still change in CR0: all but PE, WP and PG, and what is reserved.
const FREE_CR0: u64 = MP | EM | TS | NE | AM | NW | CD;
/// What it may still change in CR4: VME, PVI, TSD, DE, PSE, MCE, PGE, PCE, OSFXSR and OSXMMEXCPT,
/// which every processor with SVM has. PAE, UMIP, SMEP, SMAP, LA57 and all others are pinned.
const FREE_CR4: u64 = 0x7DF;

/// Whether a write to CR0 or CR4 leaves alone what is pinned.
pub const fn keeps_pinned(register: u8, old: u64, new: u64) -> bool {
    let free = if register == 0 { FREE_CR0 } else { FREE_CR4 };
    (old ^ new) & !free == 0
}

/// Whether the processor takes this CR0: write-through needs caching off (APM vol. 2, 3.1.1).
pub const fn is_valid_cr0(value: u64) -> bool {
    value & (NW | CD) != NW
}

/// Whether an MSR is pinned, and so may only be written with the value that it has.
pub const fn is_pinned_msr(msr: u32) -> bool {
    matches!(msr, EFER | STAR | LSTAR | CSTAR | SFMASK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protection_is_pinned_and_the_rest_is_not() {
        let cr0 = 0x8005_0033;
        for bit in [0, 4, 16, 31] {
            assert!(!keeps_pinned(0, cr0, cr0 ^ 1 << bit), "CR0 bit {bit}");
        }
        assert!((32..64).all(|bit| !keeps_pinned(0, cr0, cr0 ^ 1 << bit)));
        assert!([1, 2, 3, 5, 18, 29, 30].into_iter().all(|bit| keeps_pinned(
            0,
            cr0,
            cr0 ^ 1 << bit
        )));
        let cr4 = 0x0030_06B0;
        for bit in [5, 11, 12, 16, 17, 18, 20, 21, 22, 23, 63] {
            assert!(!keeps_pinned(4, cr4, cr4 ^ 1 << bit), "CR4 bit {bit}");
        }
        for bit in [2, 4, 7, 8] {
            assert!(keeps_pinned(4, cr4, cr4 ^ 1 << bit), "CR4 bit {bit}");
        }
    }

    #[test]
    fn what_vmrun_would_refuse_is_told() {
        assert!(is_valid_cr0(CD) && is_valid_cr0(CD | NW) && is_valid_cr0(0) && !is_valid_cr0(NW));
    }

    #[test]
    fn entry_registers_are_pinned() {
        assert!((STAR..=SFMASK).chain([EFER]).all(is_pinned_msr));
        assert!(!is_pinned_msr(0xC000_0100) && !is_pinned_msr(0x10));
    }
}
