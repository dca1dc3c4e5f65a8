//! The guest's kernel: an ELF vmlinux, loaded where its program headers say.

use arrayvec::ArrayVec;
use policy::address::PhysicalRange;
use policy::approval::Architecture;

use crate::bytes::{u16_at, u32_at, u64_at};
use crate::error::BootError;
use crate::memory::PhysicalMemory;

/// First bytes of a little-endian ELF file of 32 and of 64 bits (ELF-64, 1.4).
const MAGIC_32: [u8; 6] = *b"\x7FELF\x01\x01";
const MAGIC_64: [u8; 6] = *b"\x7FELF\x02\x01";
/// e_type of an executable and e_machine, as one word.
const EXECUTABLE_I386: u32 = 3 << 16 | 2;
const EXECUTABLE_X86_64: u32 = 62 << 16 | 2;
const LOADED: u32 = 1;

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
    architecture: Architecture,
    segments: ArrayVec<Segment<'a>, MAX_SEGMENTS>,
    span: PhysicalRange,
    entry: u64,
}

impl<'a> Kernel<'a> {
    /// Reads the headers of `file`, an ELF executable.
    ///
    /// # Errors
    /// What is not an i386 or x86_64 ELF executable, has no or too many segments, segments that
    /// overlap, wrap, lie outside 1 MiB to 4 GiB or the file, or an entry outside them.
    pub fn parse(file: &'a [u8]) -> Result<Self, BootError<'static>> {
        let cut_short = BootError::Kernel("its file is not ELF or is cut short");
        let wide = file.starts_with(&MAGIC_64);
        if !wide && !file.starts_with(&MAGIC_32) {
            return Err(cut_short);
        }
        let architecture = match (wide, u32_at(file, 16)) {
            (false, Some(EXECUTABLE_I386)) => Architecture::I386,
            (true, Some(EXECUTABLE_X86_64)) => Architecture::X86_64,
            _ => return Err(BootError::Kernel("it is not an executable for i386 or x86_64")),
        };
        // A field that is 4 bytes long in 32-bit files and 8 in 64-bit ones, and where it lies in each.
        let word = |bytes: &[u8], [at_32, at_64]: [usize; 2]| match wide {
            true => u64_at(bytes, at_64),
            false => u32_at(bytes, at_32).map(u64::from),
        };
        let entry = word(file, [24, 24]).ok_or(cut_short)?;
        let headers = word(file, [28, 32]).and_then(|offset| usize::try_from(offset).ok());
        let headers = headers.and_then(|offset| file.get(offset..)).ok_or(cut_short)?;
        let (header_size, sizes): (u16, usize) = if wide { (56, 54) } else { (32, 42) };
        let count = u16_at(file, sizes.saturating_add(2));
        let count = count.filter(|_| u16_at(file, sizes) == Some(header_size)).ok_or(cut_short)?;
        let header_size = usize::from(header_size);
        let size = usize::from(count).saturating_mul(header_size);
        let headers = headers.get(..size).ok_or(cut_short)?;
        let mut segments = ArrayVec::<Segment<'a>, MAX_SEGMENTS>::new();
        let mut span = None::<PhysicalRange>;
        for header in headers.chunks_exact(header_size) {
            // p_offset, p_paddr, p_filesz, p_memsz
            let fields = [[4, 8], [12, 24], [16, 32], [20, 40]];
            let [offset, address, in_file, in_memory] =
                fields.map(|field| word(header, field).unwrap_or(0));
            if u32_at(header, 0) != Some(LOADED) || in_memory == 0 {
                continue;
            }
            let bad = |what| BootError::Segment(address, in_memory, what);
            let physical = PhysicalRange::new(address, in_memory)
                .filter(|&range| ALLOWED.is_some_and(|allowed| allowed.contains(range)))
                .ok_or(bad("does not lie between 1 MiB and 4 GiB"))?;
            if in_file > in_memory {
                return Err(bad("has more bytes in the file than in memory"));
            }
            let bytes = usize::try_from(offset).ok().and_then(|start| file.get(start..));
            let bytes = bytes.zip(usize::try_from(in_file).ok());
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
        if !segments.iter().any(|segment| segment.physical.contains_address(entry)) {
            return Err(BootError::Kernel("its entry point lies outside its segments"));
        }
        Ok(Self { architecture, segments, span, entry })
    }

    /// What it is made for.
    pub fn architecture(&self) -> Architecture {
        self.architecture
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Ram, range, vmlinux};
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;
    const BOTH: [Architecture; 2] = [Architecture::I386, Architecture::X86_64];

    fn error_of(entry: u64, segments: &[(u64, u64, &[u8])]) -> String {
        let [narrow, wide] = BOTH.map(|architecture| {
            Kernel::parse(&vmlinux(architecture, entry, segments)).unwrap_err().to_string()
        });
        // An address that 32 bits cannot say is another one there.
        assert!(narrow == wide || segments.iter().any(|segment| segment.0 >> 32 != 0));
        wide
    }

    #[test]
    fn segments_are_copied_and_the_rest_zeroed() {
        let segments: [(u64, u64, &[u8]); 3] =
            [(2 * MIB, 5, b"code"), (MIB, 0x1000, b"data"), (3 * MIB, 2, b"")];
        for architecture in BOTH {
            check_loading(architecture, &segments);
        }
    }

    fn check_loading(architecture: Architecture, segments: &[(u64, u64, &[u8])]) {
        let file = vmlinux(architecture, 2 * MIB, segments);
        let kernel = Kernel::parse(&file).unwrap();
        assert_eq!(kernel.architecture(), architecture);
        assert_eq!(kernel.segments().len(), 3);
        assert_eq!((kernel.entry(), kernel.span()), (2 * MIB, range(MIB, 3 * MIB + 2)));
        let mut ram = Ram(vec![0xEE; 4 * MIB as usize]);
        kernel.load(&mut ram);
        assert_eq!(ram.bytes(range(2 * MIB - 1, 2 * MIB + 6)), b"\xEEcode\0\xEE");
        assert_eq!(ram.bytes(range(MIB, MIB + 6)), b"data\0\0");
        assert_eq!(ram.bytes(range(MIB + 0xFFF, MIB + 0x1001)), b"\0\xEE");
        assert_eq!(ram.bytes(range(3 * MIB, 3 * MIB + 3)), b"\0\0\xEE");
    }

    #[test]
    fn kernels_that_do_not_hold_are_refused() {
        let code: (u64, u64, &[u8]) = (MIB, 0x1000, b"code");
        assert!(error_of(MIB, &[]).contains("nothing to load"));
        assert!(error_of(2 * MIB, &[code]).contains("entry point"));
        for (segment, expected) in [
            ((MIB - 1, 2, b"" as &[u8]), "0x2 bytes at 0xfffff does not lie between"),
            (((1 << 32) - 1, 2, b""), "does not lie between"),
            ((u64::MAX, 2, b""), "does not lie between"),
            ((2 * MIB, 3, b"four"), "more bytes in the file"),
            ((MIB + 0xFFF, 1, b""), "over another"),
            ((MIB, MIB, b""), "over another"),
        ] {
            let error = error_of(MIB, &[code, segment]);
            assert!(error.contains(expected), "{error}");
        }
        let many: Vec<_> = (1..18).map(|n| (n * MIB, 1, b"" as &[u8])).collect();
        assert!(Kernel::parse(&vmlinux(Architecture::X86_64, MIB, &many[..16])).is_ok());
        assert!(error_of(MIB, &many).contains("one too many"));
    }

    #[test]
    fn other_files_are_told_apart() {
        BOTH.into_iter().for_each(check_other_files);
    }

    fn check_other_files(architecture: Architecture) {
        let file = vmlinux(architecture, MIB, &[(MIB, 0x1000, b"code")]);
        let changed = |at: usize, byte: u8| {
            let mut file = file.clone();
            file[at] = byte;
            Kernel::parse(&file).unwrap_err().to_string()
        };
        assert!(changed(0, 0).contains("not ELF"));
        assert!(changed(5, 2).contains("not ELF")); // big-endian
        assert!(changed(4, 3).contains("not ELF")); // neither 32 nor 64 bits
        for (at, byte) in [(4, 3 ^ file[4]), (16, 3), (18, 40), (18, 3 ^ 62 ^ file[18])] {
            assert!(changed(at, byte).contains("not an executable for i386 or x86_64"));
        }
        for length in 0..file.len() {
            assert!(Kernel::parse(&file[..length]).is_err());
        }
    }

    proptest! {
        #[test]
        fn any_change_is_judged(
            changes in prop::collection::vec((0usize..200, any::<u8>()), 1..6),
            tail: Vec<u8>,
            wide: bool,
        ) {
            let mut file = vmlinux(BOTH[usize::from(wide)], MIB, &[(MIB, 0x1000, b"code"), (2 * MIB, 9, &tail)]);
            for (at, byte) in changes {
                let at = at % file.len();
                file[at] = byte;
            }
            if let Ok(kernel) = Kernel::parse(&file) {
                for (n, segment) in kernel.segments().enumerate() {
                    prop_assert!(segment.file.len() as u64 <= segment.physical.length());
                    prop_assert!(kernel.span().contains(segment.physical));
                    prop_assert!(range(MIB, 1 << 32).contains(segment.physical));
                    let mut others = kernel.segments().skip(n + 1);
                    prop_assert!(others.all(|other| !other.physical.overlaps(segment.physical)));
                }
            }
        }

        #[test]
        fn any_bytes_are_judged(bytes: Vec<u8>) {
            let _ = Kernel::parse(&bytes);
            for architecture in BOTH {
                let file = vmlinux(architecture, MIB, &[]);
                let _ = Kernel::parse(&[&file[..20], &bytes[..]].concat());
            }
        }
    }
}
