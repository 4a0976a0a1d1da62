//! A key-value store with etcd's revisions, written as plainly as possible: every version of every key is kept, nothing is on
//! disk, nothing is fast. The simulator applies every committed command to it once and compares what the real nodes
//! answer. It covers what the simulated clients send, and says so where it does not.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_kv::{
    Applied, Command, Compare, CompareOp, CompareTarget, DeleteRangeRequest, DeleteRangeResponse, Error,
    KeyValue, PutRequest, PutResponse, RangeRequest, RangeResponse, RequestOp, Response, ResponseOp,
    TxnRequest, TxnResponse,
};

/// What one revision changed: keys with their new values, or `None` where one was deleted.
pub type Change = Vec<(Bytes, Option<Bytes>)>;

/// The model.
#[derive(Clone, Debug)]
pub struct Model {
    revision: i64,
    compacted: i64,
    /// All versions of each key, oldest first; `None` is a deletion.
    keys: BTreeMap<Bytes, Vec<(i64, Option<KeyValue>)>>,
    changes: BTreeMap<i64, Change>,
}

impl Default for Model {
    fn default() -> Model {
        Model {
            revision: 1,
            compacted: 0,
            keys: BTreeMap::new(),
            changes: BTreeMap::new(),
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

    /// What applying `command` must answer.
    pub fn apply(&mut self, command: &Command) -> Result<Applied, Error> {
        let mut writer = Writer {
            revision: self.revision + 1,
            model: self,
        };
        let response = match command {
            Command::Put(put) => Response::Put(writer.put(put)),
            Command::DeleteRange(delete) => Response::DeleteRange(writer.delete(delete)),
            Command::Txn(txn) => Response::Txn(writer.txn(txn)),
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
            other => panic!("the model has no rule for {other:?}"),
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
        let versions = self.keys.get(key)?;
        let after = versions.partition_point(|version| version.0 <= revision);
        versions[..after].last()?.1.as_ref()
    }

    /// What a read without limit, filters or special order finds at `revision`, compaction not regarded.
    pub fn read(&self, request: &RangeRequest, revision: i64) -> Vec<KeyValue> {
        let found = self
            .keys
            .keys()
            .filter(|key| covers(&request.key, &request.range_end, key));
        found.filter_map(|key| self.at(key, revision)).cloned().collect()
    }
}

fn covers(from: &Bytes, end: &Bytes, key: &Bytes) -> bool {
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
        assert!(
            !put.ignore_value && !put.ignore_lease && put.lease == 0,
            "not in the model"
        );
        let before = self.now(&put.key);
        let kv = KeyValue {
            key: put.key.clone(),
            create_revision: before.as_ref().map_or(self.revision, |kv| kv.create_revision),
            mod_revision: self.revision,
            version: before.as_ref().map_or(1, |kv| kv.version + 1),
            value: put.value.clone(),
            lease: 0,
        };
        self.set(&put.key, Some(kv));
        PutResponse {
            revision: self.revision,
            prev_kv: before.filter(|_| put.prev_kv),
        }
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

    fn txn(&mut self, txn: &TxnRequest) -> TxnResponse {
        let succeeded = txn.compare.iter().all(|compare| self.holds(compare));
        let branch = if succeeded { &txn.success } else { &txn.failure };
        let responses = branch.iter().map(|op| self.op(op)).collect();
        TxnResponse {
            revision: self.current(),
            succeeded,
            responses,
        }
    }

    fn op(&mut self, op: &RequestOp) -> ResponseOp {
        match op {
            RequestOp::Put(put) => ResponseOp::Put(self.put(put)),
            RequestOp::DeleteRange(delete) => ResponseOp::DeleteRange(self.delete(delete)),
            RequestOp::Range(range) => {
                let kvs = self.model.read(range, self.revision);
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
        let revision = |model: &mut Model, command| model.apply(&command).unwrap().revision;
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
        let applied = model.apply(&txn).unwrap();
        assert_eq!(applied.revision, 2);
        let Response::Txn(TxnResponse { responses, .. }) = applied.response else {
            panic!("a txn")
        };
        let ResponseOp::Range(range) = &responses[2] else {
            panic!("a range")
        };
        assert_eq!((range.count, range.revision), (2, 2));
    }
}
