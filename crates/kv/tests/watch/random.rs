//! Random lives of streams and watchers against the plain definition of a watch, whatever the batches, queues, history reads, gaps and
//! compactions in between.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::support::disk::MemDisk;
use crate::support::model::within;
use crate::support::strategy;
use bytes::Bytes;
use proptest::prelude::*;
use quorate_base::{LogId, StateMachine};
use quorate_kv::watch::{Hub, HubOptions, StreamId, WatchRequest, WatchResponse};
use quorate_kv::*;

#[derive(Clone, Debug)]
enum Step {
    Command(Command),
    Publish,
    Create(usize, WatchRequest),
    Cancel(usize, i64),
    /// Take up to so many responses off a stream.
    Take(usize, usize),
    /// Read history for those behind; between the reading and its answer, others go on.
    History(Vec<Command>, Option<(usize, WatchRequest)>),
    RequestProgress(usize),
    NotifyProgress,
}

fn watch_request() -> impl Strategy<Value = WatchRequest> {
    let end = prop_oneof![
        Just(Bytes::new()),
        Just(Bytes::from_static(b"\0")),
        strategy::key()
    ];
    let key = prop_oneof![1 => Just(Bytes::new()), 9 => strategy::key()];
    (key, end, 0i64..30, any::<[bool; 5]>(), 0i64..4, 0u8..6).prop_map(
        |(key, range_end, start_revision, [progress_notify, prev_kv, fragment, now, _], watch_id, filter)| {
            WatchRequest {
                key,
                range_end,
                start_revision: if now { 0 } else { start_revision },
                progress_notify,
                no_put: filter == 0,
                no_delete: filter == 1,
                prev_kv,
                watch_id,
                fragment,
            }
        },
    )
}

fn write() -> impl Strategy<Value = Command> {
    prop_oneof![
        12 => strategy::put().prop_map(|put| Command::Put(PutRequest { lease: 0, ..put })),
        2 => strategy::command(),
        4 => strategy::txn().prop_map(Command::Txn),
        2 => (1i64..40).prop_map(|revision| Command::Compact { revision, physical: false }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let stream = || 0usize..3;
    prop_oneof![
        20 => write().prop_map(Step::Command),
        10 => Just(Step::Publish),
        6 => (stream(), watch_request()).prop_map(|(stream, request)| Step::Create(stream, request)),
        1 => (stream(), 0i64..4).prop_map(|(stream, id)| Step::Cancel(stream, id)),
        6 => (stream(), 1usize..6).prop_map(|(stream, n)| Step::Take(stream, n)),
        6 => (proptest::collection::vec(write(), 0..3), proptest::option::of((stream(), watch_request())))
            .prop_map(|(commands, create)| Step::History(commands, create)),
        2 => stream().prop_map(Step::RequestProgress),
        1 => Just(Step::NotifyProgress),
    ]
}

/// What a client knows of one of its watchers.
#[derive(Debug)]
struct Client {
    request: WatchRequest,
    /// The first revision it is owed.
    from: i64,
    got: Vec<Event>,
    /// The response before was a fragment with more to come.
    in_fragment: bool,
}

struct World {
    kv: Kv,
    hub: Hub,
    applied: u64,
    /// All events ever.
    events: Vec<Event>,
    streams: Vec<StreamId>,
    /// Created, the answer not yet taken, in order.
    asked: Vec<Vec<(WatchRequest, i64)>>,
    watching: Vec<BTreeMap<i64, Client>>,
    /// A whole twin of the store, whose events are taken one command at a time.
    twin: Kv,
    seen: Seen,
}

/// What the run went through: a test that never sees a slow watcher proves nothing about one.
#[derive(Debug, Default)]
struct Seen {
    events: usize,
    fragments: usize,
    compacted: usize,
    progress: usize,
    gaps: usize,
    slow: usize,
}

impl World {
    fn new() -> World {
        let open = |event_bytes| {
            let options = Options {
                event_bytes,
                ..Options::default()
            };
            Kv::open(Arc::new(MemDisk::default()), options).unwrap()
        };
        let kv = open(1_000);
        let options = HubOptions {
            queue_bytes: 900,
            stream_bytes: 2_000,
            fragment_bytes: 200,
            history_bytes: 500,
        };
        let mut hub = Hub::new(options, kv.revision(), kv.compacted_revision());
        let streams: Vec<StreamId> = (0..3).map(|_| hub.open()).collect();
        World {
            kv,
            hub,
            applied: 0,
            events: Vec::new(),
            asked: vec![Vec::new(); 3],
            watching: (0..3).map(|_| BTreeMap::new()).collect(),
            streams,
            twin: open(1 << 30),
            seen: Seen::default(),
        }
    }

    fn command(&mut self, command: &Command) {
        self.applied += 1;
        let at = LogId::new(1, self.applied);
        let _ = self.kv.apply(at, &command.encode());
        let _ = self.twin.apply(at, &command.encode());
        if let Some(batch) = self.twin.take_events() {
            self.events
                .extend(batch.events.iter().map(|event| (**event).clone()));
        }
    }

    fn publish(&mut self) {
        if let Some(batch) = self.kv.take_events() {
            let behind = self.hub.watchers().1;
            self.hub.publish(&batch);
            let fell_behind = self.hub.watchers().1 > behind;
            self.seen.gaps += usize::from(batch.gap);
            self.seen.slow += usize::from(fell_behind && !batch.gap);
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Command(command) => self.command(command),
            Step::Publish => self.publish(),
            Step::Create(stream, request) => self.create(*stream, request),
            Step::Cancel(stream, id) => self.hub.cancel(self.streams[*stream], *id),
            Step::Take(stream, n) => {
                for _ in 0..*n {
                    self.take(*stream);
                }
            }
            Step::History(meanwhile, create) => {
                if let Some(wanted) = self.hub.wants_history() {
                    let history = self
                        .kv
                        .history(wanted.from, wanted.max_bytes, wanted.prev_kv)
                        .unwrap();
                    meanwhile.iter().for_each(|command| self.command(command));
                    if let Some((stream, request)) = create {
                        self.create(*stream, request);
                    }
                    self.hub.history(&history);
                }
            }
            Step::RequestProgress(stream) => self.hub.request_progress(self.streams[*stream]),
            Step::NotifyProgress => self.hub.notify_progress(),
        }
    }

    fn create(&mut self, stream: usize, request: &WatchRequest) {
        let from = request.start_revision;
        let from = if from > 0 { from } else { self.hub.revision() + 1 };
        self.asked[stream].push((request.clone(), from));
        self.hub.create(self.streams[stream], request.clone());
    }

    fn take(&mut self, stream: usize) -> bool {
        let Some(response) = self.hub.next(self.streams[stream]) else {
            return false;
        };
        if response.created {
            let (request, from) = self.asked[stream].remove(0);
            self.created(stream, request, from, &response);
        } else if response.watch_id == -1 {
            self.seen.progress += 1;
            for client in self.watching[stream].values() {
                self.complete(client, response.revision);
            }
        } else if response.canceled {
            // A client's own cancel leaves it with a part, a compaction too: what came is checked against what was owed.
            let client = self.watching[stream]
                .remove(&response.watch_id)
                .expect("it was created");
            let owed = self.owed(&client);
            assert_eq!(client.got, owed[..client.got.len()], "a prefix, nothing skipped");
            if response.compact_revision > 0 {
                self.seen.compacted += 1;
                let next = owed
                    .get(client.got.len())
                    .map_or(client.from, |event| event.kv.mod_revision);
                assert!(next < response.compact_revision || client.from < response.compact_revision);
            }
        } else {
            self.delivered(stream, &response);
        }
        true
    }

    fn created(&mut self, stream: usize, request: WatchRequest, from: i64, response: &WatchResponse) {
        let empty = !matches!(request.range_end.as_ref(), [] | [0]) && {
            let key: &[u8] = if request.key.is_empty() {
                b"\0"
            } else {
                &request.key
            };
            key >= request.range_end.as_ref()
        };
        if response.canceled {
            assert_eq!(response.watch_id, -1);
            let expected = match empty {
                true => "mvcc: watcher range is empty",
                false => "mvcc: duplicate watch ID provided on the WatchStream",
            };
            assert_eq!(response.cancel_reason, expected);
            return;
        }
        assert!(!empty);
        assert!(request.watch_id == 0 || request.watch_id == response.watch_id);
        let client = Client {
            from,
            request,
            got: Vec::new(),
            in_fragment: false,
        };
        let before = self.watching[stream].insert(response.watch_id, client);
        assert!(before.is_none(), "ids are unique on a stream");
    }

    fn delivered(&mut self, stream: usize, response: &WatchResponse) {
        let client = self.watching[stream]
            .get_mut(&response.watch_id)
            .expect("created before its events");
        if response.events.is_empty() {
            assert!(client.request.progress_notify);
            self.seen.progress += 1;
            return self.complete(&self.watching[stream][&response.watch_id], response.revision);
        }
        let first = response.events[0].kv.mod_revision;
        let last = client.got.last().map(|event| event.kv.mod_revision);
        assert!(
            client.in_fragment || last < Some(first),
            "a revision is split without fragments"
        );
        assert!(!response.fragment || client.request.fragment);
        assert_eq!(response.prev_kv, client.request.prev_kv);
        // Whoever else has had the same events encoded has had them in the same form.
        let form = |events: &[Arc<Event>]| Bytes::from(format!("{} {events:?}", response.prev_kv));
        assert_eq!(response.events.encoded(form), form(&response.events));
        client.in_fragment = response.fragment;
        self.seen.fragments += usize::from(response.fragment);
        self.seen.events += response.events.len();
        for event in response.events.iter() {
            assert!(
                event.kv.mod_revision <= response.revision,
                "the header covers its events"
            );
            let mut event = (**event).clone();
            if !client.request.prev_kv {
                event.prev_kv = None;
            }
            client.got.push(event);
        }
        if !response.fragment {
            // Clients resume behind it.
            self.complete(&self.watching[stream][&response.watch_id], response.revision);
        }
    }

    /// Everything a watcher is owed if nothing is compacted away.
    fn owed(&self, client: &Client) -> Vec<Event> {
        let request = &client.request;
        let start: &[u8] = if request.key.is_empty() {
            b"\0"
        } else {
            &request.key
        };
        let matches = |event: &&Event| {
            let filtered = match event.kind {
                EventKind::Put => request.no_put,
                EventKind::Delete => request.no_delete,
            };
            !filtered
                && event.kv.mod_revision >= client.from
                && within(&event.kv.key, start, &request.range_end)
        };
        let mut owed: Vec<Event> = self.events.iter().filter(matches).cloned().collect();
        for (n, event) in owed.iter_mut().enumerate() {
            // Read from history after a compaction, the version before may be gone; if it is given it must be right.
            let gone = client.got.get(n).is_some_and(|got| got.prev_kv.is_none());
            let may_be_gone = event.kv.mod_revision - 1 < self.kv.compacted_revision();
            if !request.prev_kv || gone && may_be_gone {
                event.prev_kv = None;
            }
        }
        owed
    }

    /// Everything up to `revision` has come, and it was right.
    fn complete(&self, client: &Client, revision: i64) {
        let owed = self.owed(client);
        assert_eq!(client.got, owed[..client.got.len()]);
        let missing = owed[client.got.len()..]
            .iter()
            .find(|event| event.kv.mod_revision <= revision);
        assert_eq!(missing, None, "progress is never ahead of events");
        assert!(
            client.request.start_revision <= revision,
            "no progress below the start"
        );
    }

    /// Lets everything flow to its end.
    fn settle(&mut self) {
        self.publish();
        for _ in 0..10_000 {
            let mut moved = false;
            for stream in 0..3 {
                while self.take(stream) {
                    moved = true;
                }
            }
            if let Some(wanted) = self.hub.wants_history() {
                let history = self
                    .kv
                    .history(wanted.from, wanted.max_bytes, wanted.prev_kv)
                    .unwrap();
                self.hub.history(&history);
                moved = true;
            }
            if !moved {
                return;
            }
        }
        panic!("catching up does not end");
    }
}

fn run(steps: &[Step]) -> Seen {
    let mut world = World::new();
    for step in steps {
        world.step(step);
    }
    for stream in world.streams.clone() {
        world.hub.request_progress(stream);
    }
    world.settle();
    assert_eq!(world.hub.watchers().1, 0, "everyone is synced in the end");
    for client in world.watching.iter().flat_map(BTreeMap::values) {
        assert_eq!(client.got, world.owed(client));
    }
    world.seen
}

#[test]
fn every_watcher_gets_exactly_its_events() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::{Config, TestRunner};
    let config = Config {
        cases: 600,
        failure_persistence: None,
        max_shrink_iters: 2000,
        ..Config::default()
    };
    let strategy = proptest::collection::vec(step(), 20..120);
    TestRunner::new(config)
        .run(&strategy, |steps| {
            run(&steps);
            Ok(())
        })
        .unwrap();

    // The strategy reaches what it is meant to reach.
    let mut total = Seen::default();
    let mut runner = TestRunner::deterministic();
    for _ in 0..100 {
        let seen = run(&strategy.new_tree(&mut runner).unwrap().current());
        total.events += seen.events;
        total.fragments += seen.fragments;
        total.compacted += seen.compacted;
        total.progress += seen.progress;
        total.gaps += seen.gaps;
        total.slow += seen.slow;
    }
    assert!(total.events > 1000, "{total:?}");
    assert!(
        total.fragments > 20 && total.compacted > 20 && total.progress > 20 && total.gaps > 5,
        "{total:?}"
    );
}
