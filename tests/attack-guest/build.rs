//! Links the guest at its fixed address.

fn main() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/linker.ld");
    println!("cargo:rerun-if-changed={script}");
    for argument in ["--no-pie", "-z", "max-page-size=4096", "--build-id=none", "--script"] {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
    println!("cargo:rustc-link-arg-bins={script}");
}
