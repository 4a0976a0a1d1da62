//! A client's stream as the hub sees it: its watchers by the client's ids, and the responses it has not taken yet.

use std::collections::{BTreeMap, VecDeque};

use super::WatchResponse;

#[derive(Debug, Default)]
pub(super) struct Stream {
    /// Watcher by the client's id.
    pub(super) ids: BTreeMap<i64, u64>,
    pub(super) next_id: i64,
    pub(super) queue: VecDeque<Queued>,
    /// Answers to creates and cancels in the queue.
    pub(super) answers: usize,
    /// Whether a progress answer is in the queue. The next one waits until it is taken.
    pub(super) progress: bool,
}

/// A response, and whose queue it takes up how much of.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) response: WatchResponse,
    pub(super) kind: Kind,
    pub(super) watcher: u64,
    pub(super) bytes: usize,
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
