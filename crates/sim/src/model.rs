//! A key-value store with etcd's revisions, written as plainly as possible: every version of every key is kept, nothing is on
//! disk, nothing is fast. The simulator applies every committed command to it once and compares what the real nodes
//! answer, and what they tell watchers. It covers what the simulated clients send, and says so where it does not. When leases
//! expire is not here: that somebody proposed it is what the model is told.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_base::{Index, LogId, Term};
use quorate_kv::{
    Applied, Command, Compare, CompareOp, CompareTarget, DeleteRangeRequest, DeleteRangeResponse, Error,
    Event, EventKind, Expiry, KeyValue, Lease, PutRequest, PutResponse, RangeRequest, RangeResponse,
    RequestOp, Response, ResponseOp, TxnRequest, TxnResponse,
};

/// What one revision changed: keys with their new values, or `None` where one was deleted.
pub type Change = Vec<(Bytes, Option<Bytes>)>;

/// All versions of a key, oldest first; `None` is a deletion.
type Versions = Vec<(i64, Option<KeyValue>)>;

/// The model.
#[derive(Clone, Debug)]
pub struct Model {
    revision: i64,
    compacted: i64,
    keys: BTreeMap<Bytes, Versions>,
    changes: BTreeMap<i64, Change>,
    /// What a watcher of everything is told of each revision, with the versions before.
    events: BTreeMap<i64, Vec<Event>>,
    leases: BTreeMap<i64, Lease>,
}

impl Default for Model {
    fn default() -> Model {
        Model {
            revision: 1,
            compacted: 0,
            keys: BTreeMap::new(),
            changes: BTreeMap::new(),
            events: BTreeMap::new(),
            leases: BTreeMap::new(),
        }
    }
}

impl Model {
    /// The latest revision; 1 when fresh, as in etcd.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The compacted revision.
    pub fn compacted(&self) -> i64 {
        self.compacted
    }

    /// What each revision changed, by revision.
    pub fn changes(&self) -> &BTreeMap<i64, Change> {
        &self.changes
    }

    /// What a watcher of everything is told of the revisions from `first` to `last`.
    pub fn events(&self, first: i64, last: i64) -> impl Iterator<Item = &Event> {
        let revisions = (first <= last).then(|| self.events.range(first..=last));
        revisions.into_iter().flatten().flat_map(|(_, events)| events)
    }

    /// The leases, by id.
    pub fn leases(&self) -> &BTreeMap<i64, Lease> {
        &self.leases
    }

    /// What applying the command of the entry `at` must answer.
    pub fn apply(&mut self, at: LogId, command: &Command) -> Result<Applied, Error> {
        let mut writer = Writer {
            revision: self.revision + 1,
            model: self,
        };
        let response = match command {
            Command::Put(put) => {
                writer.check_lease(put)?;
                Response::Put(writer.put(put))
            }
            Command::DeleteRange(delete) => Response::DeleteRange(writer.delete(delete)),
            Command::Txn(txn) => Response::Txn(writer.txn(txn)?),
            Command::LeaseGrant { id, ttl, named } => {
                let grant = if *named { at.index } else { Index::ZERO };
                writer.grant(Lease {
                    id: *id,
                    ttl: *ttl,
                    grant,
                })?
            }
            Command::LeaseRevoke { id, expiry } => Response::LeaseRevoke {
                void: writer.revoke(at.term, *id, *expiry)?,
            },
            Command::Compact { revision, .. } => {
                if *revision <= writer.model.compacted {
                    return Err(Error::Compacted);
                }
                if *revision > writer.model.revision {
                    return Err(Error::FutureRevision);
                }
                writer.model.compacted = *revision;
                Response::Compact
            }
            Command::Alarm { .. } => panic!("the model has no rule for {command:?}"),
        };
        self.revision = self
            .revision
            .max(self.changes.keys().next_back().copied().unwrap_or(0));
        Ok(Applied {
            revision: self.revision,
            response,
        })
    }

    /// The version of `key` in force at `revision`.
    pub fn at(&self, key: &Bytes, revision: i64) -> Option<&KeyValue> {
        in_force(self.keys.get(key)?, revision)
    }

    /// What a read without limit, filters or special order finds at `revision`, compaction not regarded.
    pub fn read<'a>(
        &'a self,
        request: &'a RangeRequest,
        revision: i64,
    ) -> impl Iterator<Item = &'a KeyValue> {
        self.keys
            .iter()
            .filter(|(key, _)| covers(&request.key, &request.range_end, key))
            .filter_map(move |(_, versions)| in_force(versions, revision))
    }
}

/// Of all versions of a key the one in force at `revision`.
fn in_force(versions: &Versions, revision: i64) -> Option<&KeyValue> {
    let after = versions.partition_point(|version| version.0 <= revision);
    versions[..after].last()?.1.as_ref()
}

/// Whether a range in etcd's form holds a key.
pub fn covers(from: &Bytes, end: &Bytes, key: &Bytes) -> bool {
    match &end[..] {
        [] => key == from,
        [0] => key >= from,
        _ => key >= from && key < end,
    }
}

/// One command being applied; what it changes gets `revision`.
struct Writer<'a> {
    model: &'a mut Model,
    revision: i64,
}

impl Writer<'_> {
    fn now(&self, key: &Bytes) -> Option<KeyValue> {
        self.model.at(key, self.revision).cloned()
    }

    /// The revision as seen from inside the command.
    fn current(&self) -> i64 {
        if self.model.changes.contains_key(&self.revision) {
            self.revision
        } else {
            self.revision - 1
        }
    }

    fn set(&mut self, key: &Bytes, value: Option<KeyValue>) {
        let deletion = || KeyValue {
            key: key.clone(),
            mod_revision: self.revision,
            ..KeyValue::default()
        };
        let kind = match &value {
            Some(_) => EventKind::Put,
            None => EventKind::Delete,
        };
        let prev_kv = self.model.at(key, self.revision - 1).cloned();
        let kv = value.clone().unwrap_or_else(deletion);
        let events = self.model.events.entry(self.revision).or_default();
        events.push(Event {
            kind,
            sub: events.len() as u32,
            kv,
            prev_kv,
        });
        let bytes = value.as_ref().map(|kv| kv.value.clone());
        self.model
            .changes
            .entry(self.revision)
            .or_default()
            .push((key.clone(), bytes));
        self.model
            .keys
            .entry(key.clone())
            .or_default()
            .push((self.revision, value));
    }

    fn put(&mut self, put: &PutRequest) -> PutResponse {
        assert!(!put.ignore_value && !put.ignore_lease, "not in the model");
        let before = self.now(&put.key);
        let kv = KeyValue {
            key: put.key.clone(),
            create_revision: before.as_ref().map_or(self.revision, |kv| kv.create_revision),
            mod_revision: self.revision,
            version: before.as_ref().map_or(1, |kv| kv.version + 1),
            value: put.value.clone(),
            lease: put.lease,
        };
        self.set(&put.key, Some(kv));
        PutResponse {
            revision: self.revision,
            prev_kv: before.filter(|_| put.prev_kv),
        }
    }

    fn check_lease(&self, put: &PutRequest) -> Result<(), Error> {
        if put.lease != 0 && !self.model.leases.contains_key(&put.lease) {
            return Err(Error::LeaseNotFound);
        }
        Ok(())
    }

    fn grant(&mut self, lease: Lease) -> Result<Response, Error> {
        let Lease { id, ttl, .. } = lease;
        if self.model.leases.contains_key(&id) {
            return Err(Error::LeaseExists);
        }
        self.model.leases.insert(id, lease);
        Ok(Response::LeaseGrant { id, ttl })
    }

    /// All keys of the lease go, in one revision. Unless it is void: seen to expire in another term, or granted anew since.
    fn revoke(&mut self, now: Term, id: i64, expiry: Option<Expiry>) -> Result<bool, Error> {
        if expiry.is_some_and(|expiry| expiry.term != now) {
            return Ok(true);
        }
        let lease = *self.model.leases.get(&id).ok_or(Error::LeaseNotFound)?;
        let named = expiry.and_then(|expiry| expiry.grant);
        if named.is_some_and(|grant| grant != lease.grant) {
            return Ok(true);
        }
        let attached = |key: &&Bytes| self.now(key).is_some_and(|kv| kv.lease == id);
        let keys: Vec<Bytes> = self.model.keys.keys().filter(attached).cloned().collect();
        for key in keys {
            self.set(&key, None);
        }
        self.model.leases.remove(&id);
        Ok(false)
    }

    fn delete(&mut self, delete: &DeleteRangeRequest) -> DeleteRangeResponse {
        let covered = self
            .model
            .keys
            .keys()
            .filter(|key| covers(&delete.key, &delete.range_end, key));
        let present: Vec<KeyValue> = covered
            .filter_map(|key| self.model.at(key, self.revision))
            .cloned()
            .collect();
        for kv in &present {
            self.set(&kv.key, None);
        }
        DeleteRangeResponse {
            revision: self.current(),
            deleted: present.len() as i64,
            prev_kvs: if delete.prev_kv { present } else { Vec::new() },
        }
    }

    fn holds(&self, compare: &Compare) -> bool {
        assert!(compare.range_end.is_empty(), "not in the model");
        let kv = self.now(&compare.key);
        let number = |of: fn(&KeyValue) -> i64| kv.as_ref().map_or(0, of);
        let order = match &compare.target {
            CompareTarget::Version(given) => number(|kv| kv.version).cmp(given),
            CompareTarget::Create(given) => number(|kv| kv.create_revision).cmp(given),
            CompareTarget::Mod(given) => number(|kv| kv.mod_revision).cmp(given),
            CompareTarget::Lease(given) => number(|kv| kv.lease).cmp(given),
            CompareTarget::Value(given) => match &kv {
                Some(kv) => kv.value.cmp(given),
                None => return false,
            },
        };
        match compare.op {
            CompareOp::Equal => order.is_eq(),
            CompareOp::NotEqual => order.is_ne(),
            CompareOp::Greater => order.is_gt(),
            CompareOp::Less => order.is_lt(),
        }
    }

    fn txn(&mut self, txn: &TxnRequest) -> Result<TxnResponse, Error> {
        let succeeded = txn.compare.iter().all(|compare| self.holds(compare));
        let branch = if succeeded { &txn.success } else { &txn.failure };
        // It fails before its first write, or succeeds as a whole.
        for op in branch {
            if let RequestOp::Put(put) = op {
                self.check_lease(put)?;
            }
        }
        let responses = branch.iter().map(|op| self.op(op)).collect();
        Ok(TxnResponse {
            revision: self.current(),
            succeeded,
            responses,
        })
    }

    fn op(&mut self, op: &RequestOp) -> ResponseOp {
        match op {
            RequestOp::Put(put) => ResponseOp::Put(self.put(put)),
            RequestOp::DeleteRange(delete) => ResponseOp::DeleteRange(self.delete(delete)),
            RequestOp::Range(range) => {
                let kvs = self.model.read(range, self.revision).cloned().collect::<Vec<_>>();
                let (count, revision) = (kvs.len() as i64, self.current());
                ResponseOp::Range(RangeResponse {
                    revision,
                    kvs,
                    more: false,
                    count,
                })
            }
            RequestOp::Txn(_) | RequestOp::Empty => panic!("not in the model"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which entry it is matters to leases only.
    const AT: LogId = LogId {
        term: Term(3),
        index: Index(7),
    };

    fn put(key: &'static str, value: &'static str) -> Command {
        Command::Put(PutRequest {
            key: key.into(),
            value: value.into(),
            ..PutRequest::default()
        })
    }

    fn delete(key: &'static str) -> Command {
        Command::DeleteRange(DeleteRangeRequest {
            key: key.into(),
            ..DeleteRangeRequest::default()
        })
    }

    #[test]
    fn revisions_count_changes_and_nothing_else() {
        let mut model = Model::default();
        let revision = |model: &mut Model, command| model.apply(AT, &command).unwrap().revision;
        assert_eq!(revision(&mut model, put("a", "1")), 2);
        assert_eq!(revision(&mut model, delete("b")), 2, "nothing was deleted");
        assert_eq!(revision(&mut model, delete("a")), 3);
        assert_eq!(revision(&mut model, put("a", "2")), 4);
        assert_eq!(
            revision(
                &mut model,
                Command::Compact {
                    revision: 3,
                    physical: false
                }
            ),
            4
        );
        let now = model.at(&"a".into(), 4).unwrap();
        assert_eq!(
            (now.create_revision, now.mod_revision, now.version),
            (4, 4, 1),
            "born again"
        );
        assert_eq!(model.at(&"a".into(), 3), None);
        assert_eq!(model.at(&"a".into(), 2).unwrap().value, "1");
    }

    #[test]
    fn a_transaction_is_one_revision_and_sees_itself() {
        let mut model = Model::default();
        let ops = [put("a", "1"), put("b", "2")].map(|command| match command {
            Command::Put(put) => RequestOp::Put(put),
            _ => unreachable!(),
        });
        let range = RangeRequest {
            key: "a".into(),
            range_end: "z".into(),
            ..RangeRequest::default()
        };
        let success = [ops.to_vec(), vec![RequestOp::Range(range)]].concat();
        let txn = Command::Txn(TxnRequest {
            success,
            ..TxnRequest::default()
        });
        let applied = model.apply(AT, &txn).unwrap();
        assert_eq!(applied.revision, 2);
        let Response::Txn(TxnResponse { responses, .. }) = applied.response else {
            panic!("a txn")
        };
        let ResponseOp::Range(range) = &responses[2] else {
            panic!("a range")
        };
        assert_eq!((range.count, range.revision), (2, 2));
    }

    #[test]
    fn a_lease_takes_its_keys_with_it_in_one_revision() {
        let mut model = Model::default();
        let attached = |key: &'static str, lease| {
            Command::Put(PutRequest {
                key: key.into(),
                lease,
                ..PutRequest::default()
            })
        };
        let grant = Command::grant(2, 5, 1);
        assert_eq!(
            model.apply(AT, &attached("a", 5)),
            Err(Error::LeaseNotFound),
            "not granted yet"
        );
        model.apply(AT, &grant).unwrap();
        assert_eq!(model.apply(AT, &grant), Err(Error::LeaseExists));
        for command in [
            attached("a", 5),
            attached("b", 5),
            attached("c", 5),
            attached("b", 0),
        ] {
            model.apply(AT, &command).unwrap();
        }
        let mut revoke = |term, grant| {
            let expiry = Some(Expiry {
                term: Term(term),
                grant: Some(Index(grant)),
            });
            let applied = model.apply(AT, &Command::LeaseRevoke { id: 5, expiry });
            applied.map(|applied| (applied.revision, applied.response))
        };
        assert_eq!(
            revoke(2, 7),
            Ok((5, Response::LeaseRevoke { void: true })),
            "another term"
        );
        assert_eq!(
            revoke(3, 6),
            Ok((5, Response::LeaseRevoke { void: true })),
            "another grant"
        );
        assert_eq!(revoke(3, 7), Ok((6, Response::LeaseRevoke { void: false })));
        assert_eq!(revoke(3, 7), Err(Error::LeaseNotFound));
        let gone: Vec<_> = model
            .events(6, 6)
            .map(|event| (event.kind, &event.kv.key[..]))
            .collect();
        assert_eq!(gone, [(EventKind::Delete, &b"a"[..]), (EventKind::Delete, b"c")]);
        assert!(model.at(&"b".into(), 6).is_some(), "it was detached");
    }

    #[test]
    fn events_carry_the_version_before_the_revision() {
        let mut model = Model::default();
        for command in [put("a", "1"), put("a", "2"), delete("a"), put("a", "3")] {
            model.apply(AT, &command).unwrap();
        }
        let before: Vec<_> = model
            .events(2, 5)
            .map(|event| event.prev_kv.as_ref().map(|kv| kv.mod_revision))
            .collect();
        assert_eq!(before, [None, Some(2), Some(3), None]);
        let creates: Vec<bool> = model.events(2, 5).map(Event::is_create).collect();
        assert_eq!(creates, [true, false, false, true]);
    }
}
