//! Random numbers that a seed repeats.

/// Values at which integer and float parsers go wrong.
const EDGE_NUMBERS: &[&str] =
    &["-1", "0", "255", "65536", "2147483648", "4294967295", "9223372036854775808", "18446744073709551615", "1e999"];

/// A `SplitMix64` generator.
#[derive(Debug, Clone)]
pub struct SeededRng {
    /// The number that repeats this sequence.
    pub seed: u64,
    state: u64,
}

impl SeededRng {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, state: seed }
    }

    /// A generator for one test run: `SEED=… cargo test …` repeats a run whose failure printed its seed. Without `SEED` each
    /// process has its own.
    ///
    /// # Panics
    /// If `SEED` is not a number.
    #[must_use]
    pub fn from_env() -> Self {
        let seed = std::env::var("SEED").ok().map(|seed| seed.parse().expect("SEED is a number"));
        Self::new(seed.unwrap_or_else(|| u64::from(std::process::id())))
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to `bound`, exclusive; 0 if `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// An index into a list of this length; 0 if it is empty.
    pub fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap_or_default()
    }

    /// One element.
    ///
    /// # Panics
    /// If there is none.
    pub fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.index(from.len())]
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for place in (1..items.len()).rev() {
            let other = self.index(place + 1);
            items.swap(place, other);
        }
    }

    /// The bytes after one to six mutations: bits and bytes are changed, ranges are removed, repeated, or replaced with parts of
    /// `dictionary` and of `other`.
    #[must_use]
    pub fn corrupt(&mut self, bytes: &[u8], dictionary: &[&str], other: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..=self.index(6) {
            let at = self.index(bytes.len() + 1);
            let until = (at + 1 + self.index(12)).min(bytes.len());
            match self.index(9) {
                0 | 1 => {
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= 1 << self.index(8);
                    }
                }
                2 => {
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte = u8::try_from(self.index(256)).unwrap_or_default();
                    }
                }
                3 => drop(bytes.drain(at.min(until)..until)),
                4 => {
                    let piece = bytes[at.min(until)..until].to_vec();
                    bytes.splice(at..at, piece);
                }
                5 => drop(bytes.splice(at..at, self.pick(EDGE_NUMBERS).bytes())),
                6 if self.index(8) == 0 => bytes.truncate(at),
                7 if !other.is_empty() => {
                    let from = self.index(other.len());
                    let to = (from + 1 + self.index(40)).min(other.len());
                    bytes.splice(at.min(until)..until, other[from..to].iter().copied());
                }
                _ if !dictionary.is_empty() => drop(bytes.splice(at..at, self.pick(dictionary).bytes())),
                _ => {}
            }
        }
        bytes
    }
}
