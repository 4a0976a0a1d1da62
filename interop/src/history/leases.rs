//! Leased keys: none vanishes, and no lease is said to be gone, before the lease can have run out, counted from the last acknowledged
//! renewal, unless somebody had asked for its end by then; all keys of a lease vanish in one revision, and none comes after it.
//!
//! No client deletes a leased key, so what is not an acknowledged deletion is taken for the end of the lease.

use std::collections::{BTreeMap, BTreeSet};

use super::committed::Committed;
use super::witnesses::Witnesses;
use super::{Ask, Call, Moment, NO_LEASE, Outcome, Told, Violation};

const SECOND: Moment = 1_000_000_000;

/// Checks a history against what was committed.
pub fn check(calls: &[Call], committed: &Committed) -> Result<(), Violation> {
    let ends = Ends::new(calls);
    for call in calls {
        check_denial(call, &ends)?;
    }
    let attached: Vec<(&str, &str, i64)> = calls.iter().filter_map(attachment).collect();
    let leases: BTreeMap<(&str, &str), i64> = attached
        .iter()
        .map(|(key, value, lease)| ((*key, *value), *lease))
        .collect();
    let deletions: BTreeSet<i64> = calls.iter().filter_map(acknowledged_deletion).collect();
    let witnesses = Witnesses::new(calls);
    let mut ended = BTreeSet::new();
    for (revision, changes) in &committed.changes {
        if deletions.contains(revision) {
            continue;
        }
        for (key, value) in changes {
            if let Some(value) = value
                && let Some(lease) = leases.get(&(key.as_str(), value.as_str()))
                && ended.contains(lease)
            {
                return Err(format!(
                    "{key} was attached to lease {lease} with revision {revision}, after the lease had ended"
                ));
            }
            let before = committed.at(key, revision - 1);
            let (None, Some((before, _))) = (value, before) else {
                continue;
            };
            let Some(lease) = leases.get(&(key.as_str(), before)) else {
                continue;
            };
            check_time(key, *revision, *lease, &ends, &witnesses)?;
            check_together(*revision, *lease, &attached, committed)?;
            ended.insert(*lease);
        }
    }
    Ok(())
}

/// A key vanished with its lease: was it time?
fn check_time(
    key: &str,
    revision: i64,
    lease: i64,
    ends: &Ends,
    witnesses: &Witnesses,
) -> Result<(), Violation> {
    let Some(deadline) = ends.deadlines.get(&lease) else {
        return Err(format!(
            "{key} was attached to lease {lease}, which nobody was given"
        ));
    };
    if let Some((seen, call)) = witnesses.first(revision)
        && seen < *deadline
        && !ends.revoked_before(lease, seen)
    {
        let early = (deadline - seen) / 1_000_000;
        return Err(format!(
            "{key} vanished with revision {revision} at least {early} ms before lease {lease} could run out, as {call} shows"
        ));
    }
    Ok(())
}

/// Whether this revision takes all keys of the lease, and nothing else.
fn check_together(
    revision: i64,
    lease: i64,
    attached: &[(&str, &str, i64)],
    committed: &Committed,
) -> Result<(), Violation> {
    let there = |(key, value, of): &&(&str, &str, i64)| {
        *of == lease && committed.at(key, revision - 1).map(|(value, _)| value) == Some(*value)
    };
    let expected: BTreeSet<(&str, Option<&str>)> = attached
        .iter()
        .filter(there)
        .map(|(key, _, _)| (*key, None))
        .collect();
    let changes = committed.changes.get(&revision).into_iter().flatten();
    let found = changes.map(|(key, value)| (key.as_str(), value.as_deref()));
    let found: BTreeSet<(&str, Option<&str>)> = found.collect();
    if found != expected {
        return Err(format!(
            "lease {lease} ended with revision {revision}, which must be {expected:?} and is {found:?}"
        ));
    }
    Ok(())
}

/// Whoever is told that a lease is gone is told so in time.
fn check_denial(call: &Call, ends: &Ends) -> Result<(), Violation> {
    let lease = match (&call.ask, &call.outcome) {
        (
            Ask::Put { lease, .. } | Ask::Renew { lease } | Ask::Revoke { lease },
            Outcome::Failed(why) | Outcome::Unknown(why),
        ) if why.contains(NO_LEASE) => *lease,
        (
            Ask::Renew { lease },
            Outcome::Ok {
                told: Told::Lease(_, ttl),
                ..
            },
        ) if *ttl <= 0 => *lease,
        _ => return Ok(()),
    };
    match ends.deadlines.get(&lease) {
        Some(deadline) if call.returned < *deadline && !ends.revoked_before(lease, call.returned) => {
            let early = (deadline - call.returned) / 1_000_000;
            Err(format!(
                "said to be gone {early} ms before it could run out, and nobody had revoked it: {call}"
            ))
        }
        _ => Ok(()),
    }
}

/// What can end leases, and when.
pub struct Ends {
    /// The moment before which a lease that was given cannot have run out.
    deadlines: BTreeMap<i64, Moment>,
    /// The first that a revocation was asked for which was or may have been carried out.
    revoked: BTreeMap<i64, Moment>,
}

impl Ends {
    /// From all calls.
    pub fn new(calls: &[Call]) -> Ends {
        let (mut deadlines, mut revoked) = (BTreeMap::new(), BTreeMap::new());
        for call in calls {
            match (&call.ask, &call.outcome) {
                (
                    _,
                    Outcome::Ok {
                        told: Told::Lease(id, ttl),
                        ..
                    },
                ) if *ttl > 0 => {
                    let deadline = deadlines.entry(*id).or_insert(0);
                    *deadline = call
                        .invoked
                        .saturating_add(ttl.unsigned_abs().saturating_mul(SECOND))
                        .max(*deadline);
                }
                (Ask::Revoke { lease }, Outcome::Ok { .. } | Outcome::Unknown(_)) => {
                    let asked = revoked.entry(*lease).or_insert(call.invoked);
                    *asked = call.invoked.min(*asked);
                }
                _ => {}
            }
        }
        Ends { deadlines, revoked }
    }

    fn revoked_before(&self, lease: i64, seen: Moment) -> bool {
        self.revoked.get(&lease).is_some_and(|asked| *asked < seen)
    }

    /// The moment before which a lease cannot have ended, by itself or by a revocation.
    pub fn earliest(&self, lease: i64) -> Option<Moment> {
        let deadline = *self.deadlines.get(&lease)?;
        let revoked = self.revoked.get(&lease).copied();
        Some(revoked.map_or(deadline, |asked| asked.min(deadline)))
    }
}

fn acknowledged_deletion(call: &Call) -> Option<i64> {
    matches!(call.ask, Ask::Delete { .. })
        .then(|| call.acknowledged())
        .flatten()
}

/// Key, value and lease.
pub fn attachment(call: &Call) -> Option<(&str, &str, i64)> {
    match &call.ask {
        Ask::Put { key, value, lease } if *lease != 0 => Some((key, value, *lease)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{calls, committed};
    use super::*;

    /// Lease 7 is given at 0 and renewed at 1 s, each time for 2 s, and has two keys.
    const GIVEN: [&str; 4] = [
        "0 0 0 1000 grant 2 => ok 1 lease 7 2",
        "0 0 2000 3000 put la v1 7 => ok 2 done",
        "0 0 4000 5000 put lb v2 7 => ok 3 done",
        "0 0 1000000000 1100000000 renew 7 => ok 3 lease 7 2",
    ];
    const VANISHED: [&str; 4] = ["2 la v1", "3 lb v2", "4 la -", "4 lb -"];

    fn verdict(more: &[&str], changes: &[&str]) -> Result<(), Violation> {
        let lines: Vec<&str> = GIVEN.iter().chain(more).copied().collect();
        check(&calls(&lines), &committed(changes))
    }

    #[test]
    fn keys_may_vanish_when_their_lease_can_have_run_out_and_not_before() {
        let late = "1 0 2900000000 3000000000 get x => ok 4 saw - 0";
        assert_eq!(verdict(&[late], &VANISHED), Ok(()));
        let early = "1 0 2900000000 2999999999 get x => ok 4 saw - 0";
        let objection = verdict(&[early], &VANISHED).unwrap_err();
        assert!(objection.contains("before lease 7 could run out"), "{objection}");
    }

    #[test]
    fn only_a_revocation_that_was_asked_for_before_excuses_an_early_end() {
        let early = "1 0 1900000000 2000000000 get x => ok 4 saw - 0";
        for outcome in ["ok 4 done", "unknown no answer in time"] {
            let before = format!("1 0 1900000000 2100000000 revoke 7 => {outcome}");
            assert_eq!(verdict(&[early, &before], &VANISHED), Ok(()));
            let after = format!("1 0 2000000000 2100000000 revoke 7 => {outcome}");
            assert!(verdict(&[early, &after], &VANISHED).is_err());
        }
        let refused = "1 0 1900000000 2100000000 revoke 7 => failed etcdserver: no leader";
        assert!(verdict(&[early, refused], &VANISHED).is_err());
    }

    #[test]
    fn a_lease_is_said_to_be_gone_only_when_it_can_be() {
        let answers = [
            "renew 7 => ok 3 lease 7 0",
            "renew 7 => failed etcdserver: requested lease not found",
            "put lc v3 7 => failed etcdserver: requested lease not found",
            "revoke 7 => failed etcdserver: requested lease not found",
        ];
        for answer in answers {
            let early = format!("0 0 1500000000 2999999999 {answer}");
            let objection = verdict(&[&early], &["2 la v1", "3 lb v2"]).unwrap_err();
            assert!(objection.contains("said to be gone"), "{objection}");
            let late = format!("0 0 1500000000 3000000000 {answer}");
            assert_eq!(verdict(&[&late], &["2 la v1", "3 lb v2"]), Ok(()));
            let revoked = "1 0 2000000000 2900000000 revoke 7 => unknown no answer in time";
            assert_eq!(verdict(&[&early, revoked], &["2 la v1", "3 lb v2"]), Ok(()));
            let too_late = "1 0 2999999999 3900000000 revoke 7 => unknown no answer in time";
            assert!(verdict(&[&early, too_late], &["2 la v1", "3 lb v2"]).is_err());
        }
    }

    #[test]
    fn the_keys_of_a_lease_vanish_in_one_revision() {
        let apart = ["2 la v1", "3 lb v2", "4 la -", "5 lb -"];
        let objection = verdict(&[], &apart).unwrap_err();
        assert!(objection.contains("ended with revision 4"), "{objection}");
        assert!(verdict(&[], &["2 la v1", "3 lb v2", "4 la -"]).is_err());
        let with_another = ["2 la v1", "3 lb v2", "4 la -", "4 lb -", "4 x v9"];
        assert!(verdict(&[], &with_another).is_err());
    }

    #[test]
    fn nothing_is_attached_to_a_lease_that_has_ended() {
        let again = "0 0 6000 7000 put lc v3 7 => unknown no answer in time";
        let changes = ["2 la v1", "3 lb v2", "4 la -", "4 lb -", "5 lc v3"];
        let objection = verdict(&[again], &changes).unwrap_err();
        assert!(objection.contains("after the lease had ended"), "{objection}");
    }

    #[test]
    fn a_lease_must_have_been_given_to_somebody() {
        let attached = ["0 0 2000 3000 put la v1 8 => ok 2 done"];
        let verdict = check(&calls(&attached), &committed(&["2 la v1", "3 la -"]));
        assert!(verdict.unwrap_err().contains("nobody was given"));
    }
}
