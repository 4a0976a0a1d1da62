//! What clients saw, checked against what was committed: the whole history, in one sweep over time. Revisions make this
//! linear instead of exponential: etcd's `header.revision` names the state that an answer is about, so it is enough that
//! answers are right for their revision and that revisions respect real time.
//!
//! The checker knows nothing of nodes, terms or logs. The search for a linearization that uses no revisions at all, on
//! the history of single keys, is in the tests.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_base::Term;
use quorate_kv::{Applied, Command, Error, RangeRequest, RangeResponse, RequestOp, Response};
use quorate_node::session::{Answer, SessionCommand};
use thiserror::Error;

use crate::model::{Change, Model};

/// A point in the simulator's total order of events.
pub type Moment = u64;

/// What a client asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// A command that goes through the log.
    Write(Command),
    /// A read.
    Read {
        /// What.
        request: RangeRequest,
        /// Whether the node's own state is good enough.
        serializable: bool,
    },
    /// A command of a client session. What must hold of it is checked while it happens, see [`ghost::sessions`](crate::ghost::sessions).
    Session(SessionCommand),
    /// A renewal of a lease. What must hold of it is checked while it happens, see [`ghost::leases`](crate::ghost::leases).
    Renew {
        /// Which.
        lease: i64,
    },
}

/// What became of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// A write was carried out.
    Written(Result<Applied, Error>),
    /// A read was answered. With the answer goes the revision of the state that it was read from.
    Read(Result<RangeResponse, Error>),
    /// A renewal was answered by the leader of a term, with the TTL in seconds, or that there is no such lease.
    Renewed {
        /// The TTL.
        ttl: Option<i64>,
        /// The term.
        term: Term,
    },
    /// A command of a session was answered.
    Session(Answer),
    /// It certainly had and will have no effect. (A renewal was refused: what became of it nobody is told.)
    NotDone,
    /// Nobody knows.
    Unknown,
}

/// One request of one client.
#[derive(Clone, Debug)]
pub struct Call {
    /// Who.
    pub client: u64,
    /// What.
    pub action: Action,
    /// When it was asked.
    pub invoked: Moment,
    /// When the answer came.
    pub returned: Moment,
    /// The answer.
    pub outcome: Outcome,
}

/// A history that no correct store can have produced.
#[derive(Clone, Debug, Error, PartialEq)]
#[error("history: {what}: {call}")]
pub struct Violation {
    /// Which rule is broken.
    pub what: String,
    /// By which call.
    pub call: String,
}

/// Checks the whole history against the committed changes in `model`.
pub fn check(calls: &[Call], model: &Model) -> Result<(), Violation> {
    check_effects(calls, model)?;
    check_reads(calls, model)?;
    check_real_time(calls)
}

fn broken<T>(call: &Call, what: impl Into<String>) -> Result<T, Violation> {
    Err(Violation {
        what: what.into(),
        call: format!("{call:?}"),
    })
}

/// The changes that an acknowledged write claims to have made.
fn claimed(command: &Command, response: &Response) -> Option<Change> {
    match (command, response) {
        (Command::Put(put), Response::Put(_)) => Some(vec![(put.key.clone(), Some(put.value.clone()))]),
        (Command::DeleteRange(delete), Response::DeleteRange(response)) => {
            (response.deleted > 0).then(|| vec![(delete.key.clone(), None)])
        }
        (Command::Txn(txn), Response::Txn(response)) => {
            let branch = if response.succeeded {
                &txn.success
            } else {
                &txn.failure
            };
            let puts: Change = branch.iter().filter_map(put_of).collect();
            (!puts.is_empty()).then_some(puts)
        }
        _ => None,
    }
}

fn put_of(op: &RequestOp) -> Option<(Bytes, Option<Bytes>)> {
    match op {
        RequestOp::Put(put) => Some((put.key.clone(), Some(put.value.clone()))),
        _ => None,
    }
}

/// The values that a command may write. The simulated clients never write the same value twice.
fn values(command: &Command) -> Vec<Bytes> {
    match command {
        Command::Put(put) => vec![put.value.clone()],
        Command::Txn(txn) => txn
            .success
            .iter()
            .chain(&txn.failure)
            .filter_map(put_of)
            .filter_map(|put| put.1)
            .collect(),
        _ => Vec::new(),
    }
}

/// Acknowledged writes did exactly what they say, once; refused ones did nothing; nothing was done twice.
fn check_effects(calls: &[Call], model: &Model) -> Result<(), Violation> {
    let mut written: BTreeMap<&Bytes, i64> = BTreeMap::new();
    let mut twice: BTreeSet<&Bytes> = BTreeSet::new();
    for (revision, change) in model.changes() {
        for value in change.iter().filter_map(|(_, value)| value.as_ref()) {
            if written
                .insert(value, *revision)
                .is_some_and(|before| before != *revision)
            {
                twice.insert(value);
            }
        }
    }
    let mut taken: BTreeSet<i64> = BTreeSet::new();
    for call in calls {
        let Action::Write(command) = &call.action else {
            continue;
        };
        let values = values(command);
        if values.iter().any(|value| twice.contains(value)) {
            return broken(call, "was carried out twice");
        }
        match &call.outcome {
            Outcome::NotDone if values.iter().any(|value| written.contains_key(value)) => {
                return broken(call, "said not to be done, and was done");
            }
            Outcome::Written(Ok(applied)) => {
                let Some(claim) = claimed(command, &applied.response) else {
                    continue;
                };
                if model.changes().get(&applied.revision) != Some(&claim) {
                    return broken(call, "its revision holds something else");
                }
                if !taken.insert(applied.revision) {
                    return broken(call, "its revision was given to another call");
                }
            }
            Outcome::Written(Err(_)) if values.iter().any(|value| written.contains_key(value)) => {
                return broken(call, "answered with an error, and was done");
            }
            Outcome::Read(_) | Outcome::Renewed { .. } | Outcome::Session(_) => {
                return broken(call, "a write was answered like something else");
            }
            _ => {}
        }
    }
    Ok(())
}

/// Reads show exactly the state of their revision.
fn check_reads(calls: &[Call], model: &Model) -> Result<(), Violation> {
    for call in calls {
        let Action::Read { request, .. } = &call.action else {
            continue;
        };
        match &call.outcome {
            Outcome::Read(Ok(response)) => {
                let asked = request.revision;
                let at = if asked > 0 { asked } else { response.revision };
                if response.revision > model.revision() || at > response.revision {
                    return broken(call, "read a revision that does not exist");
                }
                if !response.kvs.iter().eq(model.read(request, at)) {
                    let right: Vec<_> = model.read(request, at).collect();
                    return broken(call, format!("at revision {at} there was {right:?}"));
                }
            }
            Outcome::Read(Err(Error::Compacted)) if request.revision < model.compacted() => {}
            Outcome::Read(Err(Error::FutureRevision)) if request.revision > 0 => {}
            Outcome::Read(Err(_)) => return broken(call, "an answer without reason"),
            Outcome::Written(_) | Outcome::Renewed { .. } | Outcome::Session(_) => {
                return broken(call, "a read was answered like something else");
            }
            Outcome::NotDone | Outcome::Unknown => {}
        }
    }
    Ok(())
}

/// What has been answered by some moment, as far as later calls must respect it.
#[derive(Clone, Copy, Default)]
struct Floor {
    revision: i64,
    compacted: i64,
}

/// Revisions respect real time: what starts after an answer sees at least that revision, and a write gets a later one.
fn check_real_time(calls: &[Call]) -> Result<(), Violation> {
    let mut moments: Vec<(Moment, bool, usize)> = Vec::with_capacity(2 * calls.len());
    for (number, call) in calls.iter().enumerate() {
        moments.push((call.invoked, false, number));
        moments.push((call.returned, true, number));
    }
    moments.sort_unstable();
    let mut floors = vec![Floor::default(); calls.len()];
    let mut floor = Floor::default();
    for (_, returned, number) in moments {
        if !returned {
            floors[number] = floor;
            continue;
        }
        let call = &calls[number];
        check_against(call, floors[number])?;
        floor = raise(floor, call);
    }
    Ok(())
}

fn check_against(call: &Call, floor: Floor) -> Result<(), Violation> {
    match (&call.action, &call.outcome) {
        (Action::Write(command), Outcome::Written(Ok(applied))) => {
            let changed = claimed(command, &applied.response).is_some();
            if applied.revision < floor.revision + i64::from(changed) {
                return broken(
                    call,
                    format!("revision {} was answered before it began", floor.revision),
                );
            }
        }
        (
            Action::Read {
                serializable: false,
                request,
            },
            Outcome::Read(Ok(response)),
        ) => {
            if response.revision < floor.revision {
                return broken(
                    call,
                    format!("stale: {} was answered before it began", floor.revision),
                );
            }
            if request.revision > 0 && request.revision < floor.compacted {
                return broken(call, format!("read below the compaction {}", floor.compacted));
            }
        }
        (
            Action::Read {
                serializable: false,
                request,
            },
            Outcome::Read(Err(Error::FutureRevision)),
        ) if request.revision <= floor.revision => {
            return broken(call, format!("denied a revision up to {}", floor.revision));
        }
        _ => {}
    }
    Ok(())
}

fn raise(mut floor: Floor, call: &Call) -> Floor {
    match (&call.action, &call.outcome) {
        (Action::Write(command), Outcome::Written(Ok(applied))) => {
            floor.revision = floor.revision.max(applied.revision);
            if let Command::Compact { revision, .. } = command {
                floor.compacted = floor.compacted.max(*revision);
            }
        }
        // A serializable answer is old at worst: what it shows was committed before.
        (Action::Read { .. }, Outcome::Read(Ok(response))) => {
            floor.revision = floor.revision.max(response.revision);
        }
        _ => {}
    }
    floor
}

#[cfg(test)]
mod tests;
