//! The boundary of the core: everything that goes in ([`Input`]) and everything that comes out ([`Effects`]).
//!
//! The driver steps any number of inputs and then takes the effects once. Effects name ranges of the log; the driver
//! fills in the payloads and checks each range's [`epoch`](Range::epoch), since a truncation may have overtaken it.

use quorate_base::{Index, LogId, NodeId, Term};

use crate::config::{BadChange, Change, Config};
use crate::message::{Message, Round};

/// The number of a log write. Counts up; `Persisted(w)` covers all writes up to `w`.
pub type WriteId = u64;

/// What can happen to a core.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// A timer that the core had armed has run out.
    Fired(Timer),
    /// A message of another member. Any content is taken without panic.
    Message {
        /// The sender, as the handshake knows it.
        from: NodeId,
        /// What it says.
        message: Message,
    },
    /// The driver has seen that the process of `leader`, the leader of `term`, is gone: the connection to it ended, and where it had listened
    /// nobody does. A hint, and no more: it may be wrong, come late or not at all. It ends what this node itself owes that leader
    /// (§4.2.3), until it hears of it again, and lets it ask for votes at once. Ignored while lease reads are on.
    LeaderDead {
        /// Who is gone.
        leader: NodeId,
        /// The term in which it led.
        term: Term,
    },
    /// A connection to this peer is up (again): what was sent to it before may be lost.
    Reachable(NodeId),
    /// A client's command, if this is the leader. Answered in [`Effects::placed`] or [`Effects::refused`].
    Propose {
        /// The caller's name for it.
        token: u64,
        /// Length of the entry's encoded body in bytes.
        size: u32,
    },
    /// A linearizable read (§6.4). Answered in [`Effects::reads`].
    Read {
        /// The caller's name for it.
        token: u64,
        /// Whether a follower may ask the leader. Without it only a leader answers: a confirmation of leadership.
        forward: bool,
    },
    /// Change the membership (§4), if this is the leader. Answered in [`Effects::changed`] when the new configuration is committed.
    Reconfigure {
        /// The caller's name for it.
        token: u64,
        /// What is to change, all at once.
        changes: Vec<Change>,
        /// Even if the members now alive would be no quorum of the new configuration.
        force: bool,
    },
    /// A log write has not come back for so long that this node must not lead.
    DiskStalled,
    /// Hand leadership to `to`, or to the best follower (§3.10). Ignored if this is not the leader or `to` is no voter.
    Transfer(Option<NodeId>),
    /// All writes up to this one are durable.
    Persisted(WriteId),
    /// The state machine has applied everything up to here.
    Applied(Index),
    /// The driver dropped the log up to here; it is covered by the durable state machine. At most the applied index.
    Compacted(Index),
    /// An Append to `to` was not sent from `first` on (queue full, link down, or its range was overtaken).
    NotSent {
        /// The peer.
        to: NodeId,
        /// The first index that was not sent.
        first: Index,
    },
    /// The snapshot that [`Outgoing::Snapshot`] asked for has been installed by the peer up to `last`, or was given up.
    SnapshotSent {
        /// The peer.
        to: NodeId,
        /// The last entry that it covered; `None` if it failed.
        last: Option<LogId>,
    },
    /// A whole snapshot from the leader `from` of term `term` has been received, checked and made durable in staging.
    SnapshotStaged {
        /// Who sent it.
        from: NodeId,
        /// The leader's term.
        term: Term,
        /// What it covers.
        meta: Box<SnapMeta>,
    },
}

/// The core's timers. The driver owns the clock and the random source; each `Fired` is answered to the last `Set`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// Campaign: drawn anew from [T, 2T) at each set (§3.4), T being the election timeout.
    Election,
    /// The leader was last heard of T ago: votes are no longer ignored for its sake (§4.2.3).
    Fresh,
    /// The leader's heartbeat interval.
    Heartbeat,
    /// The leader must have heard of a quorum within T (check-quorum, §6.2).
    Quorum,
    /// A leadership transfer is given up after T (§3.10).
    Transfer,
    /// A read index asked of the leader has gone unanswered for a heartbeat interval: ask again.
    Read,
    /// A step of a node that asks for votes in haste: some milliseconds, T/200 or less.
    Haste,
}

/// What to do with a timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Arm {
    /// (Re)start it.
    Set,
    /// Stop it.
    Off,
}

/// What a node must remember across restarts besides the log (Figure 3.1), made durable with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HardState {
    /// The latest term seen.
    pub term: Term,
    /// Who got this node's vote in `term`.
    pub vote: Option<NodeId>,
    /// The commit index. A hint that saves time at restart; safety does not need it.
    pub commit: Index,
}

/// What a snapshot stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapMeta {
    /// The last entry that it covers.
    pub last: LogId,
    /// The configuration as of that entry.
    pub config: Config,
}

/// The entries after `prev` up to and including `last`, named and not carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Range {
    /// The entry before the first.
    pub prev: LogId,
    /// The last entry. Equal to `prev` if the range is empty.
    pub last: LogId,
    /// The log's epoch when the range was named; every truncation and install advances it.
    pub epoch: u64,
}

impl Range {
    /// Index of the first entry.
    pub fn first(&self) -> Index {
        self.prev.index.next()
    }

    /// Number of entries.
    pub fn len(&self) -> u64 {
        self.last.index.0 - self.prev.index.0
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.last.index == self.prev.index
    }
}

/// One atomic log write. Order inside: install or truncate, then append, then hard state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Write {
    /// Its number.
    pub id: WriteId,
    /// Term, vote and commit, if any changed.
    pub hard: Option<HardState>,
    /// All entries after this one go first (§3.5: conflicting entries).
    pub truncate_after: Option<Index>,
    /// A staged snapshot takes the place of the whole log: the commit point of the install.
    pub installed: Option<Box<SnapMeta>>,
    /// Entries to append.
    pub append: Option<Range>,
}

/// Something to send. May go out at once: whatever had to wait for the disk has waited.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Outgoing {
    /// A message without entries.
    Message {
        /// To whom.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// [`Body::Append`](crate::Body::Append) with the entries of `range`. The driver may split it, never skip; what it cannot send it reports
    /// with [`Input::NotSent`].
    Append {
        /// To whom.
        to: NodeId,
        /// The leader's term.
        term: Term,
        /// The entries.
        range: Range,
        /// The commit index to carry.
        commit: Index,
    },
    /// The peer needs entries that the log no longer has: stream it a snapshot, and report [`Input::SnapshotSent`].
    Snapshot {
        /// To whom.
        to: NodeId,
        /// The leader's term.
        term: Term,
    },
}

/// What stands in an entry that this leader has just placed in its log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Placed {
    /// The empty entry at the start of a leader's term (§6.4, §3.6.2).
    Noop {
        /// Where.
        at: LogId,
    },
    /// A configuration.
    Config {
        /// Where.
        at: LogId,
        /// Which.
        config: Box<Config>,
    },
    /// A proposal.
    Proposal {
        /// The proposer's name for it.
        token: u64,
        /// Where. It is committed if and only if this very entry is.
        at: LogId,
    },
}

/// Why a request was not taken. In each case nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refused {
    /// This node does not lead. The leader, if known.
    NotLeader(Option<NodeId>),
    /// Leadership is being transferred.
    Transferring,
    /// Too many bytes are waiting to be committed.
    Busy,
}

/// How a membership change ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChangeEnd {
    /// The new configuration is committed, at this index.
    Done(Index),
    /// It was not begun.
    Refused(ChangeRefused),
    /// This node led no longer before the end: the change may yet be carried out by the next leader, or not.
    Unknown,
}

/// Why a membership change was not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChangeRefused {
    /// This node does not lead. The leader, if known.
    NotLeader(Option<NodeId>),
    /// Leadership is being transferred.
    Transferring,
    /// Another change is under way, or the leader has not committed an entry of its own term yet (§4.1).
    Pending,
    /// The change makes no sense.
    Bad(BadChange),
    /// The learner to be promoted is too far behind (§4.2.1).
    NotCaughtUp(NodeId),
    /// The members heard of lately are no quorum of the new configuration. Can be forced.
    WouldLoseQuorum,
}

/// Everything the driver has to do, in any order except: a range is filled in before the next input, and `restore` comes before `apply`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Effects {
    /// Log writes, in order; at most one a drain.
    pub write: Option<Write>,
    /// Messages.
    pub send: Vec<Outgoing>,
    /// Entries this leader placed in its log, in log order.
    pub placed: Vec<Placed>,
    /// Proposals not taken.
    pub refused: Vec<(u64, Refused)>,
    /// The install of this snapshot is durable: swap the state machine, answer with `Applied`.
    pub restore: Option<Box<SnapMeta>>,
    /// Committed and locally durable entries to apply, each named once; answer with `Applied`.
    pub apply: Option<Range>,
    /// Reads: serve once the index is applied.
    pub reads: Vec<(u64, Result<Index, Refused>)>,
    /// Membership changes that have ended.
    pub changed: Vec<(u64, ChangeEnd)>,
    /// The last confirmation round that this leader has begun since the last drain: its messages are in [`send`](Effects::send).
    pub round_begun: Option<Round>,
    /// The last confirmation round that a quorum has answered, if that is news. With the time when it began this is the leader's lease
    /// (§6.4.1).
    pub round_confirmed: Option<Round>,
    /// Timers, each at most once.
    pub timers: Vec<(Timer, Arm)>,
}

impl Effects {
    /// Empties it, but for the memory of its lists.
    pub(crate) fn clear(&mut self) {
        let Effects {
            write,
            send,
            placed,
            refused,
            restore,
            apply,
            reads,
            changed,
            round_begun,
            round_confirmed,
            timers,
        } = self;
        (*write, *restore, *apply) = (None, None, None);
        (*round_begun, *round_confirmed) = (None, None);
        send.clear();
        placed.clear();
        refused.clear();
        reads.clear();
        changed.clear();
        timers.clear();
    }
}
