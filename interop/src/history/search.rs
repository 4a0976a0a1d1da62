//! The search for a linearization, key by key. It uses no revisions, only what was asked and told and when, so it shares no
//! assumption with the check by revisions. Keys are in use for a short time only, which keeps their histories small. What could not be
//! searched all the same is counted. Of a transaction on several keys only the effect on each is seen here.
//!
//! The search is Wing and Gong's with Lowe's memory of what was tried: which calls were placed, and what they left in the key.

use std::collections::{BTreeMap, HashSet};

use super::committed::Committed;
use super::leases::{Ends, attachment};
use super::{Ask, Call, Moment, Outcome, Told, Violation};

/// Calls of one key that are searched; more are cut off. They fit the bits of a number, together with the end of a lease.
pub const MOST: usize = 120;
/// Placements tried before a key is given up as too large.
const PATIENCE: usize = 300_000;

/// What a call did to its key.
#[derive(Clone, Debug)]
enum Op<'a> {
    Read(Option<&'a str>),
    Write(&'a str),
    Delete { existed: Option<bool> },
    Swap { expected: Option<&'a str>, new: &'a str },
}

/// One call on one key. Without an end it may have taken effect at any time after its beginning, or never.
#[derive(Clone, Debug)]
struct Part<'a> {
    begin: Moment,
    end: Option<Moment>,
    op: Op<'a>,
}

impl<'a> Op<'a> {
    /// What the key holds afterwards; `None` if this cannot have happened on `value`.
    fn apply(&self, value: Option<&'a str>) -> Option<Option<&'a str>> {
        match *self {
            Op::Read(seen) => (seen == value).then_some(value),
            Op::Write(new) => Some(Some(new)),
            Op::Delete { existed } => existed
                .is_none_or(|existed| existed == value.is_some())
                .then_some(None),
            Op::Swap { expected, new } => (expected == value).then_some(Some(new)),
        }
    }
}

/// How much was searched.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Searched {
    /// Effects of calls on single keys that say something.
    pub eligible: usize,
    /// How many of them stand in a linearization that was found.
    pub covered: usize,
    /// Keys that were not searched, or not to their end, with the number of their calls.
    pub not_whole: Vec<(String, usize)>,
}

impl Searched {
    /// Whether it was enough, nine of ten, to mean something.
    pub fn demand(&self) -> Result<(), String> {
        if self.covered * 10 >= self.eligible * 9 {
            return Ok(());
        }
        Err(format!(
            "only {} of {} calls could be searched for a linearization; not to their end: {:?}",
            self.covered, self.eligible, self.not_whole
        ))
    }
}

/// Searches each key's history.
pub fn check(calls: &[Call], committed: &Committed) -> Result<Searched, Violation> {
    check_patiently(calls, committed, PATIENCE)
}

fn check_patiently(calls: &[Call], committed: &Committed, patience: usize) -> Result<Searched, Violation> {
    let mut keys: BTreeMap<&str, Vec<Part>> = BTreeMap::new();
    for call in calls {
        for (key, part) in parts(call, committed) {
            keys.entry(key).or_default().push(part);
        }
    }
    let ends = ends_of_leases(calls);
    let mut searched = Searched::default();
    for (key, mut parts) in keys {
        let eligible = parts.len();
        searched.eligible += eligible;
        parts.sort_by_key(|part| part.begin);
        cut(&mut parts);
        let kept = parts.len();
        parts.extend(ends.get(key).into_iter().flatten().cloned());
        parts.sort_by_key(|part| part.begin);
        let covered = match linearizable(&parts, patience) {
            Some(true) => kept,
            Some(false) => return Err(format!("{key} has no linearization: {parts:#?}")),
            None => 0,
        };
        searched.covered += covered;
        if covered < eligible {
            searched.not_whole.push((key.to_owned(), eligible));
        }
    }
    Ok(searched)
}

/// Leases end without a call: a deletion that may happen as soon as the lease can have ended.
fn ends_of_leases(calls: &[Call]) -> BTreeMap<&str, Vec<Part<'_>>> {
    let ends = Ends::new(calls);
    let mut parts: BTreeMap<&str, Vec<Part>> = BTreeMap::new();
    for (key, _, lease) in calls.iter().filter_map(attachment) {
        parts
            .entry(key)
            .or_default()
            .extend(ends.earliest(lease).map(|begin| Part {
                begin,
                end: None,
                op: Op::Delete { existed: None },
            }));
    }
    parts
}

/// What a call says about each of its keys. A write of unknown end is of use only if its value was committed.
fn parts<'a>(call: &'a Call, committed: &Committed) -> Vec<(&'a str, Part<'a>)> {
    let end = matches!(call.outcome, Outcome::Ok { .. }).then_some(call.returned);
    let ops = ops(call).into_iter();
    ops.filter(|(_, op)| match op {
        Op::Write(value) | Op::Swap { new: value, .. } => end.is_some() || committed.written(value).is_some(),
        Op::Read(_) | Op::Delete { .. } => true,
    })
    .map(|(key, op)| {
        let begin = call.invoked;
        (key, Part { begin, end, op })
    })
    .collect()
}

fn ops(call: &Call) -> Vec<(&str, Op<'_>)> {
    match (&call.ask, &call.outcome) {
        (_, Outcome::Failed(_)) => Vec::new(),
        (
            Ask::Get {
                key,
                serializable: false,
            }
            | Ask::Swap { key, .. },
            Outcome::Ok {
                told: Told::Saw(seen),
                ..
            },
        ) => vec![(key, Op::Read(seen.as_ref().map(|(value, _)| value.as_str())))],
        (Ask::Delete { key }, outcome) => {
            let existed = match outcome {
                Outcome::Ok {
                    told: Told::Deleted(count),
                    ..
                } => Some(*count > 0),
                _ => None,
            };
            vec![(key, Op::Delete { existed })]
        }
        (Ask::Put { .. } | Ask::Many { .. }, _) => {
            let writes = call.ask.writes().into_iter();
            writes.map(|(key, value)| (key, Op::Write(value))).collect()
        }
        (Ask::Swap { key, expected, new }, _) => {
            let expected = expected.as_deref();
            vec![(key, Op::Swap { expected, new })]
        }
        (Ask::Get { .. } | Ask::Grant { .. } | Ask::Renew { .. } | Ask::Revoke { .. }, _) => Vec::new(),
    }
}

/// Leaves only what begins before the first call too many, and of what was still under way then only that it may have happened.
fn cut(parts: &mut Vec<Part<'_>>) {
    let Some(limit) = parts.get(MOST).map(|part| part.begin) else {
        return;
    };
    parts.truncate(MOST);
    parts.retain_mut(|part| {
        if part.end.is_some_and(|end| end >= limit) {
            part.end = None;
            match &mut part.op {
                Op::Read(_) => return false,
                Op::Delete { existed } => *existed = None,
                Op::Write(_) | Op::Swap { .. } => {}
            }
        }
        true
    });
}

/// Whether some order of these calls, sorted by their beginning, explains all answers; `None` if there are too many to try.
fn linearizable(parts: &[Part<'_>], patience: usize) -> Option<bool> {
    let wanted = parts.iter().enumerate().filter(|(_, part)| part.end.is_some());
    let wanted: u128 = wanted.map(|(number, _)| 1 << number).sum();
    let mut tried = HashSet::new();
    let mut open = vec![(0_u128, None)];
    while let Some((placed, value)) = open.pop() {
        if placed & wanted == wanted {
            return Some(true);
        }
        if !tried.insert((placed, value)) {
            continue;
        }
        if tried.len() > patience {
            return None;
        }
        let left = || {
            parts
                .iter()
                .enumerate()
                .filter(move |(number, _)| placed & (1 << number) == 0)
        };
        let first_end = left()
            .filter_map(|(_, part)| part.end)
            .min()
            .unwrap_or(Moment::MAX);
        let mut open_deletion = false;
        for (number, part) in left().take_while(|(_, part)| part.begin <= first_end) {
            // Deletions without an end can stand for each other, so one is tried; where there is nothing, none is of use.
            if part.end.is_none() && matches!(part.op, Op::Delete { .. }) {
                if open_deletion || value.is_none() {
                    continue;
                }
                open_deletion = true;
            }
            if let Some(after) = part.op.apply(value) {
                open.push((placed | 1 << number, after));
            }
        }
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{calls, committed};
    use super::*;

    fn verdict(lines: &[&str], changes: &[&str]) -> Result<Searched, Violation> {
        check(&calls(lines), &committed(changes))
    }

    fn whole(count: usize) -> Result<Searched, Violation> {
        Ok(Searched {
            eligible: count,
            covered: count,
            not_whole: Vec::new(),
        })
    }

    const GRANT: &str = "0 0 0 10 grant 2 => ok 1 lease 7 2";
    const PUT: &str = "0 0 20 30 put l v1 7 => ok 2 done";

    #[test]
    fn a_leased_key_is_gone_when_its_lease_can_have_run_out_and_not_before() {
        let late = "0 0 40 2000000000 get l => ok 3 saw - 0";
        assert_eq!(verdict(&[GRANT, PUT, late], &["2 l v1"]), whole(2));
        let early = "0 0 40 1999999999 get l => ok 3 saw - 0";
        assert!(verdict(&[GRANT, PUT, early], &["2 l v1"]).is_err());
        let revoked = "1 0 50 90 revoke 7 => unknown no answer in time";
        assert_eq!(verdict(&[GRANT, PUT, early, revoked], &["2 l v1"]), whole(2));
        let still = "0 0 2000000001 2000000009 get l => ok 3 saw v1 2";
        assert!(verdict(&[GRANT, PUT, late, still], &["2 l v1"]).is_err());
    }

    #[test]
    fn each_key_of_a_transaction_is_searched() {
        let many = "0 0 1 9 many a v1 b v2 => ok 2 done";
        let seen = [
            "1 0 10 19 get a => ok 2 saw v1 2",
            "1 0 20 29 get b => ok 2 saw v2 2",
        ];
        let changes = ["2 a v1", "2 b v2"];
        assert_eq!(verdict(&[many, seen[0], seen[1]], &changes), whole(4));
        let stale = "1 0 20 29 get b => ok 2 saw - 0";
        assert!(verdict(&[many, seen[0], stale], &changes).is_err());
    }

    #[test]
    fn a_deletion_of_unknown_end_takes_away_once() {
        let open = "1 0 1 2000 delete a => unknown no answer in time";
        let lines = [
            "0 0 10 19 put a v1 0 => ok 2 done",
            "0 0 20 29 get a => ok 3 saw - 0",
            "0 0 30 39 put a v2 0 => ok 4 done",
            "0 0 40 49 get a => ok 5 saw - 0",
        ];
        let changes = ["2 a v1", "4 a v2"];
        assert_eq!(verdict(&[&[open, open][..], &lines].concat(), &changes), whole(6));
        assert!(verdict(&[&[open][..], &lines].concat(), &changes).is_err());
    }

    #[test]
    fn what_could_not_be_searched_is_counted() {
        let put = |number: usize| {
            format!(
                "0 0 {} {} put a v{number} 0 => ok 2 done",
                2 * number,
                2 * number + 1
            )
        };
        let lines: Vec<String> = (0..MOST + 30).map(put).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let searched = verdict(&lines, &[]).unwrap();
        assert_eq!((searched.eligible, searched.covered), (MOST + 30, MOST));
        assert_eq!(searched.not_whole, [("a".to_owned(), MOST + 30)]);
        assert!(searched.demand().is_err());
        assert_eq!(verdict(&lines[..MOST], &[]).unwrap().demand(), Ok(()));
    }

    #[test]
    fn a_key_with_too_many_orders_is_not_taken_for_searched() {
        // All at the same time, and a read at the end of what nobody wrote: every order is tried, or it is given up.
        let put = |number| format!("0 0 1 100 put a v{number} 0 => ok 2 done");
        let mut lines: Vec<String> = (0..10).map(put).collect();
        lines.push("0 0 200 300 get a => ok 2 saw never 2".into());
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let calls = calls(&lines);
        let searched = check_patiently(&calls, &committed(&[]), 100).unwrap();
        assert_eq!((searched.eligible, searched.covered), (11, 0));
        assert_eq!(searched.not_whole, [("a".to_owned(), 11)]);
        assert!(searched.demand().is_err());
        assert!(check(&calls, &committed(&[])).is_err());
    }
}
