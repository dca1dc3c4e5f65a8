//! Links the guest at its fixed address and assembles the kernel modules that it carries.

use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

const MODULES: [&str; 3] = ["alpha", "beta", "gamma"];

fn main() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/linker.ld");
    println!("cargo:rerun-if-changed={script}");
    for argument in ["--no-pie", "-z", "max-page-size=4096", "--build-id=none", "--script"] {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
    println!("cargo:rustc-link-arg-bins={script}");

    let sources = concat!(env!("CARGO_MANIFEST_DIR"), "/modules");
    let (own, mode) = match env::var("CARGO_CFG_TARGET_ARCH").as_deref() {
        Ok("x86") => (format!("{sources}/i386"), "-m32"),
        _ => (format!("{sources}/x86_64"), "-m64"),
    };
    println!("cargo:rerun-if-changed={sources}");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    // Beside the guest itself, below PROFILE/build/NAME/out, for the tool that approves both.
    let beside = out.ancestors().nth(3).expect("cargo's folders").join("attack-modules");
    fs::create_dir_all(&beside).expect("the folder for modules");
    for name in MODULES {
        let module = out.join(name).with_extension("ko");
        let mut assemble = Command::new("gcc");
        assemble.args([mode, "-c", "-x", "assembler", "-I", &own, "-o"]).arg(&module);
        let places = [&own, sources].map(|folder| format!("{folder}/{name}.s"));
        assemble.args(places.into_iter().find(|place| fs::exists(place).is_ok_and(|is| is)));
        let status = assemble.status().expect("gcc, which scripts/setup.sh installs");
        assert!(status.success(), "gcc could not assemble the module {name}");
        fs::copy(&module, beside.join(name).with_extension("ko")).expect("the module's copy");
    }
}
