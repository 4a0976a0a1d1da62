//! Reading: single keys and ranges, now and in the past, with all of etcd's options.

use std::ops::Bound;

use bytes::Bytes;

use crate::error::Error;
use crate::interval;
use crate::row::{Current, Events, Past, Pasts, Version};
use crate::types::{KeyValue, RangeRequest, RangeResponse, SortOrder, SortTarget};
use crate::view::{Bounds, Layers, ReadError};

/// The state to read: the layers, and what their revisions are. Inside a transaction `latest` counts its own writes.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    pub(crate) layers: Layers<'a>,
    pub(crate) latest: i64,
    pub(crate) compacted: i64,
}

/// Keys found so far, and how many there are.
#[derive(Default)]
struct Found {
    kvs: Vec<KeyValue>,
    count: i64,
}

/// Bounds of the table `current`.
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
        if range_end.is_empty() {
            let version = self.layers.get::<Current>(key)?;
            return Ok(Some(Found {
                count: i64::from(version.is_some()),
                kvs: version
                    .into_iter()
                    .take(fetch)
                    .map(|version| version.with_key(key.clone()))
                    .collect(),
            }));
        }
        let mut found = Found::default();
        for (visited, row) in self
            .layers
            .range::<Current>(&key_bounds(key, range_end))?
            .enumerate()
        {
            if visited == budget {
                return Ok(None);
            }
            let row = row?;
            found.count += 1;
            if found.kvs.len() < fetch {
                found.kvs.push(row.value()?.with_key(row.key));
            }
        }
        Ok(Some(found))
    }

    /// Walks through the history of the keys in order, and keeps of each the last change up to the revision.
    fn find_past(
        &self,
        key: &Bytes,
        range_end: &Bytes,
        revision: i64,
        fetch: usize,
        budget: usize,
    ) -> Result<Option<Found>, ReadError> {
        let at_start = |key| (key, i64::MIN, 0);
        let (start, end) = key_bounds(key, range_end);
        let mut found = Found::default();
        let mut candidate: Option<((Bytes, i64, u32), Past)> = None;
        for (visited, row) in self
            .layers
            .range::<Pasts>(&(start.map(at_start), end.map(at_start)))?
            .enumerate()
        {
            if visited == budget {
                return Ok(None);
            }
            let row = row?;
            if candidate.as_ref().is_some_and(|((key, ..), _)| *key != row.key.0) {
                self.keep(&mut found, candidate.take(), fetch)?;
            }
            if row.key.1 <= revision {
                let past = row.value()?;
                candidate = Some((row.key, past));
            }
        }
        self.keep(&mut found, candidate, fetch)?;
        Ok(Some(found))
    }

    fn keep(
        &self,
        found: &mut Found,
        candidate: Option<((Bytes, i64, u32), Past)>,
        fetch: usize,
    ) -> Result<(), ReadError> {
        let Some(((key, main, sub), past)) = candidate else {
            return Ok(());
        };
        if past.is_tombstone() {
            return Ok(());
        }
        found.count += 1;
        if found.kvs.len() < fetch {
            found.kvs.push(self.event(main, sub)?.with_key(key));
        }
        Ok(())
    }

    /// One key as it was at an uncompacted revision.
    pub(crate) fn at(&self, key: &Bytes, revision: i64) -> Result<Option<KeyValue>, ReadError> {
        let from = Bound::Included((key.clone(), i64::MIN, 0));
        let to = Bound::Included((key.clone(), revision, u32::MAX));
        match self.layers.last::<Pasts>(&(from, to))? {
            Some(((_, main, sub), past)) if !past.is_tombstone() => {
                Ok(Some(self.event(main, sub)?.with_key(key.clone())))
            }
            _ => Ok(None),
        }
    }

    fn event(&self, main: i64, sub: u32) -> Result<Version, ReadError> {
        let change = self.layers.get::<Events>(&(main, sub))?;
        let put = change.and_then(|change| change.put);
        Ok(put.unwrap_or_else(|| panic!("history names the put {main}/{sub}, but events lack it")))
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
