//! The invariants of the membership (S5, S11, and S12 where it is about the configuration), counted here by hand, so that the core's
//! own counting is checked too. What one node can see of them is in `quorate_raft::invariants`.
//!
//! The core's own tests count by hand as well, and keep a disk and a record of their own (`crates/raft/tests/common`). That is on purpose: there a record holds all
//! that ever was, in time; here it is part of every state, and holds no more than it must. And a mistake in one checker is none in the other.

use std::collections::BTreeSet;

use quorate_base::{Index, NodeId};
use quorate_raft::Config;

use crate::ghost::{Committed, Ghost};
use crate::node::Node;

/// Whether these members are more than half of those, if there are any.
fn majority(of: &BTreeSet<NodeId>, holds: impl Fn(NodeId) -> bool) -> bool {
    of.is_empty() || 2 * of.iter().filter(|id| holds(**id)).count() > of.len()
}

/// Whether these members can decide, both majorities counted apart.
pub(crate) fn can_decide(config: &Config, holds: impl Fn(NodeId) -> bool) -> bool {
    !config.voters.is_empty() && majority(&config.voters, &holds) && majority(&config.outgoing, &holds)
}

/// Whether each quorum of the one configuration shares a member with each of the other.
fn quorums_intersect(a: &Config, b: &Config) -> bool {
    let all: Vec<NodeId> = a.members().union(&b.members()).copied().collect();
    (0..1_u32 << all.len()).all(|set| {
        let inside = |id| set >> all.iter().position(|one| *one == id).expect("listed") & 1 == 1;
        !can_decide(a, inside) || !can_decide(b, |id| !inside(id))
    })
}

impl Ghost {
    /// A leader has appended a configuration after this one, which stands at `at`: that one is committed, by an entry of the leader's own
    /// term, and quorums of the two intersect (S11).
    pub fn check_change(&self, node: &Node, at: Index, was: &Config) {
        let (id, raft) = (node.id(), &node.raft);
        let own = |c: &Committed| c.id.term == raft.term();
        assert!(
            self.committed.iter().any(own),
            "n{id} changes the membership before an entry of its own term is committed (S11)"
        );
        // A leader that was deposed without knowing it may be behind, but never ahead.
        assert!(
            at <= self.len() && self.config_before(at).1 == was,
            "n{id} starts from what is committed (S11)"
        );
        assert!(
            quorums_intersect(was, raft.config()),
            "quorums of {was:?} and {:?} could decide apart (S11)",
            raft.config()
        );
    }

    /// In force is the latest configuration in log or snapshot, and at most one is not committed (S11); the base's is C's (S12).
    pub fn check_latest(&self, node: &Node) {
        let (id, log) = (node.id(), node.raft.log());
        let entries = (log.first().0..=log.last_index().0).map(Index);
        let configs: Vec<Index> = entries.filter(|at| log.config_entry(*at).is_some()).collect();
        let latest = configs.last().and_then(|at| log.config_entry(*at));
        assert_eq!(
            log.config(),
            latest.unwrap_or(&log.base().config),
            "n{id}'s configuration is the latest in its log (S11)"
        );
        let open = configs
            .iter()
            .filter(|at| self.at(**at).map(|c| c.id) != log.id_at(**at));
        assert!(
            open.count() <= 1,
            "n{id} has two uncommitted configurations (S11)"
        );
        let base = log.base();
        // A node that joins starts from an empty one, and cannot know what was before the entry that added it.
        if base.config != Config::default() && base.last.index <= self.len() {
            assert_eq!(
                base.config,
                *self.config_before(base.last.index).1,
                "n{id}'s snapshot has C's configuration (S12)"
            );
        }
    }

    /// Every quorum of every active configuration has a member whose disk holds all of C (S5). Active is the last committed one, and any
    /// in force at a node whose log has that one: with an older one nobody can be elected.
    pub fn check_quorums_hold_c(&self, nodes: &[&Node]) {
        let Some(last) = self.committed.last() else {
            return;
        };
        let (at, committed) = self.last_config();
        let current = |node: &&&Node| {
            let log = node.raft.log();
            log.base().last.index >= at.index || log.contains(at)
        };
        let in_force = nodes.iter().filter(current).map(|node| node.raft.config());
        for config in std::iter::once(committed).chain(in_force) {
            let holds = |id| {
                nodes
                    .iter()
                    .any(|node| node.id() == id && node.image.holds(last.id))
            };
            assert!(
                !can_decide(config, |id| !holds(id)),
                "a quorum of {config:?} could decide without {} (S5)",
                last.id
            );
        }
    }
}
