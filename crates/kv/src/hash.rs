//! Hashes of the logical state: equal on all nodes that applied the same entries, whatever was flushed, compacted
//! physically or restored when. They read everything, so they are for audits and tests.

use std::ops::Bound;

use crate::error::Error;
use crate::kv::HashKv;
use crate::meta::{Flushed, Format, Meta};
use crate::range::Reader;
use crate::row::{Attached, Changes, Keys, Leases, Row};
use crate::view::ReadError;
use crate::wire;

/// The hash of every version in force at some revision from the compacted one to `revision` (≤ 0: the latest).
pub(crate) fn hash_kv(reader: Reader<'_>, revision: i64) -> Result<HashKv, Error> {
    reader.check_revision(revision)?;
    let revision = if revision > 0 { revision } else { reader.latest };
    let compacted = reader.compacted;
    let mut hash = 0;
    let bounds = (Bound::Unbounded, Bound::Excluded((revision + 1, 0)));
    let (mut key, mut value) = (Vec::new(), Vec::new());
    for row in reader.layers.range::<Changes>(&bounds)? {
        let row = row?;
        let change = row.value()?;
        if row.key.0 < compacted {
            // Kept by compaction is only the last put of a key up to the compacted revision.
            let latest = reader.layers.get::<Keys>(&change.key)?;
            let latest = latest.map(|latest| latest.at);
            let last = reader.last_change(latest, (compacted, u32::MAX), &mut 0)?;
            let superseded = last.is_none_or(|(place, _)| place > row.key);
            if superseded || change.put.is_none() {
                continue;
            }
        }
        key.clear();
        value.clear();
        Changes::put_key(&row.key, &mut key);
        wire::put_event(&change.key, change.put.as_ref(), &mut value);
        hash = fold(hash, wire::EVENTS, &key, &value);
    }
    Ok(HashKv {
        hash,
        compact_revision: compacted,
        hash_revision: revision,
    })
}

/// The hash of the whole logical state: keys with history, leases, alarms, revisions, applied entry.
pub(crate) fn hash(reader: Reader<'_>, meta: &Meta) -> Result<u32, Error> {
    let state = Flushed {
        meta: meta.clone(),
        ..Flushed::default()
    };
    let mut hash = crc32c::crc32c(&state.encode(Format::First));
    hash = crc32c::crc32c_append(hash, &hash_kv(reader, 0)?.hash.to_be_bytes());
    hash = fold_current(reader, hash)?;
    hash = fold_table::<Leases>(reader, wire::LEASES, hash)?;
    Ok(fold_table::<Attached>(reader, wire::ATTACHED, hash)?)
}

fn fold_current(reader: Reader<'_>, mut hash: u32) -> Result<u32, ReadError> {
    let all = (Bound::Unbounded, Bound::Unbounded);
    let mut value = Vec::new();
    for row in reader.layers.range::<Keys>(&all)? {
        let row = row?;
        let latest = row.value()?;
        if !latest.is_tombstone() {
            value.clear();
            reader.version(latest.at)?.put_fields(&mut value);
            hash = fold(hash, wire::CURRENT, &row.key, &value);
        }
    }
    Ok(hash)
}

fn fold_table<R: Row>(reader: Reader<'_>, tag: u8, mut hash: u32) -> Result<u32, ReadError> {
    let all = (Bound::Unbounded, Bound::Unbounded);
    let (mut key, mut value) = (Vec::new(), Vec::new());
    for row in reader.layers.range::<R>(&all)? {
        let row = row?;
        key.clear();
        value.clear();
        R::put_key(&row.key, &mut key);
        R::put_value(&row.value()?, &mut value);
        hash = fold(hash, tag, &key, &value);
    }
    Ok(hash)
}

/// Adds a row: its table, and both parts with their lengths.
fn fold(hash: u32, tag: u8, key: &[u8], value: &[u8]) -> u32 {
    let (key_len, len) = (1 + key.len() as u64, 9 + (key.len() + value.len()) as u64);
    let parts: [&[u8]; 5] = [&[tag], key, value, &key_len.to_be_bytes(), &len.to_be_bytes()];
    parts.into_iter().fold(hash, crc32c::crc32c_append)
}
