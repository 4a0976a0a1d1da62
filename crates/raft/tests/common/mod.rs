//! A cluster of cores in one thread, for all tests of this crate: the network is a list of messages, each disk a queue of
//! writes, each state machine a queue of work, and nothing moves unless the test says so. After every step and every drain
//! the invariants are checked, those of the node and those of the whole cluster (`ghost`).

// Each test binary uses its own part of the harness.
#![allow(dead_code)]

pub mod clock;
pub mod disk;
pub mod explore;
pub mod ghost;
pub mod inputs;
pub mod lives;
pub mod members;
pub mod network;
pub mod show;
mod storage;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use quorate_base::{Index, LogId, NodeId, Term};
use quorate_raft::{
    Arm, Body, ChangeEnd, Config, Effects, EntryShape, Input, Limits, Message, Placed, Priority, Raft, Range,
    Refused, Restored, RoleKind, SnapMeta, Timer, invariants,
};

use clock::Clock;
use disk::{Entry, FilledWrite, Image, Machine, Payload};
pub use disk::{configuration, noop};
use ghost::Ghost;
pub use network::{Parcel, What};

/// Work for a state machine.
#[derive(Clone, Debug)]
pub enum Work {
    Apply(Vec<(LogId, Payload)>),
    Restore(SnapMeta),
}

/// One node and what surrounds it.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// `None` while it is down.
    pub raft: Option<Raft>,
    pub image: Image,
    /// Handed out and not durable yet.
    pub writes: VecDeque<FilledWrite>,
    /// The payloads of the log, by index, with the term they belong to.
    pub bodies: BTreeMap<Index, (Term, Payload)>,
    pub machine: Machine,
    pub work: VecDeque<Work>,
    /// The timers that run.
    pub timers: BTreeSet<Timer>,
    pub reads: BTreeMap<u64, Result<Index, Refused>>,
    pub placed: BTreeMap<u64, LogId>,
    pub refused: BTreeMap<u64, Refused>,
    /// How the changes of the membership ended that were asked for here.
    pub changed: BTreeMap<u64, ChangeEnd>,
    /// How gladly it leads, and whether lease reads are on, from its next start on.
    pub priority: Priority,
    pub leases: bool,
    pub clock: Clock,
    /// The disk keeps writes back until the test lets them through.
    pub slow_disk: bool,
    starts: u64,
    /// How often its machine was replaced by a snapshot, and its log cut back, in all its runs.
    pub restored: u64,
    pub truncated: u64,
}

/// The cluster.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    pub nodes: BTreeMap<NodeId, Node>,
    pub network: VecDeque<Parcel>,
    /// Links, from and to, that lose everything.
    pub cut: BTreeSet<(NodeId, NodeId)>,
    pub ghost: Ghost,
    pub limits: Limits,
    /// What happened, readably, if wanted.
    pub trace: Option<Vec<String>>,
    /// Print it as it happens.
    pub print: bool,
    next_payload: Payload,
    next_change: u64,
}

/// A node's id.
pub fn n(id: u64) -> NodeId {
    NodeId(id)
}

/// An index.
pub fn i(index: u64) -> Index {
    Index(index)
}

/// The entry of `term` at `index`.
pub fn at(term: u64, index: u64) -> LogId {
    LogId::new(term, index)
}

impl Cluster {
    /// Nodes 1 to `count`, all voters, with empty logs.
    pub fn new(count: u64) -> Cluster {
        Cluster::of(Config::of((1..=count).map(NodeId)), Limits::default())
    }

    /// All members of `config`, with empty logs.
    pub fn of(config: Config, limits: Limits) -> Cluster {
        let mut cluster = Cluster {
            limits,
            ..Cluster::default()
        };
        cluster.ghost.founded(config.clone());
        for id in config.members() {
            cluster.add(id, &config, &[], 0);
        }
        cluster
    }

    /// Nodes 1.. whose logs hold entries of these terms; the last one's term, or the given one if higher, is current.
    pub fn with_logs(logs: &[&[u64]], term: u64) -> Cluster {
        let config = Config::of((1..=logs.len() as u64).map(NodeId));
        let mut cluster = Cluster::default();
        cluster.ghost.founded(config.clone());
        for (id, terms) in (1..).zip(logs) {
            cluster.add(NodeId(id), &config, terms, term);
        }
        cluster
    }

    /// Adds a node that has just started with a log of entries of these terms, none of them known to be committed.
    pub fn add(&mut self, id: NodeId, config: &Config, terms: &[u64], term: u64) {
        let mut image = Image::default();
        image.base.config = config.clone();
        image.hard.term = Term(terms.last().copied().unwrap_or(0).max(term));
        for (index, term) in (1..).zip(terms) {
            let shape = EntryShape {
                term: Term(*term),
                size: 10,
                config: None,
            };
            let payload = 1 << 62 | term << 32 | index;
            image.entries.push(Entry { shape, payload });
        }
        self.nodes.insert(
            id,
            Node {
                image,
                ..Node::default()
            },
        );
        self.start(id);
    }

    /// Starts a node from its disk.
    pub fn start(&mut self, id: NodeId) {
        let limits = self.limits.clone();
        let node = self.nodes.get_mut(&id).expect("a node");
        assert!(node.raft.is_none(), "n{id} is running");
        node.starts += 1;
        let restored = Restored {
            priority: node.priority,
            leases: node.leases,
            ..node.image.restored(id, node.starts << 32, limits)
        };
        node.machine = node.image.machine;
        node.bodies.clear();
        for index in node.image.base.last.index.0 + 1..=node.image.last_index().0 {
            let entry = node.image.entry(Index(index)).expect("within the log");
            node.bodies
                .insert(Index(index), (entry.shape.term, entry.payload));
        }
        let raft = Raft::new(restored);
        invariants::check(&raft);
        let line = format!(
            "n{id} starts in term {}, log ends {}, commit {}",
            raft.term(),
            raft.last(),
            raft.commit()
        );
        node.raft = Some(raft);
        self.show(line);
        let node = &self.nodes[&id];
        let bodies: Vec<_> = node.bodies.iter().map(|(index, body)| (*index, *body)).collect();
        for (index, body) in bodies {
            self.placed(id, index, body);
        }
    }

    /// The node crashes: all is lost but its durable image and the first `survive` of the writes on their way.
    pub fn crash(&mut self, id: NodeId, survive: usize) {
        for _ in 0..survive.min(self.nodes[&id].writes.len()) {
            self.write(id);
        }
        let node = self.nodes.get_mut(&id).expect("a node");
        let old = std::mem::take(node);
        node.image = old.image;
        node.starts = old.starts;
        node.slow_disk = old.slow_disk;
        (node.priority, node.leases) = (old.priority, old.leases);
        node.clock = old.clock.after_crash();
        node.restored = old.restored;
        node.truncated = old.truncated;
        self.ghost.crashed(id);
    }

    /// Crash and restart.
    pub fn restart(&mut self, id: NodeId) {
        self.crash(id, 0);
        self.start(id);
    }

    /// The core of a running node.
    pub fn raft(&self, id: NodeId) -> &Raft {
        self.nodes[&id].raft.as_ref().expect("the node runs")
    }

    pub fn node(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(&id).expect("a node")
    }

    /// Whether the node runs.
    pub fn is_up(&self, id: NodeId) -> bool {
        self.nodes.get(&id).is_some_and(|node| node.raft.is_some())
    }

    pub fn ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    /// The only leader of the highest term, if there is one.
    pub fn leader(&self) -> Option<NodeId> {
        let rafts = self.nodes.values().filter_map(|node| node.raft.as_ref());
        let leader = rafts
            .filter(|raft| raft.role() == RoleKind::Leader)
            .max_by_key(|raft| raft.term());
        leader.map(Raft::id)
    }

    /// The terms of the entries of a node's log after its base.
    pub fn terms(&self, id: NodeId) -> Vec<u64> {
        let log = self.raft(id).log();
        (log.first().0..=log.last_index().0)
            .map(|index| log.term_at(Index(index)).expect("within the log").0)
            .collect()
    }

    /// Steps one input, with all checks.
    pub fn step(&mut self, id: NodeId, input: Input) {
        let before = self.act(id, |raft| raft.step(input));
        self.observe(id, &before.0);
        self.show_change(id, &before.0);
    }

    /// Does something to a node's core, and checks the step. Returns the node before.
    fn act<R>(&mut self, id: NodeId, act: impl FnOnce(&mut Raft) -> R) -> (Raft, R) {
        let raft = self.node(id).raft.as_mut().expect("the node runs");
        let before = raft.clone();
        let result = act(raft);
        invariants::check(raft);
        invariants::check_delta(&before, raft);
        (before, result)
    }

    /// Steps a message that nobody may ever have sent.
    pub fn message(&mut self, from: NodeId, to: NodeId, term: u64, body: Body) {
        let payloads = match &body {
            Body::Append { prev, entries, .. } => {
                let ids = (prev.index.0 + 1..).zip(entries).map(|(index, entry)| LogId {
                    term: entry.term,
                    index: Index(index),
                });
                ids.map(|id| self.ghost.payload(id)).collect()
            }
            _ => Vec::new(),
        };
        self.receive(
            from,
            to,
            Message {
                term: Term(term),
                body,
            },
            &payloads,
        );
    }

    fn receive(&mut self, from: NodeId, to: NodeId, message: Message, payloads: &[Payload]) {
        let before = self
            .act(to, |raft| {
                raft.step(Input::Message {
                    from,
                    message: message.clone(),
                })
            })
            .0;
        if let Body::Append { prev, entries, .. } = &message.body {
            for ((index, entry), payload) in (prev.index.0 + 1..).zip(entries).zip(payloads) {
                if self.raft(to).log().term_at(Index(index)) == Some(entry.term) {
                    self.placed(to, Index(index), (entry.term, *payload));
                }
            }
        }
        self.observe(to, &before);
        self.show_change(to, &before);
    }

    fn placed(&mut self, id: NodeId, index: Index, body: (Term, Payload)) {
        let log = self.raft(id).log();
        if index > log.base().last.index {
            let before = log.term_at(index.prev());
            self.ghost.placed(LogId { term: body.0, index }, body.1, before);
            self.node(id).bodies.insert(index, body);
        }
    }

    /// A timer runs out, if it runs.
    pub fn fire(&mut self, id: NodeId, timer: Timer) {
        self.drain(id);
        if self.node(id).timers.remove(&timer) {
            self.step(id, Input::Fired(timer));
        }
    }

    /// A client's command of ten bytes. Its token is also its payload.
    pub fn propose(&mut self, id: NodeId) -> u64 {
        self.next_payload += 1;
        let token = self.next_payload;
        self.step(id, Input::Propose { token, size: 10 });
        token
    }

    /// A client's read, forwarded where needed.
    pub fn read(&mut self, id: NodeId, token: u64) {
        self.ghost.read_begun(id, token);
        self.step(id, Input::Read { token, forward: true });
    }

    /// Takes the effects of a node: messages go to the network, writes to the disk's queue, entries to the machine's.
    pub fn drain(&mut self, id: NodeId) -> bool {
        let (before, effects) = self.act(id, Raft::take_effects);
        let quiet = effects == Effects::default();
        for placed in &effects.placed {
            let (at, payload) = match placed {
                Placed::Noop { at } => (*at, noop(at.term)),
                Placed::Config { at, .. } => (*at, configuration(*at)),
                Placed::Proposal { token, at } => {
                    self.node(id).placed.insert(*token, *at);
                    (*at, *token)
                }
            };
            if self.raft(id).log().contains(at) {
                self.placed(id, at.index, (at.term, payload));
            }
        }
        self.observe(id, &before);
        self.show_change(id, &before);
        self.show_effects(id, &effects);
        for outgoing in effects.send {
            self.send(id, outgoing);
        }
        if let Some(write) = effects.write {
            let entries = write.append.map(|range| self.fill(id, range)).unwrap_or_default();
            self.node(id).writes.push_back(FilledWrite { write, entries });
        }
        if let Some(meta) = effects.restore {
            self.node(id).work.push_back(Work::Restore(*meta));
        }
        if let Some(range) = effects.apply {
            let filled = self.fill(id, range);
            let entries = (range.first().0..).zip(filled).map(|(index, entry)| {
                let index = Index(index);
                (
                    LogId {
                        term: entry.shape.term,
                        index,
                    },
                    entry.payload,
                )
            });
            let entries = entries.collect();
            self.node(id).work.push_back(Work::Apply(entries));
        }
        for (token, answer) in effects.reads {
            self.ghost.read_answered(id, token, answer.ok());
            self.node(id).reads.insert(token, answer);
        }
        let node = self.node(id);
        node.refused.extend(effects.refused);
        node.changed.extend(effects.changed);
        for (timer, arm) in effects.timers {
            node.clock.arm(timer, arm);
            match arm {
                Arm::Set => node.timers.insert(timer),
                Arm::Off => node.timers.remove(&timer),
            };
        }
        let leads = node.raft.as_ref().filter(|raft| raft.role() == RoleKind::Leader);
        node.clock.rounds(
            leads.map(Raft::term),
            effects.round_begun,
            effects.round_confirmed,
        );
        !quiet
    }

    /// The entries of a range, with their payloads.
    fn fill(&self, id: NodeId, range: Range) -> Vec<Entry> {
        let (node, log) = (&self.nodes[&id], self.raft(id).log());
        assert!(log.holds(&range), "a range names what is in the log");
        let shapes = log.shapes(range.prev.index, range.last.index);
        (range.first().0..)
            .zip(shapes)
            .map(|(index, shape)| {
                let body = node.bodies[&Index(index)];
                assert_eq!(body.0, shape.term, "the payload belongs to the entry");
                Entry {
                    shape,
                    payload: body.1,
                }
            })
            .collect()
    }

    /// Drains a node, and lets its disk and state machine do their work, until it is quiet.
    pub fn settle(&mut self, id: NodeId) {
        let mut left = 1_000;
        while self.is_up(id) {
            let drained = self.drain(id);
            let count = if self.nodes[&id].slow_disk { 0 } else { usize::MAX };
            let persisted = self.persist(id, count);
            if !(self.apply(id) || persisted || drained) {
                return;
            }
            left -= 1;
            assert!(left > 0, "n{id} never comes to rest");
        }
    }

    /// Delivers everything, in order, until nothing moves any more.
    pub fn run(&mut self) {
        for id in self.ids() {
            self.settle(id);
        }
        let mut left = 100_000;
        while let Some(parcel) = self.network.pop_front() {
            let (from, to) = (parcel.from, parcel.to);
            self.deliver(parcel);
            self.settle(to);
            self.settle(from);
            left -= 1;
            assert!(left > 0, "the cluster never comes to rest");
        }
    }

    /// Delivers everything, in order, until `done`.
    pub fn run_until(&mut self, done: impl Fn(&Cluster) -> bool) {
        for id in self.ids() {
            self.settle(id);
        }
        while !done(self) {
            let parcel = self
                .network
                .pop_front()
                .expect("it happens before the cluster rests");
            let to = parcel.to;
            self.deliver(parcel);
            self.settle(to);
        }
    }

    /// Delivers what is on the network to these nodes, and nothing of what comes of it; the rest stays.
    pub fn run_to(&mut self, ids: &[u64]) {
        let all = std::mem::take(&mut self.network);
        let (theirs, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(|p| ids.contains(&p.to.0));
        self.network.extend(rest);
        for parcel in theirs {
            let to = parcel.to;
            self.deliver(parcel);
            self.settle(to);
        }
    }

    /// Node `id` campaigns and is elected: whoever has a fresh leader stops to count on it first.
    pub fn elect(&mut self, id: NodeId) {
        self.run();
        for other in self.ids() {
            if self.is_up(other) {
                self.fire(other, Timer::Fresh);
            }
        }
        self.fire(id, Timer::Election);
        self.run();
        assert_eq!(self.raft(id).role(), RoleKind::Leader, "n{id} should lead");
    }

    /// The leader's heartbeat timer, and all that follows from it.
    pub fn heartbeat(&mut self, id: NodeId) {
        self.fire(id, Timer::Heartbeat);
        self.run();
    }
}
