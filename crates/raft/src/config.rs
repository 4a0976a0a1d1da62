//! The cluster's configuration: who votes, who only learns. It can already be joint (C_old,new, §4.3); all quorum
//! rules live in [`crate::quorum`].

use std::collections::{BTreeMap, BTreeSet};

use quorate_base::NodeId;

/// What becomes of a learner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Promote {
    /// It stays a learner until someone asks.
    Never,
    /// It becomes a voter by itself once it has caught up (§4.2.1).
    WhenCaughtUp,
}

/// A configuration of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Config {
    /// The voters; of the new configuration, if joint.
    pub voters: BTreeSet<NodeId>,
    /// The voters of the old configuration while the change is under way (joint consensus), else empty.
    pub outgoing: BTreeSet<NodeId>,
    /// Members that receive the log and do not vote.
    pub learners: BTreeMap<NodeId, Promote>,
}

impl Config {
    /// A plain configuration of these voters.
    pub fn of(voters: impl IntoIterator<Item = NodeId>) -> Config {
        Config {
            voters: voters.into_iter().collect(),
            ..Config::default()
        }
    }

    /// Whether two majorities are needed.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether `id` votes, in either half.
    pub fn is_voter(&self, id: NodeId) -> bool {
        self.voters.contains(&id) || self.outgoing.contains(&id)
    }

    /// Everyone the leader replicates to, itself included if listed; in id order, each once.
    pub fn members(&self) -> BTreeSet<NodeId> {
        let mut all = self.voters.clone();
        all.extend(&self.outgoing);
        all.extend(self.learners.keys());
        all
    }
}
