//! Approval lists in readable form.

use std::fmt::Write;

use policy::approval::{ApprovalList, Hex};
use sha2::{Digest, Sha256};

use crate::Error;

/// A list as lines of text, the same for the same bytes.
pub fn show(bytes: &[u8]) -> Result<String, Error> {
    let list =
        ApprovalList::parse(bytes).map_err(|error| format!("no sound approval list: {error}"))?;
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
    Ok(())
}
