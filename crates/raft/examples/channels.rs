//! The algorithm alone: three cores in three threads, channels for a network, and a disk that is a value in memory. This is the least that a
//! driver has to do, all of it. `quorate-node` and `quorate` do the same with bodies on disk, snapshots, and sockets.
//!
//! ```console
//! $ cargo run -p quorate-raft --example channels
//! ```
//!
//! A core never touches the bytes of an entry: it says *where* a command stands, and the driver keeps the bytes. Whatever the core says must be
//! written is written before the next input; so the rule that nothing is promised before it is durable keeps itself.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use quorate_base::{Index, LogId, NodeId, Term};
use quorate_raft::{
    Arm, Body, Config, EntryShape, HardState, Input, Log, Message, Outgoing, Placed, Raft, Range, Restored,
    RoleKind, SnapMeta, Timer, Write,
};

/// How long without a leader until somebody campaigns.
const ELECTION: Duration = Duration::from_millis(300);

/// An entry: what the core must know of it, and what it is for.
#[derive(Clone, Debug)]
struct Entry {
    shape: EntryShape,
    command: String,
}

/// What survives a crash.
#[derive(Clone, Debug, Default)]
struct Disk {
    hard: HardState,
    log: Vec<Entry>,
    starts: u64,
}

/// What arrives at a node.
enum Event {
    /// From another node, with the commands of its entries if it is an Append.
    Peer(NodeId, Message, Vec<String>),
    /// From a client: a command, and where to answer with the index at which it was applied.
    Propose(String, Sender<Option<Index>>),
    /// Who leads, and what was applied?
    Ask(Sender<(bool, Vec<String>)>),
    /// The end of the thread.
    Stop,
}

type Network = BTreeMap<NodeId, Sender<Event>>;

struct Node {
    raft: Raft,
    disk: Disk,
    /// The commands of the log's entries, by index; the term tells whether the entry is still the same.
    commands: BTreeMap<Index, (Term, String)>,
    applied: Vec<String>,
    timers: BTreeMap<Timer, Instant>,
    /// Clients that wait, by token while their command has no place, then by place.
    placing: BTreeMap<u64, (String, Sender<Option<Index>>)>,
    waiting: BTreeMap<LogId, Sender<Option<Index>>>,
    next_token: u64,
    random: u64,
    network: Network,
}

impl Node {
    /// Starts from what is on the disk. The machine here keeps nothing there, so everything is applied again.
    fn start(id: NodeId, voters: &[NodeId], mut disk: Disk, network: Network) -> Node {
        disk.starts += 1;
        let founding = SnapMeta {
            last: LogId::ZERO,
            config: Config::of(voters.iter().copied()),
        };
        let raft = Raft::new(Restored {
            id,
            hard: disk.hard,
            base: founding,
            entries: disk.log.iter().map(|entry| entry.shape.clone()).collect(),
            nonce: disk.starts << 32,
            ..Restored::default()
        });
        let commands = (1..).zip(&disk.log);
        let commands = commands.map(|(n, entry)| (Index(n), (entry.shape.term, entry.command.clone())));
        Node {
            raft,
            commands: commands.collect(),
            random: id.0 ^ disk.starts << 8,
            disk,
            applied: Vec::new(),
            timers: BTreeMap::new(),
            placing: BTreeMap::new(),
            waiting: BTreeMap::new(),
            next_token: 0,
            network,
        }
    }

    /// The life of a node; its disk outlives it.
    fn run(mut self, inbox: &Receiver<Event>) -> Disk {
        self.drain();
        loop {
            let patience = self
                .timers
                .values()
                .min()
                .map_or(ELECTION, |at| at.saturating_duration_since(Instant::now()));
            match inbox.recv_timeout(patience) {
                Ok(Event::Peer(from, message, commands)) => self.receive(from, message, commands),
                Ok(Event::Propose(command, answer)) => {
                    self.next_token += 1;
                    let (token, size) = (self.next_token, command.len() as u32);
                    self.placing.insert(token, (command, answer));
                    self.raft.step(Input::Propose { token, size });
                }
                Ok(Event::Ask(answer)) => {
                    let leads = self.raft.role() == RoleKind::Leader;
                    let _ = answer.send((leads, self.applied.clone()));
                }
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return self.disk,
                Err(RecvTimeoutError::Timeout) => self.fire(),
            }
            self.drain();
        }
    }

    fn fire(&mut self) {
        let now = Instant::now();
        let due = self.timers.iter().filter(|(_, at)| **at <= now);
        let due: Vec<Timer> = due.map(|(timer, _)| *timer).collect();
        for timer in due {
            self.timers.remove(&timer);
            self.raft.step(Input::Fired(timer));
        }
    }

    /// Steps a message, and keeps the commands of those entries that the core took into its log.
    fn receive(&mut self, from: NodeId, message: Message, commands: Vec<String>) {
        let entries = match &message.body {
            Body::Append { prev, entries, .. } => (prev.index.0 + 1..)
                .map(Index)
                .zip(entries.iter().map(|entry| entry.term))
                .zip(commands)
                .collect(),
            _ => Vec::new(),
        };
        self.raft.step(Input::Message { from, message });
        for ((index, term), command) in entries {
            if self.raft.log().term_at(index) == Some(term) {
                self.commands.insert(index, (term, command));
            }
        }
    }

    /// Does what there is to do, until there is nothing more. All ranges are filled before the next input, which could change the log.
    fn drain(&mut self) {
        while self.raft.has_effects() {
            let effects = self.raft.take_effects();
            let mut inputs = Vec::new();
            effects.placed.into_iter().for_each(|placed| self.place(placed));
            for (token, _) in effects.refused {
                let (_, answer) = self.placing.remove(&token).expect("it was proposed here");
                let _ = answer.send(None);
            }
            for outgoing in effects.send {
                inputs.extend(self.send(outgoing));
            }
            if let Some(write) = effects.write {
                self.write(&write);
                inputs.push(Input::Persisted(write.id));
            }
            if let Some(range) = effects.apply {
                self.apply(range);
                inputs.push(Input::Applied(range.last.index));
            }
            for (timer, arm) in effects.timers {
                let at = Instant::now() + self.length(timer);
                match arm {
                    Arm::Set => drop(self.timers.insert(timer, at)),
                    Arm::Off => drop(self.timers.remove(&timer)),
                }
            }
            inputs.into_iter().for_each(|input| self.raft.step(input));
        }
    }

    /// The leader's core has put an entry into its log: here is what stands in it.
    fn place(&mut self, placed: Placed) {
        let (at, command) = match placed {
            Placed::Noop { at } | Placed::Config { at, .. } => (at, String::new()),
            Placed::Proposal { token, at } => {
                let (command, answer) = self.placing.remove(&token).expect("it was proposed here");
                self.waiting.insert(at, answer);
                (at, command)
            }
        };
        self.commands.insert(at.index, (at.term, command));
    }

    /// The entries of a range. The range is used before the next input, so nothing can have overtaken it.
    fn entries(&self, range: Range) -> Vec<Entry> {
        let log: &Log = self.raft.log();
        assert!(log.holds(&range), "a range names what is in the log");
        let shapes = log.shapes(range.prev.index, range.last.index);
        let entries = (range.first().0..).map(Index).zip(shapes);
        entries
            .map(|(index, shape)| {
                let (term, command) = &self.commands[&index];
                assert_eq!(*term, shape.term, "the command belongs to this very entry");
                let command = command.clone();
                Entry { shape, command }
            })
            .collect()
    }

    /// Sends; answers what the core should hear of it.
    fn send(&self, outgoing: Outgoing) -> Option<Input> {
        let (to, message, commands) = match outgoing {
            Outgoing::Message { to, message } => (to, message, Vec::new()),
            Outgoing::Append {
                to,
                term,
                range,
                commit,
            } => {
                let (entries, commands) = self
                    .entries(range)
                    .into_iter()
                    .map(|entry| (entry.shape, entry.command))
                    .unzip();
                let prev = range.prev;
                let body = Body::Append {
                    prev,
                    entries,
                    commit,
                };
                (to, Message { term, body }, commands)
            }
            // Only for a log that was compacted, and this one never is.
            Outgoing::Snapshot { to, .. } => {
                return Some(Input::SnapshotSent { to, last: None });
            }
        };
        // A node that is down does not hear it. That is what the algorithm is for.
        let _ = self.network[&to].send(Event::Peer(self.raft.id(), message, commands));
        None
    }

    /// One atomic write: truncate, append, hard state.
    fn write(&mut self, write: &Write) {
        if let Some(after) = write.truncate_after {
            self.disk.log.truncate(after.0 as usize);
        }
        if let Some(range) = write.append {
            let entries = self.entries(range);
            self.disk.log.extend(entries);
        }
        if let Some(hard) = write.hard {
            self.disk.hard = hard;
        }
    }

    /// Committed and durable here: the state machine is a list of commands.
    fn apply(&mut self, range: Range) {
        let first = range.first().0;
        for (n, entry) in (first..).zip(self.entries(range)) {
            if !entry.command.is_empty() {
                self.applied.push(entry.command);
            }
            let at = LogId {
                term: entry.shape.term,
                index: Index(n),
            };
            if let Some(answer) = self.waiting.remove(&at) {
                let _ = answer.send(Some(at.index));
            }
        }
    }

    /// Election timeouts are drawn from T to 2T (§3.4), so that elections are rarely tied.
    fn length(&mut self, timer: Timer) -> Duration {
        match timer {
            Timer::Heartbeat | Timer::Read => ELECTION / 10,
            Timer::Haste => ELECTION / 200,
            Timer::Election => {
                self.random = self
                    .random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                ELECTION + ELECTION.mul_f64((self.random >> 32) as f64 / f64::from(u32::MAX))
            }
            Timer::Fresh | Timer::Quorum | Timer::Transfer => ELECTION,
        }
    }
}

/// A cluster, as its clients see it.
struct Cluster {
    ids: Vec<NodeId>,
    network: Network,
    threads: BTreeMap<NodeId, JoinHandle<(Disk, Receiver<Event>)>>,
}

impl Cluster {
    fn start(size: u64) -> Cluster {
        let (senders, inboxes): (Vec<_>, Vec<_>) = (0..size).map(|_| channel()).unzip();
        let ids: Vec<NodeId> = (1..=size).map(NodeId).collect();
        let mut cluster = Cluster {
            network: ids.iter().copied().zip(senders).collect(),
            ids: ids.clone(),
            threads: BTreeMap::new(),
        };
        for (id, inbox) in ids.into_iter().zip(inboxes) {
            cluster.spawn(id, Disk::default(), inbox);
        }
        cluster
    }

    fn spawn(&mut self, id: NodeId, disk: Disk, inbox: Receiver<Event>) {
        let (ids, network) = (self.ids.clone(), self.network.clone());
        let life = move || (Node::start(id, &ids, disk, network).run(&inbox), inbox);
        self.threads.insert(id, thread::spawn(life));
    }

    /// Ends a node's thread. What it had in memory is gone.
    fn stop(&mut self, id: NodeId) -> (Disk, Receiver<Event>) {
        let thread = self.threads.remove(&id).expect("it runs");
        self.network[&id].send(Event::Stop).expect("it listens");
        thread.join().expect("it does not panic")
    }

    fn ask(&self, id: NodeId) -> (bool, Vec<String>) {
        let (answer, asked) = channel();
        self.network[&id].send(Event::Ask(answer)).expect("it listens");
        asked.recv().expect("it answers")
    }

    fn leader(&self) -> NodeId {
        loop {
            let leader = self.threads.keys().find(|id| self.ask(**id).0);
            match leader {
                Some(leader) => return *leader,
                None => thread::sleep(ELECTION / 10),
            }
        }
    }

    /// Proposes to whoever leads until it is applied there. A command whose leader went away may be in the log twice; see the sessions of
    /// the library for how to prevent that.
    fn propose(&self, command: &str) -> Index {
        loop {
            let (answer, applied) = channel();
            let event = Event::Propose(command.to_owned(), answer);
            self.network[&self.leader()].send(event).expect("it listens");
            if let Ok(Some(index)) = applied.recv_timeout(ELECTION * 20) {
                return index;
            }
        }
    }
}

/// Five commands, a leader that stops, five more, and the old leader back again. Answers what each node has applied.
pub fn run() -> Vec<Vec<String>> {
    let mut cluster = Cluster::start(3);
    for n in 1..=5 {
        println!(
            "command {n} is entry {}",
            cluster.propose(&format!("command {n}"))
        );
    }
    let leader = cluster.leader();
    println!("node {leader} leads, and stops");
    let (disk, inbox) = cluster.stop(leader);
    for n in 6..=10 {
        println!(
            "command {n} is entry {}",
            cluster.propose(&format!("command {n}"))
        );
    }
    println!(
        "node {leader} starts again, from its disk of {} entries",
        disk.log.len()
    );
    cluster.spawn(leader, disk, inbox);
    let ids = cluster.ids.clone();
    let applied = loop {
        let applied: Vec<Vec<String>> = ids.iter().map(|id| cluster.ask(*id).1).collect();
        let last = "command 10".to_owned();
        if applied
            .iter()
            .all(|one| *one == applied[0] && one.contains(&last))
        {
            break applied;
        }
        thread::sleep(ELECTION / 10);
    };
    for id in ids {
        cluster.stop(id);
    }
    applied
}

fn main() {
    for (n, applied) in (1..).zip(run()) {
        println!("node {n} has applied: {}", applied.join(", "));
    }
}
