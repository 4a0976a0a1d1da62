//! What a Raft says about itself: for the node around it, for tests, and for whoever looks at a cluster. Nothing here changes anything.

use quorate_base::{Index, LogId, NodeId, Term};
use quorate_marks::reached;

use crate::config::Config;
use crate::log::Log;
use crate::progress::Pace;
use crate::raft::Raft;
use crate::role::{Role, RoleKind};

/// How far a peer is, as its leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Known to hold the leader's log durably up to here.
    pub matched: Index,
    /// The next entry to send.
    pub next: Index,
    /// `"probe"`, `"replicate"` or `"snapshot"`.
    pub pace: &'static str,
    /// Heard from since the last check-quorum.
    pub active: bool,
}

impl Raft {
    /// This node.
    pub fn id(&self) -> NodeId {
        self.core.id
    }

    /// The current term.
    pub fn term(&self) -> Term {
        self.core.term
    }

    /// The leader of the current term, if this node knows it.
    pub fn leader(&self) -> Option<NodeId> {
        match &self.role {
            Role::Follower(follower) => follower.leader,
            Role::Leader(_) => Some(self.core.id),
            Role::PreCandidate(_) | Role::Candidate(_) => None,
        }
    }

    /// The role.
    pub fn role(&self) -> RoleKind {
        self.role.kind()
    }

    /// The vote given in the current term.
    pub fn vote(&self) -> Option<NodeId> {
        self.core.vote
    }

    /// The commit index.
    pub fn commit(&self) -> Index {
        self.core.commit
    }

    /// The last index the state machine has applied.
    pub fn applied(&self) -> Index {
        self.core.applied
    }

    /// The log is durable here up to this index.
    pub fn durable(&self) -> Index {
        self.core.durability.durable()
    }

    /// The log's shape.
    pub fn log(&self) -> &Log {
        &self.core.log
    }

    /// The configuration in force.
    pub fn config(&self) -> &Config {
        self.core.log.config()
    }

    /// Whether the configuration in force is committed and plain, as far as this node knows.
    pub fn config_is_settled(&self) -> bool {
        let log = &self.core.log;
        !log.config().is_joint() && log.config_index() <= self.core.commit
    }

    /// Whether a committed configuration says that this node was removed.
    pub fn is_removed(&self) -> bool {
        let config = self.core.log.config_at(self.core.commit);
        !config.is_joint() && config.removed.contains(&self.core.id)
    }

    /// The index from which on this leader may serve reads while its lease lasts (§6.4.1): the commit index, unless the leader does not
    /// know it yet or has asked another member to take over. Whether the lease lasts is the clock's owner's to say: it
    /// is counted from when the last [confirmed](crate::effects::Effects::round_confirmed) round began.
    pub fn lease_index(&self) -> Option<Index> {
        match &self.role {
            Role::Leader(leader) if leader.may_hold_lease(&self.core) => {
                reached!(
                    "raft.lease.before_own_term_commit",
                    self.core.own_term_commit().is_none()
                );
                self.core.own_term_commit()
            }
            _ => None,
        }
    }

    /// Whether this is a leader that is handing over to another member (§3.10), and so takes no proposals.
    pub fn is_handing_over(&self) -> bool {
        matches!(&self.role, Role::Leader(leader) if leader.is_handing_over())
    }

    /// The last entry.
    pub fn last(&self) -> LogId {
        self.core.log.last()
    }

    /// The peers as the leader sees them; empty on others.
    pub fn peers(&self) -> impl Iterator<Item = (NodeId, PeerStatus)> {
        let peers = match &self.role {
            Role::Leader(leader) => Some(&leader.peers),
            _ => None,
        };
        peers.into_iter().flatten().map(|(id, peer)| {
            let pace = match peer.pace {
                Pace::Probe { .. } => "probe",
                Pace::Replicate { .. } => "replicate",
                Pace::Snapshot => "snapshot",
            };
            (
                *id,
                PeerStatus {
                    matched: peer.matched,
                    next: peer.next,
                    pace,
                    active: peer.active,
                },
            )
        })
    }
}
