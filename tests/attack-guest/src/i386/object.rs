//! Object files of 32 bits: where things stand, and which relocations there are.

/// In the file's header: where the section table starts, and the index of the sections' names.
pub const SECTIONS: u64 = 0x20;
pub const NAMES: u64 = 0x32;
pub const SECTION_BYTES: u64 = 40;
pub const SYMBOL_BYTES: u64 = 16;
/// In a symbol.
pub const SYMBOL_SECTION: u64 = 14;
pub const SYMBOL_VALUE: u64 = 4;
/// A section's type, and a relocation's size: the addend is in the field.
pub const RELOCATIONS: u64 = 9;
pub const RELOCATION_BYTES: usize = 8;

/// Relocation types that code has.
pub const ABSOLUTE_32: u64 = 1;
pub const RELATIVE: u64 = 2;
pub const CALL: u64 = 4;

/// Fields of the modules, each by its type and how many of that type stand before it: one across a
/// page border, from the core region to the init region, from there to data, to another module, from
/// the core region to its data.
pub const AT_BORDER: (u64, usize) = (ABSOLUTE_32, 6);
pub const TO_INIT: (u64, usize) = (ABSOLUTE_32, 4);
pub const FROM_INIT: (u64, usize) = (ABSOLUTE_32, 1);
pub const TO_OTHER: (u64, usize) = (ABSOLUTE_32, 0);
pub const TO_DATA: (u64, usize) = (ABSOLUTE_32, 0);

/// What the module alpha's core adds up to.
pub const ALPHA_RESULT: u64 = 0x976A_4621;

/// Symbol and type of a relocation.
pub fn relocation(info: u64) -> (u64, u64) {
    (info >> 8, info & 0xFF)
}

/// Bytes of a field.
pub fn width(_kind: u64) -> u64 {
    4
}
