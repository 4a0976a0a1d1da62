//! Checks of configurations: that quorums of neighbouring ones meet, that no leader changes the configuration before its time, and
//! that what is committed stays on some disk of every quorum that could elect a leader (S5, S11). What a quorum is, is
//! in [`quorum`](super::quorum).

use std::collections::BTreeSet;

use quorate_base::{Index, NodeId};
use quorate_raft::{Config, Raft, RoleKind};

use super::quorum::{electors, is_quorum, quorums_meet};
use super::{Ghost, Violation};

impl Ghost {
    /// A node has put a configuration into its log: it may follow the one before it, and it is not too early (S11).
    pub(super) fn check_configs(&self, id: NodeId, raft: &Raft) -> Result<(), Violation> {
        let log = &self.members[&id].volatile;
        let Some((at, config)) = log.configs().last() else {
            return Ok(());
        };
        let pending = |index: Index| index > self.commits.last() || !log.holds(index, &self.commits);
        let uncommitted = log.configs().iter().filter(|(index, _)| pending(*index)).count();
        if uncommitted > 1 {
            return Violation::because(
                "S11",
                format!("{id} has {uncommitted} configurations at once that are not committed"),
            );
        }
        if raft.role() == RoleKind::Leader
            && log.term_at(*at) == Some(raft.term())
            && !self.commits.has_of_term(raft.term(), *at)
        {
            return Violation::because(
                "S11",
                format!("{id} changes the configuration at {at} with nothing committed in its term"),
            );
        }
        check_succession(id, log.former_config(), config)
    }

    /// A new leader has been elected by a quorum of its configuration (S11): only voters count.
    pub(super) fn check_election(&self, id: NodeId, raft: &Raft) -> Result<(), Violation> {
        let term = raft.term();
        let voted = |voter: &NodeId| {
            let vote = match *voter == id {
                true => self.durable_votes.get(&(*voter, term)),
                false => self.votes.get(&(*voter, term)),
            };
            vote == Some(&id)
        };
        let config = self.members[&id].volatile.config();
        let electorate: BTreeSet<NodeId> = electors(config).into_iter().filter(voted).collect();
        if is_quorum(config, &electorate) {
            return Ok(());
        }
        Violation::because(
            "S11",
            format!("{id} leads term {term}, elected by {electorate:?} of {config:?}"),
        )
    }

    /// Every configuration that some node acts on, or would after a crash now, and the last committed one.
    pub fn all_configs(&self) -> impl Iterator<Item = &Config> {
        let logs = self.members.values();
        let logs = logs.flat_map(|member| [&member.volatile, &member.durable]);
        let known = logs
            .map(|log| log.config())
            .filter(|config| !config.voters.is_empty());
        known.chain([self.commits.config()])
    }

    /// The configurations that may decide something from now on: the last committed one, and what logs that contain all of C have
    /// after it.
    pub(crate) fn active_configs(&self) -> BTreeSet<&Config> {
        let last = self.commits.last();
        let logs = self
            .members
            .values()
            .flat_map(|member| [&member.volatile, &member.durable]);
        let ahead = logs.filter(|log| log.holds(last, &self.commits));
        let pending = ahead
            .filter_map(|log| log.configs().last())
            .filter(|(index, _)| *index > last);
        let mut active: BTreeSet<&Config> = pending.map(|(_, config)| config).collect();
        active.insert(self.commits.config());
        active
    }

    /// Whether these are a whole quorum of an active configuration, or of the one that the end of C was counted by: its entry may have been in one
    /// leader's memory only, which is enough to count, and be lost since.
    pub(super) fn could_commit(&self, active: &BTreeSet<&Config>, nodes: &BTreeSet<NodeId>) -> bool {
        let mut counting = active.iter().copied().chain([&self.counted_by]);
        counting.any(|config| is_quorum(config, nodes))
    }

    /// Everything committed is durable on a member of every quorum of every active configuration, and on as many as were needed to commit it (S5).
    pub fn check_durable_quorum(&self) -> Result<(), Violation> {
        let last = self.commits.last();
        let durable = |id: &NodeId| self.members[id].durable.holds(last, &self.commits);
        let trusted = self.members.keys().filter(|id| !self.distrusted.contains(id));
        let (have, lack): (BTreeSet<NodeId>, BTreeSet<NodeId>) = trusted.partition(|id| durable(id));
        let active = self.active_configs();
        if let Some(config) = active.iter().find(|config| is_quorum(config, &lack)) {
            return Violation::because(
                "S5",
                format!("C[{last}] is durable only on {have:?}, and others are a quorum of {config:?}"),
            );
        }
        let doubtful = self.lost.union(&self.distrusted).copied();
        let whole = have.iter().copied().chain(doubtful).collect();
        if !self.could_commit(&active, &whole) {
            return Violation::because("S5", format!("C[{last}] is durable only on {have:?}"));
        }
        Ok(())
    }
}

/// One configuration may follow another (§4.3).
pub(super) fn check_succession(id: NodeId, former: &Config, config: &Config) -> Result<(), Violation> {
    let wrong =
        |what: &str| Violation::because("S11", format!("{id}: {what}, from {former:?} to {config:?}"));
    if former.voters.is_empty() {
        // A node that joins does not know what came before.
        return Ok(());
    }
    if !quorums_meet(former, config) {
        return wrong("quorums need not meet");
    }
    if config.voters.is_empty() {
        return wrong("nobody is left to vote");
    }
    if config.level < former.level {
        return wrong("the feature level falls");
    }
    if !former.removed.is_subset(&config.removed) {
        return wrong("a removed member is forgotten");
    }
    if config
        .members()
        .iter()
        .any(|member| config.removed.contains(member))
    {
        return wrong("a removed member comes back");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(voters: &[u64], outgoing: &[u64]) -> Config {
        let set = |ids: &[u64]| ids.iter().copied().map(NodeId).collect();
        Config {
            voters: set(voters),
            outgoing: set(outgoing),
            ..Config::default()
        }
    }

    #[test]
    fn successions_that_forget_are_rejected() {
        let mut former = config(&[1, 2, 3], &[]);
        former.removed.insert(NodeId(9));
        former.level = 2;
        let mut next = former.clone();
        next.removed.clear();
        assert!(check_succession(NodeId(1), &former, &next).is_err());
        let mut next = former.clone();
        next.voters.insert(NodeId(9));
        assert!(check_succession(NodeId(1), &former, &next).is_err());
        let mut next = former.clone();
        next.level = 1;
        assert!(check_succession(NodeId(1), &former, &next).is_err());
        assert_eq!(check_succession(NodeId(1), &former, &former), Ok(()));
    }
}
