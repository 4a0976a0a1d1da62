//! What can be said about a request without looking at the state: etcd's validation rules. The server asks before
//! proposing; `apply` asks again for transactions, so that it relies on no proposer.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::error::Error;
use crate::interval::{self, KeyBounds};
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
    puts: BTreeSet<&'a Bytes>,
    deletes: Vec<KeyBounds<'a>>,
}

impl<'a> Writes<'a> {
    /// Adds a put, unless a delete covers it.
    fn put(&mut self, key: &'a Bytes) -> Result<(), Error> {
        if self.deletes.iter().any(|range| interval::contains(*range, key)) {
            return Err(Error::DuplicateKey);
        }
        self.puts.insert(key);
        Ok(())
    }
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
            all.deletes.push(interval::bounds(&delete.key, &delete.range_end));
        }
    }
    for op in branch {
        let RequestOp::Txn(txn) = op else { continue };
        let (success, failure) = (writes(&txn.success, open)?, writes(&txn.failure, open)?);
        for key in &success.puts {
            if all.puts.contains(key) {
                return Err(Error::DuplicateKey);
            }
        }
        for key in &failure.puts {
            if all.puts.contains(key) {
                return Err(Error::DuplicateKey);
            }
        }
        for key in success.puts.into_iter().chain(failure.puts) {
            all.put(key)?;
        }
        all.deletes.extend(success.deletes);
        all.deletes.extend(failure.deletes);
    }
    for op in branch {
        if let RequestOp::Put(put) = op {
            if all.puts.contains(&put.key) {
                return Err(Error::DuplicateKey);
            }
            all.put(&put.key)?;
        }
    }
    Ok(all)
}
