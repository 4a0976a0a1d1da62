//! Watchers: each has a stream of its own over the whole key space, counts what comes, and begins again where it was when its
//! stream breaks.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use http::request::Parts;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::etcdserverpb::{WatchCreateRequest, WatchRequest};
use tokio::sync::Notify;

use super::client::after_failure;
use super::link::{Link, Up};
use super::scan::{Field, Fields, Malformed};
use super::tally::Events;
use super::wire::{Duplex, Fault};
use super::work::{Random, Stamp, frame};

/// What the watchers of a thread have seen.
#[derive(Debug)]
pub struct Seen {
    events: RefCell<Events>,
    /// The run whose events count, and its start.
    run: Cell<Option<(u64, Instant)>>,
    open: Cell<usize>,
    opened: Notify,
}

impl Seen {
    /// Nothing yet.
    pub fn new() -> Rc<Seen> {
        Rc::new(Seen {
            events: RefCell::new(Events::new()),
            run: Cell::new(None),
            open: Cell::new(0),
            opened: Notify::new(),
        })
    }

    /// From now on the events of this run count, and no others.
    pub fn count(&self, run: u64, start: Instant) {
        self.run.set(Some((run, start)));
    }

    /// Waits until so many watches are open; else gives why one of them is not.
    pub async fn wait_for_open(&self, watchers: usize, patience: Duration) -> Result<(), String> {
        let open = async {
            while self.open.get() < watchers {
                self.opened.notified().await;
            }
        };
        tokio::time::timeout(patience, open).await.map_err(|_| {
            let events = self.events.borrow();
            let why = events.errors.keys().next().map_or("no answer", String::as_str);
            format!("only {} of {watchers} watches are open: {why}", self.open.get())
        })
    }

    /// Waits until so many events have come, or none has come for so long.
    pub async fn wait_for_events(&self, events: u64, patience: Duration) {
        let begun = Instant::now();
        loop {
            let (count, last) = {
                let events = self.events.borrow();
                (events.latency.len(), events.last)
            };
            if count >= events || last.unwrap_or(begun).max(begun).elapsed() >= patience {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// What was counted.
    pub fn take(&self) -> Events {
        self.events.replace(Events::new())
    }
}

/// One watcher.
pub struct Watcher {
    /// The head of the call at each endpoint.
    pub heads: Rc<[Parts]>,
    /// Its connection.
    pub link: Rc<Link>,
    /// For the waits after failures.
    pub random: Random,
    /// Where it counts.
    pub seen: Rc<Seen>,
    /// The connection it last used.
    held: Option<Up>,
    /// The first revision that it has not seen; 0 before it watches.
    next_revision: i64,
}

impl Watcher {
    /// A watcher that does not watch yet.
    pub fn new(heads: Rc<[Parts]>, link: Rc<Link>, random: Random, seen: Rc<Seen>) -> Watcher {
        Watcher {
            heads,
            link,
            random,
            seen,
            held: None,
            next_revision: 0,
        }
    }

    /// Watches for as long as it is polled.
    pub async fn watch(mut self) {
        loop {
            let begun = Instant::now();
            let Err(fault) = self.follow().await;
            self.link
                .failed(self.held.as_ref(), &fault, begun, Instant::now());
            *self
                .seen
                .events
                .borrow_mut()
                .errors
                .entry(fault.to_string())
                .or_default() += 1;
            tokio::time::sleep(after_failure(&mut self.random)).await;
        }
    }

    /// Watches until something goes wrong.
    async fn follow(&mut self) -> Result<std::convert::Infallible, Fault> {
        let up = self.link.hold(&mut self.held).await?;
        let mut stream = Duplex::open(&mut up.send, &self.heads[up.endpoint]).await?;
        // All keys that begin with a digit: the load's.
        let create = WatchCreateRequest {
            key: "0".into(),
            range_end: ":".into(),
            start_revision: self.next_revision,
            ..WatchCreateRequest::default()
        };
        let create = WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(create)),
        };
        stream.send(frame(&create, &mut BytesMut::new()))?;
        loop {
            let message = stream.receive().await?;
            self.take(&message)?;
        }
    }

    fn take(&mut self, message: &[u8]) -> Result<(), Fault> {
        let now = Instant::now();
        let answer = Answer::read(message, |event| {
            self.next_revision = self.next_revision.max(event.revision + 1);
            let (Some((run, start)), Some(stamp)) = (self.seen.run.get(), event.stamp) else {
                return;
            };
            if stamp.run == run {
                let sent = start + Duration::from_nanos(stamp.nanos);
                let latency = now.saturating_duration_since(sent);
                self.seen.events.borrow_mut().note(latency, now);
            }
        })
        .map_err(|error| Fault::Unreadable(error.to_string()))?;
        if answer.cancelled {
            return Err(Fault::Connection("the server cancelled the watch".to_owned()));
        }
        if answer.created && self.next_revision == 0 {
            self.next_revision = answer.revision + 1;
            self.seen.open.set(self.seen.open.get() + 1);
            self.seen.opened.notify_one();
        }
        Ok(())
    }
}

/// What matters in a WatchResponse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Answer {
    /// The store's, when it was sent.
    revision: i64,
    created: bool,
    cancelled: bool,
}

/// What matters in an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Event {
    revision: i64,
    stamp: Option<Stamp>,
}

impl Answer {
    fn read(message: &[u8], mut event: impl FnMut(Event)) -> Result<Answer, Malformed> {
        let mut answer = Answer::default();
        for field in Fields::of(message) {
            match field? {
                (1, Field::Bytes(header)) => {
                    for field in Fields::of(header) {
                        if let (3, Field::Number(revision)) = field? {
                            answer.revision = revision.cast_signed();
                        }
                    }
                }
                (3, Field::Number(created)) => answer.created = created != 0,
                (4, Field::Number(cancelled)) => answer.cancelled = cancelled != 0,
                (11, Field::Bytes(message)) => event(Event::read(message)?),
                _ => {}
            }
        }
        Ok(answer)
    }
}

impl Event {
    fn read(message: &[u8]) -> Result<Event, Malformed> {
        let mut event = Event::default();
        for field in Fields::of(message) {
            let (2, Field::Bytes(pair)) = field? else { continue };
            for field in Fields::of(pair) {
                match field? {
                    (3, Field::Number(revision)) => event.revision = revision.cast_signed(),
                    (5, Field::Bytes(value)) => event.stamp = Stamp::of(value),
                    _ => {}
                }
            }
        }
        Ok(event)
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use quorate_proto::etcdserverpb::{ResponseHeader, WatchResponse};
    use quorate_proto::mvccpb;

    use super::*;

    #[test]
    fn an_answer_is_read_as_it_was_written() {
        let event = |revision, value: Vec<u8>| mvccpb::Event {
            kv: Some(mvccpb::KeyValue {
                key: "00000001".into(),
                mod_revision: revision,
                value: value.into(),
                ..mvccpb::KeyValue::default()
            }),
            ..mvccpb::Event::default()
        };
        let header = ResponseHeader {
            revision: 90,
            ..ResponseHeader::default()
        };
        let message = WatchResponse {
            header: Some(header),
            created: true,
            events: vec![event(7, vec![1; 16]), event(8, vec![1; 15])],
            ..WatchResponse::default()
        };
        let mut events = Vec::new();
        let answer = Answer::read(&message.encode_to_vec(), |event| events.push(event));
        let expected = Answer {
            revision: 90,
            created: true,
            cancelled: false,
        };
        assert_eq!(answer, Ok(expected));
        let ones = 0x0101_0101_0101_0101;
        let stamp = Stamp {
            run: ones,
            nanos: ones,
        };
        let expected = [(7, Some(stamp)), (8, None)].map(|(revision, stamp)| Event { revision, stamp });
        assert_eq!(events, expected);
    }
}
