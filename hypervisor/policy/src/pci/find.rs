//! Finding the guarded functions, once before the guest starts.

use super::{Guarded, Role};

/// The role of a class: base class and subclass, the high half of register 8.
const fn role(class: u16) -> Role {
    match class {
        0x0600 | 0x0680 | 0x0806 => Role::Guarded,
        0x0601 => Role::GuardedButForRouting,
        _ => Role::Ordinary,
    }
}

impl Guarded {
    /// Asks for the class of every function of bus 0: `class` gets device times 8 plus function
    /// and gives base class and subclass, FFFFh where there is none.
    pub fn find(class: impl Fn(u8) -> u16) -> Self {
        let mut roles = [Role::Ordinary; 256];
        for (slot, function) in roles.iter_mut().zip(0..=u8::MAX) {
            *slot = role(class(function));
        }
        Self { roles }
    }

    /// The guarded functions, device times 8 plus function.
    pub fn functions(&self) -> impl Iterator<Item = u8> + '_ {
        let numbered = self.roles.iter().zip(0..=u8::MAX);
        numbered.filter(|(role, _)| **role != Role::Ordinary).map(|(_, function)| function)
    }
}
