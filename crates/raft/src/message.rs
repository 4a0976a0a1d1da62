//! What members say to each other. Payload bytes are not here: an Append names the shape of its entries, and the
//! node puts the bytes beside it on the wire.

use quorate_base::{Index, LogId, Term};

use crate::config::Config;

/// One message between members.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Message {
    /// The sender's current term, in every message (§3.3: terms as a logical clock).
    pub term: Term,
    /// What is said.
    pub body: Body,
}

/// The number of a leadership confirmation round; counts up within one leader's term.
pub type Round = u64;

/// The kinds of message. "Sent by" and "answered with" are in the table of `docs/raft.md`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Body {
    /// "Would you vote for me in term `next`?" (§9.6). Changes nothing at the voter.
    PreVote {
        /// The term the sender would campaign in: its own plus one.
        next: Term,
        /// The sender's last log entry.
        last: LogId,
    },
    /// Answer to [`Body::PreVote`]. A refusal spreads the voter's term to the asker.
    PreVoteResponse {
        /// The term that was asked about.
        next: Term,
        /// Whether the voter would vote for the asker.
        granted: bool,
    },
    /// RequestVote (§3.4), for the sender's current term.
    Vote {
        /// The sender's last log entry.
        last: LogId,
        /// The old leader asked for this election ([`Body::TimeoutNow`]), so a fresh leader is no reason to ignore it.
        transfer: bool,
    },
    /// Answer to [`Body::Vote`].
    VoteResponse {
        /// Whether the vote was given. It is durable.
        granted: bool,
    },
    /// AppendEntries (§3.5) with at least the matching check; `entries` may be empty (a probe).
    Append {
        /// The entry just before `entries`.
        prev: LogId,
        /// Term, size and configuration of each entry after `prev`.
        entries: Vec<EntryShape>,
        /// The leader's commit index.
        commit: Index,
    },
    /// The follower's log equals the leader's up to `upto`, durably.
    Appended {
        /// Last index known to match.
        upto: Index,
    },
    /// The matching check failed (§3.5).
    Conflict {
        /// The `prev` that did not match, so that a stale answer is recognised.
        prev: Index,
        /// The follower's last entry at or before `prev` whose term is not above `prev`'s: one round trip a
        /// term, not one an entry.
        hint: LogId,
    },
    /// The leader lives. Opens confirmation round `round` (§6.4).
    Heartbeat {
        /// The commit index, bounded by what this follower is known to match.
        commit: Index,
        /// The round.
        round: Round,
    },
    /// Answer to [`Body::Heartbeat`].
    HeartbeatResponse {
        /// The round that was asked for.
        round: Round,
        /// How far the follower's log was found equal to this leader's, durable or not. Tells the leader which Append
        /// was lost.
        verified: Index,
        /// The same, durably: makes up for a lost [`Body::Appended`].
        matched: Index,
        /// How much the follower would rather lead.
        priority: Priority,
    },
    /// The commit index has moved and there is no Append to carry it. Not answered.
    Commit {
        /// The commit index, bounded by what this follower is known to match.
        index: Index,
    },
    /// A snapshot up to `last` is on its way (InstallSnapshot, §5.3). The chunks travel beside the core; see
    /// [`Input::SnapshotStaged`](crate::Input::SnapshotStaged).
    InstallSnapshot {
        /// The last entry that the snapshot covers.
        last: LogId,
    },
    /// "Campaign now" (leadership transfer, §3.10).
    TimeoutNow,
    /// A follower asks for a read index (§6.4).
    ReadIndex {
        /// The follower's own number for the batch; never reused, not even after a restart.
        id: u64,
    },
    /// Answer to [`Body::ReadIndex`].
    ReadIndexResponse {
        /// The number of the batch.
        id: u64,
        /// Reads of the batch may be served once this is applied.
        index: Index,
    },
    /// Answer to a leader of a lower term: only the term matters, and makes that leader step down.
    NewerTerm,
}

impl Body {
    /// Whether only a leader of the message's term sends this.
    pub fn is_from_leader(&self) -> bool {
        matches!(
            self,
            Body::Append { .. }
                | Body::Heartbeat { .. }
                | Body::Commit { .. }
                | Body::InstallSnapshot { .. }
                | Body::TimeoutNow
        )
    }
}

/// How gladly a member leads. It biases timers and whom a leader hands over to, and never a vote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Leads if nobody else does.
    Low,
    /// The usual.
    #[default]
    Normal,
    /// A leader of lower priority hands over to it once it has caught up.
    High,
}

/// What the core knows of one log entry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryShape {
    /// The term of the entry.
    pub term: Term,
    /// Length of its encoded body in bytes, for flow control.
    pub size: u32,
    /// The configuration, if the entry is one.
    pub config: Option<Box<Config>>,
}
