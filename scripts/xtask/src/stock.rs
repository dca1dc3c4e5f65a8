//! Debian's own kernel, which knows nothing of SecVisor: fetched and unpacked, never installed.

use std::path::{Path, PathBuf};
use std::process::Command;

use harness::Result;

use crate::cache::{self, Key};
use crate::process::step;

/// Modules of it that tests load, by their places in the package.
const MODULES: [&str; 3] = ["drivers/block/loop.ko", "drivers/net/dummy.ko", "fs/nls/nls_utf8.ko"];
/// The kernel that the tests are about.
const SERIES: &str = "linux-image-6.1.";

/// A stock kernel's files.
pub struct Stock {
    /// The bzImage.
    pub vmlinuz: PathBuf,
    /// A folder with modules of it.
    pub modules: PathBuf,
}

/// The package that `linux-image-amd64` stands for here, as `NAME=VERSION`, or why there is none.
fn package() -> std::result::Result<String, String> {
    let asked = |arguments: &[&str]| {
        let output = Command::new("apt-cache").args(arguments).output();
        output.map_or(String::new(), |output| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let depends = asked(&["depends", "linux-image-amd64"]);
    let name = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    let name = name.ok_or("apt knows no linux-image-amd64: apt-get update")?;
    if !name.starts_with(SERIES) {
        return Err(format!("linux-image-amd64 is {name} here, the test is made for Debian 12's"));
    }
    let policy = asked(&["policy", name]);
    let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "));
    let version = version.ok_or_else(|| format!("apt has no candidate for {name}"))?;
    Ok(format!("{name}={version}"))
}

/// Fetches the package by apt and takes out what is needed; kept by name and version. The inner error
/// is the reason why it cannot be had here.
pub fn stock() -> Result<std::result::Result<Stock, String>> {
    let package = match package() {
        Ok(package) => package,
        Err(why) => return Ok(Err(why)),
    };
    let mut missing = None;
    let key = Key::default().text(&package).text(&MODULES.concat());
    let made = cache::entry("stock", key, |out| {
        let log = cache::directory().join("stock.log");
        let mut fetch = Command::new("apt-get");
        fetch.current_dir(out).args(["download", "-q", &package]);
        step(&format!("fetching {package}"), &mut fetch, &log)
            .inspect_err(|error| missing = Some(format!("{error}; try apt-get update")))?;
        let mut unpack = Command::new("sh");
        let modules = MODULES.map(|module| format!("./lib/modules/*/kernel/{module}"));
        let script = "dpkg-deb --fsys-tarfile *.deb | tar -x --wildcards --transform 's,.*/,,' \
                      './boot/vmlinuz-*' \"$@\" && rm -- *.deb && mv vmlinuz-* vmlinuz && \
                      mkdir modules && mv -- *.ko modules";
        unpack.current_dir(out).args(["-c", script, "sh"]).args(modules);
        step("unpacking the stock kernel", &mut unpack, &log)
    });
    if let Some(why) = missing {
        return Ok(Err(why));
    }
    let made = made?;
    Ok(Ok(Stock { vmlinuz: made.join("vmlinuz"), modules: made.join("modules") }))
}

/// An initramfs that holds what `initrd` holds, and the modules as /lib/modules/stock.
pub fn initrd(initrd: &Path, stock: &Stock, directory: &Path) -> Result<PathBuf> {
    // One archive behind the other, unpacked: GRUB would give only a part of two packed ones.
    let script = "mkdir -p tree/lib/modules && cp -r \"$2\" tree/lib/modules/stock && \
                  gzip -dc \"$1\" >initrd && cd tree && \
                  find . | LC_ALL=C sort | cpio --quiet -o -H newc >>../initrd";
    let mut make = Command::new("sh");
    make.current_dir(directory).args(["-ec", script, "sh"]).arg(initrd).arg(&stock.modules);
    step("adding the stock kernel's modules", &mut make, &directory.join("initrd.log"))?;
    Ok(directory.join("initrd"))
}
