//! What a boot needs: the hypervisor, the guest's kernel and initramfs, the approval list.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use clap::ValueEnum;
use harness::Result;

use crate::cache::{self, Key};
use crate::process::{root, step, target_directory};

/// The bare-metal target.
pub const TARGET: &str = "x86_64-unknown-none";
/// That of the 32-bit attack guest, whose build sees to it that nothing of a system is used.
pub const TARGET_32: &str = "i586-unknown-linux-gnu";
/// Free space that building the guest's kernel takes, in MiB.
const KERNEL_SPACE: u64 = 4096;

/// Configurations of a kernel beside the ordinary ones.
const FURTHER: [&str; 1] = ["selfcheck"];

/// Size of the root file system's image.
const DISK_BYTES: u64 = 64 << 20;

/// What a guest is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Arch {
    /// 64-bit kernels; their programs may be either.
    #[value(name = "x86_64")]
    X86_64,
    /// 32-bit kernels.
    I386,
}

impl Arch {
    /// Linux's name of it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::I386 => "i386",
        }
    }

    /// The cache's name of what is built for it.
    fn kind(self, what: &str) -> String {
        match self {
            Self::X86_64 => what.into(),
            Self::I386 => format!("{what}.i386"),
        }
    }
}

/// A guest's files.
#[derive(Clone, Debug)]
pub struct Guest {
    /// The kernel as ELF, as SecVisor loads it.
    pub vmlinux: PathBuf,
    /// The same kernel for a boot without SecVisor; `None` if there is only the ELF.
    pub bzimage: Option<PathBuf>,
    /// The initial RAM disk.
    pub initrd: PathBuf,
    /// The approval list.
    pub approvals: PathBuf,
    /// The kernel's modules; `None` if none are approved.
    pub modules: Option<PathBuf>,
}

/// Cargo in the checkout.
pub fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).args(arguments);
    // What cargo sets for this program is not meant for the next cargo.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CARGO_PKG_") || name == "CARGO_MANIFEST_DIR" {
            command.env_remove(name);
        }
    }
    command
}

/// Builds with cargo; the log is named after `what`.
fn build(what: &str, arguments: &[&str]) -> Result<()> {
    let logs = target_directory();
    std::fs::create_dir_all(&logs)?;
    let log = logs.join(format!("build-{}.log", what.replace(' ', "-")));
    step(&format!("building {what}"), &mut cargo(arguments), &log)
}

/// A package built for a bare-metal target.
fn bare_metal(package: &str, target: &str) -> Result<PathBuf> {
    build(package, &["build", "--release", "--target", target, "-p", package])?;
    Ok(target_directory().join(target).join("release").join(package))
}

/// The hypervisor, an ELF file for multiboot2.
pub fn hypervisor() -> Result<PathBuf> {
    bare_metal("secvisor-hypervisor", TARGET)
}

/// The host tool.
pub fn tool() -> Result<PathBuf> {
    build("secvisor", &["build", "-p", "secvisor"])?;
    Ok(target_directory().join("debug/secvisor"))
}

/// The guest of this checkout: kernel, initramfs and approval list.
pub fn guest(arch: Arch) -> Result<Guest> {
    guest_of(arch, kernel(arch, None)?)
}

/// The guest of the self-check's image: the 64-bit one with drivers for real machines.
pub fn selfcheck_guest() -> Result<Guest> {
    guest_of(Arch::X86_64, kernel(Arch::X86_64, Some("selfcheck"))?)
}

fn guest_of(arch: Arch, kernel: PathBuf) -> Result<Guest> {
    let (vmlinux, modules) = (kernel.join("vmlinux"), kernel.join("modules"));
    Ok(Guest {
        approvals: approve(&vmlinux, Some(&modules), false)?.list,
        bzimage: Some(kernel.join("bzImage")),
        initrd: initramfs(arch, &kernel)?,
        vmlinux,
        modules: Some(modules),
    })
}

/// The kernel of this checkout, with one of the further configurations that lie beside its own.
fn kernel(arch: Arch, more: Option<&str>) -> Result<PathBuf> {
    let patches = root().join("guest-patches");
    let series = patches.join("linux-6.1");
    let source = Path::new("/usr/src/linux-source-6.1.tar.xz");
    let version =
        Command::new("dpkg-query").args(["-W", "-f", "${Version}", "linux-source-6.1"]).output()?;
    let mut key = Key::default()
        .text(&String::from_utf8_lossy(&version.stdout))
        .path(&patches.join("include"))?;
    let mut files =
        series.read_dir()?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.sort();
    // What is said about them, or is for other architectures, changes nothing of the kernel.
    let is_of = |other: &Arch| *other == arch;
    let of_others = Arch::value_variants().iter().filter(|other| !is_of(other)).map(|it| it.name());
    let of_more = FURTHER.into_iter().filter(|name| Some(*name) != more);
    let left_out: Vec<_> = of_others.chain(of_more).chain(["md"]).collect();
    let counts =
        |file: &&PathBuf| file.extension().is_none_or(|end| !left_out.iter().any(|it| *it == end));
    for file in files.iter().filter(counts) {
        key = key.path(file)?.text(&file.file_name().unwrap_or_default().to_string_lossy());
    }
    let kind = more.map_or_else(|| arch.kind("linux-6.1"), |more| format!("linux-6.1.{more}"));
    cache::entry(&kind, key, |out| {
        room(KERNEL_SPACE)?;
        let mut build = Command::new(series.join("build.sh"));
        build.env("ARCH", arch.name()).arg(source).arg(out);
        if let Some(more) = more {
            build.env("MORE", series.join(format!("config.{more}")));
        }
        let log = cache::directory().join(format!("{kind}.log"));
        let what = more.unwrap_or(arch.name());
        step(&format!("building the guest's Linux for {what}"), &mut build, &log)?;
        present(out, &["vmlinux", "bzImage", "System.map", "modules", "unapproved"])
    })
}

/// The userland of this checkout, with the modules of `kernel`, a folder with `modules` and
/// `unapproved` as the build of a guest's kernel leaves it.
pub fn initramfs(arch: Arch, kernel: &Path) -> Result<PathBuf> {
    let userland = root().join("tests/userland");
    let check_machine = root().join("scripts/check-machine");
    let mut key = Key::default().path(&userland)?.path(&check_machine)?;
    if arch == Arch::X86_64 {
        key = key.path(Path::new("/bin/busybox"))?;
    }
    let key = key.path(&kernel.join("modules"))?.path(&kernel.join("unapproved"))?;
    let made = cache::entry(&arch.kind("initramfs"), key, |out| {
        let mut build = Command::new(userland.join("build.sh"));
        build.env("ARCH", arch.name()).arg(out).arg(kernel);
        let log = cache::directory().join(arch.kind("initramfs") + ".log");
        step("building the guest's initramfs", &mut build, &log)?;
        present(out, &["initramfs.cpio.gz", "root"])
    })?;
    Ok(made.join("initramfs.cpio.gz"))
}

/// A kernel as SecVisor loads it, an ELF file, and its approval list.
#[derive(Clone, Debug)]
pub struct Approved {
    /// The kernel.
    pub vmlinux: PathBuf,
    /// The approval list.
    pub list: PathBuf,
    /// A line on each module that is left out, and why.
    pub left_out: Vec<String>,
}

/// Approves a kernel, vmlinux or bzImage, and the modules in a folder, by the host tool; for
/// `audit`, as much of the kernel as can be.
pub fn approve(kernel: &Path, modules: Option<&Path>, audit: bool) -> Result<Approved> {
    let tool = tool()?;
    let mode: &[&str] = if audit { &["--audit"] } else { &[] };
    let mut key = Key::default().path(&tool)?.path(kernel)?.text(&mode.concat());
    if let Some(modules) = modules {
        key = key.path(modules)?;
    }
    let made = cache::entry("approvals", key, |out| {
        let mut approve = Command::new(&tool);
        approve.arg("approve").args(mode).arg("--kernel").arg(kernel);
        approve.arg("--output").arg(out.join("approvals.bin"));
        approve.arg("--vmlinux-out").arg(out.join("vmlinux"));
        if let Some(modules) = modules {
            approve.arg("--modules").arg(modules);
        }
        let told = out.join("told");
        // All of its lines: each names something that is to be mended.
        step("approving the kernel", &mut approve, &told).map_err(|_| {
            let told = std::fs::read_to_string(&told).unwrap_or_default();
            format!("the kernel cannot be approved:\n{}", told.trim_end()).into()
        })
    })?;
    let told = std::fs::read_to_string(made.join("told"))?;
    let of_module = |line: &&str| {
        line.starts_with("secvisor: note: ")
            || (line.starts_with("not approved ") && line.contains(".ko: "))
    };
    let folder = modules.map_or_else(String::new, |folder| format!("{}/", folder.display()));
    let left_out = told.lines().filter(of_module).map(|line| line.replace(&folder, "")).collect();
    Ok(Approved { vmlinux: made.join("vmlinux"), list: made.join("approvals.bin"), left_out })
}

/// The attack guest for a target and its modules, which its build leaves beside it.
pub fn attack_guest(target: &str) -> Result<Approved> {
    let guest = bare_metal("attack-guest", target)?;
    approve(&guest, Some(&guest.with_file_name("attack-modules")), false)
}

/// QEMU with Guest Mode Execute Trap, which a patch of this project adds to it.
pub fn gmet_emulator() -> Result<PathBuf> {
    static BUILT: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| build_gmet_emulator().map_err(|error| error.to_string()));
    Ok(built.clone()?)
}

fn build_gmet_emulator() -> Result<PathBuf> {
    let sources = root().join("tests/emulator");
    let made = cache::entry("qemu-gmet", Key::default().path(&sources)?, |out| {
        let mut build = Command::new(sources.join("build.sh"));
        build.arg(out).arg(cache::directory());
        let log = cache::directory().join("qemu-gmet.log");
        step("building QEMU with GMET", &mut build, &log)?;
        present(out, &["qemu-system-x86_64"])
    })?;
    Ok(made.join("qemu-system-x86_64"))
}

/// A root file system image (ext4) that holds what the initramfs holds, made without root.
pub fn disk(guest: &Guest) -> Result<PathBuf> {
    let key = Key::default().path(&guest.initrd)?;
    let tree = guest.initrd.with_file_name("root");
    let made = cache::entry("disk", key, |out| {
        let image = out.join("root.img");
        std::fs::File::create(&image)?.set_len(DISK_BYTES)?;
        let mut make = Command::new("/sbin/mke2fs");
        make.args(["-q", "-t", "ext4", "-E", "root_owner=0:0", "-d"]).arg(&tree).arg(&image);
        step("making the disk", &mut make, &cache::directory().join("disk.log"))
    })?;
    Ok(made.join("root.img"))
}

fn present(directory: &Path, names: &[&str]) -> Result<()> {
    match names.iter().find(|name| !directory.join(name).exists()) {
        Some(name) => Err(format!("the build gave no {name}").into()),
        None => Ok(()),
    }
}

fn room(megabytes: u64) -> Result<()> {
    let cache = cache::directory();
    let output = Command::new("df").args(["-Pm"]).arg(&cache).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let free: Option<u64> =
        text.lines().nth(1).and_then(|line| line.split_whitespace().nth(3)?.parse().ok());
    match free {
        Some(free) if free < megabytes => Err(format!(
            "no space: building the guest's kernel takes {megabytes} MiB in {}, {free} are free \
             (SECVISOR_CACHE names another folder)",
            cache.display()
        )
        .into()),
        _ => Ok(()),
    }
}
