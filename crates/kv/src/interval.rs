//! etcd's way of naming ranges of keys by `key` and `range_end`, as bounds of ordered tables.

use std::ops::Bound;

/// Bounds of a range of keys.
pub(crate) type KeyBounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// The bounds that `key` and `range_end` name: empty end, the one key; `"\0"`, everything from `key` on; else `[key, end)`.
pub(crate) fn bounds<'a>(key: &'a [u8], range_end: &'a [u8]) -> KeyBounds<'a> {
    let end = match range_end {
        [] => Bound::Included(key),
        [0] => Bound::Unbounded,
        end => Bound::Excluded(end),
    };
    (Bound::Included(key), end)
}

/// Whether the range goes to the end of all keys.
pub(crate) fn is_open(range_end: &[u8]) -> bool {
    range_end == [0]
}

/// Whether the range holds no key at all.
pub(crate) fn is_empty(key: &[u8], range_end: &[u8]) -> bool {
    !range_end.is_empty() && !is_open(range_end) && range_end <= key
}

/// Whether `key` lies within the bounds.
pub(crate) fn contains(range: KeyBounds<'_>, key: &[u8]) -> bool {
    let after_start = match range.0 {
        Bound::Included(start) => key >= start,
        Bound::Excluded(start) => key > start,
        Bound::Unbounded => true,
    };
    let before_end = match range.1 {
        Bound::Included(end) => key <= end,
        Bound::Excluded(end) => key < end,
        Bound::Unbounded => true,
    };
    after_start && before_end
}
