//! Compares an approval list with a kernel.

use policy::approval::{ApprovalList, CodeRange};

use crate::kernel::{Code, Kernel};

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
