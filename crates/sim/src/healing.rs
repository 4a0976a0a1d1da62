//! The end of all faults, and what a healed cluster must come to: damaged members replaced, a leader that everybody follows, a settled
//! membership, nobody left running who was removed. What a part of a cluster must come to while the rest stays broken is in
//! `survivors`.

use quorate_base::{NodeId, Term};
use quorate_node::handshake::FEATURE_LEVEL;
use quorate_raft::{Promote, RoleKind};

use crate::failure::Failure;
use crate::host::{Host, Process};
use crate::params::SEC;
use crate::picture::Topic;
use crate::world::{Happening, World};

impl World {
    /// All faults end, all nodes start, those with old software with new, and the clients and the operator ask no more.
    pub(crate) fn heal(&mut self) {
        self.healing = true;
        self.trace
            .mark(Topic::Fault, self.now, None, format_args!("everything is healed"));
        self.net.heal();
        let ids: Vec<NodeId> = self.hosts.keys().copied().collect();
        for id in ids {
            let learns = self.hosts[&id].features < FEATURE_LEVEL;
            self.host(id).features = FEATURE_LEVEL;
            self.heal_machine(id, learns);
        }
        for happening in std::mem::take(&mut self.parked) {
            self.after(u64::from(happening.is_late()), happening);
        }
    }

    /// All faults of one machine end, and its process starts if it does not run; one that runs starts anew if so told.
    pub(crate) fn heal_machine(&mut self, id: NodeId, anew: bool) {
        let now = self.now;
        let host = self.host(id);
        host.disk.disarm();
        host.disk.limit(None);
        host.slowness = 1;
        host.trap = None;
        host.paused_until = host.paused_until.min(now);
        host.clock.go_on(now);
        // What waits for a disk that never returned is done by the restart of a process that someone had to kill.
        let stalled = std::mem::take(&mut host.stalled_until) > now;
        if host.process.is_some() && (stalled || anew) {
            self.end(id, false, 0);
        } else if host.process.is_none() {
            self.after(0, Happening::Start(id));
        }
    }

    /// The leader that all voters follow, with its term, if it has committed an entry of that term.
    pub(crate) fn leader_of_all(&self) -> Option<(NodeId, Term)> {
        let config = self.ghost.commits().config();
        self.followed_by(config.voters.union(&config.outgoing))
    }

    /// The leader among these nodes that all of them follow, with its term, if it has committed an entry of that term.
    pub(crate) fn followed_by<'a>(
        &self,
        ids: impl IntoIterator<Item = &'a NodeId>,
    ) -> Option<(NodeId, Term)> {
        let rafts = ids
            .into_iter()
            .map(|id| Some(self.hosts.get(id)?.process.as_ref()?.node.raft()));
        let rafts: Vec<_> = rafts.collect::<Option<_>>()?;
        let leader = rafts.iter().find(|raft| raft.role() == RoleKind::Leader)?;
        let followed = rafts
            .iter()
            .all(|raft| raft.term() == leader.term() && raft.leader() == Some(leader.id()));
        let decides = leader.log().term_at(leader.commit()) == Some(leader.term());
        (followed && decides).then(|| (leader.id(), leader.term()))
    }

    /// There is a leader that all voters follow.
    pub(crate) fn is_led(&self) -> bool {
        self.leader_of_all().is_some()
    }

    /// All members run, and no change is under way, nor is one to be expected: the leader's configuration is committed and plain, learners that promote
    /// themselves have done so, and the feature level is what all understand.
    pub(crate) fn is_settled(&self) -> bool {
        let config = self.ghost.commits().config();
        let waiting = config
            .learners
            .values()
            .any(|promote| *promote == Promote::WhenCaughtUp);
        let led = |id| {
            self.hosts[&id]
                .process
                .as_ref()
                .map(|process| process.node.raft())
        };
        let running = |id: &NodeId| self.hosts.get(id).is_some_and(|host| host.process.is_some());
        self.is_led()
            && config.members().iter().all(running)
            && !config.is_joint()
            && !waiting
            && config.level == FEATURE_LEVEL
            && self
                .leader()
                .and_then(led)
                .is_some_and(|raft| raft.config() == config)
    }

    /// Nobody runs any longer who was removed, and could hear of it.
    pub(crate) fn is_tidy(&self) -> bool {
        let config = self.ghost.commits().config();
        let hears = |host: &Host, process: &Process| {
            let known = process.contacts.union(&process.visitors);
            known
                .into_iter()
                .any(|id| *id != host.member && config.is_member(*id))
        };
        self.hosts.values().all(|host| {
            !config.removed.contains(&host.member)
                || host.process.as_ref().is_none_or(|process| !hears(host, process))
        })
    }

    /// Members whose disks were found damaged are replaced: what is left of the cluster must be able to.
    pub(crate) fn await_replacements(&mut self) -> Result<(), Failure> {
        let end = self.now + 120 * SEC;
        let mut next = self.now;
        while let Some(broken) = self.broken_member() {
            if self.now >= next {
                self.replace_broken(broken);
                next = self.now + SEC;
            }
            if !self.step(end)? {
                return Err(Failure::Liveness(format!("n{broken} cannot be replaced")));
            }
        }
        Ok(())
    }

    pub(crate) fn await_leader(&mut self) -> Result<(), Failure> {
        self.until(self.patience(), "leader that all voters follow", World::is_led)?;
        self.until(60 * SEC, "settled membership", World::is_settled)?;
        self.until(60 * SEC, "end of removed members", World::is_tidy)
    }

    /// Nobody asks for anything and nothing is broken: the leader stays. (It may hand over first to one that is to be preferred.)
    pub(crate) fn await_lasting_leader(&mut self) -> Result<(), Failure> {
        self.await_stable_leader("leader that stays", World::leader_of_all)
    }
}
