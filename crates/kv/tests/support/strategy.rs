//! Random requests over few keys, leases and revisions, so that they meet.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use quorate_base::{Index, Term};
use quorate_kv::*;

pub fn key() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        20 => (0u8..6).prop_map(|n| Bytes::from(vec![b'a' + n])),
        4 => (0u8..3).prop_map(|n| Bytes::from(vec![b'a', n])),
        1 => Just(Bytes::from_static(b"\0")),
    ]
}

fn range_end() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        5 => Just(Bytes::new()),
        2 => Just(Bytes::from_static(b"\0")),
        5 => key(),
    ]
}

fn value() -> impl Strategy<Value = Bytes> {
    vec(0u8..3, 0..4).prop_map(Bytes::from)
}

fn lease() -> impl Strategy<Value = i64> {
    prop_oneof![4 => Just(0i64), 2 => 1i64..4]
}

pub fn revision() -> impl Strategy<Value = i64> {
    prop_oneof![3 => Just(0i64), 1 => Just(-1i64), 6 => 1i64..60]
}

pub fn put() -> impl Strategy<Value = PutRequest> {
    (key(), value(), lease(), any::<bool>(), 0u8..12).prop_map(|(key, value, lease, prev_kv, ignore)| {
        PutRequest {
            key,
            value: if ignore == 0 { Bytes::new() } else { value },
            lease: if ignore == 1 { 0 } else { lease },
            prev_kv,
            ignore_value: ignore == 0,
            ignore_lease: ignore == 1,
        }
    })
}

fn delete() -> impl Strategy<Value = DeleteRangeRequest> {
    (key(), range_end(), any::<bool>()).prop_map(|(key, range_end, prev_kv)| DeleteRangeRequest {
        key,
        range_end,
        prev_kv,
    })
}

pub fn range() -> impl Strategy<Value = RangeRequest> {
    let sort = (0i32..3, 0i32..5);
    let bound = || prop_oneof![6 => Just(0i64), 1 => 1i64..40];
    let bounds = (bound(), bound(), bound(), bound());
    (
        key(),
        range_end(),
        -1i64..5,
        revision(),
        sort,
        any::<bool>(),
        0u8..5,
        bounds,
    )
        .prop_map(
            |(key, range_end, limit, revision, (order, target), keys_only, count, bounds)| RangeRequest {
                key,
                range_end,
                limit,
                revision,
                sort_order: SortOrder::from_wire(order).unwrap(),
                sort_target: SortTarget::from_wire(target).unwrap(),
                keys_only,
                count_only: count == 0,
                min_mod_revision: bounds.0,
                max_mod_revision: bounds.1,
                min_create_revision: bounds.2,
                max_create_revision: bounds.3,
            },
        )
}

fn compare() -> impl Strategy<Value = Compare> {
    let op = prop_oneof![
        Just(CompareOp::Equal),
        Just(CompareOp::Greater),
        Just(CompareOp::Less),
        Just(CompareOp::NotEqual)
    ];
    let target = prop_oneof![
        (0i64..4).prop_map(CompareTarget::Version),
        (0i64..40).prop_map(CompareTarget::Create),
        (0i64..40).prop_map(CompareTarget::Mod),
        value().prop_map(CompareTarget::Value),
        (0i64..4).prop_map(CompareTarget::Lease),
    ];
    (key(), range_end(), op, target).prop_map(|(key, range_end, op, target)| Compare {
        key,
        range_end,
        op,
        target,
    })
}

pub fn txn() -> impl Strategy<Value = TxnRequest> {
    let leaf = prop_oneof![
        4 => put().prop_map(RequestOp::Put),
        2 => delete().prop_map(RequestOp::DeleteRange),
        3 => range().prop_map(RequestOp::Range),
    ];
    let op = leaf.prop_recursive(2, 12, 3, |inner| {
        (vec(compare(), 0..2), vec(inner.clone(), 0..3), vec(inner, 0..3)).prop_map(
            |(compare, success, failure)| {
                RequestOp::Txn(Box::new(TxnRequest {
                    compare,
                    success,
                    failure,
                }))
            },
        )
    });
    (vec(compare(), 0..3), vec(op.clone(), 0..4), vec(op, 0..4)).prop_map(|(compare, success, failure)| {
        TxnRequest {
            compare,
            success,
            failure,
        }
    })
}

pub fn command() -> impl Strategy<Value = Command> {
    let grant = prop_oneof![Just(None), (0u64..60).prop_map(|index| Some(Index(index)))];
    let expiry = prop_oneof![
        1 => Just(None),
        2 => (1u64..3, grant).prop_map(|(term, grant)| Some(Expiry { term: Term(term), grant })),
    ];
    let kind = prop_oneof![
        Just(None),
        Just(Some(AlarmKind::NoSpace)),
        Just(Some(AlarmKind::Corrupt))
    ];
    let alarm = (0u8..4, 0u64..3, kind).prop_map(|(action, member, kind)| Command::Alarm {
        action: match action {
            0 => AlarmAction::Get,
            1 => AlarmAction::Activate,
            _ => AlarmAction::Deactivate,
        },
        member,
        kind,
    });
    // An alarm blocks most of the rest, so it is rare and soon cleared.
    let clear = (0u8..2).prop_map(|n| Command::Alarm {
        action: AlarmAction::Deactivate,
        member: 0,
        kind: Some(if n == 0 {
            AlarmKind::NoSpace
        } else {
            AlarmKind::Corrupt
        }),
    });
    prop_oneof![
        20 => put().prop_map(Command::Put),
        6 => delete().prop_map(Command::DeleteRange),
        12 => txn().prop_map(Command::Txn),
        2 => (0i64..50, any::<bool>()).prop_map(|(revision, physical)| Command::Compact { revision, physical }),
        4 => (0i64..4, prop_oneof![9 => 1i64..100, 1 => Just(lease::MAX_TTL + 1)])
            .prop_flat_map(|(id, ttl)| any::<bool>().prop_map(move |named| Command::LeaseGrant { id, ttl, named })),
        2 => (1i64..4, expiry).prop_map(|(id, expiry)| Command::LeaseRevoke { id, expiry }),
        1 => alarm,
        4 => clear,
    ]
}
