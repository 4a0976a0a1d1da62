//! The rows of the store: four tables, their keys and values, and the bytes of both on disk. Encoded keys sort like
//! the keys themselves (checked by the tests); encoded values are varints and byte strings as in [`codec`](crate::codec).
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `keys` | key | where its latest change stands, what versions and revisions count from, the end of its [chain](crate::chain) |
//! | `changes` | revision, position in it | the key, [links](crate::chain) to the changes of it before, and the version written; nothing for a deletion |
//! | `leases` | lease id | TTL, and the index of the grant if that is known: not of leases granted before feature level 2 |
//! | `attached` | lease id, key | nothing |
//!
//! A put so writes its value once, at the end of `changes`, and one small row somewhere in `keys`. The row of a deleted key stays until
//! compaction takes the deletion. What snapshots and hashes are made of stands in [`wire`](crate::wire).

use std::collections::BTreeMap;
use std::fmt::Debug;

use bytes::{BufMut, Bytes};
use quorate_base::Index;
use redb::TableDefinition;

use crate::chain::{Chain, Links, Place, get_place, put_place};
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
    /// Its place among the tables.
    const SLOT: usize;

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

    /// Appends its bytes, the value last and without a length.
    pub(crate) fn put_fields(&self, out: &mut Vec<u8>) {
        put_int(out, self.create);
        put_int(out, self.modified);
        put_int(out, self.version);
        put_int(out, self.lease);
        out.extend_from_slice(&self.value);
    }

    /// Reads all that is left.
    pub(crate) fn get_fields(mut input: Reader) -> Result<Version, DecodeError> {
        Ok(Version {
            create: input.int("create revision")?,
            modified: input.int("mod revision")?,
            version: input.int("version")?,
            lease: input.int("lease")?,
            value: input.0,
        })
    }
}

/// What stands in the table `keys`: the latest change of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Latest {
    /// Where it stands.
    pub at: Place,
    pub create: i64,
    /// 0 if it deleted the key.
    pub version: i64,
    pub lease: i64,
    pub chain: Chain,
}

impl Latest {
    /// Whether the key is gone.
    pub(crate) fn is_tombstone(&self) -> bool {
        self.version == 0
    }

    /// What follows a change at `at`, to be seen from the next one on.
    pub(crate) fn of(at: Place, put: Option<&Version>, chain: Chain) -> Latest {
        Latest {
            at,
            create: put.map_or(0, |version| version.create),
            version: put.map_or(0, |version| version.version),
            lease: put.map_or(0, |version| version.lease),
            chain,
        }
    }

    /// Links a change at `place` to this one, which may not be; the chain then, and the links.
    pub(crate) fn follow(latest: Option<Latest>, place: Place) -> (Chain, Links) {
        let before = latest.as_ref().map(|latest| latest.at);
        let mut chain = latest.map(|latest| latest.chain).unwrap_or_default();
        let links = chain.add(before, place);
        (chain, links)
    }
}

/// Table `keys`.
pub(crate) enum Keys {}

impl Row for Keys {
    type Key = Bytes;
    type Value = Latest;
    const TABLE: Definition = TableDefinition::new("keys");
    const SLOT: usize = 0;

    fn put_key(key: &Bytes, out: &mut Vec<u8>) {
        out.extend_from_slice(key);
    }

    fn get_key(bytes: &[u8]) -> Result<Bytes, DecodeError> {
        Ok(Bytes::copy_from_slice(bytes))
    }

    fn put_value(latest: &Latest, out: &mut Vec<u8>) {
        put_place(out, latest.at);
        put_int(out, latest.version);
        if !latest.is_tombstone() {
            put_int(out, latest.create);
            put_int(out, latest.lease);
        }
        latest.chain.put(out);
    }

    fn get_value(bytes: &[u8]) -> Result<Latest, DecodeError> {
        let mut input = Reader(Bytes::copy_from_slice(bytes));
        let at = get_place(&mut input)?.ok_or(DecodeError::Short("latest change"))?;
        let version = input.int("version")?;
        let (create, lease) = match version {
            0 => (0, 0),
            _ => (input.int("create revision")?, input.int("lease")?),
        };
        let chain = Chain::get(&mut input)?;
        input.end()?;
        Ok(Latest {
            at,
            create,
            version,
            lease,
            chain,
        })
    }

    fn weight(key: &Bytes, latest: Option<&Latest>) -> usize {
        key.len() + latest.map_or(0, |latest| latest.chain.weight())
    }

    fn layer(table: &Table) -> &Layer<Self> {
        &table.keys
    }

    fn layer_mut(table: &mut Table) -> &mut Layer<Self> {
        &mut table.keys
    }
}

/// A change as recorded: `put` is `None` for a deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub key: Bytes,
    pub put: Option<Version>,
    pub links: Links,
}

/// Table `changes`: what happened, in order.
pub(crate) enum Changes {}

impl Row for Changes {
    type Key = Place;
    type Value = Change;
    const TABLE: Definition = TableDefinition::new("changes");
    const SLOT: usize = 1;

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
        change.links.put(out);
        if let Some(version) = &change.put {
            version.put_fields(out);
        }
    }

    fn get_value(bytes: &[u8]) -> Result<Change, DecodeError> {
        let mut input = Reader(Bytes::copy_from_slice(bytes));
        let key = input.bytes("key")?;
        let links = Links::get(&mut input)?;
        let put = match input.0.is_empty() {
            true => None,
            false => Some(Version::get_fields(input)?),
        };
        Ok(Change { key, put, links })
    }

    fn weight(_: &Place, change: Option<&Change>) -> usize {
        // The key is that of the row of `keys`, which is written with it.
        change.map_or(0, |change| {
            let value = change.put.as_ref().map_or(0, |version| version.value.len());
            value + change.links.weight()
        })
    }

    fn layer(table: &Table) -> &Layer<Self> {
        &table.changes
    }

    fn layer_mut(table: &mut Table) -> &mut Layer<Self> {
        &mut table.changes
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
    const SLOT: usize = 2;

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
        input.end()?;
        Ok(Granted { ttl, grant })
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
    const SLOT: usize = 3;

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
pub(crate) fn put_ordered(n: i64, out: &mut Vec<u8>) {
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
            order_kept::<Keys>(&a, &b);
            order_kept::<Changes>(&(m, s), &(n, t));
            order_kept::<Leases>(&m, &n);
            order_kept::<Attached>(&(m, a.clone()), &(n, b.clone()));
            order_kept::<Attached>(&(m, a), &(m, b));
        }

        #[test]
        fn values_come_back(key in key(), value in key(), create in any::<i64>(), version in 1i64.., lease in any::<i64>(), put in any::<bool>()) {
            let row = Version { create, modified: version, version, lease, value };
            let put = put.then_some(row);
            let before = Latest::of((7, 2), None, Chain::default());
            let (chain, links) = Latest::follow(Some(before), (9, 1));
            let latest = Latest::of((9, 1), put.as_ref(), chain);
            let mut out = Vec::new();
            Keys::put_value(&latest, &mut out);
            prop_assert_eq!(&Keys::get_value(&out).unwrap(), &latest);
            let change = Change { key, put, links };
            let mut out = Vec::new();
            Changes::put_value(&change, &mut out);
            prop_assert_eq!(Changes::get_value(&out).unwrap(), change);
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
            let _ = (Keys::get_value(&bytes), Changes::get_key(&bytes), Changes::get_value(&bytes));
            let _ = (Leases::get_key(&bytes), Leases::get_value(&bytes), Attached::get_key(&bytes));
        }
    }
}
