//! Unpacks the ELF that a bzImage carries (Linux boot protocol 2.08 and later).

use std::borrow::Cow;
use std::io::Read;

use crate::Error;

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
    let payload = payload(file).ok_or("the bzImage's header does not point into the file")?;
    let (image, name) = match payload {
        [0x1F, 0x8B, ..] => (read(flate2::read::GzDecoder::new(payload)), "gzip"),
        [0xFD, b'7', b'z', ..] => (read(lzma_rust2::XzReader::new(payload, false)), "xz"),
        [0x28, 0xB5, 0x2F, 0xFD, ..] => (zstd(payload), "zstd"),
        _ => {
            let start = policy::approval::Hex(payload.get(..4).unwrap_or(payload));
            return Err(format!(
                "the bzImage's payload begins with {start}, which is none of gzip, xz, zstd: unpack \
                 it with the kernel's scripts/extract-vmlinux and give the vmlinux"
            ));
        }
    };
    let image = image.map_err(|error| format!("cannot unpack the bzImage by {name}: {error}"))?;
    if image.len() as u64 > MOST_UNPACKED {
        return Err(format!("the bzImage unpacks to more than {MOST_UNPACKED} bytes"));
    }
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

fn read(reader: impl Read) -> Result<Vec<u8>, String> {
    let mut image = Vec::new();
    let result = reader.take(MOST_UNPACKED + 1).read_to_end(&mut image);
    result.map(|_| image).map_err(|error| error.to_string())
}

fn zstd(payload: &[u8]) -> Result<Vec<u8>, String> {
    let decoder = ruzstd::decoding::StreamingDecoder::new(payload);
    read(decoder.map_err(|error| error.to_string())?)
}
