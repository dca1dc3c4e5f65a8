//! Unpacks what kernels and modules are packed with.

use std::io::Read;

use crate::Error;

/// More than any module; a broken file must not fill the machine.
const MOST_OF_A_MODULE: u64 = 1 << 28;

/// The module in a file, packed or not.
pub fn module(file: Vec<u8>) -> Result<Vec<u8>, Error> {
    decompress(&file, MOST_OF_A_MODULE).unwrap_or(Ok(file))
}

/// What `packed` holds, if it begins as gzip, xz or zstd does; an error if that is more than `most`
/// bytes. What follows the packed data is not looked at.
pub fn decompress(packed: &[u8], most: u64) -> Option<Result<Vec<u8>, Error>> {
    let (unpacked, name) = match packed {
        [0x1F, 0x8B, ..] => (read(flate2::read::GzDecoder::new(packed), most), "gzip"),
        [0xFD, b'7', b'z', ..] => (read(lzma_rust2::XzReader::new(packed, false), most), "xz"),
        [0x28, 0xB5, 0x2F, 0xFD, ..] => {
            let decoder = ruzstd::decoding::StreamingDecoder::new(packed);
            (decoder.map_err(|error| error.to_string()).and_then(|it| read(it, most)), "zstd")
        }
        _ => return None,
    };
    Some(unpacked.map_err(|error| format!("cannot unpack it by {name}: {error}")))
}

fn read(packed: impl Read, most: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    packed.take(most + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > most {
        return Err(format!("it holds more than {most} bytes"));
    }
    Ok(bytes)
}
