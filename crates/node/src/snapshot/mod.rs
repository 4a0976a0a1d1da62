//! Snapshot transfers (§5.3) beside the core: [`outgoing`] streams the state machine to followers that are too far behind,
//! [`incoming`] stages what a leader sends, [`staging`] is the file for that. The core decides who needs a snapshot and whether a
//! staged one counts.
//!
//! A transfer: the leader opens a view of its state machine and says [`SnapshotBegin`](crate::PeerMessage::SnapshotBegin); the
//! follower answers with what it has durably staged of this very transfer, nothing at first; pieces follow from there, a window of
//! them unacknowledged, the last one empty and marked. All transfers share a [`budget`] of bytes per second, in turns. When all is
//! staged and synced, the follower's core logs the install; once that is durable it answers `Done`.
//!
//! A view is read once and forwards, so the leader keeps what is not acknowledged, and a follower acknowledges what a crash cannot take.
//! So a transfer goes on after a broken link, and after a restart of the follower, which reads first what it had staged
//! (`Checking`): the leader says `SnapshotBegin` again and goes on from the answer. A restart of the leader ends its transfers. One
//! that fails begins anew after a pause, which doubles for as long as nothing gets further than before.

use bytes::Bytes;
use quorate_base::NodeId;

use crate::event::StreamId;

pub(crate) mod budget;
pub(crate) mod incoming;
pub(crate) mod outgoing;
pub mod staging;

/// Who sends the transfer that a staging file describes so, and its number there; `None` if nobody can tell.
pub fn transfer_in(about: Bytes) -> Option<(NodeId, StreamId)> {
    let is = incoming::Identity::decode(about).ok()?;
    Some((is.from, is.stream))
}
