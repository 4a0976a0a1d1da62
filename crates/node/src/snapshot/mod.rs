//! Snapshot transfers (§5.3) beside the core: [`outgoing`] streams the state machine to followers that are too far behind,
//! [`incoming`] stages what a leader sends. The core decides who needs a snapshot and whether a staged one counts.
//!
//! A transfer: the leader opens a view of its state machine and says [`SnapshotBegin`](crate::PeerMessage::SnapshotBegin); the
//! follower answers with what it has staged of this very transfer, nothing at first; pieces follow from there, a window of
//! them unacknowledged, the last one empty and marked. After a broken link the leader says `SnapshotBegin` again and goes on from
//! the answer. When all is staged and synced, the follower's core logs the install; once that is durable it answers `Done`.

pub(crate) mod incoming;
pub(crate) mod outgoing;
