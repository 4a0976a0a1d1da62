//! Clusters whose faults are chosen by hand, for tests with exact expectations: no random faults and no clients of their own, but the
//! same machines, links, disks and checks as in every run.

use std::collections::BTreeSet;

use bytes::Bytes;
use quorate_base::{Index, NodeId, Term};
use quorate_kv::{Command, PutRequest, RangeRequest};
use quorate_node::event::{ChangeFailure, Event};
use quorate_node::handshake::FEATURE_LEVEL;
use quorate_raft::{Change, Config, Priority, Promote, RoleKind};

use crate::coverage::Kind;
use crate::failure::Failure;
use crate::finish::Report;
use crate::history::{Action, Outcome};
use crate::net::Pair;
use crate::operator::about;
use crate::params::{MS, NetParams, Params, SEC};
use crate::plan::{Fault, Strike, When};
use crate::trace::{Nanos, View};
use crate::world::World;

/// A cluster under control.
pub struct Scenario {
    pub(crate) world: World,
}

impl Scenario {
    /// A healthy cluster of so many nodes: links of about a millisecond that lose nothing, quick disks, an election timeout of a second.
    pub fn new(nodes: u64, seed: u64) -> Scenario {
        Scenario::of(Params {
            nodes,
            heartbeat: 100 * MS,
            election: SEC,
            drift: vec![0; nodes as usize],
            net: NetParams {
                stream: true,
                min_delay: 200 * crate::params::US,
                max_delay: 2 * MS,
                slow: 0,
                drop: 0,
                duplicate: 0,
                bytes: true,
                garble: 0,
            },
            min_disk: MS / 2,
            max_disk: 2 * MS,
            clients: 1,
            watch_clients: 0,
            clock_error: 20_000,
            churn: None,
            leases: false,
            priorities: false,
            features: FEATURE_LEVEL,
            plan: Vec::new(),
            operations: 0,
            ..Params::draw(seed)
        })
    }

    /// A cluster of these parameters, but without clients of its own.
    pub fn of(params: Params) -> Scenario {
        let view = match std::env::var_os("QUORATE_TRACE") {
            Some(_) => View::Lines,
            None => View::Hash,
        };
        let mut world = World::new(params, view);
        world.silent = true;
        Scenario { world }
    }

    /// A healthy cluster as [`new`](Scenario::new) makes it, but for these changes of its parameters.
    pub fn with(nodes: u64, seed: u64, change: impl FnOnce(&mut Params)) -> Scenario {
        let mut params = Scenario::new(nodes, seed).world.params.clone();
        change(&mut params);
        Scenario::of(params)
    }

    /// How gladly a node leads; before it has started.
    pub fn prefer(&mut self, id: NodeId, priority: Priority) {
        self.world.host(id).priority = priority;
    }

    /// Asks a leader to hand over.
    pub fn transfer(&mut self, from: NodeId, to: NodeId) -> Result<(), Failure> {
        self.world.step_node(from, Event::Transfer(Some(to)))
    }

    /// The last committed configuration.
    pub fn config(&self) -> &Config {
        self.world.ghost.commits().config()
    }

    /// A new member for [`change`](Scenario::change); its machine comes up when the change is done.
    pub fn newcomer(&mut self, promote: Promote) -> (NodeId, Change) {
        let id = self.world.operator.new_member();
        let about = about(id);
        (id, Change::AddLearner { id, promote, about })
    }

    /// Asks `at` for a membership change, and waits until it has ended.
    pub fn change(
        &mut self,
        at: NodeId,
        changes: Vec<Change>,
        force: bool,
    ) -> Result<Result<Index, ChangeFailure>, Failure> {
        self.ask_change(at, changes, force);
        self.until(60 * SEC, "end of a change", |scenario| {
            scenario.changed().is_some()
        })?;
        Ok(self.changed().expect("just seen"))
    }

    /// Asks `at` for a membership change.
    pub fn ask_change(&mut self, at: NodeId, changes: Vec<Change>, force: bool) {
        self.world.reconfigure(at, changes, force);
    }

    /// How the last change asked for has ended.
    pub fn changed(&self) -> Option<Result<Index, ChangeFailure>> {
        self.world.operator.last
    }

    /// Whether a node's process runs.
    pub fn is_running(&self, id: NodeId) -> bool {
        let host = self.world.hosts.get(&id);
        host.is_some_and(|host| host.process.is_some())
    }

    /// Replaces a member's machine by one with an empty disk.
    pub fn wipe(&mut self, id: NodeId) {
        self.world.wipe(id);
    }

    /// Puts the real machine back.
    pub fn unwipe(&mut self) -> Result<(), Failure> {
        self.world.unmask()
    }

    /// From now on nobody looks at what peers have shown before.
    pub fn go_blind(&mut self) {
        self.world.blind = true;
    }

    /// From now on leaders answer renewals of leases without having their leadership confirmed.
    pub fn go_hasty(&mut self) {
        self.world.hasty = true;
    }

    /// Takes the power from a node, flips bits of its log and starts it again.
    pub fn rot(&mut self, id: NodeId, flips: u64) {
        let plan = &mut self.world.params.plan;
        plan.push(Strike {
            at: self.world.now,
            when: When::Now,
            fault: Fault::BitRot { flips },
        });
        let number = plan.len() - 1;
        self.world.rot(number, id, flips);
    }

    /// How often something was met.
    pub fn met(&self, kind: Kind) -> u64 {
        self.world.coverage.count(kind)
    }

    /// The election timeout T.
    pub fn election(&self) -> Nanos {
        self.world.params.election
    }

    /// Virtual time.
    pub fn now(&self) -> Nanos {
        self.world.now
    }

    /// Lets things happen for `time`.
    pub fn run(&mut self, time: Nanos) -> Result<(), Failure> {
        let end = self.world.now + time;
        while self.world.step(end)? {}
        Ok(())
    }

    /// Lets things happen until `done`, for at most `time`.
    pub fn until(
        &mut self,
        time: Nanos,
        what: &str,
        done: impl Fn(&Scenario) -> bool,
    ) -> Result<(), Failure> {
        let end = self.world.now + time;
        while !done(self) {
            if !self.world.step(end)? {
                return Err(Failure::Liveness(format!("no {what} within {time} ns")));
            }
        }
        Ok(())
    }

    /// Waits for a leader that all running members follow, and returns it.
    pub fn elect(&mut self) -> Result<NodeId, Failure> {
        self.until(20 * self.election(), "leader", |scenario| scenario.world.is_led())?;
        Ok(self.leader().expect("just elected"))
    }

    /// The running leader of the highest term.
    pub fn leader(&self) -> Option<NodeId> {
        self.world.leader()
    }

    /// Whether a node runs and leads.
    pub fn leads(&self, id: NodeId) -> bool {
        let process = self.world.hosts[&id].process.as_ref();
        process.is_some_and(|process| process.node.raft().role() == RoleKind::Leader)
    }

    /// A running node's term.
    pub fn term(&self, id: NodeId) -> Term {
        let process = self.world.hosts[&id].process.as_ref();
        process.expect("it is running").node.raft().term()
    }

    /// The highest term of a running node.
    pub fn highest_term(&self) -> Term {
        let running = self.world.running();
        running
            .into_iter()
            .map(|id| self.term(id))
            .max()
            .unwrap_or_default()
    }

    /// All nodes there are.
    pub fn nodes(&self) -> Vec<NodeId> {
        self.world.hosts.keys().copied().collect()
    }

    /// Cuts these links and mends all others. Connections stand still until somebody gives them up.
    pub fn cut(&mut self, severed: &BTreeSet<Pair>) {
        self.world.net.cut(|pair| severed.contains(&pair));
    }

    /// Mends the network.
    pub fn mend(&mut self) {
        self.world.net.cut(|_| false);
    }

    /// Operations of this node's disk do not return until [`free_disk`](Scenario::free_disk).
    pub fn stall_disk(&mut self, id: NodeId) {
        self.world.stall_disk(id, 3600 * SEC);
    }

    /// The node's disk returns again. What it was asked for last is done late.
    pub fn free_disk(&mut self, id: NodeId) {
        self.world.free_disk(id);
    }

    /// Takes the power from a node for a while.
    pub fn crash(&mut self, id: NodeId, down: Nanos) {
        self.world.end(id, true, down);
    }

    /// Kills a node's process for a while; its machine goes on, and says that nobody listens there.
    pub fn kill(&mut self, id: NodeId, down: Nanos) {
        self.world.end(id, false, down);
    }

    /// Stops a node's process for a while. What comes meanwhile waits for it.
    pub fn pause(&mut self, id: NodeId, lasts: Nanos) {
        self.world.pause(id, lasts);
    }

    /// Tells a node that the process of another is gone, true or not.
    pub fn hint(&mut self, id: NodeId, gone: NodeId) -> Result<(), Failure> {
        self.world.step_node(id, Event::Gone(gone))
    }

    /// Asks `id` for a write. Returns the number of the call.
    pub fn write(&mut self, id: NodeId) -> usize {
        let call = self.world.calls.len();
        let put = PutRequest {
            key: Bytes::from(format!("key{call:02}")),
            value: Bytes::from(format!("v{call}")),
            ..PutRequest::default()
        };
        self.world.ask(0, id, Action::Write(Command::Put(put)));
        call
    }

    /// Asks `id` for a linearizable read of everything. Returns the number of the call.
    pub fn read(&mut self, id: NodeId) -> usize {
        let call = self.world.calls.len();
        let request = RangeRequest {
            key: "key".into(),
            range_end: "kez".into(),
            ..RangeRequest::default()
        };
        let read = Action::Read {
            request,
            serializable: false,
        };
        self.world.ask(0, id, read);
        call
    }

    /// Asks `id` for a lease of so many seconds. Returns the number of the call.
    pub fn grant(&mut self, id: NodeId, lease: i64, ttl: i64) -> usize {
        let call = self.world.calls.len();
        let grant = Command::grant(FEATURE_LEVEL, lease, ttl);
        self.world.ask(0, id, Action::Write(grant));
        call
    }

    /// Asks `id` to renew a lease, and waits long for the answer. Returns the number of the call.
    pub fn renew(&mut self, id: NodeId, lease: i64) -> usize {
        let call = self.world.calls.len();
        self.world.clients[0].become_patient();
        self.world.ask(0, id, Action::Renew { lease });
        call
    }

    /// What became of a call; `None` while it is under way.
    pub fn outcome(&self, call: usize) -> Option<&Outcome> {
        let call = &self.world.calls[call];
        (call.returned != u64::MAX).then_some(&call.outcome)
    }

    /// Whether a call was carried out.
    pub fn is_done(&self, call: usize) -> bool {
        matches!(
            self.outcome(call),
            Some(Outcome::Written(Ok(_)) | Outcome::Read(Ok(_)))
        )
    }

    /// A write at `id` succeeds within `time`.
    pub fn must_write(&mut self, id: NodeId, time: Nanos) -> Result<(), Failure> {
        let call = self.write(id);
        self.until(time, "answer to a write", |scenario| scenario.is_done(call))
    }

    /// Heals everything, demands what every run must come to, and judges the history.
    pub fn finish(mut self) -> Result<Report, Failure> {
        self.world.conclude()?;
        Ok(self.world.report())
    }
}
