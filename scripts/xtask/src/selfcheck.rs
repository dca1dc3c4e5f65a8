//! scripts/selfcheck: an image for a USB stick that checks a real machine, and takes its report.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use harness::Result;
use sha2::{Digest, Sha256};

use crate::artifacts::{self, Guest};
use crate::process::{caller_path, root, step, target_directory};

/// Size of the image, room for many reports included.
const IMAGE_BYTES: u64 = 96 << 20;
const SECTOR: u64 = 512;
/// Where the one partition begins: 1 MiB, with GRUB before it.
const PARTITION: u64 = 2048 * SECTOR;
/// Code of the boot sector, before the partition table.
const BOOT_CODE: usize = 440;
const PARTITION_TABLE: usize = 446;
/// FAT16, reached by block numbers.
const FAT16: u8 = 0x0E;
/// Sectors of a cluster: GRUB reads by clusters.
const CLUSTER: &str = "16";
/// Where GRUB finds the rest of itself: on whatever disk it was started from.
const PREFIX: &str = "(,msdos1)/boot/grub";
/// What GRUB unpacks: firmware is slow to read sticks.
const PACKED: [&str; 3] = ["secvisor.elf", "vmlinux", "approvals.bin"];
/// What GRUB needs to read the partition and to start the entries.
const MODULES: [&str; 8] =
    ["part_msdos", "fat", "gzio", "normal", "configfile", "multiboot2", "linux", "test"];
/// What is left to the owner of the stick, in a file at its root.
pub const SETTINGS: &str = "settings.cfg";

/// The entries of GRUB's menu: what the check is told, SecVisor's options if it starts, the title.
pub const ENTRIES: [(&str, Option<&str>, &str); 4] = [
    ("auto", Some(""), "Check this machine under SecVisor"),
    ("two", Some("views=two"), "The same with two views, GMET or not"),
    ("none", None, "The control: the same attacks without SecVisor"),
    ("audit", Some("violation=audit"), "No attacks, and SecVisor only counts what it would stop"),
];

/// Options of scripts/selfcheck.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Where the image goes, which is written to a USB stick as it is
    #[arg(long, short, value_name = "FILE", default_value = "secvisor-selfcheck.img")]
    output: PathBuf,
}

/// Makes the image and says what to do with it.
pub fn run(options: &Options) -> Result<bool> {
    let image = caller_path(&options.output);
    write(&artifacts::hypervisor()?, &artifacts::selfcheck_guest()?, &image)?;
    println!("{}: {} MiB", image.display(), IMAGE_BYTES >> 20);
    println!("To a USB stick, of which all else is lost (lsblk tells its name):");
    println!("  sudo dd if={} of=/dev/sdX bs=4M conv=fsync", image.display());
    println!("What then: docs/hardware.md, \"Checking a real machine\"");
    Ok(true)
}

/// Writes the image.
pub fn write(secvisor: &Path, guest: &Guest, image: &Path) -> Result<()> {
    let work = target_directory().join("selfcheck");
    if work.exists() {
        fs::remove_dir_all(&work)?;
    }
    let tree = work.join("tree");
    fs::create_dir_all(tree.join("boot/grub"))?;
    fs::create_dir_all(tree.join("EFI/BOOT"))?;
    let kernel = guest.bzimage.as_ref().ok_or("the control needs a bzImage")?;
    let log = work.join("log");
    let mut hash = Sha256::new();
    for (from, name) in [
        (secvisor, "secvisor.elf"),
        (&guest.vmlinux, "vmlinux"),
        (kernel, "bzimage"),
        (&guest.initrd, "initrd.img"),
        (&guest.approvals, "approvals.bin"),
    ] {
        let data = fs::read(from).map_err(|error| format!("{}: {error}", from.display()))?;
        hash.update(&data);
        let to = tree.join("boot").join(name);
        fs::write(&to, data)?;
        if PACKED.contains(&name) {
            // It keeps its name: GRUB tells by the content.
            let mut pack = Command::new("gzip");
            step("packing", pack.args(["-9", "-n", "-S", ".gz"]).arg(&to), &log)?;
            fs::rename(to.with_added_extension("gz"), &to)?;
        }
    }
    // The volume's number says which files are on it.
    let digest = hash.finalize();
    let number: String = digest.iter().take(4).map(|byte| format!("{byte:02X}")).collect();
    let id = format!("{}-{}", &number[..4], &number[4..]);
    fs::write(tree.join("boot/selfcheck.id"), &id)?;
    fs::write(tree.join("boot/grub/grub.cfg"), menu(&id, &version()))?;
    fs::write(tree.join(SETTINGS), settings(0, 20, "", ""))?;
    let grub = |platform: &str, more: &[&str], to: &Path| {
        let mut make = Command::new("grub-mkimage");
        make.args(["-O", platform, "-p", PREFIX, "-o"]).arg(to).args(MODULES).args(more);
        step("making GRUB's image", &mut make, &log)
    };
    let core = work.join("core.img");
    grub("i386-pc", &["biosdisk"], &core)?;
    grub("x86_64-efi", &["all_video"], &tree.join("EFI/BOOT/BOOTX64.EFI"))?;

    let mut file = fs::File::create(image)
        .map_err(|error| format!("cannot write {}: {error}", image.display()))?;
    file.set_len(IMAGE_BYTES)?;
    file.write_all(&boot_sector(&fs::read("/usr/lib/grub/i386-pc/boot.img")?)?)?;
    let core = fs::read(core)?;
    if core.len() as u64 > PARTITION - SECTOR {
        return Err(
            format!("GRUB of {} bytes does not fit before the partition", core.len()).into()
        );
    }
    // Its first sector expects the rest in the sector after it.
    file.seek(SeekFrom::Start(SECTOR))?;
    file.write_all(&core)?;
    drop(file);

    let volume = volume(image);
    let sectors = ((IMAGE_BYTES - PARTITION) / SECTOR).to_string();
    let before = (PARTITION / SECTOR).to_string();
    let mut format = Command::new("mformat");
    format.args(["-i", &volume, "-c", CLUSTER, "-h", "255", "-s", "63", "-T", &sectors]);
    format.args(["-H", &before, "-N", &number, "-v", "SECVISOR", "::"]);
    step("making the file system", &mut format, &log)?;
    let mut copy = Command::new("mcopy");
    copy.args(["-i", &volume, "-s"]);
    copy.args(["boot", "EFI", SETTINGS].map(|name| tree.join(name))).arg("::");
    step("filling the file system", &mut copy, &log)
}

/// The image's partition, as mtools name it.
pub fn volume(image: &Path) -> String {
    format!("{}@@{PARTITION}", image.display())
}

/// GRUB's boot sector with the partition table; it reads what follows it.
fn boot_sector(code: &[u8]) -> Result<[u8; SECTOR as usize]> {
    let mut sector = [0; SECTOR as usize];
    let code = code.get(..BOOT_CODE).ok_or("GRUB's boot.img is too short")?;
    sector[..BOOT_CODE].copy_from_slice(code);
    // Active, and where it begins and ends for firmware that knows no block numbers: nowhere.
    let entry = [0x80, 0xFE, 0xFF, 0xFF, FAT16, 0xFE, 0xFF, 0xFF];
    sector[PARTITION_TABLE..][..8].copy_from_slice(&entry);
    let place = [PARTITION / SECTOR, (IMAGE_BYTES - PARTITION) / SECTOR];
    for (slot, blocks) in [8, 12].into_iter().zip(place) {
        let blocks = u32::try_from(blocks)?.to_le_bytes();
        sector[PARTITION_TABLE + slot..][..4].copy_from_slice(&blocks);
    }
    sector[510..].copy_from_slice(&[0x55, 0xAA]);
    Ok(sector)
}

/// What GRUB reads of the owner: the entry that starts by itself, after how many seconds, and words for
/// SecVisor and the kernel.
pub fn settings(entry: usize, seconds: u32, secvisor: &str, kernel: &str) -> String {
    format!(
        "# Which entry starts by itself, after how many seconds, and more words for SecVisor\n\
         # (log=com1: its log on the first serial port) and for the kernel.\n\
         set default={entry}\nset timeout={seconds}\nset secvisor=\"{secvisor}\"\nset kernel=\"{kernel}\"\n"
    )
}

/// GRUB's configuration.
fn menu(id: &str, version: &str) -> String {
    let mut script = format!("source /{SETTINGS}\n");
    script += "if [ \"$grub_platform\" = efi ]; then insmod all_video; fi\n\
        set gfxpayload=keep\n";
    for (check, options, title) in ENTRIES {
        let words = format!(
            "console=ttyS0,115200 console=tty0 retain_initrd sv.run=selfcheck sv.stick={id} \
             sv.image={version} sv.check={check} $kernel"
        );
        let lines = match options {
            Some(options) => format!(
                "multiboot2 /boot/secvisor.elf {options} $secvisor\n\
                 module2 /boot/vmlinux kernel {words}\n\
                 module2 --nounzip /boot/initrd.img initrd\n\
                 module2 /boot/approvals.bin policy\n"
            ),
            None => format!("linux /boot/bzimage {words}\ninitrd /boot/initrd.img\n"),
        };
        script += &format!("menuentry \"{title}\" {{\n{lines}}}\n");
    }
    script
}

/// The version of this checkout, and its commit where it has one.
fn version() -> String {
    let mut ask = Command::new("git");
    ask.arg("-C").arg(root()).args(["describe", "--always", "--dirty", "--abbrev=12"]);
    let output = ask.output().ok().filter(|output| output.status.success());
    let commit = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    format!("{}-{}", env!("CARGO_PKG_VERSION"), commit.as_deref().unwrap_or("unknown"))
}
