//! Writes approval lists. The format is told in `policy::approval`.

use std::ops::Range;

use policy::approval::{
    Architecture, Base, HEADER_BYTES, MAGIC, MODULE_NAME_BYTES, NAME_BYTES, Relocation, VERSION,
};
use sha2::{Digest, Sha256};

use crate::Error;
use crate::kernel::Kernel;

/// What a list is to hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Contents {
    /// What the kernel is made for.
    pub architecture: Architecture,
    /// Physical entry point.
    pub entry: u64,
    /// The kernel's code.
    pub ranges: Vec<CodeRange>,
    /// The modules.
    pub modules: Vec<Module>,
}

/// A range of kernel code.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CodeRange {
    /// The section's name.
    pub name: String,
    /// First physical address.
    pub physical: u64,
    /// Bytes that the section fills.
    pub filled: u64,
    /// First virtual address.
    pub virtual_start: u64,
    /// Whether it is init code.
    pub init: bool,
    /// SHA-256 of the filled bytes.
    pub sha256: [u8; 32],
}

/// A module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Module {
    /// Its name.
    pub name: String,
    /// Its code sections, by region and offset.
    pub sections: Vec<Section>,
}

/// A code section of a module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Section {
    /// Its name.
    pub name: String,
    /// Whether it lies in the init region.
    pub init: bool,
    /// Where it starts in its region.
    pub offset: u32,
    /// Its length in bytes.
    pub size: u32,
    /// SHA-256 of its bytes with all relocated fields zeroed.
    pub sha256: [u8; 32],
    /// Its relocations, by offset.
    pub relocations: Vec<Relocation>,
}

impl Module {
    /// Whether a list can hold its names.
    pub fn check(&self) -> Result<(), Error> {
        name::<MODULE_NAME_BYTES>(&self.name)?;
        self.sections.iter().try_for_each(|section| name::<NAME_BYTES>(&section.name).map(drop))
    }
}

/// Where kernels' module loaders allocate at most: Documentation/x86/x86_64/mm.rst, and for i386 what
/// CONFIG_VMSPLIT_2G leaves to the kernel.
pub const fn module_space(architecture: Architecture) -> Range<u64> {
    match architecture {
        Architecture::X86_64 => 0xffff_ffff_a000_0000..0xffff_ffff_ff00_0000,
        Architecture::I386 => 0x8000_0000..0xffff_f000,
    }
}

/// Where a kernel's module loader allocates: never where its own code is.
fn window(contents: &Contents) -> Range<u64> {
    if contents.modules.is_empty() {
        return 0..0;
    }
    let ends = contents
        .ranges
        .iter()
        .map(|it| it.virtual_start.saturating_add(it.filled.saturating_add(0xFFF) & !0xFFF));
    let space = module_space(contents.architecture);
    ends.fold(space.start, u64::max)..space.end
}

impl Contents {
    /// What approves `kernel`, without modules.
    pub fn of(kernel: &Kernel<'_>) -> Self {
        let range = |section: &crate::kernel::Code<'_>| CodeRange {
            name: section.name.into(),
            physical: section.physical,
            filled: section.bytes.len() as u64,
            virtual_start: section.virtual_start,
            init: section.init,
            sha256: Sha256::digest(section.bytes).into(),
        };
        Self {
            architecture: kernel.architecture,
            entry: kernel.entry,
            ranges: kernel.code.iter().map(range).collect(),
            modules: Vec::new(),
        }
    }
}

/// The bytes of a list, ordered as the format wants it, so that order of input does not matter.
pub fn encode(contents: &Contents) -> Result<Vec<u8>, Error> {
    let mut sorted = contents.clone();
    sorted.ranges.sort_by_key(|range| range.physical);
    sorted.modules.sort_by(|a, b| a.name.cmp(&b.name));
    let (mut ranges, mut modules, mut sections, mut relocations) = (vec![], vec![], vec![], vec![]);
    for range in &sorted.ranges {
        ranges.extend(name::<NAME_BYTES>(&range.name)?);
        let numbers = [range.physical, range.filled, range.virtual_start, range.init.into()];
        ranges.extend(numbers.into_iter().flat_map(u64::to_le_bytes));
        ranges.extend(range.sha256);
    }
    let (mut section_count, mut relocation_count) = (0, 0);
    for module in &sorted.modules {
        section_count += module.sections.len();
        modules.extend(name::<MODULE_NAME_BYTES>(&module.name)?);
        modules.extend([count(section_count)?, [0; 4]].concat());
        for section in &module.sections {
            relocation_count += section.relocations.len();
            sections.extend(name::<NAME_BYTES>(&section.name)?);
            let numbers = [section.offset, section.size, section.init.into()];
            sections.extend(numbers.into_iter().flat_map(u32::to_le_bytes));
            sections.extend(count(relocation_count)?);
            sections.extend(section.sha256);
            relocations.extend(section.relocations.iter().flat_map(relocation));
        }
    }
    let window = window(&sorted);
    let tables = [ranges, modules, sections, relocations].concat();
    Ok([
        MAGIC.to_vec(),
        VERSION.to_le_bytes().into(),
        count(HEADER_BYTES + tables.len())?.into(),
        (sorted.architecture as u32).to_le_bytes().into(),
        count(sorted.ranges.len())?.into(),
        count(sorted.modules.len())?.into(),
        count(section_count)?.into(),
        count(relocation_count)?.into(),
        vec![0; 4],
        [sorted.entry, window.start, window.end].map(u64::to_le_bytes).concat(),
        tables,
    ]
    .concat())
}

fn relocation(relocation: &Relocation) -> Vec<u8> {
    let (base, module) = match relocation.base {
        Base::Kernel => (0, 0),
        Base::Core(module) => (1, module),
        Base::Init => (2, 0),
    };
    let kind = [relocation.field as u8, base];
    [
        &relocation.offset.to_le_bytes()[..],
        &kind,
        &module.to_le_bytes(),
        &relocation.value.to_le_bytes(),
    ]
    .concat()
}

fn count(number: usize) -> Result<[u8; 4], Error> {
    let number = u32::try_from(number).map_err(|_| format!("{number} does not fit 32 bits"))?;
    Ok(number.to_le_bytes())
}

/// The space for a name, filled.
fn name<const N: usize>(text: &str) -> Result<[u8; N], Error> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("the name {text:?} is not of printable characters"));
    }
    let mut bytes = [0; N];
    let slots = bytes.get_mut(..text.len());
    slots
        .ok_or(format!("the name {text} is longer than {N} bytes"))?
        .copy_from_slice(text.as_bytes());
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::approval::{ApprovalList, Field};
    use proptest::prelude::*;

    /// What a parsed list says, in the shape it was made from.
    fn contents(list: ApprovalList<'_>) -> Contents {
        let ranges = list.kernel_ranges().map(|range| CodeRange {
            name: range.name.into(),
            physical: range.physical.start(),
            filled: range.filled,
            virtual_start: range.virtual_start.0,
            init: range.init,
            sha256: range.sha256,
        });
        let section = |section: policy::approval::Section<'_>| Section {
            name: section.name.into(),
            init: section.init,
            offset: section.offset,
            size: section.size,
            sha256: section.sha256,
            relocations: section.relocations().collect(),
        };
        let modules = list.modules().map(|module| Module {
            name: module.name.into(),
            sections: module.sections().map(section).collect(),
        });
        Contents {
            architecture: list.architecture(),
            entry: list.entry().0,
            ranges: ranges.collect(),
            modules: modules.collect(),
        }
    }

    fn ranges() -> impl Strategy<Value = Vec<CodeRange>> {
        let one = (1u64..0x4000, 0u64..3, any::<bool>(), any::<[u8; 32]>());
        prop::collection::vec(one, 1..6).prop_map(|parts| {
            let mut physical = 0x10_0000;
            let range =
                |(index, (filled, gap, init, sha256)): (usize, (u64, u64, bool, [u8; 32]))| {
                    let start = physical + gap * 0x1000;
                    physical = start + filled.next_multiple_of(0x1000);
                    let name = format!(".text{index}");
                    CodeRange {
                        name,
                        physical: start,
                        filled,
                        virtual_start: 0xC000_0000 + start,
                        init,
                        sha256,
                    }
                };
            parts.into_iter().enumerate().map(range).collect()
        })
    }

    fn modules() -> impl Strategy<Value = Vec<Module>> {
        let field = prop_oneof![
            Just(Field::Unsigned32),
            Just(Field::Signed32),
            Just(Field::Relative32),
            Just(Field::Word64)
        ];
        let base = prop_oneof![Just(Base::Kernel), Just(Base::Core(0)), Just(Base::Init)];
        let relocations = prop::collection::vec((field, base, any::<u64>()), 0..5);
        let sections = prop::collection::vec((any::<[u8; 32]>(), relocations), 0..4);
        prop::collection::vec(sections, 0..4).prop_map(|modules| {
            let module = |(index, sections): (usize, Vec<([u8; 32], Vec<_>)>)| {
                let section =
                    |(index, (sha256, relocations)): (usize, ([u8; 32], Vec<_>))| Section {
                        name: format!(".text.{index}"),
                        init: index > 1,
                        offset: index as u32 * 0x100,
                        size: 0x80,
                        sha256,
                        relocations: relocations
                            .into_iter()
                            .zip((0..).step_by(12))
                            .map(|((field, base, value), offset)| Relocation {
                                offset,
                                field,
                                base,
                                value,
                            })
                            .collect(),
                    };
                let sections = sections.into_iter().enumerate().map(section).collect();
                Module { name: format!("module_{index}"), sections }
            };
            modules.into_iter().enumerate().map(module).collect()
        })
    }

    proptest! {
        #[test]
        fn lists_round_trip_whatever_the_order(ranges in ranges(), modules in modules(), i386: bool) {
            let architecture = if i386 { Architecture::I386 } else { Architecture::X86_64 };
            let entry = ranges[0].physical + ranges[0].filled - 1;
            let honest = Contents { architecture, entry, ranges, modules };
            let bytes = encode(&honest).unwrap();
            let list = ApprovalList::parse(&bytes).unwrap();
            prop_assert_eq!(list.window(), window(&honest));
            prop_assert_eq!(contents(list), honest.clone());
            let mut turned = honest;
            turned.ranges.reverse();
            turned.modules.reverse();
            prop_assert_eq!(encode(&turned).unwrap(), bytes);
        }
    }

    #[test]
    fn names_that_do_not_fit_are_refused() {
        assert!(name::<4>("four").is_ok());
        assert_eq!(name::<4>("fives").unwrap_err(), "the name fives is longer than 4 bytes");
        for bad in ["", "a b", "a\0", "\u{e9}"] {
            let error = name::<4>(bad).unwrap_err();
            assert_eq!(error, format!("the name {bad:?} is not of printable characters"));
        }
    }
}
