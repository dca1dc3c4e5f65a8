//! Unpacks the ELF that a bzImage carries (Linux boot protocol 2.08 and later).

use std::borrow::Cow;

use crate::{Error, unpack};

/// More than any kernel; a hostile image must not fill the machine.
const MOST_UNPACKED: u64 = 1 << 30;

/// The ELF in `file`: itself, or the payload of a bzImage.
pub fn unpack(file: &[u8]) -> Result<Cow<'_, [u8]>, Error> {
    if file.starts_with(b"\x7fELF") {
        return Ok(Cow::Borrowed(file));
    }
    if file.get(0x202..0x206) != Some(b"HdrS") {
        let start = policy::approval::Hex(file.get(..4).unwrap_or(file));
        return Err(format!("neither an ELF vmlinux nor a bzImage: it begins with {start}"));
    }
    if let Some(&[minor, major]) = file.get(0x206..0x208)
        && (major, minor) < (2, 8)
    {
        return Err(format!(
            "a bzImage of boot protocol {major}.{minor:02} holds no ELF: give the vmlinux it was made \
             from"
        ));
    }
    let payload = payload(file).ok_or("the bzImage's header does not point into the file")?;
    let image = unpack::decompress(payload, MOST_UNPACKED).unwrap_or_else(|| {
        let start = policy::approval::Hex(payload.get(..4).unwrap_or(payload));
        Err(format!(
            "its payload begins with {start}, which is none of gzip, xz, zstd: unpack it with the \
             kernel's scripts/extract-vmlinux and give the vmlinux"
        ))
    });
    let image = image.map_err(|error| format!("the bzImage: {error}"))?;
    if !image.starts_with(b"\x7fELF") {
        return Err("the bzImage's payload is no ELF: give the vmlinux it was made from".into());
    }
    Ok(Cow::Owned(image))
}

/// The compressed kernel inside a bzImage.
fn payload(file: &[u8]) -> Option<&[u8]> {
    let word = |at: usize| {
        Some(u32::from_le_bytes(*file.get(at..)?.first_chunk()?))
            .and_then(|w| usize::try_from(w).ok())
    };
    let setup_sectors = match *file.get(0x1F1)? {
        0 => 4,
        count => usize::from(count),
    };
    let start = (setup_sectors + 1).checked_mul(512)?.checked_add(word(0x248)?)?;
    file.get(start..start.checked_add(word(0x24C)?)?)
}
