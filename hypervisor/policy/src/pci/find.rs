//! Finding the guarded functions, once before the guest starts.

use super::{Guarded, Role};

/// Whose ISA bridges route interrupts by the registers that may be written; others' decode memory there.
const INTEL: u16 = 0x8086;

/// The role of a vendor's function by its class: base class and subclass, the high half of register 8.
const fn role((vendor, class): (u16, u16)) -> Role {
    match (class, vendor) {
        (0x0601, INTEL) => Role::GuardedButForRouting,
        (0x0600 | 0x0601 | 0x0680 | 0x0806, _) => Role::Guarded,
        _ => Role::Ordinary,
    }
}

impl Guarded {
    /// Asks for every function of bus 0: `function` gets device times 8 plus function and gives vendor,
    /// and base class and subclass, all FFFFh where there is none.
    pub fn find(function: impl Fn(u8) -> (u16, u16)) -> Self {
        let mut roles = [Role::Ordinary; 256];
        for (slot, number) in roles.iter_mut().zip(0..=u8::MAX) {
            *slot = role(function(number));
        }
        Self { roles }
    }

    /// The guarded functions, device times 8 plus function.
    pub fn functions(&self) -> impl Iterator<Item = u8> + '_ {
        let numbered = self.roles.iter().zip(0..=u8::MAX);
        numbered.filter(|(role, _)| **role != Role::Ordinary).map(|(_, function)| function)
    }
}
