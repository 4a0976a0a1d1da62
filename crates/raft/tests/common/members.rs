//! The cluster-wide invariants of the membership (S5, S11), counted here by hand, so that the core's own counting is checked too. What
//! one node can see of them is in `quorate_raft::invariants`.

use std::collections::BTreeSet;

use quorate_base::{Index, LogId, NodeId};
use quorate_raft::{Change, Config, Input, Raft, RoleKind};

use super::ghost::{Committed, Ghost};
use super::{Cluster, Node};

/// Whether these members are more than half of those, if there are any.
fn majority(of: &BTreeSet<NodeId>, holds: impl Fn(NodeId) -> bool) -> bool {
    of.is_empty() || 2 * of.iter().filter(|id| holds(**id)).count() > of.len()
}

/// Whether these members can decide, both majorities counted apart.
fn can_decide(config: &Config, holds: impl Fn(NodeId) -> bool) -> bool {
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
    /// The cluster begins with this configuration.
    pub fn founded(&mut self, config: Config) {
        self.configs = vec![(Index::ZERO, config)];
    }

    /// The last configuration of C, and its index.
    fn last_config(&self) -> Option<&(Index, Config)> {
        self.configs.last()
    }

    /// The configuration of C in force as of `index`.
    fn config_at(&self, index: Index) -> Option<&Config> {
        let earlier = self.configs.iter().rev().find(|config| config.0 <= index);
        earlier.map(|config| &config.1)
    }
}

impl Node {
    /// Whether its disk has C up to its end.
    fn holds(&self, last: LogId) -> bool {
        self.image.base.last.index >= last.index || self.image.term_at(last.index) == Some(last.term)
    }
}

impl Cluster {
    /// A new member's node: nothing on its disk, and nobody it would count.
    pub fn join(&mut self, id: NodeId) {
        self.add(id, &Config::default(), &[], 0);
    }

    /// Somebody asks node `id` for a change of the membership.
    pub fn change(&mut self, id: NodeId, changes: &[Change], force: bool) -> u64 {
        self.next_change += 1;
        let token = self.next_change;
        let changes = changes.to_vec();
        self.step(
            id,
            Input::Reconfigure {
                token,
                changes,
                force,
            },
        );
        token
    }

    /// If this step of a leader has appended a configuration: the one before is committed, by an entry of the leader's own term, and
    /// quorums of the two intersect (S11).
    pub(super) fn check_change(&self, id: NodeId, before: &Raft) {
        let raft = self.raft(id);
        let log = raft.log();
        let led = before.role() == RoleKind::Leader && before.term() == raft.term();
        if !led || log.config_index() <= before.last().index {
            return;
        }
        let own = |c: &Committed| c.id.term == raft.term();
        assert!(
            self.ghost.committed.iter().any(own),
            "n{id} changes the membership before an entry of its own term is committed (S11)"
        );
        // A leader that was deposed without knowing it may be behind, but never ahead.
        let at = before.log().config_index();
        assert!(
            at <= self.ghost.len() && self.ghost.config_at(at) == Some(before.config()),
            "n{id} starts from what is committed (S11)"
        );
        assert!(
            quorums_intersect(before.config(), log.config()),
            "quorums of {:?} and {:?} could decide apart (S11)",
            before.config(),
            log.config()
        );
    }

    /// In force is the latest configuration in log or snapshot, and at most one is not committed (S11); the base's is C's (S12).
    pub(super) fn check_latest(&self, id: NodeId) {
        let log = self.raft(id).log();
        let entries = (log.first().0..=log.last_index().0).map(Index);
        let configs: Vec<Index> = entries.filter(|at| log.config_entry(*at).is_some()).collect();
        let latest = configs.last().and_then(|at| log.config_entry(*at));
        assert_eq!(log.config(), latest.unwrap_or(&log.base().config), "(S11)");
        let open = configs
            .iter()
            .filter(|at| self.ghost.at(**at).map(|c| c.id) != log.id_at(**at));
        assert!(
            open.count() <= 1,
            "n{id} has two uncommitted configurations (S11)"
        );
        let base = log.base();
        // A node that joins starts from an empty one, and cannot know what was before the entry that added it.
        if base.config != Config::default()
            && base.last.index <= self.ghost.len()
            && let Some(config) = self.ghost.config_at(base.last.index)
        {
            assert_eq!(
                base.config, *config,
                "n{id}'s snapshot has C's configuration (S12)"
            );
        }
    }

    /// Every quorum of every active configuration has a member whose disk holds all of C (S5). Active is the last committed one, and any
    /// in force at a node whose log has that one: with an older one nobody can be elected. No disk ever loses what is in C, which is
    /// checked elsewhere, so it is enough to look when C or a configuration has changed.
    pub(super) fn check_quorums_hold_c(&self) {
        let (Some(last), Some((index, committed))) = (self.ghost.committed.last(), self.ghost.last_config())
        else {
            return;
        };
        let current = |raft: &&Raft| {
            let at = self.ghost.at(*index).map_or(LogId::default(), |c| c.id);
            raft.log().base().last.index >= *index || raft.log().contains(at)
        };
        let rafts = self.nodes.values().filter_map(|node| node.raft.as_ref());
        let in_force = rafts.filter(current).map(Raft::config);
        for config in std::iter::once(committed).chain(in_force) {
            let lacks = |id| !self.nodes.get(&id).is_some_and(|node| node.holds(last.id));
            assert!(
                !can_decide(config, lacks),
                "a quorum of {config:?} could decide without {} (S5)",
                last.id
            );
        }
    }
}
