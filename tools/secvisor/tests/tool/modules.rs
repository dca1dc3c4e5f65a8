//! Sets of modules: which belong together, which are left out, what differs.

use policy::approval::{ApprovalList, Base, Field};

use crate::elf::{self, Kernel};
use crate::object::{ALLOC, CODE, DATA, Home, Object, VERMAGIC, section};
use crate::{Folder, HIGH, linux, small};

const R_PC32: u32 = 2;
const R_PLT32: u32 = 4;
const R_386_32: u32 = 1;

/// Where the tests' kernels have what they export.
pub const PRINTK: u64 = HIGH + 0x100_0010;

/// A kernel that takes modules: it exports printk, and has a global symbol that it does not.
pub fn kernel() -> Kernel {
    let mut kernel = linux();
    let vermagic = format!("{VERMAGIC}\0").into();
    kernel.sections.push(elf::section(".rodata", 0x100_6000, HIGH, vermagic));
    kernel.symbols.extend([
        ("vermagic", 4, HIGH + 0x100_6000),
        ("printk", 0, PRINTK),
        ("__ksymtab_printk", 1, HIGH + 0x100_3000),
        ("hidden", 0, HIGH + 0x100_0020),
    ]);
    kernel
}

/// A folder with a kernel and modules.
pub fn folder(test: &str, modules: &[&Object]) -> Folder {
    let folder = Folder::new(test);
    folder.put("vmlinux", &kernel().build());
    put(&folder, modules);
    folder
}

/// A kernel that says what it is.
pub fn kernel_of(long: bool, vermagic: &str, kallsyms: bool) -> Kernel {
    let (mut kernel, offset) = if long { (linux(), HIGH) } else { (small(), 0xC000_0000) };
    let number = kernel.sections.len() as u16;
    let text = format!("{vermagic}\0").into();
    kernel.sections.push(elf::section(".rodata", 0x200_0000, offset, text));
    kernel.symbols.push(("vermagic", number, offset + 0x200_0000));
    if kallsyms {
        kernel.symbols.push(("kallsyms_names", number, offset + 0x200_0000));
    }
    kernel
}

pub fn put(folder: &Folder, modules: &[&Object]) {
    for module in modules {
        folder.put(&format!("{}.ko", module.name), &module.build());
    }
}

pub const APPROVE: &str = "approve --kernel vmlinux -o list";

/// Offset, field, base and value of all relocations of a module.
pub fn relocations(list: &[u8], name: &str) -> Vec<(u32, Field, Base, u64)> {
    let list = ApprovalList::parse(list).unwrap();
    let module = list.find_module(name).unwrap();
    let all = module.sections().flat_map(|section| section.relocations().collect::<Vec<_>>());
    all.map(|site| (site.offset, site.field, site.base, site.value)).collect()
}

#[test]
fn modules_of_another_kernel_are_refused() {
    let module = Object::code("a", &[(0, R_PC32, "printk", 0)]);
    let folder = folder("vermagic", &[]);
    let refused = |change: &dyn Fn(&mut Object), message: &str| {
        let mut module = module.clone();
        change(&mut module);
        put(&folder, &[&module]);
        folder.fails(&format!("{APPROVE} --module a.ko"), 2, &["a.ko: ", message]);
    };
    let other = "6.1.2 mod_unload ";
    let told = "built for the kernel '6.1.2 mod_unload', not for this one, '6.1.0 mod_unload'";
    refused(&|module| module.info[0].1 = other, told);
    refused(&|module| module.info[0].1 = "6.1.0 ", "not for this one");
    refused(&|module| module.info.clear(), "no vermagic");
    refused(&|module| module.info[1].1 = "b", "struct module has the name a, its .modinfo b");
    refused(&|module| module.long = false, "made for i386, the kernel for x86_64");
    let missing = ["b.ko: No such file"];
    folder.fails(&format!("{APPROVE} --module b.ko"), 2, &missing);
    for (name, message) in [
        ("", "no name in its struct module"),
        ("a b", "the name \"a b\" is not of printable characters"),
    ] {
        let module = Object { name, info: vec![("vermagic", VERMAGIC)], ..module.clone() };
        folder.put("a.ko", &module.build());
        folder.fails(&format!("{APPROVE} --module a.ko"), 2, &["a.ko: ", message]);
    }

    // With checksums of what it uses, another version will do, but no other configuration.
    let versions = section("__versions", ALLOC, 32, vec![0; 64]);
    let mut checked = module.clone();
    checked.sections.push(versions.clone());
    checked.info[0].1 = other;
    put(&folder, &[&checked]);
    assert_eq!(folder.run(&format!("{APPROVE} --module a.ko")).0, 0);
    refused(
        &|module| {
            module.sections.push(versions.clone());
            module.info[0].1 = "6.1.2 SMP mod_unload ";
        },
        "not for this one",
    );

    let whole = module.build();
    for size in [0, 3, 64, 100, whole.len() / 2, whole.len() - 1] {
        folder.put("a.ko", &whole[..size]);
        folder.fails(&format!("{APPROVE} --module a.ko"), 2, &["a.ko: "]);
    }
    folder.put("a.ko", &kernel().build());
    folder.fails(&format!("{APPROVE} --module a.ko"), 2, &["ELF of type 2 is no kernel module"]);

    // If the kernel does not say what it is, all modules must be for the same one.
    let mut kernel = kernel();
    kernel.symbols.retain(|(name, ..)| *name != "vermagic");
    folder.put("vmlinux", &kernel.build());
    let mut second = Object::code("b", &[]);
    second.info[0].1 = other;
    put(&folder, &[&module, &second]);
    let told = ["b.ko: built for the kernel '6.1.2"];
    folder.fails(&format!("{APPROVE} --module b.ko --module a.ko"), 2, &told);
    assert_eq!(folder.run(&format!("{APPROVE} --module b.ko")).0, 0);
}

/// The kernel's file without its symbols.
fn stripped(kernel: &Kernel) -> Vec<u8> {
    let mut file = kernel.build();
    let (table, size) = if kernel.long {
        (u64::from_le_bytes(file[0x28..0x30].try_into().unwrap()) as usize, 64)
    } else {
        (u32::from_le_bytes(file[0x20..0x24].try_into().unwrap()) as usize, 40)
    };
    file[table + size * (kernel.sections.len() + 1) + 4] = 1;
    file
}

/// Tables of exports at `table`, with the strings a page behind them: relative words.
fn export_table(kernel: &mut Kernel, table: u64, offset: u64, words: &[u64]) {
    let words = words.iter().zip((table..).step_by(4));
    let words = words.flat_map(|(target, at)| (target.wrapping_sub(at) as u32).to_le_bytes());
    let strings = b"printk\0per_cpu\0".to_vec();
    let physical = table.wrapping_sub(offset);
    kernel.sections.push(elf::section("__ksymtab", physical, offset, words.collect()));
    kernel.sections.push(elf::section("__ksymtab_strings", physical + 0x1000, offset, strings));
}

#[test]
fn a_kernel_without_symbols_says_what_it_exports() {
    let module = Object::code("a", &[(0, R_PLT32, "printk", -4)]);
    let folder = folder("tables", &[&module, &Object::code("b", &[(0, R_PLT32, "per_cpu", 0)])]);
    let mut kernel = linux();
    let (table, strings) = (HIGH + 0x100_6000, HIGH + 0x100_7000);
    export_table(&mut kernel, table, HIGH, &[PRINTK, strings, 0, 0x8000, strings + 7, 0]);
    folder.put("vmlinux", &stripped(&kernel));
    assert_eq!(folder.run(&format!("{APPROVE} --modules .")).0, 0);
    let list = folder.get("list");
    let expected = [(0, Field::Relative32, Base::Kernel, PRINTK - 4)];
    assert_eq!(relocations(&list, "a"), expected);
    // Distances are 32 bits wide, and addresses of data for each processor are small.
    assert_eq!(relocations(&list, "b"), [(0, Field::Relative32, Base::Kernel, 0x8000)]);

    kernel.sections.truncate(4);
    folder.put("vmlinux", &stripped(&kernel));
    let told = ["vmlinux: the kernel has neither symbols nor tables of exports"];
    folder.fails(&format!("{APPROVE} --modules ."), 2, &told);
    assert_eq!(folder.run(APPROVE).0, 0);
}

#[test]
fn a_32_bit_kernel_says_what_it_exports() {
    let mut module = Object::code("a", &[(0, R_386_32, "printk", 0)]);
    module.long = false;
    let folder = folder("tables-32", &[&module]);
    let (table, offset) = (0xC010_3000, 0xC000_0000);
    let mut kernel = small();
    export_table(&mut kernel, table, offset, &[0xC010_0010, table + 0x1000, 0]);
    folder.put("vmlinux", &stripped(&kernel));
    let expected = [(0, Field::Unsigned32, Base::Kernel, 0xC010_0010)];
    assert_eq!(folder.run(&format!("{APPROVE} --module a.ko")).2, "");
    assert_eq!(relocations(&folder.get("list"), "a"), expected);

    // The tables of 2.6.20 hold addresses, some of functions that no global symbol names.
    let old = "2.6.20 mod_unload 686 ";
    module.info[0].1 = old;
    put(&folder, &[&module]);
    let mut kernel = kernel_of(false, old, true);
    let words = [0xC010_0010, table as u32 + 0x1000, 0xC010_0020, table as u32 + 0x1008];
    let words = words.into_iter().flat_map(u32::to_le_bytes).collect();
    let strings = b"another\0printk\0".to_vec();
    kernel.sections.push(elf::section("__ksymtab_gpl", 0x10_3000, offset, words));
    kernel.sections.push(elf::section("__ksymtab_strings", 0x10_4000, offset, strings));
    folder.put("vmlinux", &kernel.build());
    assert_eq!(folder.run(&format!("{APPROVE} --module a.ko")).2, "");
    let expected = [(0, Field::Unsigned32, Base::Kernel, 0xC010_0020)];
    assert_eq!(relocations(&folder.get("list"), "a"), expected);
    // Without symbols nothing says what these tables are.
    folder.put("vmlinux", &stripped(&kernel));
    let told = ["neither symbols nor tables of exports", "give the vmlinux as the build made it"];
    folder.fails(&format!("{APPROVE} --module a.ko"), 2, &told);
}

/// A module that exports `offer`, and one that uses it.
fn pair() -> [Object; 2] {
    let mut giver = Object::code("z-giver", &[]);
    giver.info[1].1 = "z-giver";
    let giver = giver.export("__ksymtab_offer", ".text", 8);
    let mut taker = Object::code("taker", &[(4, R_PLT32, "offer", -4)]);
    taker.info.push(("depends", "z_giver"));
    [giver, taker]
}

#[test]
fn modules_are_approved_with_those_they_depend_on() {
    let [giver, taker] = pair();
    let first = Object::code("a", &[]);
    let folder = folder("depends", &[&giver, &taker, &first]);
    let line = format!("{APPROVE} --module taker.ko --module z-giver.ko --module a.ko");
    let (code, out, err) = folder.run(&line);
    assert_eq!((code, err.as_str()), (0, ""));
    for told in [
        "modules       3, at 0xffffffffa0000000-0xffffffffff000000\n",
        "module        taker: 1 core and 0 init pages, 1 sections, 1 relocations\n",
    ] {
        assert!(out.contains(told), "no {told} in {out}");
    }
    let list = folder.get("list");
    assert_eq!(relocations(&list, "taker"), [(4, Field::Relative32, Base::Core(2), 4)]);
    let (_, shown, _) = folder.run("show list --module taker");
    assert!(shown.ends_with("  0x4         relative32 z-giver+0x4\n"), "{shown}");
    folder.fails("show list --module nobody", 2, &["list: it has no module nobody"]);

    // The same from any place, in any order, and more than once.
    let line =
        "approve --kernel vmlinux -o other --modules . --module z-giver.ko --module z-giver.ko";
    assert_eq!(folder.run(line).0, 0);
    assert_eq!(folder.get("other"), list);

    let told =
        ["taker.ko: symbol offer is exported neither by the kernel nor by an approved module: it \
         depends on z_giver, which must be approved with it"];
    folder.fails("approve --kernel vmlinux -o none --module taker.ko", 2, &told);
    assert!(!folder.0.join("none").exists());
}

#[test]
fn exports_that_cannot_be_used_are_told() {
    let [giver, taker] = pair();
    let folder = folder("exports", &[&taker]);
    let refused = |giver: Object, message: &str| {
        put(&folder, &[&giver]);
        let line = format!("{APPROVE} --module taker.ko --module {}.ko", giver.name);
        folder.fails(&line, 2, &["taker.ko: ", message]);
    };
    let mut early = Object::code("z-giver", &[]);
    early.sections.push(section(".init.data", DATA, 8, vec![0; 8]));
    let early = early.export("__ksymtab_offer", ".init.data", 0);
    refused(early, "symbol offer is in init memory of module z-giver, which is gone when");
    let data = Object::new("z-giver", vec![section(".data", DATA, 8, vec![0; 8])]);
    let data = data.export("__ksymtab_offer", ".data", 0);
    refused(data, "symbol offer is in module z-giver, which has no code to approve");
    let lost = Object::new(
        "z-giver",
        vec![section(".text", CODE, 1, vec![0; 8]), section(".comment", 0, 1, vec![0; 8])],
    );
    let lost = lost.export("__ksymtab_offer", ".comment", 0);
    refused(lost, "symbol offer of module z-giver is in section .comment, which the kernel does");
    put(&folder, &[&giver]);
    let again = Object::code("again", &[]).export("__ksymtab_offer", ".text", 0);
    put(&folder, &[&again]);
    folder.fails(
        &format!("{APPROVE} --modules . --module taker.ko"),
        2,
        &["taker.ko: symbol offer is exported by both again and z-giver: approve one of them"],
    );
    // A number is no place in the module.
    let mut number = Object::code("z-giver", &[]).export("__ksymtab_offer", ".text", 0);
    number.symbols[1].2 = Home::Number(0xFFF1, PRINTK);
    put(&folder, &[&number]);
    assert_eq!(folder.run(&format!("{APPROVE} --module taker.ko --module z-giver.ko")).0, 0);
    let expected = [(4, Field::Relative32, Base::Kernel, PRINTK - 4)];
    assert_eq!(relocations(&folder.get("list"), "taker"), expected);
}

#[test]
fn a_folders_unfit_modules_are_left_out_with_those_that_need_them() {
    let [mut giver, taker] = pair();
    giver.sections[0].relocations.push((0, 26, "printk", 0));
    let good = Object::code("good", &[(0, R_PC32, "printk", 0)]);
    let folder = folder("folder", &[&good]);
    folder.put("no.ko", b"no module");
    folder.put("packed.ko.gz", b"\x1F\x8B?");
    folder.put("notes.txt", b"no module");
    std::fs::create_dir_all(folder.0.join("below/it")).unwrap();
    folder.put("below/taker.ko", &taker.build());
    folder.put("below/it/z-giver.ko", &giver.build());
    std::os::unix::fs::symlink("..", folder.0.join("below/up")).unwrap();
    let (code, out, err) = folder.run(&format!("{APPROVE} --modules ."));
    assert_eq!((code, err.as_str()), (0, ""));
    for told in [
        "modules       1, at",
        "module        good: ",
        "not approved  ./no.ko: no sound ELF: ",
        "not approved  ./packed.ko.gz: cannot unpack it by gzip: ",
        "not approved  ./below/it/z-giver.ko: section .text+0x0: RELA relocation of type 26",
        "not approved  ./below/taker.ko: symbol offer is exported neither",
    ] {
        assert!(out.contains(told), "no {told} in {out}");
    }
    assert_eq!(out.matches("not approved  ./").count(), 4, "{out}");
    folder.fails(&format!("{APPROVE} --modules . --module below/taker.ko"), 2, &["offer"]);
    folder.fails(&format!("{APPROVE} --modules missing"), 2, &["missing: "]);
    std::fs::create_dir(folder.0.join("empty")).unwrap();
    folder.fails(&format!("{APPROVE} --modules empty"), 2, &["empty: no kernel module (.ko)"]);
    // A folder none of whose modules is fit gives a list without modules.
    let (code, out, _) = folder.run(&format!("{APPROVE} --modules below"));
    assert!(code == 0 && !out.contains("modules  "), "{out}");
    let list = folder.get("list");
    assert!(ApprovalList::parse(&list).unwrap().window().is_empty());
}

#[test]
fn modules_that_their_kernel_patches_are_noted() {
    let mut module = Object::code("a", &[]);
    module.sections.push(section("__mcount_loc", ALLOC, 8, vec![0; 8]));
    let folder = folder("patched", &[&module, &Object::code("b", &[])]);
    let (code, _, err) = folder.run(&format!("{APPROVE} --modules ."));
    let told = "note: 1 of the modules, such as a, have sections by which kernels patch code \
                (__mcount_loc), and";
    assert!(code == 0 && err.contains(told), "{err}");
}

#[test]
fn two_modules_with_one_name_are_refused() {
    let module = Object::code("a", &[]);
    let mut other = module.clone();
    other.sections[0].bytes[0] = 1;
    let folder = folder("duplicates", &[&module]);
    folder.put("b.ko", &other.build());
    let told = ["./a.ko and ./b.ko are different modules with the name a: give one of them"];
    folder.fails(&format!("{APPROVE} --modules ."), 2, &told);
    folder.put("b.ko", &module.build());
    assert_eq!(folder.run(&format!("{APPROVE} --modules .")).0, 0);
}

#[test]
fn packed_modules_are_unpacked() {
    use std::io::Write;
    let folder = folder("packed", &[&Object::code("a", &[(0, R_PC32, "printk", 0)])]);
    assert_eq!(folder.run(&format!("{APPROVE} --module a.ko")).0, 0);
    let module = folder.get("a.ko");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(&module).unwrap();
    let fastest = ruzstd::encoding::CompressionLevel::Fastest;
    for (name, packed) in [
        ("a.ko.gz", gzip.finish().unwrap()),
        ("a.ko.xz", crate::xz(&module)),
        ("a.ko.zst", ruzstd::encoding::compress_to_vec(&*module, fastest)),
    ] {
        let inner = Folder::new(&format!("packed/{name}"));
        inner.put(name, &packed);
        let line = format!("approve --kernel vmlinux -o packed.list --modules {name}");
        let (code, out, err) = folder.run(&line);
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        assert_eq!(folder.get("packed.list"), folder.get("list"), "{out}");
        inner.put(name, &packed[..packed.len() / 2]);
        folder.fails(&format!("{APPROVE} --module {name}/{name}"), 2, &["cannot unpack it"]);
    }
}

#[test]
fn check_compares_modules() {
    let [giver, taker] = pair();
    let folder = folder("check-modules", &[&giver, &taker]);
    assert_eq!(folder.run(&format!("{APPROVE} --modules .")).0, 0);
    let check = "check list --kernel vmlinux";
    let same = (0, "list approves vmlinux\n".to_owned(), String::new());
    assert_eq!(folder.run(&format!("{check} --modules .")), same);
    assert_eq!(folder.run(check), same);

    folder.fails(
        &format!("{check} --module z-giver.ko"),
        1,
        &["module taker: approved, but not given"],
    );
    put(&folder, &[&Object::code("new", &[])]);
    folder.fails(&format!("{check} --modules ."), 1, &["module new: given, but not approved"]);
    // Numbers of modules move; what they are called does not.
    std::fs::remove_file(folder.0.join("new.ko")).unwrap();
    put(&folder, &[&Object::code("x", &[])]);
    let (code, out, _) = folder.run(&format!("{check} --modules ."));
    assert_eq!((code, out.as_str()), (1, "module x: given, but not approved\n"));
    std::fs::remove_file(folder.0.join("x.ko")).unwrap();

    let changed = |change: &dyn Fn(&mut Object), messages: &[&str]| {
        let mut taker = taker.clone();
        change(&mut taker);
        put(&folder, &[&taker]);
        let (code, out, err) = folder.run(&format!("{check} --modules ."));
        assert_eq!((code, out.lines().count(), err), (1, messages.len(), String::new()), "{out}");
        for message in messages {
            assert!(out.contains(message), "no {message} in {out}");
        }
    };
    changed(&|taker| taker.sections[0].bytes[0] = 1, &["section .text: approved SHA-256 "]);
    changed(
        &|taker| taker.sections[0].bytes.push(0),
        &["module taker: section .text: length: approved 0x40, found 0x41", "SHA-256"],
    );
    changed(
        &|taker| taker.sections[0].relocations[0].3 = -8,
        &["approved relocation at 0x4 relative32 z-giver+0x4, found 0x4 relative32 z-giver+0x0"],
    );
    changed(
        &|taker| taker.sections[0].relocations.push((8, R_PC32, "printk", 0)),
        &["module taker: section .text: relocations: approved 0x1, found 0x2"],
    );
    let more = section(".init.text", CODE, 1, vec![0; 8]);
    changed(
        &|taker| taker.sections.push(more.clone()),
        &["module taker: approved sections .text, found .text, .init.text"],
    );
    put(&folder, &[&taker]);
    folder.put("bad.ko", b"");
    let (code, out, _) = folder.run(&format!("{check} --modules ."));
    assert!(code == 0 && out.starts_with("not approved  ./bad.ko: "), "{out}");
}
