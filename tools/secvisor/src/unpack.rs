//! Unpacks compressed modules.

use std::io::Read;

use crate::Error;

/// More than any module; a broken file must not fill the machine.
const MOST_UNPACKED: u64 = 1 << 28;

/// The module in a file, packed or not.
pub fn unpack(file: Vec<u8>) -> Result<Vec<u8>, Error> {
    let unpacked = match &*file {
        [0x1F, 0x8B, ..] => read(flate2::read::GzDecoder::new(&*file)),
        [0xFD, b'7', b'z', ..] => read(lzma_rust2::XzReader::new(&*file, true)),
        [0x28, 0xB5, 0x2F, 0xFD, ..] => ruzstd::decoding::StreamingDecoder::new(&*file)
            .map_err(|error| error.to_string())
            .and_then(read),
        _ => return Ok(file),
    };
    unpacked.map_err(|error| format!("cannot unpack it: {error}"))
}

fn read(packed: impl Read) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    packed.take(MOST_UNPACKED + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MOST_UNPACKED {
        return Err(format!("it holds more than {MOST_UNPACKED} bytes"));
    }
    Ok(bytes)
}
