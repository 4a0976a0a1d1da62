//! Mixed releases: what is written below a feature level stays as it was, byte for byte, and from it on an expiry ends the grant it
//! is about and no other. The bytes of the old forms are fixtures, made by the release before the level.

mod support;

use std::sync::Arc;

use bytes::Bytes;
use quorate_base::{Index, LogId, StateMachine, Term};
use quorate_kv::lease::{Expired, Lessor};
use quorate_kv::*;
use support::disk::MemDisk;

const SECOND: u64 = 1_000_000_000;
const OLD: u32 = level::NAMED_GRANTS - 1;
const NEW: u32 = level::NAMED_GRANTS;

/// The state after [`old_log`], as the release before the level sent it.
const OLD_SNAPSHOT: &[u8] = include_bytes!("fixtures/level-1.snapshot");
/// Its hash there.
const OLD_HASH: u32 = 0x5b80_0b4b;

fn put(name: &'static str, lease: i64) -> Command {
    Command::Put(PutRequest {
        key: Bytes::from_static(name.as_bytes()),
        value: Bytes::from_static(b"v"),
        lease,
        ..PutRequest::default()
    })
}

fn revoke(id: i64) -> Command {
    Command::LeaseRevoke { id, expiry: None }
}

fn expiry(id: i64, term: u64, grant: Option<u64>) -> Command {
    Command::LeaseRevoke {
        id,
        expiry: Some(Expiry {
            term: Term(term),
            grant: grant.map(Index),
        }),
    }
}

/// A log of the release before the level, in term 3, with the bytes it wrote.
fn old_log() -> Vec<(Command, Vec<u8>)> {
    vec![
        (Command::grant(OLD, 7, 60), vec![1, 5, 7, 60]),
        (put("a", 7), vec![1, 1, 0, 7, 1, 97, 1, 118]),
        (Command::grant(OLD, 8, 5), vec![1, 5, 8, 5]),
        (put("b", 8), vec![1, 1, 0, 8, 1, 98, 1, 118]),
        (expiry(8, 9, None), vec![1, 6, 8, 1, 9]),
        (expiry(8, 3, None), vec![1, 6, 8, 1, 3]),
        (revoke(7), vec![1, 6, 7, 0, 0]),
        (Command::grant(OLD, 7, 300), vec![1, 5, 7, 172, 2]),
        (put("a", 7), vec![1, 1, 0, 7, 1, 97, 1, 118]),
    ]
}

/// A store whose entries are all of term 3.
struct Store {
    disk: MemDisk,
    kv: Kv,
}

impl Store {
    fn on(disk: MemDisk) -> Store {
        let kv = Kv::open(Arc::new(disk.clone()), Options::default()).unwrap();
        Store { disk, kv }
    }

    fn new() -> Store {
        Store::on(MemDisk::default())
    }

    fn apply(&mut self, command: &Command) -> Result<Response, Error> {
        let at = LogId::new(3, self.kv.applied().index.get() + 1);
        let applied = self.kv.apply(at, &command.encode());
        applied.map(|applied| applied.response)
    }

    /// Applies a grant; what the lessor is told of it.
    fn grant(&mut self, command: &Command) -> Lease {
        let Response::LeaseGrant { id, .. } = self.apply(command).unwrap() else {
            panic!("a grant answers as one")
        };
        self.kv.lease(id).unwrap().expect("just granted")
    }

    fn flush(&mut self) {
        while let Some(job) = self.kv.job(true) {
            job().unwrap();
        }
        assert_eq!(self.kv.durable(), self.kv.applied().index);
    }

    fn restarted(&mut self) -> Store {
        self.flush();
        Store::on(self.disk.after_crash(1))
    }

    fn snapshot(&self) -> Vec<u8> {
        let mut reader = self.kv.snapshot().unwrap();
        let chunks = std::iter::from_fn(|| Some(reader.read_chunk(100).unwrap()));
        chunks.take_while(|chunk| !chunk.is_empty()).flatten().collect()
    }

    fn restored(&self) -> Store {
        let mut other = Store::new();
        let at = self.kv.applied();
        other.kv.restore(at, &mut self.snapshot().as_slice()).unwrap();
        other
    }
}

/// Lets the only lease of a lessor in office expire.
fn fire(lessor: &mut Lessor) -> Expired {
    let found = lessor.expired(u64::MAX, 10);
    assert_eq!(found.len(), 1);
    found[0]
}

#[test]
fn old_forms_are_read_and_written_byte_for_byte() {
    for (command, bytes) in old_log() {
        assert_eq!(command.encode(), bytes, "{command:?}");
        assert_eq!(Command::decode(&Bytes::from(bytes)), Ok(command));
    }
}

#[test]
fn new_forms_are_read_and_written_and_no_old_release_takes_them_for_another() {
    let table = [
        (Command::grant(NEW, 7, 300), vec![1, 8, 7, 172, 2]),
        (expiry(7, 3, Some(300)), vec![1, 9, 7, 3, 172, 2]),
        (expiry(7, 3, Some(0)), vec![1, 9, 7, 3, 0]),
    ];
    for (command, bytes) in table {
        assert_eq!(command.encode(), bytes, "{command:?}");
        assert!(
            bytes[1] > 7,
            "the old release knew tags up to 7, and refused all others"
        );
        assert_eq!(Command::decode(&Bytes::from(bytes)), Ok(command));
    }
}

#[test]
fn forms_follow_the_level() {
    let mut lessor = Lessor::new();
    let lease = |grant| Lease {
        id: 7,
        ttl: 5,
        grant: Index(grant),
    };
    for (level, named) in [(0, false), (OLD, false), (NEW, true), (NEW + 1, true)] {
        let grant = Command::grant(level, 7, 5);
        assert_eq!(grant, Command::LeaseGrant { id: 7, ttl: 5, named });
        for index in [0, 12] {
            lessor.promote([lease(index)], 0);
            let found = Command::expiry(level, Term(4), fire(&mut lessor));
            assert_eq!(found, expiry(7, 4, named.then_some(index)), "level {level}");
        }
    }
}

#[test]
fn the_state_below_the_level_is_as_before_byte_for_byte() {
    let mut store = Store::new();
    for (command, _) in old_log() {
        store.apply(&command).unwrap();
    }
    assert_eq!(store.snapshot(), OLD_SNAPSHOT);
    assert_eq!(store.kv.hash(), Ok(OLD_HASH));
    let mut restarted = store.restarted();
    assert_eq!(restarted.snapshot(), OLD_SNAPSHOT);
    assert_eq!(restarted.kv.hash(), Ok(OLD_HASH));

    // And a member that starts from the old snapshot goes on like one that was there.
    let mut other = Store::new();
    let at = LogId::new(3, 9);
    other.kv.restore(at, &mut &OLD_SNAPSHOT[..]).unwrap();
    for command in [
        expiry(7, 3, Some(8)),
        Command::grant(NEW, 9, 5),
        expiry(7, 3, Some(0)),
        Command::grant(NEW, 7, 5),
    ] {
        let found = store.apply(&command);
        assert_eq!(other.apply(&command), found, "{command:?}");
        assert_eq!(restarted.apply(&command), found, "{command:?}");
    }
    assert_eq!(store.kv.lease(7).unwrap().unwrap().grant, Index(13));
    assert_eq!(store.kv.hash(), other.kv.hash());
    assert_eq!(store.kv.hash(), restarted.kv.hash());
}

/// The race: a client ends a lease that has just expired and takes the id anew, both ahead of the expiry in the log.
fn stale_expiry(level: u32) -> (Store, Lessor, Response) {
    let mut store = Store::new();
    let mut lessor = Lessor::new();
    lessor.promote([], 0);
    lessor.grant(store.grant(&Command::grant(level, 7, 5)), 0);
    store.apply(&put("old", 7)).unwrap();
    let stale = Command::expiry(level, Term(3), fire(&mut lessor));

    store.apply(&revoke(7)).unwrap();
    lessor.revoke(7);
    lessor.grant(store.grant(&Command::grant(level, 7, 60)), 6 * SECOND);
    store.apply(&put("new", 7)).unwrap();
    let answer = store.apply(&stale).unwrap();
    (store, lessor, answer)
}

#[test]
fn an_expiry_that_comes_late_spares_the_lease_granted_anew() {
    let (mut store, mut lessor, answer) = stale_expiry(NEW);
    assert_eq!(answer, Response::LeaseRevoke { void: true });
    assert_eq!(store.kv.lease_keys(7).unwrap(), ["new"]);
    assert_eq!(lessor.next_due(), Some(66 * SECOND));

    // It expires in its own time, for which a renewal changes nothing.
    assert_eq!(lessor.renew(7, 7 * SECOND), Some(60));
    let due = Command::expiry(NEW, Term(3), fire(&mut lessor));
    for mut copy in [store.restarted(), store.restored()] {
        assert_eq!(copy.kv.hash(), store.kv.hash());
        assert_eq!(copy.apply(&due), Ok(Response::LeaseRevoke { void: false }));
        assert_eq!(copy.kv.lease(7), Ok(None));
    }
    assert_eq!(store.apply(&due), Ok(Response::LeaseRevoke { void: false }));
    assert_eq!(store.apply(&due), Err(Error::LeaseNotFound));
}

#[test]
fn below_the_level_it_hits_as_it_always_did() {
    let (store, _, answer) = stale_expiry(OLD);
    assert_eq!(
        answer,
        Response::LeaseRevoke { void: false },
        "the old releases do so, and all must do alike"
    );
    assert_eq!(store.kv.leases(), Ok(Vec::new()));
}

#[test]
fn what_an_expiry_spares() {
    // How the lease in force was granted, as the fifth entry; the expiry; whether it is void.
    let table = [
        (NEW, None, false),
        (NEW, Some(5), false),
        (NEW, Some(4), true),
        // It is about a lease from before the level.
        (NEW, Some(0), true),
        (OLD, None, false),
        (OLD, Some(0), false),
        // It is about a named one, which a proposer that lagged behind then granted anew in the old form.
        (OLD, Some(5), true),
    ];
    for (level, named, void) in table {
        let mut store = Store::new();
        for _ in 0..4 {
            store.apply(&put("other", 0)).unwrap();
        }
        let lease = store.grant(&Command::grant(level, 7, 60));
        assert_eq!(lease.grant, Index(if level == NEW { 5 } else { 0 }));
        let line = format!("granted at level {level}, expiry of {named:?}");
        let expiry = expiry(7, 3, named);
        for mut copy in [store.restarted(), store.restored()] {
            assert_eq!(copy.kv.lease(7), Ok(Some(lease)), "{line}");
            assert_eq!(copy.apply(&expiry), Ok(Response::LeaseRevoke { void }), "{line}");
        }
        assert_eq!(store.apply(&expiry), Ok(Response::LeaseRevoke { void }), "{line}");
        assert_eq!(store.kv.lease(7).unwrap().is_some(), void, "{line}");
    }
}

#[test]
fn an_expiry_of_another_term_is_void_whatever_it_names() {
    let mut store = Store::new();
    let lease = store.grant(&Command::grant(NEW, 7, 60));
    for grant in [None, Some(1), Some(2)] {
        let answer = store.apply(&expiry(7, 2, grant));
        assert_eq!(answer, Ok(Response::LeaseRevoke { void: true }));
    }
    assert_eq!(store.kv.lease(7), Ok(Some(lease)));
}

#[test]
fn puts_under_open_deletes_wait_for_the_level() {
    let open = DeleteRangeRequest {
        key: Bytes::from_static(b"a"),
        range_end: Bytes::from_static(b"\0"),
        prev_kv: false,
    };
    let Command::Put(z) = put("z", 0) else {
        unreachable!("made as a put")
    };
    let (put, delete) = (RequestOp::Put(z), RequestOp::DeleteRange(open));
    // What a put keeps must be there when it comes to it.
    let keeping = RequestOp::Put(PutRequest {
        key: Bytes::from_static(b"z"),
        ignore_value: true,
        ..PutRequest::default()
    });
    for (success, found) in [
        (vec![delete.clone(), keeping.clone()], Err(Error::KeyNotFound)),
        (vec![keeping, delete.clone()], Ok(())),
    ] {
        let mut store = Store::new();
        store.apply(&self::put("z", 0)).unwrap();
        let txn = TxnRequest {
            success,
            ..TxnRequest::default()
        };
        assert_eq!(store.apply(&Command::Txn(txn)).map(drop), found);
        assert_eq!(store.kv.revision(), if found.is_ok() { 3 } else { 2 });
    }

    // The operations happen in their order; the revision and the key's versions are those of one transaction.
    let table = [(vec![put.clone(), delete.clone()], 0), (vec![delete, put], 1)];
    for (success, left) in table {
        let txn = TxnRequest {
            success,
            ..TxnRequest::default()
        };
        let before = level::OPEN_DELETES - 1;
        assert_eq!(txn.check_at(before), Err(Error::DuplicateKey));
        assert_eq!(txn.check_at(level::OPEN_DELETES), Ok(()));
        assert_eq!(txn.check(), Ok(()));
        let mut store = Store::new();
        store.apply(&self::put("z", 0)).unwrap();
        store.apply(&Command::Txn(txn)).unwrap();
        let all = RangeRequest {
            key: Bytes::from_static(b"\0"),
            range_end: Bytes::from_static(b"\0"),
            ..RangeRequest::default()
        };
        let found = store.kv.range(&all).unwrap();
        assert_eq!((found.revision, found.count), (3, left));
        for kv in found.kvs {
            assert_eq!((kv.create_revision, kv.version), (3, 1), "created anew");
        }
    }
}
