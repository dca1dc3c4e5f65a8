//! libFuzzer's loop around one target: `SECVISOR_FUZZ` names it. Build and run it by
//! `cargo xtask fuzz`, which knows the compiler's options for coverage.
#![no_main]
#![allow(unsafe_code, reason = "libFuzzer's entry points are C functions")]

mod acpi;
mod approval;
mod hypercall;
mod loader;
mod walker;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

type Target = fn(&[u8]);

/// What reads hostile bytes, by name.
const TARGETS: [(&str, Target); 6] = [
    ("multiboot", loader::multiboot),
    ("elf", loader::elf),
    ("acpi", acpi::tables),
    ("approval", approval::list),
    ("hypercall", hypercall::calls),
    ("walker", walker::walk),
];

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("SECVISOR_FUZZ").unwrap_or_default();
    let found = TARGETS.iter().find(|target| target.0 == name);
    let names = TARGETS.map(|target| target.0).join(", ");
    found.unwrap_or_else(|| panic!("SECVISOR_FUZZ={name:?} is none of {names}")).1
});

fuzz_target!(|data: &[u8]| TARGET(data));
