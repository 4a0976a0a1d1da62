//! [`Events`]: what a response carries, put together once for all watchers that get the same, with a place for the form in which
//! they are sent. What that form is, is the caller's business.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::kv::event_bytes;
use crate::types::Event;

/// The events of a response, in order. A clone shares them.
#[derive(Clone, Debug, Default)]
pub struct Events(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    list: Vec<Arc<Event>>,
    /// About how much memory they take.
    bytes: usize,
    encoded: OnceLock<Bytes>,
}

impl Events {
    /// These events, shared by nobody yet.
    pub fn new(list: Vec<Arc<Event>>) -> Events {
        let bytes = list.iter().map(|event| event_bytes(event)).sum();
        Events(Some(Arc::new(Shared {
            list,
            bytes,
            encoded: OnceLock::new(),
        })))
    }

    /// About how much memory they take, if nobody shares them.
    pub(super) fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |shared| shared.bytes)
    }

    /// Whether these are the very same, not only equal.
    pub fn is_same(&self, other: &Events) -> bool {
        match (&self.0, &other.0) {
            (Some(own), Some(other)) => Arc::ptr_eq(own, other),
            (own, other) => own.is_none() && other.is_none(),
        }
    }

    /// What `encode` makes of the events: called by the first who asks, kept for all who share them. All of these want `prev_kv`
    /// or none does.
    pub fn encoded(&self, encode: impl FnOnce(&[Arc<Event>]) -> Bytes) -> Bytes {
        match &self.0 {
            Some(shared) => shared.encoded.get_or_init(|| encode(&shared.list)).clone(),
            None => encode(&[]),
        }
    }
}

/// The events of one response to a watcher.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) events: Events,
    /// More of the same revision follows.
    pub(super) fragment: bool,
}

impl Piece {
    /// What a watcher gets at once, in pieces of about `limit` bytes. A revision is a piece of its own if it is larger, or, where
    /// `fragments` are welcome, several of at least one event.
    pub(super) fn cut(list: Vec<Arc<Event>>, fragments: bool, limit: usize) -> Vec<Piece> {
        let whole = Events::new(list);
        let revision = |event: &Arc<Event>| event.kv.mod_revision;
        let one_revision = whole.first().map(revision) == whole.last().map(revision);
        if whole.bytes() <= limit || one_revision && !fragments {
            return vec![Piece {
                events: whole,
                fragment: false,
            }];
        }
        let mut pieces = Vec::new();
        let revisions = whole.chunk_by(|a, b| revision(a) == revision(b));
        for revisions in gather(revisions, limit) {
            let of_one = revision(&revisions[0]) == revision(&revisions[revisions.len() - 1]);
            if !(fragments && of_one) {
                pieces.push((revisions, false));
                continue;
            }
            let mut parts = gather(revisions.chunks(1), limit).into_iter().peekable();
            while let Some(part) = parts.next() {
                pieces.push((part, parts.peek().is_some()));
            }
        }
        let piece = |(list, fragment)| Piece {
            events: Events::new(list),
            fragment,
        };
        pieces.into_iter().map(piece).collect()
    }

    /// The last revision of which it has an event.
    pub(super) fn last_revision(&self) -> Option<i64> {
        self.events.last().map(|event| event.kv.mod_revision)
    }
}

/// Puts chunks together to lists of at most `limit` bytes, or of one chunk.
fn gather<'a>(chunks: impl Iterator<Item = &'a [Arc<Event>]>, limit: usize) -> Vec<Vec<Arc<Event>>> {
    let mut lists: Vec<(Vec<Arc<Event>>, usize)> = Vec::new();
    for chunk in chunks {
        let size: usize = chunk.iter().map(|event| event_bytes(event)).sum();
        match lists.last_mut() {
            Some((list, bytes)) if *bytes + size <= limit => {
                list.extend_from_slice(chunk);
                *bytes += size;
            }
            _ => lists.push((chunk.to_vec(), size)),
        }
    }
    lists.into_iter().map(|(list, _)| list).collect()
}

impl Deref for Events {
    type Target = [Arc<Event>];

    fn deref(&self) -> &[Arc<Event>] {
        self.0.as_ref().map_or(&[], |shared| &shared.list)
    }
}

impl PartialEq for Events {
    fn eq(&self, other: &Events) -> bool {
        self[..] == other[..]
    }
}

impl Eq for Events {}
