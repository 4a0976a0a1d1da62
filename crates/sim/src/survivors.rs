//! Liveness with the faults still there: when the time of faults is over, a random core of nodes that contains a quorum is healed, and
//! everything else stays broken for good. The core alone has to come to a stable leader, answers and one state, in bounded time.
//!
//! Nobody is excused by a guess. Where the demand fails, [`Excuse`] is what the checker's global knowledge *proves*: that nobody in the core
//! could be elected by the core. Everything else is a failure.

use std::collections::BTreeSet;

use quorate_base::{NodeId, Term};
use quorate_raft::{Change, Config, Promote};

use crate::coverage::Kind;
use crate::failure::Failure;
use crate::ghost::quorum::{electors, is_quorum};
use crate::nemesis::Restore;
use crate::net::Pair;
use crate::params::SEC;
use crate::picture::Topic;
use crate::trace::Nanos;
use crate::world::{Happening, World};

mod excuse;

pub use excuse::Excuse;

/// A pause that ends only by healing.
pub(crate) const FOREVER: Nanos = Nanos::MAX / 4;

/// What a node outside the core suffers for good.
#[derive(Clone, Copy, Debug)]
enum Affliction {
    /// The machine has no power.
    Dark,
    /// The process is gone, and its machine says so.
    Killed,
    /// The process stands still.
    Paused,
    /// Its disk does not return.
    Stalled,
    /// It hears the core, and is not heard.
    Mute,
    /// The core hears it, and it does not hear the core.
    Deaf,
    /// It neither hears nor is heard.
    Apart,
}

impl World {
    /// Whether something does not happen while the survivors are on their own: what is broken stays so.
    pub(crate) fn is_barred(&self, happening: &Happening) -> bool {
        let Some(core) = &self.survivors else { return false };
        match happening {
            // The clock of a machine that goes on goes on with it.
            Happening::Restore(what) => !matches!(what, Restore::Clock(_)),
            Happening::Start(id) => !core.contains(id),
            _ => false,
        }
    }

    /// Heals a random core, makes every other fault permanent, and demands what the core must come to.
    pub(crate) fn survive(&mut self) -> Result<(), Failure> {
        let core = match self.choose_core() {
            Ok(core) => core,
            Err(excuse) => {
                self.excuse(excuse);
                return Ok(());
            }
        };
        let voters = &self.ghost.commits().config().voters;
        if !voters.is_subset(&core) {
            self.coverage.hit(Kind::MajorityOnly);
        }
        self.leave_alone(core);
        let result = self.demand_of_survivors();
        self.survive_or_excuse(result)?;
        self.survivors = None;
        Ok(())
    }

    /// What was demanded of the survivors came to `result`: a failure, unless there is a proof that it could not be.
    fn survive_or_excuse(&mut self, result: Result<(), Failure>) -> Result<(), Failure> {
        let Err(Failure::Liveness(why)) = result else {
            return result;
        };
        let Some(excuse) = Excuse::prove(&self.ghost, &self.able_survivors()) else {
            let core = self.survivors.as_ref().expect("they were left alone");
            return Err(Failure::Liveness(format!("of the core {core:?} alone: {why}")));
        };
        self.excuse(excuse);
        Ok(())
    }

    fn excuse(&mut self, excuse: Excuse) {
        self.trace
            .mark(Topic::Fault, self.now, None, format_args!("EXCUSED: {excuse}"));
        self.excused = Some(excuse);
    }

    /// Whether a member's machine and disk are whole, so that it can be healed.
    fn is_able(&self, id: NodeId) -> bool {
        let host = self.hosts.get(&id);
        host.is_some_and(|host| !host.broken && !host.expelled && !host.impostor)
    }

    /// The survivors whose disks have turned out to be whole.
    fn able_survivors(&self) -> BTreeSet<NodeId> {
        let core = self.survivors.iter().flatten().copied();
        core.filter(|id| self.is_able(*id)).collect()
    }

    /// A random set of members that is a quorum of every configuration that may decide, with as few as chance wants.
    fn choose_core(&mut self) -> Result<BTreeSet<NodeId>, Excuse> {
        let active: Vec<Config> = self.ghost.active_configs().into_iter().cloned().collect();
        let voters = active.iter().flat_map(electors);
        let mut core: BTreeSet<NodeId> = voters.filter(|id| self.is_able(*id)).collect();
        if let Some(excuse) = Excuse::prove(&self.ghost, &core) {
            return Err(excuse);
        }
        // Where some log goes on with a configuration that needs others, whoever can do without that log is needed for it.
        let spare = active.iter().all(|config| is_quorum(config, &core));
        // What is asked for at this moment may come into force; those who must do without the others should be able to.
        let asked = active.iter().flat_map(|config| self.asked_for(config));
        let mut needed: Vec<Config> = asked.filter(|config| is_quorum(config, &core)).collect();
        needed.extend(active);
        let mut order: Vec<NodeId> = core.iter().copied().collect();
        for last in (1..order.len()).rev() {
            order.swap(last, self.rng.below(last + 1));
        }
        for id in order {
            core.remove(&id);
            let enough = spare
                && needed.iter().all(|config| is_quorum(config, &core))
                && Excuse::prove(&self.ghost, &core).is_none();
            if !enough || self.rng.below(4) == 0 {
                core.insert(id);
            }
        }
        let learners: Vec<NodeId> = self.ghost.commits().config().learners.keys().copied().collect();
        for id in learners {
            if self.is_able(id) && self.rng.coin() {
                core.insert(id);
            }
        }
        Ok(core)
    }

    /// The configurations that the operator's open requests would make of this one.
    fn asked_for(&self, config: &Config) -> Vec<Config> {
        let after = |changes: &[Change]| {
            let mut voters = config.voters.clone();
            for change in changes {
                match change {
                    Change::Promote(id) => drop(voters.insert(*id)),
                    Change::Remove(id) => drop(voters.remove(id)),
                    _ => {}
                }
            }
            Config {
                voters,
                ..Config::default()
            }
        };
        let requested = self.operator.requested().map(|(_, changes)| after(changes));
        // Learners that promote themselves ask nobody.
        let by_itself = config
            .learners
            .iter()
            .filter(|(_, promote)| **promote == Promote::WhenCaughtUp);
        let by_itself: Vec<Change> = by_itself.map(|(id, _)| Change::Promote(*id)).collect();
        requested.chain([after(&by_itself)]).collect()
    }

    /// Heals the core, breaks everything else, and lets nothing end it.
    fn leave_alone(&mut self, core: BTreeSet<NodeId>) {
        self.net.heal();
        let others: Vec<NodeId> = self
            .hosts
            .keys()
            .copied()
            .filter(|id| !core.contains(id))
            .collect();
        let mut severed: BTreeSet<Pair> = BTreeSet::new();
        let mut fates = Vec::new();
        for id in others {
            let fate = self.rng.pick(&[
                Affliction::Dark,
                Affliction::Killed,
                Affliction::Paused,
                Affliction::Stalled,
                Affliction::Mute,
                Affliction::Deaf,
                Affliction::Apart,
            ]);
            fates.push(format!("n{id} {fate:?}"));
            for other in self.hosts.keys().copied().collect::<Vec<_>>() {
                let (to, from) = ((id, other), (other, id));
                let (silenced, deafened) = match fate {
                    Affliction::Mute => (true, false),
                    Affliction::Deaf => (false, true),
                    Affliction::Apart => (true, true),
                    // Neither hears nor speaks anyway, but its machine may.
                    _ => (self.rng.below(3) == 0, self.rng.below(3) == 0),
                };
                let near = core.contains(&other) || self.rng.coin();
                severed.extend((silenced && near).then_some(to));
                severed.extend((deafened && near).then_some(from));
            }
            self.afflict(id, fate);
        }
        self.trace.mark(
            Topic::Fault,
            self.now,
            None,
            format_args!("only {core:?} are healed; for good: {}", fates.join(", ")),
        );
        self.net.cut(|pair| severed.contains(&pair));
        self.survivors = Some(core.clone());
        for id in core {
            self.heal_machine(id, false);
        }
    }

    fn afflict(&mut self, id: NodeId, fate: Affliction) {
        let runs = self.hosts[&id].process.is_some();
        match fate {
            // Nothing starts it again.
            Affliction::Dark if runs => self.end(id, true, 0),
            Affliction::Killed if runs => self.end(id, false, 0),
            Affliction::Paused if runs => self.host(id).paused_until = FOREVER,
            Affliction::Stalled if runs => self.stall_disk(id, 24 * 3600 * SEC),
            _ => {}
        }
    }

    /// What the core must come to while it is alone.
    fn demand_of_survivors(&mut self) -> Result<(), Failure> {
        // One that has never run asks around at random for somebody who knows it.
        self.until(30 * SEC, "start of the core", |world| {
            let mut members = world.core_members().into_iter();
            members.all(|id| world.hosts[&id].process.is_some())
        })?;
        // A leader outside finds out that its disk hangs when it is to write.
        self.clients[0].become_patient();
        for id in self.core_members() {
            let write = self.last_write(id);
            self.ask(0, id, write);
        }
        self.until(self.patience(), "leader of the core", |world| {
            world.core_leader().is_some()
        })?;
        self.until(30 * SEC, "answers to the core's requests", |world| {
            let core = world.survivors.as_ref().expect("they are alone");
            let mut asked = world.pending.keys().map(|(id, _, _)| id);
            let mut changes = world.operator.requested();
            !asked.any(|id| core.contains(id)) && !changes.any(|(id, _)| core.contains(&id))
        })?;
        self.await_stable_leader("leader of the core that stays", World::core_leader)?;
        let members = self.core_members();
        self.last_requests(&members)?;
        let members = self.core_members();
        self.await_convergence(&members)
    }

    /// The survivors that are members of the committed configuration, and whose disks are whole.
    fn core_members(&self) -> Vec<NodeId> {
        let config = self.ghost.commits().config();
        let able = self.able_survivors();
        able.into_iter().filter(|id| config.is_member(*id)).collect()
    }

    /// The leader that all survivors follow, with its term, if it has committed an entry of that term.
    fn core_leader(&self) -> Option<(NodeId, Term)> {
        self.followed_by(&self.core_members())
    }
}

#[cfg(test)]
mod tests;
