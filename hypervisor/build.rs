//! Links the hypervisor by the workspace's linker script.

fn main() {
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../linker.ld");
    println!("cargo::rerun-if-changed={}", script.display());
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        println!("cargo::rustc-link-arg-bins=-T{}", script.display());
        // GRUB loads no position-independent executables, and needs none.
        println!("cargo::rustc-link-arg-bins=--no-pie");
    }
}
