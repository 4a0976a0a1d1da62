//! How a mutant is known again when lines move: by file, words and the how-manieth of its like.

use std::collections::BTreeMap;

use crate::catalogue::Mutant;

/// The keys of one file's mutants, which come in the order of the source. Together with the fingerprint of the function each is unambiguous.
pub fn keys(file: &str, mutants: &[Mutant]) -> Vec<String> {
    let mut seen = BTreeMap::new();
    let keys = mutants.iter().map(|mutant| {
        let count = seen.entry(&mutant.what).or_insert(0);
        *count += 1;
        match *count {
            1 => format!("{file}: {}", mutant.what),
            n => format!("{file}: {} #{n}", mutant.what),
        }
    });
    keys.collect()
}
