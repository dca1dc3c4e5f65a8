//! The modules of a list.

use super::*;

#[test]
fn modules_give_back_what_they_hold() {
    let bytes = honest().build();
    let list = ApprovalList::parse(&bytes).unwrap();
    assert_eq!(list.window(), WINDOW.0..WINDOW.1);
    let modules: Vec<_> = list.modules().collect();
    assert_eq!(modules.iter().map(|module| module.name).collect::<Vec<_>>(), ["fat", "vfat"]);
    assert_eq!(modules.iter().map(|module| module.number).collect::<Vec<_>>(), [0, 1]);
    assert_eq!([modules[0].pages(false), modules[0].pages(true)], [2, 0]);
    assert_eq!([modules[1].pages(false), modules[1].pages(true)], [1, 1]);
    let names = |init| modules[1].region(init).map(|section| section.name).collect::<Vec<_>>();
    assert_eq!(names(false), [".text", ".exit.text"]);
    assert_eq!(names(true), [".init.text"]);
    let init = modules[1].region(true).next().unwrap();
    assert_eq!((init.offset, init.size, init.sha256), (0, 0x20, [0xCD; 32]));
    let (field, base) = (Field::Relative32, Base::Init);
    let relocation = Relocation { offset: 0x1C, field, base, value: 0x40 };
    assert_eq!(init.relocations().collect::<Vec<_>>(), [relocation]);
    assert_eq!(
        modules[0].sections().map(|section| section.relocations().count()).sum::<usize>(),
        2
    );
    assert_eq!(list.find_module("vfat").unwrap().number, 1);
    for absent in ["", "fa", "fat ", "vfatx", "zzz"] {
        assert!(list.find_module(absent).is_none(), "{absent}");
    }
}

#[test]
fn modules_are_checked() {
    type Change = fn(&mut Parts);
    for (message, change) in [
        (
            "module 1: name not above the one before it, of bytes: 0x3",
            (|p| {
                p.modules[1] = module("fat", 4);
            }) as Change,
        ),
        ("module 1: name not above", |p| p.modules[1] = module("a", 4)),
        ("module 0: empty name", |p| p.modules[0] = module("", 1)),
        ("module 0: reserved bytes are not zero: 0x1", |p| p.modules[0][60] = 1),
        ("module 0: sections that the list does not have", |p| p.modules[0] = module("fat", 5)),
        ("module 1: sections that the list does not have", |p| p.modules[1] = module("vfat", 0)),
        ("header: sections or relocations that belong to none: 0x2", |p| {
            p.modules[1] = module("vfat", 3);
        }),
        ("section 1: relocations that the list does not have", |p| {
            p.sections[1] = section(".text", 0, 0x80, 0, 1);
        }),
        ("section 3: relocations that the list does not have", |p| {
            p.sections[3] = section("x", 0, 0x20, 1, 5);
        }),
        ("header: sections or relocations that belong to none: 0x1", |p| {
            p.sections[3] = section("x", 0, 0x20, 1, 3);
        }),
        ("section 2: section inside or below the one before it, at: 0x7f", |p| {
            p.sections[2] = section("x", 0x7F, 0x10, 0, 3);
        }),
        ("section 3: section inside or below", |p| p.sections[2] = section("x", 0x20, 0x10, 1, 3)),
        ("section 0: empty section", |p| p.sections[0] = section("x", 0, 0, 0, 2)),
        ("section 0: section wraps", |p| p.sections[0] = section("x", 2, u32::MAX - 1, 0, 2)),
        ("section 2: section past the window's end, at: 0x80", |p| {
            p.window = (0xffff_ffff_a000_0000, 0xffff_ffff_a000_2000);
            p.sections[2] = section("x", 0x80, 0x1F81, 0, 3);
        }),
        ("section 2: section past the window's end, at: 0x80", |p| {
            p.window = (0x1000, 0xffff_ffff_0000_0000);
            p.ranges[0] = range(".text", 0x100_0000, 0x5123, 0xffff_ffff_8100_0000, 0);
            p.sections[2] = section("x", 0x80, 0x8000_0000, 0, 3);
        }),
        ("section 3: unknown region: 0x2", |p| p.sections[3] = section("x", 0, 0x20, 2, 4)),
        ("section 0: unknown relocation field: 0x0", |p| p.relocations[0][4] = 0),
        ("section 0: unknown relocation field: 0x5", |p| p.relocations[0][4] = 5),
        ("section 0: unknown relocation base: 0x3", |p| p.relocations[0][5] = 3),
        ("section 0: unknown relocation base: 0x0", |p| p.relocations[0][6] = 1),
        ("section 0: relocation to no module: 0x2", |p| p.relocations[1][6] = 2),
        ("section 0: relocation inside or below the one before it, at: 0x3", |p| {
            p.relocations[1] = relocation(3, 2, 1, 0, 0);
        }),
        ("section 0: relocation past its section's end, at: 0xffe", |p| {
            p.relocations[1] = relocation(0xFFE, 2, 1, 0, 0);
        }),
        ("section 3: relocation past its section's end, at: 0x19", |p| {
            p.relocations[3] = relocation(0x19, 4, 0, 0, 0);
        }),
        ("section 0: relocation past its section's end, at: 0xfffffffe", |p| {
            p.relocations[1] = relocation(0xFFFF_FFFE, 2, 1, 0, 0);
        }),
    ] {
        let error = rejected(change);
        assert!(error.starts_with(message), "{error} is not: {message}");
    }
}

#[test]
fn relocated_fields_hold_the_address_or_nothing_does() {
    let bytes = |field, value, base, place| {
        Relocation { offset: 0, field, base: Base::Kernel, value }.bytes(base, place)
    };
    let held = |value: u64| Some((value & 0xFFFF_FFFF).to_le_bytes());
    let high = 0xffff_ffff_a000_0000;
    assert_eq!(bytes(Field::Signed32, 0x1234, high, 0), held(high + 0x1234));
    assert_eq!(bytes(Field::Signed32, 0, 1 << 31, 0), None);
    assert_eq!(bytes(Field::Unsigned32, 0x10, 0xc000_0000, 0), held(0xc000_0010));
    assert_eq!(bytes(Field::Unsigned32, 0, 1 << 32, 0), None);
    assert_eq!(bytes(Field::Relative32, 0x10, high, high + 0x20), held(-16i64 as u64));
    assert_eq!(bytes(Field::Relative32, (-4i64) as u64, high, high), held(-4i64 as u64));
    assert_eq!(bytes(Field::Relative32, 0, high, high - (1 << 31)), None);
    assert_eq!(bytes(Field::Relative32, 0, 0, 1 << 31), held(-(1i64 << 31) as u64));
    assert_eq!(bytes(Field::Relative32, 0x1000, 0, 0xc000_0000), held(0x4000_1000));
    assert_eq!(bytes(Field::Word64, 1, u64::MAX, 7), held(0));
}
