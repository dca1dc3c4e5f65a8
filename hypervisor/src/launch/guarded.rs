//! The frames whose every write SecVisor judges, found before the guest starts.

use arrayvec::ArrayVec;
use boot::acpi::AcpiTables;
use boot::memory::PhysicalMemory;
use policy::address::PhysicalRange;
use policy::{PAGE_SIZE, pci};

use crate::memory::Launch;

/// The FCH's registers, which can move the sleep register (AMD PPR, "ACPIMMIO").
const FCH_REGISTERS: u64 = 0xFED8_0000;
/// What a write may interrupt a processor with: local APICs, and messages to them.
const INTERRUPT_WINDOW: (u64, u64) = (0xFEE0_0000, 1 << 20);
/// Bytes of a function's memory-mapped configuration.
const FUNCTION_BYTES: u64 = 4096;

/// Takes from QEMU's paravirtual APIC, which writes wherever its option ROM's state says and patches code
/// that reads the task priority, what it knows that state by. Returns the places of such states; `None` if
/// one cannot be written or there are too many.
pub fn disarm_virtual_apic(memory: &mut Launch) -> Option<ArrayVec<u64, 4>> {
    const SIGNATURE: &[u8; 8] = b"kvm aPiC";
    const OPTION_ROMS: (u64, u64) = (0xC_0000, 0x3_0000);
    let mut places = ArrayVec::new();
    let roms = memory.bytes_mut(PhysicalRange::new(OPTION_ROMS.0, OPTION_ROMS.1)?);
    while let Some(at) = roms.windows(SIGNATURE.len()).position(|bytes| bytes == SIGNATURE) {
        places.try_push(OPTION_ROMS.0 + at as u64).ok()?;
        // Memory that is read-only here keeps what it holds.
        roms[at..at + SIGNATURE.len()].fill(0);
    }
    Some(places)
}

/// The frames whose every write SecVisor judges; `None` if there are more than it can keep.
pub fn guarded_frames(
    acpi: &AcpiTables,
    pci: &pci::Guarded,
    virtual_apic: ArrayVec<u64, 4>,
) -> Option<ArrayVec<PhysicalRange, 128>> {
    let mut frames = ArrayVec::new();
    let registers = acpi.io_apics.iter().copied().chain(acpi.local_apic).chain(acpi.hpet);
    let configuration = acpi.ecam.iter().flat_map(|ecam| {
        pci.functions().map(|function| ecam.start() + u64::from(function) * FUNCTION_BYTES)
    });
    let pages = registers.chain([FCH_REGISTERS]).chain(virtual_apic).chain(configuration);
    let pages = pages.map(|page| (page & !(PAGE_SIZE - 1), PAGE_SIZE));
    for (start, length) in pages.chain([INTERRUPT_WINDOW]) {
        frames.try_push(PhysicalRange::new(start, length)?).ok()?;
    }
    Some(frames)
}
