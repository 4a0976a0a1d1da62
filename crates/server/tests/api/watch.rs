//! The Watch service: one stream, several watchers, from now or from the past, and every way to end.

use quorate_proto::etcdserverpb as pb;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::support::{One, get_op, next, put, put_op};

/// An open stream.
struct Watcher {
    orders: mpsc::Sender<pb::WatchRequest>,
    answers: Streaming<pb::WatchResponse>,
}

impl Watcher {
    async fn open(one: &One) -> Watcher {
        let (orders, requests) = mpsc::channel(16);
        let answers = one
            .watch()
            .watch(ReceiverStream::new(requests))
            .await
            .expect("a stream")
            .into_inner();
        Watcher { orders, answers }
    }

    async fn ask(&self, request: pb::watch_request::RequestUnion) {
        self.orders
            .send(pb::WatchRequest {
                request_union: Some(request),
            })
            .await
            .expect("the stream is open");
    }

    async fn create(&mut self, create: pb::WatchCreateRequest) -> pb::WatchResponse {
        self.ask(pb::watch_request::RequestUnion::CreateRequest(create))
            .await;
        next(&mut self.answers).await
    }
}

fn on(key: &str) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest {
        key: key.to_owned().into(),
        ..Default::default()
    }
}

#[tokio::test]
async fn one_stream_carries_several_watchers_and_cancels_them_one_by_one() {
    let one = One::start().await;
    let mut kv = one.kv();
    let mut watcher = Watcher::open(&one).await;
    let first = watcher.create(on("a")).await;
    assert_eq!((first.watch_id, first.created, first.canceled), (0, true, false));
    assert_eq!(first.header.expect("a header").revision, 1);
    let prefix = pb::WatchCreateRequest {
        range_end: "c".into(),
        prev_kv: true,
        ..on("b")
    };
    assert_eq!(watcher.create(prefix).await.watch_id, 1);
    kv.put(put("a", "1")).await.expect("a put");
    let event = next(&mut watcher.answers).await;
    assert_eq!((event.watch_id, event.events.len()), (0, 1));
    assert_eq!(event.events[0].kv.as_ref().expect("a pair").value, "1");
    kv.put(put("bb", "1")).await.expect("a put");
    kv.put(put("bb", "2")).await.expect("a put");
    assert!(
        next(&mut watcher.answers).await.events[0].prev_kv.is_none(),
        "the first had nothing before it"
    );
    let second = next(&mut watcher.answers).await;
    assert_eq!(
        second.events[0]
            .prev_kv
            .as_ref()
            .expect("the version before")
            .value,
        "1"
    );
    watcher
        .ask(pb::watch_request::RequestUnion::CancelRequest(
            pb::WatchCancelRequest { watch_id: 0 },
        ))
        .await;
    let canceled = next(&mut watcher.answers).await;
    assert_eq!(
        (canceled.watch_id, canceled.canceled, canceled.created),
        (0, true, false)
    );
    kv.put(put("a", "2")).await.expect("a put");
    kv.put(put("bz", "3")).await.expect("a put");
    let third = next(&mut watcher.answers).await;
    assert_eq!(
        third.events[0].kv.as_ref().expect("a pair").key,
        "bz",
        "the cancelled watcher is silent"
    );
}

#[tokio::test]
async fn history_comes_whole_and_in_order_before_the_present() {
    let one = One::start().await;
    let mut kv = one.kv();
    for n in 0..300 {
        kv.put(put("a", &n.to_string())).await.expect("a put");
    }
    let both = pb::TxnRequest {
        success: vec![
            put_op(put("a", "x")),
            put_op(put("ab", "y")),
            get_op(crate::support::get("a")),
        ],
        ..Default::default()
    };
    kv.txn(both).await.expect("a transaction");
    let mut watcher = Watcher::open(&one).await;
    let past = pb::WatchCreateRequest {
        start_revision: 2,
        range_end: "b".into(),
        ..on("a")
    };
    assert!(watcher.create(past).await.created);
    kv.put(put("a", "last")).await.expect("a put");
    let mut seen = Vec::new();
    while seen.len() < 303 {
        let answer = next(&mut watcher.answers).await;
        let last = answer
            .events
            .last()
            .and_then(|e| e.kv.as_ref())
            .map(|kv| kv.mod_revision);
        assert!(answer.header.expect("a header").revision >= last.expect("an event"));
        seen.extend(
            answer
                .events
                .into_iter()
                .map(|e| e.kv.expect("a pair").mod_revision),
        );
    }
    let wanted: Vec<i64> = (2..=301).chain([302, 302, 303]).collect();
    assert_eq!(seen, wanted);
}

#[tokio::test]
async fn a_compacted_start_is_created_and_then_cancelled() {
    let one = One::start().await;
    let mut kv = one.kv();
    for n in 0..5 {
        kv.put(put("a", &n.to_string())).await.expect("a put");
    }
    kv.compact(pb::CompactionRequest {
        revision: 4,
        physical: false,
    })
    .await
    .expect("a compaction");
    let mut watcher = Watcher::open(&one).await;
    let created = watcher
        .create(pb::WatchCreateRequest {
            start_revision: 2,
            ..on("a")
        })
        .await;
    assert!(created.created && !created.canceled);
    let canceled = next(&mut watcher.answers).await;
    assert_eq!(
        (
            canceled.canceled,
            canceled.compact_revision,
            canceled.cancel_reason.as_str()
        ),
        (true, 4, "")
    );
    assert_eq!(canceled.header.expect("a header").revision, 0, "as in etcd");
    let at_compacted = watcher
        .create(pb::WatchCreateRequest {
            start_revision: 4,
            ..on("a")
        })
        .await;
    assert!(at_compacted.created);
    assert_eq!(
        next(&mut watcher.answers).await.events[0]
            .kv
            .as_ref()
            .expect("a pair")
            .mod_revision,
        4
    );
}

#[tokio::test]
async fn failed_creates_say_why_and_leave_the_stream_open() {
    let one = One::start().await;
    let mut watcher = Watcher::open(&one).await;
    assert_eq!(
        watcher
            .create(pb::WatchCreateRequest {
                watch_id: 5,
                ..on("a")
            })
            .await
            .watch_id,
        5
    );
    let twice = watcher
        .create(pb::WatchCreateRequest {
            watch_id: 5,
            ..on("a")
        })
        .await;
    assert_eq!((twice.watch_id, twice.created, twice.canceled), (-1, true, true));
    assert_eq!(
        twice.cancel_reason,
        "mvcc: duplicate watch ID provided on the WatchStream"
    );
    let backwards = watcher
        .create(pb::WatchCreateRequest {
            range_end: "a".into(),
            ..on("b")
        })
        .await;
    assert_eq!(
        (backwards.watch_id, backwards.cancel_reason.as_str()),
        (-1, "mvcc: watcher range is empty")
    );
    assert!(watcher.create(on("c")).await.created);
}

#[tokio::test]
async fn filters_and_progress() {
    let one = One::start().await;
    let mut kv = one.kv();
    let mut watcher = Watcher::open(&one).await;
    let no_puts = vec![pb::watch_create_request::FilterType::Noput as i32];
    watcher
        .create(pb::WatchCreateRequest {
            filters: no_puts,
            ..on("a")
        })
        .await;
    kv.put(put("a", "1")).await.expect("a put");
    kv.delete_range(pb::DeleteRangeRequest {
        key: "a".into(),
        ..Default::default()
    })
    .await
    .expect("a delete");
    let deleted = next(&mut watcher.answers).await;
    assert_eq!(
        deleted.events[0].r#type,
        quorate_proto::mvccpb::event::EventType::Delete as i32
    );
    watcher
        .ask(pb::watch_request::RequestUnion::ProgressRequest(
            pb::WatchProgressRequest {},
        ))
        .await;
    let progress = next(&mut watcher.answers).await;
    assert_eq!((progress.watch_id, progress.events.len()), (-1, 0));
    assert_eq!(progress.header.expect("a header").revision, 3);
}

#[tokio::test]
async fn a_client_that_has_nothing_more_to_ask_still_hears() {
    let one = One::start().await;
    let mut watcher = Watcher::open(&one).await;
    watcher.create(on("a")).await;
    let Watcher { orders, mut answers } = watcher;
    drop(orders);
    one.kv().put(put("a", "1")).await.expect("a put");
    assert_eq!(next(&mut answers).await.events.len(), 1);
}

#[tokio::test]
async fn a_slow_reader_gets_everything_in_the_end() {
    let one = One::start().await;
    let mut kv = one.kv();
    let mut watcher = Watcher::open(&one).await;
    watcher.create(on("a")).await;
    let value = "x".repeat(100_000);
    for _ in 0..200 {
        kv.put(put("a", &value)).await.expect("a put");
    }
    let mut seen = Vec::new();
    while seen.len() < 200 {
        let answer = next(&mut watcher.answers).await;
        seen.extend(
            answer
                .events
                .into_iter()
                .map(|e| e.kv.expect("a pair").mod_revision),
        );
    }
    assert_eq!(seen, (2..202).collect::<Vec<i64>>());
}

#[tokio::test]
async fn a_closed_stream_is_forgotten() {
    let one = One::start().await;
    let mut watcher = Watcher::open(&one).await;
    watcher.create(on("a")).await;
    assert!(crate::gateway::metric(one.address, "etcd_debugging_mvcc_watch_stream_total").await == "1");
    drop(watcher);
    // The server learns of it with the client's reset; each look is a round trip.
    let gone = async {
        while crate::gateway::metric(one.address, "etcd_debugging_mvcc_watch_stream_total").await != "0" {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), gone)
        .await
        .expect("forgotten in time");
}
