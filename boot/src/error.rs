//! Why SecVisor does not start a guest: one clear line each, with the way out.

use core::fmt;

use policy::address::PhysicalRange;

use crate::memory::MAX_ENTRIES;

/// What is wrong with what the owner, GRUB or the firmware handed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BootError<'a> {
    /// An option that SecVisor does not have.
    UnknownOption(&'a str),
    /// An option (`name=value`) whose value is none of `allowed`.
    OptionValue {
        /// The option as given.
        option: &'a str,
        /// The values that it may have.
        allowed: &'static str,
    },
    /// `views=gmet` on a processor that has no GMET.
    NoGmet,
    /// The multiboot2 information does not hold: what about it.
    Information(&'static str),
    /// A module whose name is none of `kernel`, `initrd` and `policy`.
    ModuleUnknown(&'a str),
    /// A second module of the same name.
    ModuleTwice(&'static str),
    /// A module that must be there is not.
    ModuleMissing(&'static str),
    /// A module without contents.
    ModuleEmpty(&'static str),
    /// A module that shares memory with another one or with SecVisor.
    ModuleOverlap(&'static str, &'static str),
    /// The memory map needs more entries than the guest can take.
    MemoryMapFull,
    /// No place in RAM for something.
    NoRoom {
        /// What needs the place.
        what: &'static str,
        /// Its size in bytes.
        size: u64,
        /// The address below which it must end.
        limit: u64,
    },
    /// The kernel file is not what SecVisor can load: what about it.
    Kernel(&'static str),
    /// A segment of the kernel: its physical address and size in bytes, and what about it.
    Segment(u64, u64, &'static str),
    /// The kernel wants memory that is not all RAM or that SecVisor occupies.
    KernelPlace(PhysicalRange),
    /// An ACPI table, by its signature, and what about it.
    Acpi(&'static str, &'static str),
    /// The guest's command line has too many bytes.
    CommandLine(usize),
}

/// Text from outside for the log and the screen: short, and printable ASCII only.
struct Plain<'a>(&'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        for byte in self.0.bytes().take(64) {
            let shown = if byte == b' ' || byte.is_ascii_graphic() { byte } else { b'?' };
            f.write_char(shown.into())?;
        }
        Ok(())
    }
}

impl fmt::Display for BootError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::UnknownOption(option) => write!(
                f,
                "unknown option '{}': SecVisor has views=, entry-guard=, violation= and log=; \
                 correct its line in GRUB's configuration",
                Plain(option)
            ),
            Self::OptionValue { option, allowed } => {
                write!(f, "option '{}': its value must be one of {allowed}", Plain(option))
            }
            Self::NoGmet => f.write_str(
                "option 'views=gmet': this processor has no GMET (CPUID 8000_000Ah EDX bit 17 is 0); \
                 leave the option away, or say views=two",
            ),
            Self::Information(what) => {
                write!(f, "boot information: {what}; start SecVisor by GRUB's multiboot2 command")
            }
            Self::ModuleUnknown(name) => write!(
                f,
                "module '{}': the word after the file must be kernel, initrd or policy",
                Plain(name)
            ),
            Self::ModuleTwice(name) => {
                write!(f, "module '{name}' is there twice: remove one module2 line")
            }
            Self::ModuleMissing(name) => {
                write!(f, "module '{name}' is missing: add the line 'module2 FILE {name}'")
            }
            Self::ModuleEmpty(name) => write!(f, "module '{name}' is empty: check its file"),
            Self::ModuleOverlap(name, other) => write!(
                f,
                "module '{name}' lies over {other} in memory: GRUB's module list is damaged"
            ),
            Self::MemoryMapFull => write!(
                f,
                "the firmware's memory map has more than {MAX_ENTRIES} entries: \
                 look for a firmware update"
            ),
            Self::NoRoom { what, size, limit } => write!(
                f,
                "no {size} bytes of RAM in one piece below {limit:#x} for {what}: \
                 add memory or make the kernel file (strip it) or the initrd smaller"
            ),
            Self::Kernel(what) => write!(
                f,
                "module 'kernel': {what}; give the uncompressed x86_64 vmlinux that was approved"
            ),
            Self::Segment(start, size, what) => write!(
                f,
                "module 'kernel': its segment of {size:#x} bytes at {start:#x} {what}; \
                 give the uncompressed x86_64 vmlinux that was approved"
            ),
            Self::KernelPlace(range) => write!(
                f,
                "module 'kernel' wants memory {range}, which is not free RAM on this machine: \
                 add memory or build the kernel with another CONFIG_PHYSICAL_START"
            ),
            Self::Acpi(table, what) => write!(
                f,
                "ACPI table {table} {what}: SecVisor cannot guard this machine's processors and \
                 sleep states; look for a firmware update"
            ),
            Self::CommandLine(bytes) => write!(
                f,
                "the kernel's command line has {bytes} bytes, Linux takes {}: shorten it",
                crate::linux::MAX_COMMAND_LINE
            ),
        }
    }
}

impl core::error::Error for BootError<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_shown_short_and_plain() {
        let name = format!("\x1b[2J\n{}", "x".repeat(10_000));
        let line = BootError::ModuleUnknown(&name).to_string();
        assert!(line.starts_with("module '?[2J?xxx"), "{line}");
        assert!(line.len() < 200 && line.bytes().all(|b| b == b' ' || b.is_ascii_graphic()));
    }
}
