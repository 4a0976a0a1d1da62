//! etcd's way of naming ranges of keys by `key` and `range_end`, and where those end.

use std::ops::Bound;

/// Where the range ends that `key` and `range_end` name: empty end, the one key; `"\0"`, everything from `key` on; else `[key, end)`.
pub(crate) fn end<'a>(key: &'a [u8], range_end: &'a [u8]) -> Bound<&'a [u8]> {
    match range_end {
        [] => Bound::Included(key),
        [0] => Bound::Unbounded,
        end => Bound::Excluded(end),
    }
}

/// Whether the range goes to the end of all keys.
pub(crate) fn is_open(range_end: &[u8]) -> bool {
    range_end == [0]
}

/// Whether the range holds no key at all.
pub(crate) fn is_empty(key: &[u8], range_end: &[u8]) -> bool {
    !range_end.is_empty() && !is_open(range_end) && range_end <= key
}
