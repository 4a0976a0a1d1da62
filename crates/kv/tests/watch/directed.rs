//! One rule of watches each.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use quorate_base::{LogId, StateMachine};
use quorate_kv::watch::{Hub, HubOptions, StreamId, WatchRequest, WatchResponse};
use quorate_kv::*;

use crate::support::disk::MemDisk;

fn small() -> (Kv, Hub, StreamId) {
    with(HubOptions::default())
}

fn with(options: HubOptions) -> (Kv, Hub, StreamId) {
    let kv = Kv::open(Arc::new(MemDisk::default()), Options::default()).unwrap();
    let mut hub = Hub::new(options, kv.revision(), kv.compacted_revision());
    let stream = hub.open();
    (kv, hub, stream)
}

fn put(kv: &mut Kv, key: &'static str) {
    let at = LogId::new(1, kv.applied().index.get() + 1);
    let put = PutRequest {
        key: Bytes::from_static(key.as_bytes()),
        ..PutRequest::default()
    };
    kv.apply(at, &Command::Put(put).encode()).unwrap();
}

fn watch(key: &'static str, start_revision: i64) -> WatchRequest {
    WatchRequest {
        key: Bytes::from_static(key.as_bytes()),
        start_revision,
        progress_notify: true,
        ..WatchRequest::default()
    }
}

#[test]
fn a_start_below_the_compacted_revision_is_created_then_canceled() {
    let (mut kv, mut hub, stream) = small();
    for _ in 0..5 {
        put(&mut kv, "a");
    }
    let compact = Command::Compact {
        revision: 4,
        physical: false,
    };
    kv.apply(LogId::new(1, 6), &compact.encode()).unwrap();
    hub.publish(&kv.take_events().unwrap());
    hub.create(stream, watch("a", 3));
    hub.create(stream, watch("a", 4));
    let created = hub.next(stream).unwrap();
    assert!(created.created && !created.canceled);
    let canceled = hub.next(stream).unwrap();
    assert!(canceled.canceled && canceled.compact_revision == 4 && canceled.cancel_reason.is_empty());
    assert!(
        hub.next(stream).unwrap().created,
        "at the compacted revision is allowed"
    );
    let wanted = hub.wants_history().unwrap();
    hub.history(&kv.history(wanted.from, wanted.max_bytes, wanted.prev_kv).unwrap());
    let events: Vec<i64> = hub
        .next(stream)
        .unwrap()
        .events
        .iter()
        .map(|event| event.kv.mod_revision)
        .collect();
    assert_eq!(events, [4, 5, 6]);
    assert_eq!(hub.wants_history(), None);
}

/// etcd #18089: what happened at the compacted revision itself may still be watched, and is there when the space of all before was freed.
#[test]
fn a_deletion_at_the_compacted_revision_is_told() {
    let (mut kv, mut hub, stream) = small();
    put(&mut kv, "a");
    put(&mut kv, "b");
    let commands = [
        Command::DeleteRange(DeleteRangeRequest {
            key: Bytes::from_static(b"a"),
            ..DeleteRangeRequest::default()
        }),
        Command::Compact {
            revision: 4,
            physical: true,
        },
    ];
    for command in commands {
        let at = LogId::new(1, kv.applied().index.get() + 1);
        kv.apply(at, &command.encode()).unwrap();
    }
    while let Some(job) = kv.job(true) {
        job().unwrap();
    }
    assert!(kv.physically_compacted(4));
    hub.publish(&kv.take_events().unwrap());
    hub.create(stream, watch("a", 4));
    let wanted = hub.wants_history().unwrap();
    hub.history(&kv.history(wanted.from, wanted.max_bytes, wanted.prev_kv).unwrap());
    assert!(hub.next(stream).unwrap().created);
    let told = hub.next(stream).expect("the deletion");
    let events: Vec<_> = told
        .events
        .iter()
        .map(|event| (event.kv.mod_revision, event.kv.version))
        .collect();
    assert_eq!(events, [(4, 0)]);
}

#[test]
fn a_future_start_gets_nothing_older_and_no_progress_before() {
    let (mut kv, mut hub, stream) = small();
    hub.create(stream, watch("a", 4));
    assert!(hub.next(stream).unwrap().created);
    hub.request_progress(stream);
    for _ in 0..2 {
        put(&mut kv, "a");
        hub.publish(&kv.take_events().unwrap());
        hub.notify_progress();
    }
    assert_eq!(hub.next(stream), None);
    put(&mut kv, "a");
    hub.publish(&kv.take_events().unwrap());
    assert_eq!(hub.next(stream).unwrap().events[0].kv.mod_revision, 4);
    let progress = hub.next(stream).unwrap();
    assert_eq!(
        (progress.watch_id, progress.revision),
        (-1, 4),
        "the request was waiting"
    );
}

#[test]
fn progress_is_notified_after_a_quiet_interval_only() {
    let (mut kv, mut hub, stream) = small();
    hub.create(stream, watch("a", 0));
    hub.next(stream);
    hub.notify_progress();
    assert_eq!(hub.next(stream), None, "the first interval is not over");
    put(&mut kv, "b");
    hub.publish(&kv.take_events().unwrap());
    hub.notify_progress();
    let progress = hub.next(stream).unwrap();
    assert_eq!(
        (progress.watch_id, progress.revision, progress.events.len()),
        (0, 2, 0)
    );
    put(&mut kv, "a");
    hub.publish(&kv.take_events().unwrap());
    hub.notify_progress();
    assert_eq!(hub.next(stream).unwrap().events.len(), 1);
    assert_eq!(hub.next(stream), None, "suppressed after an event");
}

#[test]
fn closing_a_stream_forgets_its_watchers() {
    let (mut kv, mut hub, stream) = small();
    hub.create(stream, watch("a", 0));
    hub.close(stream);
    put(&mut kv, "a");
    hub.publish(&kv.take_events().unwrap());
    assert_eq!(hub.watchers(), (0, 0));
    assert!(hub.take_ready().is_empty());
}

#[test]
fn a_watcher_that_wants_the_versions_before_waits_for_history_that_has_them() {
    let (mut kv, mut hub, stream) = small();
    for _ in 0..2 {
        put(&mut kv, "a");
    }
    hub.publish(&kv.take_events().unwrap());
    hub.create(stream, watch("a", 2));
    let without = hub.wants_history().unwrap();
    assert!(!without.prev_kv);
    let history = kv
        .history(without.from, without.max_bytes, without.prev_kv)
        .unwrap();
    let with_before = WatchRequest {
        prev_kv: true,
        ..watch("a", 3)
    };
    hub.create(stream, with_before);
    hub.history(&history);
    assert_eq!(hub.watchers(), (1, 1), "what was read serves only the first");
    let wanted = hub.wants_history().unwrap();
    assert!(wanted.prev_kv && wanted.from == 3);
    hub.history(&kv.history(wanted.from, wanted.max_bytes, wanted.prev_kv).unwrap());
    let mut last = None;
    while let Some(response) = hub.next(stream) {
        last = Some(response);
    }
    let event = &last.unwrap().events[0];
    assert_eq!(event.prev_kv.as_ref().map(|kv| kv.mod_revision), Some(2));
}

fn publish(kv: &mut Kv, hub: &mut Hub, key: &'static str) {
    put(kv, key);
    kv.batch_applied();
    hub.publish(&kv.take_events().unwrap());
}

#[test]
fn progress_that_nobody_takes_is_not_piled_up() {
    let (mut kv, mut hub, stream) = small();
    hub.create(stream, watch("a", 0));
    assert!(hub.next(stream).unwrap().created);
    for _ in 0..100 {
        hub.request_progress(stream);
        hub.notify_progress();
    }
    publish(&mut kv, &mut hub, "b");
    hub.request_progress(stream);
    let mut taken = Vec::new();
    while let Some(response) = hub.next(stream) {
        taken.push((response.watch_id, response.revision));
    }
    let now = kv.revision();
    assert_eq!(
        taken,
        [(-1, now - 1), (0, now - 1), (-1, now)],
        "the last request is answered with what was true after it"
    );
    for _ in 0..2 {
        hub.notify_progress();
    }
    assert_eq!(
        hub.next(stream).map(|told| told.revision),
        Some(now),
        "and on it goes"
    );
}

#[test]
fn a_client_that_asks_and_never_reads_is_reported() {
    let (_kv, mut hub, stream) = small();
    let other = hub.open();
    hub.create(other, watch("a", 0));
    for _ in 0..100_000 {
        hub.create(stream, watch("a", 0));
        let id = hub.next(stream).unwrap().watch_id;
        hub.cancel(stream, id);
        assert!(hub.next(stream).unwrap().canceled);
    }
    assert_eq!(hub.take_overrun(), [], "whoever reads may go on for ever");
    let mut asked = 0;
    while hub.take_overrun().is_empty() {
        // Refused, which needs an answer, too.
        let twice = WatchRequest {
            watch_id: 9,
            ..watch("a", 0)
        };
        hub.create(stream, twice);
        asked += 1;
        assert!(asked < 100_000, "never reported");
    }
    let mut queued = 0;
    while hub.next(stream).is_some() {
        queued += 1;
    }
    assert_eq!(queued, asked - 1, "nothing was queued beyond the bound");
    hub.close(stream);
    assert!(hub.next(other).unwrap().created);
}

/// The forms of the next responses of so many streams, and how often one was made.
fn forms(hub: &mut Hub, streams: &[StreamId]) -> (Vec<Bytes>, usize) {
    let mut made = 0;
    let forms = streams.iter().map(|stream| {
        let response = hub.next(*stream).expect("a response");
        response.events.encoded(|events| {
            made += 1;
            Bytes::from(format!("{events:?}"))
        })
    });
    (forms.collect(), made)
}

#[test]
fn watchers_that_want_the_same_share_one_encoding() {
    let (mut kv, mut hub, first) = small();
    let streams = [first, hub.open(), hub.open(), hub.open()];
    let with_before = WatchRequest {
        prev_kv: true,
        ..watch("a", 0)
    };
    let alike = [watch("a", 0), watch("a", 0), watch("a", 2), with_before];
    for (stream, request) in streams.iter().zip(alike) {
        hub.create(*stream, request);
        assert!(hub.next(*stream).unwrap().created);
    }
    publish(&mut kv, &mut hub, "a");
    let (now, made) = forms(&mut hub, &streams);
    assert_eq!(
        (now[0] == now[1], made),
        (true, 2),
        "one form with the version before, one without"
    );

    // Those who read the same history share that.
    let late = [hub.open(), hub.open()];
    for stream in late {
        hub.create(stream, watch("a", 2));
        assert!(hub.next(stream).unwrap().created);
    }
    let wanted = hub.wants_history().expect("two are behind");
    hub.history(&kv.history(wanted.from, wanted.max_bytes, wanted.prev_kv).unwrap());
    let (then, made) = forms(&mut hub, &late);
    assert_eq!((then[0] == then[1], made), (true, 1));
}

/// Takes everything there is on a stream, reads what watchers miss, and so on to the end; how many events each watcher got.
fn settle(kv: &Kv, hub: &mut Hub, stream: StreamId) -> BTreeMap<i64, usize> {
    let mut got: BTreeMap<i64, usize> = BTreeMap::new();
    loop {
        while let Some(response) = hub.next(stream) {
            *got.entry(response.watch_id).or_default() += response.events.len();
        }
        let Some(wanted) = hub.wants_history() else {
            return got;
        };
        hub.history(&kv.history(wanted.from, wanted.max_bytes, wanted.prev_kv).unwrap());
    }
}

#[test]
fn a_batch_comes_in_responses_of_bounded_size_each_of_whole_revisions() {
    let (mut kv, mut hub, stream) = with(HubOptions {
        fragment_bytes: 300,
        ..HubOptions::default()
    });
    hub.create(stream, watch("a", 0));
    assert!(hub.next(stream).unwrap().created);
    // Two of these fit.
    for key in ["a", "a", "b", "a", "a"] {
        put(&mut kv, key);
    }
    let op = RequestOp::Put(PutRequest {
        key: "a".into(),
        value: Bytes::from(vec![7; 1_000]),
        ..PutRequest::default()
    });
    let txn = TxnRequest {
        success: vec![op],
        ..TxnRequest::default()
    };
    kv.apply(LogId::new(1, 6), &Command::Txn(txn).encode()).unwrap();
    put(&mut kv, "b");
    hub.publish(&kv.take_events().unwrap());
    let mut taken = Vec::new();
    while let Some(response) = hub.next(stream) {
        assert!(!response.fragment, "nobody asked for fragments");
        taken.push((response.revision, response.events.len()));
    }
    assert_eq!(
        taken,
        [(3, 2), (6, 2), (8, 1)],
        "each header names what has come, the last all of it"
    );
}

#[test]
fn what_waits_on_a_stream_is_bounded_however_many_watchers_it_has() {
    const BOUND: usize = 100_000;
    let (mut kv, mut hub, stream) = with(HubOptions {
        stream_bytes: BOUND,
        ..HubOptions::default()
    });
    for _ in 0..200 {
        hub.create(stream, watch("a", 0));
        assert!(hub.next(stream).unwrap().created);
    }
    let other = hub.open();
    hub.create(other, watch("a", 0));
    assert!(hub.next(other).unwrap().created);
    for _ in 0..50 {
        publish(&mut kv, &mut hub, "a");
    }
    assert_eq!(hub.watchers(), (1, 200), "the other stream has room");
    let mut queued = 0;
    while hub.next(stream).is_some() {
        queued += 1;
    }
    assert!(queued * size_of::<WatchResponse>() <= BOUND, "{queued} responses");
    assert!(queued >= 200, "{queued}: of use it is, too");

    let (mut kv, mut hub, stream) = with(HubOptions {
        stream_bytes: BOUND,
        ..HubOptions::default()
    });
    for _ in 0..200 {
        hub.create(stream, watch("a", 0));
    }
    for _ in 0..50 {
        publish(&mut kv, &mut hub, "a");
    }
    let got = settle(&kv, &mut hub, stream);
    assert_eq!((got.len(), hub.watchers()), (200, (200, 0)));
    assert!(
        got.values().all(|events| *events == 50),
        "nothing is lost: {got:?}"
    );
}

#[test]
fn watchers_that_begin_anew_do_not_hold_up_those_further_on() {
    let (mut kv, mut hub, stream) = with(HubOptions {
        history_bytes: 1_000,
        ..HubOptions::default()
    });
    for _ in 0..100 {
        publish(&mut kv, &mut hub, "a");
    }
    hub.create(stream, watch("a", 90));
    assert!(hub.next(stream).unwrap().created);
    let restless = hub.open();
    for readings in 1.. {
        // It comes back as soon as it was served.
        hub.create(restless, watch("a", 2));
        while let Some(response) = hub.next(restless) {
            if !response.events.is_empty() {
                hub.cancel(restless, response.watch_id);
            }
        }
        let wanted = hub.wants_history().expect("somebody is behind");
        hub.history(&kv.history(wanted.from, wanted.max_bytes, wanted.prev_kv).unwrap());
        // Changes go on meanwhile, and faster than they are read.
        for _ in 0..20 {
            publish(&mut kv, &mut hub, "b");
        }
        if hub
            .next(stream)
            .is_some_and(|response| !response.events.is_empty())
        {
            break;
        }
        assert!(readings < 40, "it never comes to its turn");
    }
}
