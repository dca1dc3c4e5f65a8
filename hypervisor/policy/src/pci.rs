//! PCI configuration that could move memory, its routing or the registers that SecVisor guards.
//!
//! Host bridges and the data fabric decide where memory is, ISA bridges where the sleep register
//! is, an IOMMU where its registers are; all of it from register 40h on. Those functions lie on
//! bus 0 and are found at launch by their class.

mod find;

/// Registers that every function has, base addresses and command among them: the guest's.
const HEADER_BYTES: u16 = 0x40;
/// Interrupt routing of ISA bridges, which kernels set up.
const INTERRUPT_ROUTING: core::ops::Range<u16> = 0x60..0x6C;
/// Bytes of a function's configuration space by ports.
const PORT_SPACE: u16 = 0x100;

/// What a function's class makes of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Role {
    Ordinary,
    Guarded,
    GuardedButForRouting,
}

/// The functions of bus 0 whose configuration is guarded.
#[derive(Clone, Debug)]
pub struct Guarded {
    /// By device and function number.
    roles: [Role; 256],
}

impl Guarded {
    /// Whether `size` bytes may be written `lane` bytes behind the register that `address`, as
    /// written to port CF8h, names.
    pub fn write_allowed(&self, address: u32, lane: u16, size: u8) -> bool {
        let [register, function, bus, flags] = address.to_le_bytes();
        let first = u16::from(register & 0xFC).saturating_add(lane);
        let last = first.saturating_add(u16::from(size)).saturating_sub(1);
        if last >= PORT_SPACE || u16::from(size).saturating_add(lane) > 4 {
            return false;
        }
        // Bits 24 to 27 of the address extend the register's number on AMD's processors.
        let header = last < HEADER_BYTES && flags & 0xF == 0;
        let routing = INTERRUPT_ROUTING.contains(&first) && INTERRUPT_ROUTING.contains(&last);
        match self.roles.get(usize::from(function)) {
            _ if bus != 0 || header => true,
            Some(Role::Ordinary) => true,
            Some(Role::GuardedButForRouting) => routing && flags & 0xF == 0,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine like QEMU's q35, and one function of AMD's data fabric.
    fn machine() -> Guarded {
        Guarded::find(|function| match function {
            0x00 => (0x8086, 0x0600),
            0xF8 => (0x8086, 0x0601),
            0xFA => (0x8086, 0x0106),
            0xC3 => (0x1022, 0x0600),
            0xA3 => (0x1022, 0x0601),
            _ => (0xFFFF, 0xFFFF),
        })
    }

    fn allowed(function: u8, register: u8, lane: u16, size: u8) -> bool {
        let address = 0x8000_0000 | u32::from(function) << 8 | u32::from(register);
        machine().write_allowed(address, lane, size)
    }

    #[test]
    fn what_routes_memory_is_guarded() {
        assert_eq!(machine().functions().collect::<Vec<_>>(), [0, 0xA3, 0xC3, 0xF8]);
        assert!(!allowed(0xA3, 0x60, 0, 4), "memory that AMD's bridge decodes");
        assert!(!allowed(0x00, 0x60, 0, 4), "PCIEXBAR");
        assert!(!allowed(0x00, 0x9C, 1, 1), "SMRAM");
        assert!(!allowed(0xF8, 0x40, 0, 4), "PMBASE");
        assert!(!allowed(0xF8, 0xF0, 0, 1), "RCBA");
        assert!(!allowed(0xC3, 0x90, 0, 4), "GART");
    }

    #[test]
    fn what_kernels_set_up_is_not() {
        for function in [0x00, 0xF8, 0xC3, 0xFA] {
            assert!(allowed(function, 0x04, 0, 2) && allowed(function, 0x3C, 3, 1));
        }
        assert!(allowed(0xF8, 0x60, 0, 1) && allowed(0xF8, 0x68, 3, 1));
        assert!(allowed(0xFA, 0x90, 2, 2));
        assert!(machine().write_allowed(0x8001_0060, 0, 4), "another bus");
    }

    #[test]
    fn every_byte_of_an_access_must_be_the_guests() {
        let machine = machine();
        // An ordinary function, two that are guarded, and one but for the routing of interrupts.
        for (function, guarded, routes) in
            [(0xFA, false, false), (0x00, true, false), (0xA3, true, false), (0xF8, true, true)]
        {
            for (low, (lane, size)) in (0..=0xFF_u32)
                .flat_map(|low| (0..6).flat_map(move |it| [1, 2, 4].map(|size| (low, (it, size)))))
            {
                for (high, bus, extended) in
                    [(0x8000_0000, 0, false), (0x8100_0000, 0, true), (0x8801_0000, 1, true)]
                {
                    let first = (low & !3) + u32::from(lane);
                    let own = |byte: u32| {
                        let free = byte < 0x40 || routes && (0x60..0x6C).contains(&byte);
                        bus != 0 || !guarded || free && !extended
                    };
                    let inside = lane + u16::from(size) <= 4;
                    let expected = inside && (first..first + u32::from(size)).all(own);
                    let address = high | function << 8 | low;
                    let allowed = machine.write_allowed(address, lane, size);
                    assert_eq!(allowed, expected, "{address:#x} {lane} {size}");
                }
            }
        }
    }

    #[test]
    fn accesses_that_reach_further_are_refused() {
        assert!(!allowed(0x00, 0x3C, 2, 4) && !allowed(0xF8, 0x6C, 0, 1));
        assert!(!allowed(0xFA, 0xFC, 3, 2));
        let extended = 0x8100_0000 | 0xC3 << 8 | 0x10;
        assert!(!machine().write_allowed(extended, 0, 4), "register 110h by bits 24 to 27");
    }
}
