//! What nodes say to each other: the core's messages with payloads beside them, forwarded proposals, and snapshot
//! transfers. The byte encoding is in [`crate::wire`].

use bytes::Bytes;
use quorate_base::{Index, LogId, Term};
use quorate_raft::{Change, ChangeEnd, Message, SnapMeta};

use crate::event::{Reason, StreamId};

/// One frame between two members of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerMessage {
    /// A message of the core that carries no entries.
    Raft(Message),
    /// AppendEntries with the entries' bodies, as they stand in the log's records.
    Append {
        /// The leader's term.
        term: Term,
        /// The entry before the first.
        prev: LogId,
        /// The bodies.
        entries: Vec<Bytes>,
        /// The leader's commit index.
        commit: Index,
    },
    /// A follower passes a client's command to the leader. Sent at most once.
    Forward {
        /// The term of the leader it is meant for: in any other term it is refused.
        term: Term,
        /// The follower's name for it; stands in the entry, so that the follower knows it again when it applies it.
        request: RequestId,
        /// The command.
        command: Bytes,
    },
    /// The leader did not take a forwarded command: it was certainly not done.
    Refuse {
        /// Which.
        request: RequestId,
        /// Why.
        why: Reason,
    },
    /// The leader took a forwarded command and placed it here.
    Accept {
        /// Which.
        request: RequestId,
        /// Where.
        at: LogId,
    },
    /// A follower passes a membership change to the leader. Sent at most once.
    Reconfigure {
        /// The term of the leader it is meant for: in any other term it is refused.
        term: Term,
        /// The follower's name for it; of a count of its own.
        request: RequestId,
        /// The change.
        changes: Vec<Change>,
        /// Whatever the members alive are.
        force: bool,
    },
    /// How a forwarded membership change ended.
    Reconfigured {
        /// Which.
        request: RequestId,
        /// How.
        end: ChangeEnd,
    },
    /// A snapshot transfer begins.
    SnapshotBegin {
        /// Its number.
        stream: StreamId,
        /// The leader's term.
        term: Term,
        /// What it covers.
        meta: SnapMeta,
    },
    /// One piece.
    SnapshotChunk {
        /// Which transfer.
        stream: StreamId,
        /// The leader's term.
        term: Term,
        /// Where it belongs.
        offset: u64,
        /// The piece.
        bytes: Bytes,
        /// CRC32C of everything up to here; with `done` it stands for the whole.
        crc: u32,
        /// Whether this was the last piece.
        done: bool,
    },
    /// The receiver has this much of a transfer, or wants no more of it.
    SnapshotAck {
        /// Which transfer.
        stream: StreamId,
        /// Bytes staged durably.
        len: u64,
        /// What became of it.
        outcome: SnapshotOutcome,
    },
}

/// What the receiver of a snapshot says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotOutcome {
    /// Go on from `len`.
    More,
    /// All of it is staged.
    Done,
    /// It is not wanted (older than what is here, another leader, damaged on the way).
    Refused,
    /// The receiver has restarted and is reading what it had staged, `len` bytes so far. Answers `SnapshotBegin` only.
    Checking,
}

/// Names a proposal across nodes and restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RequestId {
    /// The node whose client it is.
    pub node: u64,
    /// That node's run: never used twice.
    pub boot: u64,
    /// Counts up within the run.
    pub seq: u64,
}
