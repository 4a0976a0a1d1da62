//! The whole history in one sweep over time. `header.revision` names the state that an answer is about, so it is enough that every
//! answer is right for its revision, that every change is somebody's, and that revisions respect real time.

use std::collections::{BTreeMap, BTreeSet};

use super::committed::Committed;
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

/// What an acknowledged or refused write must have left behind.
fn check_effect<'a>(
    call: &'a Call,
    committed: &Committed,
    owners: &mut BTreeMap<i64, &'a Call>,
) -> Result<(), Violation> {
    if let (Outcome::Failed(_), Some((_, value))) = (&call.outcome, call.ask.writes())
        && committed.written(value).is_some()
    {
        return Err(format!("said not to be done, and was done: {call}"));
    }
    if let (
        Outcome::Ok {
            told: Told::Saw(_), ..
        },
        Some((_, value)),
    ) = (&call.outcome, call.ask.writes())
        && committed.written(value).is_some()
    {
        return Err(format!("its compare failed, and yet it wrote: {call}"));
    }
    let Some(revision) = call.acknowledged() else {
        return Ok(());
    };
    let expected = match &call.ask {
        Ask::Delete { key } => (key.clone(), None),
        ask => {
            let (key, value) = ask.writes().expect("a write");
            (key.to_owned(), Some(value.to_owned()))
        }
    };
    match committed.changes.get(&revision) {
        Some(changes) if *changes == [expected] => {}
        None => {
            return Err(format!(
                "acknowledged, and revision {revision} is nowhere: {call}"
            ));
        }
        Some(other) => {
            return Err(format!(
                "acknowledged, and revision {revision} is {other:?}: {call}"
            ));
        }
    }
    if let Some(before) = owners.insert(revision, call) {
        return Err(format!(
            "revision {revision} was given twice: {before}, and {call}"
        ));
    }
    Ok(())
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

/// Every change was asked for, and one whose end is unknown was not made before it was asked for.
fn check_owners(
    calls: &[Call],
    committed: &Committed,
    owners: &BTreeMap<i64, &Call>,
) -> Result<(), Violation> {
    let asked: BTreeMap<(&str, &str), &Call> = calls
        .iter()
        .filter_map(|call| Some((call.ask.writes()?, call)))
        .collect();
    let open_deletions: BTreeSet<&str> = calls.iter().filter_map(open_deletion).collect();
    let leased: BTreeSet<&str> = calls.iter().filter_map(leased_key).collect();
    for (revision, changes) in &committed.changes {
        for (key, value) in changes {
            let known = match value {
                Some(value) => asked.contains_key(&(key.as_str(), value.as_str())),
                None => {
                    owners.contains_key(revision)
                        || open_deletions.contains(key.as_str())
                        || leased.contains(key.as_str())
                }
            };
            if !known {
                return Err(format!("nobody asked for revision {revision}: {key} = {value:?}"));
            }
        }
    }
    Ok(())
}

/// The key of a deletion that nobody knows the end of.
fn open_deletion(call: &Call) -> Option<&str> {
    match (&call.ask, &call.outcome) {
        (Ask::Delete { key }, Outcome::Unknown(_)) => Some(key),
        _ => None,
    }
}

/// A key that vanishes when its lease does.
fn leased_key(call: &Call) -> Option<&str> {
    match &call.ask {
        Ask::Put { key, lease, .. } if *lease != 0 => Some(key),
        _ => None,
    }
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
            if let Some((_, value)) = call.ask.writes()
                && committed.written(value).is_some_and(|revision| revision <= floor)
            {
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
