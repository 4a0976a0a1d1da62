//! Histories that were tampered with, each as a broken store could have made it. A checker that never objects proves nothing: it must
//! object to every one of these. Those of leases are in [`leases`].

mod leases;

use std::collections::BTreeMap;

use super::committed::Committed;
use super::leases::attachment;
use super::{Ask, Call, Moment, Outcome, Told, check, search};

/// A history and what was committed, open to changes.
struct Case {
    calls: Vec<Call>,
    changes: Vec<(i64, String, Option<String>)>,
    revision: i64,
}

type Doctor = fn(&mut Case) -> Option<()>;

const DOCTORED: [(&str, Doctor); 21] = [
    ("an acknowledged write is gone", lose_a_write),
    ("an acknowledged write became another one", change_a_write),
    ("a write was carried out twice", write_twice),
    ("a write that was refused was carried out", carry_out_refused),
    ("two writes were given one revision", share_a_revision),
    ("a change that nobody asked for", make_up_a_change),
    (
        "a read shows what was there before, under its own revision",
        show_the_value_before,
    ),
    ("a read shows nothing where there was something", show_nothing),
    ("a stopped leader answers with the state it knew", answer_stale),
    (
        "a write got a revision that had been answered before it began",
        begin_late,
    ),
    ("a swap went through against its compare", swap_against_compare),
    ("a swap was refused although its compare holds", refuse_a_swap),
    (
        "a deletion found nothing where there was something",
        delete_nothing,
    ),
    ("a leased key vanished early", leases::expire_early),
    (
        "a leased key vanished early, and its lease was revoked later",
        leases::expire_early_and_revoke,
    ),
    ("the keys of a lease vanished one by one", leases::expire_apart),
    ("a lease was said to be gone too early", leases::deny_a_lease),
    ("half of a transaction was carried out", lose_half),
    ("a transaction was carried out in two revisions", tear_apart),
    ("one deletion of unknown end took two values", delete_twice),
    (
        "a deletion of unknown end had been seen before it was asked for",
        delete_early,
    ),
];

/// Of these the search must object to, too, though it sees no revisions.
const WITHOUT_REVISIONS: [(&str, Doctor); 3] = [
    ("a read shows nothing where there was something", show_nothing),
    ("a stopped leader answers with the state it knew", answer_stale),
    ("a swap went through against its compare", swap_against_compare),
];

/// Tampers with a sound history in every way, and returns what was objected to and what went unnoticed or could not be tried.
pub fn check_all(calls: &[Call], committed: &Committed) -> (Vec<String>, Vec<String>) {
    let (mut caught, mut missed) = (Vec::new(), Vec::new());
    let all = DOCTORED.iter().map(|case| (case, false));
    for ((what, doctor), only_search) in all.chain(WITHOUT_REVISIONS.iter().map(|case| (case, true))) {
        let mut case = Case::new(calls, committed);
        let how = if only_search { " (without revisions)" } else { "" };
        if doctor(&mut case).is_none() {
            missed.push(format!(
                "{what}{how}: there is nothing on which this could be tried"
            ));
            continue;
        }
        let committed = case.committed();
        let verdict = if only_search {
            search::check(&case.calls, &committed)
        } else {
            check(&case.calls, &committed)
        };
        match verdict {
            Err(objection) => caught.push(format!(
                "{what}{how}: {}",
                objection.lines().next().unwrap_or_default()
            )),
            Ok(_) => missed.push(format!("{what}{how}: no objection")),
        }
    }
    (caught, missed)
}

impl Case {
    fn new(calls: &[Call], committed: &Committed) -> Case {
        let each = |(revision, changes): (&i64, &Vec<(String, Option<String>)>)| {
            let revision = *revision;
            let changes = changes.clone().into_iter();
            changes
                .map(move |(key, value)| (revision, key, value))
                .collect::<Vec<_>>()
        };
        Case {
            calls: calls.to_vec(),
            changes: committed.changes.iter().flat_map(each).collect(),
            revision: committed.revision,
        }
    }

    fn committed(&self) -> Committed {
        let mut committed = Committed::up_to(self.revision);
        for (revision, key, value) in &self.changes {
            committed.push(*revision, key.clone(), value.clone());
        }
        committed
    }

    /// The last acknowledged write of a value, as call and change.
    fn acknowledged(&self) -> Option<(usize, usize)> {
        let found = |(number, call): (usize, &Call)| {
            let revision = call.acknowledged()?;
            let (_, value) = *call.ask.writes().first()?;
            let change = self
                .changes
                .iter()
                .position(|(at, _, new)| *at == revision && new.as_deref() == Some(value))?;
            Some((number, change))
        };
        self.calls.iter().enumerate().rev().find_map(found)
    }

    /// The first call for which `find` finds something.
    fn first<T>(&mut self, find: impl Fn(&Call, &Committed) -> Option<T>) -> Option<(&mut Call, T)> {
        let committed = self.committed();
        self.calls
            .iter_mut()
            .find_map(|call| find(call, &committed).map(|found| (call, found)))
    }
}

/// A linearizable read that found something: key, revision of the answer, revision of what was found.
fn sight(call: &Call) -> Option<(&str, i64, i64)> {
    match (&call.ask, &call.outcome) {
        (
            Ask::Get {
                key,
                serializable: false,
            },
            Outcome::Ok {
                revision,
                told: Told::Saw(Some((_, written))),
            },
        ) => Some((key, *revision, *written)),
        _ => None,
    }
}

fn lose_a_write(case: &mut Case) -> Option<()> {
    let (_, change) = case.acknowledged()?;
    case.changes.remove(change);
    Some(())
}

fn change_a_write(case: &mut Case) -> Option<()> {
    let (_, change) = case.acknowledged()?;
    case.changes[change].2 = Some("another".into());
    Some(())
}

fn write_twice(case: &mut Case) -> Option<()> {
    let (_, change) = case.acknowledged()?;
    let (_, key, value) = case.changes[change].clone();
    case.revision += 1;
    case.changes.push((case.revision, key, value));
    Some(())
}

fn carry_out_refused(case: &mut Case) -> Option<()> {
    let (number, _) = case.acknowledged()?;
    case.calls[number].outcome = Outcome::Failed("etcdserver: no leader".into());
    Some(())
}

fn share_a_revision(case: &mut Case) -> Option<()> {
    let (number, _) = case.acknowledged()?;
    let again = case.calls[number].clone();
    case.calls.push(again);
    Some(())
}

fn make_up_a_change(case: &mut Case) -> Option<()> {
    case.revision += 1;
    case.changes
        .push((case.revision, "k0-0".into(), Some("made-up".into())));
    Some(())
}

fn show_the_value_before(case: &mut Case) -> Option<()> {
    let (call, before) = case.first(|call, committed| {
        let (key, _, written) = sight(call)?;
        committed
            .at(key, written - 1)
            .map(|(value, written)| (value.to_owned(), written))
    })?;
    if let Outcome::Ok { told, .. } = &mut call.outcome {
        *told = Told::Saw(Some(before));
    }
    Some(())
}

/// Takes a key that nobody deletes and no lease takes, so that the search has no way out.
fn show_nothing(case: &mut Case) -> Option<()> {
    let deleted = |call: &Call| match &call.ask {
        Ask::Delete { key } => Some(key.clone()),
        _ => None,
    };
    let mut deleted: Vec<String> = case.calls.iter().filter_map(deleted).collect();
    let leased = case.calls.iter().filter_map(attachment);
    deleted.extend(leased.map(|(key, _, _)| key.to_owned()));
    let written: Vec<(i64, Moment)> = case
        .calls
        .iter()
        .filter_map(|call| Some((call.acknowledged()?, call.returned)))
        .collect();
    let (call, ()) = case.first(|call, _| {
        let (key, _, seen) = sight(call)?;
        let before = written
            .iter()
            .any(|(revision, returned)| *revision == seen && *returned < call.invoked);
        (before && !deleted.iter().any(|other| other == key)).then_some(())
    })?;
    if let Outcome::Ok { told, .. } = &mut call.outcome {
        *told = Told::Saw(None);
    }
    Some(())
}

/// A read is given the whole answer, revision included, from before a write that had been acknowledged when the read began. The
/// writes of both values must not overlap, so that the search has no way out either.
fn answer_stale(case: &mut Case) -> Option<()> {
    let when = |call: &Call| Some((call.acknowledged()?, (call.invoked, call.returned)));
    let written: BTreeMap<i64, (Moment, Moment)> = case.calls.iter().filter_map(when).collect();
    let (call, (revision, old)) = case.first(|call, committed| {
        let (key, _, seen) = sight(call)?;
        let (value, before) = committed.at(key, seen - 1)?;
        let (older, newer) = (written.get(&before)?, written.get(&seen)?);
        (older.1 < newer.0 && newer.1 < call.invoked).then(|| (seen - 1, Some((value.to_owned(), before))))
    })?;
    call.outcome = Outcome::Ok {
        revision,
        told: Told::Saw(old),
    };
    Some(())
}

fn begin_late(case: &mut Case) -> Option<()> {
    let number = case
        .calls
        .iter()
        .position(|call| call.acknowledged().is_some() && !call.ask.writes().is_empty())?;
    let written = case.calls[number].acknowledged()?;
    let answered = |call: &&Call| matches!(call.outcome, Outcome::Ok { revision, .. } if revision >= written);
    let others = case
        .calls
        .iter()
        .enumerate()
        .filter(|(other, _)| *other != number)
        .map(|(_, call)| call);
    let seen = others.filter(answered).map(|call| call.returned).min()?;
    let call = &mut case.calls[number];
    call.invoked = seen + 1;
    call.returned = call.returned.max(seen + 2);
    Some(())
}

fn swap_against_compare(case: &mut Case) -> Option<()> {
    let (call, ()) = case.first(|call, _| {
        let compared = matches!(
            &call.ask,
            Ask::Swap {
                expected: Some(_),
                ..
            }
        );
        (compared && call.acknowledged().is_some()).then_some(())
    })?;
    if let Ask::Swap { expected, .. } = &mut call.ask {
        *expected = Some("never-written".into());
    }
    Some(())
}

fn refuse_a_swap(case: &mut Case) -> Option<()> {
    let (call, seen) = case.first(|call, _| match (&call.ask, &call.outcome) {
        (
            Ask::Swap { .. },
            Outcome::Ok {
                told: Told::Saw(seen),
                ..
            },
        ) => Some(seen.clone().map(|(value, _)| value)),
        _ => None,
    })?;
    if let Ask::Swap { expected, .. } = &mut call.ask {
        *expected = seen;
    }
    Some(())
}

fn delete_nothing(case: &mut Case) -> Option<()> {
    let (call, ()) = case.first(|call, committed| match &call.ask {
        Ask::Delete { key } => committed.at(key, call.acknowledged()? - 1).map(|_| ()),
        _ => None,
    })?;
    if let Outcome::Ok { revision, told } = &mut call.outcome {
        *revision -= 1;
        *told = Told::Deleted(0);
    }
    Some(())
}

/// The last change of a transaction on several keys.
fn part_of_many(case: &Case) -> Option<usize> {
    let many = |call: &&Call| matches!(&call.ask, Ask::Many { pairs } if pairs.len() > 1);
    let revision = case
        .calls
        .iter()
        .rev()
        .filter(many)
        .find_map(Call::acknowledged)?;
    case.changes.iter().rposition(|(at, _, _)| *at == revision)
}

/// Nobody was told how it ended.
fn forget_many(case: &mut Case, revision: i64) -> Option<()> {
    let call = case
        .calls
        .iter_mut()
        .find(|call| call.acknowledged() == Some(revision))?;
    call.outcome = Outcome::Unknown("no answer in time".into());
    Some(())
}

fn lose_half(case: &mut Case) -> Option<()> {
    let change = part_of_many(case)?;
    let (revision, _, _) = case.changes.remove(change);
    forget_many(case, revision)
}

fn tear_apart(case: &mut Case) -> Option<()> {
    let change = part_of_many(case)?;
    let (revision, key, value) = case.changes.remove(change);
    case.revision += 1;
    case.changes.push((case.revision, key, value));
    forget_many(case, revision)
}

/// Acknowledged deletions, and the keys.
fn deletions(case: &Case) -> Vec<(usize, String)> {
    let deletion = |(number, call): (usize, &Call)| match &call.ask {
        Ask::Delete { key } if call.acknowledged().is_some() => Some((number, key.clone())),
        _ => None,
    };
    let open = |call: &Call| matches!(call.outcome, Outcome::Unknown(_));
    let all = case.calls.iter().enumerate().filter_map(deletion);
    // Of keys of which no other deletion is open.
    all.filter(|(_, key)| {
        let same = |call: &&Call| matches!(&call.ask, Ask::Delete { key: other } if other == key);
        !case.calls.iter().filter(same).any(open)
    })
    .collect()
}

/// Of two deletions one was never asked for, and nobody knows how the other ended.
fn delete_twice(case: &mut Case) -> Option<()> {
    let deletions = deletions(case);
    let same = |(second, key): &(usize, String)| {
        let first = deletions
            .iter()
            .find(|(first, other)| first < second && other == key);
        first.map(|(first, _)| (*first, *second))
    };
    let (first, second) = deletions.iter().find_map(same)?;
    case.calls[first].outcome = Outcome::Unknown("no answer in time".into());
    case.calls[first].invoked = 0;
    case.calls.remove(second);
    Some(())
}

fn delete_early(case: &mut Case) -> Option<()> {
    let (number, _) = deletions(case).into_iter().next()?;
    let revision = case.calls[number].acknowledged()?;
    let heard = |(other, call): (usize, &Call)| match call.outcome {
        Outcome::Ok { revision: told, .. } if told >= revision && other != number => Some(call.returned),
        _ => None,
    };
    let seen = case.calls.iter().enumerate().filter_map(heard).min()?;
    let call = &mut case.calls[number];
    (call.invoked, call.returned) = (seen + 1, seen + 2);
    call.outcome = Outcome::Unknown("no answer in time".into());
    Some(())
}
