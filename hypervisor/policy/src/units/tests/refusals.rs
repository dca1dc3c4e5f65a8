//! What must not be approved, and that nothing is left of the attempt.

use super::modules::codes;
use super::*;

#[test]
fn every_changed_bit_is_refused() {
    with_guest(|mut guest| {
        guest.approve(&fat_core()).unwrap();
        let [_, vfat, _] = codes();
        for at in 0..vfat[0].bytes.len() as u64 {
            for bit in 0..8 {
                guest.poke(VFAT + at, 1 << bit);
                let (error, why) = guest.approve(&vfat_core()).unwrap_err();
                assert_eq!(error, Error::NotPermitted);
                let place = if at < 0x1C { "SHA-256" } else { ".text+0x1c: expected" };
                assert!(why.contains(place), "{why}");
                guest.poke(VFAT + at, 1 << bit);
            }
        }
        guest.approve(&vfat_core()).unwrap();
    });
}

type Change = fn(&mut Guest<'_>) -> Unit;

/// Each change gives a request that must be refused with this error and message.
const REFUSALS: &[(Error, &str, Change)] = &[
    // What the guest says
    (Error::NotPermitted, "not on the approval list, base: 0xffffffffa0010000", |_| {
        unit(UnitKind::ModuleCore, "fa", (FAT, 0x3000), (FAT_INIT, 0x1000))
    }),
    (Error::NotPermitted, "not on the approval list", |_| {
        unit(UnitKind::ModuleCore, "", (FAT, 0x3000), (FAT_INIT, 0x1000))
    }),
    (Error::NotPermitted, "not on the approval list", |_| {
        unit(UnitKind::KernelInit, "fat", (0, 0), (FAT_INIT, 0x1000))
    }),
    (Error::Invalid, "not the size that the list says: 0x1000", |_| {
        unit(UnitKind::ModuleCore, "vfat", (FAT, 0x1000), (VFAT, 0x1000)).with_kind_init()
    }),
    (Error::Invalid, "not the size that the list says: 0x2000", |_| {
        unit(UnitKind::ModuleCore, "fat", (FAT, 0x2000), (FAT_INIT, 0))
    }),
    (Error::Invalid, "not the size that the list says: 0x0", |_| {
        unit(UnitKind::ModuleCore, "fat", (FAT, 0), (FAT_INIT, 0))
    }),
    (Error::Invalid, "outside the window for modules: 0xffffffff81000000", |_| {
        unit(UnitKind::ModuleCore, "fat", (KERNEL, 0x3000), (FAT_INIT, 0))
    }),
    (Error::Invalid, "outside the window for modules: 0xffffffff9ffff000", |_| {
        unit(UnitKind::ModuleCore, "fat", (WINDOW.0 - 0x1000, 0x3000), (FAT_INIT, 0))
    }),
    (Error::Invalid, "outside the window for modules: 0xffffffffff000fff", |_| {
        unit(UnitKind::ModuleCore, "fat", (WINDOW.1 - 0x2000, 0x3000), (FAT_INIT, 0))
    }),
    (Error::Invalid, "outside the window for modules: 0x0", |_| {
        unit(UnitKind::ModuleCore, "fat", (0, 0x3000), (FAT_INIT, 0))
    }),
    (Error::Invalid, "outside the window for modules: 0x8000000000000000", |_| {
        unit(UnitKind::ModuleCore, "fat", (1 << 63, 0x3000), (FAT_INIT, 0))
    }),
    (Error::Invalid, "outside the window for modules", |_| {
        unit(UnitKind::ModuleCore, "fat", (FAT, 0x3000), (KERNEL, 0))
    }),
    (Error::NoEntry, "no core approved at its base: 0xffffffffa0010000", |_| fat_init()),
    // Base 0 is no base, and least of all that of a core that is not approved
    (Error::NoEntry, "no core approved at its base: 0x0", |_| {
        unit(UnitKind::ModuleInit, "zram", (0, 0), (ZRAM_INIT, 0x1000))
    }),
    (Error::NoEntry, "it needs fat, which is not approved now", |_| vfat_core()),
    (Error::NoEntry, "it needs fat, which", |_| {
        unit(UnitKind::ModuleCore, "fat", (FAT, 0x3000), (0, 0))
    }),
    // Another core than the approved one
    (Error::NoEntry, "no core approved at its base: 0xffffffffa0090000", |guest| {
        guest.approve(&fat_core()).unwrap();
        unit(UnitKind::ModuleInit, "fat", (VFAT, 0x3000), (FAT_INIT, 0x1000))
    }),
    (Error::Busy, "approved already, or in the way: 0xffffffffa0010000", |guest| {
        guest.approve(&fat_core()).unwrap();
        fat_core()
    }),
    (Error::Busy, "approved already", |guest| {
        guest.approve(&fat_core()).unwrap();
        unit(UnitKind::ModuleCore, "fat", (VFAT, 0x3000), (FAT_INIT, 0x1000))
    }),
    (Error::Busy, "in the way: 0xffffffffa0012000", |guest| {
        guest.approve(&fat_core()).unwrap();
        unit(UnitKind::ModuleCore, "vfat", (FAT + 0x2000, 0x1000), (0, 0))
    }),
    // Where the pages lie
    (Error::Fault, "no memory is mapped at: 0xffffffffa0012000", |guest| {
        guest.memory.mapped.remove(&(FAT + 0x2000));
        fat_core()
    }),
    (Error::Fault, "frames that are no data, or come twice: 0x1", |guest| {
        guest.memory.mapped.insert(FAT + 0x2000, 0x1500);
        fat_core()
    }),
    (Error::Fault, "frames that are no data, or come twice: 0x1", |guest| {
        guest.memory.mapped.insert(FAT + 0x1000, 0x1000);
        fat_core()
    }),
    (Error::Fault, "frames that are no data, or come twice: 0x1", |guest| {
        guest.memory.mapped.insert(FAT, 0);
        fat_core()
    }),
    (Error::Fault, "frames that are no data, or come twice: 0x1", |guest| {
        guest.memory.mapped.insert(FAT + 0x2000, 0x1F00);
        fat_core()
    }),
    (Error::Fault, "frames that are no data, or come twice: 0x1", |guest| {
        guest.memory.mapped.insert(FAT + 0x2000, 0x1F01);
        fat_core()
    }),
    (Error::Fault, "frames that are no data, or come twice: 0x1", |guest| {
        guest.memory.mapped.insert(FAT + 0x2000, 0xFEE00);
        fat_core()
    }),
    (Error::Fault, "frames that are no data, or come twice: 0x1", |guest| {
        guest.memory.mapped.insert(FAT + 0x2000, 0xFFF_FFFF);
        fat_core()
    }),
    (Error::Fault, "no memory is mapped at", |guest| {
        guest.memory.mapped.insert(FAT + 0x2000, 1 << 32);
        fat_core()
    }),
    (Error::Fault, "frames that are no data, or come twice: 0x1", |guest| {
        guest.approve(&fat_core()).unwrap();
        guest.approve(&fat_init()).unwrap();
        guest.memory.mapped.insert(VFAT, 0x1100);
        vfat_core()
    }),
    // What they hold
    (Error::NotPermitted, "section .text: approved SHA-256 ", |guest| {
        guest.poke(FAT + 0x100, 1);
        fat_core()
    }),
    (Error::NotPermitted, "section .text: approved SHA-256 ", |guest| {
        guest.poke(FAT + 0x1901, 0x80);
        fat_core()
    }),
    (Error::NotPermitted, ".text+0xffe: expected 22f00300, found 22f00301", |guest| {
        guest.poke(FAT + 0x1001, 1);
        fat_core()
    }),
    (Error::NotPermitted, ".text+0x4: expected 004001a0, found 005001a0", |guest| {
        guest.poke(FAT + 5, 0x10);
        fat_core()
    }),
    (
        Error::NotPermitted,
        ".text+0x17f9: expected ff0f01a0ffffffff, found ff0f01a0ffffff7f",
        |guest| {
            guest.poke(FAT + 0x1800, 0x80);
            fat_core()
        },
    ),
    (Error::NotPermitted, ".text+0x7fc: expected 34120080, found 35120080", |guest| {
        guest.poke(FAT + 0x1900 + 0x7FC, 1);
        fat_core()
    }),
    // Wrong bases for right bytes
    (Error::NotPermitted, ".text+0x0: expected", |guest| {
        for page in 0..3 {
            let frame = guest.memory.mapped[&(FAT + page * PAGE_SIZE)];
            guest.memory.mapped.insert(VFAT + page * PAGE_SIZE, frame);
        }
        unit(UnitKind::ModuleCore, "fat", (VFAT, 0x3000), (FAT_INIT, 0x1000))
    }),
    (Error::NotPermitted, ".text+0xffe: expected", |_| {
        unit(UnitKind::ModuleCore, "fat", (FAT, 0x3000), (FAT_INIT + 0x1000, 0x1000))
    }),
    // Pages in another order
    (Error::NotPermitted, ".text", |guest| {
        guest.memory.mapped.insert(FAT, 0x1501);
        guest.memory.mapped.insert(FAT + 0x2000, 0x1500);
        fat_core()
    }),
    // Another module's code
    (Error::NotPermitted, ".text", |guest| {
        guest.approve(&fat_core()).unwrap();
        guest.memory.mapped.insert(VFAT, 0x1100);
        vfat_core()
    }),
];

impl Unit {
    fn with_kind_init(self) -> Self {
        Self { kind: UnitKind::ModuleInit, ..self }
    }
}

#[test]
fn refusals_say_why_and_change_nothing() {
    for (error, message, change) in REFUSALS {
        with_guest(|mut guest| {
            let unit = change(&mut guest);
            let before = (guest.classes(), guest.bases(), guest.memory.pages.clone());
            let (found, why) = guest.approve(&unit).expect_err(message);
            assert_eq!((found, why.contains(message)), (*error, true), "{why} is not: {message}");
            assert!(
                (guest.classes(), guest.bases(), guest.memory.pages.clone()) == before,
                "{message}"
            );
        });
    }
}
