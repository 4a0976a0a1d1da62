//! What a node says about itself.

use quorate_base::{Index, LogId, NodeId, Term};
use quorate_raft::{Config, PeerStatus, RoleKind};

/// A node at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// This member.
    pub id: NodeId,
    /// The current term.
    pub term: Term,
    /// Its leader, if known.
    pub leader: Option<NodeId>,
    /// This member's role.
    pub role: RoleKind,
    /// The commit index.
    pub commit: Index,
    /// What the state machine has applied.
    pub applied: Index,
    /// The log is durable up to here.
    pub durable: Index,
    /// The first entry that the log still has.
    pub first: Index,
    /// The last entry of the log.
    pub last: LogId,
    /// The configuration in force.
    pub config: Config,
    /// How far the others are; only on the leader.
    pub peers: Vec<(NodeId, PeerStatus)>,
    /// A snapshot is being taken over by the state machine.
    pub restoring: bool,
}
