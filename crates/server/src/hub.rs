//! Watch fan-out: the one task that owns the [`Hub`], feeds it with what was applied and with history, and carries its answers into
//! the clients' streams. Off the apply path: applying only puts batches into a channel. Which event goes to which watcher
//! is the hub's rule, in `quorate-kv`.
//!
//! Memory is bounded: a stream's channel holds a few responses, a full one is left alone until its client takes something, and a
//! watcher whose queue in the hub is full goes back to reading history.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use quorate::{Handle, ReadError};
use quorate_kv::watch::{Hub, StreamId, WatchRequest};
use quorate_kv::{Error, EventBatch, History};
use quorate_proto::etcdserverpb as pb;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::Stream;
use tonic::Status;

mod answer;

use crate::convert;
use crate::errors;
use crate::machine::KvMachine;

pub(crate) use answer::Answer;
use answer::Frames;
#[cfg(test)]
pub(crate) use answer::answer_with_value;

/// Responses waiting in one stream's channel.
const STREAM_QUEUE: usize = 16;

/// Clients' orders waiting for the hub.
const ORDERS: usize = 1024;

/// Batches taken at once.
const BATCHES: usize = 128;

/// A pause after history could not be read.
const RETRY: Duration = Duration::from_secs(1);

type Outcome = Result<Answer, Status>;

enum Order {
    Open {
        out: mpsc::Sender<Outcome>,
        full: Arc<AtomicBool>,
        reply: oneshot::Sender<StreamId>,
    },
    Create(StreamId, WatchRequest),
    Cancel(StreamId, i64),
    Progress(StreamId),
    Fail(StreamId, Status),
}

/// What a stream's end tells the hub. At most one of each kind is on its way per stream, so the channel needs no bound.
enum Signal {
    Room(StreamId),
    Close(StreamId),
}

/// The services' end of the hub.
#[derive(Clone, Debug)]
pub(crate) struct HubClient {
    orders: mpsc::Sender<Order>,
    signals: mpsc::UnboundedSender<Signal>,
    streams: Arc<AtomicUsize>,
}

/// One client's open watch stream: the orders' way in.
#[derive(Clone, Debug)]
pub(crate) struct WatchOrders {
    id: StreamId,
    orders: mpsc::Sender<Order>,
    /// Its sender is dropped with the stream's end; the value never changes.
    ended: watch::Receiver<bool>,
}

/// One client's open watch stream: the answers' way out. Dropping it closes the stream.
#[derive(Debug)]
pub(crate) struct WatchAnswers {
    id: StreamId,
    answers: mpsc::Receiver<Outcome>,
    full: Arc<AtomicBool>,
    signals: mpsc::UnboundedSender<Signal>,
    /// Dropped with the rest, which ends the tasks that serve this stream.
    _ended: watch::Sender<bool>,
}

impl HubClient {
    /// Opens a stream.
    pub async fn open(&self) -> Result<(WatchOrders, WatchAnswers), Status> {
        let (out, answers) = mpsc::channel(STREAM_QUEUE);
        let full = Arc::new(AtomicBool::new(false));
        let (reply, id) = oneshot::channel();
        let order = Order::Open {
            out,
            full: full.clone(),
            reply,
        };
        self.orders.send(order).await.map_err(|_| errors::stopped())?;
        let id = id.await.map_err(|_| errors::stopped())?;
        let (end, ended) = watch::channel(false);
        let orders = WatchOrders {
            id,
            orders: self.orders.clone(),
            ended,
        };
        Ok((
            orders,
            WatchAnswers {
                id,
                answers,
                full,
                signals: self.signals.clone(),
                _ended: end,
            },
        ))
    }

    /// Open streams, for the metrics.
    pub fn streams(&self) -> usize {
        self.streams.load(Relaxed)
    }
}

impl WatchOrders {
    /// Passes on what the client asks; `false` when the server is stopping.
    pub async fn send(&self, request: pb::WatchRequest) -> bool {
        use pb::watch_request::RequestUnion;
        let order = match request.request_union {
            // etcd ignores a request that asks for nothing.
            None => return true,
            Some(RequestUnion::CreateRequest(create)) => Order::Create(self.id, convert::watch(create)),
            Some(RequestUnion::CancelRequest(cancel)) => Order::Cancel(self.id, cancel.watch_id),
            Some(RequestUnion::ProgressRequest(_)) => Order::Progress(self.id),
        };
        self.orders.send(order).await.is_ok()
    }

    /// Ends the stream with an error.
    pub async fn fail(&self, status: Status) {
        // A hub that is gone has ended the stream already.
        let _ = self.orders.send(Order::Fail(self.id, status)).await;
    }

    /// Completes when the stream has ended, for tasks that must not outlive it.
    pub async fn ended(&self) {
        // The sender is dropped with the answers: an error here is the end, too.
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }
}

impl Stream for WatchAnswers {
    type Item = Outcome;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Outcome>> {
        let polled = self.answers.poll_recv(cx);
        if matches!(polled, Poll::Ready(Some(_))) && self.full.swap(false, Relaxed) {
            let _ = self.signals.send(Signal::Room(self.id));
        }
        polled
    }
}

impl Drop for WatchAnswers {
    fn drop(&mut self) {
        let _ = self.signals.send(Signal::Close(self.id));
    }
}

struct Outlet {
    out: mpsc::Sender<Outcome>,
    /// Set when the hub has more than the channel holds.
    full: Arc<AtomicBool>,
}

type Reading = Pin<Box<dyn Future<Output = Result<Result<History, Error>, ReadError>> + Send>>;

/// The task's state.
pub(crate) struct HubTask {
    hub: Hub,
    outlets: BTreeMap<StreamId, Outlet>,
    frames: Frames,
    reading: Option<Reading>,
    handle: Handle<KvMachine>,
    status: watch::Receiver<quorate::Status>,
    cluster: u64,
    progress: Duration,
    orders: mpsc::Receiver<Order>,
    signals: mpsc::UnboundedReceiver<Signal>,
    events: mpsc::UnboundedReceiver<Arc<EventBatch>>,
    streams: Arc<AtomicUsize>,
}

/// A hub and its task. `events` must have been fed since the store was opened at the given revisions.
pub(crate) fn hub(
    hub: Hub,
    handle: Handle<KvMachine>,
    cluster: u64,
    progress: Duration,
    events: mpsc::UnboundedReceiver<Arc<EventBatch>>,
) -> (HubClient, HubTask) {
    let (orders, orders_in) = mpsc::channel(ORDERS);
    let (signals, signals_in) = mpsc::unbounded_channel();
    let streams = Arc::new(AtomicUsize::new(0));
    let task = HubTask {
        hub,
        outlets: BTreeMap::new(),
        frames: Frames::default(),
        reading: None,
        status: handle.subscribe(),
        handle,
        cluster,
        progress,
        orders: orders_in,
        signals: signals_in,
        events,
        streams: streams.clone(),
    };
    (
        HubClient {
            orders,
            signals,
            streams,
        },
        task,
    )
}

impl HubTask {
    /// Runs until the state machine is gone.
    pub async fn run(mut self) {
        let mut batches = Vec::with_capacity(BATCHES);
        let mut progress = tokio::time::interval(self.progress);
        progress.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        progress.tick().await;
        loop {
            tokio::select! {
                taken = self.events.recv_many(&mut batches, BATCHES) => {
                    if taken == 0 {
                        return;
                    }
                    for batch in batches.drain(..) {
                        self.hub.publish(&batch);
                    }
                }
                Some(order) = self.orders.recv() => self.obey(order),
                Some(signal) = self.signals.recv() => match signal {
                    Signal::Room(stream) => self.deliver(stream),
                    Signal::Close(stream) => self.close(stream),
                },
                read = read_on(&mut self.reading) => self.take_history(read),
                _ = progress.tick() => self.hub.notify_progress(),
            }
            for stream in self.hub.take_overrun() {
                self.fail(stream, errors::unread());
            }
            for stream in self.hub.take_ready() {
                self.deliver(stream);
            }
            self.read_history();
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Open { out, full, reply } => {
                let id = self.hub.open();
                self.outlets.insert(id, Outlet { out, full });
                self.streams.store(self.outlets.len(), Relaxed);
                if reply.send(id).is_err() {
                    self.close(id);
                }
            }
            Order::Create(stream, request) if self.outlets.contains_key(&stream) => {
                self.hub.create(stream, request)
            }
            Order::Cancel(stream, id) if self.outlets.contains_key(&stream) => self.hub.cancel(stream, id),
            Order::Progress(stream) if self.outlets.contains_key(&stream) => {
                self.hub.request_progress(stream)
            }
            Order::Fail(stream, status) => self.fail(stream, status),
            // The stream was closed meanwhile.
            Order::Create(..) | Order::Cancel(..) | Order::Progress(..) => {}
        }
    }

    fn fail(&mut self, stream: StreamId, status: Status) {
        if let Some(outlet) = self.outlets.get(&stream) {
            // A stream whose channel is full ends without the word: its client does not read anyway.
            let _ = outlet.out.try_send(Err(status));
            self.close(stream);
        }
    }

    fn close(&mut self, stream: StreamId) {
        if self.outlets.remove(&stream).is_some() {
            self.hub.close(stream);
            self.streams.store(self.outlets.len(), Relaxed);
        }
    }

    /// Moves what the hub has for a stream into its channel, as far as there is room.
    fn deliver(&mut self, stream: StreamId) {
        let mut closed = false;
        while let Some(outlet) = self.outlets.get(&stream)
            && !closed
        {
            match outlet.out.try_reserve() {
                Ok(room) => match self.hub.next(stream) {
                    Some(response) => {
                        let mut answer = Answer::new(self.cluster, &self.status.borrow(), response);
                        self.frames.share(&mut answer);
                        room.send(Ok(answer));
                    }
                    None => return,
                },
                Err(mpsc::error::TrySendError::Closed(())) => closed = true,
                Err(mpsc::error::TrySendError::Full(())) => {
                    outlet.full.store(true, Relaxed);
                    // The client may have taken the last one between the two.
                    if outlet.out.capacity() == 0 {
                        return;
                    }
                }
            }
        }
        self.close(stream);
    }

    /// Starts a reading if one is wanted and none is running.
    fn read_history(&mut self) {
        if self.reading.is_none() {
            self.read_history_after(Duration::ZERO);
        }
    }

    fn read_history_after(&mut self, pause: Duration) {
        self.reading = self.hub.wants_history().map(|wanted| {
            let handle = self.handle.clone();
            let reading: Reading = Box::pin(async move {
                if !pause.is_zero() {
                    tokio::time::sleep(pause).await;
                }
                handle
                    .local(move |machine| {
                        machine
                            .kv()
                            .history(wanted.from, wanted.max_bytes, wanted.prev_kv)
                    })
                    .await
            });
            reading
        });
    }

    fn take_history(&mut self, read: Result<Result<History, Error>, ReadError>) {
        match read {
            Ok(Ok(history)) => {
                self.reading = None;
                self.hub.history(&history);
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "cannot read history for watchers; trying again");
                self.read_history_after(RETRY);
            }
            // Busy, being restored for long, or stopping.
            Err(_) => self.read_history_after(RETRY),
        }
    }
}

/// The end of the running reading; never, if there is none.
async fn read_on(reading: &mut Option<Reading>) -> Result<Result<History, Error>, ReadError> {
    match reading {
        Some(reading) => reading.await,
        None => std::future::pending().await,
    }
}
