//! The modules of an approval list: code whose place the running kernel chooses.

use core::ops::Range;

use super::{
    ApprovalList, Fault, Fields, MODULE_NAME_BYTES, NAME_BYTES, RELOCATION_BYTES, SECTION_BYTES,
    require,
};
use crate::PAGE_SIZE;

/// A module. Its memory is two regions, core and init, each with one base that the running kernel
/// chooses; all else is determined by the list.
#[derive(Clone, Debug)]
pub struct Module<'a> {
    list: ApprovalList<'a>,
    /// Its place in the list.
    pub number: usize,
    /// Its name, as the kernel knows it.
    pub name: &'a str,
    pub(super) sections: Range<usize>,
}

/// A code section of a module.
#[derive(Clone, Debug)]
pub struct Section<'a> {
    /// Its name.
    pub name: &'a str,
    /// Whether it lies in the init region, not in the core region.
    pub init: bool,
    /// Where it starts in its region, in bytes.
    pub offset: u32,
    /// Its length in bytes.
    pub size: u32,
    /// SHA-256 of its bytes, with all relocated fields zeroed.
    pub sha256: [u8; 32],
    pub(super) relocations: &'a [[u8; RELOCATION_BYTES]],
}

/// A relocated field of a section. It holds `value`, plus where `base` lies, less (for
/// [`Field::Relative32`]) where the field itself lies: symbol and addend are one number here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Relocation {
    /// Where the field starts in its section, in bytes.
    pub offset: u32,
    /// How the field is written.
    pub field: Field,
    /// What the value counts from.
    pub base: Base,
    /// Symbol plus addend, in two's complement.
    pub value: u64,
}

/// How a relocated field is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Field {
    /// Four bytes, zero-extended by the processor (`R_X86_64_32`, `R_386_32`).
    Unsigned32 = 1,
    /// Four bytes, sign-extended (`R_X86_64_32S`).
    Signed32 = 2,
    /// Four bytes, sign-extended, relative to the field (`R_X86_64_PC32`, `_PLT32`, `R_386_PC32`).
    Relative32 = 3,
    /// Eight bytes (`R_X86_64_64`).
    Word64 = 4,
}

impl Field {
    /// Its width in bytes.
    pub const fn width(self) -> usize {
        match self {
            Self::Unsigned32 | Self::Signed32 | Self::Relative32 => 4,
            Self::Word64 => 8,
        }
    }
}

/// What a relocation's value counts from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Base {
    /// Nothing: an address in the kernel.
    Kernel,
    /// The core region of the module with this number in the list.
    Core(u16),
    /// The init region of the section's own module.
    Init,
}

/// The records that belong to the `index`th owner: each owner says where its own end.
fn owned<const N: usize>(owners: &[[u8; N]], index: usize, at: usize) -> Option<Range<usize>> {
    let end = |index: usize| {
        let tail = owners.get(index)?.get(at..)?;
        Some(u32::from_le_bytes(*tail.first_chunk()?) as usize)
    };
    Some(index.checked_sub(1).map_or(Some(0), end)?..end(index)?)
}

impl<'a> ApprovalList<'a> {
    /// The modules, by name.
    pub fn modules(&self) -> impl Iterator<Item = Module<'a>> + Clone + use<'a> {
        let list = *self;
        (0..list.modules.len()).filter_map(move |number| list.module(number))
    }

    /// The module with this number in the list.
    pub fn module(&self, number: usize) -> Option<Module<'a>> {
        self.decode_module(number).ok()
    }

    /// The module with this name.
    pub fn find_module(&self, name: &str) -> Option<Module<'a>> {
        let found = self.modules.binary_search_by(|record| {
            Fields(record).name::<MODULE_NAME_BYTES>().unwrap_or_default().cmp(name)
        });
        self.module(found.ok()?)
    }

    pub(super) fn decode_module(&self, number: usize) -> Result<Module<'a>, Fault> {
        let fault = Fault("sections that the list does not have, of module", number as u64);
        let sections = owned(self.modules, number, MODULE_NAME_BYTES);
        let sections = sections.filter(|range| self.sections.get(range.clone()).is_some());
        let mut fields = Fields(self.modules.get(number).map_or(&[], |record| record));
        let name = fields.name::<MODULE_NAME_BYTES>()?;
        let (_, reserved) = (fields.u32(), fields.u32());
        require(reserved == 0, "reserved bytes are not zero", reserved)?;
        Ok(Module { list: *self, number, name, sections: sections.ok_or(fault)? })
    }

    pub(super) fn decode_section(&self, number: usize) -> Result<Section<'a>, Fault> {
        let fault = Fault("relocations that the list does not have, of section", number as u64);
        let relocations = owned(self.sections, number, SECTION_BYTES - 36);
        let relocations = relocations.and_then(|range| self.relocations.get(range));
        let mut fields = Fields(self.sections.get(number).map_or(&[], |record| record));
        let name = fields.name::<NAME_BYTES>()?;
        let [offset, size, region, _] = core::array::from_fn(|_| fields.u32());
        require(region <= 1, "unknown region", region)?;
        require(size > 0, "empty section, at", offset)?;
        require(offset.checked_add(size).is_some(), "section wraps, at", offset)?;
        Ok(Section {
            name,
            init: region == 1,
            offset,
            size,
            sha256: *fields.bytes(),
            relocations: relocations.ok_or(fault)?,
        })
    }
}

impl<'a> Module<'a> {
    /// Its code sections, by region and offset.
    pub fn sections(&self) -> impl Iterator<Item = Section<'a>> + Clone + use<'a> {
        let list = self.list;
        self.sections.clone().filter_map(move |number| list.decode_section(number).ok())
    }

    /// Its code sections in one region, by offset.
    pub fn region(&self, init: bool) -> impl Iterator<Item = Section<'a>> + Clone + use<'a> {
        self.sections().filter(move |section| section.init == init)
    }

    /// Pages that its code takes up in a region, from the region's base on.
    pub fn pages(&self, init: bool) -> u32 {
        let end = self.region(init).last().map_or(0, |section| section.end());
        end.div_ceil(PAGE_SIZE as u32)
    }
}

impl Section<'_> {
    /// One past its last byte in its region.
    pub const fn end(&self) -> u32 {
        self.offset.saturating_add(self.size)
    }

    /// Its relocations, by offset.
    pub fn relocations(&self) -> impl Iterator<Item = Relocation> + Clone {
        self.relocations.iter().filter_map(|record| Relocation::decode(record).ok())
    }
}

impl Relocation {
    pub(super) fn decode(record: &[u8; RELOCATION_BYTES]) -> Result<Self, Fault> {
        let mut fields = Fields(record);
        let offset = fields.u32();
        let [field, base, low, high] = *fields.bytes();
        let module = u16::from_le_bytes([low, high]);
        Ok(Self {
            offset,
            field: match field {
                1 => Field::Unsigned32,
                2 => Field::Signed32,
                3 => Field::Relative32,
                4 => Field::Word64,
                _ => return Err(Fault("unknown relocation field", field.into())),
            },
            base: match (base, module) {
                (0, 0) => Base::Kernel,
                (1, _) => Base::Core(module),
                (2, 0) => Base::Init,
                _ => return Err(Fault("unknown relocation base", base.into())),
            },
            value: fields.u64(),
        })
    }

    /// The field's bytes, little-endian and then zeroes, where what the value counts from lies at
    /// `base` and the field itself at `place`. `None` if the field cannot hold the address.
    pub fn bytes(&self, base: u64, place: u64) -> Option<[u8; 8]> {
        let address = self.value.wrapping_add(base);
        let (value, fits) = match self.field {
            Field::Unsigned32 => (address, address as u32 as u64 == address),
            Field::Signed32 => (address, address as i32 as u64 == address),
            Field::Relative32 => {
                // Addresses of 32 bits wrap: any is in reach.
                let (distance, short) = (address.wrapping_sub(place), (address | place) >> 32 == 0);
                (distance, short || distance as i32 as u64 == distance)
            }
            Field::Word64 => (address, true),
        };
        let value = if self.field.width() == 4 { value & 0xFFFF_FFFF } else { value };
        fits.then_some(value.to_le_bytes())
    }
}
