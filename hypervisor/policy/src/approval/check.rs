//! Checking an approval list, once, before anything of it is used.

use core::fmt;

use super::{
    ApprovalList, Architecture, CodeRange, Fault, Fields, HEADER_BYTES, MAGIC, MAX_RANGES, VERSION,
    require,
};
use crate::address::Gpa;

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
        let beyond = modules | sections | relocations;
        require(beyond == 0, "modules, which this version cannot verify, counts", beyond)?;
        let entry = Gpa(fields.u64());
        let reserved = u64::from(reserved) | fields.u64() | fields.u64();
        require(reserved == 0, "reserved bytes are not zero", reserved)?;
        require(ranges > 0, "no kernel code is approved, ranges", ranges)?;
        require(ranges <= MAX_RANGES, "more kernel ranges than supported", ranges)?;
        let (records, rest) = rest.as_chunks();
        let exact = rest.is_empty() && records.len() as u64 == u64::from(ranges);
        require(exact, "the file does not hold exactly the kernel ranges", ranges)?;
        Ok(Self { architecture, entry, ranges: records })
    }

    fn check_ranges(&self) -> Result<(), ListError> {
        let mut end = 0;
        for (index, record) in self.ranges.iter().enumerate() {
            let in_range = Fault::in_part("kernel range", Some(index));
            let range = CodeRange::decode(record).map_err(&in_range)?;
            range.check(self.architecture, end).map_err(&in_range)?;
            for earlier in self.kernel_ranges().take(index) {
                range.check_against(&earlier).map_err(&in_range)?;
            }
            end = range.physical.end();
        }
        let entered = self.kernel_ranges().any(|range| range.holds(self.entry));
        require(entered, "entry point outside the approved code", self.entry.0)
            .map_err(Fault::in_part("header", None))
    }
}

impl CodeRange<'_> {
    fn check(&self, architecture: Architecture, previous_end: u64) -> Result<(), Fault> {
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
        require(fits, "virtual end out of the machine's reach, from", self.virtual_start.0)
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
