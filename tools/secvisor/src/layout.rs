//! Where Linux's module loaders put a module's sections (`layout_sections` in kernel/module.c, or in
//! kernel/module/main.c).

use elf::abi::{SHF_ALLOC, SHF_EXECINSTR, SHF_WRITE, SHT_SYMTAB};
use policy::PAGE_SIZE;
use policy::approval::Architecture;

use crate::Error;
use crate::exports::{Exports, is_release};
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

/// The module loader of a kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loader {
    /// Linux 6.1's with CONFIG_STRICT_MODULE_RWX.
    Linux6_1,
    /// That of Linux 2.6.20 with the port, which ends code on a page border.
    Linux2_6_20 {
        /// Whether modules keep their symbols, between constants and data (CONFIG_KALLSYMS).
        kallsyms: bool,
    },
}

impl Loader {
    /// That of the kernel which says it is `vermagic`.
    pub fn of(
        kernel: &Exports<'_>,
        architecture: Architecture,
        vermagic: &str,
    ) -> Result<Self, Error> {
        match architecture {
            _ if is_release(vermagic, "6.1") => Ok(Self::Linux6_1),
            Architecture::I386 if is_release(vermagic, "2.6.20") => {
                Ok(Self::Linux2_6_20 { kallsyms: kernel.kallsyms })
            }
            _ => Err(format!(
                "where Linux {} for {} puts a module's sections is not known, only where 6.1 \
                 and, for i386, 2.6.20 do: approve the kernel without modules",
                vermagic.split(' ').next().unwrap_or_default(),
                architecture.name()
            )),
        }
    }

    /// Gives every section its place. `unload` says whether modules of this kernel can be unloaded.
    pub fn lay_out(self, sections: &mut [Section<'_>], unload: bool) -> Result<(), Error> {
        let wx = SHF_WRITE | SHF_EXECINSTR;
        if let Some(section) = sections.iter().find(|section| section.has(wx)) {
            return Err(format!("section {} is both code and writable", section.name));
        }
        let percpu = [".data..percpu", ".data.percpu"];
        let is_percpu = |section: &&Section<'_>| percpu.contains(&section.name);
        if let Some(section) = sections.iter().filter(is_percpu).find(|s| s.header.sh_size > 0) {
            return Err(format!(
                "its section {} has data whose address the kernel chooses for each boot: build \
                 kernel and module without CONFIG_SMP",
                section.name
            ));
        }
        let flags = self.flags(sections, unload);
        for init in [false, true] {
            let mut size = 0;
            for group in 0..4 {
                for (section, &flags) in sections.iter_mut().zip(&flags) {
                    let in_init = section.name.starts_with(".init")
                        || (!unload && section.name.starts_with(".exit"));
                    if flags & u64::from(SHF_ALLOC) == 0
                        || group_of(flags) != group
                        || in_init != init
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
                // Each kind of pages ends on a border, but of data the old loader has only one; the
                // init block has nothing of the third kind.
                let ends = match self {
                    Self::Linux6_1 => group < 2 || (group == 2 && !init),
                    Self::Linux2_6_20 { .. } => group == 0,
                };
                if ends {
                    size = place(size, PAGE_SIZE, 0).ok_or("too large for a module")?.1;
                }
            }
        }
        Ok(())
    }

    /// The sections' flags as the loader changes them before it places any.
    fn flags(self, sections: &[Section<'_>], unload: bool) -> Vec<u64> {
        let alloc = u64::from(SHF_ALLOC);
        let mut flags: Vec<u64> = sections.iter().map(|section| section.header.sh_flags).collect();
        // Of each name only the first is special, as in the kernel.
        let kept = |flags: &[u64], name: &str| {
            let kept =
                |(section, flags): (&Section<'_>, &u64)| section.name == name && flags & alloc != 0;
            sections.iter().zip(flags).position(kept)
        };
        let (dropped, after_init): (&[_], &[_]) = match self {
            Self::Linux6_1 => (
                &[".modinfo", "__versions", ".data..percpu"],
                &[".data..ro_after_init", "__jump_table"],
            ),
            Self::Linux2_6_20 { kallsyms } => {
                for (flags, section) in flags.iter_mut().zip(sections) {
                    *flags &= !RO_AFTER_INIT;
                    if !unload && section.name.starts_with(".exit") {
                        *flags &= !alloc;
                    }
                }
                let symbols = sections.iter().rposition(|s| s.header.sh_type == SHT_SYMTAB);
                if let Some(table) = symbols.filter(|_| kallsyms) {
                    for table in [table, sections[table].header.sh_link as usize] {
                        flags.get_mut(table).into_iter().for_each(|flags| *flags |= alloc);
                    }
                }
                (&[".modinfo"], &[])
            }
        };
        for name in dropped {
            if let Some(index) = kept(&flags, name) {
                flags[index] &= !alloc;
            }
        }
        for name in after_init {
            if let Some(index) = kept(&flags, name) {
                flags[index] |= RO_AFTER_INIT;
            }
        }
        flags
    }
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
