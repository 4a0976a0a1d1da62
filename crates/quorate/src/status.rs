//! What a node says about itself: a small value, always there to be read without asking the node.

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_base::{Index, LogId, NodeId, Term};

use crate::membership::Membership;

/// A node's role (paper §5.1, thesis §9.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Role {
    /// Answers leaders and candidates.
    #[default]
    Follower,
    /// Asks whether an election could be won.
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Replicates.
    Leader,
}

impl Role {
    /// The role in one lower-case word.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Follower => "follower",
            Role::PreCandidate => "pre-candidate",
            Role::Candidate => "candidate",
            Role::Leader => "leader",
        }
    }
}

/// Whether the disk has room for the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Space {
    /// Nothing is known to be short.
    #[default]
    Ok,
    /// The disk is full. The log goes on in what is reserved: writes should be refused, deletes may be served.
    Low,
    /// The reserve is nearly used up: this node takes no proposals.
    Out,
}

/// What this node knows of another member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerStatus {
    /// Whether the connection to it is up.
    pub connected: bool,
    /// Its log is known to equal this one's up to here, durably. Only on the leader.
    pub matched: Option<Index>,
}

/// A node's state at one moment.
///
/// Receivers of [`Handle::subscribe`](crate::Handle::subscribe) are woken when term, leader, role, space, the membership or a
/// connection changes, or a restore begins or ends; the indexes move on without waking anybody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// This member.
    pub id: NodeId,
    /// The cluster.
    pub cluster: u64,
    /// The current term.
    pub term: Term,
    /// Who leads in this term, if known.
    pub leader: Option<NodeId>,
    /// This node's role.
    pub role: Role,
    /// The last committed entry known here.
    pub commit: Index,
    /// The last entry applied to the state machine.
    pub applied: Index,
    /// The last entry whose effects in the state machine would survive a crash.
    pub durable: Index,
    /// The last entry of the log.
    pub last_log: LogId,
    /// Whether the disk has room for the log.
    pub space: Space,
    /// Whether the state machine is being replaced by a snapshot. Reads wait for it, and large ones take their time.
    pub restoring: bool,
    /// Whether the node is stopping or has stopped.
    pub stopping: bool,
    /// Who belongs to the cluster. Empty on a node that has joined and not heard of a leader yet.
    pub membership: Arc<Membership>,
    /// The other members, learners included.
    pub peers: BTreeMap<NodeId, PeerStatus>,
}

impl Status {
    /// Whether this node leads.
    pub fn is_leader(&self) -> bool {
        self.role == Role::Leader
    }

    /// Whether receivers should hear of the change from `self` to `other`.
    pub(crate) fn differs_audibly(&self, other: &Status) -> bool {
        self.term != other.term
            || self.leader != other.leader
            || self.role != other.role
            || self.space != other.space
            || self.restoring != other.restoring
            || self.stopping != other.stopping
            || self.membership != other.membership
            || self.peers.len() != other.peers.len()
            || self
                .peers
                .iter()
                .zip(&other.peers)
                .any(|(a, b)| a.0 != b.0 || a.1.connected != b.1.connected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_move_silently_and_leaders_do_not() {
        let before = Status::default();
        let moved = Status {
            commit: Index(5),
            applied: Index(5),
            ..Status::default()
        };
        assert!(!before.differs_audibly(&moved));
        let led = Status {
            leader: Some(NodeId(1)),
            ..Status::default()
        };
        assert!(before.differs_audibly(&led));
        let membership = Membership {
            learners: [(NodeId(2), quorate_raft::Promote::Never)].into(),
            ..Membership::default()
        };
        let grown = Status {
            membership: Arc::new(membership),
            ..Status::default()
        };
        assert!(before.differs_audibly(&grown));
        let peers = BTreeMap::from([(
            NodeId(2),
            PeerStatus {
                connected: true,
                matched: None,
            },
        )]);
        let joined = Status {
            peers,
            ..Status::default()
        };
        assert!(before.differs_audibly(&joined));
        assert!(!joined.differs_audibly(&joined.clone()));
    }
}
