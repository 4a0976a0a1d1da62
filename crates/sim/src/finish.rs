//! The end of a run: everything is healed, and then what must become true has to become true in bounded time. After that the
//! nodes are compared and the clients' history is judged.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_base::{NodeId, StateMachine};
use quorate_kv::{Command, PutRequest, RangeRequest};
use quorate_node::handshake::FEATURE_LEVEL;
use quorate_raft::{Promote, RoleKind};

use crate::coverage::{Coverage, Kind};
use crate::failure::Failure;
use crate::ghost::quorum::is_quorum;
use crate::history::{self, Action, Call, Outcome};
use crate::host::{Host, Process};
use crate::model::Change;
use crate::operator::show;
use crate::params::{Params, SEC};
use crate::trace::Nanos;
use crate::world::{Happening, World};

/// In so many election timeouts after the last fault there must be a leader, whatever was before.
const ELECTIONS: u64 = 20;

/// A run that was carried to its end.
#[derive(Clone, Debug)]
pub struct Report {
    /// The parameters.
    pub params: Params,
    /// What was met.
    pub coverage: Coverage,
    /// Stands for everything that happened.
    pub trace_hash: u64,
    /// Virtual time.
    pub elapsed: Nanos,
    /// The history.
    pub calls: Vec<Call>,
    /// What was committed, revision by revision.
    pub changes: BTreeMap<i64, Change>,
    /// Terms that had a leader.
    pub elections: usize,
}

/// Runs a seed's parameters to the end. A failure comes with the hash of the trace up to it.
pub fn run(params: Params, print: bool) -> Result<Report, (Failure, u64)> {
    let mut world = World::new(params, print);
    match world.play() {
        Ok(()) => Ok(world.report()),
        Err(failure) => {
            world
                .trace
                .event(world.now, None, format_args!("FAILURE: {failure}"));
            Err((failure, world.trace.hash()))
        }
    }
}

impl World {
    fn play(&mut self) -> Result<(), Failure> {
        let (duration, wanted) = (self.params.duration, self.params.operations as usize);
        while self.step(duration)? {}
        let limit = duration + 600 * SEC;
        while self.operations() < wanted {
            if !self.step(limit)? {
                let made = self.operations();
                return Err(Failure::Liveness(format!(
                    "only {made} requests in {} s",
                    self.now / SEC
                )));
            }
        }
        while !self.coverage.missing(&self.params.planned()).is_empty() && self.step(limit)? {}
        self.conclude()
    }

    /// Heals everything, and demands what must come true then.
    pub(crate) fn conclude(&mut self) -> Result<(), Failure> {
        self.unmask()?;
        self.heal();
        self.await_replacements()?;
        self.await_majority()?;
        self.await_leader()?;
        self.await_answers()?;
        self.last_requests()?;
        self.await_convergence()?;
        self.judge()
    }

    /// What is to be told of a run that was carried to its end.
    pub(crate) fn report(self) -> Report {
        Report {
            trace_hash: self.trace.hash(),
            elapsed: self.now,
            changes: self.ghost.machines.model().changes().clone(),
            elections: self.ghost.elections(),
            coverage: self.coverage,
            calls: self.calls,
            params: self.params,
        }
    }

    /// All faults end, all nodes start, those with old software with new, and the clients and the operator ask no more.
    fn heal(&mut self) {
        self.healing = true;
        self.trace
            .event(self.now, None, format_args!("everything is healed"));
        self.net.heal();
        let ids: Vec<NodeId> = self.hosts.keys().copied().collect();
        let now = self.now;
        for id in ids {
            let host = self.host(id);
            host.disk.disarm();
            host.disk.limit(None);
            host.slowness = 1;
            host.trap = None;
            host.paused_until = host.paused_until.min(now);
            // What waits for a disk that never returned is done by the restart of a process that someone had to kill.
            let stalled = std::mem::take(&mut host.stalled_until) > now;
            let old = host.features < FEATURE_LEVEL;
            host.features = FEATURE_LEVEL;
            if host.process.is_some() && (stalled || old) {
                self.end(id, false, 0);
            } else if host.process.is_none() {
                self.after(0, Happening::Start(id));
            }
        }
    }

    /// Lets things happen until `done`, for at most `time`.
    fn until(&mut self, time: Nanos, what: &str, done: impl Fn(&World) -> bool) -> Result<(), Failure> {
        let end = self.now + time;
        while !done(self) {
            if !self.step(end)? {
                let mut states: Vec<String> = self.hosts.values().map(describe).collect();
                states.push(show(self.ghost.commits().config()));
                return Err(Failure::Liveness(format!(
                    "no {what} within {time} ns: {}",
                    states.join("; ")
                )));
            }
        }
        Ok(())
    }

    /// Those that must come to something in the end: the members of the committed configuration.
    fn members(&self) -> Vec<NodeId> {
        self.ghost.commits().config().members().into_iter().collect()
    }

    /// One leader, followed by all voters, that has committed an entry of its term.
    pub(crate) fn is_led(&self) -> bool {
        let config = self.ghost.commits().config();
        let voters = config.voters.iter().chain(&config.outgoing);
        let rafts: Option<Vec<_>> = voters
            .map(|id| Some(self.hosts.get(id)?.process.as_ref()?.node.raft()))
            .collect();
        let Some(rafts) = rafts else { return false };
        let Some(leader) = rafts.iter().find(|raft| raft.role() == RoleKind::Leader) else {
            return false;
        };
        rafts
            .iter()
            .all(|raft| raft.term() == leader.term() && raft.leader() == Some(leader.id()))
            && leader.log().term_at(leader.commit()) == Some(leader.term())
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
    fn is_tidy(&self) -> bool {
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
    fn await_replacements(&mut self) -> Result<(), Failure> {
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

    /// A minority of the voters is still cut off: the others must come to something without it, as long as no log holds a configuration
    /// in which they are no quorum.
    fn await_majority(&mut self) -> Result<(), Failure> {
        if self.silent {
            // Whoever directs the run decides who is cut off.
            return Ok(());
        }
        let config = self.ghost.commits().config();
        let mut inside = config.voters.clone();
        for _ in 0..(config.voters.len().max(1) - 1) / 2 {
            let one = self.rng.pick(&inside.iter().copied().collect::<Vec<_>>());
            inside.remove(&one);
        }
        let whole = inside == config.voters;
        if whole || !self.ghost.all_configs().all(|config| is_quorum(config, &inside)) {
            return Ok(());
        }
        self.coverage.hit(Kind::MajorityOnly);
        self.trace
            .event(self.now, None, format_args!("only {inside:?} are together"));
        self.net
            .cut(|(from, to)| inside.contains(&from) != inside.contains(&to));
        let within = inside.clone();
        self.until(
            ELECTIONS * self.params.election + 2 * SEC,
            "leader of a majority",
            move |world| world.leads_among(&within),
        )?;
        self.net.cut(|_| false);
        Ok(())
    }

    /// One of these leads, and has committed an entry of its term.
    fn leads_among(&self, ids: &BTreeSet<NodeId>) -> bool {
        let rafts = ids
            .iter()
            .filter_map(|id| Some(self.hosts.get(id)?.process.as_ref()?.node.raft()));
        let mut leaders = rafts.filter(|raft| raft.role() == RoleKind::Leader);
        leaders.any(|raft| raft.log().term_at(raft.commit()) == Some(raft.term()))
    }

    fn await_leader(&mut self) -> Result<(), Failure> {
        self.until(
            ELECTIONS * self.params.election + 2 * SEC,
            "leader that all voters follow",
            World::is_led,
        )?;
        self.until(60 * SEC, "settled membership", World::is_settled)?;
        self.until(60 * SEC, "end of removed members", World::is_tidy)
    }

    fn await_answers(&mut self) -> Result<(), Failure> {
        // The operator's requests have patience, and may wait for each other.
        self.until(30 * SEC, "answers to all requests", |world| {
            world.pending.is_empty() && world.operator.is_idle()
        })
    }

    /// Every node takes a write and a linearizable read now.
    fn last_requests(&mut self) -> Result<(), Failure> {
        for id in self.members() {
            let value = Bytes::from(format!("last of n{id}"));
            let put = PutRequest {
                key: "key00".into(),
                value,
                ..PutRequest::default()
            };
            let request = RangeRequest {
                key: "key".into(),
                range_end: "kez".into(),
                ..RangeRequest::default()
            };
            let write = Action::Write(Command::Put(put));
            let read = Action::Read {
                request,
                serializable: false,
            };
            // A node that is still behind may get its own write by a snapshot, and cannot know then how it ended.
            self.insist(id, write, |outcome| {
                matches!(outcome, Outcome::Written(Ok(_)) | Outcome::Unknown)
            })?;
            self.insist(id, read, |outcome| matches!(outcome, Outcome::Read(Ok(_))))?;
        }
        Ok(())
    }

    /// The answer to a request at `id` must satisfy `good`.
    fn insist(&mut self, id: NodeId, action: Action, good: impl Fn(&Outcome) -> bool) -> Result<(), Failure> {
        let call = self.calls.len();
        self.clients[0].become_patient();
        self.ask(0, id, action);
        self.await_answers()?;
        let call = &self.calls[call];
        if good(&call.outcome) {
            return Ok(());
        }
        Err(Failure::Liveness(format!("in a healthy cluster: {call:?}")))
    }

    fn await_convergence(&mut self) -> Result<(), Failure> {
        self.until(60 * SEC, "convergence", |world| {
            let last = world.ghost.commits().last();
            world.members().into_iter().all(|id| {
                let host = world.hosts.get(&id);
                let process = host.and_then(|host| host.process.as_ref());
                process.is_some_and(|process| process.kv.applied().index == last)
            })
        })
    }

    /// All nodes have one state, which is the model's, and the history is one that clients may see.
    fn judge(&mut self) -> Result<(), Failure> {
        self.check_never()?;
        for id in self.members() {
            self.check_hash(id)?;
            let all = RangeRequest {
                key: "a".into(),
                range_end: "z".into(),
                ..RangeRequest::default()
            };
            let model = self.ghost.machines.model();
            let expected = (model.revision(), model.read(&all, model.revision()));
            let process = self.hosts[&id].process.as_ref().expect("converged");
            let found = process
                .kv
                .range(&all)
                .map(|response| (response.revision, response.kvs));
            if found != Ok(expected) {
                return Err(Failure::Correctness(format!(
                    "S14: the store of n{id} is not the model's"
                )));
            }
        }
        history::check(&self.calls, self.ghost.machines.model())?;
        let missing = self.coverage.missing(&self.params.planned());
        if !missing.is_empty() {
            return Err(Failure::Liveness(format!(
                "planned, but never happened: {missing:?}"
            )));
        }
        Ok(())
    }
}

fn describe(host: &Host) -> String {
    match &host.process {
        None => format!("n{} is down", host.id),
        Some(process) => {
            let raft = process.node.raft();
            let (term, commit, last, applied) =
                (raft.term(), raft.commit(), raft.last(), process.kv.applied());
            format!(
                "n{} {:?} t{term}, log {last}, commit {commit}, applied {applied}",
                host.id,
                raft.role()
            )
        }
    }
}
