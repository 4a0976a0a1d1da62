//! Applying commands: the rules of revisions, leases, compaction and alarms. Writes only to the active memory table; deterministic.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use quorate_base::{Index, LogId, Term, parts};

use crate::chain::Place;
use crate::command::{Applied, Command, Expiry, Response};
use crate::cover::Cover;
use crate::error::Error;
use crate::interval;
use crate::kv::Kv;
use crate::lease;
use crate::range::{Reader, key_bounds};
use crate::row::{Attached, Change, Changes, Granted, Keys, Latest, Leases, Version};
use crate::store::fatal;
use crate::txn::{Plan, PlannedOp};
use crate::types::{
    Alarm, AlarmAction, AlarmKind, DeleteRangeRequest, DeleteRangeResponse, Event, EventKind, KeyValue,
    PutRequest, PutResponse, RangeRequest, RangeResponse, ResponseOp, TxnRequest, TxnResponse,
};

impl Kv {
    /// Applies one decoded command, whose keys and values hold on to `held` bytes.
    pub(crate) fn apply_command(
        &mut self,
        at: LogId,
        command: &Command,
        held: usize,
    ) -> Result<Applied, Error> {
        self.check_alarms(command)?;
        let response = match command {
            Command::Put(put) => Response::Put(self.apply_put(put, held)?),
            Command::DeleteRange(delete) => Response::DeleteRange(self.apply_delete(delete)?),
            Command::Txn(txn) => Response::Txn(self.apply_txn(txn, held)?),
            Command::Compact { revision, physical } => {
                self.apply_compact(*revision, *physical)?;
                Response::Compact
            }
            Command::LeaseGrant { id, ttl, named } => {
                let grant = if *named { at.index } else { Index::ZERO };
                self.apply_grant(*id, Granted { ttl: *ttl, grant })?
            }
            Command::LeaseRevoke { id, expiry } => Response::LeaseRevoke {
                void: self.apply_revoke(at.term, *id, *expiry)?,
            },
            Command::Alarm { action, member, kind } => {
                Response::Alarm(self.apply_alarm(*action, *member, *kind))
            }
        };
        Ok(Applied {
            revision: self.meta.revision,
            response,
        })
    }

    /// NOSPACE refuses what takes space; CORRUPT refuses everything but the handling of alarms.
    fn check_alarms(&self, command: &Command) -> Result<(), Error> {
        let on = |kind| self.meta.alarms.iter().any(|alarm| alarm.kind == kind);
        if on(AlarmKind::Corrupt) && !matches!(command, Command::Alarm { .. }) {
            return Err(Error::Corrupt);
        }
        let takes_space = match command {
            Command::Put(_) | Command::LeaseGrant { .. } => true,
            Command::Txn(txn) => txn.has_put(),
            _ => false,
        };
        if takes_space && on(AlarmKind::NoSpace) {
            return Err(Error::NoSpace);
        }
        Ok(())
    }

    fn apply_put(&mut self, put: &PutRequest, held: usize) -> Result<PutResponse, Error> {
        put.check()?;
        // Outside a transaction etcd looks for the lease first.
        self.reader().check_lease(put)?;
        self.reader().check_put(put)?;
        let mut writes = Writes::begin(self, held);
        let response = writes.put(put);
        writes.end();
        Ok(response)
    }

    fn apply_delete(&mut self, delete: &DeleteRangeRequest) -> Result<DeleteRangeResponse, Error> {
        delete.check()?;
        let mut writes = Writes::begin(self, 0);
        let response = writes.delete_range(delete);
        writes.end();
        Ok(response)
    }

    fn apply_txn(&mut self, txn: &TxnRequest, held: usize) -> Result<TxnResponse, Error> {
        txn.check()?;
        let reader = self.reader();
        let plan = reader.plan(txn)?;
        reader.check_plan(&plan, &mut Cover::default())?;
        let mut writes = Writes::begin(self, held);
        let response = writes.run(&plan)?;
        writes.end();
        Ok(response)
    }

    fn apply_compact(&mut self, revision: i64, physical: bool) -> Result<(), Error> {
        if revision <= self.meta.compacted {
            return Err(Error::Compacted);
        }
        if revision > self.meta.revision {
            return Err(Error::FutureRevision);
        }
        self.meta.compacted = revision;
        if physical {
            self.store.hurry();
        }
        Ok(())
    }

    fn apply_grant(&mut self, id: i64, granted: Granted) -> Result<Response, Error> {
        let ttl = granted.ttl;
        if id == 0 {
            return Err(Error::LeaseNotFound);
        }
        if ttl > lease::MAX_TTL {
            return Err(Error::LeaseTtlTooLarge);
        }
        if fatal(self.store.layers().get::<Leases>(&id)).is_some() {
            return Err(Error::LeaseExists);
        }
        self.store.active.put::<Leases>(id, granted);
        Ok(Response::LeaseGrant { id, ttl })
    }

    /// Ends a lease: its keys go in key order, in one revision. Unless this is void, which is the answer.
    fn apply_revoke(&mut self, now: Term, id: i64, expiry: Option<Expiry>) -> Result<bool, Error> {
        if expiry.is_some_and(|expiry| expiry.term != now) {
            return Ok(true);
        }
        let Some(granted) = fatal(self.store.layers().get::<Leases>(&id)) else {
            return Err(Error::LeaseNotFound);
        };
        // Another name is another grant. Zero is the name of all that were granted without one: they cannot be told apart.
        let meant = expiry.and_then(|expiry| expiry.grant);
        if meant.is_some_and(|grant| grant != granted.grant) {
            return Ok(true);
        }
        let keys = fatal(self.attached(id));
        let mut writes = Writes::begin(self, 0);
        for key in keys {
            writes.delete(key);
        }
        writes.end();
        self.store.active.delete::<Leases>(id);
        Ok(false)
    }

    fn apply_alarm(&mut self, action: AlarmAction, member: u64, kind: Option<AlarmKind>) -> Vec<Alarm> {
        let alarms = &mut self.meta.alarms;
        match (action, kind) {
            (AlarmAction::Get, None) => alarms.iter().copied().collect(),
            (AlarmAction::Get, Some(kind)) => alarms
                .iter()
                .filter(|alarm| alarm.kind == kind)
                .copied()
                .collect(),
            (AlarmAction::Activate, Some(kind)) => {
                let alarm = Alarm { member, kind };
                alarms.insert(alarm);
                vec![alarm]
            }
            (AlarmAction::Deactivate, Some(kind)) => {
                let cleared = |alarm: &&Alarm| alarm.kind == kind && (member == 0 || alarm.member == member);
                let cleared: Vec<Alarm> = alarms.iter().filter(cleared).copied().collect();
                alarms.retain(|alarm| !cleared.contains(alarm));
                cleared
            }
            (AlarmAction::Activate | AlarmAction::Deactivate, None) => Vec::new(),
        }
    }
}

/// The writes of one command: they share one revision, which counts only if there are any.
struct Writes<'a> {
    kv: &'a mut Kv,
    /// The revision of the writes.
    main: i64,
    /// The position of the next write in it, so also how many there were.
    sub: u32,
    /// How much memory the command's own keys and values hold on to.
    held: usize,
}

impl<'a> Writes<'a> {
    fn begin(kv: &'a mut Kv, held: usize) -> Writes<'a> {
        let main = kv.meta.revision + 1;
        Writes {
            kv,
            main,
            sub: 0,
            held,
        }
    }

    fn end(self) {
        self.kv.meta.revision = self.revision();
    }

    /// The latest revision as seen from inside.
    fn revision(&self) -> i64 {
        if self.sub > 0 { self.main } else { self.main - 1 }
    }

    fn reader(&self) -> Reader<'_> {
        Reader {
            latest: self.revision(),
            ..self.kv.reader()
        }
    }

    fn run(&mut self, plan: &Plan<'_>) -> Result<TxnResponse, Error> {
        let mut responses = Vec::with_capacity(plan.ops.len());
        for op in &plan.ops {
            responses.push(match op {
                PlannedOp::Range(range) => ResponseOp::Range(self.range_in_txn(range)?),
                PlannedOp::Put(put) => ResponseOp::Put(self.put(put)),
                PlannedOp::DeleteRange(delete) => ResponseOp::DeleteRange(self.delete_range(delete)),
                PlannedOp::Txn(plan) => ResponseOp::Txn(Box::new(self.run(plan)?)),
            });
        }
        Ok(TxnResponse {
            revision: self.revision(),
            succeeded: plan.succeeded,
            responses,
        })
    }

    /// The plan was checked, so nothing but the disk can fail here, and that must not become an answer.
    fn range_in_txn(&self, range: &RangeRequest) -> Result<RangeResponse, Error> {
        match self.reader().range(range) {
            Err(Error::Storage(e)) => {
                panic!("the store cannot be read, and nothing can be applied without it: {e}")
            }
            answer => answer,
        }
    }

    /// Puts a key. The request was checked against the state.
    fn put(&mut self, put: &PutRequest) -> PutResponse {
        let (key, value) = self.own(put);
        let latest = self.latest(&key);
        let there = latest.as_ref().filter(|latest| !latest.is_tombstone());
        let keeps = put.ignore_value || put.ignore_lease;
        assert!(!keeps || there.is_some(), "what is kept was checked to be there");
        // Reading the version before is most of what a put costs, so only for whoever asks.
        let before = there
            .filter(|_| put.ignore_value || put.prev_kv)
            .map(|latest| fatal(self.reader().version(latest.at)));
        let value = match &before {
            Some(before) if put.ignore_value => before.value.clone(),
            _ => value,
        };
        let lease_before = there.map_or(0, |latest| latest.lease);
        let lease = if put.ignore_lease { lease_before } else { put.lease };
        let version = Version {
            create: there.map_or(self.main, |latest| latest.create),
            modified: self.main,
            version: there.map_or(0, |latest| latest.version) + 1,
            lease,
            value,
        };
        self.attach(&key, lease_before, lease);
        self.record(key, Some(version), latest);
        let prev_kv = before.filter(|_| put.prev_kv);
        PutResponse {
            revision: self.revision(),
            prev_kv: prev_kv.map(|before| before.with_key(put.key.clone())),
        }
    }

    /// The key and value to keep of a put: copies, if most of the command is about something else.
    fn own(&self, put: &PutRequest) -> (Bytes, Bytes) {
        let (key, value) = (&put.key, &put.value);
        if !parts::wastes(key.len() + value.len(), self.held) {
            return (key.clone(), value.clone());
        }
        let mut copy = BytesMut::with_capacity(key.len() + value.len());
        copy.extend_from_slice(key);
        copy.extend_from_slice(value);
        let mut copy = copy.freeze();
        (copy.split_to(key.len()), copy)
    }

    /// The latest change of a key, a deletion too.
    fn latest(&self, key: &Bytes) -> Option<Latest> {
        fatal(self.kv.store.layers().get::<Keys>(key))
    }

    fn delete_range(&mut self, delete: &DeleteRangeRequest) -> DeleteRangeResponse {
        let mut response = DeleteRangeResponse::default();
        for key in self.keys(&delete.key, &delete.range_end) {
            let before = self.delete(key.clone());
            response.deleted += 1;
            if delete.prev_kv {
                let before = fatal(self.reader().version(before));
                response.prev_kvs.push(before.with_key(key));
            }
        }
        response.revision = self.revision();
        response
    }

    fn keys(&self, key: &Bytes, range_end: &Bytes) -> Vec<Bytes> {
        let layers = self.kv.store.layers();
        if interval::is_empty(key, range_end) {
            return Vec::new();
        }
        if range_end.is_empty() {
            let there = fatal(self.reader().latest(key)).is_some();
            return there.then(|| key.clone()).into_iter().collect();
        }
        let rows = fatal(layers.range::<Keys>(&key_bounds(key, range_end)));
        rows.filter_map(|row| {
            let row = fatal(row);
            let there = !fatal(row.value()).is_tombstone();
            there.then_some(row.key)
        })
        .collect()
    }

    /// Deletes a key that is there; where what it was stands.
    fn delete(&mut self, key: Bytes) -> Place {
        let latest = self.latest(&key).filter(|latest| !latest.is_tombstone());
        let latest = latest.expect("only keys that were just found are deleted");
        let before = latest.at;
        // A copy: the key as it stands in memory holds on to the value put with it, and this one stays when that is gone.
        let key = Bytes::copy_from_slice(&key);
        self.attach(&key, latest.lease, 0);
        self.record(key, None, Some(latest));
        before
    }

    /// Moves a key from one lease to another; 0 is none.
    fn attach(&mut self, key: &Bytes, from: i64, to: i64) {
        if from == to {
            return;
        }
        if from != 0 {
            self.kv.store.active.delete::<Attached>((from, key.clone()));
        }
        if to != 0 {
            self.kv.store.active.put::<Attached>((to, key.clone()), ());
        }
    }

    /// Writes the change, which follows `latest`, and tells the watchers.
    fn record(&mut self, key: Bytes, put: Option<Version>, latest: Option<Latest>) {
        let place = (self.main, self.sub);
        self.sub = self.sub.checked_add(1).expect("no command makes 2^32 changes");
        let prev_kv = latest
            .as_ref()
            .filter(|latest| self.kv.tells_previous() && !latest.is_tombstone())
            .and_then(|latest| self.previous(&key, latest.at));
        self.kv.record_event(Arc::new(event(
            place.0,
            place.1,
            key.clone(),
            put.clone(),
            prev_kv,
        )));
        let (chain, links) = Latest::follow(latest, place);
        let active = &mut self.kv.store.active;
        active.put::<Keys>(key.clone(), Latest::of(place, put.as_ref(), chain));
        active.put::<Changes>(place, Change { key, put, links });
    }

    /// What watchers are told of a key whose latest put stands at `at`: the version before the revision, even if the same transaction wrote
    /// the key earlier.
    fn previous(&self, key: &Bytes, at: Place) -> Option<KeyValue> {
        if at.0 == self.main {
            return fatal(self.kv.reader().at(key, self.main - 1));
        }
        let version = fatal(self.kv.reader().version(at));
        Some(version.with_key(key.clone()))
    }
}

/// A change as watchers see it.
pub(crate) fn event(
    main: i64,
    sub: u32,
    key: Bytes,
    put: Option<Version>,
    prev_kv: Option<KeyValue>,
) -> Event {
    let (kind, kv) = match put {
        Some(version) => (EventKind::Put, version.with_key(key)),
        None => {
            let kv = KeyValue {
                key,
                mod_revision: main,
                ..KeyValue::default()
            };
            (EventKind::Delete, kv)
        }
    };
    Event {
        kind,
        sub,
        kv,
        prev_kv,
    }
}
