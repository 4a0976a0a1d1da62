//! Hashes of the logical state: equal on all nodes that applied the same entries, whatever was flushed, compacted
//! physically or restored when. They read everything, so they are for audits and tests.

use std::ops::Bound;

use crate::error::Error;
use crate::kv::HashKv;
use crate::meta::{Flushed, Meta};
use crate::range::Reader;
use crate::row::{Attached, Current, Events, Leases, Pasts, Row};
use crate::view::ReadError;

/// The hash of every version in force at some revision from the compacted one to `revision` (≤ 0: the latest).
pub(crate) fn hash_kv(reader: Reader<'_>, revision: i64) -> Result<HashKv, Error> {
    reader.check_revision(revision)?;
    let revision = if revision > 0 { revision } else { reader.latest };
    let compacted = reader.compacted;
    let mut hash = 0;
    let bounds = (Bound::Unbounded, Bound::Excluded((revision + 1, 0)));
    for row in reader.layers.range::<Events>(&bounds)? {
        let row = row?;
        let (main, sub) = row.key;
        let change = row.value()?;
        if main < compacted {
            // Kept by compaction is only the last put of a key up to the compacted revision.
            let after = Bound::Excluded((change.key.clone(), main, sub));
            let last = Bound::Included((change.key.clone(), compacted, u32::MAX));
            let superseded = reader.layers.last::<Pasts>(&(after, last))?.is_some();
            if superseded || change.put.is_none() {
                continue;
            }
        }
        hash = fold::<Events>(hash, &row.key, &change);
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
    let mut hash = crc32c::crc32c(&state.encode());
    hash = crc32c::crc32c_append(hash, &hash_kv(reader, 0)?.hash.to_be_bytes());
    hash = fold_table::<Current>(reader, hash)?;
    hash = fold_table::<Leases>(reader, hash)?;
    Ok(fold_table::<Attached>(reader, hash)?)
}

fn fold_table<R: Row>(reader: Reader<'_>, mut hash: u32) -> Result<u32, ReadError> {
    let all = (Bound::Unbounded, Bound::Unbounded);
    for row in reader.layers.range::<R>(&all)? {
        let row = row?;
        hash = fold::<R>(hash, &row.key, &row.value()?);
    }
    Ok(hash)
}

/// Adds a row: its table, and both parts with their lengths.
fn fold<R: Row>(hash: u32, key: &R::Key, value: &R::Value) -> u32 {
    let mut bytes = vec![R::TAG];
    R::put_key(key, &mut bytes);
    let key_len = bytes.len() as u64;
    R::put_value(value, &mut bytes);
    bytes.extend_from_slice(&key_len.to_be_bytes());
    bytes.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
    crc32c::crc32c_append(hash, &bytes)
}
