//! Where Linux's module loader puts a module's sections (`layout_sections` in kernel/module).

use elf::abi::{SHF_ALLOC, SHF_EXECINSTR, SHF_WRITE};
use policy::PAGE_SIZE;

use crate::Error;
use crate::module::Section;

/// Marks data that is written only while the module starts; the loader sets it by name.
const RO_AFTER_INIT: u64 = 0x20_0000;

/// A place in one of a module's two blocks of memory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place {
    /// Whether it is the block that is freed when the module has started.
    pub init: bool,
    /// Bytes from the block's beginning.
    pub offset: u32,
}

/// Gives every section its place. `unload` says whether modules of this kernel can be unloaded.
pub fn lay_out(sections: &mut [Section<'_>], unload: bool) -> Result<(), Error> {
    let wx = SHF_WRITE | SHF_EXECINSTR;
    if let Some(section) = sections.iter().find(|section| section.has(wx)) {
        return Err(format!("section {} is both code and writable", section.name));
    }
    if sections.iter().any(|s| s.name == ".data..percpu" && s.header.sh_size > 0) {
        return Err(
            "its section .data..percpu has data whose address the kernel chooses for each \
                    boot: build kernel and module without CONFIG_SMP"
                .into(),
        );
    }
    let mut flags: Vec<u64> = sections.iter().map(|section| section.header.sh_flags).collect();
    // Of each only the first is special, as in the kernel.
    let kept = |flags: &[u64], name: &str| {
        let kept = |(section, flags): (&Section<'_>, &u64)| {
            section.name == name && flags & u64::from(SHF_ALLOC) != 0
        };
        sections.iter().zip(flags).position(kept)
    };
    for name in [".modinfo", "__versions", ".data..percpu"] {
        if let Some(index) = kept(&flags, name) {
            flags[index] &= !u64::from(SHF_ALLOC);
        }
    }
    for name in [".data..ro_after_init", "__jump_table"] {
        if let Some(index) = kept(&flags, name) {
            flags[index] |= RO_AFTER_INIT;
        }
    }
    for init in [false, true] {
        let mut size = 0;
        for group in 0..4 {
            for (section, &flags) in sections.iter_mut().zip(&flags) {
                let in_init = section.name.starts_with(".init")
                    || (!unload && section.name.starts_with(".exit"));
                if flags & u64::from(SHF_ALLOC) == 0 || group_of(flags) != group || in_init != init
                {
                    continue;
                }
                let header = &section.header;
                let end = place(size, header.sh_addralign, header.sh_size);
                let (offset, end) = end.ok_or(format!(
                    "section {} of {:#x} bytes, aligned to {:#x}, fits no module",
                    section.name, header.sh_size, header.sh_addralign
                ))?;
                section.place = Some(Place { init, offset });
                size = end;
            }
            // Each kind of pages ends on a border; the init block has nothing of the third kind.
            if group < 2 || (group == 2 && !init) {
                size = place(size, PAGE_SIZE, 0).ok_or("too large for a module")?.1;
            }
        }
    }
    Ok(())
}

/// Which kind of pages a section goes to: code, constants, constants after init, data.
fn group_of(flags: u64) -> u32 {
    if flags & u64::from(SHF_EXECINSTR) != 0 {
        0
    } else if flags & u64::from(SHF_WRITE) == 0 {
        1
    } else if flags & RO_AFTER_INIT != 0 {
        2
    } else {
        3
    }
}

/// Start and end of something that comes after `size` bytes.
fn place(size: u32, alignment: u64, length: u64) -> Option<(u32, u32)> {
    let alignment = u32::try_from(alignment.max(1)).ok().filter(|a| a.is_power_of_two())?;
    let start = size.checked_next_multiple_of(alignment)?;
    Some((start, start.checked_add(u32::try_from(length).ok()?)?))
}
