//! A kernel of one's own, from the files that its build leaves: what boots of it, and how.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use harness::Result;

use crate::artifacts::{self, Arch, Guest};
use crate::cache::{self, Key};

/// Where a kernel's build leaves its bzImage, seen from its vmlinux.
const BZIMAGES: [&str; 4] =
    ["bzImage", "arch/x86/boot/bzImage", "arch/i386/boot/bzImage", "arch/x86_64/boot/bzImage"];
/// The demo's module that nobody approves, wherever it is found.
const UNAPPROVED: &str = "secvisor_demo_unapproved.ko";
/// How the names of modules end, packed ones included.
const ENDS: [&str; 4] = [".ko", ".ko.gz", ".ko.xz", ".ko.zst"];
/// Files that are told by name before the rest is only counted.
const TOLD: usize = 10;

/// What the user gives, and what is to be done with it.
pub struct Files<'a> {
    /// The kernel: vmlinux or bzImage.
    pub kernel: &'a Path,
    /// The initial RAM disk; without one, this checkout's userland.
    pub initrd: Option<&'a Path>,
    /// A folder with the kernel's modules, at any depth.
    pub modules: Option<&'a Path>,
    /// Whether it boots without SecVisor.
    pub plain: bool,
    /// Whether it boots under SecVisor.
    pub guarded: bool,
    /// Whether SecVisor only records what it does.
    pub audit: bool,
}

/// The guest that these files make.
pub fn guest(files: &Files<'_>) -> Result<Guest> {
    let (arch, is_elf) = identify(files.kernel)?;
    let bzimage = if is_elf {
        let mut beside = BZIMAGES.iter().map(|name| files.kernel.with_file_name(name));
        beside.find(|path| path.is_file())
    } else {
        Some(files.kernel.into())
    };
    if files.plain && bzimage.is_none() {
        return Err(format!(
            "without SecVisor a bzImage boots, not an ELF, and there is none beside {} ({}): make \
             bzImage, or give --kernel the bzImage",
            files.kernel.display(),
            BZIMAGES.join(", ")
        )
        .into());
    }
    let needed = files.modules.is_some() || files.initrd.is_none();
    let modules = if needed { collected(files.modules)? } else { PathBuf::new() };
    let listed = files.modules.map(|_| modules.join("modules"));
    let (mut vmlinux, mut approvals) = (files.kernel.into(), PathBuf::new());
    if files.guarded {
        let approved = artifacts::approve(files.kernel, listed.as_deref(), files.audit)?;
        tell(&approved.left_out, listed.as_deref())?;
        (vmlinux, approvals) = (approved.vmlinux, approved.list);
    }
    let initrd = match files.initrd {
        Some(initrd) => initrd.into(),
        None => artifacts::initramfs(arch, &modules)?,
    };
    Ok(Guest { vmlinux, bzimage, initrd, approvals, modules: listed })
}

/// Tells which of the modules are not approved; an error if all of them are not.
fn tell(left_out: &[String], modules: Option<&Path>) -> Result<()> {
    left_out.iter().take(TOLD).for_each(|line| eprintln!("{line}"));
    if left_out.len() > TOLD {
        eprintln!("and {} more", left_out.len() - TOLD);
    }
    let refused = left_out.iter().filter(|line| line.starts_with("not approved ")).count();
    match modules.map(|folder| fs::read_dir(folder).map(Iterator::count)).transpose()? {
        Some(given) if given > 0 && refused == given => {
            Err("none of the modules can be approved: are they this kernel's?".into())
        }
        _ => Ok(()),
    }
}

/// What a kernel's file is made for, and whether it is an ELF and not a bzImage.
pub fn identify(file: &Path) -> Result<(Arch, bool)> {
    let data = fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let half = |at: usize| Some(u16::from_le_bytes(*data.get(at..)?.first_chunk()?));
    let found = if data.starts_with(b"\x7fELF") {
        match half(18) {
            Some(3) => Ok((Arch::I386, true)),
            Some(62) => Ok((Arch::X86_64, true)),
            machine => {
                let machine = machine.unwrap_or_default();
                Err(format!("made for ELF machine {machine}, not i386 (3) or x86_64 (62)"))
            }
        }
    } else if data.get(0x202..0x206) == Some(b"HdrS") {
        // From protocol 2.12 on, its flags say whether it can be entered in 64-bit mode.
        let flags = half(0x206).filter(|&version| version >= 0x20C).and_then(|_| half(0x236));
        let long = flags.is_some_and(|flags| flags & 1 != 0);
        Ok((if long { Arch::X86_64 } else { Arch::I386 }, false))
    } else {
        Err("neither an ELF vmlinux nor a bzImage".into())
    };
    found.map_err(|error| format!("{}: {error}", file.display()).into())
}

/// A folder that names all modules below `folder` as the build of this checkout's kernel does.
fn collected(folder: Option<&Path>) -> Result<PathBuf> {
    let mut found = BTreeMap::new();
    let mut key = Key::default();
    if let Some(folder) = folder {
        find(folder, &mut found)?;
        if found.is_empty() {
            return Err(
                format!("{}: no kernel module (.ko) in it or below it", folder.display()).into()
            );
        }
    }
    for (name, path) in &found {
        key = key.path(path)?.text(name).text(&path.to_string_lossy());
    }
    cache::entry("modules", key, |out| link(&found, out))
}

/// Names in `modules` what is to be approved, in `unapproved` what must not be.
fn link(found: &BTreeMap<String, PathBuf>, out: &Path) -> Result<()> {
    for kind in ["modules", "unapproved"] {
        fs::create_dir(out.join(kind))?;
    }
    for (name, path) in found {
        if name == UNAPPROVED {
            fs::copy(path, out.join("unapproved").join(name))?;
        } else {
            std::os::unix::fs::symlink(path, out.join("modules").join(name))?;
        }
    }
    Ok(())
}

/// All modules below `folder`, by file name. Links to folders are not followed: they may lead in
/// circles.
fn find(folder: &Path, found: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    let context = |error| format!("{}: {error}", folder.display());
    for entry in fs::read_dir(folder).map_err(context)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if entry.file_type()?.is_dir() {
            find(&path, found)?;
        } else if ENDS.iter().any(|end| name.ends_with(end)) {
            let path =
                path.canonicalize().map_err(|error| format!("{}: {error}", path.display()))?;
            if let Some(other) = found.insert(name, path.clone())
                && fs::read(&other)? != fs::read(&path)?
            {
                let (one, other) = (other.display(), path.display());
                return Err(format!("{one} and {other} are different modules of one name").into());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An empty folder of its own for a test.
    fn folder(test: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("secvisor-own-{}-{test}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn elf(machine: u8) -> Vec<u8> {
        let mut file = b"\x7fELF\x01\x01\x01".to_vec();
        file.resize(64, 0);
        file[18] = machine;
        file
    }

    fn bzimage(version: u16, flags: u8) -> Vec<u8> {
        let mut file = vec![0; 0x300];
        file[0x202..0x206].copy_from_slice(b"HdrS");
        file[0x206..0x208].copy_from_slice(&version.to_le_bytes());
        file[0x236] = flags;
        file
    }

    #[test]
    fn kernels_are_told_apart() {
        let folder = folder("identify");
        let path = folder.join("kernel");
        let told = |data: &[u8]| {
            fs::write(&path, data).unwrap();
            identify(&path).map_err(|error| error.to_string())
        };
        assert_eq!(told(&elf(3)), Ok((Arch::I386, true)));
        assert_eq!(told(&elf(62)), Ok((Arch::X86_64, true)));
        assert_eq!(told(&bzimage(0x20F, 1)), Ok((Arch::X86_64, false)));
        assert_eq!(told(&bzimage(0x20F, 0)), Ok((Arch::I386, false)));
        // Linux 2.6.20 has code where later ones have flags.
        assert_eq!(told(&bzimage(0x205, 1)), Ok((Arch::I386, false)));
        assert!(told(&elf(40)).unwrap_err().contains("kernel: made for ELF machine 40"));
        assert!(told(b"hello").unwrap_err().contains("kernel: neither an ELF vmlinux nor"));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_plain_boot_needs_the_bzimage_beside_the_kernel() {
        let folder = folder("plain");
        let kernel = folder.join("vmlinux");
        fs::write(&kernel, elf(3)).unwrap();
        let files = Files {
            kernel: &kernel,
            initrd: Some(&kernel),
            modules: None,
            plain: true,
            guarded: false,
            audit: false,
        };
        let error = guest(&files).unwrap_err().to_string();
        assert!(error.contains("none beside") && error.contains("make bzImage"), "{error}");
        fs::create_dir_all(folder.join("arch/i386/boot")).unwrap();
        let bzimage = folder.join("arch/i386/boot/bzImage");
        fs::write(&bzimage, b"").unwrap();
        assert_eq!(guest(&files).unwrap().bzimage, Some(bzimage));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn modules_none_of_which_is_approved_are_an_error() {
        let folder = folder("tell");
        fs::write(folder.join("a.ko"), b"").unwrap();
        let refused = "not approved  a.ko: made for i386, the kernel for x86_64".to_owned();
        assert!(
            tell(std::slice::from_ref(&refused), Some(&folder))
                .unwrap_err()
                .to_string()
                .contains("none of")
        );
        tell(&["secvisor: note: patched".into()], Some(&folder)).unwrap();
        fs::write(folder.join("b.ko"), b"").unwrap();
        tell(&[refused], Some(&folder)).unwrap();
        tell(&[], None).unwrap();
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn modules_are_found_at_any_depth_and_the_demos_left_apart() {
        let folder = folder("modules");
        fs::create_dir_all(folder.join("fs/fat")).unwrap();
        fs::write(folder.join("fs/fat/fat.ko"), b"1").unwrap();
        fs::write(folder.join("fs/notes.ko.txt"), b"1").unwrap();
        fs::write(folder.join("fs/nls.ko.xz"), b"1").unwrap();
        fs::write(folder.join(UNAPPROVED), b"2").unwrap();
        std::os::unix::fs::symlink("..", folder.join("fs/up")).unwrap();
        let (mut found, out) = (BTreeMap::new(), folder.join("out"));
        find(&folder, &mut found).unwrap();
        fs::create_dir(&out).unwrap();
        link(&found, &out).unwrap();
        let names = |kind: &str| -> Vec<_> {
            let entries = fs::read_dir(out.join(kind)).unwrap();
            let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            names.collect::<std::collections::BTreeSet<_>>().into_iter().collect()
        };
        assert_eq!(names("modules"), ["fat.ko", "nls.ko.xz"]);
        assert_eq!(names("unapproved"), [UNAPPROVED]);
        assert_eq!(fs::read(out.join("modules/fat.ko")).unwrap(), b"1");

        fs::write(folder.join("fat.ko"), b"1").unwrap();
        find(&folder, &mut BTreeMap::new()).unwrap();
        fs::write(folder.join("fat.ko"), b"3").unwrap();
        let error = find(&folder, &mut BTreeMap::new()).unwrap_err().to_string();
        assert!(error.contains("different modules of one name"), "{error}");
        fs::create_dir(folder.join("none")).unwrap();
        let error = collected(Some(&folder.join("none"))).unwrap_err().to_string();
        assert!(error.contains("none: no kernel module (.ko) in it or below it"), "{error}");
        fs::remove_dir_all(folder).unwrap();
    }
}
