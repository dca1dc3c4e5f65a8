//! What the owner approved, and what memory may hold of it.
//!
//! The model has its own idea of the right bytes: it computes them from the addresses at which a unit
//! lies, without the code under test.

use policy::PAGE_SIZE;
use policy::approval::{
    HEADER_BYTES, MAGIC, MODULE_BYTES, NAME_BYTES, RANGE_BYTES, SECTION_BYTES, VERSION,
};
use sha2::{Digest, Sha256};

/// Where the kernel runs its code.
pub const KERNEL_BASE: u64 = 0xffff_ffff_8100_0000;
/// Where the kernel runs its init code.
pub const INIT_BASE: u64 = KERNEL_BASE + 0x4000;
/// The window for modules.
pub const WINDOW: (u64, u64) = (0xffff_ffff_a000_0000, 0xffff_ffff_a001_0000);
/// Bases of regions that the guest chooses among, page by page.
pub const BASES: [u64; 3] = [WINDOW.0, WINDOW.0 + 0x1000, WINDOW.0 + 0x2000];
/// Physical address of the kernel's code; the other frames of the model follow.
pub const KERNEL_CODE: u64 = 0x100_0000;
/// Physical address of its init code, behind the frames in the guest's hands.
pub const INIT_CODE: u64 = KERNEL_CODE + 0x4000;
/// The module's name.
pub const MODULE: &str = "mod";

/// Parts of a page whose bytes change together: before the section, its code, its relocated field,
/// and what follows.
pub const CELLS: usize = 4;
/// Where the cells begin and the last one ends, in bytes.
const EDGES: [u64; CELLS + 1] = [0, 4, 12, 16, PAGE_SIZE];
const CODE: usize = 1;
const FIELD: usize = 2;
const INT3: u8 = 0xCC;

/// What a cell holds: nothing that anyone relied on, so whatever the adversary likes, or one of the
/// values of its kind.
pub type Value = u8;
/// Whatever the adversary likes, at every reading anew.
pub const ANYTHING: Value = 0;
/// INT3 in every byte, in a cell that no section fills.
const FILLED: Value = 1;
const JUNK: Value = 2;

/// A unit of the module: 0 its core, 1 its init code.
pub type UnitNumber = usize;

/// The cells that the bytes from `offset` on fill, `length` of them.
pub fn cells(offset: u64, length: u64) -> std::ops::Range<usize> {
    let first = EDGES.iter().rposition(|&edge| edge <= offset).unwrap_or(0);
    let end = EDGES.iter().position(|&edge| edge >= offset + length).unwrap_or(CELLS);
    first.min(CELLS - 1)..end
}

/// The module, as large as the model wants it.
pub struct Image {
    /// Pages of its core and its init region.
    pub pages: [usize; 2],
    /// Right values of relocated fields, at any bases.
    fields: Vec<u32>,
}

impl Image {
    /// A module with a core of so many pages and one page of init code.
    pub fn new(core_pages: usize) -> Self {
        let mut image = Self { pages: [core_pages, 1], fields: Vec::new() };
        let all = BASES.iter().flat_map(|core| BASES.iter().map(move |init| (*core, *init)));
        let mut fields: Vec<_> = all
            .flat_map(|(core, init)| image.places().map(move |it| field(it.0, it.1, core, init)))
            .collect();
        fields.sort_unstable();
        fields.dedup();
        image.fields = fields;
        image
    }

    /// Units with their pages.
    fn places(&self) -> impl Iterator<Item = (UnitNumber, usize)> + use<> {
        let [core, init] = self.pages;
        (0..core).map(|page| (0, page)).chain((0..init).map(|page| (1, page)))
    }

    fn code(&self, unit: UnitNumber, page: usize) -> Value {
        let number = self.places().position(|it| it == (unit, page));
        number.map_or(0, |it| it as Value + 1)
    }

    /// What a cell may hold.
    pub fn values(&self, cell: usize) -> std::ops::RangeInclusive<Value> {
        let last = match cell {
            CODE => self.places().count() as Value + 1,
            FIELD => self.fields.len() as Value + 1,
            _ => JUNK,
        };
        1..=last
    }

    /// The byte at `offset` of a page that holds `value` in the cell there.
    pub fn byte(&self, offset: u64, value: Value) -> u8 {
        let cell = cells(offset, 1).start;
        let at = (offset - EDGES[cell]) as usize;
        match (cell, value) {
            (CODE, _) => value.wrapping_mul(0x11) ^ at as u8,
            (FIELD, _) => {
                let junk = 0xDEAD_BEEF;
                self.fields.get(usize::from(value) - 1).unwrap_or(&junk).to_le_bytes()[at]
            }
            (_, FILLED) => INT3,
            _ => 0x90,
        }
    }

    /// The value of a cell that SecVisor fills with INT3; code and fields are none of theirs then.
    pub fn filled(&self, cell: usize) -> Value {
        if matches!(cell, CODE | FIELD) { *self.values(cell).end() } else { FILLED }
    }

    /// What a page must hold for the owner to have approved it, in a unit at these bases.
    pub fn right(
        &self,
        unit: UnitNumber,
        page: usize,
        core: u64,
        init: u64,
    ) -> Option<[Value; CELLS]> {
        let field = self.fields.binary_search(&field(unit, page, core, init)).ok()?;
        Some([FILLED, self.code(unit, page), field as Value + 1, FILLED])
    }

    /// What an honest kernel loads there: no section fills the rest.
    pub fn loaded(&self, unit: UnitNumber, core: u64, init: u64) -> Option<[Value; CELLS]> {
        let [_, code, field, _] = self.right(unit, 0, core, init)?;
        Some([JUNK, code, field, JUNK])
    }

    /// The approval list: the kernel's code and init code, and the module.
    pub fn list(&self) -> Vec<u8> {
        let words = |values: &[u32]| values.iter().flat_map(|it| it.to_le_bytes()).collect();
        let longs = |values: &[u64]| values.iter().flat_map(|it| it.to_le_bytes()).collect();
        let name = |text: &str, length: usize| {
            let mut bytes = text.as_bytes().to_vec();
            bytes.resize(length, 0);
            bytes
        };
        let mut tables = Vec::new();
        for (text, physical, base, init) in
            [(".text", KERNEL_CODE, KERNEL_BASE, 0), (".init.text", INIT_CODE, INIT_BASE, 1)]
        {
            let range: Vec<u8> = longs(&[physical, PAGE_SIZE, base, init]);
            tables.extend([name(text, NAME_BYTES), range, vec![0; 32]].concat());
        }
        let sections = self.places().count() as u32;
        tables.extend([name(MODULE, MODULE_BYTES - 8), words(&[sections, 0])].concat());
        for (number, (unit, page)) in (1..).zip(self.places()) {
            let start = EDGES[CODE] as u32;
            let [offset, size] = [page as u32 * PAGE_SIZE as u32 + start, EDGES[3] as u32 - start];
            let (code, field) = (self.code(unit, page), EDGES[FIELD]);
            let mut hash = Sha256::new();
            hash.update((EDGES[CODE]..field).map(|at| self.byte(at, code)).collect::<Vec<_>>());
            hash.update(vec![0; (EDGES[3] - field) as usize]);
            let record = words(&[offset, size, unit as u32, number]);
            tables.extend([name(".text", NAME_BYTES), record, hash.finalize().to_vec()].concat());
        }
        for (unit, page) in self.places() {
            // 2 sign-extended, 3 relative to the field; from 1 the core of module 0, 2 its init.
            let (kind, base) = if (unit, page) == (0, 0) { (3, 2) } else { (2, 1) };
            let offset: Vec<u8> = words(&[(EDGES[FIELD] - EDGES[CODE]) as u32]);
            tables.extend([offset, vec![kind, base, 0, 0], longs(&[ADDEND])].concat());
        }
        debug_assert_eq!(
            tables.len(),
            2 * RANGE_BYTES + MODULE_BYTES + (SECTION_BYTES + 16) * sections as usize
        );
        let counts = [2, 1, sections, sections, 0];
        let header = words(&[VERSION, (HEADER_BYTES + tables.len()) as u32, 62]);
        let rest: Vec<u8> = longs(&[KERNEL_CODE, WINDOW.0, WINDOW.1]);
        [MAGIC.to_vec(), header, words(&counts), rest, tables].concat()
    }
}

const ADDEND: u64 = 0x40;

/// The right value of the relocated field of a page. The core's first page counts from the init
/// region, relative to itself; all others from the core.
fn field(unit: UnitNumber, page: usize, core: u64, init: u64) -> u32 {
    let value = match (unit, page) {
        (0, 0) => init.wrapping_add(ADDEND).wrapping_sub(core + EDGES[FIELD]),
        _ => core + ADDEND,
    };
    value as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::approval::ApprovalList;

    #[test]
    fn cells_are_found_by_their_bytes() {
        assert_eq!((cells(0, 4), cells(4, 8), cells(12, 4)), (0..1, 1..2, 2..3));
        assert_eq!((cells(16, 4080), cells(5, 1), cells(10, 3)), (3..4, 1..2, 1..3));
        assert_eq!(cells(0, PAGE_SIZE), 0..CELLS);
    }

    #[test]
    fn the_list_says_what_the_model_means() {
        for core_pages in [1, 2] {
            let image = Image::new(core_pages);
            let bytes = image.list();
            let list = ApprovalList::parse(&bytes).unwrap();
            let module = list.find_module(MODULE).unwrap();
            assert_eq!([false, true].map(|init| module.pages(init) as usize), image.pages);
            let relocations = module.sections().map(|section| section.relocations().count());
            assert_eq!(relocations.collect::<Vec<_>>(), vec![1; core_pages + 1]);
        }
    }

    #[test]
    fn right_bytes_depend_on_place_and_bases() {
        let image = Image::new(2);
        let places = [(0, 0), (0, 1), (1, 0)];
        let right = |core: usize, init: usize| {
            places.map(|(unit, page)| image.right(unit, page, BASES[core], BASES[init]).unwrap())
        };
        let all: Vec<_> = [right(0, 2), right(1, 0)].concat();
        assert!((0..all.len()).all(|at| !all[at + 1..].contains(&all[at])), "{all:?}");
        // Bytes that no section fills are INT3, all others are not of one kind.
        assert_eq!((image.byte(3, all[0][0]), image.byte(4095, all[0][3])), (0xCC, 0xCC));
        assert_eq!(image.byte(16, JUNK), 0x90);
    }
}
