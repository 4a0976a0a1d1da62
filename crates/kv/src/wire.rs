//! The rows of which snapshots and hashes are made, whatever the store keeps: those of the tables of the store's first format.
//! Members of all releases exchange them, so their bytes stay as they are.
//!
//! | tag | rows | key | value |
//! | --- | --- | --- | --- |
//! | 1 | current | key | the version in force: all of it, value included |
//! | 2 | events | revision, position in it | the key, and the version written; nothing for a deletion |
//! | 3 | history | key, revision, position | create revision and version (0 for a deletion) |
//! | 4 | leases | as in the [store](crate::row) | |
//! | 5 | attached | as in the store | |
//!
//! The first and the third say nothing that is not in the second: they are checked when they come and not kept.

use bytes::{BufMut, Bytes};

use crate::chain::Place;
use crate::codec::{DecodeError, Reader, put_bytes, put_int};
use crate::row::{Attached, Changes, Leases, Row, Version, put_ordered};

pub(crate) const CURRENT: u8 = 1;
pub(crate) const EVENTS: u8 = 2;
pub(crate) const HISTORY: u8 = 3;
pub(crate) const LEASES: u8 = 4;
pub(crate) const ATTACHED: u8 = 5;

/// The value of an `events` row.
pub(crate) fn put_event(key: &[u8], put: Option<&Version>, out: &mut Vec<u8>) {
    put_bytes(out, key);
    if let Some(version) = put {
        version.put_fields(out);
    }
}

/// An `events` row: where it stands, its key, and what was put.
pub(crate) fn get_event(key: &[u8], value: &[u8]) -> Result<(Place, Bytes, Option<Version>), DecodeError> {
    let place = Changes::get_key(key)?;
    let mut input = Reader(Bytes::copy_from_slice(value));
    let key = input.bytes("key")?;
    let put = match input.0.is_empty() {
        true => None,
        false => Some(Version::get_fields(input)?),
    };
    Ok((place, key, put))
}

/// The key of a `history` row. The changed key is escaped (0 becomes 0 255) and ended by 0 0, so that no key's rows fall between
/// those of another.
pub(crate) fn put_history_key(key: &[u8], (main, sub): Place, out: &mut Vec<u8>) {
    for byte in key {
        out.push(*byte);
        if *byte == 0 {
            out.push(255);
        }
    }
    out.extend_from_slice(&[0, 0]);
    put_ordered(main, out);
    out.put_u32(sub);
}

/// The value of a `history` row: create revision and version, both 0 for a deletion.
pub(crate) fn put_history((create, version): (i64, i64), out: &mut Vec<u8>) {
    put_int(out, create);
    put_int(out, version);
}

/// Refuses a row that would not decode.
pub(crate) fn check(tag: u8, key: &[u8], value: &[u8]) -> Result<(), DecodeError> {
    match tag {
        CURRENT => drop(Version::get_fields(Reader(Bytes::copy_from_slice(value)))?),
        EVENTS => drop(get_event(key, value)?),
        HISTORY => check_history(key, value)?,
        LEASES => {
            Leases::get_key(key)?;
            Leases::get_value(value)?;
        }
        _ => {
            Attached::get_key(key)?;
            Attached::get_value(value)?;
        }
    }
    Ok(())
}

fn check_history(key: &[u8], value: &[u8]) -> Result<(), DecodeError> {
    let mut at = 0;
    while let Some(zero) = key[at..].iter().position(|byte| *byte == 0) {
        let escape = *key.get(at + zero + 1).ok_or(DecodeError::Short("key"))?;
        at += zero + 2;
        if escape == 0 {
            Changes::get_key(&key[at..])?;
            let mut input = Reader(Bytes::copy_from_slice(value));
            input.int("create revision")?;
            input.int("version")?;
            return Ok(());
        }
    }
    Err(DecodeError::Short("key"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn history_rows_are_grouped_by_key_and_pass(a in proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(255)], 0..6), b in proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(255)], 0..6), m in any::<i64>(), n in any::<i64>(), s in 0u32..3) {
            let (mut left, mut right, mut value) = (Vec::new(), Vec::new(), Vec::new());
            put_history_key(&a, (m, s), &mut left);
            put_history_key(&b, (n, 1), &mut right);
            prop_assert_eq!(left.cmp(&right), (&a, m, s).cmp(&(&b, n, 1)));
            put_history((0, 0), &mut value);
            prop_assert_eq!(check(HISTORY, &left, &value), Ok(()));
            prop_assert!(check(HISTORY, &left[..left.len() - 1], &value).is_err());
        }

        #[test]
        fn garbage_rows_are_errors_not_panics(tag in CURRENT..=ATTACHED, key in proptest::collection::vec(any::<u8>(), 0..40), value in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = check(tag, &key, &value);
        }

        #[test]
        fn events_come_back(key in proptest::collection::vec(any::<u8>(), 1..6), value in proptest::collection::vec(any::<u8>(), 0..6), main in 1i64.., sub in any::<u32>(), put in any::<bool>()) {
            let version = Version { create: main, modified: main, version: 3, lease: 0, value: value.into() };
            let put = put.then_some(version);
            let (mut at, mut bytes) = (Vec::new(), Vec::new());
            Changes::put_key(&(main, sub), &mut at);
            put_event(&key, put.as_ref(), &mut bytes);
            prop_assert_eq!(get_event(&at, &bytes), Ok(((main, sub), key.into(), put)));
        }
    }
}
