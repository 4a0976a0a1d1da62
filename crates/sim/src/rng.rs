//! The simulator's only source of chance, and the hash it compares things by. Both are plain arithmetic on 64-bit numbers:
//! the same seed gives the same run on every machine. Nothing else in this crate may draw a random number.

use std::ops::Range;

/// A generator in the style of SplitMix64: one word of state, every seed good.
#[derive(Clone, Debug)]
pub struct Rng {
    state: u64,
}

impl Rng {
    /// The generator of this seed.
    pub fn new(seed: u64) -> Rng {
        Rng {
            state: mix(seed ^ 0x5175_6f72_6174_6521),
        }
    }

    /// An independent generator, so that drawing more in one place does not shift another.
    pub fn fork(&mut self) -> Rng {
        Rng { state: self.word() }
    }

    /// 64 random bits.
    pub fn word(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    /// Uniform in `range`, which must not be empty.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        assert!(range.start < range.end, "an empty range has no random element");
        range.start + self.word() % (range.end - range.start)
    }

    /// In `range`, which must not be empty nor begin at 0: every doubling is about as likely as every other.
    pub fn log_within(&mut self, range: Range<u64>) -> u64 {
        assert!(range.start > 0, "nothing doubles to more than 0");
        let (first, last) = (range.start.ilog2(), (range.end - 1).ilog2());
        let power = self.within(u64::from(first)..u64::from(last) + 1);
        let from = (1 << power).max(range.start);
        self.within(from..(2 << power).min(range.end))
    }

    /// An index below `len`.
    pub fn below(&mut self, len: usize) -> usize {
        self.within(0..len as u64) as usize
    }

    /// True in `per_million` of a million cases.
    pub fn chance(&mut self, per_million: u32) -> bool {
        self.within(0..1_000_000) < u64::from(per_million)
    }

    /// One of two outcomes, evenly.
    pub fn coin(&mut self) -> bool {
        self.word() & 1 == 1
    }

    /// One of `items`, which must not be empty.
    pub fn pick<T: Clone>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())].clone()
    }
}

/// Scrambles one word; a bijection, so that nothing is lost.
pub fn mix(word: u64) -> u64 {
    let a = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let b = (a ^ (a >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    b ^ (b >> 31)
}

/// A 64-bit hash of bytes that are read eight at a time, chained onto `before`.
pub fn hash(before: u64, bytes: &[u8]) -> u64 {
    let mut sum = mix(before ^ bytes.len() as u64);
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        sum = mix(sum.rotate_left(5) ^ u64::from_le_bytes(word));
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_names_one_sequence() {
        let draw = |seed| {
            let mut rng = Rng::new(seed);
            (0..32).map(|_| rng.within(0..1000)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn chances_come_out_about_right() {
        let mut rng = Rng::new(1);
        let hits = (0..100_000).filter(|_| rng.chance(250_000)).count();
        assert!(
            (24_000..26_000).contains(&hits),
            "a quarter was asked for: {hits}"
        );
    }

    #[test]
    fn doublings_are_about_as_likely_as_each_other() {
        let mut rng = Rng::new(1);
        let drawn: Vec<u64> = (0..10_000).map(|_| rng.log_within(10..10_000)).collect();
        assert!(drawn.iter().all(|value| (10..10_000).contains(value)));
        let below = |limit| drawn.iter().filter(|value| **value < limit).count();
        // Eleven powers of two begin a stretch, the first at 8 and the last at 8192.
        assert!((800..1_000).contains(&below(16)) && (5_200..5_700).contains(&below(512)));
    }

    #[test]
    fn the_hash_sees_order_length_and_chain() {
        assert_ne!(hash(0, b"ab"), hash(0, b"ba"));
        assert_ne!(hash(0, b"a"), hash(0, b"a\0"));
        assert_ne!(hash(0, b"a"), hash(1, b"a"));
    }
}
