//! etcd's rules as tables: what is refused with which text and code, what transactions see of themselves, how leases and alarms
//! behave. The model tests cover the rest at random; here each rule has its line.

mod support;

use std::sync::Arc;

use bytes::Bytes;
use quorate_base::{Index, LogId, StateMachine, Term};
use quorate_kv::*;
use support::disk::MemDisk;

struct Store {
    kv: Kv,
    term: u64,
}

impl Store {
    fn new() -> Store {
        let kv = Kv::open(Arc::new(MemDisk::default()), Options::default()).unwrap();
        Store { kv, term: 1 }
    }

    fn apply(&mut self, command: Command) -> Result<Applied, Error> {
        let at = LogId::new(self.term, self.kv.applied().index.get() + 1);
        self.kv.apply(at, &command.encode())
    }

    fn get(&self, name: &str) -> Option<KeyValue> {
        let request = RangeRequest {
            key: key(name),
            ..RangeRequest::default()
        };
        self.kv.range(&request).unwrap().kvs.pop()
    }
}

fn key(name: &str) -> Bytes {
    Bytes::copy_from_slice(name.as_bytes())
}

fn put(name: &str) -> PutRequest {
    PutRequest {
        key: key(name),
        value: key("v"),
        ..PutRequest::default()
    }
}

fn leased(name: &str, lease: i64) -> Command {
    Command::Put(PutRequest { lease, ..put(name) })
}

fn delete(from: &str, to: &str) -> DeleteRangeRequest {
    DeleteRangeRequest {
        key: key(from),
        range_end: key(to),
        prev_kv: false,
    }
}

fn grant(id: i64, ttl: i64) -> Command {
    let named = false;
    Command::LeaseGrant { id, ttl, named }
}

fn revoke(id: i64) -> Command {
    Command::LeaseRevoke { id, expiry: None }
}

fn expiry(id: i64, term: u64, grant: Option<Index>) -> Command {
    let term = Term(term);
    Command::LeaseRevoke {
        id,
        expiry: Some(Expiry { term, grant }),
    }
}

fn op_put(name: &str) -> RequestOp {
    RequestOp::Put(put(name))
}

fn op_delete(from: &str, to: &str) -> RequestOp {
    RequestOp::DeleteRange(delete(from, to))
}

fn op_txn(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
    RequestOp::Txn(Box::new(TxnRequest {
        compare: Vec::new(),
        success,
        failure,
    }))
}

fn txn(success: Vec<RequestOp>) -> TxnRequest {
    TxnRequest {
        success,
        ..TxnRequest::default()
    }
}

#[test]
fn requests_refused_without_looking() {
    let many = |n: usize| txn((0..n).map(|n| op_put(&format!("k{n}"))).collect());
    let table = [
        (put("").check(), Err(Error::EmptyKey)),
        (delete("", "").check(), Err(Error::EmptyKey)),
        (RangeRequest::default().check(), Err(Error::EmptyKey)),
        (
            PutRequest {
                ignore_value: true,
                ..put("a")
            }
            .check(),
            Err(Error::ValueProvided),
        ),
        (
            PutRequest {
                ignore_lease: true,
                lease: 3,
                ..put("a")
            }
            .check(),
            Err(Error::LeaseProvided),
        ),
        (txn(vec![RequestOp::Empty]).check(), Err(Error::KeyNotFound)),
        (txn(vec![op_put("")]).check(), Err(Error::EmptyKey)),
        (many(128).check(), Ok(())),
        (many(129).check(), Err(Error::TooManyOps)),
        // A nested transaction has what its parents left: 128 − 28.
        (nested(27, 100).check(), Ok(())),
        (nested(27, 101).check(), Err(Error::TooManyOps)),
    ];
    for (n, (found, expected)) in table.into_iter().enumerate() {
        assert_eq!(found, expected, "line {n}");
    }

    fn nested(outer: usize, inner: usize) -> TxnRequest {
        let puts = |prefix: &str, n: usize| {
            (0..n)
                .map(|n| op_put(&format!("{prefix}{n}")))
                .collect::<Vec<_>>()
        };
        let mut ops = puts("o", outer);
        ops.push(op_txn(puts("i", inner), Vec::new()));
        txn(ops)
    }
}

#[test]
fn keys_written_twice_in_a_branch() {
    let duplicate = Err(Error::DuplicateKey);
    let table = [
        (vec![op_put("a"), op_put("b")], Ok(())),
        (vec![op_put("a"), op_put("a")], duplicate.clone()),
        (vec![op_put("b"), op_delete("a", "c")], duplicate.clone()),
        (vec![op_put("c"), op_delete("a", "c")], Ok(())),
        (vec![op_delete("a", "c"), op_delete("b", "d")], Ok(())),
        (
            vec![op_put("a"), op_txn(vec![op_put("a")], vec![])],
            duplicate.clone(),
        ),
        (vec![op_txn(vec![op_put("a")], vec![op_put("a")])], Ok(())),
        (
            vec![
                op_txn(vec![op_put("a")], vec![]),
                op_txn(vec![], vec![op_put("a")]),
            ],
            duplicate.clone(),
        ),
        (
            vec![op_delete("a", ""), op_txn(vec![op_put("a")], vec![])],
            duplicate.clone(),
        ),
        (
            vec![op_txn(vec![op_delete("a", "")], vec![]), op_put("a")],
            duplicate,
        ),
        // An inverted range holds nothing, and an open one counts as inverted here, though it deletes to the end of all keys.
        (vec![op_put("b"), op_delete("c", "a")], Ok(())),
        (vec![op_put("z"), op_delete("a", "\0")], Ok(())),
        (vec![op_delete("\0", "\0"), op_put("\0")], Ok(())),
        (
            vec![op_delete("a", "\0"), op_txn(vec![op_put("z")], vec![])],
            Ok(()),
        ),
        (
            vec![op_txn(vec![op_delete("a", "\0")], vec![]), op_put("z")],
            Ok(()),
        ),
        (
            vec![op_delete("\0", "\0"), op_delete("a", "c"), op_put("b")],
            Err(Error::DuplicateKey),
        ),
        // etcd does not hold a nested put against a later nested delete, and so neither do we.
        (
            vec![
                op_txn(vec![op_put("a")], vec![]),
                op_txn(vec![op_delete("a", "")], vec![]),
            ],
            Ok(()),
        ),
    ];
    for (n, (ops, expected)) in table.into_iter().enumerate() {
        assert_eq!(txn(ops.clone()).check(), expected, "line {n}");
        let failure = TxnRequest {
            failure: ops,
            ..TxnRequest::default()
        };
        assert_eq!(failure.check(), expected, "line {n}, as failure");
    }
}

#[test]
fn a_transaction_shares_one_revision_and_fails_as_a_whole() {
    let mut store = Store::new();
    let answer = store
        .apply(Command::Txn(txn(vec![
            op_put("a"),
            op_put("b"),
            op_delete("a", ""),
        ])))
        .unwrap_err();
    assert_eq!(answer, Error::DuplicateKey);
    assert_eq!(store.kv.revision(), 1);

    let read = RequestOp::Range(RangeRequest {
        key: key("a"),
        ..RangeRequest::default()
    });
    let Response::Txn(answer) = store
        .apply(Command::Txn(txn(vec![read.clone(), op_put("a"), read])))
        .unwrap()
        .response
    else {
        panic!("a transaction answers as one")
    };
    let counts: Vec<(i64, i64)> = answer
        .responses
        .iter()
        .filter_map(|response| match response {
            ResponseOp::Range(range) => Some((range.revision, range.count)),
            _ => None,
        })
        .collect();
    assert_eq!(counts, [(1, 0), (2, 1)], "reads see the writes before them");

    let lease = RequestOp::Put(PutRequest {
        lease: 99,
        ..put("c")
    });
    assert_eq!(
        store.apply(Command::Txn(txn(vec![op_put("b"), lease]))),
        Err(Error::LeaseNotFound)
    );
    assert_eq!(store.get("b"), None, "nothing of it was done");
}

#[test]
fn revisions_move_only_with_changes() {
    let mut store = Store::new();
    assert_eq!(store.kv.revision(), 1);
    assert_eq!(
        store
            .apply(Command::DeleteRange(delete("a", "\0")))
            .unwrap()
            .revision,
        1
    );
    assert_eq!(store.apply(Command::Put(put("a"))).unwrap().revision, 2);
    assert_eq!(store.apply(grant(1, 5)).unwrap().revision, 2);
    assert_eq!(store.apply(revoke(1)).unwrap().revision, 2);
    assert_eq!(
        store
            .apply(Command::DeleteRange(delete("a", "")))
            .unwrap()
            .revision,
        3
    );
    assert_eq!(store.apply(Command::Put(put("a"))).unwrap().revision, 4);
    let kv = store.get("a").unwrap();
    assert_eq!(
        (kv.create_revision, kv.mod_revision, kv.version),
        (4, 4, 1),
        "created anew after a deletion"
    );
}

#[test]
fn leases_take_their_keys_along() {
    let mut store = Store::new();
    assert_eq!(store.apply(leased("a", 7)), Err(Error::LeaseNotFound));
    store.apply(grant(7, 60)).unwrap();
    store.apply(grant(8, 60)).unwrap();
    assert_eq!(store.apply(grant(7, 60)), Err(Error::LeaseExists));
    assert_eq!(
        store.apply(grant(9, lease::MAX_TTL + 1)),
        Err(Error::LeaseTtlTooLarge)
    );
    for (name, lease) in [("c", 7), ("a", 7), ("b", 7), ("b", 8), ("d", 7), ("d", 0)] {
        store.apply(leased(name, lease)).unwrap();
    }
    assert_eq!(
        store.kv.lease_keys(7).unwrap(),
        [key("a"), key("c")],
        "a put moves the attachment"
    );
    let picture = store.kv.picture();
    assert_eq!(picture.lease_keys(7).unwrap(), Some(vec![key("a"), key("c")]));
    assert_eq!(picture.lease_keys(9).unwrap(), None, "no such lease");
    store.kv.take_events();

    store.term = 2;
    let stale = expiry(7, 1, None);
    assert_eq!(
        store.apply(stale).unwrap().response,
        Response::LeaseRevoke { void: true }
    );
    assert_eq!(
        store.kv.lease(7).unwrap(),
        Some(Lease {
            id: 7,
            ttl: 60,
            grant: Index::ZERO
        }),
        "an expiry seen in another term is void"
    );
    assert_eq!(
        store.apply(expiry(7, 2, None)).unwrap().response,
        Response::LeaseRevoke { void: false }
    );
    let batch = store.kv.take_events().unwrap();
    let gone: Vec<(Bytes, i64)> = batch
        .events
        .iter()
        .map(|event| (event.kv.key.clone(), event.kv.mod_revision))
        .collect();
    assert_eq!(
        gone,
        [(key("a"), 8), (key("c"), 8)],
        "in key order, in one revision"
    );
    assert_eq!(store.apply(revoke(7)), Err(Error::LeaseNotFound));
    assert!(store.get("b").is_some() && store.get("d").is_some());
}

#[test]
fn alarms_refuse_what_they_must() {
    let mut store = Store::new();
    store.apply(Command::Put(put("a"))).unwrap();
    let alarm = |action, kind| Command::Alarm {
        action,
        member: 4,
        kind: Some(kind),
    };
    let commands = || {
        [
            Command::Put(put("b")),
            Command::Txn(TxnRequest {
                failure: vec![op_put("b")],
                ..TxnRequest::default()
            }),
            grant(1, 5),
            Command::Txn(txn(vec![op_delete("x", "")])),
            Command::DeleteRange(delete("x", "")),
        ]
    };
    store
        .apply(alarm(AlarmAction::Activate, AlarmKind::NoSpace))
        .unwrap();
    let found: Vec<Option<Error>> = commands().map(|command| store.apply(command).err()).to_vec();
    let no = || Some(Error::NoSpace);
    assert_eq!(found, [no(), no(), no(), None, None]);
    store
        .apply(alarm(AlarmAction::Activate, AlarmKind::Corrupt))
        .unwrap();
    for command in commands() {
        assert_eq!(store.apply(command), Err(Error::Corrupt));
    }
    for kind in [AlarmKind::Corrupt, AlarmKind::NoSpace] {
        store.apply(alarm(AlarmAction::Deactivate, kind)).unwrap();
    }
    for command in commands() {
        store.apply(command).unwrap();
    }
}

#[test]
fn texts_and_codes_are_those_of_etcd() {
    let table = [
        (
            Error::EmptyKey,
            Code::InvalidArgument,
            "etcdserver: key is not provided",
        ),
        (
            Error::KeyNotFound,
            Code::InvalidArgument,
            "etcdserver: key not found",
        ),
        (
            Error::ValueProvided,
            Code::InvalidArgument,
            "etcdserver: value is provided",
        ),
        (
            Error::LeaseProvided,
            Code::InvalidArgument,
            "etcdserver: lease is provided",
        ),
        (
            Error::TooManyOps,
            Code::InvalidArgument,
            "etcdserver: too many operations in txn request",
        ),
        (
            Error::DuplicateKey,
            Code::InvalidArgument,
            "etcdserver: duplicate key given in txn request",
        ),
        (
            Error::InvalidSortOption,
            Code::InvalidArgument,
            "etcdserver: invalid sort option",
        ),
        (
            Error::Compacted,
            Code::OutOfRange,
            "etcdserver: mvcc: required revision has been compacted",
        ),
        (
            Error::FutureRevision,
            Code::OutOfRange,
            "etcdserver: mvcc: required revision is a future revision",
        ),
        (
            Error::LeaseTtlTooLarge,
            Code::OutOfRange,
            "etcdserver: too large lease TTL",
        ),
        (
            Error::LeaseNotFound,
            Code::NotFound,
            "etcdserver: requested lease not found",
        ),
        (
            Error::LeaseExists,
            Code::FailedPrecondition,
            "etcdserver: lease already exists",
        ),
        (
            Error::NoSpace,
            Code::ResourceExhausted,
            "etcdserver: mvcc: database space exceeded",
        ),
        (Error::Corrupt, Code::DataLoss, "etcdserver: corrupt cluster"),
    ];
    for (error, code, text) in table {
        assert_eq!((error.code(), error.to_string().as_str()), (code, text));
    }
}

#[test]
fn a_long_read_is_known_as_one_and_a_picture_keeps_the_state_it_was_taken_of() {
    let mut store = Store::new();
    for i in 0..1_500 {
        store.apply(Command::Put(put(&format!("k{i:04}")))).unwrap();
    }
    let read = |end: &str, limit| RangeRequest {
        key: key("k"),
        range_end: key(end),
        limit,
        ..RangeRequest::default()
    };
    let (all, few) = (read("l", 0), read("k0100", 0));
    assert_eq!(store.kv.quick_range(&all), Ok(None));
    assert_eq!(
        store.kv.quick_range(&read("l", 5)),
        Ok(None),
        "a limit does not bound the count"
    );
    assert_eq!(store.kv.quick_range(&few), store.kv.range(&few).map(Some));

    let answer = store.kv.range(&all).unwrap();
    assert_eq!((answer.count, answer.kvs.len()), (1_500, 1_500));
    let (picture, hash) = (store.kv.picture(), store.kv.hash());
    store.apply(Command::DeleteRange(delete("k", "l"))).unwrap();
    if let Some(job) = store.kv.job(true) {
        job().unwrap();
    }
    assert_eq!(store.kv.range(&all).unwrap().count, 0);
    assert_eq!(picture.range(&all), Ok(answer));
    assert_eq!(picture.hash(), hash);
}

/// Memory is counted by the keys and values that are kept, so that nothing else may stay with them.
#[test]
fn what_is_kept_of_a_command_does_not_keep_the_rest() {
    let large = |name: &str| PutRequest {
        value: Bytes::from(vec![7; 100_000]),
        ..put(name)
    };
    let failing = TxnRequest {
        compare: vec![Compare {
            key: key("a"),
            range_end: Bytes::new(),
            op: CompareOp::Greater,
            target: CompareTarget::Version(100),
        }],
        success: vec![RequestOp::Put(large("a"))],
        failure: vec![op_put("b")],
    };
    let ignoring = PutRequest {
        ignore_value: true,
        value: Bytes::new(),
        ..put("b")
    };
    let beside = txn(vec![RequestOp::Put(ignoring), RequestOp::Put(large("c"))]);
    let table = [
        ("a put", Command::Put(large("a")), true),
        ("a deletion", Command::DeleteRange(delete("a", "")), false),
        ("the branch not taken", Command::Txn(failing), false),
        ("one put of two", Command::Txn(beside), true),
        (
            "a deletion of several",
            Command::DeleteRange(delete("a", "d")),
            false,
        ),
    ];
    let mut store = Store::new();
    for (what, command, shared) in table {
        let bytes = command.encode();
        let at = LogId::new(store.term, store.kv.applied().index.get() + 1);
        drop(store.kv.apply(at, &bytes).unwrap());
        assert_eq!(!bytes.is_unique(), shared, "{what}");
        let within = |kept: &Bytes| bytes.as_ptr_range().contains(&kept.as_ptr());
        for event in &store.kv.take_events().unwrap().events {
            let name = (what, &event.kv.key);
            assert_eq!(within(&event.kv.key), event.kv.value.len() > 50_000, "{name:?}");
            assert_eq!(within(&event.kv.value), event.kv.value.len() > 50_000, "{name:?}");
        }
    }
}

/// Keys in memory lie beside the value put with them, which is not to stay for the sake of the key when it is gone.
#[test]
fn a_deleted_key_does_not_keep_its_value() {
    let mut store = Store::new();
    let put = Command::Put(PutRequest {
        value: Bytes::from(vec![7; 100_000]),
        ..put("a")
    });
    let bytes = put.encode();
    store.kv.apply(LogId::new(1, 1), &bytes).unwrap();
    store.kv.take_events();
    store.apply(Command::DeleteRange(delete("a", "b"))).unwrap();
    let events = store.kv.take_events().unwrap();
    let [deletion] = &events.events[..] else {
        panic!("one event: {events:?}")
    };
    assert!(!bytes.as_ptr_range().contains(&deletion.kv.key.as_ptr()));
}
