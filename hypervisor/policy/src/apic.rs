//! Writes to the local APIC and the I/O APIC, by which a processor can be thrown out of SecVisor.
//!
//! INIT resets a processor and SIPI lets it run anywhere; SMI enters firmware. None may be raised
//! by the guest. (APM vol. 2, 16.5, 16.6; register offsets as in its table 16-2)

/// Offset of the interrupt command register's low half in the local APIC's page.
const ICR_LOW: u64 = 0x300;
/// x2APIC registers are MSRs from here, one per 16 bytes of the page.
const X2APIC_BASE: u32 = 0x800;

/// Whether a delivery mode (bits 8 to 10 of ICR, LVT and redirection entries) only interrupts.
const fn interrupts_only(value: u64, allowed: u8) -> bool {
    allowed & (1 << ((value >> 8) & 7)) != 0
}

const FIXED: u8 = 1 << 0;
const LOWEST_PRIORITY: u8 = 1 << 1;
const NMI: u8 = 1 << 4;
const EXTERNAL: u8 = 1 << 7;

/// Whether a write of `value` to the local APIC register at `offset` (bytes into its page) may
/// pass: an allow list, since what is written elsewhere in the window becomes a message.
pub const fn local_write_allowed(offset: u64, value: u64) -> bool {
    match offset {
        ICR_LOW => interrupts_only(value, FIXED | LOWEST_PRIORITY | NMI),
        // LVT: machine check, timer, thermal, performance counter, LINT0, LINT1, error; extended.
        0x2F0 | 0x320 | 0x330 | 0x340 | 0x350 | 0x360 | 0x370 | 0x500..=0x53F => {
            interrupts_only(value, FIXED | NMI | EXTERNAL)
        }
        // ID, version (read-only: old kernels try that at boot), TPR, EOI, LDR, DFR, SVR, ESR, ICR high, timer count and divider, self-IPI; extended.
        0x20
        | 0x30
        | 0x80
        | 0xB0
        | 0xD0
        | 0xE0
        | 0xF0
        | 0x280
        | 0x310
        | 0x380
        | 0x3E0
        | 0x3F0
        | 0x400..=0x4F0 => true,
        _ => false,
    }
}

/// Whether a WRMSR of `value` to the x2APIC register `msr` (800h-8FFh) may pass.
pub const fn x2apic_write_allowed(msr: u32, value: u64) -> bool {
    local_write_allowed((msr.wrapping_sub(X2APIC_BASE) as u64) << 4, value)
}

/// Whether a write of `value` to the I/O APIC register with this `index` may pass. Low halves of
/// redirection entries have even indices from 10h.
pub const fn io_write_allowed(index: u8, value: u32) -> bool {
    index < 0x10
        || !index.is_multiple_of(2)
        || interrupts_only(value as u64, FIXED | LOWEST_PRIORITY | NMI | EXTERNAL)
}

/// Whether a write of `value` to the HPET register at `offset` may pass: comparators must not send
/// their interrupts as writes of the guest's choice (HPET specification 1.0a, 2.3.8).
pub const fn hpet_write_allowed(offset: u64, value: u32) -> bool {
    const FSB_ENABLE: u32 = 1 << 14;
    match (offset >= 0x100, offset % 0x20) {
        (true, 0x10..) => false,
        (true, 0) => value & FSB_ENABLE == 0,
        _ => true,
    }
}

/// Whether the local APIC's page holds its registers, by APIC_BASE (MSR 1Bh): only in xAPIC mode.
/// In any other a store there leaves the processor, as a message of the guest's choice.
pub const fn page_holds_registers(base: u64) -> bool {
    base >> 10 & 3 == 2
}

/// Whether APIC_BASE (MSR 1Bh) may change from `old` to `new`: the address and the boot-processor
/// flag stay, and the mode moves only as the processor allows (APM vol. 2, 16.9).
pub const fn base_write_allowed(old: u64, new: u64) -> bool {
    const MODE: u64 = 3 << 10;
    const DISABLED: u64 = 0;
    const X2APIC_ONLY: u64 = 1 << 10;
    const XAPIC: u64 = 2 << 10;
    const X2APIC: u64 = 3 << 10;
    let same_place = old & !MODE == new & !MODE;
    let allowed = match (old & MODE, new & MODE) {
        (X2APIC_ONLY, _) | (_, X2APIC_ONLY) => false,
        (_, DISABLED) | (DISABLED, XAPIC) | (XAPIC, _) | (X2APIC, X2APIC) => true,
        _ => false,
    };
    same_place && allowed
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODES: [(u64, bool); 8] = [
        (0, true),  // fixed
        (1, true),  // lowest priority
        (2, false), // SMI
        (3, false),
        (4, true),  // NMI
        (5, false), // INIT
        (6, false), // start-up
        (7, false),
    ];

    #[test]
    fn interrupt_commands_that_reset_or_start_a_processor_are_refused() {
        for (mode, allowed) in MODES {
            for rest in [0x0C_40FF, 0x0008_0020, 0x0004_C000] {
                let value = rest & !0x700 | mode << 8;
                assert_eq!(local_write_allowed(0x300, value), allowed, "{value:#x}");
                assert_eq!(x2apic_write_allowed(0x830, value | 7 << 32), allowed, "{value:#x}");
            }
        }
    }

    #[test]
    fn no_local_vector_raises_init_or_smi() {
        for offset in [0x320, 0x330, 0x340, 0x350, 0x360, 0x370, 0x500, 0x530] {
            assert!(!local_write_allowed(offset, 5 << 8));
            assert!(!local_write_allowed(offset, 2 << 8));
            assert!(local_write_allowed(offset, 7 << 8));
            assert!(!x2apic_write_allowed(0x800 + (offset >> 4) as u32, 5 << 8));
        }
        assert!(local_write_allowed(0xB0, u64::MAX));
        // What is read-only takes a write and drops it; what is no register would send a message.
        assert!(local_write_allowed(0x30, 5 << 8));
        assert!(!local_write_allowed(0, 5 << 8) && !local_write_allowed(0xFF0, 0));
    }

    #[test]
    fn no_redirection_entry_raises_init_or_smi() {
        for index in 0..=0xFF {
            for mode in 0..8 {
                let entry = index >= 0x10 && index % 2 == 0;
                let allowed = !entry || [0, 1, 4, 7].contains(&mode);
                assert_eq!(
                    io_write_allowed(index, 0x1_0030 | mode << 8),
                    allowed,
                    "{index:#x} {mode}"
                );
            }
        }
    }

    /// Local vectors, and what takes any value (the extended ones have ranges).
    const VECTORS: [u64; 7] = [0x2F0, 0x320, 0x330, 0x340, 0x350, 0x360, 0x370];
    const PLAIN: [u64; 12] =
        [0x20, 0x30, 0x80, 0xB0, 0xD0, 0xE0, 0xF0, 0x280, 0x310, 0x380, 0x3E0, 0x3F0];

    #[test]
    fn every_register_takes_its_delivery_modes_and_no_other() {
        for offset in 0..0x1000 {
            for mode in 0..8 {
                let allowed = match offset {
                    0x300 => [0, 1, 4].contains(&mode),
                    0x500..0x540 => [0, 4, 7].contains(&mode),
                    0x400..=0x4F0 => true,
                    _ if VECTORS.contains(&offset) => [0, 4, 7].contains(&mode),
                    _ => PLAIN.contains(&offset),
                };
                let value = 0x1_4030 | mode << 8;
                assert_eq!(local_write_allowed(offset, value), allowed, "{offset:#x} {mode}");
            }
        }
    }

    #[test]
    fn no_comparator_writes_to_memory() {
        for timer in 0..32 {
            let base = 0x100 + timer * 0x20;
            assert!(hpet_write_allowed(base, 0x4) && !hpet_write_allowed(base, 0x4004));
            assert!(hpet_write_allowed(base + 8, u32::MAX));
            assert!(!hpet_write_allowed(base + 0x10, 0) && !hpet_write_allowed(base + 0x14, 0));
        }
        assert!((0..0x100).all(|offset| hpet_write_allowed(offset, u32::MAX)));
    }

    #[test]
    fn the_page_is_an_apic_in_xapic_mode_only() {
        assert!(page_holds_registers(0xFEE0_0900));
        for other in [0xFEE0_0100, 0xFEE0_0D00, 0xFEE0_0500] {
            assert!(!page_holds_registers(other), "{other:#x}");
        }
    }

    #[test]
    fn the_local_apic_stays_where_it_is() {
        // Disabled, a mode that there is not, xAPIC, x2APIC: bits 10 and 11.
        let modes = [0, 1 << 10, 2 << 10, 3 << 10];
        let here = 0xFEE0_0100;
        let allowed = [
            [true, false, true, false],
            [false, false, false, false],
            [true, false, true, true],
            [true, false, false, true],
        ];
        for (old, row) in modes.into_iter().zip(allowed) {
            for (new, allowed) in modes.into_iter().zip(row) {
                let (old, new) = (here | old, here | new);
                assert_eq!(base_write_allowed(old, new), allowed, "{old:#x} {new:#x}");
                for bit in (0..64).filter(|bit| ![10, 11].contains(bit)) {
                    assert!(!base_write_allowed(old, new ^ 1 << bit), "{old:#x} {new:#x} {bit}");
                }
            }
        }
    }
}
