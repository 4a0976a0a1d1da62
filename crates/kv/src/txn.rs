//! Transactions: all compares are evaluated first, nested ones too, against the state before; that gives a [`Plan`], the
//! operations that will be done. The plan is checked against the state, so that a transaction either fails before its first
//! write or succeeds as a whole.

use bytes::Bytes;

use crate::error::Error;
use crate::interval::{self, KeyBounds};
use crate::range::{Reader, key_bounds};
use crate::row::{Current, Leases, Version};
use crate::types::{
    Compare, CompareOp, CompareTarget, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, ResponseOp,
    TxnRequest, TxnResponse,
};

/// The branches taken.
pub(crate) struct Plan<'t> {
    pub(crate) succeeded: bool,
    pub(crate) ops: Vec<PlannedOp<'t>>,
}

/// One operation of the branch taken.
pub(crate) enum PlannedOp<'t> {
    Range(&'t RangeRequest),
    Put(&'t PutRequest),
    DeleteRange(&'t DeleteRangeRequest),
    Txn(Plan<'t>),
}

impl Reader<'_> {
    /// Evaluates a read-only transaction, after checking it.
    pub(crate) fn txn_read(&self, request: &TxnRequest) -> Result<TxnResponse, Error> {
        assert!(
            request.is_read_only(),
            "a transaction that writes goes through the log"
        );
        request.check()?;
        let plan = self.plan(request)?;
        self.check_plan(&plan, &mut Vec::new())?;
        self.answer(&plan)
    }

    /// Evaluates the compares of a checked transaction.
    pub(crate) fn plan<'t>(&self, txn: &'t TxnRequest) -> Result<Plan<'t>, Error> {
        let mut succeeded = true;
        for compare in &txn.compare {
            if !self.holds(compare)? {
                succeeded = false;
                break;
            }
        }
        let branch = if succeeded { &txn.success } else { &txn.failure };
        let ops = branch.iter().map(|op| {
            Ok(match op {
                RequestOp::Empty => return Err(Error::KeyNotFound),
                RequestOp::Range(range) => PlannedOp::Range(range),
                RequestOp::Put(put) => PlannedOp::Put(put),
                RequestOp::DeleteRange(delete) => PlannedOp::DeleteRange(delete),
                RequestOp::Txn(txn) => PlannedOp::Txn(self.plan(txn)?),
            })
        });
        Ok(Plan {
            succeeded,
            ops: ops.collect::<Result<_, _>>()?,
        })
    }

    /// Whether everything planned can be done, in its order. `gone` are the ranges deleted so far: a put that keeps something of its key
    /// cannot follow the key's deletion. (etcd finds that out half-way, and gives the member up.)
    pub(crate) fn check_plan<'t>(&self, plan: &Plan<'t>, gone: &mut Vec<KeyBounds<'t>>) -> Result<(), Error> {
        for op in &plan.ops {
            match op {
                PlannedOp::Range(range) => self.check_revision(range.revision)?,
                PlannedOp::Put(put) => {
                    if keeps(put) && gone.iter().any(|range| interval::contains(*range, &put.key)) {
                        return Err(Error::KeyNotFound);
                    }
                    self.check_put(put)?;
                }
                PlannedOp::DeleteRange(delete) => {
                    gone.push(interval::bounds(&delete.key, &delete.range_end));
                }
                PlannedOp::Txn(plan) => self.check_plan(plan, gone)?,
            }
        }
        Ok(())
    }

    /// Whether a checked put can be done: what it keeps must be there, and so must its lease.
    pub(crate) fn check_put(&self, put: &PutRequest) -> Result<(), Error> {
        if keeps(put) && self.layers.get::<Current>(&put.key)?.is_none() {
            return Err(Error::KeyNotFound);
        }
        self.check_lease(put)
    }

    /// Whether the lease that a put names is there.
    pub(crate) fn check_lease(&self, put: &PutRequest) -> Result<(), Error> {
        if put.lease != 0 && self.layers.get::<Leases>(&put.lease)?.is_none() {
            return Err(Error::LeaseNotFound);
        }
        Ok(())
    }

    /// Answers a plan without writes.
    pub(crate) fn answer(&self, plan: &Plan<'_>) -> Result<TxnResponse, Error> {
        let responses = plan.ops.iter().map(|op| {
            Ok(match op {
                PlannedOp::Range(range) => ResponseOp::Range(self.range(range)?),
                PlannedOp::Txn(plan) => ResponseOp::Txn(Box::new(self.answer(plan)?)),
                PlannedOp::Put(_) | PlannedOp::DeleteRange(_) => {
                    unreachable!("a transaction that writes goes through the log")
                }
            })
        });
        Ok(TxnResponse {
            revision: self.latest,
            succeeded: plan.succeeded,
            responses: responses.collect::<Result<_, Error>>()?,
        })
    }

    /// Whether the condition holds, for every key of its range.
    fn holds(&self, compare: &Compare) -> Result<bool, Error> {
        if compare.range_end.is_empty() {
            let version = self.layers.get::<Current>(&compare.key)?;
            return Ok(holds_for(compare, version.as_ref()));
        }
        if interval::is_empty(&compare.key, &compare.range_end) {
            return Ok(holds_for(compare, None));
        }
        let mut any = false;
        for row in self
            .layers
            .range::<Current>(&key_bounds(&compare.key, &compare.range_end))?
        {
            any = true;
            if !holds_for(compare, Some(&row?.value()?)) {
                return Ok(false);
            }
        }
        Ok(any || holds_for(compare, None))
    }
}

/// Whether a put keeps something of the version before, which must then be there.
fn keeps(put: &PutRequest) -> bool {
    put.ignore_value || put.ignore_lease
}

/// A missing key compares as zeros, except that nothing holds for its value.
fn holds_for(compare: &Compare, stored: Option<&Version>) -> bool {
    let number = |field: fn(&Version) -> i64, given: i64| stored.map_or(0, field).cmp(&given);
    let ordering = match &compare.target {
        CompareTarget::Version(given) => number(|version| version.version, *given),
        CompareTarget::Create(given) => number(|version| version.create, *given),
        CompareTarget::Mod(given) => number(|version| version.modified, *given),
        CompareTarget::Lease(given) => number(|version| version.lease, *given),
        CompareTarget::Value(given) => match stored {
            Some(version) => Bytes::cmp(&version.value, given),
            None => return false,
        },
    };
    match compare.op {
        CompareOp::Equal => ordering.is_eq(),
        CompareOp::Greater => ordering.is_gt(),
        CompareOp::Less => ordering.is_lt(),
        CompareOp::NotEqual => ordering.is_ne(),
    }
}
