//! The search for a linearization by `porcupine-rs`, key by key on small windows of the history. It uses no revisions, terms
//! or logs, only what was asked and answered and when, so it shares no assumption with the simulator's own checks.
//!
//! A key begins without a value. Each later window begins with a value that the one before can have ended with: all of them are tried, and
//! those with which it has no linearization are dropped. So a window hides nothing from the next one.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use porcupine_rs::{Model, Operation};
use quorate_kv::{Command, CompareOp, CompareTarget, RequestOp, Response, ResponseOp, TxnRequest};
use quorate_sim::Report;
use quorate_sim::history::{Action, Call, Outcome};

/// Windows are cut, where possible, at half of this length.
const WINDOW: usize = 60;

/// What one call did to one key, as far as it was told.
#[derive(Clone, Debug, PartialEq)]
enum Op {
    /// Wrote a value or, with `None`, deleted it.
    Set(Option<Bytes>),
    /// Deleted, and was told whether there was something.
    Delete { existed: bool },
    /// Saw a value or its absence.
    Get(Option<Bytes>),
    /// Wrote `new` because the value was `expected`.
    Swapped { expected: Bytes, new: Bytes },
}

/// A key's value, if it has one.
type Value = Option<Bytes>;

/// One key.
#[derive(Clone, Debug)]
struct Key;

impl Model for Key {
    type State = Value;
    type Op = Op;
    type Metadata = ();

    fn init() -> Self::State {
        None
    }

    fn step(state: &Value, op: &Op) -> (bool, Value) {
        match op {
            Op::Set(value) => (true, value.clone()),
            Op::Delete { existed } => (state.is_some() == *existed, None),
            Op::Get(value) => (state == value, state.clone()),
            Op::Swapped { expected, new } => (state.as_ref() == Some(expected), Some(new.clone())),
        }
    }
}

impl Op {
    /// What the key holds right after it, if it changes that.
    fn leaves(&self) -> Option<Value> {
        match self {
            Op::Set(value) => Some(value.clone()),
            Op::Delete { existed } => existed.then_some(None),
            Op::Swapped { new, .. } => Some(Some(new.clone())),
            Op::Get(_) => None,
        }
    }
}

/// What a call says about each key it touches. A write that nobody knows the end of counts if its value was committed.
fn parts(call: &Call, committed: &BTreeSet<Bytes>) -> Vec<(Bytes, Op)> {
    match (&call.action, &call.outcome) {
        (
            Action::Read {
                request,
                serializable: false,
            },
            Outcome::Read(Ok(response)),
        ) if request.range_end.is_empty() && request.revision == 0 => {
            vec![(
                request.key.clone(),
                Op::Get(response.kvs.first().map(|kv| kv.value.clone())),
            )]
        }
        (Action::Write(Command::Put(put)), Outcome::Written(Ok(_)) | Outcome::Unknown)
            if committed.contains(&put.value) =>
        {
            vec![(put.key.clone(), Op::Set(Some(put.value.clone())))]
        }
        (Action::Write(Command::DeleteRange(delete)), Outcome::Written(Ok(applied))) => {
            let Response::DeleteRange(response) = &applied.response else {
                return Vec::new();
            };
            vec![(
                delete.key.clone(),
                Op::Delete {
                    existed: response.deleted > 0,
                },
            )]
        }
        (Action::Write(Command::Txn(txn)), Outcome::Unknown) => {
            let done = |op: &RequestOp| matches!(op, RequestOp::Put(put) if committed.contains(&put.value));
            if txn.success.iter().any(done) {
                success(txn)
            } else {
                Vec::new()
            }
        }
        (Action::Write(Command::Txn(txn)), Outcome::Written(Ok(applied))) => {
            let Response::Txn(response) = &applied.response else {
                return Vec::new();
            };
            if response.succeeded {
                return success(txn);
            }
            let seen = txn
                .failure
                .iter()
                .zip(&response.responses)
                .filter_map(|pair| match pair {
                    (RequestOp::Range(get), ResponseOp::Range(range)) => Some((
                        get.key.clone(),
                        Op::Get(range.kvs.first().map(|kv| kv.value.clone())),
                    )),
                    _ => None,
                });
            seen.collect()
        }
        _ => Vec::new(),
    }
}

/// What a transaction whose compares held did.
fn success(txn: &TxnRequest) -> Vec<(Bytes, Op)> {
    let expected = txn.compare.first().and_then(|compare| match &compare.target {
        CompareTarget::Value(value) if compare.op == CompareOp::Equal => Some(value),
        _ => None,
    });
    let puts = txn.success.iter().filter_map(|op| match op {
        RequestOp::Put(put) => Some(put),
        _ => None,
    });
    let done = puts.map(|put| {
        let new = put.value.clone();
        let op = match expected {
            Some(expected) => Op::Swapped {
                expected: expected.clone(),
                new,
            },
            None => Op::Set(Some(new)),
        };
        (put.key.clone(), op)
    });
    done.collect()
}

/// Keys with deletions that no answer accounts for, so that a deletion without an answer may be one of them.
fn quietly_deleted(report: &Report) -> BTreeSet<Bytes> {
    let acknowledged = |call: &Call| match &call.outcome {
        Outcome::Written(Ok(applied)) => match &applied.response {
            Response::DeleteRange(response) if response.deleted > 0 => Some(applied.revision),
            _ => None,
        },
        _ => None,
    };
    let known: BTreeSet<i64> = report.calls.iter().filter_map(acknowledged).collect();
    let quiet = report
        .changes
        .iter()
        .filter(|(revision, _)| !known.contains(revision));
    let deleted = quiet
        .flat_map(|(_, change)| change)
        .filter(|(_, value)| value.is_none());
    deleted.map(|(key, _)| key.clone()).collect()
}

/// Keys that were ever attached to a lease: they go without anybody's call.
fn leased(calls: &[Call]) -> BTreeSet<Bytes> {
    let puts = calls.iter().flat_map(|call| match &call.action {
        Action::Write(Command::Put(put)) => vec![put],
        Action::Write(Command::Txn(txn)) => {
            let puts = txn.success.iter().filter_map(|op| match op {
                RequestOp::Put(put) => Some(put),
                _ => None,
            });
            puts.collect()
        }
        _ => Vec::new(),
    });
    puts.filter(|put| put.lease != 0)
        .map(|put| put.key.clone())
        .collect()
}

/// When each value was first shown to anybody.
fn first_seen(calls: &[Call]) -> BTreeMap<Bytes, i64> {
    let mut seen = BTreeMap::new();
    for call in calls {
        let Outcome::Read(Ok(response)) = &call.outcome else {
            continue;
        };
        for kv in &response.kvs {
            let first = seen.entry(kv.value.clone()).or_insert(i64::MAX);
            *first = (call.returned as i64).min(*first);
        }
    }
    seen
}

/// The operations as far as they are told before `end`. A write that was under way then may still have been seen: it stays,
/// without an end and without what it was told.
fn until(operations: Vec<Operation<Key>>, end: i64) -> Vec<Operation<Key>> {
    let begun = operations
        .into_iter()
        .filter(|operation| operation.call_time < end);
    let kept = begun.filter_map(|mut operation| {
        if operation.return_time >= end {
            operation.return_time = i64::MAX;
            operation.op = match operation.op {
                Op::Get(_) => return None,
                Op::Delete { .. } => Op::Set(None),
                Op::Swapped { new, .. } => Op::Set(Some(new)),
                Op::Set(value) => Op::Set(value),
            };
        }
        Some(operation)
    });
    kept.collect()
}

/// Where the fourth operation without an end begins. Each doubles the search, so what comes later is left out.
fn too_open(operations: &[Operation<Key>]) -> i64 {
    let open = operations
        .iter()
        .filter(|operation| operation.return_time == i64::MAX);
    let mut begins: Vec<i64> = open.map(|operation| operation.call_time).collect();
    begins.sort_unstable();
    begins.get(3).copied().unwrap_or(i64::MAX)
}

/// The windows of one key: runs of operations between moments at which none is under way.
fn windows(mut operations: Vec<Operation<Key>>) -> Vec<Vec<Operation<Key>>> {
    operations.sort_by_key(|operation| (operation.call_time, operation.return_time));
    let mut windows = vec![Vec::new()];
    let mut busy_until = i64::MIN;
    for operation in operations {
        let quiet = operation.call_time > busy_until;
        busy_until = busy_until.max(operation.return_time);
        if quiet && windows.last().is_some_and(|window| window.len() >= WINDOW / 2) {
            windows.push(Vec::new());
        }
        windows.last_mut().expect("there is one").push(operation);
    }
    windows
}

/// The values that a window may end with if it begins with one of `starts`: none, if it has no linearization at all.
fn ends(window: &[Operation<Key>], starts: &BTreeSet<Value>) -> BTreeSet<Value> {
    let changes = || window.iter().filter(|operation| operation.op.leaves().is_some());
    let last_begin = changes().map(|operation| operation.call_time).max();
    // What ended before another change began was not the last one.
    let may_be_last = changes().filter(|operation| Some(operation.return_time) >= last_begin);
    let mut ends: BTreeSet<Value> = may_be_last
        .filter_map(|operation| operation.op.leaves())
        .collect();
    if ends.is_empty() {
        ends.clone_from(starts);
    }
    let begin = window
        .iter()
        .map(|operation| operation.call_time)
        .min()
        .unwrap_or(0);
    let end = window
        .iter()
        .map(|operation| operation.return_time)
        .max()
        .unwrap_or(0);
    let fits = |start: &Value, end_value: Option<&Value>| {
        let edge = |op, call_time: i64, return_time| Operation {
            client_id: None,
            call_time,
            return_time,
            op,
            metadata: None,
        };
        let mut whole = vec![edge(Op::Set(start.clone()), begin - 2, begin - 1)];
        whole.extend_from_slice(window);
        whole.extend(end_value.map(|value| edge(Op::Get(value.clone()), end + 1, end + 2)));
        porcupine_rs::check_operations(&whole)
    };
    if end == i64::MAX {
        // No other window follows an operation that never ends: any end will do.
        return match starts.iter().any(|start| fits(start, None)) {
            true => ends,
            false => BTreeSet::new(),
        };
    }
    ends.retain(|end_value| starts.iter().any(|start| fits(start, Some(end_value))));
    ends
}

/// Searches the windows of one key, one after the other, for linearizations.
fn search(operations: Vec<Operation<Key>>) -> Result<(), String> {
    let mut states = BTreeSet::from([None]);
    for window in windows(operations) {
        let ends = ends(&window, &states);
        if ends.is_empty() {
            return Err(format!("beginning with one of {states:?}: {window:#?}"));
        }
        states = ends;
    }
    Ok(())
}

/// Searches every window for a linearization. Returns how many operations were covered.
pub fn check(report: &Report) -> Result<usize, String> {
    let first_seen = first_seen(&report.calls);
    let changes = report.changes.values().flatten();
    let committed: BTreeSet<Bytes> = changes.filter_map(|(_, value)| value.clone()).collect();
    let uncertain = quietly_deleted(report);
    let mut keys: BTreeMap<Bytes, Vec<Operation<Key>>> = BTreeMap::new();
    let mut cut: BTreeMap<Bytes, i64> = BTreeMap::new();
    for call in &report.calls {
        let call_time = call.invoked as i64;
        if let (Action::Write(Command::DeleteRange(delete)), Outcome::Unknown) = (&call.action, &call.outcome)
            && uncertain.contains(&delete.key)
        {
            let first = cut.entry(delete.key.clone()).or_insert(call_time);
            *first = call_time.min(*first);
        }
        for (key, op) in parts(call, &committed) {
            let return_time = match &op {
                // Whoever read the value proves that it was written by then.
                Op::Set(Some(value)) | Op::Swapped { new: value, .. } if call.outcome == Outcome::Unknown => {
                    first_seen.get(value).copied().unwrap_or(i64::MAX)
                }
                _ => call.returned as i64,
            };
            let client_id = Some(call.client as u32);
            keys.entry(key).or_default().push(Operation {
                client_id,
                call_time,
                return_time,
                op,
                metadata: None,
            });
        }
    }
    let mut covered = 0;
    let leased = leased(&report.calls);
    for (key, operations) in keys.into_iter().filter(|(key, _)| !leased.contains(key)) {
        let end = cut
            .get(&key)
            .copied()
            .unwrap_or(i64::MAX)
            .min(too_open(&operations));
        let operations = if end < i64::MAX {
            until(operations, end)
        } else {
            operations
        };
        covered += operations.len();
        search(operations).map_err(|why| format!("no linearization of {key:?}, {why}"))?;
    }
    Ok(covered)
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_kv::{Applied, KeyValue, PutRequest, PutResponse, RangeRequest, RangeResponse};
    use quorate_sim::coverage::Coverage;
    use quorate_sim::params::Params;

    fn put(value: &'static str, revision: i64, invoked: u64, returned: u64) -> Call {
        let put = PutRequest {
            key: "k".into(),
            value: value.into(),
            ..PutRequest::default()
        };
        let response = Response::Put(PutResponse {
            revision,
            prev_kv: None,
        });
        let outcome = Outcome::Written(Ok(Applied { revision, response }));
        Call {
            client: 0,
            action: Action::Write(Command::Put(put)),
            invoked,
            returned,
            outcome,
        }
    }

    fn read(value: &'static str, invoked: u64, returned: u64) -> Call {
        let request = RangeRequest {
            key: "k".into(),
            ..RangeRequest::default()
        };
        let kvs = vec![KeyValue {
            key: "k".into(),
            value: value.into(),
            ..KeyValue::default()
        }];
        let outcome = Outcome::Read(Ok(RangeResponse {
            kvs,
            ..RangeResponse::default()
        }));
        Call {
            client: 1,
            action: Action::Read {
                request,
                serializable: false,
            },
            invoked,
            returned,
            outcome,
        }
    }

    fn report(calls: Vec<Call>) -> Report {
        let change = |value: &'static str| vec![("k".into(), Some(value.into()))];
        Report {
            params: Params::draw(0),
            coverage: Coverage::default(),
            trace_hash: 0,
            elapsed: 0,
            calls,
            changes: [(2, change("1")), (3, change("2"))].into(),
            elections: 1,
            excused: None,
            watch_requests: 0,
            watch_responses: 0,
        }
    }

    #[test]
    fn a_stale_read_has_no_linearization() {
        let writes = [put("1", 2, 1, 2), put("2", 3, 3, 6)];
        let with = |reads: &[Call]| check(&report([&writes[..], reads].concat()));
        assert_eq!(with(&[read("1", 4, 5), read("2", 7, 8)]), Ok(4));
        assert_eq!(
            with(&[read("2", 4, 5), read("2", 7, 8)]),
            Ok(4),
            "concurrent with the write"
        );
        assert!(with(&[read("1", 7, 8)]).is_err(), "stale");
        assert!(with(&[read("2", 4, 5), read("1", 7, 8)]).is_err(), "back in time");
    }

    #[test]
    fn a_write_of_unknown_end_counts_if_it_was_committed() {
        let unknown = Call {
            outcome: Outcome::Unknown,
            ..put("2", 3, 3, 4)
        };
        let with = |reads: &[Call]| check(&report([&[put("1", 2, 1, 2), unknown.clone()], reads].concat()));
        assert!(
            with(&[read("1", 7, 8), read("2", 9, 10)]).is_ok(),
            "it took effect late"
        );
        assert!(
            with(&[read("2", 7, 8), read("1", 9, 10)]).is_err(),
            "and did not go away again"
        );
    }

    /// An operation of a client by itself, from one moment to another.
    fn operation(op: Op, call_time: i64, return_time: i64) -> Operation<Key> {
        Operation {
            client_id: None,
            call_time,
            return_time,
            op,
            metadata: None,
        }
    }

    fn set(value: &'static str, call_time: i64, return_time: i64) -> Operation<Key> {
        operation(Op::Set(Some(value.into())), call_time, return_time)
    }

    fn get(value: Option<&'static str>, call_time: i64) -> Operation<Key> {
        operation(Op::Get(value.map(Bytes::from)), call_time, call_time + 1)
    }

    /// So many reads of "1" that the next quiet moment ends the window, after which `then` comes.
    fn long(then: &[Operation<Key>]) -> Result<(), String> {
        let mut operations = vec![set("1", 0, 1)];
        operations.extend((1..WINDOW as i64).map(|n| get(Some("1"), 2 * n)));
        let first = windows(operations.clone()).len();
        operations.extend_from_slice(then);
        assert!(
            windows(operations.clone()).len() > first,
            "one window says nothing here"
        );
        search(operations)
    }

    #[test]
    fn a_window_begins_where_the_one_before_ended() {
        let later = 10 * WINDOW as i64;
        assert_eq!(long(&[get(Some("1"), later)]), Ok(()));
        assert!(long(&[get(None, later)]).is_err(), "it was there");
        assert!(long(&[get(Some("0"), later)]).is_err(), "nobody wrote that");
        assert!(
            search(vec![get(Some("1"), 0)]).is_err(),
            "nor that, in the first window"
        );
        assert_eq!(search(vec![get(None, 0)]), Ok(()));
        let gone = operation(Op::Delete { existed: false }, later, later + 1);
        assert!(long(&[gone]).is_err(), "there was something to delete");
    }

    #[test]
    fn a_window_may_end_with_each_write_that_can_be_the_last() {
        let starts = BTreeSet::from([None, Some("0".into())]);
        let values = |values: &[&'static str]| -> BTreeSet<Value> {
            values.iter().map(|value| Some(Bytes::from(*value))).collect()
        };
        let race = [set("1", 0, 9), set("2", 5, 14), set("3", 7, 8)];
        assert_eq!(ends(&race, &starts), values(&["1", "2", "3"]));
        let early = [set("1", 0, 4), set("2", 5, 14), set("3", 7, 8)];
        assert_eq!(ends(&early, &starts), values(&["2", "3"]), "1 was over before");
        let seen = [set("1", 0, 9), set("2", 5, 14), get(Some("2"), 15)];
        assert_eq!(ends(&seen, &starts), values(&["2"]), "a read tells which");
        assert_eq!(
            ends(&[get(Some("0"), 3)], &starts),
            values(&["0"]),
            "of the beginnings, too"
        );
        assert_eq!(ends(&[get(Some("7"), 3)], &starts), values(&[]));
        let swapped = Op::Swapped {
            expected: "0".into(),
            new: "1".into(),
        };
        assert_eq!(ends(&[operation(swapped, 0, 1)], &starts), values(&["1"]));
        assert_eq!(
            ends(&[operation(Op::Delete { existed: true }, 0, 1)], &starts),
            [None].into()
        );
    }
}
