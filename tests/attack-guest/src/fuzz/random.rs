//! Numbers that nobody chose, the same for the same seed and round.

/// A generator (splitmix64).
pub struct Random(u64);

impl Random {
    /// The generator of a round.
    pub fn new(seed: u64, round: u64) -> Self {
        let mut state = Self(seed);
        state.0 = state.number() ^ round.wrapping_mul(0xD134_2543_DE82_EF95);
        state
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    /// A number below `limit`, which has at most 32 bits.
    pub fn below(&mut self, limit: u64) -> u64 {
        ((self.number() >> 32) * limit) >> 32
    }

    /// True once in so many times.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// One of several.
    pub fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }

    /// A number as registers, sizes and masks tend to be.
    pub fn value(&mut self) -> u64 {
        match self.below(10) {
            0 => 0,
            1 => u64::MAX,
            2 | 3 => 1 << self.below(64),
            4 => !(1 << self.below(64)),
            5 => self.below(256),
            6 => self.number() & 0xFFFF_FFFF,
            7 => (self.number() as i32 as i64) as u64,
            _ => self.number(),
        }
    }

    /// `count` random bytes at an address.
    pub fn fill(&mut self, address: u64, count: u64) {
        (0..count).for_each(|at| crate::memory::poke8(address + at, self.number() as u8));
    }
}
