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

    /// Parts of at most `limit` bytes, or one event each.
    pub(super) fn split(list: Vec<Arc<Event>>, limit: usize) -> Vec<Events> {
        let mut parts: Vec<(Vec<Arc<Event>>, usize)> = Vec::new();
        for event in list {
            let size = event_bytes(&event);
            match parts.last_mut() {
                Some((part, bytes)) if *bytes + size <= limit => {
                    part.push(event);
                    *bytes += size;
                }
                _ => parts.push((vec![event], size)),
            }
        }
        parts.into_iter().map(|(part, _)| Events::new(part)).collect()
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
