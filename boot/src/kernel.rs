//! The guest's kernel: an ELF vmlinux, loaded where its program headers say.

use arrayvec::ArrayVec;
use elf::ElfBytes;
use elf::abi::{EM_X86_64, ET_EXEC, PT_LOAD};
use elf::endian::LittleEndian;
use elf::file::Class;
use policy::address::PhysicalRange;

use crate::error::BootError;
use crate::memory::PhysicalMemory;

/// Segments that a kernel has at most.
pub const MAX_SEGMENTS: usize = 16;
/// Where a kernel may lie: above the BIOS's first MiB, inside the page tables that it starts with.
const ALLOWED: Option<PhysicalRange> = PhysicalRange::between(1 << 20, 1 << 32);

/// A piece of the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment<'a> {
    /// Its bytes, as many as `physical` at most; zeroes follow.
    pub file: &'a [u8],
    /// Where it goes (p_paddr, p_memsz).
    pub physical: PhysicalRange,
}

/// A kernel file, checked.
#[derive(Clone, Debug)]
pub struct Kernel<'a> {
    segments: ArrayVec<Segment<'a>, MAX_SEGMENTS>,
    span: PhysicalRange,
    entry: u64,
}

impl<'a> Kernel<'a> {
    /// Reads the headers of `file`, an ELF executable.
    ///
    /// # Errors
    /// What is not an x86_64 ELF executable, has no or too many segments, segments that overlap,
    /// wrap, lie outside 1 MiB to 4 GiB or the file, or an entry outside them. 32-bit kernels too:
    /// they cannot be started yet.
    pub fn parse(file: &'a [u8]) -> Result<Self, BootError<'static>> {
        let elf = ElfBytes::<LittleEndian>::minimal_parse(file)
            .map_err(|_| BootError::Kernel("its file is not ELF or is cut short"))?;
        let header = &elf.ehdr;
        if header.class == Class::ELF32 {
            return Err(BootError::Kernel("it is a 32-bit kernel, which cannot be started yet"));
        }
        if (header.e_machine, header.e_type) != (EM_X86_64, ET_EXEC) {
            return Err(BootError::Kernel("it is not an x86_64 executable"));
        }
        let mut segments = ArrayVec::<Segment<'a>, MAX_SEGMENTS>::new();
        let mut span = None::<PhysicalRange>;
        let headers = elf.segments().into_iter().flat_map(|table| table.iter());
        for header in headers.filter(|header| header.p_type == PT_LOAD && header.p_memsz > 0) {
            let bad = |what| BootError::Segment(header.p_paddr, header.p_memsz, what);
            let physical = PhysicalRange::new(header.p_paddr, header.p_memsz)
                .filter(|&range| ALLOWED.is_some_and(|allowed| allowed.contains(range)))
                .ok_or(bad("does not lie between 1 MiB and 4 GiB"))?;
            if header.p_filesz > header.p_memsz {
                return Err(bad("has more bytes in the file than in memory"));
            }
            let bytes = usize::try_from(header.p_offset).ok().and_then(|start| file.get(start..));
            let bytes = bytes.zip(usize::try_from(header.p_filesz).ok());
            let bytes = bytes.and_then(|(bytes, size)| bytes.get(..size));
            let segment = Segment { file: bytes.ok_or(bad("is cut short in the file"))?, physical };
            if segments.iter().any(|other| other.physical.overlaps(physical)) {
                return Err(bad("lies over another one"));
            }
            segments.try_push(segment).map_err(|_| bad("is one too many"))?;
            span = match span {
                None => Some(physical),
                Some(span) => PhysicalRange::between(
                    span.start().min(physical.start()),
                    span.end().max(physical.end()),
                ),
            };
        }
        let span = span.ok_or(BootError::Kernel("it has nothing to load"))?;
        let entry = header.e_entry;
        if !segments.iter().any(|segment| segment.physical.contains_address(entry)) {
            return Err(BootError::Kernel("its entry point lies outside its segments"));
        }
        Ok(Self { segments, span, entry })
    }

    /// Its pieces; none overlaps another.
    pub fn segments(&self) -> impl ExactSizeIterator<Item = Segment<'a>> + '_ {
        self.segments.iter().copied()
    }

    /// From its lowest to its highest byte.
    pub fn span(&self) -> PhysicalRange {
        self.span
    }

    /// Physical address of its first instruction.
    pub fn entry(&self) -> u64 {
        self.entry
    }

    /// Copies the segments to where they go and zeroes the rest of each. The file must overlap
    /// none of them ([`crate::plan`] sees to that).
    pub fn load(&self, memory: &mut impl PhysicalMemory) {
        for segment in &self.segments {
            let target = memory.bytes_mut(segment.physical);
            if let Some((copied, rest)) = target.split_at_mut_checked(segment.file.len()) {
                copied.copy_from_slice(segment.file);
                rest.fill(0);
            }
        }
    }
}
