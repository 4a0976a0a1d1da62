//! A small cluster for tests: real nodes, and around each the simplest driver there can be, with a log, a state machine and a
//! staging file in memory. Messages travel through the wire encoding, one at a time, in order; the clock moves only when
//! nothing else can happen. Faults are asked for by the test; only `tests/chaos.rs` draws them.
#![allow(dead_code, reason = "each test file uses a part")]

mod disk;
mod machine;
mod random;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use quorate_base::{Index, LogId, NodeId};
use quorate_node::event::{Nanos, StreamId};
use quorate_node::handshake::PROTOCOL;
use quorate_node::{
    Boot, BootError, ChangeFailure, Effects, Event, Failure, LogOp, MachineOp, Node, NodeConfig, PeerMessage,
    SnapshotOp, StageOp,
};
use quorate_raft::{Change, Config, RoleKind};

pub use disk::LogDisk;
pub use machine::Machine;
pub use random::Random;

/// How long requests may take.
pub const PATIENCE: Nanos = 10_000_000_000;

/// Bytes of a staging file that one check reads.
const CHECKED_AT_ONCE: usize = 300;

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

/// A staging file.
#[derive(Clone, Debug, Default)]
pub struct Staged {
    /// Who writes to it, if it is open.
    stream: Option<StreamId>,
    about: Bytes,
    pub bytes: Vec<u8>,
    /// So much of it survives a crash.
    pub synced: usize,
    /// So much of what an earlier run left has been checked.
    checked: usize,
    finished: bool,
}

/// One member with its driver.
pub struct Host {
    pub node: Option<Node>,
    pub log: LogDisk,
    pub machine: Machine,
    /// What the machine would be after a crash.
    pub saved: Machine,
    pub staging: Option<Staged>,
    /// No room for a staging file of more bytes than this.
    pub staging_room: usize,
    /// Says nothing when there is no room.
    pub staging_silent: bool,
    /// So many operations on the staging file are carried out, then no more.
    pub staging_ops: usize,
    /// Nothing is done to it while this is set.
    pub staging_stalled: bool,
    waiting_stage: VecDeque<StageOp>,
    views: BTreeMap<StreamId, (Vec<u8>, usize)>,
    /// Writes and their syncs do not end while this is set.
    pub disk_stalled: bool,
    stalled: VecDeque<LogOp>,
    /// Reads are not answered while this is set.
    pub reads_stalled: bool,
    /// Restores are not carried out while this is set.
    pub restore_stalled: bool,
    waiting_restore: Option<LogId>,
    /// Views are not opened while this is set.
    pub open_stalled: bool,
    waiting_open: Vec<StreamId>,
    boots: u64,
    pub cold_reads: usize,
    /// Its log cannot be read.
    pub damaged: bool,
    /// It has said that it cannot go on, for this reason.
    pub ended: Option<String>,
    pub restores: usize,
    /// Starts without knowing any configuration.
    pub joins: bool,
    /// The feature level that the machine was told of last.
    pub level: Option<u32>,
    /// The configuration that the driver was told of last.
    pub told: Option<Config>,
    /// The driver was told that this member was removed.
    pub removed: bool,
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

    /// One round of effects of one member. Returns whether there were any.
    fn carry_out(&mut self, id: u64) -> bool {
        let Some(node) = &mut self.host(id).node else {
            return false;
        };
        let effects = node.take_effects();
        if self.host(id).damaged && effects.fatal.is_some() {
            self.host(id).ended = effects.fatal;
            self.host(id).node = None;
            return true;
        }
        assert_eq!(effects.fatal, None, "nothing is wrong with the log");
        let Effects {
            log,
            stage,
            machine,
            snapshots,
            send,
            answers,
            reads,
            changed,
            membership,
            removed,
            fatal: _,
        } = effects;
        let any = !(log.is_empty()
            && stage.is_empty()
            && machine.is_empty()
            && snapshots.is_empty()
            && send.is_empty()
            && answers.is_empty()
            && reads.is_empty()
            && changed.is_empty()
            && membership.is_none()
            && !removed);
        for (token, result) in changed {
            self.conclude(token, Outcome::Changed(result));
        }
        let host = self.host(id);
        host.told = membership.or(host.told.take());
        host.removed |= removed;
        send.into_iter()
            .for_each(|(to, message)| self.send(NodeId(id), to, message));
        self.log_ops(id, log);
        stage.into_iter().for_each(|op| self.stage_op(id, op));
        self.machine_ops(id, machine);
        snapshots.into_iter().for_each(|op| self.snapshot_op(id, op));
        answers
            .into_iter()
            .for_each(|(token, failure)| self.conclude(token, Outcome::Failed(failure)));
        for (token, result) in reads {
            let applied = self.host(id).machine.commands.len();
            self.conclude(
                token,
                result.map_or_else(Outcome::Failed, |()| Outcome::Read(applied)),
            );
        }
        any
    }

    fn conclude(&mut self, token: u64, outcome: Outcome) {
        let before = self.outcomes.insert(token, outcome.clone());
        assert_eq!(
            before, None,
            "request {token} is answered once, not again with {outcome:?}"
        );
    }

    fn send(&mut self, from: NodeId, to: NodeId, message: PeerMessage) {
        if !(self.queue)(from, to, &message) {
            return self.step(from.0, Event::Dropped { to, message });
        }
        let runs = self.hosts.get(&to).is_some_and(|host| host.node.is_some());
        if !runs || self.cut.contains(&(from, to)) || !(self.filter)(from, to, &message) {
            return;
        }
        let frame =
            quorate_node::wire::encode(&message, PROTOCOL).expect("the latest protocol knows every message");
        let mut bytes = frame.head.to_vec();
        frame.parts.iter().for_each(|part| bytes.extend_from_slice(part));
        assert_eq!(bytes.len(), frame.len());
        let decoded = quorate_node::wire::decode(bytes.into()).expect("what was encoded can be decoded");
        assert_eq!(decoded, message);
        self.net.push_back((from, to, decoded));
    }

    fn log_ops(&mut self, id: u64, ops: Vec<LogOp>) {
        let host = self.host(id);
        host.stalled.extend(ops);
        let mut held = VecDeque::new();
        while let Some(op) = self.host(id).stalled.pop_front() {
            let host = self.host(id);
            match op {
                LogOp::Write { .. } if host.disk_stalled => held.push_back(op),
                LogOp::Read { .. } if host.reads_stalled => held.push_back(op),
                LogOp::Write { id: write, records } => {
                    host.log.append(records);
                    self.step(id, Event::Written(write));
                }
                LogOp::Read {
                    id: read,
                    first,
                    last,
                    max_bytes,
                } => {
                    host.cold_reads += 1;
                    let bodies = match host.damaged {
                        true => Err("damaged".to_owned()),
                        false => host.log.read(first, last, max_bytes),
                    };
                    self.step(id, Event::LogRead { id: read, bodies });
                }
            }
        }
        self.host(id).stalled = held;
    }

    /// Lets the operations go on that were held up.
    pub fn unstall(&mut self, id: u64) {
        let host = self.host(id);
        (host.disk_stalled, host.reads_stalled, host.restore_stalled) = (false, false, false);
        (host.open_stalled, host.staging_stalled) = (false, false);
        for stream in std::mem::take(&mut host.waiting_open) {
            self.snapshot_op(id, SnapshotOp::Open { stream });
        }
        for op in std::mem::take(&mut self.host(id).waiting_stage) {
            self.stage_op(id, op);
        }
        self.log_ops(id, Vec::new());
        if let Some(at) = self.host(id).waiting_restore.take() {
            self.restore(id, at);
        }
    }

    fn stage_op(&mut self, id: u64, op: StageOp) {
        let host = self.host(id);
        if host.staging_stalled || host.staging_ops == 0 {
            return host.waiting_stage.push_back(op);
        }
        host.staging_ops -= 1;
        let of = op.stream();
        match op {
            StageOp::Check => {
                let event = host.check_staged();
                return self.step(id, event);
            }
            StageOp::Begin { stream, about } => {
                let stream = Some(stream);
                host.staging = Some(Staged {
                    stream,
                    about,
                    ..Staged::default()
                });
                return;
            }
            StageOp::Discard => {
                host.staging = None;
                return;
            }
            _ => {}
        }
        let room = host.staging_room;
        let Some(staging) = &mut host.staging else { return };
        if let StageOp::Resume { stream } = op {
            assert_eq!(
                staging.checked,
                staging.bytes.len(),
                "all was checked before it goes on"
            );
            (staging.stream, staging.synced) = (Some(stream), staging.checked);
            return;
        }
        assert_eq!(staging.stream, of, "no other transfer writes");
        match op {
            StageOp::Write {
                stream,
                offset,
                crc,
                bytes,
            } => {
                if staging.bytes.len() + bytes.len() > room {
                    host.staging = None;
                    if !host.staging_silent {
                        self.step(id, Event::StageFailed { stream });
                    }
                    return;
                }
                assert_eq!(staging.bytes.len() as u64, offset, "staging goes on at its end");
                staging.bytes.extend_from_slice(&bytes);
                assert_eq!(
                    crc32c::crc32c(&staging.bytes),
                    crc,
                    "the checksum is that of all so far"
                );
            }
            StageOp::Sync { stream } | StageOp::Finish { stream } => {
                staging.synced = staging.bytes.len();
                let len = staging.synced as u64;
                let finished = matches!(op, StageOp::Finish { .. });
                staging.finished |= finished;
                self.step(
                    id,
                    Event::Staged {
                        stream,
                        len,
                        finished,
                    },
                );
            }
            _ => unreachable!("seen above"),
        }
    }

    fn machine_ops(&mut self, id: u64, ops: Vec<MachineOp>) {
        for op in ops {
            match op {
                MachineOp::Apply(entries) => {
                    let last = entries.last().expect("no empty batches").at.index;
                    for entry in entries {
                        let host = self.host(id);
                        host.level = entry.level.or(host.level);
                        self.host(id).machine.apply(entry.at, entry.command);
                        if let Some(token) = entry.token {
                            self.conclude(token, Outcome::Applied(entry.at.index));
                        }
                    }
                    self.step(id, Event::Applied(last));
                }
                MachineOp::Level(level) => self.host(id).level = Some(level),
                MachineOp::Restore(meta) if self.host(id).restore_stalled => {
                    self.host(id).waiting_restore = Some(meta.last);
                }
                MachineOp::Restore(meta) => self.restore(id, meta.last),
            }
        }
    }

    fn restore(&mut self, id: u64, at: LogId) {
        let host = self.host(id);
        let staging = host
            .staging
            .take()
            .expect("the staging file is there until it was taken over");
        assert!(staging.finished, "only what is complete is taken over");
        host.machine = Machine::decode(&staging.bytes);
        assert_eq!(
            host.machine.applied, at,
            "the snapshot is of the entry it is said to be of"
        );
        host.saved = host.machine.clone();
        host.restores += 1;
        self.step(id, Event::Restored(at));
    }

    fn snapshot_op(&mut self, id: u64, op: SnapshotOp) {
        let host = self.host(id);
        match op {
            SnapshotOp::Open { stream } if host.open_stalled => host.waiting_open.push(stream),
            SnapshotOp::Open { stream } => {
                host.views.insert(stream, (host.machine.encode(), 0));
                let at = Some(host.machine.applied);
                self.step(id, Event::SnapshotOpened { stream, at });
            }
            SnapshotOp::Read { stream, max } => {
                let (view, done) = host.views.get_mut(&stream).expect("the view is open");
                let end = view.len().min(*done + max);
                let chunk = Some(Bytes::copy_from_slice(&view[*done..end]));
                *done = end;
                self.step(id, Event::SnapshotChunk { stream, chunk });
            }
            SnapshotOp::Close { stream } => {
                host.views.remove(&stream);
            }
        }
    }

    /// Views of state machines that are open.
    pub fn open_views(&self) -> usize {
        self.hosts.values().map(|host| host.views.len()).sum()
    }
}

impl Host {
    /// Whether something is to be done to the staging file, and is not.
    pub fn waits_for_staging(&self) -> bool {
        !self.waiting_stage.is_empty()
    }

    /// Bytes staged of a snapshot.
    pub fn staged(&self) -> usize {
        self.staging.as_ref().map_or(0, |staging| staging.bytes.len())
    }

    /// Reads some of what an earlier run left.
    fn check_staged(&mut self) -> Event {
        let (mut about, mut len, mut crc, mut end) = (None, 0, 0, true);
        if let Some(staging) = &mut self.staging {
            staging.checked = staging.bytes.len().min(staging.checked + CHECKED_AT_ONCE);
            about = Some(staging.about.clone());
            len = staging.checked as u64;
            crc = crc32c::crc32c(&staging.bytes[..staging.checked]);
            end = staging.checked == staging.bytes.len();
        }
        Event::StageChecked { about, len, crc, end }
    }

    /// Whether a view was asked for and is not open yet.
    pub fn waits_for_view(&self) -> bool {
        !self.waiting_open.is_empty()
    }

    fn empty() -> Host {
        Host {
            node: None,
            log: LogDisk::default(),
            machine: Machine::default(),
            saved: Machine::default(),
            staging: None,
            staging_room: usize::MAX,
            staging_silent: false,
            staging_ops: usize::MAX,
            staging_stalled: false,
            waiting_stage: VecDeque::new(),
            views: BTreeMap::new(),
            disk_stalled: false,
            stalled: VecDeque::new(),
            reads_stalled: false,
            restore_stalled: false,
            waiting_restore: None,
            open_stalled: false,
            waiting_open: Vec::new(),
            boots: 0,
            cold_reads: 0,
            damaged: false,
            ended: None,
            restores: 0,
            joins: false,
            level: None,
            told: None,
            removed: false,
        }
    }
}
