//! The few facts that SecVisor takes from the firmware's ACPI tables (ACPI spec 6.5, chapter 5):
//! processors, interrupt controllers, the register that puts the machine to sleep, PCI's ECAM.

use arrayvec::ArrayVec;
use policy::address::PhysicalRange;

use crate::bytes::{sums_to_zero, u16_at, u32_at, u64_at};
use crate::error::BootError;

/// Processors at most.
pub const MAX_PROCESSORS: usize = 256;
/// I/O APICs at most.
pub const MAX_IO_APICS: usize = 16;
/// ECAM ranges at most.
pub const MAX_ECAM: usize = 4;
/// Bytes that a table has at most; what says more is damaged.
const MAX_TABLE: usize = 4 << 20;
/// Bytes of the header that every table begins with (table 5.4).
const HEADER: usize = 36;
/// FADT flag HW_REDUCED_ACPI: no PM1 registers, sleep goes by a register of its own (table 5.10).
const HARDWARE_REDUCED: u32 = 1 << 20;
/// Address space "system I/O" of a generic address structure (table 5.1).
const SYSTEM_IO: u8 = 1;

/// Offset of the base address in the HPET's table (HPET specification 1.0a, table 3).
const HPET_ADDRESS: usize = 44;

/// What the tables say.
#[derive(Clone, Debug, Default)]
pub struct AcpiTables {
    /// APIC ids of the processors that are enabled or can come online, each once.
    pub processors: ArrayVec<u32, MAX_PROCESSORS>,
    /// Physical addresses of the I/O APICs.
    pub io_apics: ArrayVec<u64, MAX_IO_APICS>,
    /// Physical address of the local APICs.
    pub local_apic: Option<u64>,
    /// Ports of PM1a_CNT and PM1b_CNT, 16 bits wide each.
    pub pm1_control: [Option<u16>; 2],
    /// SLP_TYPa and SLP_TYPb of S5, 0 to 7 each; `None` if the DSDT does not tell.
    pub s5_sleep_type: Option<[u8; 2]>,
    /// Physical address of the high precision event timer, if there is one.
    pub hpet: Option<u64>,
    /// Memory-mapped configuration space of PCI.
    pub ecam: ArrayVec<PhysicalRange, MAX_ECAM>,
}

/// Reads the tables from `rsdp` on, which [`crate::information`] checked. `memory` gives the bytes
/// at a physical address, or `None` where there are none to be read.
///
/// # Errors
/// A table that is damaged or, with MADT (signature APIC) and FADT (FACP), missing; more of
/// something than SecVisor can keep, because what it does not know it cannot guard.
pub fn read<'m>(
    rsdp: &[u8],
    memory: &impl Fn(u64, usize) -> Option<&'m [u8]>,
) -> Result<AcpiTables, BootError<'static>> {
    let (root, name, width) = match u64_at(rsdp, 24).filter(|&address| address != 0) {
        Some(xsdt) => (xsdt, "XSDT", 8),
        None => (u32_at(rsdp, 16).unwrap_or(0).into(), "RSDT", 4),
    };
    let root = checked(root, name, memory)?;
    let find = |name: &'static str| {
        let entries = root.get(HEADER..).unwrap_or_default().chunks_exact(width);
        let mut addresses = entries
            .filter_map(|entry| u64_at(entry, 0).or_else(|| u32_at(entry, 0).map(u64::from)));
        let named = |&address: &u64| memory(address, 4) == Some(name.as_bytes());
        addresses.find(named).map(|address| checked(address, name, memory)).transpose()
    };
    let mut tables = AcpiTables::default();
    tables.read_madt(find("APIC")?.ok_or(BootError::Acpi("APIC", "is missing"))?)?;
    let dsdt = tables.read_fadt(find("FACP")?.ok_or(BootError::Acpi("FACP", "is missing"))?)?;
    if let Some(mcfg) = find("MCFG")? {
        tables.read_mcfg(mcfg)?;
    }
    tables.hpet = find("HPET")?.and_then(|hpet| u64_at(hpet, HPET_ADDRESS));
    // Firmware gets the DSDT's checksum wrong now and then, and a wrong S5 only fails to turn off.
    tables.s5_sleep_type = table(dsdt, memory).and_then(s5_sleep_type);
    Ok(tables)
}

/// The table at `address`, as long as its header says.
fn table<'m>(address: u64, memory: &impl Fn(u64, usize) -> Option<&'m [u8]>) -> Option<&'m [u8]> {
    let length = u32_at(memory(address, HEADER)?, 4)? as usize;
    (HEADER..=MAX_TABLE).contains(&length).then(|| memory(address, length)).flatten()
}

/// The table at `address`, which must have this signature and a right checksum.
fn checked<'m>(
    address: u64,
    name: &'static str,
    memory: &impl Fn(u64, usize) -> Option<&'m [u8]>,
) -> Result<&'m [u8], BootError<'static>> {
    let table = table(address, memory).filter(|table| table.starts_with(name.as_bytes()));
    let table = table.ok_or(BootError::Acpi(name, "cannot be read"))?;
    match sums_to_zero(table, 0..table.len()) {
        true => Ok(table),
        false => Err(BootError::Acpi(name, "has a wrong checksum")),
    }
}

impl AcpiTables {
    /// Multiple APIC description table (tables 5.19 to 5.29).
    fn read_madt(&mut self, madt: &[u8]) -> Result<(), BootError<'static>> {
        let short = BootError::Acpi("APIC", "is cut short");
        let many = BootError::Acpi("APIC", "has more processors or I/O APICs than SecVisor keeps");
        self.local_apic = Some(u32_at(madt, HEADER).ok_or(short)?.into());
        let mut rest = madt.get(44..).ok_or(short)?;
        while let &[kind, length, ..] = rest {
            let entry = rest.get(..length.into()).filter(|entry| entry.len() >= 2).ok_or(short)?;
            match kind {
                // Processor local APIC, and its x2APIC form.
                0 | 9 => {
                    let (id, flags) = match kind {
                        0 => (entry.get(3).map(|&id| id.into()), u32_at(entry, 4)),
                        _ => (u32_at(entry, 4), u32_at(entry, 8)),
                    };
                    let (id, flags) = id.zip(flags).ok_or(short)?;
                    // Bit 0: enabled, bit 1: can come online.
                    if flags & 3 != 0 && !self.processors.contains(&id) {
                        self.processors.try_push(id).map_err(|_| many)?;
                    }
                }
                1 => {
                    let address = u32_at(entry, 4).ok_or(short)?.into();
                    self.io_apics.try_push(address).map_err(|_| many)?;
                }
                5 => self.local_apic = Some(u64_at(entry, 4).ok_or(short)?),
                _ => {}
            }
            rest = rest.get(entry.len()..).unwrap_or_default();
        }
        Ok(())
    }

    /// Fixed ACPI description table (table 5.9). Returns the DSDT's address.
    fn read_fadt(&mut self, fadt: &[u8]) -> Result<u64, BootError<'static>> {
        let short = BootError::Acpi("FACP", "is cut short");
        if u32_at(fadt, 112).is_some_and(|flags| flags & HARDWARE_REDUCED != 0) {
            return Err(BootError::Acpi("FACP", "has no PM1 registers (hardware-reduced ACPI)"));
        }
        let offsets: [(usize, usize); 2] = [(64, 172), (68, 184)];
        for (slot, (old, extended)) in self.pm1_control.iter_mut().zip(offsets) {
            let block = u64_at(fadt, extended.saturating_add(4)).filter(|&block| block != 0);
            let in_ports = fadt.get(extended) == Some(&SYSTEM_IO);
            let port = match block {
                Some(port) if in_ports => port,
                Some(_) => {
                    return Err(BootError::Acpi("FACP", "has its PM1 registers outside the ports"));
                }
                None => u32_at(fadt, old).ok_or(short)?.into(),
            };
            let port = u16::try_from(port);
            let port = port.map_err(|_| BootError::Acpi("FACP", "has a PM1 port above FFFFh"))?;
            *slot = (port != 0).then_some(port);
        }
        let extended = u64_at(fadt, 140).filter(|&dsdt| dsdt != 0);
        extended.or_else(|| u32_at(fadt, 40).map(u64::from)).ok_or(short)
    }

    /// Memory-mapped configuration space (PCI Firmware spec 3.3, table 4-2): entries of base
    /// address of bus 0, segment, first and last bus, 1 MiB for each bus.
    fn read_mcfg(&mut self, mcfg: &[u8]) -> Result<(), BootError<'static>> {
        let bad = BootError::Acpi("MCFG", "is damaged");
        for entry in mcfg.get(44..).ok_or(bad)?.chunks_exact(16) {
            let base = u64_at(entry, 0).ok_or(bad)?;
            let [first, last] = u16_at(entry, 10).ok_or(bad)?.to_le_bytes();
            let at = |bus: u64| base.checked_add(bus << 20);
            let start = at(first.into()).ok_or(bad)?;
            let end = at(u64::from(last).saturating_add(1)).ok_or(bad)?;
            let range = PhysicalRange::between(start, end).ok_or(bad)?;
            let many = BootError::Acpi("MCFG", "has more ranges than SecVisor keeps");
            self.ecam.try_push(range).map_err(|_| many)?;
        }
        Ok(())
    }
}

/// Finds `Name (_S5_, Package () {a, b, ...})` by its bytes in the DSDT (sections 7.4.2, 20.2).
fn s5_sleep_type(dsdt: &[u8]) -> Option<[u8; 2]> {
    let named = |bytes: &[u8]| bytes == b"\x08_S5_\x12" || bytes == b"\\_S5_\x12";
    let found = dsdt.windows(6).enumerate().filter(|(_, bytes)| named(bytes));
    found.filter_map(|(at, _)| dsdt.get(at.checked_add(6)?..)).find_map(|package| {
        // PkgLength: bits 7 and 6 of its first byte count the bytes of it that follow.
        let more = usize::from(package.first()? >> 6);
        match package.get(more.checked_add(1)?..)? {
            [elements, values @ ..] if *elements >= 2 => {
                let (a, values) = small_integer(values)?;
                Some([a, small_integer(values)?.0])
            }
            _ => None,
        }
    })
}

/// An integer from 0 to 7 in AML: ZeroOp, OneOp or BytePrefix and the byte.
fn small_integer(aml: &[u8]) -> Option<(u8, &[u8])> {
    match aml {
        [0x0A, value @ 0..8, rest @ ..] | [value @ 0..2, rest @ ..] => Some((*value, rest)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Tables at 1 MiB steps: RSDP's target, MADT, FADT, MCFG, DSDT.
    struct Firmware(Vec<(u64, Vec<u8>)>);

    fn table(name: &[u8], body: &[u8]) -> Vec<u8> {
        let mut table = name.to_vec();
        table.extend((body.len() as u32 + 36).to_le_bytes());
        table.resize(36, 0);
        table.extend(body);
        seal(&mut table);
        table
    }

    /// Makes the checksum right.
    fn seal(table: &mut [u8]) {
        table[9] = 0;
        table[9] = table.iter().fold(0u8, |sum, &byte| sum.wrapping_sub(byte));
    }

    fn fadt(length: usize, old: [u32; 2], extended: Option<[(u8, u64); 2]>) -> Vec<u8> {
        let mut fadt = table(b"FACP", &vec![0; length - 36]);
        put_u32(&mut fadt, 40, 0x50_0000);
        put_u32(&mut fadt, 64, old[0]);
        put_u32(&mut fadt, 68, old[1]);
        for (slot, (space, port)) in [172, 184].into_iter().zip(extended.into_iter().flatten()) {
            fadt[slot] = space;
            fadt[slot + 4..slot + 12].copy_from_slice(&port.to_le_bytes());
        }
        seal(&mut fadt);
        fadt
    }

    fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    const MADT: [u8; 76] = {
        let mut madt = [0; 76];
        (madt[2], madt[3]) = (0xE0, 0xFE); // local APIC
        (madt[8], madt[9], madt[11], madt[12]) = (0, 8, 1, 1); // enabled
        (madt[16], madt[17], madt[19], madt[20]) = (0, 8, 2, 0); // neither
        (madt[24], madt[25], madt[27], madt[28]) = (0, 8, 3, 2); // can come online
        (madt[32], madt[33], madt[38], madt[39]) = (1, 12, 0xC0, 0xFE); // I/O APIC
        (madt[44], madt[45], madt[48], madt[49], madt[52]) = (9, 16, 0, 1, 1); // x2APIC 100h
        (madt[60], madt[61], madt[64], madt[68]) = (9, 16, 3, 1); // 3 again
        madt
    };

    const DSDT: &[u8] = b"_S5_\x08_S5_\x12\x06\x01\x00\x08\\_S5_\x12\x07\x04\x0A\x05\x01\x00\x00";

    impl Firmware {
        fn new() -> Self {
            let mut mcfg = vec![0; 24];
            mcfg[8..12].copy_from_slice(&0xB000_0000u32.to_le_bytes());
            (mcfg[18], mcfg[19]) = (1, 255);
            let pointers = [0x77u64, 0x30_0000, 0x20_0000, 0x40_0000];
            let pointers: Vec<u8> = pointers.into_iter().flat_map(u64::to_le_bytes).collect();
            let ports = [(1, 0xB004), (1, 0)];
            Self(vec![
                (0x10_0000, table(b"XSDT", &pointers)),
                (0x20_0000, table(b"APIC", &MADT)),
                (0x30_0000, fadt(276, [0x804, 0], Some(ports))),
                (0x40_0000, table(b"MCFG", &mcfg)),
                (0x50_0000, table(b"DSDT", DSDT)),
            ])
        }

        fn bytes(&self, start: u64, length: usize) -> Option<&[u8]> {
            let (base, table) = self.0.iter().rfind(|(base, _)| *base <= start)?;
            table.get((start - base) as usize..)?.get(..length)
        }

        fn read(&self) -> Result<AcpiTables, String> {
            let mut rsdp = [0; 36];
            rsdp[24..28].copy_from_slice(&0x10_0000u32.to_le_bytes());
            read(&rsdp, &|start, length| self.bytes(start, length)).map_err(|e| e.to_string())
        }

        fn with(mut self, index: usize, table: Vec<u8>) -> Self {
            self.0[index].1 = table;
            self
        }
    }

    #[test]
    fn honest_tables_are_read() {
        let tables = Firmware::new().read().unwrap();
        assert_eq!(tables.processors[..], [1, 3, 0x100]);
        assert_eq!(tables.io_apics[..], [0xFEC0_0000]);
        assert_eq!(tables.local_apic, Some(0xFEE0_0000));
        assert_eq!(tables.pm1_control, [Some(0xB004), None]);
        assert_eq!(tables.s5_sleep_type, Some([5, 1]));
        let ecam = PhysicalRange::new(0xB010_0000, 255 << 20).unwrap();
        assert_eq!(tables.ecam[..], [ecam]);
    }

    #[test]
    fn old_tables_are_read() {
        let pointers = [0x20_0000u32, 0x30_0000].into_iter().flat_map(u32::to_le_bytes);
        let rsdt = table(b"RSDT", &pointers.collect::<Vec<_>>());
        let mut firmware = Firmware::new().with(0, rsdt).with(2, fadt(116, [0x404, 0x504], None));
        firmware.0.remove(3);
        let mut rsdp = [0; 20];
        rsdp[16..].copy_from_slice(&0x10_0000u32.to_le_bytes());
        let tables = read(&rsdp, &|start, length| firmware.bytes(start, length)).unwrap();
        assert_eq!(tables.pm1_control, [Some(0x404), Some(0x504)]);
        assert!(tables.ecam.is_empty());
        assert_eq!(tables.s5_sleep_type, Some([5, 1]));
    }

    #[test]
    fn an_override_moves_the_local_apics() {
        let mut madt = MADT.to_vec();
        madt.extend([5, 12, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
        let tables = Firmware::new().with(1, table(b"APIC", &madt)).read().unwrap();
        assert_eq!(tables.local_apic, Some(1 << 32));
    }

    #[test]
    fn what_cannot_be_guarded_is_an_error() {
        let broken = |index: usize| {
            let mut firmware = Firmware::new();
            firmware.0[index].1[30] ^= 1;
            firmware.read().map(|_| ())
        };
        for (index, name) in [(0, "XSDT"), (1, "APIC"), (2, "FACP"), (3, "MCFG")] {
            let error = broken(index).unwrap_err();
            assert!(error.contains(name) && error.contains("checksum"), "{error}");
        }
        assert_eq!(broken(4), Ok(()));
        let many: Vec<u8> = (0..300u32)
            .flat_map(|id| {
                [&[9, 16, 0, 0][..], &id.to_le_bytes(), &[1, 0, 0, 0, 0, 0, 0, 0]].concat()
            })
            .collect();
        let madt = |entries: &[u8]| table(b"APIC", &[&[0; 8], entries].concat());
        for (index, table, expected) in [
            (1, table(b"APIX", &MADT), "APIC is missing"),
            (2, table(b"FACX", &[0; 240]), "FACP is missing"),
            (1, madt(&many), "more processors"),
            (1, madt(&[0x40, 0]), "APIC is cut short"), // it would go on forever
            (1, madt(&[0, 9, 0, 0]), "APIC is cut short"),
            (1, madt(&[0, 7, 0, 0, 0, 0, 0]), "APIC is cut short"),
            (2, fadt(276, [0; 2], Some([(0, 0xFED8_0804), (1, 0)])), "outside the ports"),
            (2, fadt(276, [0x1_0000, 0], None), "above FFFFh"),
            (3, table(b"MCFG", &[0xFF; 24]), "MCFG is damaged"),
        ] {
            let error = Firmware::new().with(index, table).read().unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_table_is_judged(index in 0usize..5, body: Vec<u8>, entries: Vec<(u8, u8)>) {
            let firmware = Firmware::new();
            let name = firmware.0[index].1[..4].to_vec();
            let entries: Vec<u8> = entries.iter().flat_map(|&(kind, size)| [kind % 10, size]).collect();
            let body = [&body[..], &MADT[..8], &entries[..]].concat();
            let _ = firmware.with(index, table(&name, &body)).read();
        }

        #[test]
        fn any_change_is_judged(index in 0usize..5, at in 0usize..300, byte: u8) {
            let mut firmware = Firmware::new();
            let table = &mut firmware.0[index].1;
            let at = at % table.len();
            table[at] = byte;
            seal(table);
            let _ = firmware.read();
        }

        #[test]
        fn any_aml_is_scanned(aml: Vec<u8>) {
            let _ = s5_sleep_type(&aml);
            let _ = s5_sleep_type(&[b"\x08_S5_\x12", &aml[..]].concat());
        }
    }
}
