//! Compares an approval list with a kernel.

use policy::approval::{ApprovalList, CodeRange, Hex, Module, Section};

use crate::kernel::{Code, Kernel};
use crate::show::describe;

/// What differs, one line each; empty if `list` approves exactly `kernel`.
pub fn differences(list: ApprovalList<'_>, kernel: &Kernel<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    if list.architecture() != kernel.architecture {
        let (approved, found) = (list.architecture().name(), kernel.architecture.name());
        lines.push(format!("architecture: approved {approved}, found {found}"));
    }
    differ(&mut lines, "entry point", list.entry().0, kernel.entry);
    for range in list.kernel_ranges() {
        match kernel.code.iter().find(|code| code.name == range.name) {
            Some(code) => compare(&mut lines, &range, code),
            None => lines.push(format!("section {}: approved, but not in the kernel", range.name)),
        }
    }
    for code in &kernel.code {
        if !list.kernel_ranges().any(|range| range.name == code.name) {
            lines.push(format!("section {}: in the kernel, but not approved", code.name));
        }
    }
    lines
}

fn compare(lines: &mut Vec<String>, range: &CodeRange<'_>, code: &Code<'_>) {
    let name = format!("section {}", range.name);
    let (physical, virtual_start) = (range.physical.start(), range.virtual_start.0);
    differ(lines, &format!("{name}: physical start"), physical, code.physical);
    differ(lines, &format!("{name}: virtual start"), virtual_start, code.virtual_start);
    differ(lines, &format!("{name}: length"), range.filled, code.bytes.len() as u64);
    differ(lines, &format!("{name}: init code"), range.init.into(), code.init.into());
    if let Err(mismatch) = range.verify(code.bytes) {
        lines.push(mismatch.to_string());
    }
}

fn differ(lines: &mut Vec<String>, what: &str, approved: u64, found: u64) {
    if approved != found {
        lines.push(format!("{what}: approved {approved:#x}, found {found:#x}"));
    }
}

/// What differs between the modules of two lists, one line each.
pub fn module_differences(approved: ApprovalList<'_>, found: ApprovalList<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    for module in approved.modules() {
        match found.find_module(module.name) {
            Some(other) => compare_modules(&mut lines, (approved, &module), (found, &other)),
            None => lines.push(format!("module {}: approved, but not given", module.name)),
        }
    }
    for module in found.modules().filter(|module| approved.find_module(module.name).is_none()) {
        lines.push(format!("module {}: given, but not approved", module.name));
    }
    lines
}

type Listed<'a> = (ApprovalList<'a>, &'a Module<'a>);

fn compare_modules(lines: &mut Vec<String>, approved: Listed<'_>, found: Listed<'_>) {
    let (sections, others): (Vec<_>, Vec<_>) =
        (approved.1.sections().collect(), found.1.sections().collect());
    let name = approved.1.name;
    let names = |sections: &[Section<'_>]| {
        sections.iter().map(|section| section.name.to_owned()).collect::<Vec<_>>().join(", ")
    };
    let (had, has) = (names(&sections), names(&others));
    if had != has {
        lines.push(format!("module {name}: approved sections {had}, found {has}"));
        return;
    }
    for (section, other) in sections.iter().zip(&others) {
        let name = format!("module {name}: section {}", section.name);
        differ(lines, &format!("{name}: offset"), section.offset.into(), other.offset.into());
        differ(lines, &format!("{name}: length"), section.size.into(), other.size.into());
        differ(lines, &format!("{name}: init code"), section.init.into(), other.init.into());
        if section.sha256 != other.sha256 {
            let (approved, found) = (Hex(&section.sha256), Hex(&other.sha256));
            lines.push(format!("{name}: approved SHA-256 {approved}, found {found}"));
        }
        let told = |list, section: &Section<'_>| -> Vec<_> {
            let line = |relocation: policy::approval::Relocation| {
                format!("{:#x} {}", relocation.offset, describe(list, &relocation))
            };
            section.relocations().map(line).collect()
        };
        let (had, has) = (told(approved.0, section), told(found.0, other));
        differ(lines, &format!("{name}: relocations"), had.len() as u64, has.len() as u64);
        // The first says enough: after a change of the kernel almost all differ.
        if let Some((had, has)) = had.iter().zip(&has).find(|(had, has)| had != has) {
            lines.push(format!("{name}: approved relocation at {had}, found {has}"));
        }
    }
}
