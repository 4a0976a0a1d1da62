//! Which watchers see a key: exact keys in a map, ranges in an interval tree (a treap: a search tree by start and end, kept
//! shallow by random priorities, each node knowing the greatest end below it). Knows ids, not watchers.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

/// The ids by what they watch.
#[derive(Debug, Default)]
pub(super) struct Matcher {
    exact: BTreeMap<Bytes, BTreeSet<u64>>,
    ranges: Link,
    /// The state of the priorities' generator. Fixed at the start: the same calls build the same tree.
    random: u64,
}

/// What a watcher watches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scope {
    /// One key.
    Key(Bytes),
    /// From the first to before the second; `None`: to the end.
    Range(Bytes, Option<Bytes>),
}

impl Scope {
    /// Of a request's `key` and `range_end`; `None` if it holds no key.
    pub(super) fn new(key: Bytes, range_end: Bytes) -> Option<Scope> {
        match range_end.as_ref() {
            [] => Some(Scope::Key(key)),
            [0] => Some(Scope::Range(key, None)),
            end if key.as_ref() < end => Some(Scope::Range(key, Some(range_end))),
            _ => None,
        }
    }

    /// Whether it holds `key`.
    pub(super) fn contains(&self, key: &[u8]) -> bool {
        match self {
            Scope::Key(own) => own == key,
            Scope::Range(start, end) => {
                start.as_ref() <= key && end.as_ref().is_none_or(|end| key < end.as_ref())
            }
        }
    }
}

impl Matcher {
    /// Adds an id.
    pub(super) fn insert(&mut self, scope: &Scope, id: u64) {
        match scope {
            Scope::Key(key) => {
                self.exact.entry(key.clone()).or_default().insert(id);
            }
            Scope::Range(start, end) => {
                self.random = self
                    .random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                let node = Node {
                    start: start.clone(),
                    end: end.clone(),
                    max_end: end.clone(),
                    ids: BTreeSet::from([id]),
                    priority: self.random >> 16,
                    left: None,
                    right: None,
                };
                self.ranges = Some(insert(self.ranges.take(), node));
            }
        }
    }

    /// Takes an id out, of the scope it was added with.
    pub(super) fn remove(&mut self, scope: &Scope, id: u64) {
        match scope {
            Scope::Key(key) => {
                if let Some(ids) = self.exact.get_mut(key) {
                    ids.remove(&id);
                    if ids.is_empty() {
                        self.exact.remove(key);
                    }
                }
            }
            Scope::Range(start, end) => self.ranges = remove(self.ranges.take(), start, end.as_ref(), id),
        }
    }

    /// Calls `found` with each id whose scope holds `key`.
    pub(super) fn each(&self, key: &[u8], found: &mut impl FnMut(u64)) {
        if let Some(ids) = self.exact.get(key) {
            ids.iter().for_each(|id| found(*id));
        }
        stab(&self.ranges, key, found);
    }
}

type Link = Option<Box<Node>>;

#[derive(Debug)]
struct Node {
    start: Bytes,
    end: Option<Bytes>,
    max_end: Option<Bytes>,
    ids: BTreeSet<u64>,
    priority: u64,
    left: Link,
    right: Link,
}

/// Ends compare with "no end" as the greatest.
fn compare_ends(a: Option<&Bytes>, b: Option<&Bytes>) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => a.cmp(b),
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
    }
}

impl Node {
    fn compare(&self, start: &Bytes, end: Option<&Bytes>) -> Ordering {
        start
            .cmp(&self.start)
            .then_with(|| compare_ends(end, self.end.as_ref()))
    }

    /// Puts `max_end` right after the children changed.
    fn update(&mut self) {
        let mut max = self.end.as_ref();
        for child in [&self.left, &self.right].into_iter().flatten() {
            if compare_ends(child.max_end.as_ref(), max).is_gt() {
                max = child.max_end.as_ref();
            }
        }
        self.max_end = max.cloned();
    }
}

fn insert(link: Link, new: Node) -> Box<Node> {
    let Some(mut node) = link else {
        return Box::new(new);
    };
    match node.compare(&new.start, new.end.as_ref()) {
        Ordering::Equal => node.ids.extend(new.ids),
        Ordering::Less => {
            let mut left = insert(node.left.take(), new);
            if left.priority > node.priority {
                node.left = left.right.take();
                node.update();
                left.right = Some(node);
                node = left;
            } else {
                node.left = Some(left);
            }
        }
        Ordering::Greater => {
            let mut right = insert(node.right.take(), new);
            if right.priority > node.priority {
                node.right = right.left.take();
                node.update();
                right.left = Some(node);
                node = right;
            } else {
                node.right = Some(right);
            }
        }
    }
    node.update();
    node
}

fn remove(link: Link, start: &Bytes, end: Option<&Bytes>, id: u64) -> Link {
    let mut node = link?;
    match node.compare(start, end) {
        Ordering::Equal => {
            node.ids.remove(&id);
            if node.ids.is_empty() {
                return join(node.left, node.right);
            }
        }
        Ordering::Less => node.left = remove(node.left.take(), start, end, id),
        Ordering::Greater => node.right = remove(node.right.take(), start, end, id),
    }
    node.update();
    Some(node)
}

/// One tree of two, where everything in `left` comes before everything in `right`.
fn join(left: Link, right: Link) -> Link {
    let (mut left, mut right) = match (left, right) {
        (Some(left), Some(right)) => (left, right),
        (one, other) => return one.or(other),
    };
    if left.priority > right.priority {
        left.right = join(left.right.take(), Some(right));
        left.update();
        Some(left)
    } else {
        right.left = join(Some(left), right.left.take());
        right.update();
        Some(right)
    }
}

fn stab(link: &Link, key: &[u8], found: &mut impl FnMut(u64)) {
    let Some(node) = link else { return };
    if node.max_end.as_ref().is_some_and(|max| max.as_ref() <= key) {
        return; // everything below ends before the key
    }
    stab(&node.left, key, found);
    if node.start.as_ref() <= key {
        if node.end.as_ref().is_none_or(|end| key < end.as_ref()) {
            node.ids.iter().for_each(|id| found(*id));
        }
        stab(&node.right, key, found);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn depth(link: &Link) -> usize {
        link.as_ref()
            .map_or(0, |node| 1 + depth(&node.left).max(depth(&node.right)))
    }

    fn scope() -> impl Strategy<Value = Scope> {
        let key = || proptest::collection::vec(0u8..4, 1..3).prop_map(Bytes::from);
        (
            key(),
            prop_oneof![Just(Bytes::new()), Just(Bytes::from_static(b"\0")), key()],
        )
            .prop_filter_map("empty", |(key, end)| Scope::new(key, end))
    }

    proptest! {
        #[test]
        fn finds_what_a_scan_finds(ops in proptest::collection::vec((scope(), 0u64..8, any::<bool>()), 1..60)) {
            let mut matcher = Matcher::default();
            let mut all: BTreeMap<u64, Scope> = BTreeMap::new();
            for (scope, id, add) in ops {
                if let Some(old) = all.remove(&id) {
                    matcher.remove(&old, id);
                }
                if add {
                    matcher.insert(&scope, id);
                    all.insert(id, scope);
                }
                for key in (0u8..4).flat_map(|a| (0u8..5).map(move |b| if b == 4 { vec![a] } else { vec![a, b] })) {
                    let mut found = Vec::new();
                    matcher.each(&key, &mut |id| found.push(id));
                    found.sort();
                    let expected: Vec<u64> =
                        all.iter().filter(|(_, scope)| scope.contains(&key)).map(|(id, _)| *id).collect();
                    prop_assert_eq!(found, expected);
                }
            }
        }
    }

    #[test]
    fn stays_shallow_whatever_the_order() {
        let mut matcher = Matcher::default();
        for n in 0..10_000u32 {
            let key = |n: u32| Bytes::copy_from_slice(&n.to_be_bytes());
            matcher.insert(&Scope::Range(key(n), Some(key(n + 100))), u64::from(n));
        }
        assert!(depth(&matcher.ranges) < 60, "depth {}", depth(&matcher.ranges));
        let mut found = 0;
        matcher.each(&5_000u32.to_be_bytes(), &mut |_| found += 1);
        assert_eq!(found, 100);
    }
}
