//! The interface to the guest: exactly two hypercalls, and the CPUID leaves that announce them.
//!
//! VMMCALL with RAX = number and RBX, RCX, RDX = arguments; RAX returns 0 or a negative Linux
//! errno. `guest-patches/include/secvisor.h` is the same for C.

use crate::PAGE_SIZE;
use crate::violation::plain_text;

/// `approve_code`: RBX = 1 approve or 2 release, RCX = GVA of a [`Unit`], RDX = [`UNIT_BYTES`].
pub const APPROVE_CODE: u32 = 0x5EC0_0001;
/// `set_kernel_mode`: the kernel-mode environment is complete.
pub const SET_KERNEL_MODE: u32 = 0x5EC0_0002;
/// Version of this interface, in CPUID leaf 4000_0001h EAX.
pub const INTERFACE_VERSION: u32 = 1;
/// CPUID leaf 4000_0000h EBX, ECX, EDX.
pub const SIGNATURE: &[u8; 12] = b"SecVisorRust";

/// What a hypercall reports back to the guest, as a Linux errno.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
pub enum Error {
    /// The code is not on the approval list.
    NotPermitted = 1,
    /// Nothing was approved as this unit.
    NoEntry = 2,
    /// The descriptor's address cannot be read.
    Fault = 14,
    /// Already done.
    Busy = 16,
    /// An argument does not hold.
    Invalid = 22,
    /// No such hypercall.
    NoSystemCall = 38,
}

impl Error {
    /// The value of RAX for this error.
    pub const fn rax(self) -> u64 {
        (self as i32 as i64).wrapping_neg() as u64
    }
}

/// What a unit is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UnitKind {
    /// The kernel's init text, approved at launch.
    KernelInit,
    /// A module's core sections.
    ModuleCore,
    /// A module's init sections.
    ModuleInit,
}

/// What `approve_code` is to do with a unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Make it executable in kernel mode.
    Approve,
    /// Give it back as data.
    Release,
}

impl Operation {
    /// The operation that RBX names.
    ///
    /// # Errors
    /// [`Error::Invalid`] for anything but 1 and 2.
    pub const fn from_rbx(rbx: u64) -> Result<Self, Error> {
        match rbx {
            1 => Ok(Self::Approve),
            2 => Ok(Self::Release),
            _ => Err(Error::Invalid),
        }
    }
}

/// A page-aligned region of the guest's virtual addresses; empty if `size` is 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Region {
    /// First byte.
    pub base: u64,
    /// Bytes, a multiple of the page size.
    pub size: u64,
}

/// Size of a unit descriptor, in bytes.
pub const UNIT_BYTES: usize = 128;

/// A unit of kernel code, as the guest describes it: hostile until each field is checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unit {
    /// What it is.
    pub kind: UnitKind,
    /// The executable part of the module's core region.
    pub core: Region,
    /// The executable part of the init region.
    pub init: Region,
    /// Name, padded with zeroes.
    pub name: [u8; 64],
}

impl Unit {
    /// Reads a descriptor from the copy that SecVisor took of it.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown version or kind, reserved bytes that are not zero, and
    /// regions that are not page-aligned or wrap.
    pub fn parse(bytes: &[u8; UNIT_BYTES]) -> Result<Self, Error> {
        let word = |at: usize| {
            let bytes = bytes.get(at..).and_then(|tail| tail.first_chunk());
            bytes.copied().map(u64::from_le_bytes).ok_or(Error::Invalid)
        };
        let region = |at: usize| {
            let region = Region { base: word(at)?, size: word(at.saturating_add(8))? };
            let aligned =
                region.base.is_multiple_of(PAGE_SIZE) && region.size.is_multiple_of(PAGE_SIZE);
            let fits = region.base.checked_add(region.size).is_some();
            if aligned && fits { Ok(region) } else { Err(Error::Invalid) }
        };
        let header = word(0)?;
        if header & 0xFFFF_FFFF != 1 || word(40)? != 0 || word(48)? != 0 || word(56)? != 0 {
            return Err(Error::Invalid);
        }
        let kind = match header >> 32 {
            0 => UnitKind::KernelInit,
            1 => UnitKind::ModuleCore,
            2 => UnitKind::ModuleInit,
            _ => return Err(Error::Invalid),
        };
        let name = bytes.last_chunk().copied().ok_or(Error::Invalid)?;
        Ok(Self { kind, core: region(8)?, init: region(24)?, name })
    }

    /// The region that its kind means.
    pub const fn region(&self) -> Region {
        if matches!(self.kind, UnitKind::ModuleCore) { self.core } else { self.init }
    }

    /// The name as text; `?` if it is not plain text.
    pub fn name(&self) -> &str {
        plain_text(&self.name).unwrap_or("?")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn descriptor(kind: u32, core: (u64, u64), init: (u64, u64)) -> [u8; UNIT_BYTES] {
        let mut bytes = [0; UNIT_BYTES];
        bytes[0] = 1;
        bytes[4..8].copy_from_slice(&kind.to_le_bytes());
        for (slot, word) in bytes[8..40].chunks_mut(8).zip([core.0, core.1, init.0, init.1]) {
            slot.copy_from_slice(&word.to_le_bytes());
        }
        bytes[64..70].copy_from_slice(b"kernel");
        bytes
    }

    #[test]
    fn honest_descriptors_parse() {
        let unit = Unit::parse(&descriptor(0, (0, 0), (0xffff_ffff_8200_0000, 0x4000))).unwrap();
        assert_eq!(unit.kind, UnitKind::KernelInit);
        assert_eq!(unit.init, Region { base: 0xffff_ffff_8200_0000, size: 0x4000 });
        assert_eq!(&unit.name[..7], b"kernel\0");
        let core = Unit::parse(&descriptor(1, (0x1000, 0x2000), (0, 0))).unwrap();
        assert_eq!((core.kind, core.name()), (UnitKind::ModuleCore, "kernel"));
    }

    #[test]
    fn operations_and_kinds_have_their_numbers() {
        let operations = [(1, Operation::Approve), (2, Operation::Release)];
        for rbx in [0, 1, 2, 3, 1 << 32 | 1] {
            let operation = operations.iter().find(|it| it.0 == rbx).map(|it| it.1);
            assert_eq!(Operation::from_rbx(rbx), operation.ok_or(Error::Invalid), "{rbx:#x}");
        }
        let (core, init) = ((0x1000, 0x2000), (0x5000, 0x1000));
        for (number, kind, base) in [
            (0, UnitKind::KernelInit, 0x5000),
            (1, UnitKind::ModuleCore, 0x1000),
            (2, UnitKind::ModuleInit, 0x5000),
        ] {
            let unit = Unit::parse(&descriptor(number, core, init)).unwrap();
            assert_eq!((unit.kind, unit.region().base), (kind, base));
        }
    }

    #[test]
    fn hostile_descriptors_do_not() {
        for (kind, core, init) in [
            (3, (0x1000, 0x1000), (0x1000, 0x1000)),
            (1, (0x1001, 0x1000), (0, 0)),
            (1, (0x1000, 0x1001), (0, 0)),
            (1, (0xFFFF_FFFF_FFFF_F000, 0x2000), (0, 0)), // wraps
        ] {
            assert_eq!(Unit::parse(&descriptor(kind, core, init)), Err(Error::Invalid));
        }
        let honest = descriptor(1, (0x1000, 0x1000), (0, 0));
        for reserved in 40..64 {
            let mut bytes = honest;
            bytes[reserved] = 1;
            assert_eq!(Unit::parse(&bytes), Err(Error::Invalid));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(bytes in prop::array::uniform32(any::<[u8; 4]>())) {
            let bytes: Vec<u8> = bytes.into_iter().flatten().collect();
            let _ = Unit::parse(bytes.as_slice().first_chunk().unwrap());
        }
    }

    #[test]
    fn errors_are_negative_errnos() {
        assert_eq!(Error::Invalid.rax() as i64, -22);
    }
}
