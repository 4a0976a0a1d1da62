//! A client's stream as the hub sees it: its watchers by the client's ids, and the responses it has not taken yet.

use std::collections::{BTreeMap, VecDeque};

use super::{Events, WatchResponse};

#[derive(Debug, Default)]
pub(super) struct Stream {
    /// Watcher by the client's id.
    pub(super) ids: BTreeMap<i64, u64>,
    pub(super) next_id: i64,
    queue: VecDeque<Queued>,
    /// About how much memory the queue takes.
    pub(super) queued: usize,
    /// Answers to creates and cancels in the queue.
    pub(super) answers: usize,
    /// Whether a progress answer is in the queue. The next one waits until it is taken.
    pub(super) progress: bool,
}

impl Stream {
    /// About how much memory the queue would take more with these events. What its last response shares costs nothing twice: many
    /// watchers of the same keys on one stream get the very same.
    pub(super) fn takes(&self, events: &Events) -> usize {
        let shared = |last: &Queued| last.response.events.is_same(events);
        size_of::<Queued>()
            + if self.queue.back().is_some_and(shared) {
                0
            } else {
                events.bytes()
            }
    }

    /// Queues a response on behalf of a watcher, of whose queue it takes so many bytes.
    pub(super) fn push(&mut self, response: WatchResponse, kind: Kind, (watcher, bytes): (u64, usize)) {
        let takes = self.takes(&response.events);
        self.queued += takes;
        self.queue.push_back(Queued {
            response,
            kind,
            watcher,
            bytes,
            takes,
        });
    }

    /// Takes the next response.
    pub(super) fn pop(&mut self) -> Option<Queued> {
        let queued = self.queue.pop_front()?;
        self.queued -= queued.takes;
        Some(queued)
    }
}

/// A response, and whose queue it takes up how much of.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) response: WatchResponse,
    pub(super) kind: Kind,
    pub(super) watcher: u64,
    pub(super) bytes: usize,
    /// How much it takes of the stream's.
    takes: usize,
}

/// What bounds the number of such responses in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Events: the watcher's `queued`.
    Events,
    /// The answer to a create or cancel: the stream's `answers`.
    Answer,
    /// The answer to a progress request: the stream's `progress`.
    Progress,
    /// A progress notification: the watcher's `notified`.
    Notification,
    /// The end of a watcher that wants what is compacted: comes once.
    Lost,
}
