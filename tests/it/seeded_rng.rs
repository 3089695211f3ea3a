//! Chance that can be had again: everything drawn comes from one seed, which a failure prints.

/// A source of numbers (SplitMix64). `SEED=… cargo test …` repeats a run.
#[derive(Debug, Clone)]
pub(crate) struct SeededRng {
    pub(crate) seed: u64,
    state: u64,
}

/// Numbers at which arithmetic goes wrong.
const EDGES: &[&str] =
    &["-1", "0", "255", "65536", "2147483648", "4294967295", "9223372036854775808", "18446744073709551615", "1e999"];

impl SeededRng {
    /// A seed of its own for each process, unless one is given.
    pub(crate) fn new() -> Self {
        let given = std::env::var("SEED").ok().map(|seed| seed.parse().unwrap());
        let seed = given.unwrap_or_else(|| u64::from(std::process::id()));
        Self { seed, state: seed }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, or 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % (end.max(1) as u64)).unwrap()
    }

    /// One of them.
    pub(crate) fn pick<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }

    /// The bytes with a few wounds: bits and bytes changed, pieces lost, doubled, or put in from `words` and from `other`.
    pub(crate) fn corrupt(&mut self, bytes: &[u8], words: &[&str], other: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..=self.below(6) {
            let at = self.below(bytes.len() + 1);
            let until = (at + 1 + self.below(12)).min(bytes.len());
            match self.below(9) {
                0 | 1 => {
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= 1 << self.below(8);
                    }
                }
                2 => {
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte = u8::try_from(self.below(256)).unwrap();
                    }
                }
                3 => drop(bytes.drain(at.min(until)..until)),
                4 => {
                    let piece = bytes[at.min(until)..until].to_vec();
                    bytes.splice(at..at, piece);
                }
                5 => drop(bytes.splice(at..at, self.pick(EDGES).bytes())),
                6 if self.below(8) == 0 => bytes.truncate(at),
                7 if !other.is_empty() => {
                    let from = self.below(other.len());
                    let to = (from + 1 + self.below(40)).min(other.len());
                    bytes.splice(at.min(until)..until, other[from..to].iter().copied());
                }
                _ if !words.is_empty() => drop(bytes.splice(at..at, self.pick(words).bytes())),
                _ => {}
            }
        }
        bytes
    }
}
