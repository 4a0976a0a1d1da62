//! Transactions: all compares are evaluated first, nested ones too, against the state before; that gives a [`Plan`], the
//! operations that will be done. The plan is checked against the state, so that a transaction either fails before its first
//! write or succeeds as a whole.

use bytes::Bytes;

use crate::cover::Cover;
use crate::error::Error;
use crate::interval;
use crate::range::{Reader, key_bounds};
use crate::row::{Keys, Latest, Leases};
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
        self.check_plan(&plan, &mut Cover::default())?;
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

    /// Whether everything planned can be done, in its order. `gone` are the keys deleted so far: a put that keeps something of its key
    /// cannot follow the key's deletion. (etcd finds that out half-way, and gives the member up.)
    pub(crate) fn check_plan<'t>(&self, plan: &Plan<'t>, gone: &mut Cover<&'t [u8]>) -> Result<(), Error> {
        for op in &plan.ops {
            match op {
                PlannedOp::Range(range) => self.check_revision(range.revision)?,
                PlannedOp::Put(put) => {
                    if keeps(put) && gone.contains(&put.key) {
                        return Err(Error::KeyNotFound);
                    }
                    self.check_put(put)?;
                }
                PlannedOp::DeleteRange(delete) => {
                    gone.add(&delete.key, interval::end(&delete.key, &delete.range_end));
                }
                PlannedOp::Txn(plan) => self.check_plan(plan, gone)?,
            }
        }
        Ok(())
    }

    /// Whether a checked put can be done: what it keeps must be there, and so must its lease.
    pub(crate) fn check_put(&self, put: &PutRequest) -> Result<(), Error> {
        if keeps(put) && self.latest(&put.key)?.is_none() {
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
            let latest = self.latest(&compare.key)?;
            return self.holds_for(compare, latest.as_ref());
        }
        if interval::is_empty(&compare.key, &compare.range_end) {
            return self.holds_for(compare, None);
        }
        let mut any = false;
        for row in self
            .layers
            .range::<Keys>(&key_bounds(&compare.key, &compare.range_end))?
        {
            let latest = row?.value()?;
            if latest.is_tombstone() {
                continue;
            }
            any = true;
            if !self.holds_for(compare, Some(&latest))? {
                return Ok(false);
            }
        }
        match any {
            true => Ok(true),
            false => self.holds_for(compare, None),
        }
    }

    /// A missing key compares as zeros, except that nothing holds for its value.
    fn holds_for(&self, compare: &Compare, latest: Option<&Latest>) -> Result<bool, Error> {
        let number = |field: fn(&Latest) -> i64, given: i64| latest.map_or(0, field).cmp(&given);
        let ordering = match &compare.target {
            CompareTarget::Version(given) => number(|latest| latest.version, *given),
            CompareTarget::Create(given) => number(|latest| latest.create, *given),
            CompareTarget::Mod(given) => number(|latest| latest.at.0, *given),
            CompareTarget::Lease(given) => number(|latest| latest.lease, *given),
            CompareTarget::Value(given) => match latest {
                Some(latest) => Bytes::cmp(&self.version(latest.at)?.value, given),
                None => return Ok(false),
            },
        };
        Ok(match compare.op {
            CompareOp::Equal => ordering.is_eq(),
            CompareOp::Greater => ordering.is_gt(),
            CompareOp::Less => ordering.is_lt(),
            CompareOp::NotEqual => ordering.is_ne(),
        })
    }
}

/// Whether a put keeps something of the version before, which must then be there.
fn keeps(put: &PutRequest) -> bool {
    put.ignore_value || put.ignore_lease
}
