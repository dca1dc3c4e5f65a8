//! Real modules of a real kernel, against a second telling of the kernel's loader.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use policy::approval::{ApprovalList, Base, Module};
use sha2::{Digest, Sha256};

use crate::Folder;
use crate::loader::{self, Kernel, Loaded};

/// Loads all files, each as soon as what it needs is there, at places that `base` chooses by number.
fn load_all(files: &[Vec<u8>], mut kernel: Kernel, base: impl Fn(usize) -> u64) -> Vec<Loaded> {
    let (mut loaded, mut waiting) = (Vec::new(), files.iter().collect::<Vec<_>>());
    while !waiting.is_empty() {
        let before = waiting.len();
        waiting.retain(|file| {
            let number = loaded.len();
            let Ok(module) = loader::load(file, [base(2 * number), base(2 * number + 1)], &kernel)
            else {
                return true;
            };
            kernel.symbols.extend(module.exports.iter().cloned());
            loaded.push(module);
            false
        });
        assert!(waiting.len() < before, "{} modules do not load", waiting.len());
    }
    loaded
}

/// Compares a block's code, every byte, with what the list says of it, and counts relocations.
pub fn judge(
    approved: &Module<'_>,
    init: bool,
    module: &Loaded,
    bases: &HashMap<usize, u64>,
) -> usize {
    let (base, bytes) = &module.blocks[usize::from(init)];
    let text = &bytes[..module.text_size[usize::from(init)] as usize];
    assert_eq!(approved.pages(init) as usize * 4096, text.len(), "{}", module.name);
    let mut expected = vec![0; text.len()];
    let mut count = 0;
    for section in approved.region(init) {
        let place = section.offset as usize..section.end() as usize;
        let mut code = text[place.clone()].to_vec();
        for site in section.relocations() {
            code[site.offset as usize..][..site.field.width()].fill(0);
        }
        assert_eq!(Sha256::digest(&code)[..], section.sha256, "{} {}", module.name, section.name);
        for site in section.relocations() {
            let counted_from = match site.base {
                Base::Kernel => 0,
                Base::Core(number) => bases[&number.into()],
                Base::Init => module.blocks[1].0,
            };
            let at = base + u64::from(section.offset + site.offset);
            let value = site.bytes(counted_from, at).expect("a value that does not fit");
            let width = site.field.width();
            code[site.offset as usize..][..width].copy_from_slice(&value[..width]);
            count += 1;
        }
        expected[place].copy_from_slice(&code);
    }
    assert!(expected == text, "{}: the list does not determine its code", module.name);
    count
}

#[test]
#[ignore = "needs a kernel's build, named by SECVISOR_TEST_MODULES: vmlinux and modules/*.ko"]
fn a_list_determines_the_code_of_real_modules() {
    let build = std::env::var_os("SECVISOR_TEST_MODULES").map(PathBuf::from);
    let build = build.expect("set SECVISOR_TEST_MODULES to a folder with vmlinux and modules/");
    let folder = Folder::new("real");
    let (kernel, modules) = (build.join("vmlinux"), build.join("modules"));
    let (kernel, modules) = (kernel.to_str().unwrap(), modules.to_str().unwrap());
    let line = format!("approve --kernel {kernel} --modules {modules} -o list");
    let (code, out, err) = folder.run(&line);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(!out.contains(".ko"), "a module is left out: {out}");
    let bytes = folder.get("list");
    let list = ApprovalList::parse(&bytes).unwrap();

    let mut paths: Vec<_> =
        fs::read_dir(modules).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let files: Vec<_> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    assert!(!files.is_empty() && list.modules().count() == files.len());
    let running = Kernel::read(&fs::read(kernel).unwrap());
    let (start, end) = (list.window().start, list.window().end);
    let regions = 2 * files.len() as u64;
    // Wherever the kernel puts them: over the whole window, and at its end.
    let spread = ((end - start) / (regions + 1)) & !0xFFF;
    for (step, from) in [(spread, start + 0x5000), (0x10_0000, end - 0x10_0000 * regions)] {
        let loaded = load_all(&files, running.clone(), |number| from + step * number as u64);
        let number = |name: &str| list.find_module(name).unwrap().number;
        let bases =
            loaded.iter().map(|module| (number(&module.name), module.blocks[0].0)).collect();
        let judged = loaded.iter().map(|module| {
            let approved = list.find_module(&module.name).unwrap();
            judge(&approved, false, module, &bases) + judge(&approved, true, module, &bases)
        });
        let judged: usize = judged.sum();
        println!("{} modules, {judged} relocations", loaded.len());
        assert!(judged > 100 * loaded.len());
    }

    // The same from the files one by one, in another order.
    let singly: Vec<_> =
        paths.iter().rev().map(|path| format!("--module {}", path.display())).collect();
    let line = format!("approve --kernel {kernel} {} -o other", singly.join(" "));
    assert_eq!(folder.run(&line).0, 0);
    assert!(folder.get("other") == bytes);
    let line = format!("check list --kernel {kernel} --modules {modules}");
    assert_eq!(folder.run(&line).0, 0);
}
