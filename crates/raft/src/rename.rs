//! A node under another name, in a cluster whose members have all changed names. Where no decision looks at which of two ids is the smaller, it does
//! the same under the new names, and a model checker need not look at both. Decisions do look at ids in a haste (who asks first, who gives
//! way), which there is none of with lease reads on, and where several are equally good to take over from a leader whose disk hangs or
//! which was removed. Only checkers call this (feature `check`).

use std::collections::{BTreeMap, BTreeSet};

use quorate_base::NodeId;

use crate::config::Config;
use crate::raft::Raft;
use crate::role::Role;

/// The new names: no two nodes get the same.
pub type Names<'a> = &'a dyn Fn(NodeId) -> NodeId;

/// The same map, by the new names.
pub(crate) fn keys<T>(map: &mut BTreeMap<NodeId, T>, names: Names) {
    *map = std::mem::take(map)
        .into_iter()
        .map(|(id, value)| (names(id), value))
        .collect();
}

impl Config {
    /// Whether the new names leave all of it as it is: members trade their names only with members of the same kind.
    pub fn is_unchanged_by(&self, names: Names) -> bool {
        let in_place = |set: &BTreeSet<NodeId>| set.iter().all(|id| set.contains(&names(*id)));
        let same = |id: &NodeId| names(*id) == *id;
        in_place(&self.voters)
            && in_place(&self.outgoing)
            && self.learners.keys().all(same)
            && self.removed.iter().all(same)
            && self.about.keys().all(same)
    }
}

impl Raft {
    /// Gives every node its new name. The configurations must stay what they are, and the effects must have been taken: they name nodes, too.
    /// What waits for the disk is put in one order, whatever the names: by write, then by receiver, then as it came.
    pub fn rename(&mut self, names: Names) {
        assert!(!self.has_effects(), "effects that were not taken name nodes");
        let log = &self.core.log;
        let configs = log.configs();
        assert!(
            configs.into_iter().all(|config| config.is_unchanged_by(names)),
            "the new names change a configuration"
        );
        self.core.id = names(self.core.id);
        self.core.vote = self.core.vote.map(names);
        self.core.durability.rename(names);
        self.core.patience.rename(names);
        match &mut self.role {
            Role::Follower(follower) => follower.leader = follower.leader.map(names),
            Role::PreCandidate(role) => keys(&mut role.votes, names),
            Role::Candidate(role) => keys(&mut role.votes, names),
            Role::Leader(leader) => leader.rename(names),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Promote;
    use crate::core::Restored;

    fn config() -> Config {
        Config {
            voters: [1, 2].map(NodeId).into(),
            outgoing: [1, 2, 3].map(NodeId).into(),
            learners: BTreeMap::from([(NodeId(4), Promote::Never)]),
            removed: [5].map(NodeId).into(),
            about: BTreeMap::from([(NodeId(6), Box::default())]),
            level: 0,
        }
    }

    /// Two nodes trade names.
    fn trade(a: u64, b: u64) -> impl Fn(NodeId) -> NodeId {
        move |id| match id.0 {
            n if n == a => NodeId(b),
            n if n == b => NodeId(a),
            _ => id,
        }
    }

    #[test]
    fn only_equals_may_trade_names() {
        let config = config();
        assert!(config.is_unchanged_by(&|id| id));
        assert!(config.is_unchanged_by(&trade(1, 2)));
        // A voter with one that is leaving, a member of each kind with a stranger.
        for (a, b) in [(2, 3), (3, 9), (4, 9), (5, 9), (6, 9)] {
            assert!(!config.is_unchanged_by(&trade(a, b)), "{a} and {b}");
        }
        let only_new = Config {
            outgoing: BTreeSet::new(),
            ..config
        };
        assert!(!only_new.is_unchanged_by(&trade(1, 9)));
    }

    #[test]
    #[should_panic(expected = "change a configuration")]
    fn a_node_is_not_renamed_out_of_its_configuration() {
        let mut restored = Restored {
            id: NodeId(1),
            ..Restored::default()
        };
        restored.base.config = config();
        let mut raft = Raft::new(restored);
        raft.take_effects();
        raft.rename(&trade(1, 9));
    }
}
