//! Whether this machine can keep the guarantee, and making its processor ready for guests.
#![allow(unsafe_code, reason = "switches SVM on")]

use core::fmt;

use policy::{msr, pci};

use crate::svm::cpu;

const EFER: u32 = 0xC000_0080;
const SVME: u64 = 1 << 12;
const VM_CR: u32 = 0xC001_0114;
const SVM_DISABLED: u64 = 1 << 4;
const VM_HSAVE_PA: u32 = 0xC001_0117;
const SYSCFG: u32 = 0xC001_0010;
const MEMORY_ENCRYPTION: u64 = 1 << 23;
/// ASIDs: 0 is SecVisor's own, one for each view.
const ASIDS: u32 = 3;

/// What the processor can do, as far as SecVisor cares (CPUID).
pub struct Features {
    /// Bits of a physical address that a guest can have.
    pub address_bits: u32,
    /// 1 GiB pages.
    pub giant_pages: bool,
    /// One ASID can be flushed alone.
    pub flush_by_asid: bool,
    /// Exits tell the next instruction's address.
    pub next_rip: bool,
    /// Guest Mode Execute Trap: nested paging tells kernel and user fetches apart.
    pub gmet: bool,
    /// Bits of EFER that the processor has, as [`policy::msr::efer_write`] takes them.
    pub efer: u64,
}

/// Why the machine cannot keep the guarantee.
pub enum Unfit {
    /// No SVM.
    NoSvm,
    /// The firmware switched SVM off.
    SvmDisabled,
    /// No nested paging.
    NoNestedPaging,
    /// Too few ASIDs.
    Asids(u32),
    /// Memory encryption moves addresses.
    MemoryEncryption,
    /// The GART re-maps physical addresses.
    Gart,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSvm => f.write_str(
                "this processor has no SVM (CPUID 8000_0001h ECX bit 2 is 0); SecVisor needs an AMD \
                 processor with AMD-V, or an emulator that offers it (QEMU: -cpu ...,+svm,+npt)",
            ),
            Self::SvmDisabled => f.write_str(
                "the firmware switched SVM off (VM_CR.SVMDIS is 1); enable SVM or AMD-V in its setup",
            ),
            Self::NoNestedPaging => f.write_str(
                "this processor has no nested paging (CPUID 8000_000Ah EDX bit 0 is 0); SecVisor \
                 needs it (QEMU: -cpu ...,+npt)",
            ),
            Self::Asids(count) => write!(f, "this processor has {count} ASIDs; SecVisor needs {ASIDS}"),
            Self::MemoryEncryption => f.write_str(
                "memory encryption is on (SYSCFG.SMEE is 1) and would re-map physical addresses; \
                 disable SME in the firmware's setup",
            ),
            Self::Gart => f.write_str(
                "the GART is on and would re-map physical addresses; disable it in the firmware's setup",
            ),
        }
    }
}

/// Reads what the processor can do.
///
/// # Errors
/// What it lacks, or what would undo the guarantee.
pub fn check() -> Result<Features, Unfit> {
    let largest = cpu::cpuid(0x8000_0000, 0).eax;
    let extended = |leaf: u32| {
        let none = cpu::CpuidResult { eax: 0, ebx: 0, ecx: 0, edx: 0 };
        if leaf <= largest { cpu::cpuid(leaf, 0) } else { none }
    };
    let features = extended(0x8000_0001);
    if features.ecx & 1 << 2 == 0 {
        return Err(Unfit::NoSvm);
    }
    if cpu::read_msr(VM_CR).unwrap_or(0) & SVM_DISABLED != 0 {
        return Err(Unfit::SvmDisabled);
    }
    let svm = extended(0x8000_000A);
    if svm.edx & 1 == 0 {
        return Err(Unfit::NoNestedPaging);
    }
    if svm.ebx < ASIDS {
        return Err(Unfit::Asids(svm.ebx));
    }
    let encryption = extended(0x8000_001F).eax & 1 != 0;
    if encryption && cpu::read_msr(SYSCFG).unwrap_or(MEMORY_ENCRYPTION) & MEMORY_ENCRYPTION != 0 {
        return Err(Unfit::MemoryEncryption);
    }
    if gart_enabled() {
        return Err(Unfit::Gart);
    }
    let sizes = extended(0x8000_0008).eax;
    let (host, guest) = (sizes & 0xFF, sizes >> 16 & 0xFF);
    Ok(Features {
        address_bits: if guest != 0 { guest } else { host.max(36) },
        giant_pages: features.edx & 1 << 26 != 0,
        flush_by_asid: svm.edx & 1 << 6 != 0,
        next_rip: svm.edx & 1 << 3 != 0,
        gmet: svm.edx & 1 << 17 != 0,
        efer: [
            (features.edx >> 11, msr::SCE),
            (features.edx >> 20, msr::NXE),
            (features.edx >> 25, msr::FFXSR),
            (features.ecx >> 17, msr::TCE),
        ]
        .into_iter()
        .fold(0, |bits, (feature, bit)| if feature & 1 != 0 { bits | bit } else { bits }),
    })
}

/// Whether the GART of a northbridge before family 17h re-maps addresses (BKDG, F3x90 bit 0).
fn gart_enabled() -> bool {
    let read = |register: u32| pci_read(0x18 << 3 | 3, register);
    let signature = cpu::cpuid(1, 0).eax;
    let family = (signature >> 8 & 0xF) + (signature >> 20 & 0xFF);
    family < 0x17 && read(0) & 0xFFFF == 0x1022 && read(0x90) & 1 != 0
}

/// Reads a register of a function (device times 8 plus function) of PCI's bus 0, and leaves port
/// CF8h at 0.
fn pci_read(function: u32, register: u32) -> u32 {
    // SAFETY: the PCI configuration ports; reading a register there has no effect.
    unsafe {
        cpu::port_write(0xCF8, 4, 0x8000_0000 | function << 8 | register);
        let value = cpu::port_read(0xCFC, 4);
        cpu::port_write(0xCF8, 4, 0);
        value
    }
}

/// The functions of PCI's bus 0 whose configuration the guest may not write.
pub fn guarded_pci() -> pci::Guarded {
    pci::Guarded::find(|function| {
        let [vendor, class] = [0, 8].map(|register| pci_read(function.into(), register));
        (vendor as u16, (class >> 16) as u16)
    })
}

/// Switches SVM on, with the host save area at `save_area`.
///
/// # Errors
/// The processor refuses, although it said that it can.
pub fn enable_svm(save_area: u64) -> Result<(), cpu::GeneralProtection> {
    let efer = cpu::read_msr(EFER)?;
    assert!(efer & msr::NXE != 0, "nested tables deny execution only with EFER.NXE");
    // SAFETY: SVME only makes SVM's instructions valid; the save area is SecVisor's own page.
    unsafe {
        cpu::write_msr(EFER, efer | SVME)?;
        cpu::write_msr(VM_HSAVE_PA, save_area)
    }
}
