//! Turns relocations into what an approval list says of a module's code.

use std::collections::HashMap;

use elf::abi;
use policy::approval::{self, Architecture, Base, Field};
use sha2::{Digest, Sha256};

use crate::Error;
use crate::exports::Exports;
use crate::list;
use crate::module::{Home, Module, Relocation, Section};

/// What symbols mean to all modules of a list.
pub struct Scope<'a> {
    /// The kernel's.
    pub kernel: &'a Exports<'a>,
    /// The modules, by name: their places here are their numbers in the list.
    pub modules: &'a [&'a Module<'a>],
    /// Which modules export a symbol.
    pub exports: HashMap<&'a str, Vec<(usize, Home)>>,
}

/// A symbol's address.
#[derive(Clone, Copy)]
struct Address {
    base: Base,
    offset: u64,
}

impl<'a> Scope<'a> {
    /// Of these modules, which are in the order of the list.
    pub fn new(kernel: &'a Exports<'a>, modules: &'a [&'a Module<'a>]) -> Self {
        let mut exports = HashMap::<_, Vec<_>>::new();
        for (number, module) in modules.iter().enumerate() {
            for &(name, home) in &module.exports {
                exports.entry(name).or_default().push((number, home));
            }
        }
        Self { kernel, modules, exports }
    }

    /// The code of module `number`, as the list has it.
    pub fn code(&self, number: usize) -> Result<Vec<list::Section>, Error> {
        let module = self.modules[number];
        let addresses: Vec<_> =
            (0..module.symbols.len()).map(|symbol| self.resolve(number, symbol)).collect();
        // The kernel loads no module that has an unresolved symbol, used or not.
        for (symbol, address) in module.symbols.iter().zip(&addresses) {
            if let (Home::Elsewhere, Err(error)) = (symbol.home, address) {
                return Err(error.clone());
            }
        }
        let code = module.sections.iter().filter(|section| !section.code.is_empty());
        let mut sections = code
            .map(|section| relocate(module, section, &addresses))
            .collect::<Result<Vec<_>, _>>()?;
        sections.sort_by_key(|section| (section.init, section.offset));
        Ok(sections)
    }

    fn resolve(&self, own: usize, symbol: usize) -> Result<Address, Error> {
        let found = &self.modules[own].symbols[symbol];
        if symbol == 0 {
            return Ok(Address { base: Base::Kernel, offset: 0 });
        }
        if !matches!(found.home, Home::Elsewhere) {
            return self
                .defined(own, found.home)
                .map_err(|error| format!("symbol {} {error}", found.name));
        }
        if let Some(&offset) = self.kernel.addresses.get(found.name) {
            return Ok(Address { base: Base::Kernel, offset });
        }
        let name = found.name;
        match self.exports.get(name).map_or(&[][..], |found| found) {
            &[(number, home)] => {
                let exporter = self.modules[number];
                let address = self.defined(number, home);
                let address = address.map_err(|error| {
                    format!("symbol {name} of module {} {error}", exporter.name)
                })?;
                match address.base {
                    Base::Kernel => Ok(address),
                    Base::Init => Err(format!(
                        "symbol {name} is in init memory of module {}, which is gone when another \
                         module is loaded",
                        exporter.name
                    )),
                    // SecVisor learns where a module lies when its code is approved.
                    Base::Core(_) if !exporter.has_core_code() => Err(format!(
                        "symbol {name} is in module {}, which has no code to approve: build that \
                         module into the kernel",
                        exporter.name
                    )),
                    Base::Core(_) => Ok(address),
                }
            }
            &[(one, _), (other, _), ..] => {
                let [one, other] = [one, other].map(|number| self.modules[number].name);
                Err(format!(
                    "symbol {name} is exported by both {one} and {other}: approve one of them"
                ))
            }
            // Linkers before 2.37 leave the second one, which nothing uses.
            [] if found.weak || name == "_GLOBAL_OFFSET_TABLE_" => {
                Ok(Address { base: Base::Kernel, offset: 0 })
            }
            [] => Err(format!(
                "symbol {name} is exported neither by the kernel nor by {}",
                self.missing(own)
            )),
        }
    }

    /// Who may export what module `own` lacks.
    fn missing(&self, own: usize) -> String {
        let given = |name: &str| {
            self.modules
                .iter()
                .any(|module| module.name.replace('-', "_") == name.replace('-', "_"))
        };
        let depends = &self.modules[own].depends;
        let missing: Vec<_> = depends.iter().filter(|name| !given(name)).copied().collect();
        if missing.is_empty() {
            "an approved module: is this the kernel that it was built for?".into()
        } else {
            format!(
                "an approved module: it depends on {}, which must be approved with it",
                missing.join(", ")
            )
        }
    }

    fn defined(&self, number: usize, home: Home) -> Result<Address, Error> {
        let (section, value) = match home {
            Home::Absolute(value) => return Ok(Address { base: Base::Kernel, offset: value }),
            Home::Section(section, value) => (section, value),
            Home::Unusable(reason) => return Err(reason.into()),
            Home::Elsewhere => return Err("is not defined".into()),
        };
        let section = &self.modules[number].sections[section];
        let place = section.place.ok_or_else(|| {
            format!("is in section {}, which the kernel does not keep", section.name)
        })?;
        let number = u16::try_from(number).map_err(|_| "is in a module past the 65536th")?;
        let base = if place.init { Base::Init } else { Base::Core(number) };
        Ok(Address { base, offset: value.wrapping_add(place.offset.into()) })
    }
}

fn relocate(
    module: &Module<'_>,
    section: &Section<'_>,
    addresses: &[Result<Address, Error>],
) -> Result<list::Section, Error> {
    let mut bytes = section.code.to_vec();
    let (mut relocations, mut end) = (Vec::new(), 0);
    for site in &section.relocations {
        let at = |error: Error| format!("section {}+{:#x}: {error}", section.name, site.offset);
        let Some(field) = field(module.architecture, site).map_err(at)? else { continue };
        let start = usize::try_from(site.offset).ok();
        let past = start.and_then(|start| start.checked_add(field.width()));
        let bytes = start.zip(past).and_then(|(start, past)| bytes.get_mut(start..past));
        let bytes = bytes.ok_or("relocation past the section's end".into()).map_err(at)?;
        if site.offset < end {
            return Err(at("two relocations overlap".into()));
        }
        end = site.offset + field.width() as u64;
        let addend = match site.addend {
            Some(addend) if bytes.iter().all(|&byte| byte == 0) => addend,
            Some(_) => {
                return Err(at("the relocated field is not zero, so no kernel loads it".into()));
            }
            None => i64::from(i32::from_le_bytes(*bytes.first_chunk().unwrap_or(&[0; 4]))),
        };
        bytes.fill(0);
        let address = addresses.get(site.symbol).ok_or("no such symbol".into()).map_err(at)?;
        let Address { base, offset } = address.clone().map_err(at)?;
        let mut value = offset.wrapping_add_signed(addend);
        if module.architecture == Architecture::I386 && base == Base::Kernel {
            value &= u64::from(u32::MAX);
        }
        let relocation = approval::Relocation { offset: site.offset as u32, field, base, value };
        let lowest = list::module_space(module.architecture).start;
        let counted_from = if base == Base::Kernel { 0 } else { lowest };
        if relocation.bytes(counted_from, lowest).is_none() {
            let address = value.wrapping_add(counted_from);
            let mend = match module.architecture {
                Architecture::X86_64 => ": build the module with -mcmodel=kernel, as kernels do",
                Architecture::I386 => "",
            };
            return Err(at(format!(
                "an address like {address:#x} does not fit this field of {} bytes{mend}",
                field.width()
            )));
        }
        relocations.push(relocation);
    }
    let place = section.place.ok_or("code without a place")?;
    Ok(list::Section {
        name: section.name.into(),
        init: place.init,
        offset: place.offset,
        size: u32::try_from(bytes.len()).map_err(|error| error.to_string())?,
        sha256: Sha256::digest(&bytes).into(),
        relocations,
    })
}

/// How the kernel's `apply_relocate` and `apply_relocate_add` write; `None` if they do nothing.
fn field(architecture: Architecture, site: &Relocation) -> Result<Option<Field>, Error> {
    let field = match (architecture, site.addend, site.kind) {
        (Architecture::X86_64, Some(_), abi::R_X86_64_NONE) => return Ok(None),
        (Architecture::X86_64, Some(_), abi::R_X86_64_64) => Field::Word64,
        (Architecture::X86_64, Some(_), abi::R_X86_64_32) => Field::Unsigned32,
        (Architecture::X86_64, Some(_), abi::R_X86_64_32S) => Field::Signed32,
        (Architecture::X86_64, Some(_), abi::R_X86_64_PC32 | abi::R_X86_64_PLT32) => {
            Field::Relative32
        }
        (Architecture::I386, None, R_386_32) => Field::Unsigned32,
        (Architecture::I386, None, R_386_PC32 | R_386_PLT32) => Field::Relative32,
        (_, addend, kind) => {
            let table = if addend.is_some() { "RELA" } else { "REL" };
            return Err(format!(
                "{table} relocation of type {kind}, which cannot be approved in code for {}",
                architecture.name()
            ));
        }
    };
    Ok(Some(field))
}

const R_386_32: u32 = 1;
const R_386_PC32: u32 = 2;
const R_386_PLT32: u32 = 4;
