//! [`Cover`]: the keys that a set of ranges covers together. Transactions hold their puts against what they delete, tens of thousands
//! against as many: so a key is looked up, not compared with range after range. How etcd names ranges stands in
//! [`interval`](crate::interval).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// A union of ranges that begin with a key of theirs.
#[derive(Debug)]
pub(crate) struct Cover<K> {
    /// Disjoint ranges by their first keys.
    ranges: BTreeMap<K, End<K>>,
}

/// Where a range ends. Ordered as the ranges are that begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End<K> {
    /// At a key, which belongs to it or not.
    At(K, bool),
    /// Nowhere.
    Open,
}

impl<K> Default for Cover<K> {
    fn default() -> Cover<K> {
        Cover {
            ranges: BTreeMap::new(),
        }
    }
}

impl<K: Ord + Copy> Cover<K> {
    /// Adds the keys from `start` on to `end`; none if that lies before.
    pub(crate) fn add(&mut self, start: K, end: Bound<K>) {
        self.merge(
            start,
            match end {
                Bound::Included(key) => End::At(key, true),
                Bound::Excluded(key) => End::At(key, false),
                Bound::Unbounded => End::Open,
            },
        );
    }

    /// Adds all that another one covers.
    pub(crate) fn absorb(&mut self, mut other: Cover<K>) {
        // Each range is so moved a logarithmic number of times, however deep the nesting that it comes from.
        if self.ranges.len() < other.ranges.len() {
            std::mem::swap(self, &mut other);
        }
        for (start, end) in other.ranges {
            self.merge(start, end);
        }
    }

    /// Whether a range holds `key`.
    pub(crate) fn contains(&self, key: K) -> bool {
        let before = self.ranges.range(..=key).next_back();
        before.is_some_and(|(_, end)| *end >= End::At(key, true))
    }

    /// Whether a range holds one of the keys. Costs a look-up for each of those of which there are fewer.
    pub(crate) fn meets(&self, keys: &BTreeSet<K>) -> bool {
        if keys.len() <= self.ranges.len() {
            return keys.iter().any(|key| self.contains(*key));
        }
        self.ranges.iter().any(|(start, end)| {
            let first = keys.range(*start..).next();
            first.is_some_and(|key| *end >= End::At(*key, true))
        })
    }

    fn merge(&mut self, mut start: K, mut end: End<K>) {
        if end < End::At(start, true) {
            return;
        }
        if let Some((first, reach)) = self.ranges.range(..=start).next_back()
            && *reach >= End::At(start, false)
        {
            (start, end) = (*first, end.max(*reach));
        }
        while let Some((next, reach)) = self.after(start)
            && End::At(next, false) <= end
        {
            end = end.max(reach);
            self.ranges.remove(&next);
        }
        self.ranges.insert(start, end);
    }

    /// The range that begins next after `start`.
    fn after(&self, start: K) -> Option<(K, End<K>)> {
        let mut later = self.ranges.range((Bound::Excluded(start), Bound::Unbounded));
        later.next().map(|(start, end)| (*start, *end))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::cmp::Ordering;

    use proptest::prelude::*;

    use super::*;

    thread_local! {
        static COMPARED: Cell<u64> = const { Cell::new(0) };
    }

    /// A key that counts how often keys are compared.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Counted(u32);

    impl Ord for Counted {
        fn cmp(&self, other: &Counted) -> Ordering {
            COMPARED.set(COMPARED.get() + 1);
            self.0.cmp(&other.0)
        }
    }

    impl PartialOrd for Counted {
        fn partial_cmp(&self, other: &Counted) -> Option<Ordering> {
            Some(self.cmp(other))
        }
    }

    fn end() -> impl Strategy<Value = Bound<u32>> {
        prop_oneof![
            8 => (0u32..40).prop_map(Bound::Included),
            8 => (0u32..40).prop_map(Bound::Excluded),
            1 => Just(Bound::Unbounded),
        ]
    }

    proptest! {
        #[test]
        fn it_covers_what_one_of_the_ranges_holds(
            ranges in prop::collection::vec((0u32..40, end(), any::<bool>()), 0..12),
            keys in prop::collection::btree_set(0u32..42, 0..12),
        ) {
            let (mut cover, mut other) = (Cover::default(), Cover::default());
            for (start, end, here) in &ranges {
                if *here { &mut cover } else { &mut other }.add(*start, *end);
            }
            cover.absorb(other);
            let holds = |key: u32| {
                ranges.iter().any(|(start, end, _)| key >= *start && match *end {
                    Bound::Included(end) => key <= end,
                    Bound::Excluded(end) => key < end,
                    Bound::Unbounded => true,
                })
            };
            for key in 0..42 {
                prop_assert_eq!(cover.contains(key), holds(key), "key {} in {:?}", key, cover);
            }
            prop_assert_eq!(cover.meets(&keys), keys.iter().any(|key| holds(*key)), "{:?}", cover);
        }
    }

    #[test]
    fn many_keys_against_many_ranges_take_a_look_up_each() {
        const N: u32 = 10_000;
        let mut cover = Cover::default();
        for n in 0..N {
            cover.add(Counted(4 * n), Bound::Excluded(Counted(4 * n + 2)));
        }
        for n in 0..N {
            assert!(cover.contains(Counted(4 * n + 1)) && !cover.contains(Counted(4 * n + 3)));
        }
        let between: BTreeSet<Counted> = (0..2 * N).map(|n| Counted((2 * n) | 3)).collect();
        assert!(!cover.meets(&between));
        // Of the same start all are one, however many they are.
        for n in 0..N {
            cover.add(Counted(0), Bound::Included(Counted(n)));
        }
        let compared = COMPARED.get();
        assert!(compared < 200 * u64::from(N), "{compared} comparisons");
    }
}
