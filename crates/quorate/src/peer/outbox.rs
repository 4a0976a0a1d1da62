//! What waits to be written to one peer on one connection. Bounded: what does not fit goes back to whoever wanted it sent, for Raft
//! knows how to go on without a message, but not without knowing.

use std::sync::{Mutex, MutexGuard, PoisonError};

use quorate_node::message::PeerMessage;
use tokio::sync::Notify;

use super::asks::{AskFrame, AskRoad};

/// Frames that may wait.
const MAX_ITEMS: usize = 8192;
/// Bytes that may wait. A single longer frame still passes when nothing else waits.
const MAX_BYTES: usize = 32 << 20;

/// A frame before encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    Message(PeerMessage),
    Ask(AskFrame),
}

impl Item {
    /// About how many bytes it keeps.
    fn weight(&self) -> usize {
        let payload = match self {
            Item::Message(PeerMessage::Append { entries, .. }) => {
                entries.iter().map(|entry| entry.len() + 8).sum()
            }
            Item::Message(PeerMessage::Forward { command, .. }) => command.len(),
            Item::Message(PeerMessage::SnapshotChunk { bytes, .. }) => bytes.len(),
            Item::Message(_) | Item::Ask(AskFrame::Answer { answer: None, .. }) => 0,
            Item::Ask(
                AskFrame::Ask { request: bytes, .. }
                | AskFrame::Answer {
                    answer: Some(bytes), ..
                },
            ) => bytes.len(),
        };
        payload + 64
    }
}

#[derive(Default)]
struct State {
    open: bool,
    items: Vec<Item>,
    bytes: usize,
    /// What was taken last may not be written yet.
    writing: bool,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    ready: Notify,
    /// Nothing waits and nothing is being written.
    idle: Notify,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code runs under this lock that could leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues the item, or gives it back: no connection, or too much waits.
    #[expect(
        clippy::result_large_err,
        reason = "what does not fit is given back, and rarely"
    )]
    pub(crate) fn push(&self, item: Item) -> Result<(), Item> {
        let weight = item.weight();
        let mut state = self.lock();
        let full = state.items.len() >= MAX_ITEMS || (state.bytes > 0 && state.bytes + weight > MAX_BYTES);
        if !state.open || full {
            return Err(item);
        }
        let wake = state.items.is_empty();
        state.bytes += weight;
        state.items.push(item);
        drop(state);
        if wake {
            self.ready.notify_one();
        }
        Ok(())
    }

    /// Takes items from now on.
    pub(crate) fn open(&self) {
        self.lock().open = true;
    }

    /// Takes no more, and gives back what waits.
    pub(crate) fn close(&self) -> Vec<Item> {
        self.lock().open = false;
        self.take()
    }

    /// What waits; perhaps nothing.
    pub(crate) fn take(&self) -> Vec<Item> {
        let mut state = self.lock();
        state.bytes = 0;
        std::mem::take(&mut state.items)
    }

    /// Waits until there is something, and takes it. What was taken before has been written then.
    pub(crate) async fn wait(&self) -> Vec<Item> {
        loop {
            let items = self.take();
            let found = !items.is_empty();
            self.lock().writing = found;
            if found {
                return items;
            }
            self.idle.notify_one();
            self.ready.notified().await;
        }
    }

    fn is_idle(&self) -> bool {
        let state = self.lock();
        state.items.is_empty() && !state.writing
    }

    /// Waits until everything that was queued has been written, for one who asks while another [`wait`](Outbox::wait)s.
    pub(crate) async fn drained(&self) {
        loop {
            if self.is_idle() {
                return;
            }
            self.idle.notified().await;
        }
    }
}

impl AskRoad for Outbox {
    fn send(&self, frame: AskFrame) -> bool {
        self.push(Item::Ask(frame)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn ask(id: u64, len: usize) -> Item {
        Item::Ask(AskFrame::Ask {
            id,
            request: Bytes::from(vec![0; len]),
        })
    }

    #[tokio::test]
    async fn it_is_drained_when_what_was_taken_is_written() {
        let outbox = Outbox::default();
        outbox.open();
        outbox.drained().await;
        outbox.push(ask(1, 0)).unwrap();
        let mut drained = std::pin::pin!(outbox.drained());
        let now = std::time::Duration::ZERO;
        assert!(tokio::time::timeout(now, &mut drained).await.is_err());
        assert_eq!(outbox.wait().await.len(), 1);
        assert!(
            tokio::time::timeout(now, &mut drained).await.is_err(),
            "being written"
        );
        // Whoever writes comes for more when it has written.
        tokio::select! {
            _ = outbox.wait() => unreachable!("there is no more"),
            () = &mut drained => {}
        }
    }

    #[test]
    fn a_closed_or_full_outbox_gives_items_back() {
        let outbox = Outbox::default();
        assert_eq!(outbox.push(ask(1, 0)), Err(ask(1, 0)), "closed at first");
        outbox.open();
        outbox.push(ask(2, MAX_BYTES)).expect("a long one passes alone");
        assert!(outbox.push(ask(3, 0)).is_err(), "but nothing beside it");
        assert_eq!(outbox.take(), [ask(2, MAX_BYTES)]);
        for id in 0..MAX_ITEMS as u64 {
            outbox.push(ask(id, 0)).unwrap();
        }
        assert!(outbox.push(ask(0, 0)).is_err(), "full by number");
        assert_eq!(outbox.close().len(), MAX_ITEMS);
        assert!(outbox.push(ask(0, 0)).is_err(), "closed again");
    }
}
