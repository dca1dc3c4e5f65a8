//! Reads a kernel's ELF: what of it is code to approve, and that no data shares a page with it.

use elf::ElfBytes;
use elf::abi;
use elf::endian::AnyEndian;
use elf::section::SectionHeader;
use elf::segment::ProgramHeader;
use policy::PAGE_SIZE;
use policy::address::PhysicalRange;
use policy::approval::Architecture;

use crate::Error;

/// The sections that are approved, and whether they are init code. All of a kernel's code that
/// runs where it lies is in these two.
const APPROVED: [(&str, bool); 2] = [(".text", false), (".init.text", true)];

/// Why other sections that are marked executable need no approval.
const KNOWN: [(&str, &str); 3] = [
    (".altinstr_replacement", "holds instructions to copy, none runs in place"),
    (".altinstr_aux", "runs only in kernels that patch themselves"),
    (".exit.text", "is never called in a built-in driver"),
];

/// A kernel, as far as approval goes.
#[derive(Debug)]
pub struct Kernel<'a> {
    /// What it is made for.
    pub architecture: Architecture,
    /// Physical entry point.
    pub entry: u64,
    /// The code to approve, by physical address.
    pub code: Vec<Code<'a>>,
    /// Executable sections that are not approved, each with the reason.
    pub not_approved: Vec<String>,
}

/// A section to approve.
#[derive(Debug)]
pub struct Code<'a> {
    /// Its name.
    pub name: &'static str,
    /// Whether it is init code.
    pub init: bool,
    /// First physical address.
    pub physical: u64,
    /// First virtual address.
    pub virtual_start: u64,
    /// Its bytes, as a loader copies them.
    pub bytes: &'a [u8],
}

/// A section in memory, of code or data.
#[derive(Debug)]
pub struct Section {
    /// Its name.
    pub name: String,
    /// Where it is loaded.
    pub physical: PhysicalRange,
    /// Where the kernel runs or reads it.
    pub virtual_start: u64,
    /// Whether it is marked as code.
    pub executable: bool,
}

/// The sections of a kernel that take up memory.
pub fn sections(file: &[u8]) -> Result<Vec<Section>, Error> {
    let loaded = Image::read(file)?.loaded_sections()?;
    let section = |section: Loaded<'_>| Section {
        name: section.name.into(),
        physical: section.place,
        virtual_start: section.header.sh_addr,
        executable: section.is_executable(),
    };
    Ok(loaded.into_iter().map(section).collect())
}

/// A section that takes up memory.
struct Loaded<'a> {
    index: usize,
    name: &'a str,
    header: SectionHeader,
    place: PhysicalRange,
}

impl Loaded<'_> {
    fn is_executable(&self) -> bool {
        self.header.sh_flags & u64::from(abi::SHF_EXECINSTR) != 0
    }
}

struct Image<'a> {
    file: &'a [u8],
    elf: ElfBytes<'a, AnyEndian>,
    segments: Vec<ProgramHeader>,
}

impl<'a> Kernel<'a> {
    /// Reads an ELF, all of whose code must be fit for approval.
    pub fn read(file: &'a [u8]) -> Result<Self, Error> {
        Self::read_as(file, false)
    }

    /// Reads an ELF that needs no port: what shares a page with data is left out.
    pub fn read_for_audit(file: &'a [u8]) -> Result<Self, Error> {
        Self::read_as(file, true)
    }

    fn read_as(file: &'a [u8], audit: bool) -> Result<Self, Error> {
        let image = Image::read(file)?;
        let architecture = architecture(image.elf.ehdr.e_machine)?;
        let loaded = image.loaded_sections()?;
        let is_code = |section: &Loaded<'_>| APPROVED.iter().any(|(name, _)| *name == section.name);
        let mut code = Vec::new();
        let mut faults = Vec::new();
        for section in loaded.iter().filter(|section| is_code(section)) {
            let mixed = image.mixed_pages(section, &loaded);
            if mixed.is_empty() || !audit {
                code.push(image.code(section)?);
            }
            faults.extend(mixed);
        }
        if !audit && !faults.is_empty() {
            return Err(faults.join("\n"));
        }
        if code.is_empty() && !faults.is_empty() {
            faults.push("no code has pages of its own, so there is none to start with".into());
            return Err(faults.join("\n"));
        }
        if code.is_empty() {
            let names = APPROVED.map(|(name, _)| name).join(" or ");
            return Err(format!("no section {names} is loaded: there is no code to approve"));
        }
        code.sort_by_key(|code| code.physical);
        let other = |section: &&Loaded<'_>| section.is_executable() && !is_code(section);
        let not_approved = loaded.iter().filter(other).map(|section| {
            let known = KNOWN.iter().find(|(name, _)| *name == section.name);
            let reason = known.map_or("must never run", |(_, reason)| reason);
            format!("{} ({} bytes) {reason}", section.name, section.header.sh_size)
        });
        let not_approved = faults.into_iter().chain(not_approved).collect();
        let entry = image.entry(&code)?;
        Ok(Self { architecture, entry, code, not_approved })
    }
}

impl<'a> Image<'a> {
    fn read(file: &'a [u8]) -> Result<Self, Error> {
        let elf = ElfBytes::minimal_parse(file).map_err(broken)?;
        let segments = elf.segments().ok_or("the ELF has no program headers: no vmlinux")?;
        let segments: Vec<_> =
            segments.iter().filter(|s| s.p_type == abi::PT_LOAD && s.p_memsz > 0).collect();
        let mut end = None;
        let mut places = Vec::new();
        for segment in &segments {
            let place = PhysicalRange::new(segment.p_paddr, segment.p_memsz);
            places.push(place.ok_or(format!("the segment at {:#x} wraps", segment.p_paddr))?);
        }
        places.sort_by_key(|place| place.start());
        for place in places {
            if end.is_some_and(|end| place.start() < end) {
                return Err(format!(
                    "two segments are loaded to the same place, at {:#x}",
                    place.start()
                ));
            }
            end = Some(place.end());
        }
        Ok(Self { file, elf, segments })
    }

    /// The sections that a loader places in memory, in the order of the section table.
    fn loaded_sections(&self) -> Result<Vec<Loaded<'a>>, Error> {
        let (headers, names) = self.elf.section_headers_with_strtab().map_err(broken)?;
        let (Some(headers), Some(names)) = (headers, names) else {
            return Err(
                "the ELF has no section table: give the vmlinux as the build made it".into()
            );
        };
        let mut loaded = Vec::new();
        for (index, header) in headers.iter().enumerate() {
            let allocated = header.sh_flags & u64::from(abi::SHF_ALLOC) != 0 && header.sh_size > 0;
            // Thread-local zeroes have an address but take no memory there.
            let thread_local = header.sh_flags & u64::from(abi::SHF_TLS) != 0;
            if !allocated || (thread_local && header.sh_type == abi::SHT_NOBITS) {
                continue;
            }
            let name = names.get(header.sh_name as usize).map_err(broken)?;
            if let Some(place) = self.place(&header) {
                loaded.push(Loaded { index, name, header, place });
            } else if APPROVED.iter().any(|(approved, _)| *approved == name) {
                return Err(format!("section {name} lies in no segment, so nothing loads it"));
            }
        }
        Ok(loaded)
    }

    /// Where a section lies in physical memory, by the segment that loads it.
    fn place(&self, section: &SectionHeader) -> Option<PhysicalRange> {
        self.segments.iter().find_map(|segment| {
            let zeroes = section.sh_type == abi::SHT_NOBITS;
            let offset = section.sh_addr.checked_sub(segment.p_vaddr)?;
            let limit = if zeroes { segment.p_memsz } else { segment.p_filesz };
            let inside = offset.checked_add(section.sh_size)? <= limit;
            let same_bytes =
                zeroes || segment.p_offset.checked_add(offset) == Some(section.sh_offset);
            let start = segment.p_paddr.checked_add(offset)?;
            PhysicalRange::new(start, section.sh_size).filter(|_| inside && same_bytes)
        })
    }

    fn code(&self, section: &Loaded<'_>) -> Result<Code<'a>, Error> {
        let entry = APPROVED.iter().find(|(name, _)| *name == section.name);
        let &(name, init) = entry.ok_or("not code")?;
        let start = usize::try_from(section.header.sh_offset).ok();
        let size = usize::try_from(section.header.sh_size).ok();
        let bytes = start.zip(size).and_then(|(start, size)| {
            let in_file = section.header.sh_type != abi::SHT_NOBITS;
            self.file.get(start..start.checked_add(size)?).filter(|_| in_file)
        });
        let bytes = bytes.ok_or(format!("section {name} has no bytes in the file"))?;
        let (physical, virtual_start) = (section.place.start(), section.header.sh_addr);
        Ok(Code { name, init, physical, virtual_start, bytes })
    }

    /// Everything that shares a page with `code`, and borders that are none, one line each.
    fn mixed_pages(&self, code: &Loaded<'_>, loaded: &[Loaded<'_>]) -> Vec<String> {
        let mut faults = Vec::new();
        let Some(pages) = code.place.grow_to_frames() else {
            return vec![format!("section {} reaches past the last address", code.name)];
        };
        for other in loaded.iter().filter(|other| other.index != code.index) {
            if pages.overlaps(other.place) {
                faults.push(self.mixed_page(code, other));
            }
        }
        let aligned =
            [code.place.start(), code.header.sh_addr].iter().all(|at| at.is_multiple_of(PAGE_SIZE));
        if !aligned && faults.is_empty() {
            faults.push(format!(
                "section {} starts at {:#x}, virtual {:#x}, not on a page border: align it to {PAGE_SIZE} \
                 in the linker script",
                code.name,
                code.place.start(),
                code.header.sh_addr
            ));
        }
        faults
    }

    fn mixed_page(&self, code: &Loaded<'_>, other: &Loaded<'_>) -> String {
        let (first, second) =
            if code.place.start() <= other.place.start() { (code, other) } else { (other, code) };
        let page = second.place.start() & !(PAGE_SIZE - 1);
        format!(
            "section {} shares page {page:#x} with section {}: {} ends at {:#x} (last symbol {}), {} \
             starts at {:#x} (first symbol {}): align {} to {PAGE_SIZE} in the linker script",
            code.name,
            other.name,
            first.name,
            first.place.end(),
            self.border_symbol(first, true),
            second.name,
            second.place.start(),
            self.border_symbol(second, false),
            second.name,
        )
    }

    /// The last or the first symbol of a section.
    fn border_symbol(&self, section: &Loaded<'_>, last: bool) -> String {
        let Ok(Some((symbols, names))) = self.elf.symbol_table() else {
            return "unknown, no symbol table".into();
        };
        let named = symbols.iter().filter(|symbol| {
            let unnamed = [abi::STT_SECTION, abi::STT_FILE].contains(&symbol.st_symtype());
            usize::from(symbol.st_shndx) == section.index && !unnamed
        });
        let names = named.filter_map(|symbol| {
            let name = names.get(symbol.st_name as usize).ok()?;
            // Symbols at the section's very end belong to what follows it.
            let inside =
                symbol.st_value < section.header.sh_addr.saturating_add(section.header.sh_size);
            (inside && !name.is_empty()).then_some((symbol.st_value, name))
        });
        let symbol = if last { names.max() } else { names.min() };
        symbol.map_or("none".into(), |(_, name)| name.into())
    }

    /// The physical entry point: as it is if it lies in code, else by the segment around it.
    fn entry(&self, code: &[Code<'_>]) -> Result<u64, Error> {
        let entry = self.elf.ehdr.e_entry;
        let in_code = |address: &u64| {
            let offset = |code: &Code<'_>| address.checked_sub(code.physical);
            code.iter().any(|code| offset(code).is_some_and(|at| at < code.bytes.len() as u64))
        };
        let translated = self.segments.iter().filter_map(|segment| {
            let offset = entry.checked_sub(segment.p_vaddr).filter(|&at| at < segment.p_memsz)?;
            segment.p_paddr.checked_add(offset)
        });
        let found = std::iter::once(entry).chain(translated).find(in_code);
        found.ok_or_else(|| {
            let names: Vec<_> = code.iter().map(|code| code.name).collect();
            format!(
                "the entry point {entry:#x} lies outside the approved code ({})",
                names.join(", ")
            )
        })
    }
}

/// What an ELF is made for.
pub fn architecture(machine: u16) -> Result<Architecture, Error> {
    match machine {
        abi::EM_X86_64 => Ok(Architecture::X86_64),
        abi::EM_386 => Ok(Architecture::I386),
        _ => Err(format!("made for ELF machine {machine}, not x86_64 or i386")),
    }
}

/// What is told of bytes that are no ELF.
pub fn broken(error: elf::ParseError) -> Error {
    format!("no sound ELF: {error}")
}
