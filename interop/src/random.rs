//! Chance that can be repeated.

/// A small random source (SplitMix64), the same on every machine.
#[derive(Debug)]
pub struct Random(u64);

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Random {
    /// From a seed. Neighbours among the seeds begin far from each other: were the seed the state, or a multiple of the step, they would
    /// all draw the same numbers, one after the other.
    pub fn new(seed: u64) -> Random {
        Random(mix(seed.wrapping_add(STEP)))
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mix(self.0) % bound
    }
}

fn mix(state: u64) -> u64 {
    let mut mixed = state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_seeds_draw_different_numbers() {
        let draw = |seed| {
            let mut random = Random::new(seed);
            (0..100).map(|_| random.below(1 << 32)).collect::<Vec<_>>()
        };
        for seed in 0..20 {
            let (one, other) = (draw(seed), draw(seed + 1));
            assert_eq!(one, draw(seed));
            assert!(one.iter().all(|number| !other.contains(number)));
        }
    }
}
