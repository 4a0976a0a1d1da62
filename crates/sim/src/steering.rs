//! Faults that wait for their moment. A fault that is to strike in some state lies in wait until a machine (or the cluster) is in that state,
//! and strikes after that very step. Some strike whatever is the case if that takes too long; those of an ambush strike in that state
//! or not at all: what they need is looked at first, and a disk that is to fail at its next operation is let alone again if the state is
//! over before. Which fault waits for which state is decided in [`plan`](crate::plan) and [`ambush`](crate::ambush).

use quorate_base::NodeId;
use quorate_raft::{Priority, RoleKind};

use crate::cells::{State, States};
use crate::coverage::Kind;
use crate::failure::Failure;
use crate::host::Host;
use crate::params::{MS, SEC};
use crate::plan::{Fault, When};
use crate::trace::Nanos;
use crate::world::{Happening, World};

/// Who lies in wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lair {
    /// The planned fault of this number, for anybody.
    Fault(usize),
    /// The impostor on this machine, for anybody who is to refuse it.
    Impostor(NodeId),
}

/// Somebody in wait for a state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lurking {
    lair: Lair,
    state: State,
    /// Then it strikes whatever is the case.
    until: Option<Nanos>,
    /// It waits in the disk of this machine, which is in that state, for the next operation.
    armed: Option<NodeId>,
}

/// What is to happen now.
enum Sprung {
    /// It strikes this machine, or any.
    Strikes(Lurking, Option<NodeId>),
    /// It goes on lying in wait.
    Waits,
}

impl World {
    /// The moment of a planned fault has come: it strikes, or lies in wait.
    pub(crate) fn release(&mut self, number: usize) -> Result<(), Failure> {
        let strike = &mut self.params.plan[number];
        // An impostor needs some preparation before it can wait.
        if matches!(strike.fault, Fault::Impostor(_)) || self.healing {
            return self.strike(number, None);
        }
        match strike.when {
            When::Now => return self.strike(number, None),
            When::Soon(state) => {
                strike.when = When::Now;
                let until = self.now + self.rng.within(500 * MS..6 * SEC);
                self.lurk(Lair::Fault(number), state, Some(until));
            }
            When::Only(state) => self.lurk(Lair::Fault(number), state, None),
        }
        Ok(())
    }

    /// Lies in wait.
    pub(crate) fn lurk(&mut self, lair: Lair, state: State, until: Option<Nanos>) {
        self.lurking.retain(|lurking| lurking.lair != lair);
        self.lurking.push(Lurking {
            lair,
            state,
            until,
            armed: None,
        });
        if let Some(until) = until {
            self.at(until, Happening::Spring);
        }
    }

    /// After something has happened, on `id` if at one machine: what lies in wait for that strikes.
    pub(crate) fn spring(&mut self, id: Option<NodeId>) -> Result<(), Failure> {
        if self.healing {
            self.lurking.clear();
        }
        if self.lurking.is_empty() {
            return Ok(());
        }
        let cluster = self.states_of_cluster();
        let here = id.map(|id| self.states_of(id)).unwrap_or_default();
        if let Some(id) = id {
            self.watch_fuses(id, here.with(cluster));
        }
        let mut sprung = Vec::new();
        let mut ambushed = false;
        for lurking in std::mem::take(&mut self.lurking) {
            match self.look_out(lurking, id, (here, cluster), ambushed) {
                Sprung::Waits => self.lurking.push(lurking),
                Sprung::Strikes(lurking, victim) => {
                    ambushed |= lurking.until.is_none();
                    sprung.push((lurking, victim));
                }
            }
        }
        for (lurking, victim) in sprung {
            self.pounce(lurking, victim)?;
        }
        Ok(())
    }

    /// Whether the moment of one that lies in wait has come. Of an ambush one strikes at a time: after that the state may be over.
    fn look_out(
        &self,
        lurking: Lurking,
        id: Option<NodeId>,
        (here, cluster): (States, States),
        ambushed: bool,
    ) -> Sprung {
        let (state, of_cluster) = (lurking.state, cluster.has(lurking.state));
        let late = lurking.until.is_some_and(|until| until <= self.now);
        match lurking.lair {
            Lair::Fault(_) if lurking.until.is_some() => match (here.has(state), of_cluster || late) {
                (true, _) => Sprung::Strikes(lurking, id),
                (false, true) => Sprung::Strikes(lurking, None),
                (false, false) => Sprung::Waits,
            },
            Lair::Fault(number) => {
                let victim = match state {
                    // Nothing happens at who stands still.
                    State::Paused => self.stands_still(),
                    _ => id.filter(|_| here.has(state) || of_cluster),
                };
                let fault = &self.params.plan[number].fault;
                let victim = victim.filter(|id| !ambushed && self.is_open_to(fault, state, *id));
                match victim.filter(|_| lurking.armed.is_none()) {
                    Some(victim) => Sprung::Strikes(lurking, Some(victim)),
                    None => Sprung::Waits,
                }
            }
            Lair::Impostor(machine) => {
                let met = id.filter(|_| here.has(state) || of_cluster);
                match met.filter(|id| self.may_refuse(machine, *id)) {
                    Some(id) => Sprung::Strikes(lurking, Some(id)),
                    None if late => Sprung::Strikes(lurking, None),
                    None => Sprung::Waits,
                }
            }
        }
    }

    fn pounce(&mut self, lurking: Lurking, victim: Option<NodeId>) -> Result<(), Failure> {
        // Something else may have struck at the same moment, and changed what was looked at.
        let number = match lurking.lair {
            Lair::Fault(number) => number,
            Lair::Impostor(machine) => {
                let victim = victim.filter(|id| self.may_refuse(machine, *id));
                return self.step_forward(machine, victim);
            }
        };
        let fault = &self.params.plan[number].fault;
        let open = victim.is_some_and(|id| self.is_open_to(fault, lurking.state, id));
        if lurking.until.is_none() && !open {
            self.lurking.push(lurking);
            return Ok(());
        }
        self.strike(number, victim)?;
        let in_disk = victim.filter(|id| self.hosts.get(id).is_some_and(|host| host.armed == Some(number)));
        if lurking.until.is_none() && in_disk.is_some() {
            let armed = in_disk;
            self.lurking.push(Lurking { armed, ..lurking });
        }
        Ok(())
    }

    fn stands_still(&self) -> Option<NodeId> {
        let still = |host: &&Host| host.paused_until > self.now && host.process.is_some();
        self.hosts.values().find(still).map(|host| host.id)
    }

    /// Whether this one asks for votes at once if it is told that the leader is gone: the others wait for it.
    fn asks_first(&self, id: NodeId) -> bool {
        let leader = self.leader();
        let config = self.ghost.commits().config();
        let mut next = config.voters.iter().filter(|voter| Some(**voter) != leader);
        leader.is_some() && next.next() == Some(&id) && self.hosts[&id].priority != Priority::Low
    }

    /// Whether a fault of an ambush can strike this machine now, in this state.
    fn is_open_to(&self, fault: &Fault, state: State, id: NodeId) -> bool {
        let host = self.hosts.get(&id).filter(|host| !host.impostor);
        let Some((host, process)) = host.and_then(|host| Some((host, host.process.as_ref()?))) else {
            return false;
        };
        let leads = process.node.raft().role() == RoleKind::Leader;
        let unarmed = host.armed.is_none() && host.trap.is_none() && !host.disk.is_armed();
        let awake = host.paused_until <= self.now && host.stalled_until <= self.now;
        let at_work = !process.disk_queue.is_empty();
        match fault {
            Fault::Transfer => self.leader() == Some(id),
            Fault::FalseHint if state == State::Writing => self.asks_first(id),
            Fault::FalseHint | Fault::IsolateLeader(_) | Fault::CutFollower(_) | Fault::Stall(_) => {
                self.leader().is_some()
            }
            Fault::OtherCluster => awake,
            // Its process ends before it strikes, and who leads is no rival any longer.
            Fault::CrashInRecovery { .. } => unarmed && awake && !(state == State::Rivals && leads),
            _ if fault.wants_dispensable() => unarmed && self.is_dispensable(id),
            Fault::ReadError { .. } => unarmed,
            // These are met where messages are sent.
            Fault::Message(_) => false,
            _ if fault.blow().is_some() => unarmed && (at_work || process.job.is_some()),
            _ => true,
        }
    }

    /// Whatever waits in the disk of `id` for the next operation waits no longer if the state that it was for is over.
    fn watch_fuses(&mut self, id: NodeId, states: States) {
        for mut lurking in std::mem::take(&mut self.lurking) {
            let (Lair::Fault(number), true) = (lurking.lair, lurking.armed == Some(id)) else {
                self.lurking.push(lurking);
                continue;
            };
            let host = self.host(id);
            if host.armed != Some(number) || !host.disk.is_armed() {
                // It has struck, or the process ended before, and it is planned again.
                continue;
            }
            if !states.has(lurking.state) {
                host.disk.disarm();
                host.armed = None;
                if host.rotted_by == Some(number) {
                    (host.rotted_by, host.rotten) = (None, false);
                }
                lurking.armed = None;
            }
            self.lurking.push(lurking);
        }
    }

    /// What lies in wait for a message to somebody in some state, if this is one to `to`: what shall become of it.
    pub(crate) fn waylay(&mut self, to: NodeId) -> Option<Kind> {
        let kind_of = |lurking: &Lurking| match lurking.lair {
            Lair::Fault(number) => match self.params.plan[number].fault {
                Fault::Message(kind) => Some(kind),
                _ => None,
            },
            Lair::Impostor(_) => None,
        };
        if self.healing || !self.lurking.iter().any(|lurking| kind_of(lurking).is_some()) {
            return None;
        }
        let states = self.states_of(to).with(self.states_of_cluster());
        let met = |lurking: &Lurking| kind_of(lurking).is_some() && states.has(lurking.state);
        let place = self.lurking.iter().position(met)?;
        let kind = kind_of(&self.lurking[place]);
        self.lurking.remove(place);
        kind
    }
}
