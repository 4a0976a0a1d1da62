//! The specification as a program nobody would ship: the whole key space copied at every revision.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_base::{Index, LogId};
use quorate_kv::*;

type Keys = BTreeMap<Bytes, KeyValue>;

#[derive(Clone, Debug)]
pub struct Model {
    /// The key space after each revision.
    pub at: BTreeMap<i64, Keys>,
    pub events: Vec<Event>,
    pub leases: BTreeMap<i64, Lease>,
    pub alarms: BTreeSet<Alarm>,
    pub compacted: i64,
}

/// A command at work: the state so far and the changes.
struct Work {
    keys: Keys,
    before: Keys,
    main: i64,
    events: Vec<Event>,
}

impl Model {
    pub fn new() -> Model {
        Model {
            at: BTreeMap::from([(1, Keys::new())]),
            events: Vec::new(),
            leases: BTreeMap::new(),
            alarms: BTreeSet::new(),
            compacted: -1,
        }
    }

    pub fn revision(&self) -> i64 {
        *self.at.last_key_value().unwrap().0
    }

    fn now(&self) -> &Keys {
        self.at.last_key_value().unwrap().1
    }

    pub fn apply(&mut self, at: LogId, command: &Command) -> Result<Applied, Error> {
        let has = |kind| self.alarms.iter().any(|alarm| alarm.kind == kind);
        if has(AlarmKind::Corrupt) && !matches!(command, Command::Alarm { .. }) {
            return Err(Error::Corrupt);
        }
        let full = has(AlarmKind::NoSpace);
        let response = match command {
            Command::Put(_) | Command::LeaseGrant { .. } if full => return Err(Error::NoSpace),
            Command::Txn(txn) if full && txn.has_put() => return Err(Error::NoSpace),
            Command::Put(put) => {
                put.check()?;
                if put.lease != 0 && !self.leases.contains_key(&put.lease) {
                    return Err(Error::LeaseNotFound);
                }
                self.check_put(put, &self.present())?;
                let mut work = self.work();
                let response = work.put(put);
                self.done(work);
                Response::Put(response)
            }
            Command::DeleteRange(delete) => {
                delete.check()?;
                let mut work = self.work();
                let response = work.delete(delete);
                self.done(work);
                Response::DeleteRange(response)
            }
            Command::Txn(txn) => {
                txn.check()?;
                self.check_branches(txn, &mut self.present())?;
                let mut work = self.work();
                let response = self.txn(txn, &mut work);
                self.done(work);
                Response::Txn(response)
            }
            Command::Compact { revision, .. } if *revision <= self.compacted => return Err(Error::Compacted),
            Command::Compact { revision, .. } if *revision > self.revision() => {
                return Err(Error::FutureRevision);
            }
            Command::Compact { revision, .. } => {
                self.compacted = *revision;
                Response::Compact
            }
            Command::LeaseGrant { id, .. } if *id == 0 => return Err(Error::LeaseNotFound),
            Command::LeaseGrant { ttl, .. } if *ttl > lease::MAX_TTL => return Err(Error::LeaseTtlTooLarge),
            Command::LeaseGrant { id, .. } if self.leases.contains_key(id) => return Err(Error::LeaseExists),
            Command::LeaseGrant { id, ttl, named } => {
                let (id, ttl) = (*id, *ttl);
                let grant = if *named { at.index } else { Index(0) };
                self.leases.insert(id, Lease { id, ttl, grant });
                Response::LeaseGrant { id, ttl }
            }
            Command::LeaseRevoke { id, expiry } => Response::LeaseRevoke {
                void: self.revoke(*id, *expiry, at)?,
            },
            Command::Alarm { action, member, kind } => Response::Alarm(self.alarm(*action, *member, *kind)),
        };
        Ok(Applied {
            revision: self.revision(),
            response,
        })
    }

    fn revoke(&mut self, id: i64, expiry: Option<Expiry>, at: LogId) -> Result<bool, Error> {
        if expiry.is_some_and(|seen| seen.term != at.term) {
            return Ok(true);
        }
        let lease = *self.leases.get(&id).ok_or(Error::LeaseNotFound)?;
        match expiry {
            Some(Expiry {
                grant: Some(grant), ..
            }) if grant != lease.grant => return Ok(true),
            _ => self.leases.remove(&id),
        };
        let mut work = self.work();
        for key in self.lease_keys(id) {
            work.delete(&DeleteRangeRequest {
                key,
                ..DeleteRangeRequest::default()
            });
        }
        self.done(work);
        Ok(false)
    }

    pub fn lease_keys(&self, id: i64) -> Vec<Bytes> {
        self.now()
            .values()
            .filter(|kv| kv.lease == id)
            .map(|kv| kv.key.clone())
            .collect()
    }

    fn alarm(&mut self, action: AlarmAction, member: u64, kind: Option<AlarmKind>) -> Vec<Alarm> {
        match (action, kind) {
            (AlarmAction::Get, kind) => {
                let listed = |alarm: &&Alarm| kind.is_none_or(|kind| kind == alarm.kind);
                self.alarms.iter().filter(listed).copied().collect()
            }
            (AlarmAction::Activate, Some(kind)) => {
                self.alarms.insert(Alarm { member, kind });
                vec![Alarm { member, kind }]
            }
            (AlarmAction::Deactivate, Some(kind)) => {
                let (gone, left) = self
                    .alarms
                    .iter()
                    .partition(|alarm| alarm.kind == kind && (member == 0 || alarm.member == member));
                self.alarms = left;
                let gone: BTreeSet<Alarm> = gone;
                gone.into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    fn work(&self) -> Work {
        Work {
            keys: self.now().clone(),
            before: self.now().clone(),
            main: self.revision() + 1,
            events: Vec::new(),
        }
    }

    fn done(&mut self, work: Work) {
        if !work.events.is_empty() {
            self.at.insert(work.main, work.keys);
            self.events.extend(work.events);
        }
    }

    fn present(&self) -> BTreeSet<Bytes> {
        self.now().keys().cloned().collect()
    }

    fn check_put(&self, put: &PutRequest, present: &BTreeSet<Bytes>) -> Result<(), Error> {
        if (put.ignore_lease || put.ignore_value) && !present.contains(&put.key) {
            return Err(Error::KeyNotFound);
        }
        if put.lease != 0 && !self.leases.contains_key(&put.lease) {
            return Err(Error::LeaseNotFound);
        }
        Ok(())
    }

    fn branch<'t>(&self, txn: &'t TxnRequest) -> (bool, &'t [RequestOp]) {
        match txn.compare.iter().all(|compare| self.holds(compare)) {
            true => (true, &txn.success),
            false => (false, &txn.failure),
        }
    }

    /// `present` are the keys that are there when it comes to the transaction, and then those after it.
    fn check_branches(&self, txn: &TxnRequest, present: &mut BTreeSet<Bytes>) -> Result<(), Error> {
        for op in self.branch(txn).1 {
            match op {
                RequestOp::Put(put) => {
                    self.check_put(put, present)?;
                    present.insert(put.key.clone());
                }
                RequestOp::DeleteRange(delete) => {
                    present.retain(|key| !within(key, &delete.key, &delete.range_end));
                }
                RequestOp::Range(range) if range.revision > self.revision() => {
                    return Err(Error::FutureRevision);
                }
                RequestOp::Range(range) if range.revision > 0 && range.revision < self.compacted => {
                    return Err(Error::Compacted);
                }
                RequestOp::Txn(txn) => self.check_branches(txn, present)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn holds(&self, compare: &Compare) -> bool {
        let mut found: Vec<Option<&KeyValue>> = self
            .now()
            .values()
            .filter(|kv| within(&kv.key, &compare.key, &compare.range_end))
            .map(Some)
            .collect();
        if found.is_empty() {
            found.push(None);
        }
        found.into_iter().all(|kv| {
            let zero = KeyValue::default();
            let (there, kv) = (kv.is_some(), kv.unwrap_or(&zero));
            let order = match &compare.target {
                CompareTarget::Version(n) => kv.version.cmp(n),
                CompareTarget::Create(n) => kv.create_revision.cmp(n),
                CompareTarget::Mod(n) => kv.mod_revision.cmp(n),
                CompareTarget::Lease(n) => kv.lease.cmp(n),
                CompareTarget::Value(_) if !there => return false,
                CompareTarget::Value(value) => kv.value.cmp(value),
            };
            match compare.op {
                CompareOp::Equal => order.is_eq(),
                CompareOp::NotEqual => order.is_ne(),
                CompareOp::Greater => order.is_gt(),
                CompareOp::Less => order.is_lt(),
            }
        })
    }

    /// All branches were checked, and are chosen by the state before the transaction.
    fn txn(&self, txn: &TxnRequest, work: &mut Work) -> TxnResponse {
        let (succeeded, ops) = self.branch(txn);
        let responses = ops
            .iter()
            .map(|op| match op {
                RequestOp::Put(put) => ResponseOp::Put(work.put(put)),
                RequestOp::DeleteRange(delete) => ResponseOp::DeleteRange(work.delete(delete)),
                RequestOp::Txn(txn) => ResponseOp::Txn(Box::new(self.txn(txn, work))),
                RequestOp::Range(range) => {
                    let latest = work.revision();
                    let keys = match range.revision {
                        n if n <= 0 || n == latest => &work.keys,
                        n => &self.at[&n],
                    };
                    ResponseOp::Range(range_of(keys, range, latest))
                }
                RequestOp::Empty => unreachable!("checked"),
            })
            .collect();
        TxnResponse {
            revision: work.revision(),
            succeeded,
            responses,
        }
    }

    pub fn range(&self, range: &RangeRequest) -> Result<RangeResponse, Error> {
        range.check()?;
        let latest = self.revision();
        let revision = if range.revision <= 0 {
            latest
        } else {
            range.revision
        };
        if revision > latest {
            return Err(Error::FutureRevision);
        }
        if revision < self.compacted {
            return Err(Error::Compacted);
        }
        Ok(range_of(&self.at[&revision], range, latest))
    }
}

impl Work {
    fn revision(&self) -> i64 {
        self.main - i64::from(self.events.is_empty())
    }

    fn event(&mut self, kind: EventKind, kv: KeyValue) {
        let creates = kv.create_revision == self.main;
        self.events.push(Event {
            kind,
            sub: self.events.len() as u32,
            prev_kv: self.before.get(&kv.key).filter(|_| !creates).cloned(),
            kv,
        });
    }

    fn put(&mut self, put: &PutRequest) -> PutResponse {
        let old = self.keys.get(&put.key).cloned();
        let some = old.clone().unwrap_or_default();
        let kv = KeyValue {
            key: put.key.clone(),
            create_revision: if old.is_some() {
                some.create_revision
            } else {
                self.main
            },
            mod_revision: self.main,
            version: some.version + 1,
            value: if put.ignore_value {
                some.value
            } else {
                put.value.clone()
            },
            lease: if put.ignore_lease { some.lease } else { put.lease },
        };
        self.keys.insert(put.key.clone(), kv.clone());
        self.event(EventKind::Put, kv);
        PutResponse {
            revision: self.main,
            prev_kv: old.filter(|_| put.prev_kv),
        }
    }

    fn delete(&mut self, delete: &DeleteRangeRequest) -> DeleteRangeResponse {
        let doomed = |kv: &&KeyValue| within(&kv.key, &delete.key, &delete.range_end);
        let gone: Vec<KeyValue> = self.keys.values().filter(doomed).cloned().collect();
        for kv in &gone {
            self.keys.remove(&kv.key);
            let tombstone = KeyValue {
                key: kv.key.clone(),
                mod_revision: self.main,
                ..KeyValue::default()
            };
            self.event(EventKind::Delete, tombstone);
        }
        DeleteRangeResponse {
            revision: self.revision(),
            deleted: gone.len() as i64,
            prev_kvs: if delete.prev_kv { gone } else { Vec::new() },
        }
    }
}

pub fn within(key: &[u8], start: &[u8], end: &[u8]) -> bool {
    match end {
        [] => key == start,
        [0] => key >= start,
        end => key >= start && key < end,
    }
}

fn range_of(keys: &Keys, range: &RangeRequest, latest: i64) -> RangeResponse {
    let mut kvs: Vec<KeyValue> = keys
        .values()
        .filter(|kv| within(&kv.key, &range.key, &range.range_end))
        .cloned()
        .collect();
    let count = kvs.len() as i64;
    if range.count_only {
        kvs.clear();
    }
    kvs.retain(|kv| {
        (range.min_mod_revision == 0 || kv.mod_revision >= range.min_mod_revision)
            && (range.max_mod_revision == 0 || kv.mod_revision <= range.max_mod_revision)
            && (range.min_create_revision == 0 || kv.create_revision >= range.min_create_revision)
            && (range.max_create_revision == 0 || kv.create_revision <= range.max_create_revision)
    });
    // Without an order or a filter, the limit comes before the sort: one more than it says is seen.
    let filters = [
        range.min_mod_revision,
        range.max_mod_revision,
        range.min_create_revision,
        range.max_create_revision,
    ];
    if range.sort_order == SortOrder::None && range.limit > 0 && filters == [0; 4] {
        kvs.truncate(range.limit as usize + 1);
    }
    kvs.sort_by(|a, b| match range.sort_target {
        SortTarget::Key => a.key.cmp(&b.key),
        SortTarget::Version => a.version.cmp(&b.version),
        SortTarget::Create => a.create_revision.cmp(&b.create_revision),
        SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
        SortTarget::Value => a.value.cmp(&b.value),
    });
    if range.sort_order == SortOrder::Descend {
        // Equal ones keep the order of their keys.
        let mut groups: Vec<Vec<KeyValue>> = Vec::new();
        for kv in kvs {
            let same = |last: &KeyValue| match range.sort_target {
                SortTarget::Key => last.key == kv.key,
                SortTarget::Version => last.version == kv.version,
                SortTarget::Create => last.create_revision == kv.create_revision,
                SortTarget::Mod => last.mod_revision == kv.mod_revision,
                SortTarget::Value => last.value == kv.value,
            };
            match groups.last_mut() {
                Some(group) if same(&group[0]) => group.push(kv),
                _ => groups.push(vec![kv]),
            }
        }
        kvs = groups.into_iter().rev().flatten().collect();
    }
    let more = range.limit > 0 && kvs.len() as i64 > range.limit;
    if more {
        kvs.truncate(range.limit as usize);
    }
    if range.keys_only {
        kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
    }
    RangeResponse {
        revision: latest,
        kvs,
        more,
        count,
    }
}
