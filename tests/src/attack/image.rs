//! The bootable CD with the attack guest, alone or under SecVisor.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::{Column, Setup};
use crate::Result;

/// Makes the CD; named after the column and the guest's command line.
pub(super) fn write(setup: &Setup, column: Column, line: &str) -> Result<PathBuf> {
    let short: String = line.chars().take(20).collect();
    let base = setup.place(column, &short.replace(['=', ' ', ','], "-"));
    let (tree, iso) = (base.with_extension("tree"), base.with_extension("iso"));
    let boot = tree.join("boot");
    fs::create_dir_all(boot.join("grub"))?;
    let mut files = vec![(&setup.guest, "attack-guest")];
    let commands = if column == Column::Plain {
        format!("multiboot2 /boot/attack-guest {line}\n")
    } else {
        files.extend([(&setup.secvisor, "secvisor.elf"), (&setup.approvals, "approvals.bin")]);
        format!(
            "multiboot2 /boot/secvisor.elf {} {}\n\
             module2 /boot/attack-guest kernel {line}\n\
             module2 /boot/approvals.bin policy\n",
            column.words(),
            setup.options
        )
    };
    fs::write(boot.join("grub/grub.cfg"), format!("set timeout=0\n{commands}boot\n"))?;
    for (from, name) in files {
        fs::copy(from, boot.join(name)).map_err(|error| format!("{}: {error}", from.display()))?;
    }
    let output = Command::new("grub-mkrescue")
        .arg("-o")
        .args([&iso, &tree])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("grub-mkrescue: {error}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(format!("grub-mkrescue: {}", crate::console::tail(&text)).into());
    }
    fs::remove_dir_all(&tree)?;
    Ok(iso)
}
