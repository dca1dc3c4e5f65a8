//! The bootable CD: GRUB, SecVisor, and what it starts.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Result;

/// What GRUB starts.
#[derive(Clone, Debug)]
pub struct Menu {
    /// SecVisor and its options; `None` boots the kernel by itself.
    pub secvisor: Option<(PathBuf, String)>,
    /// The guest's kernel; without SecVisor a bzImage, or an ELF that knows multiboot2.
    pub kernel: Option<PathBuf>,
    /// The kernel's command line.
    pub append: String,
    /// The initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// The approval list.
    pub approvals: Option<PathBuf>,
}

impl Menu {
    /// GRUB's commands, and the files they name.
    fn script(&self) -> Result<(String, Vec<(&Path, &'static str)>)> {
        let mut files: Vec<(&Path, &str)> = Vec::new();
        let mut script = String::from(
            "set timeout=0\nif [ \"$grub_platform\" = efi ]; then insmod all_video; fi\n",
        );
        let mut line = |text: String| {
            script.push_str(&text);
            script.push('\n');
        };
        if let Some((image, options)) = &self.secvisor {
            files.push((image, "secvisor.elf"));
            line(format!("multiboot2 /boot/secvisor.elf {options}"));
            if let Some(kernel) = &self.kernel {
                files.push((kernel, "vmlinux"));
                line(format!("module2 /boot/vmlinux kernel {}", self.append));
            }
            if let Some(initrd) = &self.initrd {
                files.push((initrd, "initrd.img"));
                line("module2 /boot/initrd.img initrd".into());
            }
            if let Some(approvals) = &self.approvals {
                files.push((approvals, "approvals.bin"));
                line("module2 /boot/approvals.bin policy".into());
            }
        } else {
            if let Some(kernel) = &self.kernel {
                files.push((kernel, "kernel"));
                let protocol = if is_elf(kernel)? { "multiboot2" } else { "linux" };
                line(format!("{protocol} /boot/kernel {}", self.append));
            }
            if let Some(initrd) = &self.initrd {
                files.push((initrd, "initrd.img"));
                line("initrd /boot/initrd.img".into());
            }
        }
        line("boot".into());
        Ok((script, files))
    }

    /// Makes the CD in `directory`.
    pub fn write(&self, directory: &Path) -> Result<PathBuf> {
        let tree = directory.join("iso");
        let boot = tree.join("boot");
        if tree.exists() {
            std::fs::remove_dir_all(&tree)?;
        }
        std::fs::create_dir_all(boot.join("grub"))?;
        let (script, files) = self.script()?;
        std::fs::write(boot.join("grub/grub.cfg"), script)?;
        for (from, name) in files {
            std::fs::copy(from, boot.join(name))
                .map_err(|error| format!("cannot copy {}: {error}", from.display()))?;
        }
        let iso = directory.join("secvisor.iso");
        let log = directory.join("iso.log");
        let output = std::fs::File::create(&log)?;
        let mut make = Command::new("grub-mkrescue");
        make.arg("-o").arg(&iso).arg(&tree).stdin(Stdio::null());
        let status = make.stdout(output.try_clone()?).stderr(output).status();
        let status = status.map_err(|error| format!("grub-mkrescue: {error}"))?;
        if !status.success() {
            let last = crate::console::tail(&std::fs::read_to_string(&log)?);
            return Err(format!("grub-mkrescue: {last} (log: {})", log.display()).into());
        }
        std::fs::remove_dir_all(&tree)?;
        Ok(iso)
    }
}

fn is_elf(file: &Path) -> Result<bool> {
    let mut magic = [0; 4];
    std::fs::File::open(file)?.read_exact(&mut magic)?;
    Ok(magic == *b"\x7fELF")
}
