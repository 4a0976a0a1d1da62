//! What can be said about a request without looking at the state: etcd's validation rules. The server asks before
//! proposing; `apply` asks again for transactions, so that it relies on no proposer.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::cover::Cover;
use crate::error::Error;
use crate::interval;
use crate::level;
use crate::types::{DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest};

/// How many operations a transaction may have, nested ones included in their parents' budget.
pub const MAX_TXN_OPS: usize = 128;

impl RangeRequest {
    /// Checks the request alone.
    pub fn check(&self) -> Result<(), Error> {
        non_empty(&self.key)
    }
}

impl PutRequest {
    /// Checks the request alone.
    pub fn check(&self) -> Result<(), Error> {
        non_empty(&self.key)?;
        if self.ignore_value && !self.value.is_empty() {
            return Err(Error::ValueProvided);
        }
        if self.ignore_lease && self.lease != 0 {
            return Err(Error::LeaseProvided);
        }
        Ok(())
    }
}

impl DeleteRangeRequest {
    /// Checks the request alone.
    pub fn check(&self) -> Result<(), Error> {
        non_empty(&self.key)
    }
}

impl TxnRequest {
    /// Checks the request alone: sizes, keys, and that no branch writes a key twice. It is what `apply` checks; proposers use
    /// [`check_at`](TxnRequest::check_at).
    pub fn check(&self) -> Result<(), Error> {
        self.check_by(OpenDeletes::CoverNothing)
    }

    /// Checks the request alone before it is proposed in a cluster of this feature level: what some member might refuse when it applies it
    /// is refused here, and so never in the log.
    pub fn check_at(&self, level: u32) -> Result<(), Error> {
        self.check_by(match level >= level::OPEN_DELETES {
            true => OpenDeletes::CoverNothing,
            false => OpenDeletes::CoverKeys,
        })
    }

    fn check_by(&self, open: OpenDeletes) -> Result<(), Error> {
        self.check_ops(MAX_TXN_OPS)?;
        writes(&self.success, open)?;
        writes(&self.failure, open)?;
        Ok(())
    }

    fn check_ops(&self, budget: usize) -> Result<(), Error> {
        let ops = self.compare.len().max(self.success.len()).max(self.failure.len());
        if ops > budget {
            return Err(Error::TooManyOps);
        }
        for compare in &self.compare {
            non_empty(&compare.key)?;
        }
        for op in self.success.iter().chain(&self.failure) {
            match op {
                RequestOp::Empty => return Err(Error::KeyNotFound),
                RequestOp::Range(range) => range.check()?,
                RequestOp::Put(put) => put.check()?,
                RequestOp::DeleteRange(delete) => delete.check()?,
                RequestOp::Txn(txn) => txn.check_ops(budget - ops)?,
            }
        }
        Ok(())
    }
}

fn non_empty(key: &Bytes) -> Result<(), Error> {
    if key.is_empty() {
        return Err(Error::EmptyKey);
    }
    Ok(())
}

/// How deletes with the range end `"\0"` stand against puts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OpenDeletes {
    /// They meet none. etcd takes the end for the plain key `"\0"` here, before which no key lies, though it deletes to the end of
    /// all keys when it comes to it.
    CoverNothing,
    /// They meet those of the keys they delete: the rule of releases below [`level::OPEN_DELETES`].
    CoverKeys,
}

/// The keys put and the ranges deleted by a branch.
#[derive(Default)]
struct Writes<'a> {
    puts: BTreeSet<&'a [u8]>,
    deletes: Cover<&'a [u8]>,
}

impl<'a> Writes<'a> {
    /// Adds a put, unless it stands already, or a delete covers it.
    fn put(&mut self, key: &'a [u8]) -> Result<(), Error> {
        if self.deletes.contains(key) || !self.puts.insert(key) {
            return Err(Error::DuplicateKey);
        }
        Ok(())
    }

    /// Adds what a nested transaction writes, in one of its branches or the other, unless this puts such a key or deletes it. Costs what
    /// the smaller of the two takes: each put and delete is so handled a logarithmic number of times, however deep it is nested.
    fn nest(&mut self, success: Writes<'a>, failure: Writes<'a>) -> Result<(), Error> {
        let meets = |nested: &Writes<'a>| self.deletes.meets(&nested.puts) || share(&self.puts, &nested.puts);
        if meets(&success) || meets(&failure) {
            return Err(Error::DuplicateKey);
        }
        for nested in [success, failure] {
            unite(&mut self.puts, nested.puts);
            self.deletes.absorb(nested.deletes);
        }
        Ok(())
    }
}

/// Whether a key is in both.
fn share(a: &BTreeSet<&[u8]>, b: &BTreeSet<&[u8]>) -> bool {
    let (few, many) = if a.len() < b.len() { (a, b) } else { (b, a) };
    few.iter().any(|key| many.contains(key))
}

/// Adds the smaller to the larger.
fn unite<'a>(all: &mut BTreeSet<&'a [u8]>, mut more: BTreeSet<&'a [u8]>) {
    if all.len() < more.len() {
        std::mem::swap(all, &mut more);
    }
    all.extend(more);
}

/// Collects what a branch writes; an error if it puts a key twice or puts and deletes one. The two branches of a nested transaction exclude
/// each other, so a key may stand in both. Like etcd, puts are held against the deletes of their own branch and of nested
/// transactions before them, not of later ones.
fn writes(branch: &[RequestOp], open: OpenDeletes) -> Result<Writes<'_>, Error> {
    let mut all = Writes::default();
    for op in branch {
        if let RequestOp::DeleteRange(delete) = op
            && (open == OpenDeletes::CoverKeys || !interval::is_open(&delete.range_end))
        {
            all.deletes
                .add(&delete.key, interval::end(&delete.key, &delete.range_end));
        }
    }
    for op in branch {
        if let RequestOp::Txn(txn) = op {
            all.nest(writes(&txn.success, open)?, writes(&txn.failure, open)?)?;
        }
    }
    for op in branch {
        if let RequestOp::Put(put) = op {
            all.put(&put.key)?;
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The rule, as it is said, with nothing done to be quick.
    fn plainly(branch: &[RequestOp]) -> Option<(Vec<Bytes>, Vec<DeleteRangeRequest>)> {
        let covered = |deletes: &[DeleteRangeRequest], key: &Bytes| {
            deletes.iter().any(|delete| match &delete.range_end[..] {
                [] => *key == delete.key,
                end => *key >= delete.key && &key[..] < end,
            })
        };
        let (mut puts, mut deletes) = (Vec::new(), Vec::new());
        for op in branch {
            if let RequestOp::DeleteRange(delete) = op {
                deletes.push(delete.clone());
            }
        }
        for op in branch {
            let RequestOp::Txn(txn) = op else { continue };
            let (success, failure) = (plainly(&txn.success)?, plainly(&txn.failure)?);
            let keys = [success.0, failure.0].concat();
            if keys
                .iter()
                .any(|key| puts.contains(key) || covered(&deletes, key))
            {
                return None;
            }
            puts.extend(keys);
            deletes.extend([success.1, failure.1].concat());
        }
        for op in branch {
            let RequestOp::Put(put) = op else { continue };
            if puts.contains(&put.key) || covered(&deletes, &put.key) {
                return None;
            }
            puts.push(put.key.clone());
        }
        Some((puts, deletes))
    }

    fn key() -> impl Strategy<Value = Bytes> {
        (b'a'..=b'h').prop_map(|name| Bytes::copy_from_slice(&[name]))
    }

    fn branch() -> impl Strategy<Value = Vec<RequestOp>> {
        let put = key().prop_map(|key| {
            RequestOp::Put(PutRequest {
                key,
                ..PutRequest::default()
            })
        });
        let delete = (key(), prop_oneof![Just(Bytes::new()), key()]).prop_map(|(key, range_end)| {
            RequestOp::DeleteRange(DeleteRangeRequest {
                key,
                range_end,
                prev_kv: false,
            })
        });
        let leaf = prop_oneof![2 => put, 1 => delete];
        let op = leaf.prop_recursive(3, 24, 4, |op| {
            let branch = || prop::collection::vec(op.clone(), 0..4);
            (branch(), branch()).prop_map(|(success, failure)| {
                RequestOp::Txn(Box::new(TxnRequest {
                    compare: Vec::new(),
                    success,
                    failure,
                }))
            })
        });
        prop::collection::vec(op, 0..5)
    }

    proptest! {
        #[test]
        fn keys_written_twice_are_found_as_the_plain_rule_finds_them(success in branch()) {
            let txn = TxnRequest { success, ..TxnRequest::default() };
            prop_assert_eq!(txn.check().is_ok(), plainly(&txn.success).is_some());
        }
    }
}
