//! The roles, each with the state that only it has (data-typestate: no field is ever valid "only if leader").
//!
//! A role's methods get the [`Core`](crate::core::Core) and answer with the role to change to, if any; only
//! [`Raft::transition`](crate::Raft) changes it.

pub mod candidate;
pub mod follower;
pub mod leader;
pub mod membership;
pub mod transfer;

use quorate_base::{NodeId, Term};

pub use candidate::{Candidate, PreCandidate};
pub use follower::Follower;
pub use leader::Leader;

/// What a node currently is (§3.3; the pre-candidate of §9.6 is a role of its own).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Follows a leader, or waits for one.
    Follower(Follower),
    /// Asks whether it would be elected, without disturbing anyone.
    PreCandidate(PreCandidate),
    /// Runs for leader.
    Candidate(Candidate),
    /// Leads.
    Leader(Leader),
}

/// The role's name alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RoleKind {
    /// Follower.
    Follower,
    /// Pre-candidate.
    PreCandidate,
    /// Candidate.
    Candidate,
    /// Leader.
    Leader,
}

impl Role {
    /// The role's name.
    pub fn kind(&self) -> RoleKind {
        match self {
            Role::Follower(_) => RoleKind::Follower,
            Role::PreCandidate(_) => RoleKind::PreCandidate,
            Role::Candidate(_) => RoleKind::Candidate,
            Role::Leader(_) => RoleKind::Leader,
        }
    }
}

/// A change of role that a step asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Follow in `term` (the current one or a later one), with its leader if known.
    Follower {
        /// The term.
        term: Term,
        /// Its leader.
        leader: Option<NodeId>,
    },
    /// Ask around.
    PreCandidate,
    /// Campaign in the next term.
    Candidate {
        /// The old leader asked for it.
        transfer: bool,
    },
    /// A quorum voted for this node.
    Leader,
}
