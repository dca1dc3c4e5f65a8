//! What a list says of one module: every relocation, every place, and what no list can say.

use std::collections::HashMap;

use policy::approval::{ApprovalList, Base, Field};
use proptest::prelude::*;

use crate::modules::{APPROVE, PRINTK, folder, kernel, kernel_of, put, relocations};
use crate::object::{ALLOC, CODE, DATA, Home, Object, Section, VERMAGIC, WRITE, section};
use crate::{loader, real, small};

/// The compiler's mark for data to be kept, which the kernel takes for one of its own.
const RO_AFTER_INIT: u64 = 0x20_0000;
const R_64: u32 = 1;
const R_PC32: u32 = 2;
const R_PLT32: u32 = 4;
const R_32: u32 = 10;
const R_32S: u32 = 11;
const R_386_32: u32 = 1;
const R_386_PC32: u32 = 2;
const R_386_PLT32: u32 = 4;

#[test]
fn every_relocation_of_a_64_bit_kernel_is_approved() {
    let mut module = Object::code(
        "a",
        &[
            (0x00, R_64, "printk", 0x10),
            (0x08, R_32S, "printk", -4),
            (0x0C, R_PC32, "printk", -4),
            (0x10, R_PLT32, "here", -5),
            (0x14, R_32, "number", 1),
            (0x18, R_32S, "datum", -0x18),
            (0x1C, R_PLT32, "weak_nothing", -4),
            (0x20, R_PLT32, "weak_printk", -4),
            (0x24, R_32S, "early", 8),
            (0x28, R_PC32, "_GLOBAL_OFFSET_TABLE_", 0),
            (0x2C, 0, "printk", 0),
            (0x2C, R_32, "", 7),
        ],
    );
    module.sections.push(section(".data", DATA, 8, vec![1; 0x20]));
    module.sections.push(section(".init.data", DATA, 8, vec![1; 0x20]));
    module = module.define("here", ".text", 0x30).define("datum", ".data", 0x10);
    module = module.define("early", ".init.data", 0x10);
    module.symbols.push(("number", 1, Home::Number(0xFFF1, 0x1234)));
    let folder = folder("relocations", &[&module]);
    let mut kernel = kernel();
    kernel.symbols.push(("weak_printk", 0, PRINTK + 1));
    kernel.symbols.push(("__ksymtab_weak_printk", 1, 0));
    folder.put("vmlinux", &kernel.build());
    let (code, _, err) = folder.run(&format!("{APPROVE} --module a.ko"));
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(
        relocations(&folder.get("list"), "a"),
        [
            (0x00, Field::Word64, Base::Kernel, PRINTK + 0x10),
            (0x08, Field::Signed32, Base::Kernel, PRINTK - 4),
            (0x0C, Field::Relative32, Base::Kernel, PRINTK - 4),
            (0x10, Field::Relative32, Base::Core(0), 0x30 - 5),
            (0x14, Field::Unsigned32, Base::Kernel, 0x1235),
            // Data begins on the page behind the code.
            (0x18, Field::Signed32, Base::Core(0), 0x1000 + 0x10 - 0x18),
            (0x1C, Field::Relative32, Base::Kernel, 0u64.wrapping_sub(4)),
            (0x20, Field::Relative32, Base::Kernel, PRINTK + 1 - 4),
            (0x24, Field::Signed32, Base::Init, 0x18),
            (0x28, Field::Relative32, Base::Kernel, 0),
            (0x2C, Field::Unsigned32, Base::Kernel, 7),
        ]
    );
    let bytes = folder.get("list");
    let list = ApprovalList::parse(&bytes).unwrap();
    assert_eq!(list.window(), 0xffff_ffff_a000_0000..0xffff_ffff_ff00_0000);
}

#[test]
fn a_32_bit_modules_fields_hold_their_addends() {
    let mut module = Object::code(
        "a",
        &[
            (0, R_386_32, "datum", 0),
            (4, R_386_PC32, "start", 0),
            (8, R_386_PLT32, "start", 0),
            (12, R_386_32, "start", 0),
        ],
    );
    module.long = false;
    module.sections.push(section(".data", DATA, 8, vec![1; 0x20]));
    for (at, addend) in [(0, 8i32), (4, -4), (8, 0x10), (12, 0x4000_0000)] {
        module.sections[0].bytes[at..at + 4].copy_from_slice(&addend.to_le_bytes());
    }
    module = module.define("datum", ".data", 0x10);
    let folder = folder("relocations-32", &[&module]);
    // Stripped of the names of its export tables, a kernel exports what is global.
    folder.put("vmlinux", &small().build());
    let (code, _, err) = folder.run(&format!("{APPROVE} --module a.ko"));
    assert_eq!((code, err.as_str()), (0, ""));
    let bytes = folder.get("list");
    assert_eq!(
        relocations(&bytes, "a"),
        [
            (0, Field::Unsigned32, Base::Core(0), 0x1018),
            (4, Field::Relative32, Base::Kernel, 0xC010_0000 - 4),
            (8, Field::Relative32, Base::Kernel, 0xC010_0010),
            // The sum of 32 bits, as the kernel adds: a physical address.
            (12, Field::Unsigned32, Base::Kernel, 0x10_0000),
        ]
    );
    assert_eq!(ApprovalList::parse(&bytes).unwrap().window(), 0xC010_1000..0xFFFF_F000);

    module.foreign_relocations = true;
    put(&folder, &[&module]);
    let told = ["a.ko: section .text+0x0: RELA relocation of type 1", "in code for i386"];
    folder.fails(&format!("{APPROVE} --module a.ko"), 2, &told);
}

#[test]
fn modules_that_no_list_can_describe_are_refused() {
    let folder = folder("senseless-modules", &[]);
    let refused = |module: &Object, messages: &[&str]| {
        put(&folder, &[module]);
        let line = format!("{APPROVE} --module {}.ko", module.name);
        folder.fails(&line, 2, &[&[&*format!("{}.ko: ", module.name)][..], messages].concat());
        assert!(!folder.0.join("list").exists());
    };
    let code = |site| Object::code("a", &[site]);
    refused(&code((8, 26, "printk", 0)), &["section .text+0x8: RELA relocation of type 26"]);
    refused(&code((8, 24, "printk", 0)), &["RELA relocation of type 24", "for x86_64"]);
    refused(&code((0x3D, R_PC32, "printk", 0)), &[".text+0x3d: relocation past the section's end"]);
    refused(&code((u64::MAX, R_64, "printk", 0)), &["relocation past the section's end"]);
    refused(&code((0, R_32, "printk", 0)), &["0xffffffff81000010 does not fit", "-mcmodel=kernel"]);
    refused(&code((0, R_32S, "printk", 0x7FFF_FFFF_0000)), &["does not fit"]);
    refused(
        &code((0, R_PC32, "hidden", 0)),
        &[
            "symbol hidden is exported neither by the kernel nor by an approved module: is this the \
         kernel that it was built for?",
        ],
    );
    let two = Object::code("a", &[(2, R_PC32, "printk", 0), (0, R_PC32, "printk", 0)]);
    refused(&two, &["section .text+0x2: two relocations overlap"]);
    let mut foreign = code((0, R_PC32, "printk", 0));
    foreign.foreign_relocations = true;
    refused(&foreign, &["REL relocation of type 2, which cannot be approved in code for x86_64"]);
    let mut filled = code((0, R_PC32, "printk", 0));
    filled.sections[0].bytes[3] = 1;
    refused(&filled, &["section .text+0x0: the relocated field is not zero"]);
    let mut unused = code((0, R_PC32, "printk", 0));
    unused.symbols.push(("nowhere", 1, Home::Number(0, 0)));
    refused(&unused, &["symbol nowhere is exported neither"]);

    for (home, message) in [
        (Home::Number(0xFFF2, 8), "symbol odd is a common one (build with -fno-common)"),
        (Home::Number(0xFF20, 0), "symbol odd is left to live patching"),
        (Home::Number(99, 0), "symbol odd is in a section that the file does not have"),
        (Home::In(".comment".into(), 0), "odd is in section .comment, which the kernel does not"),
        (Home::In(".modinfo".into(), 0), "odd is in section .modinfo, which the kernel does not"),
    ] {
        let mut module = code((0, R_PC32, "odd", 0));
        module.sections.push(section(".comment", 0, 1, vec![0; 8]));
        module.symbols.push(("odd", 1, home));
        refused(&module, &[".text+0x0: ", message]);
    }
    for (added, message) in [
        (section(".data..percpu", DATA, 8, vec![0; 8]), "address the kernel chooses for each boot"),
        (section(".wx", CODE | WRITE, 1, vec![0; 8]), "section .wx is both code and writable"),
        (section(".text.bss", CODE, 1, vec![0; 8]), ".text.bss is code without bytes in the file"),
        (
            section(".odd", DATA, 3, vec![0; 8]),
            "section .odd of 0x8 bytes, aligned to 0x3, fits no",
        ),
        (section(".odd", DATA, 1 << 32, vec![0; 8]), "aligned to 0x100000000, fits no module"),
        (
            section(".text.a_name_of_more_than_32_bytes_", CODE, 1, vec![0; 8]),
            "the name .text.a_name_of_more_than_32_bytes_ is longer than 32 bytes",
        ),
    ] {
        let mut module = code((0, R_PC32, "printk", 0));
        module.sections.push(added);
        refused(&module, &[message]);
    }
}

#[test]
fn code_for_unloading_is_init_code_where_nothing_is_unloaded() {
    let sections = || {
        vec![
            section(".text", CODE, 16, vec![1; 5]),
            section(".init.text", CODE, 4, vec![2; 6]),
            section(".exit.text", CODE, 16, vec![3; 7]),
        ]
    };
    let mut module = Object::new("a", sections());
    let folder = folder("exit", &[&module]);
    let places = || -> Vec<_> {
        let bytes = folder.get("list");
        let list = ApprovalList::parse(&bytes).unwrap();
        let module = list.find_module("a").unwrap();
        module.sections().map(|s| (s.name.to_owned(), s.init, s.offset, s.size)).collect()
    };
    let place = |name: &str, init, offset, size| (name.to_owned(), init, offset, size);
    assert_eq!(folder.run(&format!("{APPROVE} --module a.ko")).0, 0);
    assert_eq!(
        places(),
        [
            place(".text", false, 0, 5),
            place(".exit.text", false, 16, 7),
            place(".init.text", true, 0, 6),
        ]
    );
    let mut kernel = kernel();
    kernel.sections[4].bytes = b"6.1.0 \0".to_vec();
    folder.put("vmlinux", &kernel.build());
    module.info[0].1 = "6.1.0 ";
    put(&folder, &[&module]);
    assert_eq!(folder.run(&format!("{APPROVE} --module a.ko")).0, 0);
    assert_eq!(
        places(),
        [
            place(".text", false, 0, 5),
            place(".init.text", true, 0, 6),
            place(".exit.text", true, 16, 7),
        ]
    );
    // Linux 2.6.20 does not load it at all.
    let old = "2.6.20 686 ";
    folder.put("vmlinux", &kernel_of(false, old, true).build());
    (module.long, module.info[0].1) = (false, old);
    put(&folder, &[&module]);
    assert_eq!(folder.run(&format!("{APPROVE} --module a.ko")).0, 0);
    assert_eq!(places(), [place(".text", false, 0, 5), place(".init.text", true, 0, 6)]);
}

/// Sections of every kind, in any number, order and size.
fn sections() -> impl Strategy<Value = Vec<Section>> {
    let kind = prop::sample::select(vec![
        (".text", CODE),
        (".init.text", CODE),
        (".exit.text", CODE),
        (".rodata", ALLOC),
        (".init.rodata", ALLOC),
        ("__versions", ALLOC),
        ("__jump_table", DATA),
        (".data..ro_after_init", DATA),
        (".init.data", DATA),
        (".data", DATA),
        (".data.retained", DATA | RO_AFTER_INIT),
        (".init.data.retained", DATA | RO_AFTER_INIT),
        (".bss", DATA),
        (".init.bss", DATA),
        (".comment", 0),
    ]);
    let one = (kind, 0u32..8, 0usize..0x1800);
    prop::collection::vec(one, 1..12).prop_map(|parts| {
        let section = |((name, flags), alignment, size)| {
            section(name, flags, 1u64 << alignment, vec![0; size])
        };
        parts.into_iter().map(section).collect()
    })
}

const TARGETS: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];

/// The kernels whose loaders are known: word size, vermagic, whether modules keep their symbols.
const KERNELS: [(bool, &str, bool); 4] = [
    (true, VERMAGIC, true),
    (false, VERMAGIC, true),
    (false, "2.6.20-test mod_unload 686 ", true),
    (false, "2.6.20-test mod_unload 686 ", false),
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..Default::default() })]

    /// One piece of code refers to all sections that the kernel keeps, so that each one's place shows.
    #[test]
    fn sections_are_laid_out_as_by_the_kernel(
        mut sections in sections(),
        init: bool,
        (long, vermagic, kallsyms) in prop::sample::select(KERNELS.to_vec()),
    ) {
        let old = vermagic.starts_with("2.6");
        let mut symbols = Vec::new();
        let mut user = section(if init { ".init.user" } else { ".user" }, CODE, 1, vec![0; 0x80]);
        let mut versions = 0;
        for (number, (section, name)) in sections.iter_mut().zip(TARGETS).enumerate() {
            // Of several with that name, the kernel drops only the first.
            versions += usize::from(section.name == "__versions");
            let is_dropped = section.name == "__versions" && versions == 1 && !old;
            if section.flags != 0 && !is_dropped {
                symbols.push((name, 0, Home::Number(number as u16 + 1, 3)));
                user.relocations.push((8 * number as u64, R_64, name, 5));
                // A 32-bit one holds what is added.
                user.bytes[8 * number] = if long { 0 } else { 5 };
            }
        }
        let count = user.relocations.len();
        sections.push(user);
        let mut module = Object::new("a", sections);
        module.symbols = symbols;
        module.long = long;
        module.info[0].1 = vermagic;
        let folder = folder("layout", &[&module]);
        folder.put("vmlinux", &kernel_of(long, vermagic, kallsyms).build());
        let (code, _, err) = folder.run(&format!("{APPROVE} --module a.ko"));
        prop_assert_eq!(code, 0, "{}", err);
        let bytes = folder.get("list");
        let approved = ApprovalList::parse(&bytes).unwrap().find_module("a").unwrap();
        let bases = if long {
            [0xffff_ffff_a123_4000, 0xffff_ffff_b765_4000]
        } else {
            [0xE123_4000, 0xF765_4000]
        };
        let kernel = loader::Kernel { old, kallsyms, symbols: HashMap::new() };
        let loaded = loader::load(&module.build(), bases, &kernel).unwrap();
        let bases = HashMap::from([(0, bases[0])]);
        let judged = [false, true].map(|init| real::judge(&approved, init, &loaded, &bases));
        prop_assert_eq!(judged[0] + judged[1], count);
    }
}

#[test]
fn modules_of_kernels_whose_loader_is_not_known_are_refused() {
    let folder = folder("loaders", &[]);
    let refused = |long, vermagic, message: &str| {
        let mut module = Object::code("a", &[]);
        (module.long, module.info[0].1) = (long, vermagic);
        put(&folder, &[&module]);
        folder.put("vmlinux", &kernel_of(long, vermagic, true).build());
        let told = [message, "puts a module's sections is not known"];
        folder.fails(&format!("{APPROVE} --module a.ko"), 2, &told);
        assert!(!folder.0.join("list").exists());
    };
    refused(true, "6.12.3 mod_unload ", "where Linux 6.12.3 for x86_64");
    refused(false, "5.10.0-686 mod_unload 686 ", "where Linux 5.10.0-686 for i386");
    refused(true, "2.6.20 mod_unload ", "where Linux 2.6.20 for x86_64");
    refused(false, "2.6.209 mod_unload 686 ", "where Linux 2.6.209 for i386");
}
