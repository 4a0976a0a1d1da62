//! A small cluster for tests: real nodes, and around each the simplest driver there can be, with a log, a state machine and a
//! staging file in memory. Messages travel through the wire encoding, one at a time, in order; the clock moves only when
//! nothing else can happen. Faults are asked for by the test; only `tests/chaos.rs` draws them.
#![allow(dead_code, reason = "each test file uses a part")]

mod disk;
mod effects;
mod host;
mod machine;
mod random;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use quorate_base::{Index, NodeId};
use quorate_node::event::Nanos;
use quorate_node::{Boot, BootError, ChangeFailure, Event, Failure, Node, NodeConfig, PeerMessage};
use quorate_raft::{Change, Config, RoleKind};

pub use disk::LogDisk;
pub use host::Host;
pub use machine::Machine;
pub use random::Random;

/// How long requests may take.
pub const PATIENCE: Nanos = 10_000_000_000;

/// Decides about a message by sender, receiver and content.
pub type Look = Box<dyn FnMut(NodeId, NodeId, &PeerMessage) -> bool>;

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Applied here, as the entry of this index.
    Applied(Index),
    /// A read was let through when so many commands were applied.
    Read(usize),
    /// It failed.
    Failed(Failure),
    /// A membership change ended.
    Changed(Result<Index, ChangeFailure>),
}

/// The members, the network between them, and all answers.
pub struct Cluster {
    pub hosts: BTreeMap<NodeId, Host>,
    pub now: Nanos,
    config: Config,
    pub settings: fn(&mut NodeConfig),
    net: VecDeque<(NodeId, NodeId, PeerMessage)>,
    cut: BTreeSet<(NodeId, NodeId)>,
    /// Looks at each message: `false` loses it on the way.
    pub filter: Look,
    /// Looks at each message: `false` refuses to send it, and says so.
    pub queue: Look,
    pub outcomes: BTreeMap<u64, Outcome>,
    last_token: u64,
    /// Messages delivered so far.
    pub delivered: usize,
    /// If set, messages change places and are doubled now and then.
    pub disorder: Option<Random>,
}

impl Cluster {
    /// `n` voters with ids from 1, started and quiet, without a leader yet.
    pub fn new(n: u64, settings: fn(&mut NodeConfig)) -> Cluster {
        let config = Config::of((1..=n).map(NodeId));
        let mut cluster = Cluster {
            hosts: BTreeMap::new(),
            now: 1,
            config,
            settings,
            net: VecDeque::new(),
            cut: BTreeSet::new(),
            filter: Box::new(|_, _, _| true),
            queue: Box::new(|_, _, _| true),
            outcomes: BTreeMap::new(),
            last_token: 0,
            delivered: 0,
            disorder: None,
        };
        for id in 1..=n {
            cluster.hosts.insert(NodeId(id), Host::empty());
            cluster.start(id);
        }
        cluster
    }

    /// Starts member `id` with what its disk holds.
    pub fn start(&mut self, id: u64) {
        self.try_start(id).expect("the disk is sound");
    }

    /// Like [`Cluster::start`], for disks that are not.
    pub fn try_start(&mut self, id: u64) -> Result<(), BootError> {
        let (initial, settings) = (self.config.clone(), self.settings);
        let host = self.hosts.get_mut(&NodeId(id)).expect("a member");
        host.boots += 1;
        let mut config = NodeConfig::new(NodeId(id), id * 1_000_000 + host.boots, id * 77 + host.boots);
        settings(&mut config);
        let mut boot = Boot::new();
        host.log
            .records()
            .into_iter()
            .for_each(|record| boot.record(record));
        host.machine = host.saved.clone();
        let (node, ops) = boot.finish(
            config,
            (!host.joins).then_some(initial),
            host.machine.applied,
            host.machine.applied.index,
        )?;
        host.node = Some(node);
        self.step(id, Event::Wake);
        self.machine_ops(id, ops);
        for peer in self.others(id) {
            self.step(id, Event::LinkUp(peer));
            self.step(peer.0, Event::LinkUp(NodeId(id)));
        }
        Ok(())
    }

    /// Ends member `id`: all that was not durable is gone.
    pub fn crash(&mut self, id: u64) {
        let me = NodeId(id);
        let host = self.hosts.get_mut(&me).expect("a member");
        host.node = None;
        host.stalled.clear();
        host.views.clear();
        host.waiting_restore = None;
        host.open_stalled = false;
        host.waiting_open.clear();
        host.waiting_stage.clear();
        (host.staging_stalled, host.staging_ops) = (false, usize::MAX);
        host.machine = host.saved.clone();
        if let Some(staging) = &mut host.staging {
            staging.bytes.truncate(staging.synced);
            (staging.stream, staging.checked) = (None, 0);
        }
        (host.disk_stalled, host.reads_stalled, host.restore_stalled) = (false, false, false);
        self.break_link(id);
    }

    fn others(&self, id: u64) -> Vec<NodeId> {
        self.hosts
            .keys()
            .copied()
            .filter(|peer| *peer != NodeId(id))
            .collect()
    }

    /// Breaks all connections of `id`: what is on its way is lost, and both sides know.
    pub fn break_link(&mut self, id: u64) {
        let me = NodeId(id);
        self.net.retain(|(from, to, _)| *from != me && *to != me);
        for peer in self.others(id) {
            self.step(peer.0, Event::LinkDown(me));
            self.step(id, Event::LinkDown(peer));
        }
    }

    /// Cuts `id` off in silence.
    pub fn isolate(&mut self, id: u64) {
        for peer in self.others(id) {
            self.cut.insert((NodeId(id), peer));
            self.cut.insert((peer, NodeId(id)));
        }
    }

    /// Ends all cuts.
    pub fn heal(&mut self) {
        self.cut.clear();
    }

    /// Steps a node, if it runs.
    pub fn step(&mut self, id: u64, event: Event) {
        let now = self.now;
        if let Some(node) = &mut self.host(id).node {
            node.step(now, event);
        }
    }

    pub fn host(&mut self, id: u64) -> &mut Host {
        self.hosts.get_mut(&NodeId(id)).expect("a member")
    }

    pub fn node(&self, id: u64) -> &Node {
        self.hosts[&NodeId(id)].node.as_ref().expect("the member runs")
    }

    /// The leader of the highest term, if there is one.
    pub fn leader(&self) -> Option<u64> {
        let leading = |host: &&Host| {
            host.node
                .as_ref()
                .is_some_and(|node| node.raft().role() == RoleKind::Leader)
        };
        let nodes = self
            .hosts
            .values()
            .filter(leading)
            .filter_map(|host| host.node.as_ref());
        nodes
            .max_by_key(|node| node.raft().term())
            .map(|node| node.raft().id().0)
    }

    /// Waits for a leader that everybody running follows.
    pub fn elect(&mut self) -> u64 {
        self.run_until("a leader that all follow", |cluster| {
            let leader = cluster.leader().map(NodeId);
            let mut nodes = cluster.hosts.values().filter_map(|host| host.node.as_ref());
            leader.is_some() && nodes.all(|node| node.raft().leader() == leader)
        });
        self.leader().expect("just seen")
    }

    /// Some member that does not lead.
    pub fn follower(&self) -> u64 {
        let leader = self.leader();
        let running = |id: &u64| self.hosts[&NodeId(*id)].node.is_some();
        self.hosts
            .keys()
            .map(|id| id.0)
            .find(|id| Some(*id) != leader && running(id))
            .expect("a follower runs")
    }

    /// Proposes a command at `id`, and returns its token.
    pub fn change(&mut self, id: u64, changes: &[Change], force: bool) -> u64 {
        self.last_token += 1;
        let (token, deadline) = (self.last_token, self.now + PATIENCE);
        let changes = changes.to_vec();
        self.step(
            id,
            Event::Reconfigure {
                token,
                changes,
                force,
                deadline,
            },
        );
        token
    }

    /// A new member with an empty disk, which is told nothing.
    pub fn join(&mut self, id: u64) {
        let host = Host {
            joins: true,
            ..Host::empty()
        };
        self.hosts.insert(NodeId(id), host);
        self.start(id);
    }

    pub fn propose(&mut self, id: u64, command: impl Into<Bytes>) -> u64 {
        self.last_token += 1;
        let (token, deadline) = (self.last_token, self.now + PATIENCE);
        self.step(
            id,
            Event::Propose {
                token,
                command: command.into(),
                deadline,
            },
        );
        token
    }

    /// Proposes and waits until it is applied there.
    pub fn write(&mut self, id: u64, command: impl Into<Bytes>) {
        let token = self.propose(id, command);
        assert!(
            matches!(self.outcome(token), Outcome::Applied(_)),
            "{:?}",
            self.outcomes.get(&token)
        );
    }

    /// Reads at `id`, and returns the token.
    pub fn read(&mut self, id: u64, forward: bool) -> u64 {
        self.last_token += 1;
        let (token, deadline) = (self.last_token, self.now + PATIENCE);
        self.step(
            id,
            Event::Read {
                token,
                forward,
                deadline,
            },
        );
        token
    }

    /// Waits for a request's outcome.
    pub fn outcome(&mut self, token: u64) -> Outcome {
        self.run_until("the request's outcome", |cluster| {
            cluster.outcomes.contains_key(&token)
        });
        self.outcomes[&token].clone()
    }

    /// Waits until all running machines have applied the same and there is nothing more to apply.
    pub fn converge(&mut self) {
        self.run_until("equal machines", |cluster| {
            let nodes: Vec<_> = cluster
                .hosts
                .values()
                .filter(|host| host.node.is_some())
                .collect();
            let last = nodes
                .iter()
                .map(|host| host.node.as_ref().unwrap().raft().last())
                .max()
                .unwrap();
            nodes.iter().all(|host| host.machine.applied == last)
        });
        let mut machines = self
            .hosts
            .values()
            .filter(|host| host.node.is_some())
            .map(|host| &host.machine);
        let first = machines.next().expect("one runs");
        assert!(
            machines.all(|machine| machine == first),
            "the same commands give the same state"
        );
    }

    /// Makes the machine of `id` durable as it is.
    pub fn flush(&mut self, id: u64) {
        let host = self.host(id);
        host.saved = host.machine.clone();
        let index = host.saved.applied.index;
        self.step(id, Event::MachineDurable(index));
    }

    /// Lets things happen until `wanted`, moving the clock whenever nothing else does.
    pub fn run_until(&mut self, what: &str, wanted: impl Fn(&Cluster) -> bool) {
        let end = self.now + 4 * PATIENCE;
        loop {
            self.settle();
            if wanted(self) {
                return;
            }
            let nodes = self.hosts.values().filter_map(|host| host.node.as_ref());
            let next = nodes
                .filter_map(Node::next_deadline)
                .min()
                .expect("some timer is always armed");
            assert!(next < end, "{what} never came");
            self.now = self.now.max(next);
            self.wake();
        }
    }

    /// Lets `duration` pass.
    pub fn pass(&mut self, duration: Nanos) {
        let end = self.now + duration;
        self.run_until("the end of a pause", |cluster| {
            let nodes = cluster.hosts.values().filter_map(|host| host.node.as_ref());
            nodes
                .filter_map(Node::next_deadline)
                .min()
                .is_none_or(|next| next > end)
        });
        self.now = end;
    }

    fn wake(&mut self) {
        let ids: Vec<_> = self.hosts.keys().copied().collect();
        for id in ids {
            let due = |node: &Node| node.next_deadline().is_some_and(|at| at <= self.now);
            if self.hosts[&id].node.as_ref().is_some_and(due) {
                self.step(id.0, Event::Wake);
            }
        }
    }

    /// Carries out effects and delivers messages until all is quiet.
    pub fn settle(&mut self) {
        while self.advance() {}
    }

    /// Carries out all effects and delivers one message. Returns whether there was anything to do.
    pub fn advance(&mut self) -> bool {
        let mut quiet = true;
        let ids: Vec<_> = self.hosts.keys().copied().collect();
        for id in ids {
            quiet &= !self.carry_out(id.0);
        }
        match self.next_message() {
            Some((from, to, message)) => {
                self.delivered += 1;
                self.step(to.0, Event::Peer { from, message });
                true
            }
            None => !quiet,
        }
    }

    fn next_message(&mut self) -> Option<(NodeId, NodeId, PeerMessage)> {
        let Some(random) = &mut self.disorder else {
            return self.net.pop_front();
        };
        if self.net.is_empty() {
            return None;
        }
        let at = random.below(self.net.len().min(6) as u64) as usize;
        let message = self.net.remove(at)?;
        if random.below(20) == 0 {
            self.net.push_back(message.clone());
        }
        Some(message)
    }

    /// Views of state machines that are open.
    pub fn open_views(&self) -> usize {
        self.hosts.values().map(|host| host.views.len()).sum()
    }
}
