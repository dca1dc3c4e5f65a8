//! Approval lists in readable form.

use std::fmt::Write;

use policy::approval::{ApprovalList, Base, Field, Hex, Module, Relocation};
use sha2::{Digest, Sha256};

use crate::Error;

/// Reads a list as the hypervisor does.
pub fn parse(bytes: &[u8]) -> Result<ApprovalList<'_>, Error> {
    ApprovalList::parse(bytes).map_err(|error| format!("no sound approval list: {error}"))
}

/// A list as lines of text, the same for the same bytes.
pub fn show(bytes: &[u8]) -> Result<String, Error> {
    let list = parse(bytes)?;
    let mut text = String::new();
    let written = write(list, bytes, &mut text);
    written.map(|()| text).map_err(|error| error.to_string())
}

fn write(list: ApprovalList<'_>, bytes: &[u8], text: &mut String) -> std::fmt::Result {
    let hash = Sha256::digest(bytes);
    writeln!(text, "approval list {} bytes, sha256 {}", bytes.len(), Hex(&hash))?;
    writeln!(text, "architecture  {}", list.architecture().name())?;
    writeln!(text, "entry         {:#x}", list.entry())?;
    for range in list.kernel_ranges() {
        writeln!(text, "kernel code   {}", range.name)?;
        let pages = range.physical.length() / policy::PAGE_SIZE;
        writeln!(text, "  physical    {} ({pages} pages)", range.physical)?;
        writeln!(text, "  virtual     {:#x}-{:#x}", range.virtual_start, range.virtual_end())?;
        writeln!(text, "  filled      {} bytes, then INT3", range.filled)?;
        writeln!(text, "  sha256      {}", Hex(&range.sha256))?;
        if range.init {
            writeln!(text, "  init        released after boot")?;
        }
    }
    if list.modules().next().is_some() {
        let window = list.window();
        writeln!(
            text,
            "modules       {}, at {:#x}-{:#x}",
            list.modules().count(),
            window.start,
            window.end
        )?;
    }
    list.modules().try_for_each(|module| summary(&module, text))
}

fn summary(module: &Module<'_>, text: &mut String) -> std::fmt::Result {
    let [core, init] = [false, true].map(|init| module.pages(init));
    let sections = module.sections().count();
    let relocations: usize = module.sections().map(|section| section.relocations().count()).sum();
    writeln!(
        text,
        "module        {}: {core} core and {init} init pages, {sections} sections, {relocations} \
         relocations",
        module.name
    )
}

/// All that a list says of one module.
pub fn show_module(bytes: &[u8], name: &str) -> Result<String, Error> {
    let list = parse(bytes)?;
    let module = list.find_module(name).ok_or(format!("it has no module {name}"))?;
    let mut text = String::new();
    let written = write_module(list, &module, &mut text);
    written.map(|()| text).map_err(|error| error.to_string())
}

fn write_module(
    list: ApprovalList<'_>,
    module: &Module<'_>,
    text: &mut String,
) -> std::fmt::Result {
    summary(module, text)?;
    for section in module.sections() {
        let region = if section.init { "init" } else { "core" };
        writeln!(text, "section       {}", section.name)?;
        writeln!(text, "  place       {region}+{:#x}-{:#x}", section.offset, section.end())?;
        writeln!(text, "  sha256      {}", Hex(&section.sha256))?;
        for relocation in section.relocations() {
            writeln!(text, "  {:<#11x} {}", relocation.offset, describe(list, &relocation))?;
        }
    }
    Ok(())
}

/// What a field holds, with other modules by name.
pub fn describe(list: ApprovalList<'_>, relocation: &Relocation) -> String {
    let field = match relocation.field {
        Field::Unsigned32 => "unsigned32",
        Field::Signed32 => "signed32",
        Field::Relative32 => "relative32",
        Field::Word64 => "word64",
    };
    let base = match relocation.base {
        Base::Kernel => return format!("{field} {:#x}", relocation.value),
        Base::Core(module) => list.module(module.into()).map_or("", |module| module.name),
        Base::Init => "its init memory",
    };
    // What is counted from a base is a small number of either sign.
    let value = relocation.value.cast_signed();
    let sign = if value < 0 { '-' } else { '+' };
    format!("{field} {base}{sign}{:#x}", value.unsigned_abs())
}
