//! The boundary of a node: what its driver feeds in ([`Event`]) and what it has to carry out ([`Effects`]). Two drivers
//! exist: the runtime in `quorate` with sockets, threads and a real clock, and the simulator.

use bytes::Bytes;
use quorate_base::{Index, LogId, NodeId};
use quorate_raft::{Change, ChangeRefused, Config, SnapMeta, WriteId};
use quorate_wal::Record;

use crate::message::PeerMessage;

/// The caller's name for a request; unique within one run of the node.
pub type Token = u64;

/// Nanoseconds on the driver's monotonic clock.
pub type Nanos = u64;

/// The number of one snapshot transfer, unique within the sender's run.
pub type StreamId = u64;

/// What can happen to a node.
#[derive(Clone, Debug)]
pub enum Event {
    /// Nothing but the passing of time: a deadline of [`Node::next_deadline`](crate::Node::next_deadline) may have been reached. The
    /// driver drains its sockets first.
    Wake,
    /// A frame from a peer whose handshake was accepted.
    Peer {
        /// Who sent it.
        from: NodeId,
        /// What it says.
        message: PeerMessage,
    },
    /// A link to this peer is up (again).
    LinkUp(NodeId),
    /// The link to this peer is down: what was queued or in flight may be lost.
    LinkDown(NodeId),
    /// The link to this peer broke, and where it had listened nobody does any more: its process is gone, as far as can be seen from here.
    /// Repeated as long as that is so. Only what was certainly refused counts: silence says nothing.
    Gone(NodeId),
    /// A handshake told what a peer understands.
    Met {
        /// The peer.
        peer: NodeId,
        /// Its features.
        features: u32,
    },
    /// The driver dropped a message instead of sending it (queue full).
    Dropped {
        /// To whom it should have gone.
        to: NodeId,
        /// The message.
        message: PeerMessage,
    },
    /// Replicate a command. Answered by [`Effects::answers`], or by [`ToApply::token`] when it is applied here.
    Propose {
        /// The request.
        token: Token,
        /// The command.
        command: Bytes,
        /// After this the request is answered: "not done" if it was never placed, else "unknown".
        deadline: Nanos,
    },
    /// A linearizable read. Answered in [`Effects::reads`].
    Read {
        /// The request.
        token: Token,
        /// Whether a follower may ask the leader; otherwise this confirms that this node leads.
        forward: bool,
        /// After this the read fails.
        deadline: Nanos,
    },
    /// Change the membership, wherever the leader is. Answered in [`Effects::changed`].
    Reconfigure {
        /// The request.
        token: Token,
        /// What is to change, all at once.
        changes: Vec<Change>,
        /// Even if the members now alive would be no quorum afterwards.
        force: bool,
        /// After this the request is answered: "not done" if it was never begun, else "unknown".
        deadline: Nanos,
    },
    /// Hand leadership to this member, or to the best one.
    Transfer(Option<NodeId>),
    /// [`LogOp::Write`]s up to this one are durable.
    Written(WriteId),
    /// [`LogOp::Read`] is done: the bodies of a non-empty prefix of what was asked.
    LogRead {
        /// The read's number.
        id: u64,
        /// The bodies, or why they could not be had (compacted in the meantime).
        bodies: Result<Vec<Bytes>, String>,
    },
    /// The state machine has applied a [`MachineOp::Apply`] up to here.
    Applied(Index),
    /// What the state machine would keep in a crash has moved up to here.
    MachineDurable(Index),
    /// [`MachineOp::Restore`] is done.
    Restored(LogId),
    /// [`SnapshotOp::Open`] is done: a view of the state machine as of `at`.
    SnapshotOpened {
        /// Which.
        stream: StreamId,
        /// The last entry it covers; `None` if it could not be opened.
        at: Option<LogId>,
    },
    /// [`SnapshotOp::Read`] is done.
    SnapshotChunk {
        /// Which.
        stream: StreamId,
        /// The piece, empty at the end, or `None` if reading failed.
        chunk: Option<Bytes>,
    },
    /// [`StageOp::Check`] is done.
    StageChecked {
        /// What transfer was staged, as given to [`StageOp::Begin`]; `None` if there is no staging file, or no use for it.
        about: Option<Bytes>,
        /// Bytes of it that are right, as far as was read.
        len: u64,
        /// Their CRC32C.
        crc: u32,
        /// Whether there is nothing more to read.
        end: bool,
    },
    /// [`StageOp::Sync`] or [`StageOp::Finish`] is done.
    Staged {
        /// Which transfer, as numbered in [`StageOp`].
        stream: StreamId,
        /// Bytes staged durably so far.
        len: u64,
        /// Whether this answers `Finish`.
        finished: bool,
    },
    /// [`StageOp::Begin`], [`StageOp::Write`], [`StageOp::Sync`] or [`StageOp::Finish`] failed for want of space, and what was staged is
    /// gone. Operations of the same transfer that follow are passed over.
    StageFailed {
        /// Which transfer, as numbered in [`StageOp`].
        stream: StreamId,
    },
}

/// What the driver has to carry out. The fields are independent but for the order: `log`, `stage` in order on the disk thread; `machine`
/// in order; `reads` after `machine`.
#[derive(Debug, Default)]
pub struct Effects {
    /// For the log's disk, in order.
    pub log: Vec<LogOp>,
    /// For the staging file of an incoming snapshot, in order with `log`.
    pub stage: Vec<StageOp>,
    /// For the state machine, in order.
    pub machine: Vec<MachineOp>,
    /// Views of the state machine for outgoing snapshots.
    pub snapshots: Vec<SnapshotOp>,
    /// For the peers. What does not fit a peer's queue comes back as [`Event::Dropped`].
    pub send: Vec<(NodeId, PeerMessage)>,
    /// Proposals that end other than by being applied here.
    pub answers: Vec<(Token, Failure)>,
    /// Reads that may be served now, after `machine` was carried out, or that failed.
    pub reads: Vec<(Token, Result<(), Failure>)>,
    /// Membership changes that have ended; a done one is committed here too, at this index.
    pub changed: Vec<(Token, Result<Index, ChangeFailure>)>,
    /// The configuration in force is another, or this is the first word on it: these are the members to talk to.
    pub membership: Option<Config>,
    /// A committed configuration says that this node was removed. The driver ends it.
    pub removed: bool,
    /// The node cannot go on, for this reason: an entry cannot be had from its own log. The driver must end it.
    pub fatal: Option<String>,
}

/// For the log.
#[derive(Clone, Debug)]
pub enum LogOp {
    /// Append these records as one atomic batch, durably; answer [`Event::Written`].
    Write {
        /// Its number; counts up.
        id: WriteId,
        /// The records.
        records: Vec<Record>,
    },
    /// Read entry bodies; answer [`Event::LogRead`].
    Read {
        /// Its number.
        id: u64,
        /// First index.
        first: Index,
        /// Last index.
        last: Index,
        /// About how many bytes at the most; at least one entry is read.
        max_bytes: usize,
    },
}

/// For the staging file (`incoming-snapshot`), which survives restarts until the state machine has taken it over.
/// [`Staging`](crate::Staging) carries these out. Transfers are numbered here by the receiver, so that late answers of one are not
/// taken for another's.
#[derive(Clone, Debug)]
pub enum StageOp {
    /// Read on through what an earlier run left, a bounded part of it; answer [`Event::StageChecked`].
    Check,
    /// Start a file afresh.
    Begin {
        /// The transfer.
        stream: StreamId,
        /// What it is, to be told after a restart.
        about: Bytes,
    },
    /// Go on behind what was checked.
    Resume {
        /// The transfer.
        stream: StreamId,
    },
    /// Append at `offset`, which is where the snapshot ends so far.
    Write {
        /// The transfer.
        stream: StreamId,
        /// Where.
        offset: u64,
        /// CRC32C of the snapshot up to the end of this piece.
        crc: u32,
        /// What.
        bytes: Bytes,
    },
    /// Make what was written durable; answer [`Event::Staged`].
    Sync {
        /// The transfer.
        stream: StreamId,
    },
    /// Mark the end, and make it all durable; answer [`Event::Staged`] with `finished`.
    Finish {
        /// The transfer.
        stream: StreamId,
    },
    /// Remove the file, if there is one.
    Discard,
}

impl StageOp {
    /// The transfer that it belongs to.
    pub fn stream(&self) -> Option<StreamId> {
        match self {
            StageOp::Begin { stream, .. }
            | StageOp::Resume { stream }
            | StageOp::Write { stream, .. }
            | StageOp::Sync { stream }
            | StageOp::Finish { stream } => Some(*stream),
            StageOp::Check | StageOp::Discard => None,
        }
    }
}

/// For the state machine.
#[derive(Clone, Debug)]
pub enum MachineOp {
    /// Apply these; answer [`Event::Applied`] with the last index.
    Apply(Vec<ToApply>),
    /// The cluster's feature level as of what the machine has applied: at the start, and after a snapshot. Later levels come with
    /// [`ToApply::level`].
    Level(u32),
    /// Replace the state by the staged snapshot, durably; then discard the staging file and answer [`Event::Restored`].
    Restore(SnapMeta),
}

/// One committed entry.
#[derive(Clone, Debug)]
pub struct ToApply {
    /// Which.
    pub at: LogId,
    /// The command; `None` for an entry without one (`StateMachine::skip`).
    pub command: Option<Bytes>,
    /// The request here that waits for the output.
    pub token: Option<Token>,
    /// With this entry the cluster's feature level is this; told to the machine before `skip`.
    pub level: Option<u32>,
}

/// For outgoing snapshots.
#[derive(Clone, Debug)]
pub enum SnapshotOp {
    /// Take a view of the state machine; answer [`Event::SnapshotOpened`].
    Open {
        /// Its number.
        stream: StreamId,
    },
    /// Read the next piece; answer [`Event::SnapshotChunk`].
    Read {
        /// Its number.
        stream: StreamId,
        /// At most so many bytes.
        max: usize,
    },
    /// Let go of it. Comes for each that was opened or could not be, at times before [`Event::SnapshotOpened`] and then once more.
    Close {
        /// Its number.
        stream: StreamId,
    },
}

/// How a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It certainly did not and will not take effect.
    NotDone(Reason),
    /// It may or may not take effect.
    Unknown(Reason),
}

/// How a membership change failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeFailure {
    /// The leader refused it, for this reason.
    Refused(ChangeRefused),
    /// Some member may not understand membership changes yet: the cluster's feature level is too low.
    Level,
    /// It was certainly not begun.
    NotDone(Reason),
    /// It may or may not be carried out.
    Unknown(Reason),
}

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No leader is known.
    NoLeader,
    /// The leader changed meanwhile.
    LeaderChanged,
    /// The link to the leader broke.
    LinkDown,
    /// The deadline passed.
    Timeout,
    /// Too many bytes wait to be committed.
    Busy,
    /// Larger than the configured limit.
    TooLarge,
    /// The node is stopping.
    Stopping,
}
