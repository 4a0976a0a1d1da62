//! The search for a linearization, key by key. It uses no revisions, only what was asked and told and when, so it shares no
//! assumption with the check by revisions. Keys are in use for a short time only, which keeps their histories small.
//!
//! The search is Wing and Gong's with Lowe's memory of what was tried: which calls were placed, and what they left in the key.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::committed::Committed;
use super::{Ask, Call, Moment, Outcome, Told, Violation};

/// Calls of one key that are searched; more are cut off. They fit the bits of a number.
const MOST: usize = 128;
/// Placements tried before a key is given up as too large.
const PATIENCE: usize = 1_000_000;

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

/// Searches each key's history. Returns how many calls were covered.
pub fn check(calls: &[Call], committed: &Committed) -> Result<usize, Violation> {
    let mut keys: BTreeMap<&str, Vec<Part>> = BTreeMap::new();
    let mut leased = BTreeSet::new();
    for call in calls {
        if let Ask::Put { key, lease, .. } = &call.ask
            && *lease != 0
        {
            leased.insert(key.as_str());
        }
        if let Some((key, part)) = part(call, committed) {
            keys.entry(key).or_default().push(part);
        }
    }
    // Leases end without a call.
    keys.retain(|key, _| !leased.contains(key));
    let mut covered = 0;
    for (key, mut parts) in keys {
        parts.sort_by_key(|part| part.begin);
        cut(&mut parts);
        match linearizable(&parts) {
            Some(true) => covered += parts.len(),
            Some(false) => return Err(format!("{key} has no linearization: {parts:#?}")),
            None => {}
        }
    }
    Ok(covered)
}

/// What a call says about its key. A write of unknown end is of use only if its value was committed.
fn part<'a>(call: &'a Call, committed: &Committed) -> Option<(&'a str, Part<'a>)> {
    let (key, op) = match (&call.ask, &call.outcome) {
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
        ) => (key, Op::Read(seen.as_ref().map(|(value, _)| value.as_str()))),
        (
            Ask::Delete { key },
            Outcome::Ok {
                told: Told::Deleted(count),
                ..
            },
        ) => (
            key,
            Op::Delete {
                existed: Some(*count > 0),
            },
        ),
        (Ask::Delete { key }, Outcome::Unknown(_)) => (key, Op::Delete { existed: None }),
        (Ask::Put { value, .. } | Ask::Swap { new: value, .. }, Outcome::Unknown(_))
            if committed.written(value).is_none() =>
        {
            return None;
        }
        (Ask::Put { key, value, .. }, Outcome::Ok { .. } | Outcome::Unknown(_)) => (key, Op::Write(value)),
        (Ask::Swap { key, expected, new }, Outcome::Ok { .. } | Outcome::Unknown(_)) => (
            key,
            Op::Swap {
                expected: expected.as_deref(),
                new,
            },
        ),
        _ => return None,
    };
    let end = matches!(call.outcome, Outcome::Ok { .. }).then_some(call.returned);
    Some((
        key,
        Part {
            begin: call.invoked,
            end,
            op,
        },
    ))
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
fn linearizable(parts: &[Part<'_>]) -> Option<bool> {
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
        if tried.len() > PATIENCE {
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
        for (number, part) in left().take_while(|(_, part)| part.begin <= first_end) {
            if let Some(after) = part.op.apply(value) {
                open.push((placed | 1 << number, after));
            }
        }
    }
    Some(false)
}
