//! Identities that come back with less than they had: an empty disk under an old id, an older copy of a disk, a second process from a
//! copy, a node of another cluster.
//!
//! An impostor is a machine of its own that claims to be a member. It is let loose only when every other machine has durably seen
//! a later state of that member, for then the promise is that nobody lets it in, and the run's checks stay on without any
//! exception. What may happen otherwise, before anybody has seen the later state, no protocol can prevent; that is shown in
//! the tests of scenarios.

use quorate_base::NodeId;
use quorate_node::handshake::Refusal;
use quorate_raft::{Change, Config};

use crate::ambush::draw_opener;
use crate::cells::State;
use crate::coverage::Kind;
use crate::disk::SimDisk;
use crate::failure::Failure;
use crate::ghost::log::GhostLog;
use crate::ghost::quorum::is_quorum;
use crate::host::{CLUSTER, Host};
use crate::identity::Identity;
use crate::params::{MS, SEC};
use crate::picture::Topic;
use crate::plan::{Pretence, When};
use crate::rng::Rng;
use crate::steering::Lair;
use crate::trace::Nanos;
use crate::world::{Happening, World};

/// Numbers of impostors' machines begin here.
const FIRST: u64 = 1_000;

/// How long to wait for everybody to have seen the later state.
const PATIENCE: Nanos = 20 * SEC;

/// An impostor, or the plan of one.
pub(crate) struct Masquerade {
    /// The planned fault.
    number: usize,
    pretence: Pretence,
    victim: NodeId,
    /// The disk it will run on, the log on it, and the count of starts.
    disk: SimDisk,
    log: GhostLog,
    boot: u64,
    since: Nanos,
    /// The member was made to start once more.
    again: bool,
    /// It is to be refused by somebody in this state.
    when: Option<State>,
    /// It is loose, and cut off until it finds one.
    waits: bool,
    /// It is loose.
    machine: Option<NodeId>,
}

impl World {
    /// Takes a copy of a member's disk (or an empty one), and lets the member's state go on from there.
    pub(crate) fn prepare_impostor(&mut self, number: usize, pretence: Pretence) {
        let config = self.ghost.commits().config();
        let voters: Vec<NodeId> = config.voters.iter().copied().collect();
        let victim = self.rng.pick(&voters);
        let running = self.hosts.get(&victim).filter(|host| host.process.is_some());
        let doubted = self.hosts.values().any(|host| host.rotted_by.is_some());
        let busy = doubted || self.masquerade.is_some() || !self.operator.is_idle() || config.is_joint();
        let Some(host) = running.filter(|_| !busy && voters.len() > 1) else {
            self.after(200 * MS, Happening::Fault(number));
            return;
        };
        let boot = host.process.as_ref().expect("it runs").identity.boot;
        let (disk, log) = match pretence {
            Pretence::Wiped => (SimDisk::new(self.rng.fork()), GhostLog::default()),
            _ => (host.disk.durable_copy(), self.ghost.durable_log(victim).clone()),
        };
        self.masquerade = Some(Masquerade {
            number,
            pretence,
            victim,
            disk,
            log,
            boot,
            since: self.now,
            again: false,
            when: match self.params.plan[number].when {
                When::Now => None,
                When::Soon(state) | When::Only(state) => Some(state),
            },
            waits: false,
            machine: None,
        });
        if pretence != Pretence::Wiped {
            self.end(victim, true, 50 * MS);
        }
        self.after(200 * MS, Happening::Masquerade);
    }

    /// What a machine pretends, if it is an impostor.
    pub(crate) fn pretence_of(&self, machine: NodeId) -> Option<Pretence> {
        let plan = self.masquerade.as_ref()?;
        (plan.machine == Some(machine)).then_some(plan.pretence)
    }

    /// Lets the impostor loose when everybody has seen a later state of the member.
    pub(crate) fn masquerade(&mut self) {
        let Some(plan) = self.masquerade.as_ref().filter(|plan| plan.machine.is_none()) else {
            return;
        };
        if self.everybody_knows_better(plan) {
            let (victim, early) = (plan.victim, plan.pretence == Pretence::Backup && !plan.again);
            if !early {
                return self.unleash();
            }
            // With one start more the copy is older than the start before the last, and no twin of the last.
            let plan = self.masquerade.as_mut().expect("just seen");
            (plan.again, plan.boot) = (true, plan.boot + 1);
            self.end(victim, true, 50 * MS);
            self.after(200 * MS, Happening::Masquerade);
            return;
        }
        if self.now - plan.since < PATIENCE {
            self.after(200 * MS, Happening::Masquerade);
        } else {
            let number = plan.number;
            self.masquerade = None;
            self.after(200 * MS, Happening::Fault(number));
        }
    }

    fn everybody_knows_better(&self, plan: &Masquerade) -> bool {
        self.operator.is_idle() && self.all_have_seen_better(plan)
    }

    fn all_have_seen_better(&self, plan: &Masquerade) -> bool {
        let config = self.ghost.commits().config();
        let alone = is_quorum(plan.log.config(), &[plan.victim].into());
        let member = config.voters.contains(&plan.victim) && config.voters.len() > 1;
        let knows = |host: &Host| {
            let seen = self.recorded.get(&(host.id, plan.victim));
            seen.is_some_and(|seen| plan.pretence == Pretence::Wiped || seen.1 > plan.boot)
        };
        // A configuration that is not committed yet may bring somebody whom the impostor meets first.
        let mut others = self.ghost.all_configs().flat_map(Config::members);
        let never_fooled = |id: NodeId| match self.hosts.get(&id) {
            Some(host) => host.broken || knows(host),
            None => config.removed.contains(&id),
        };
        !alone && member && others.all(|id| id == plan.victim || never_fooled(id))
    }

    /// Replaces a member's disk by an empty one, whoever knows it.
    pub(crate) fn wipe(&mut self, victim: NodeId) {
        self.masquerade = Some(Masquerade {
            number: usize::MAX,
            pretence: Pretence::Wiped,
            victim,
            disk: SimDisk::new(self.rng.fork()),
            log: GhostLog::default(),
            boot: 0,
            since: self.now,
            again: false,
            when: None,
            waits: false,
            machine: None,
        });
        self.unleash();
    }

    fn unleash(&mut self) {
        let machine = NodeId(self.impostors + FIRST);
        self.impostors += 1;
        let plan = self.masquerade.as_mut().expect("it was planned");
        let (victim, number) = (plan.victim, plan.number);
        plan.machine = Some(machine);
        let when = plan.when.take();
        plan.waits = when.is_some();
        let (pretence, log) = (plan.pretence, plan.log.clone());
        let real = &self.hosts[&victim];
        // The member may be suspended; its impostor is not.
        let mut clock = real.clock;
        clock.go_on(self.now);
        let host = Host {
            member: victim,
            impostor: true,
            founder: real.founder,
            told: real.told.clone(),
            clock,
            ..Host::new(machine, plan.disk.clone())
        };
        let founding = if host.founder {
            self.founding.clone()
        } else {
            Config::default()
        };
        self.trace.mark(
            Topic::Fault,
            self.now,
            Some(victim),
            format_args!("has an impostor: {pretence:?}"),
        );
        self.add_host(host, founding);
        self.ghost.alias(machine, victim);
        if pretence != Pretence::Wiped {
            self.ghost.put_back(machine, log);
        }
        if pretence != Pretence::Duplicate {
            self.end(victim, true, 3600 * SEC);
            self.stand_ins.insert(victim, machine);
        }
        self.after(0, Happening::Start(machine));
        if let Some(state) = when {
            let until = self.now + self.rng.within(4 * SEC..12 * SEC);
            self.lurk(Lair::Impostor(machine), state, Some(until));
            let at = self.now + self.rng.within(200 * MS..SEC);
            let ambush = self.params.plan[number].when == When::Only(state);
            let opener = ambush.then(|| draw_opener(&mut self.rng, state, at));
            if let Some(opener) = opener.flatten() {
                self.at(at, Happening::Fault(self.params.plan.len()));
                self.params.plan.push(opener);
            }
        }
    }

    /// Whether a machine is an impostor that connects to nobody yet, nor anybody to it.
    pub(crate) fn holds_back(&self, machine: NodeId) -> bool {
        let plan = self.masquerade.as_ref();
        plan.is_some_and(|plan| plan.machine == Some(machine) && plan.waits)
    }

    /// Whether such changes of the membership put nothing at risk that an impostor's being refused depends on: nobody comes who has seen
    /// nothing yet, and the member stays.
    pub(crate) fn may_change(&self, changes: &[Change]) -> bool {
        let Some(plan) = &self.masquerade else { return true };
        plan.waits
            && changes.iter().all(|change| match change {
                Change::Promote(_) => true,
                Change::Remove(id) => *id != plan.victim,
                _ => false,
            })
    }

    /// Whether the impostor on `machine` can connect to this node now, and must be refused.
    pub(crate) fn may_refuse(&self, machine: NodeId, id: NodeId) -> bool {
        let plan = self.masquerade.as_ref();
        let Some(plan) = plan.filter(|plan| plan.machine == Some(machine) && plan.victim != id) else {
            return false;
        };
        let awake = |host: &Host| {
            host.process.is_some() && host.paused_until <= self.now && host.stalled_until <= self.now
        };
        let listens = |host: &Host| awake(host) && !host.impostor;
        let open = |pair| self.net.link(pair).is_some_and(|link| !link.cut);
        self.hosts.get(&machine).is_some_and(awake)
            && self.hosts.get(&id).is_some_and(listens)
            && self.ghost.commits().config().is_member(id)
            && open((machine, id))
            && open((id, machine))
            && self.all_have_seen_better(plan)
    }

    /// The impostor connects to this node, or has waited long enough and connects to whom it likes.
    pub(crate) fn step_forward(&mut self, machine: NodeId, to: Option<NodeId>) -> Result<(), Failure> {
        let plan = self.masquerade.take_if(|plan| plan.machine == Some(machine));
        let Some(mut plan) = plan else { return Ok(()) };
        plan.waits = !self.all_have_seen_better(&plan);
        let (waits, number) = (plan.waits, plan.number);
        self.masquerade = Some(plan);
        match to {
            // Somebody has come who knows nothing yet: it is tried again from the beginning.
            None if waits => {
                self.after(0, Happening::Unmask);
                self.after(SEC, Happening::Fault(number));
            }
            None => {}
            Some(id) => self.greet((machine, id))?,
        }
        Ok(())
    }

    /// The impostor is gone with its disk, and the member has its machine back.
    pub(crate) fn unmask(&mut self) -> Result<(), Failure> {
        let Some(plan) = self.masquerade.take() else {
            return Ok(());
        };
        let Some(machine) = plan.machine else {
            return Ok(());
        };
        if self.hosts[&machine].process.is_some() {
            self.end(machine, false, 0);
        }
        self.hosts.remove(&machine);
        self.net.remove(machine);
        self.ghost.destroyed(machine)?;
        self.stand_ins.remove(&plan.victim);
        self.after(MS, Happening::Start(plan.victim));
        Ok(())
    }

    /// Somebody of another cluster connects to one of ours.
    pub(crate) fn greet_from_elsewhere(&mut self, number: usize, to: NodeId) -> Result<(), Failure> {
        let running = self.running();
        let from = self.rng.pick(&running);
        let disk = SimDisk::new(Rng::new(1));
        let identity = Identity::begin(&*disk.mount(), CLUSTER + 1, self.rng.word());
        let identity = identity.map_err(|error| Failure::Crash(error.to_string()))?;
        let member = self.hosts[&to].member;
        let hello = identity.greeting(
            from,
            member,
            self.hosts[&to].features,
            self.params.lease_timeout(),
        );
        match self.judge_greeting(from, to, hello)? {
            Some(Err(Refusal::WrongCluster { .. })) => self.struck(Kind::OtherCluster, &[to]),
            None => self.after(100 * MS, Happening::Fault(number)),
            Some(other) => {
                let what = format!("identity: n{to} says {other:?} to a node of another cluster");
                return Err(Failure::Correctness(what));
            }
        }
        Ok(())
    }
}
