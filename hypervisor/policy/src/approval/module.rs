//! The part of an approval list that describes modules.

use super::{
    ApprovalList, Fault, Fields, ListError, MODULE_BYTES, MODULE_NAME_BYTES, NAME_BYTES,
    RELOCATION_BYTES, SECTION_BYTES, require,
};

/// A module. Its memory is two regions, core and init, each with one base that the running kernel
/// chooses; all else is determined by the list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Module<'a> {
    /// Its name, as the kernel knows it.
    pub name: &'a str,
    sections: &'a [[u8; SECTION_BYTES]],
    relocations: &'a [[u8; RELOCATION_BYTES]],
}

/// A code section of a module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Section<'a> {
    /// Its name.
    pub name: &'a str,
    /// Whether it lies in the init region (`region` 1), not in the core region (0).
    pub init: bool,
    /// Where it starts in its region. Sections ascend by region and offset and do not overlap;
    /// what they leave of their pages is INT3.
    pub offset: u32,
    /// Its length in bytes.
    pub size: u32,
    /// SHA-256 of its bytes, with all relocated fields zeroed.
    pub sha256: [u8; 32],
    relocations: &'a [[u8; RELOCATION_BYTES]],
}

/// A relocated field of a section. It holds `value`, plus where the region `base` lies, less (for
/// [`Field::Relative32`]) where the field itself lies: symbol and addend are one number here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Relocation {
    /// Where the field starts in its section. Relocations ascend and do not overlap.
    pub offset: u32,
    /// How the field is written.
    pub field: Field,
    /// What the value counts from.
    pub base: Base,
    /// Symbol plus addend, in two's complement.
    pub value: u64,
}

/// How a relocated field is written. A value that does not fit its field is never right.
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
    pub const fn width(self) -> u32 {
        match self {
            Self::Unsigned32 | Self::Signed32 | Self::Relative32 => 4,
            Self::Word64 => 8,
        }
    }
}

/// What a relocation's value counts from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Base {
    /// Nothing: an address in the kernel (`base` 0).
    Kernel,
    /// The core region of the module with this number in the list (`base` 1).
    Core(u16),
    /// The init region of the section's own module (`base` 2).
    Init,
}

impl<'a> Module<'a> {
    fn decode(
        record: &'a [u8; MODULE_BYTES],
        sections: &mut &'a [[u8; SECTION_BYTES]],
        relocations: &mut &'a [[u8; RELOCATION_BYTES]],
    ) -> Result<Self, Fault> {
        let mut fields = Fields(record);
        Ok(Self {
            name: fields.name::<MODULE_NAME_BYTES>()?,
            sections: take(sections, fields.u32(), "more sections than the list has left")?,
            relocations: take(
                relocations,
                fields.u32(),
                "more relocations than the list has left",
            )?,
        })
    }

    /// Its code sections, by region and offset.
    pub fn sections(&self) -> impl Iterator<Item = Section<'a>> + Clone + use<'a> {
        let mut relocations = self.relocations;
        self.sections.iter().map_while(move |record| Section::decode(record, &mut relocations).ok())
    }

    fn check(&self, modules: usize) -> Result<(), Fault> {
        let (mut relocations, mut end) = (self.relocations, (false, 0));
        for record in self.sections {
            let section = Section::decode(record, &mut relocations)?;
            let start = (section.init, section.offset);
            require(start >= end, "section inside or below the one before it, at", start.1)?;
            let section_end = section.offset.checked_add(section.size);
            require(section.size > 0, "empty section, at", section.offset)?;
            end = (section.init, section_end.ok_or(Fault("section wraps, at", start.1.into()))?);
            section.check(modules)?;
        }
        require(relocations.is_empty(), "relocations of no section", relocations.len() as u64)
    }
}

impl<'a> Section<'a> {
    fn decode(
        record: &'a [u8; SECTION_BYTES],
        relocations: &mut &'a [[u8; RELOCATION_BYTES]],
    ) -> Result<Self, Fault> {
        let mut fields = Fields(record);
        let name = fields.name::<NAME_BYTES>()?;
        let [offset, size, region, count] = core::array::from_fn(|_| fields.u32());
        require(region <= 1, "unknown region", region)?;
        let relocations = take(relocations, count, "more relocations than the module has left")?;
        Ok(Self { name, init: region == 1, offset, size, sha256: *fields.bytes(), relocations })
    }

    /// Its relocations, by offset.
    pub fn relocations(&self) -> impl Iterator<Item = Relocation> + Clone + use<'a> {
        self.relocations.iter().filter_map(|record| Relocation::decode(record).ok())
    }

    fn check(&self, modules: usize) -> Result<(), Fault> {
        let mut end = 0;
        for record in self.relocations {
            let Relocation { offset, field, base, .. } = Relocation::decode(record)?;
            require(offset >= end, "relocation inside or below the one before it, at", offset)?;
            end = offset.saturating_add(field.width());
            require(end <= self.size, "relocation past its section's end, at", offset)?;
            if let Base::Core(module) = base {
                require(usize::from(module) < modules, "relocation to no module", module)?;
            }
        }
        Ok(())
    }
}

impl Relocation {
    fn decode(record: &[u8; RELOCATION_BYTES]) -> Result<Self, Fault> {
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
}

impl<'a> ApprovalList<'a> {
    /// The modules, by name.
    pub fn modules(&self) -> impl Iterator<Item = Module<'a>> + Clone + use<'a> {
        let (mut sections, mut relocations) = (self.sections, self.relocations);
        let decode = move |record| Module::decode(record, &mut sections, &mut relocations).ok();
        self.modules.iter().map_while(decode)
    }

    pub(super) fn check_modules(&self) -> Result<(), ListError> {
        let (mut sections, mut relocations, mut name) = (self.sections, self.relocations, "");
        for (index, record) in self.modules.iter().enumerate() {
            let in_module = Fault::in_part("module", Some(index));
            let module =
                Module::decode(record, &mut sections, &mut relocations).map_err(&in_module)?;
            let ascends = name < module.name;
            require(
                ascends,
                "name not above the one before it, of bytes",
                module.name.len() as u64,
            )
            .and_then(|()| module.check(self.modules.len()))
            .map_err(&in_module)?;
            name = module.name;
        }
        let left = sections.len().saturating_add(relocations.len()) as u64;
        require(left == 0, "sections or relocations of no module", left)
            .map_err(Fault::in_part("header", None))
    }
}

/// Takes `count` records from the front of `table`.
fn take<'a, T>(table: &mut &'a [T], count: u32, fault: &'static str) -> Result<&'a [T], Fault> {
    let (head, tail) = table.split_at_checked(count as usize).ok_or(Fault(fault, count.into()))?;
    *table = tail;
    Ok(head)
}
