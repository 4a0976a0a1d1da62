//! The whole history in one sweep over time. `header.revision` names the state that an answer is about, so it is enough that every
//! answer is right for its revision, that every change is somebody's, and that revisions respect real time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::committed::Committed;
use super::leases::attachment;
use super::witnesses::Witnesses;
use super::{Ask, Call, Moment, Outcome, Told, Violation};

/// Checks a history against what was committed.
pub fn check(calls: &[Call], committed: &Committed) -> Result<(), Violation> {
    if let Some(value) = committed.twice.first() {
        return Err(format!("{value} was written twice"));
    }
    let mut owners = BTreeMap::new();
    for call in calls {
        check_effect(call, committed, &mut owners)?;
        check_sight(call, committed)?;
    }
    check_owners(calls, committed, &owners)?;
    check_real_time(calls, committed)
}

/// What a write must have left behind: all of it in one revision, or nothing.
fn check_effect<'a>(
    call: &'a Call,
    committed: &Committed,
    owners: &mut BTreeMap<i64, &'a Call>,
) -> Result<(), Violation> {
    let written = call.ask.writes().into_iter();
    let written: BTreeSet<Option<i64>> = written.map(|(_, value)| committed.written(value)).collect();
    let done = written.iter().any(Option::is_some);
    match &call.outcome {
        Outcome::Failed(_) if done => {
            return Err(format!("said not to be done, and was done: {call}"));
        }
        Outcome::Ok {
            told: Told::Saw(_), ..
        } if done => {
            return Err(format!("its compare failed, and yet it wrote: {call}"));
        }
        _ => {}
    }
    if done && written.len() > 1 {
        return Err(format!("not done in one revision, but in {written:?}: {call}"));
    }
    if let Some(Some(revision)) = written.first() {
        check_revision(call, *revision, committed)?;
    }
    let Some(revision) = call.acknowledged() else {
        return Ok(());
    };
    check_revision(call, revision, committed)?;
    if let Some(before) = owners.insert(revision, call) {
        return Err(format!(
            "revision {revision} was given twice: {before}, and {call}"
        ));
    }
    Ok(())
}

/// Whether this revision is what the call asked for and nothing else.
fn check_revision(call: &Call, revision: i64, committed: &Committed) -> Result<(), Violation> {
    let was = if call.acknowledged().is_some() {
        "acknowledged"
    } else {
        "carried out"
    };
    match committed.changes.get(&revision) {
        Some(changes) if *changes == call.ask.changes() => Ok(()),
        None => Err(format!("{was}, and revision {revision} is nowhere: {call}")),
        Some(other) => Err(format!("{was}, and revision {revision} is {other:?}: {call}")),
    }
}

/// What an answer shows must have been so at its revision.
fn check_sight(call: &Call, committed: &Committed) -> Result<(), Violation> {
    let Outcome::Ok { revision, told } = &call.outcome else {
        return Ok(());
    };
    if *revision > committed.revision {
        return Err(format!("there is no such revision: {call}"));
    }
    match (&call.ask, told) {
        (Ask::Get { key, .. }, Told::Saw(seen)) | (Ask::Swap { key, .. }, Told::Saw(seen)) => {
            let there = committed
                .at(key, *revision)
                .map(|(value, written)| (value.to_owned(), written));
            if there != *seen {
                return Err(format!("at that revision there was {there:?}: {call}"));
            }
            if let Ask::Swap { expected, .. } = &call.ask
                && there.map(|(value, _)| value) == *expected
            {
                return Err(format!("its compare holds, and was said to fail: {call}"));
            }
        }
        (Ask::Swap { key, expected, .. }, Told::Done) => {
            let before = committed.at(key, revision - 1).map(|(value, _)| value);
            if before != expected.as_deref() {
                return Err(format!("its compare fails, there was {before:?}: {call}"));
            }
        }
        (Ask::Delete { key }, Told::Deleted(0)) if committed.at(key, *revision).is_some() => {
            return Err(format!("there was something to delete: {call}"));
        }
        _ => {}
    }
    Ok(())
}

/// Every change was asked for. A deletion that no answer explains is the end of a lease, which has a check of its own, or that of a
/// call whose end nobody knows: each of these explains one deletion, and none that had been seen before it was asked for. (What had been
/// seen before a write was asked for is found by [`check_real_time`].)
fn check_owners(
    calls: &[Call],
    committed: &Committed,
    owners: &BTreeMap<i64, &Call>,
) -> Result<(), Violation> {
    let asked: BTreeSet<(&str, &str)> = calls.iter().flat_map(|call| call.ask.writes()).collect();
    let leased = calls.iter().filter_map(attachment);
    let leased: BTreeSet<(&str, &str)> = leased.map(|(key, value, _)| (key, value)).collect();
    let witnesses = Witnesses::new(calls);
    let mut open = open_deletions(calls);
    // In the order of revisions, which is the order in which they were seen: so the earliest call that is left serves best.
    for (revision, changes) in &committed.changes {
        for (key, value) in changes {
            let known = match value {
                Some(value) => asked.contains(&(key.as_str(), value.as_str())),
                None if owners.contains_key(revision) => true,
                None => {
                    let before = committed.at(key, revision - 1);
                    before.is_some_and(|(value, _)| leased.contains(&(key, value)))
                        || take_open(&mut open, key, witnesses.first(*revision).map(|(seen, _)| seen))
                }
            };
            if !known {
                return Err(format!("nobody asked for revision {revision}: {key} = {value:?}"));
            }
        }
    }
    Ok(())
}

/// When deletions were asked for that nobody knows the end of, by key.
fn open_deletions(calls: &[Call]) -> BTreeMap<&str, VecDeque<Moment>> {
    let mut open: BTreeMap<&str, VecDeque<Moment>> = BTreeMap::new();
    for call in calls {
        if let (Ask::Delete { key }, Outcome::Unknown(_)) = (&call.ask, &call.outcome) {
            open.entry(key).or_default().push_back(call.invoked);
        }
    }
    for asked in open.values_mut() {
        asked.make_contiguous().sort_unstable();
    }
    open
}

/// Uses up the first of these calls, if it had been asked for when its deletion was seen.
fn take_open(open: &mut BTreeMap<&str, VecDeque<Moment>>, key: &str, seen: Option<Moment>) -> bool {
    let in_time = |asked: &Moment| seen.is_none_or(|seen| *asked < seen);
    let Some(asked) = open.get_mut(key) else {
        return false;
    };
    asked.front().is_some_and(in_time) && asked.pop_front().is_some()
}

/// Revisions respect real time: what begins after an answer sees at least that revision, and a write gets a later one.
fn check_real_time(calls: &[Call], committed: &Committed) -> Result<(), Violation> {
    let mut moments: Vec<(Moment, bool, usize)> = Vec::with_capacity(2 * calls.len());
    for (number, call) in calls.iter().enumerate() {
        moments.push((call.invoked, false, number));
        moments.push((call.returned, true, number));
    }
    moments.sort_unstable();
    let mut floors = vec![0; calls.len()];
    let mut floor = 0;
    for (_, returned, number) in moments {
        let call = &calls[number];
        if !returned {
            floors[number] = floor;
            // Whoever began after an answer with this revision cannot have written it.
            let early = |(_, value): &(&str, &str)| {
                committed.written(value).is_some_and(|revision| revision <= floor)
            };
            if call.ask.writes().iter().any(early) {
                return Err(format!(
                    "revision {floor} had been answered before it began: {call}"
                ));
            }
        } else if let Outcome::Ok { revision, .. } = call.outcome {
            let old = revision < floors[number] + i64::from(call.acknowledged().is_some());
            if old && !is_stale_get(call) && !matches!(call.ask, Ask::Renew { .. }) {
                return Err(format!(
                    "stale: revision {} had been answered before it began: {call}",
                    floors[number]
                ));
            }
            floor = floor.max(revision);
        }
    }
    Ok(())
}

/// Such a read may show an old state, but never one that was not committed.
fn is_stale_get(call: &Call) -> bool {
    matches!(
        call.ask,
        Ask::Get {
            serializable: true,
            ..
        }
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::{calls, committed};
    use super::*;

    fn verdict(lines: &[&str], changes: &[&str]) -> Result<(), Violation> {
        check(&calls(lines), &committed(changes))
    }

    /// What is objected to; nothing if nothing is.
    fn objection(lines: &[&str], changes: &[&str]) -> String {
        verdict(lines, changes).err().unwrap_or_default()
    }

    #[test]
    fn a_transaction_is_one_revision_or_none() {
        for outcome in ["ok 2 done", "unknown no answer in time"] {
            let many = format!("0 0 1 9 many b v1 a v2 => {outcome}");
            assert_eq!(verdict(&[&many], &["2 b v1", "2 a v2"]), Ok(()));
            assert!(verdict(&[&many], &["2 b v1"]).is_err(), "half of it");
            assert!(verdict(&[&many], &["2 b v1", "3 a v2"]).is_err(), "two revisions");
            assert!(verdict(&[&many], &["2 a v2", "2 b v1"]).is_err(), "another order");
            let other = "1 0 1 9 put c v3 0 => unknown no answer in time";
            let more = ["2 b v1", "2 a v2", "2 c v3"];
            assert!(
                verdict(&[&many, other], &more).is_err(),
                "with what another asked for"
            );
        }
        let many = "0 0 1 9 many b v1 a v2 => unknown no answer in time";
        assert_eq!(verdict(&[many], &[]), Ok(()));
        let refused = "0 0 1 9 many b v1 a v2 => failed etcdserver: no leader";
        assert!(objection(&[refused], &["2 b v1", "2 a v2"]).contains("said not to be done"));
    }

    const PUT: &str = "0 0 1 9 put a v1 0 => ok 2 done";
    const AGAIN: &str = "0 0 11 19 put a v2 0 => ok 4 done";
    const OPEN: &str = "1 0 5 1500 delete a => unknown no answer in time";

    #[test]
    fn a_deletion_of_unknown_end_explains_one_deletion() {
        let changes = ["2 a v1", "3 a -", "4 a v2", "5 a -"];
        assert!(objection(&[PUT, AGAIN, OPEN], &changes).contains("nobody asked for revision 5"));
        let another = OPEN.replace("1 0 5", "2 0 6");
        assert_eq!(verdict(&[PUT, AGAIN, OPEN, &another], &changes), Ok(()));
        let of_another_key = another.replace("delete a", "delete b");
        assert!(verdict(&[PUT, AGAIN, OPEN, &of_another_key], &changes).is_err());
        let refused = "2 0 6 9 delete a => failed etcdserver: no leader";
        assert!(verdict(&[PUT, AGAIN, OPEN, refused], &changes).is_err());
    }

    #[test]
    fn a_deletion_of_unknown_end_explains_nothing_that_was_seen_before() {
        let seen = "2 0 3 12 get b => ok 3 saw - 0";
        let changes = ["2 a v1", "3 a -"];
        assert_eq!(verdict(&[PUT, OPEN, seen], &changes), Ok(()));
        let late = OPEN.replace("1 0 5", "1 0 12");
        assert!(objection(&[PUT, &late, seen], &changes).contains("nobody asked for revision 3"));
        // With two of them, the earlier one is for what was seen first.
        let changes = ["2 a v1", "3 a -", "4 a v2", "5 a -"];
        let lines = [PUT, AGAIN, seen, &late, OPEN];
        assert_eq!(verdict(&lines, &changes), Ok(()));
        let both_late = OPEN.replace("1 0 5", "2 0 13");
        assert!(verdict(&[PUT, AGAIN, seen, &late, &both_late], &changes).is_err());
    }

    #[test]
    fn only_a_value_that_hangs_on_a_lease_vanishes_by_itself() {
        let leased = "0 0 1 9 put l v1 7 => ok 2 done";
        assert_eq!(verdict(&[leased], &["2 l v1", "3 l -"]), Ok(()));
        let plain = "0 0 11 19 put l v2 0 => ok 3 done";
        let changes = ["2 l v1", "3 l v2", "4 l -"];
        assert!(objection(&[leased, plain], &changes).contains("nobody asked for revision 4"));
    }

    #[test]
    fn nothing_was_written_that_had_been_seen_before_it_was_asked_for() {
        let open = "1 0 10 1500 put b v2 0 => unknown no answer in time";
        let seen = "2 0 3 9 get c => ok 3 saw - 0";
        assert!(objection(&[PUT, open, seen], &["2 a v1", "3 b v2"]).contains("had been answered before"));
        let many = "1 0 10 1500 many b v2 c v3 => unknown no answer in time";
        let changes = ["2 a v1", "3 b v2", "3 c v3"];
        let seen = "2 0 3 9 get d => ok 3 saw - 0";
        assert!(objection(&[PUT, many, seen], &changes).contains("had been answered before"));
    }
}
