//! Leased keys: none vanishes before its lease can have run out, counted from the last acknowledged renewal, unless somebody revoked it.

use std::collections::{BTreeMap, BTreeSet};

use super::committed::Committed;
use super::{Ask, Call, Moment, Outcome, Told, Violation};

const SECOND: Moment = 1_000_000_000;

/// Checks a history against what was committed.
pub fn check(calls: &[Call], committed: &Committed) -> Result<(), Violation> {
    let deadlines = deadlines(calls);
    let revoked: BTreeSet<i64> = calls.iter().filter_map(maybe_revoked).collect();
    let attached: BTreeMap<(&str, &str), i64> = calls.iter().filter_map(attachment).collect();
    let witnesses = Witnesses::new(calls);
    for (revision, changes) in &committed.changes {
        for (key, value) in changes {
            let before = committed.at(key, revision - 1);
            let (None, Some((before, _))) = (value, before) else {
                continue;
            };
            let Some(lease) = attached.get(&(key.as_str(), before)) else {
                continue;
            };
            let Some(deadline) = deadlines.get(lease) else {
                return Err(format!(
                    "{key} was attached to lease {lease}, which nobody was given"
                ));
            };
            if let Some((seen, call)) = witnesses.first(*revision)
                && seen < *deadline
                && !revoked.contains(lease)
            {
                let early = (deadline - seen) / 1_000_000;
                return Err(format!(
                    "{key} vanished with revision {revision} at least {early} ms before lease {lease} could run out, as {call} shows"
                ));
            }
        }
    }
    Ok(())
}

/// For each lease that was given, the moment before which it cannot have run out.
fn deadlines(calls: &[Call]) -> BTreeMap<i64, Moment> {
    let mut deadlines = BTreeMap::new();
    for call in calls {
        if let Outcome::Ok {
            told: Told::Lease(id, ttl),
            ..
        } = call.outcome
            && ttl > 0
        {
            let deadline = deadlines.entry(id).or_insert(0);
            *deadline = call
                .invoked
                .saturating_add(ttl.unsigned_abs() * SECOND)
                .max(*deadline);
        }
    }
    deadlines
}

fn maybe_revoked(call: &Call) -> Option<i64> {
    match (&call.ask, &call.outcome) {
        (Ask::Revoke { lease }, Outcome::Ok { .. } | Outcome::Unknown(_)) => Some(*lease),
        _ => None,
    }
}

fn attachment(call: &Call) -> Option<((&str, &str), i64)> {
    match &call.ask {
        Ask::Put { key, value, lease } if *lease != 0 => Some(((key, value), *lease)),
        _ => None,
    }
}

/// When a revision was first heard of.
struct Witnesses<'a>(Vec<(i64, Moment, &'a Call)>);

impl<'a> Witnesses<'a> {
    fn new(calls: &'a [Call]) -> Witnesses<'a> {
        let mut told: Vec<(i64, Moment, &Call)> = calls
            .iter()
            .filter_map(|call| match call.outcome {
                Outcome::Ok { revision, .. } => Some((revision, call.returned, call)),
                _ => None,
            })
            .collect();
        told.sort_by_key(|(revision, returned, _)| (*revision, *returned));
        // From behind, so that each knows the earliest answer with its revision or a later one.
        for at in (1..told.len()).rev() {
            if told[at].1 < told[at - 1].1 {
                (told[at - 1].1, told[at - 1].2) = (told[at].1, told[at].2);
            }
        }
        Witnesses(told)
    }

    /// The first answer that shows this revision or a later one.
    fn first(&self, revision: i64) -> Option<(Moment, &'a Call)> {
        let at = self.0.partition_point(|(told, _, _)| *told < revision);
        self.0.get(at).map(|(_, returned, call)| (*returned, *call))
    }
}
