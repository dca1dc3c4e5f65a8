//! What is changed in a menu that would boot: in the approval list, the kernel's file, the rest.

use std::path::{Path, PathBuf};

use harness::Result;
use harness::elf::{Part, section};
use harness::iso::Menu;
use harness::qemu::Running;
use sha2::{Digest, Sha256};

use super::Context;
use crate::artifacts::{Approved, Arch};

/// Changes a menu, with new files in a directory.
pub type Change = fn(&mut Menu, &Path, &Context) -> Result<()>;

const PAGE: u64 = 4096;
/// Sizes of the list's header and of a kernel range, and where fields lie in them.
const HEADER: usize = 64;
const RANGE: usize = 96;
const VERSION: usize = 8;
const PHYSICAL: usize = 32;
const FILLED: usize = 40;
const HASH: usize = 64;
/// Where an ELF-64 file says its entry point.
const ENTRY: usize = 24;

/// Bytes of the kernel's last page of code that no section fills, and of shellcode at their end.
const SLACK: usize = 256;
const SHELLCODE: [u8; 64] = [0x90; 64];
/// An initrd that reaches from where GRUB puts modules over the kernel's place.
const INITRD: usize = 48 << 20;
const MARK: [u8; 8] = *b"SVINITRD";

/// Replaces a file of the menu by a changed copy.
fn edit(
    file: &mut Option<PathBuf>,
    directory: &Path,
    change: impl FnOnce(&mut Vec<u8>) -> Result<()>,
) -> Result<()> {
    let path = file.as_ref().ok_or("no such file in the menu")?;
    let mut data = std::fs::read(path)?;
    change(&mut data)?;
    let changed = directory.join(path.file_name().ok_or("a file without a name")?);
    std::fs::write(&changed, data)?;
    *file = Some(changed);
    Ok(())
}

fn edit_list(menu: &mut Menu, directory: &Path, change: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
    edit(&mut menu.approvals, directory, |data| {
        change(data);
        Ok(())
    })
}

fn put(data: &mut [u8], at: usize, bytes: &[u8]) {
    data[at..at + bytes.len()].copy_from_slice(bytes);
}

fn word(data: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|index| data[at + index]))
}

/// A section of the menu's kernel.
fn code(menu: &Menu, name: &str) -> Result<Part> {
    section(menu.kernel.as_ref().ok_or("no kernel")?, name)
}

pub fn no_kernel(menu: &mut Menu, _: &Path, _: &Context) -> Result<()> {
    menu.kernel = None;
    Ok(())
}

pub fn no_elf(menu: &mut Menu, directory: &Path, _: &Context) -> Result<()> {
    edit(&mut menu.kernel, directory, |data| {
        data.truncate(4096);
        data.fill(0x55);
        Ok(())
    })
}

fn say(menu: &mut Menu, word: &str) -> Result<()> {
    let (_, options) = menu.secvisor.as_mut().ok_or("no SecVisor in the menu")?;
    *options = format!("{options} {word}");
    Ok(())
}

pub fn option(menu: &mut Menu, _: &Path, _: &Context) -> Result<()> {
    say(menu, "bogus=1")
}

/// On the installed emulator, where nobody has it.
pub fn gmet(menu: &mut Menu, _: &Path, _: &Context) -> Result<()> {
    say(menu, "views=gmet")
}

pub fn no_list(menu: &mut Menu, _: &Path, _: &Context) -> Result<()> {
    menu.approvals = None;
    Ok(())
}

pub fn empty_list(menu: &mut Menu, directory: &Path, _: &Context) -> Result<()> {
    edit_list(menu, directory, Vec::clear)
}

pub fn half_a_list(menu: &mut Menu, directory: &Path, _: &Context) -> Result<()> {
    edit_list(menu, directory, |data| data.truncate(data.len() / 2))
}

pub fn version(menu: &mut Menu, directory: &Path, _: &Context) -> Result<()> {
    edit_list(menu, directory, |data| put(data, VERSION, &2u32.to_le_bytes()))
}

/// The second range begins at the first one's second page.
pub fn overlap(menu: &mut Menu, directory: &Path, _: &Context) -> Result<()> {
    edit_list(menu, directory, |data| {
        let start = word(data, HEADER + PHYSICAL) + PAGE;
        put(data, HEADER + RANGE + PHYSICAL, &start.to_le_bytes());
    })
}

/// The first range ends past the last address.
pub fn wrap(menu: &mut Menu, directory: &Path, _: &Context) -> Result<()> {
    edit_list(menu, directory, |data| put(data, HEADER + FILLED, &u64::MAX.to_le_bytes()))
}

/// The second range begins where the kernel has nothing.
pub fn outside(menu: &mut Menu, directory: &Path, _: &Context) -> Result<()> {
    edit_list(menu, directory, |data| {
        let start = word(data, HEADER + RANGE + PHYSICAL) + (16 << 20);
        put(data, HEADER + RANGE + PHYSICAL, &start.to_le_bytes());
    })
}

/// The field of the header at an offset says 2^32 - 1.
pub fn count(menu: &mut Menu, directory: &Path, at: usize) -> Result<()> {
    edit_list(menu, directory, |data| put(data, at, &u32::MAX.to_le_bytes()))
}

pub fn other_list(menu: &mut Menu, _: &Path, context: &Context) -> Result<()> {
    menu.approvals = Some(context.attack_guest(Arch::I386)?.list.clone());
    Ok(())
}

/// One bit of the last byte of a section, which nothing runs.
fn flip(menu: &mut Menu, directory: &Path, name: &str) -> Result<()> {
    let part = code(menu, name)?;
    edit(&mut menu.kernel, directory, |data| {
        data[part.offset as usize + part.bytes.len() - 1] ^= 1;
        Ok(())
    })
}

pub fn text(menu: &mut Menu, directory: &Path, _: &Context) -> Result<()> {
    flip(menu, directory, ".text")
}

pub fn init(menu: &mut Menu, directory: &Path, _: &Context) -> Result<()> {
    flip(menu, directory, ".init.text")
}

/// The kernel is entered at an instruction of its code that is no beginning.
pub fn entry(menu: &mut Menu, directory: &Path, _: &Context) -> Result<()> {
    edit(&mut menu.kernel, directory, |data| {
        let entry = word(data, ENTRY) + 1;
        put(data, ENTRY, &entry.to_le_bytes());
        Ok(())
    })
}

/// Shellcode at the end of the last page of code, in a list that approves less of that page: a page
/// of code and data.
pub fn slack(menu: &mut Menu, directory: &Path, _: &Context) -> Result<()> {
    let part = code(menu, ".text")?;
    let filled = part.bytes.len() - SLACK;
    edit(&mut menu.kernel, directory, |data| {
        put(data, part.offset as usize + part.bytes.len() - SHELLCODE.len(), &SHELLCODE);
        Ok(())
    })?;
    edit_list(menu, directory, |data| {
        put(data, HEADER + FILLED, &(filled as u64).to_le_bytes());
        put(data, HEADER + HASH, &Sha256::digest(&part.bytes[..filled]));
    })
}

/// Whether the shellcode is there; else there must be nothing but INT3.
pub fn slack_runs(running: &Running, guest: &Approved) -> Result<bool> {
    let text = section(&guest.vmlinux, ".text")?;
    let end = text.physical + text.bytes.len() as u64;
    let bytes = running.memory(end - SLACK as u64, SLACK as u64)?;
    if bytes.ends_with(&SHELLCODE) {
        return Ok(true);
    }
    match bytes.iter().find(|&&byte| byte != 0xCC) {
        Some(byte) => Err(format!("{byte:#x} is left in the last page of code").into()),
        None => Ok(false),
    }
}

/// Every page of it begins with a mark and its number.
pub fn initrd(menu: &mut Menu, directory: &Path, _: &Context) -> Result<()> {
    let mut bytes = vec![0; INITRD];
    for (number, page) in bytes.chunks_exact_mut(PAGE as usize).enumerate() {
        put(page, 0, &MARK);
        put(page, MARK.len(), &(number as u64).to_le_bytes());
    }
    let path = directory.join("initrd.img");
    std::fs::write(&path, bytes)?;
    menu.initrd = Some(path);
    Ok(())
}

/// Whether the approved text is not what lies there, though GRUB had put the initrd over it.
pub fn initrd_harms(running: &Running, guest: &Approved) -> Result<bool> {
    let text = section(&guest.vmlinux, ".text")?;
    let (start, length) = (1 << 20, INITRD as u64);
    let memory = running.memory(start, 2 * length)?;
    let first = |(page, bytes): (u64, &[u8])| {
        let number = bytes.starts_with(&MARK).then(|| word(bytes, MARK.len()))?;
        (start + page * PAGE).checked_sub(number * PAGE)
    };
    let mut places = (0..).zip(memory.chunks_exact(PAGE as usize)).filter_map(first);
    if !places.any(|place| (place..place + length).contains(&text.physical)) {
        return Err("GRUB did not put the initrd over the kernel's place".into());
    }
    Ok(running.memory(text.physical, text.bytes.len() as u64)? != text.bytes)
}
