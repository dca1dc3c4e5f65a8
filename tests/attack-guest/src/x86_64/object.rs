//! Object files of 64 bits: where things stand, and which relocations there are.

/// In the file's header: where the section table starts, and the index of the sections' names.
pub const SECTIONS: u64 = 0x28;
pub const NAMES: u64 = 0x3E;
pub const SECTION_BYTES: u64 = 64;
pub const SYMBOL_BYTES: u64 = 24;
/// In a symbol.
pub const SYMBOL_SECTION: u64 = 6;
pub const SYMBOL_VALUE: u64 = 8;
/// A section's type, and a relocation's size: with an addend.
pub const RELOCATIONS: u64 = 4;
pub const RELOCATION_BYTES: usize = 24;

/// Relocation types that code has.
pub const ABSOLUTE_64: u64 = 1;
pub const RELATIVE: u64 = 2;
pub const CALL: u64 = 4;
pub const ABSOLUTE_32: u64 = 10;
pub const SIGNED_32: u64 = 11;

/// Fields of the modules, each by its type and how many of that type stand before it: one across a
/// page border, from the core region to the init region, from there to data, to another module, from
/// the core region to its data.
pub const AT_BORDER: (u64, usize) = (ABSOLUTE_32, 1);
pub const TO_INIT: (u64, usize) = (SIGNED_32, 1);
pub const FROM_INIT: (u64, usize) = (SIGNED_32, 0);
pub const TO_OTHER: (u64, usize) = (ABSOLUTE_64, 0);
pub const TO_DATA: (u64, usize) = (ABSOLUTE_64, 0);

/// What the module alpha's core adds up to.
pub const ALPHA_RESULT: u64 = 0x1_176A_4321;

/// Symbol and type of a relocation.
pub fn relocation(info: u64) -> (u64, u64) {
    (info >> 32, info & 0xFFFF_FFFF)
}

/// Bytes of a field.
pub fn width(kind: u64) -> u64 {
    if kind == ABSOLUTE_64 { 8 } else { 4 }
}
