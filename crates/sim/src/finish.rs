//! The end of a run: everything is healed, and then what must become true has to become true in bounded time. After that the
//! nodes are compared and the clients' history is judged.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_base::{NodeId, StateMachine};
use quorate_kv::{Command, PutRequest, RangeRequest};
use quorate_raft::RoleKind;

use crate::coverage::Coverage;
use crate::failure::Failure;
use crate::history::{self, Action, Call, Outcome};
use crate::model::Change;
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
        Ok(()) => Ok(Report {
            trace_hash: world.trace.hash(),
            elapsed: world.now,
            changes: world.ghost.machines.model().changes().clone(),
            elections: world.ghost.elections(),
            coverage: world.coverage,
            calls: world.calls,
            params: world.params,
        }),
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
        self.heal();
        self.await_leader()?;
        self.await_answers()?;
        self.last_requests()?;
        self.await_convergence()?;
        self.judge()
    }

    /// All faults end, all nodes start, and the clients ask no more.
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
            if self.hosts[&id].process.is_none() {
                self.after(0, Happening::Start(id));
            }
        }
    }

    /// Lets things happen until `done`, for at most `time`.
    fn until(&mut self, time: Nanos, what: &str, done: impl Fn(&World) -> bool) -> Result<(), Failure> {
        let end = self.now + time;
        while !done(self) {
            if !self.step(end)? {
                let states: Vec<String> = self.hosts.values().map(describe).collect();
                return Err(Failure::Liveness(format!(
                    "no {what} within {time} ns: {}",
                    states.join("; ")
                )));
            }
        }
        Ok(())
    }

    /// One leader, followed by everyone.
    fn is_led(&self) -> bool {
        let rafts: Vec<_> = self
            .hosts
            .values()
            .filter_map(|host| Some(host.process.as_ref()?.node.raft()))
            .collect();
        let Some(leader) = rafts.iter().find(|raft| raft.role() == RoleKind::Leader) else {
            return false;
        };
        rafts.len() == self.hosts.len()
            && rafts
                .iter()
                .all(|raft| raft.term() == leader.term() && raft.leader() == Some(leader.id()))
            && leader.log().term_at(leader.commit()) == Some(leader.term())
    }

    fn await_leader(&mut self) -> Result<(), Failure> {
        self.until(
            ELECTIONS * self.params.election + 2 * SEC,
            "leader that everyone follows",
            World::is_led,
        )
    }

    fn await_answers(&mut self) -> Result<(), Failure> {
        self.until(10 * SEC, "answers to all requests", |world| {
            world.pending.is_empty()
        })
    }

    /// Every node takes a write and a linearizable read now.
    fn last_requests(&mut self) -> Result<(), Failure> {
        let ids: Vec<NodeId> = self.hosts.keys().copied().collect();
        for id in ids {
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
            world.hosts.values().all(|host| {
                host.process
                    .as_ref()
                    .is_some_and(|process| process.kv.applied().index == last)
            })
        })
    }

    /// All nodes have one state, which is the model's, and the history is one that clients may see.
    fn judge(&mut self) -> Result<(), Failure> {
        let ids: Vec<NodeId> = self.hosts.keys().copied().collect();
        for id in ids {
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

fn describe(host: &crate::host::Host) -> String {
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
