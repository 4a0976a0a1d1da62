//! The rows of the store: five tables, their keys and values, and the bytes of both on disk. Encoded keys sort like
//! the keys themselves (checked by the tests); encoded values are varints and byte strings as in [`codec`](crate::codec).
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `current` | key | the version in force: all of it, value included |
//! | `events` | revision, position in it | the key, and the version written; nothing for a deletion |
//! | `history` | key, revision, position | create revision and version (0 for a deletion): enough to find the event to read |
//! | `leases` | lease id | TTL, and the index of the grant if that is known: not of leases granted before feature level 2 |
//! | `attached` | lease id, key | nothing |
//!
//! Values so stand twice on disk, in `current` and `events`: reads of the present and of history are each one ordered scan.

use std::collections::BTreeMap;
use std::fmt::Debug;

use bytes::{BufMut, Bytes};
use quorate_base::Index;
use redb::TableDefinition;

use crate::codec::{DecodeError, Reader, put_bytes, put_int, put_varint};
use crate::table::Table;
use crate::types::KeyValue;

/// Part of a memory table: `None` marks a row deleted that may stand further down.
pub(crate) type Layer<R> = BTreeMap<<R as Row>::Key, Option<<R as Row>::Value>>;

/// How a redb table is declared here: both sides are our own bytes.
pub(crate) type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// One of the tables.
pub(crate) trait Row: 'static {
    /// The key, in memory.
    type Key: Ord + Clone + Debug;
    /// The value, in memory.
    type Value: Clone + Debug;
    /// Its redb table.
    const TABLE: Definition;
    /// Its number in snapshots.
    const TAG: u8;

    /// Appends the key's bytes, which sort like the keys.
    fn put_key(key: &Self::Key, out: &mut Vec<u8>);
    /// Reads all of a key's bytes.
    fn get_key(bytes: &[u8]) -> Result<Self::Key, DecodeError>;
    /// Appends the value's bytes.
    fn put_value(value: &Self::Value, out: &mut Vec<u8>);
    /// Reads all of a value's bytes.
    fn get_value(bytes: &[u8]) -> Result<Self::Value, DecodeError>;
    /// Bytes beyond a fixed allowance that a row takes in memory.
    fn weight(key: &Self::Key, value: Option<&Self::Value>) -> usize;

    /// Its part of a memory table.
    fn layer(table: &Table) -> &Layer<Self>
    where
        Self: Sized;
    /// The same, to write.
    fn layer_mut(table: &mut Table) -> &mut Layer<Self>
    where
        Self: Sized;
}

/// The version of a key in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub create: i64,
    pub modified: i64,
    pub version: i64,
    pub lease: i64,
    pub value: Bytes,
}

impl Version {
    /// The same with its key, for an answer.
    pub(crate) fn with_key(self, key: Bytes) -> KeyValue {
        KeyValue {
            key,
            create_revision: self.create,
            mod_revision: self.modified,
            version: self.version,
            value: self.value,
            lease: self.lease,
        }
    }
}

/// Table `current`.
pub(crate) enum Current {}

impl Row for Current {
    type Key = Bytes;
    type Value = Version;
    const TABLE: Definition = TableDefinition::new("current");
    const TAG: u8 = 1;

    fn put_key(key: &Bytes, out: &mut Vec<u8>) {
        out.extend_from_slice(key);
    }

    fn get_key(bytes: &[u8]) -> Result<Bytes, DecodeError> {
        Ok(Bytes::copy_from_slice(bytes))
    }

    fn put_value(value: &Version, out: &mut Vec<u8>) {
        put_int(out, value.create);
        put_int(out, value.modified);
        put_int(out, value.version);
        put_int(out, value.lease);
        out.extend_from_slice(&value.value);
    }

    fn get_value(bytes: &[u8]) -> Result<Version, DecodeError> {
        let mut input = Reader(Bytes::copy_from_slice(bytes));
        Ok(Version {
            create: input.int("create revision")?,
            modified: input.int("mod revision")?,
            version: input.int("version")?,
            lease: input.int("lease")?,
            value: input.0,
        })
    }

    fn weight(key: &Bytes, value: Option<&Version>) -> usize {
        key.len() + value.map_or(0, |version| version.value.len())
    }

    fn layer(table: &Table) -> &Layer<Self> {
        &table.current
    }

    fn layer_mut(table: &mut Table) -> &mut Layer<Self> {
        &mut table.current
    }
}

/// A change as recorded: `put` is `None` for a deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub key: Bytes,
    pub put: Option<Version>,
}

/// Table `events`: what happened, in order.
pub(crate) enum Events {}

impl Row for Events {
    type Key = (i64, u32);
    type Value = Change;
    const TABLE: Definition = TableDefinition::new("events");
    const TAG: u8 = 2;

    fn put_key((main, sub): &(i64, u32), out: &mut Vec<u8>) {
        put_ordered(*main, out);
        out.put_u32(*sub);
    }

    fn get_key(bytes: &[u8]) -> Result<(i64, u32), DecodeError> {
        let (main, rest) = get_ordered(bytes)?;
        Ok((main, get_sub(rest)?))
    }

    fn put_value(change: &Change, out: &mut Vec<u8>) {
        put_bytes(out, &change.key);
        if let Some(version) = &change.put {
            Current::put_value(version, out);
        }
    }

    fn get_value(bytes: &[u8]) -> Result<Change, DecodeError> {
        let mut input = Reader(Bytes::copy_from_slice(bytes));
        let key = input.bytes("key")?;
        let put = match input.0.is_empty() {
            true => None,
            false => Some(Version {
                create: input.int("create revision")?,
                modified: input.int("mod revision")?,
                version: input.int("version")?,
                lease: input.int("lease")?,
                value: input.0,
            }),
        };
        Ok(Change { key, put })
    }

    fn weight(_: &(i64, u32), _: Option<&Change>) -> usize {
        // Shares its key and value with the row of `current`, or outlives it and then is what counts; see `Table::put`.
        0
    }

    fn layer(table: &Table) -> &Layer<Self> {
        &table.events
    }

    fn layer_mut(table: &mut Table) -> &mut Layer<Self> {
        &mut table.events
    }
}

/// What `history` says of one change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Past {
    pub create: i64,
    /// 0 for a deletion.
    pub version: i64,
}

impl Past {
    /// Whether the key was gone after it.
    pub(crate) fn is_tombstone(self) -> bool {
        self.version == 0
    }
}

/// Table `history`: where the changes of each key stand in `events`.
pub(crate) enum Pasts {}

impl Row for Pasts {
    type Key = (Bytes, i64, u32);
    type Value = Past;
    const TABLE: Definition = TableDefinition::new("history");
    const TAG: u8 = 3;

    /// The key is escaped (0 becomes 0 255) and ended by 0 0, so that no key's rows fall between those of another.
    fn put_key((key, main, sub): &(Bytes, i64, u32), out: &mut Vec<u8>) {
        for byte in key {
            out.push(*byte);
            if *byte == 0 {
                out.push(255);
            }
        }
        out.extend_from_slice(&[0, 0]);
        put_ordered(*main, out);
        out.put_u32(*sub);
    }

    fn get_key(bytes: &[u8]) -> Result<(Bytes, i64, u32), DecodeError> {
        let mut key = Vec::with_capacity(bytes.len());
        let mut at = 0;
        loop {
            let byte = *bytes.get(at).ok_or(DecodeError::Short("key"))?;
            at += 1;
            if byte == 0 {
                let escape = *bytes.get(at).ok_or(DecodeError::Short("key"))?;
                at += 1;
                if escape == 0 {
                    break;
                }
            }
            key.push(byte);
        }
        let (main, rest) = get_ordered(&bytes[at..])?;
        Ok((Bytes::from(key), main, get_sub(rest)?))
    }

    fn put_value(past: &Past, out: &mut Vec<u8>) {
        put_int(out, past.create);
        put_int(out, past.version);
    }

    fn get_value(bytes: &[u8]) -> Result<Past, DecodeError> {
        let mut input = Reader(Bytes::copy_from_slice(bytes));
        Ok(Past {
            create: input.int("create revision")?,
            version: input.int("version")?,
        })
    }

    fn weight(_: &(Bytes, i64, u32), _: Option<&Past>) -> usize {
        0
    }

    fn layer(table: &Table) -> &Layer<Self> {
        &table.history
    }

    fn layer_mut(table: &mut Table) -> &mut Layer<Self> {
        &mut table.history
    }
}

/// What a grant left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Granted {
    pub ttl: i64,
    /// The index of the entry; zero if the grant was not [named](crate::level).
    pub grant: Index,
}

/// Table `leases`.
pub(crate) enum Leases {}

impl Row for Leases {
    type Key = i64;
    type Value = Granted;
    const TABLE: Definition = TableDefinition::new("leases");
    const TAG: u8 = 4;

    fn put_key(id: &i64, out: &mut Vec<u8>) {
        put_ordered(*id, out);
    }

    fn get_key(bytes: &[u8]) -> Result<i64, DecodeError> {
        Ok(get_ordered(bytes)?.0)
    }

    /// Without a name as earlier releases wrote it, so that stores, snapshots and hashes of mixed releases agree.
    fn put_value(granted: &Granted, out: &mut Vec<u8>) {
        put_int(out, granted.ttl);
        if granted.grant > Index::ZERO {
            put_varint(out, granted.grant.get());
        }
    }

    fn get_value(bytes: &[u8]) -> Result<Granted, DecodeError> {
        let mut input = Reader(Bytes::copy_from_slice(bytes));
        let ttl = input.int("TTL")?;
        let grant = match input.0.is_empty() {
            true => Index::ZERO,
            false => Index(input.varint("grant")?),
        };
        match input.0.len() {
            0 => Ok(Granted { ttl, grant }),
            more => Err(DecodeError::Trailing(more)),
        }
    }

    fn weight(_: &i64, _: Option<&Granted>) -> usize {
        0
    }

    fn layer(table: &Table) -> &Layer<Self> {
        &table.leases
    }

    fn layer_mut(table: &mut Table) -> &mut Layer<Self> {
        &mut table.leases
    }
}

/// Table `attached`: the keys of each lease.
pub(crate) enum Attached {}

impl Row for Attached {
    type Key = (i64, Bytes);
    type Value = ();
    const TABLE: Definition = TableDefinition::new("attached");
    const TAG: u8 = 5;

    fn put_key((id, key): &(i64, Bytes), out: &mut Vec<u8>) {
        put_ordered(*id, out);
        out.extend_from_slice(key);
    }

    fn get_key(bytes: &[u8]) -> Result<(i64, Bytes), DecodeError> {
        let (id, rest) = get_ordered(bytes)?;
        Ok((id, Bytes::copy_from_slice(rest)))
    }

    fn put_value((): &(), _: &mut Vec<u8>) {}

    fn get_value(_: &[u8]) -> Result<(), DecodeError> {
        Ok(())
    }

    fn weight(key: &(i64, Bytes), _: Option<&()>) -> usize {
        key.1.len()
    }

    fn layer(table: &Table) -> &Layer<Self> {
        &table.attached
    }

    fn layer_mut(table: &mut Table) -> &mut Layer<Self> {
        &mut table.attached
    }
}

/// A signed number whose bytes sort like it: big-endian with the sign flipped.
fn put_ordered(n: i64, out: &mut Vec<u8>) {
    out.put_u64(n as u64 ^ 1 << 63);
}

fn get_ordered(bytes: &[u8]) -> Result<(i64, &[u8]), DecodeError> {
    let (number, rest) = bytes
        .split_first_chunk::<8>()
        .ok_or(DecodeError::Short("number"))?;
    Ok(((u64::from_be_bytes(*number) ^ 1 << 63) as i64, rest))
}

fn get_sub(bytes: &[u8]) -> Result<u32, DecodeError> {
    let bytes = <[u8; 4]>::try_from(bytes).map_err(|_| DecodeError::Short("position"))?;
    Ok(u32::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded<R: Row>(key: &R::Key) -> Vec<u8> {
        let mut out = Vec::new();
        R::put_key(key, &mut out);
        out
    }

    /// Encodes both, checks that the order is kept and that both come back.
    fn order_kept<R: Row>(a: &R::Key, b: &R::Key) {
        let (left, right) = (encoded::<R>(a), encoded::<R>(b));
        assert_eq!(left.cmp(&right), a.cmp(b), "{a:?} against {b:?}");
        assert_eq!(R::get_key(&left).as_ref(), Ok(a));
    }

    fn key() -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(
            prop_oneof![Just(0u8), Just(1), Just(254), Just(255), any::<u8>()],
            0..6,
        )
        .prop_map(Bytes::from)
    }

    proptest! {
        #[test]
        fn encoded_keys_sort_like_keys(a in key(), b in key(), m in any::<i64>(), n in any::<i64>(), s in 0u32..3, t in 0u32..3) {
            order_kept::<Current>(&a, &b);
            order_kept::<Events>(&(m, s), &(n, t));
            order_kept::<Pasts>(&(a.clone(), m, s), &(b.clone(), n, t));
            order_kept::<Pasts>(&(a.clone(), m, s), &(a.clone(), m, t));
            order_kept::<Leases>(&m, &n);
            order_kept::<Attached>(&(m, a.clone()), &(n, b.clone()));
            order_kept::<Attached>(&(m, a), &(m, b));
        }

        #[test]
        fn values_come_back(key in key(), value in key(), create in any::<i64>(), version in 1i64.., lease in any::<i64>(), put in any::<bool>()) {
            let row = Version { create, modified: version, version, lease, value };
            let mut out = Vec::new();
            Current::put_value(&row, &mut out);
            prop_assert_eq!(&Current::get_value(&out).unwrap(), &row);
            let change = Change { key, put: put.then_some(row) };
            let mut out = Vec::new();
            Events::put_value(&change, &mut out);
            prop_assert_eq!(Events::get_value(&out).unwrap(), change);
        }

        #[test]
        fn grants_come_back_with_and_without_a_name(ttl in any::<i64>(), index in prop_oneof![Just(0), any::<u64>()]) {
            let row = Granted { ttl, grant: Index(index) };
            let mut out = Vec::new();
            Leases::put_value(&row, &mut out);
            prop_assert_eq!(Leases::get_value(&out).unwrap(), row);
            out.push(0);
            prop_assert!(index == 0 || Leases::get_value(&out).is_err(), "more than a grant");
        }

        #[test]
        fn garbage_rows_are_errors_not_panics(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = (Current::get_value(&bytes), Events::get_key(&bytes), Events::get_value(&bytes));
            let _ = (Pasts::get_key(&bytes), Pasts::get_value(&bytes), Leases::get_key(&bytes), Leases::get_value(&bytes), Attached::get_key(&bytes));
        }
    }
}
