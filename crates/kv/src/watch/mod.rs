//! Watch fan-out, sans-I/O: which events go to which watcher.
//!
//! The [`Hub`] is fed with every [`EventBatch`](crate::EventBatch) and hands out [`WatchResponse`]s stream by stream. A watcher is *synced* while it gets
//! events as they are published; one that starts in the past, or whose queue or stream is full, is *unsynced* and catches up from history
//! ([`Hub::wants_history`], [`Hub::history`]). So nothing is lost and the memory of each stream is bounded. The hub reads no clock: the caller says when it is
//! time for progress notifications.

use bytes::Bytes;

mod events;
mod groups;
mod hub;
mod matcher;
mod stream;

pub use events::Events;
pub use hub::Hub;

/// One client's watch stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// Sizes that bound the memory of watch.
#[derive(Clone, Debug)]
pub struct HubOptions {
    /// Events queued for one watcher, in bytes, above which it becomes unsynced.
    pub queue_bytes: usize,
    /// What is queued for all watchers of a stream, in bytes, above which they become unsynced.
    pub stream_bytes: usize,
    /// Size above which what a watcher gets at once is split: between revisions, and within one if it wants fragments.
    pub fragment_bytes: usize,
    /// How much history to read at once, in bytes.
    pub history_bytes: usize,
}

impl Default for HubOptions {
    fn default() -> HubOptions {
        HubOptions {
            queue_bytes: 4 << 20,
            stream_bytes: 16 << 20,
            fragment_bytes: 1_572_864,
            history_bytes: 1 << 20,
        }
    }
}

/// A watcher to create.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchRequest {
    /// The first key; empty means `"\0"`.
    pub key: Bytes,
    /// The end, as in [`RangeRequest`](crate::RangeRequest).
    pub range_end: Bytes,
    /// The first revision wanted; ≤ 0: from now on.
    pub start_revision: i64,
    /// Wants progress notifications.
    pub progress_notify: bool,
    /// Leave puts out.
    pub no_put: bool,
    /// Leave deletions out.
    pub no_delete: bool,
    /// Wants the version before with each event.
    pub prev_kv: bool,
    /// The client's choice of id; 0: the stream's next free one.
    pub watch_id: i64,
    /// Large responses may be split within a revision.
    pub fragment: bool,
}

/// What to send on a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchResponse {
    /// The revision for the header.
    pub revision: i64,
    /// The watcher; −1 for the answer to a progress request and for a failed create.
    pub watch_id: i64,
    /// Answers a create.
    pub created: bool,
    /// The watcher is gone (or never came to be).
    pub canceled: bool,
    /// Above 0 if it is gone because what it wanted is compacted up to here.
    pub compact_revision: i64,
    /// Why it is gone; empty after a client's cancel and after a compaction.
    pub cancel_reason: &'static str,
    /// More fragments of this response follow.
    pub fragment: bool,
    /// Whether the client wants `prev_kv` of the events (they may carry it though it does not).
    pub prev_kv: bool,
    /// The events, none in control and progress messages.
    pub events: Events,
}

/// A stretch of history the hub wants for watchers that are behind: answer with
/// `kv.history(from, max_bytes, prev_kv)` through [`Hub::history`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryWanted {
    /// The first revision.
    pub from: i64,
    /// About how much.
    pub max_bytes: usize,
    /// Whether some watcher wants the versions before.
    pub prev_kv: bool,
}
