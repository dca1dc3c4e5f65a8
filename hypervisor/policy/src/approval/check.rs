//! Checking an approval list, once, before anything of it is used.

use core::fmt;
use core::ops::Range;

use super::{
    ApprovalList, Architecture, Base, CodeRange, Fault, Fields, HEADER_BYTES, MAGIC, MAX_MODULES,
    MAX_RANGES, Relocation, Section, VERSION, require,
};
use crate::PAGE_SIZE;
use crate::address::Gpa;

/// Largest region of a module, in bytes: its pages are counted in 32 bits.
const MOST_OF_A_REGION: u64 = 1 << 31;

/// Why bytes are no approval list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ListError {
    /// The part that is wrong.
    pub part: &'static str,
    /// Which one of its kind, from 0; `None` for the only one.
    pub index: Option<usize>,
    /// What is wrong.
    pub fault: &'static str,
    /// The value that is wrong.
    pub value: u64,
}

impl fmt::Display for ListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.part)?;
        if let Some(index) = self.index {
            write!(f, " {index}")?;
        }
        write!(f, ": {}: {:#x}", self.fault, self.value)
    }
}

impl core::error::Error for ListError {}

impl Fault {
    fn in_part(part: &'static str, index: Option<usize>) -> impl Fn(Self) -> ListError {
        move |Self(fault, value)| ListError { part, index, fault, value }
    }
}

impl Architecture {
    /// One past the highest physical and virtual address.
    const fn limits(self) -> (u64, u64) {
        match self {
            Self::I386 => (1 << 32, 1 << 32),
            Self::X86_64 => (1 << 52, u64::MAX),
        }
    }
}

impl<'a> ApprovalList<'a> {
    /// Checks `bytes`, all of them, and gives access to the list they hold.
    ///
    /// # Errors
    /// Whatever breaks a rule of the format: the first such part and value.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ListError> {
        let list = Self::parse_header(bytes).map_err(Fault::in_part("header", None))?;
        list.check_ranges()?;
        list.check_modules()?;
        Ok(list)
    }

    fn parse_header(bytes: &'a [u8]) -> Result<Self, Fault> {
        let size = bytes.len() as u64;
        let (header, rest) = bytes
            .split_first_chunk::<HEADER_BYTES>()
            .ok_or(Fault("file shorter than a header, bytes", size))?;
        let mut fields = Fields(header);
        let magic = *fields.bytes();
        require(magic == MAGIC, "not an approval list, it begins with", u64::from_be_bytes(magic))?;
        let version = fields.u32();
        require(version == VERSION, "unknown version", version)?;
        let length = fields.u32();
        require(u64::from(length) == size, "stated length is not the file's", length)?;
        let architecture = match fields.u32() {
            3 => Architecture::I386,
            62 => Architecture::X86_64,
            machine => return Err(Fault("unknown machine", machine.into())),
        };
        let [ranges, modules, sections, relocations, reserved] =
            core::array::from_fn(|_| fields.u32());
        let entry = Gpa(fields.u64());
        let window = (fields.u64(), fields.u64());
        require(reserved == 0, "reserved bytes are not zero", reserved)?;
        require(ranges > 0, "no kernel code is approved, ranges", ranges)?;
        require(ranges <= MAX_RANGES, "more kernel ranges than supported", ranges)?;
        require(modules <= MAX_MODULES, "more modules than supported", modules)?;
        let aligned = (window.0 | window.1).is_multiple_of(PAGE_SIZE);
        let reached = 0 < window.0 && window.0 < window.1 && window.1 <= architecture.limits().1;
        let fits = if modules == 0 { window == (0, 0) } else { aligned && reached };
        require(fits, "no window of pages for modules, from", window.0)?;
        let (ranges, rest) = table(rest, ranges)?;
        let (modules, rest) = table(rest, modules)?;
        let (sections, rest) = table(rest, sections)?;
        let (relocations, rest) = table(rest, relocations)?;
        require(rest.is_empty(), "bytes behind the last table", rest.len() as u64)?;
        Ok(Self { architecture, entry, window, ranges, modules, sections, relocations })
    }

    fn check_ranges(&self) -> Result<(), ListError> {
        let mut end = 0;
        for (index, record) in self.ranges.iter().enumerate() {
            let in_range = Fault::in_part("kernel range", Some(index));
            let range = CodeRange::decode(record).map_err(&in_range)?;
            range.check(self.architecture, end, self.window()).map_err(&in_range)?;
            for earlier in self.kernel_ranges().take(index) {
                range.check_against(&earlier).map_err(&in_range)?;
            }
            end = range.physical.end();
        }
        let entered = self.kernel_ranges().any(|range| range.holds(self.entry));
        require(entered, "entry point outside the approved code", self.entry.0)
            .map_err(Fault::in_part("header", None))
    }

    fn check_modules(&self) -> Result<(), ListError> {
        let mut name = "";
        let [mut sections, mut relocations] = [0usize; 2];
        for number in 0..self.modules.len() {
            let in_module = Fault::in_part("module", Some(number));
            let module = self.decode_module(number).map_err(&in_module)?;
            let bytes = module.name.len() as u64;
            require(name < module.name, "name not above the one before it, of bytes", bytes)
                .map_err(&in_module)?;
            name = module.name;
            let mut end = (false, 0);
            for index in module.sections.clone() {
                let in_section = Fault::in_part("section", Some(index));
                let section = self.decode_section(index).map_err(&in_section)?;
                let start = (section.init, section.offset);
                require(start >= end, "section inside or below the one before it, at", start.1)
                    .and_then(|()| section.check(self.modules.len(), self.window()))
                    .map_err(&in_section)?;
                end = (section.init, section.end());
                relocations = relocations.saturating_add(section.relocations.len());
                sections = sections.saturating_add(1);
            }
        }
        let left = self.sections.len().abs_diff(sections);
        let left = left.saturating_add(self.relocations.len().abs_diff(relocations));
        require(left == 0, "sections or relocations that belong to none", left as u64)
            .map_err(Fault::in_part("header", None))
    }
}

/// Takes a table of `count` records from the front of `bytes`.
fn table<const N: usize>(bytes: &[u8], count: u32) -> Result<(&[[u8; N]], &[u8]), Fault> {
    let fault = Fault("the file ends inside a table of records", count.into());
    let (head, tail) = (count as usize)
        .checked_mul(N)
        .and_then(|size| bytes.split_at_checked(size))
        .ok_or(fault)?;
    Ok((head.as_chunks().0, tail))
}

impl Section<'_> {
    fn check(&self, modules: usize, window: Range<u64>) -> Result<(), Fault> {
        let room = window.end.saturating_sub(window.start).min(MOST_OF_A_REGION);
        require(u64::from(self.end()) <= room, "section past the window's end, at", self.offset)?;
        let mut end = 0;
        for record in self.relocations {
            let Relocation { offset, field, base, .. } = Relocation::decode(record)?;
            require(offset >= end, "relocation inside or below the one before it, at", offset)?;
            end = offset.saturating_add(field.width() as u32);
            require(end <= self.size, "relocation past its section's end, at", offset)?;
            if let Base::Core(module) = base {
                require(usize::from(module) < modules, "relocation to no module", module)?;
            }
        }
        Ok(())
    }
}

impl CodeRange<'_> {
    fn check(
        &self,
        architecture: Architecture,
        previous_end: u64,
        window: Range<u64>,
    ) -> Result<(), Fault> {
        let (start, end) = (self.physical.start(), self.physical.end());
        let (physical_limit, virtual_limit) = architecture.limits();
        require(
            start >= previous_end,
            "physical start inside or below the range before it",
            start,
        )?;
        require(end <= physical_limit, "physical end out of the machine's reach", end)?;
        let virtual_end = self.virtual_start.0.checked_add(self.physical.length());
        let fits = virtual_end.is_some_and(|end| end <= virtual_limit);
        let virtual_start = self.virtual_start.0;
        require(fits, "virtual end out of the machine's reach, from", virtual_start)?;
        require(virtual_start > 0, "virtual start at", virtual_start)?;
        let apart =
            virtual_end.is_some_and(|end| end <= window.start) || window.end <= virtual_start;
        require(apart, "virtual range in the window for modules, from", virtual_start)
    }

    fn check_against(&self, earlier: &Self) -> Result<(), Fault> {
        let (start, end) = (self.virtual_start, self.virtual_end());
        let apart = end <= earlier.virtual_start || earlier.virtual_end() <= start;
        require(apart, "virtual range overlaps an earlier one", start.0)?;
        require(
            self.name != earlier.name,
            "name taken by an earlier range, of bytes",
            self.name.len() as u64,
        )
    }
}
