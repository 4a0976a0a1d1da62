//! Reading: single keys and ranges, now and in the past, with all of etcd's options.

use std::ops::Bound;

use bytes::Bytes;

use crate::chain::Place;
use crate::error::Error;
use crate::interval;
use crate::row::{Attached, Change, Changes, Keys, Latest, Version};
use crate::types::{KeyValue, RangeRequest, RangeResponse, SortOrder, SortTarget};
use crate::view::{Bounds, Layers, ReadError};

/// The state to read: the layers, and what their revisions are. Inside a transaction `latest` counts its own writes.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    pub(crate) layers: Layers<'a>,
    pub(crate) latest: i64,
    pub(crate) compacted: i64,
}

/// As many rows as a value counts that has to be looked up.
const VALUE_ROWS: usize = 3;

/// Keys found so far, and how many there are.
#[derive(Default)]
struct Found {
    kvs: Vec<KeyValue>,
    count: i64,
}

/// Bounds of the table `keys`.
pub(crate) fn key_bounds(key: &Bytes, range_end: &Bytes) -> Bounds<Bytes> {
    let end = match range_end.as_ref() {
        [] => Bound::Included(key.clone()),
        [0] => Bound::Unbounded,
        _ => Bound::Excluded(range_end.clone()),
    };
    (Bound::Included(key.clone()), end)
}

impl Reader<'_> {
    /// Whether `revision` can be read at all.
    pub(crate) fn check_revision(&self, revision: i64) -> Result<(), Error> {
        if revision > self.latest {
            return Err(Error::FutureRevision);
        }
        if revision > 0 && revision < self.compacted {
            return Err(Error::Compacted);
        }
        Ok(())
    }

    /// The keys attached to a lease, in order.
    pub(crate) fn attached(&self, lease: i64) -> Result<Vec<Bytes>, ReadError> {
        let end = match lease.checked_add(1) {
            Some(next) => Bound::Excluded((next, Bytes::new())),
            None => Bound::Unbounded,
        };
        let bounds = (Bound::Included((lease, Bytes::new())), end);
        let rows = self.layers.range::<Attached>(&bounds)?;
        rows.map(|row| Ok(row?.key.1)).collect()
    }

    /// Answers a range request that was checked.
    pub(crate) fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Error> {
        let answer = self.range_within(request, usize::MAX)?;
        Ok(answer.expect("without a budget nothing is cut short"))
    }

    /// The same, if no more than `budget` rows have to be visited for it.
    pub(crate) fn range_within(
        &self,
        request: &RangeRequest,
        budget: usize,
    ) -> Result<Option<RangeResponse>, Error> {
        self.check_revision(request.revision)?;
        // Whoever sorts or filters must see everything first; otherwise one key beyond the limit tells whether there is more. A
        // target without an order sorts only what the limit let through: etcd's habit, kept since paging clients see it.
        let in_key_order = request.sort_target == SortTarget::Key && request.sort_order != SortOrder::Descend;
        let limit_first = (in_key_order || request.sort_order == SortOrder::None) && !has_filter(request);
        let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0);
        let fetch = match limit {
            Some(limit) if limit_first => limit.saturating_add(1),
            _ => usize::MAX,
        };
        let fetch = if request.count_only { 0 } else { fetch };
        let Some(found) = self.find(request, fetch, budget)? else {
            return Ok(None);
        };

        let mut kvs = found.kvs;
        if has_filter(request) {
            kvs.retain(|kv| passes(request, kv));
        }
        if !in_key_order {
            sort(&mut kvs, request.sort_order, request.sort_target);
        }
        let mut more = false;
        if let Some(limit) = limit
            && kvs.len() > limit
        {
            kvs.truncate(limit);
            more = true;
        }
        if request.keys_only {
            for kv in &mut kvs {
                kv.value = Bytes::new();
            }
        }
        Ok(Some(RangeResponse {
            revision: self.latest,
            kvs,
            more,
            count: found.count,
        }))
    }

    fn find(&self, request: &RangeRequest, fetch: usize, budget: usize) -> Result<Option<Found>, ReadError> {
        let (key, range_end) = (&request.key, &request.range_end);
        if interval::is_empty(key, range_end) {
            return Ok(Some(Found::default()));
        }
        if request.revision <= 0 || request.revision == self.latest {
            return self.find_now(key, range_end, fetch, budget);
        }
        if range_end.is_empty() {
            let kv = self.at(key, request.revision)?;
            return Ok(Some(Found {
                count: i64::from(kv.is_some()),
                kvs: kv.into_iter().take(fetch).collect(),
            }));
        }
        self.find_past(key, range_end, request.revision, fetch, budget)
    }

    fn find_now(
        &self,
        key: &Bytes,
        range_end: &Bytes,
        fetch: usize,
        budget: usize,
    ) -> Result<Option<Found>, ReadError> {
        let mut found = Found::default();
        if range_end.is_empty() {
            if let Some(latest) = self.latest(key)? {
                found.count = 1;
                if fetch > 0 {
                    found.kvs.push(self.version(latest.at)?.with_key(key.clone()));
                }
            }
            return Ok(Some(found));
        }
        // Values stand in the order they were written in, each perhaps on a page of its own: none is read before it is known that all may be.
        let mut values = Vec::new();
        let mut visited = 0;
        for row in self.layers.range::<Keys>(&key_bounds(key, range_end))? {
            let row = row?;
            let latest = row.value()?;
            visited += 1;
            if !latest.is_tombstone() {
                found.count += 1;
                if values.len() < fetch {
                    values.push((row.key, latest.at));
                    visited += VALUE_ROWS;
                }
            }
            if visited > budget {
                return Ok(None);
            }
        }
        found.kvs.reserve_exact(values.len());
        for (key, at) in values {
            found.kvs.push(self.version(at)?.with_key(key));
        }
        Ok(Some(found))
    }

    /// Goes through the keys in order, deleted ones included, and back from the latest change of each to the last one up to the revision.
    fn find_past(
        &self,
        key: &Bytes,
        range_end: &Bytes,
        revision: i64,
        fetch: usize,
        budget: usize,
    ) -> Result<Option<Found>, ReadError> {
        let mut found = Found::default();
        let mut visited = 0;
        for row in self.layers.range::<Keys>(&key_bounds(key, range_end))? {
            let row = row?;
            let latest = row.value()?.at;
            let change = self.last_change(Some(latest), (revision, u32::MAX), &mut visited)?;
            if visited > budget {
                return Ok(None);
            }
            let Some((_, Change { put: Some(put), .. })) = change else {
                continue;
            };
            found.count += 1;
            if found.kvs.len() < fetch {
                found.kvs.push(put.with_key(row.key));
            }
        }
        Ok(Some(found))
    }

    /// One key as it was at an uncompacted revision.
    pub(crate) fn at(&self, key: &Bytes, revision: i64) -> Result<Option<KeyValue>, ReadError> {
        let Some(latest) = self.layers.get::<Keys>(key)? else {
            return Ok(None);
        };
        self.put_at(Some(latest.at), key, revision)
    }

    /// What `change`, of revision `main`, replaced: the key as it was before that revision, which is not compacted.
    pub(crate) fn before(&self, change: &Change, main: i64) -> Result<Option<KeyValue>, ReadError> {
        let from = change.links.towards((main - 1, u32::MAX));
        self.put_at(from, &change.key, main - 1)
    }

    fn put_at(&self, from: Option<Place>, key: &Bytes, revision: i64) -> Result<Option<KeyValue>, ReadError> {
        let change = self.last_change(from, (revision, u32::MAX), &mut 0)?;
        let put = change.and_then(|(_, change)| change.put);
        Ok(put.map(|put| put.with_key(key.clone())))
    }

    /// The latest change of a key that is there.
    pub(crate) fn latest(&self, key: &Bytes) -> Result<Option<Latest>, ReadError> {
        let latest = self.layers.get::<Keys>(key)?;
        Ok(latest.filter(|latest| !latest.is_tombstone()))
    }

    /// The version put at a place that a present key names.
    pub(crate) fn version(&self, at: Place) -> Result<Version, ReadError> {
        let change = self.layers.get::<Changes>(&at)?;
        let put = change.and_then(|change| change.put);
        Ok(put.unwrap_or_else(|| panic!("a key names the put {}/{}, but changes lack it", at.0, at.1)))
    }

    /// The last change not after `bound`, which is at an uncompacted revision, in the chain that goes back from `next`; `None` if there was
    /// none, or it was a deletion that compaction has removed. `visited` counts the changes looked at.
    pub(crate) fn last_change(
        &self,
        mut next: Option<Place>,
        bound: Place,
        visited: &mut usize,
    ) -> Result<Option<(Place, Change)>, ReadError> {
        while let Some(place) = next {
            *visited += 1;
            let Some(change) = self.layers.get::<Changes>(&place)? else {
                // All after the compacted revision are there, and those before that count are puts, or gone and do not count.
                assert!(
                    place.0 < self.compacted,
                    "a change names {}/{}, but changes lack it",
                    place.0,
                    place.1
                );
                return Ok(None);
            };
            if place <= bound {
                return Ok(Some((place, change)));
            }
            next = change.links.towards(bound);
        }
        Ok(None)
    }
}

fn has_filter(request: &RangeRequest) -> bool {
    request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0
}

fn passes(request: &RangeRequest, kv: &KeyValue) -> bool {
    let within = |n: i64, min: i64, max: i64| (min == 0 || n >= min) && (max == 0 || n <= max);
    within(
        kv.mod_revision,
        request.min_mod_revision,
        request.max_mod_revision,
    ) && within(
        kv.create_revision,
        request.min_create_revision,
        request.max_create_revision,
    )
}

/// Sorts keys that come in key order; equal ones keep it, in both directions.
fn sort(kvs: &mut [KeyValue], order: SortOrder, target: SortTarget) {
    kvs.sort_by(|a, b| {
        let ascending = match target {
            SortTarget::Key => a.key.cmp(&b.key),
            SortTarget::Version => a.version.cmp(&b.version),
            SortTarget::Create => a.create_revision.cmp(&b.create_revision),
            SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
            SortTarget::Value => a.value.cmp(&b.value),
        };
        match order {
            SortOrder::Descend => ascending.reverse(),
            SortOrder::None | SortOrder::Ascend => ascending,
        }
    });
}
