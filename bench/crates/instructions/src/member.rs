//! One member: node, log and store, and what a driver does for them, carried out on the spot.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use quorate_base::{Disk, NodeId, StateMachine};
use quorate_kv::{Kv, RangeRequest};
use quorate_node::event::{Event, LogOp, MachineOp, ToApply};
use quorate_node::handshake::PROTOCOL;
use quorate_node::{Boot, Effects, Node, NodeConfig, Staging, wire};
use quorate_raft::{Config, RoleKind};
use quorate_wal::{Options, Wal};

use crate::disk::MemDisk;

/// Length of a segment of the log: short, so that new ones are made while we count.
const SEGMENT: u32 = 1 << 20;
/// Entries that the log keeps when the store has them.
const KEEP: u64 = 1_000;
/// How long a request may take. Time stands still once there is a leader, so that no timer fires.
const PATIENCE: u64 = 5_000_000_000;

/// See the module.
pub struct Member {
    node: Node,
    wal: Wal,
    kv: Kv,
    staging: Staging,
    now: u64,
    last_token: u64,
    /// Reads under way.
    reads: BTreeMap<u64, RangeRequest>,
    /// Requests answered here.
    answered: u64,
}

impl Member {
    /// A member with an empty disk, which has taken its first step.
    pub fn new(id: NodeId, members: &[NodeId]) -> Member {
        let disk: Arc<dyn Disk> = Arc::new(MemDisk::default());
        let kv = Kv::open(disk.clone(), quorate_kv::Options::default()).expect("a new store can be made");
        let options = Options {
            segment_bytes: SEGMENT,
            ..Options::new(id.0)
        };
        let wal = Wal::open(disk.clone(), options, &mut |_| {}).expect("a new log can be made");
        let config = NodeConfig {
            keep_entries: KEEP,
            ..NodeConfig::new(id, id.0 << 32, id.0)
        };
        let founders = Config::of(members.iter().copied());
        let (node, first) = Boot::new()
            .finish(config, Some(founders), kv.applied(), kv.durable())
            .expect("empty disks are sound");
        let mut member = Member {
            node,
            wal,
            kv,
            staging: Staging::new(disk),
            now: 1,
            last_token: 0,
            reads: BTreeMap::new(),
            answered: 0,
        };
        first.into_iter().for_each(|op| member.machine(op));
        member.step(Event::Wake);
        for peer in members.iter().filter(|peer| **peer != id) {
            member.step(Event::LinkUp(*peer));
        }
        member
    }

    /// Whether it leads.
    pub fn leads(&self) -> bool {
        self.node.raft().role() == RoleKind::Leader
    }

    /// When something happens here by itself.
    pub fn next_deadline(&self) -> u64 {
        self.node.next_deadline().expect("a timer is always armed")
    }

    /// Time has come to this.
    pub fn wake(&mut self, now: u64) {
        self.now = now;
        self.step(Event::Wake);
    }

    /// Requests answered here so far.
    pub fn answered(&self) -> u64 {
        self.answered
    }

    /// Requests made here so far.
    pub fn asked(&self) -> u64 {
        self.last_token
    }

    /// The store's revision.
    pub fn revision(&self) -> i64 {
        self.kv.revision()
    }

    /// A client's command.
    pub fn propose(&mut self, command: Bytes) {
        self.last_token += 1;
        self.step(Event::Propose {
            token: self.last_token,
            command,
            deadline: self.now + PATIENCE,
        });
    }

    /// A client's linearizable read.
    pub fn read(&mut self, request: RangeRequest) {
        self.last_token += 1;
        self.reads.insert(self.last_token, request);
        self.step(Event::Read {
            token: self.last_token,
            forward: true,
            deadline: self.now + PATIENCE,
        });
    }

    /// A frame that has arrived.
    pub fn receive(&mut self, from: NodeId, frame: Bytes) {
        let message = wire::decode(frame).expect("what a member encodes can be decoded");
        self.step(Event::Peer { from, message });
    }

    fn step(&mut self, event: Event) {
        self.node.step(self.now, event);
    }

    /// Carries out all that the node wants done. Returns the frames for its peers, each in one piece, as it comes from a socket.
    pub fn turn(&mut self) -> Vec<(NodeId, Bytes)> {
        let mut frames = Vec::new();
        loop {
            let effects = self.node.take_effects();
            let quiet = effects.log.is_empty()
                && effects.stage.is_empty()
                && effects.machine.is_empty()
                && effects.reads.is_empty()
                && effects.send.is_empty();
            self.carry_out(effects, &mut frames);
            if quiet {
                return frames;
            }
        }
    }

    fn carry_out(&mut self, effects: Effects, frames: &mut Vec<(NodeId, Bytes)>) {
        assert!(effects.fatal.is_none(), "{:?}", effects.fatal);
        assert!(
            effects.answers.is_empty(),
            "a request failed: {:?}",
            effects.answers
        );
        assert!(effects.snapshots.is_empty(), "nobody needs a snapshot");
        for (to, message) in effects.send {
            let frame = wire::encode(&message, PROTOCOL).expect("this protocol knows all messages");
            let mut whole = BytesMut::with_capacity(frame.len());
            whole.extend_from_slice(&frame.head);
            frame.parts.iter().for_each(|part| whole.extend_from_slice(part));
            frames.push((to, whole.freeze()));
        }
        self.log(effects.log);
        for op in effects.stage {
            if let Some(event) = self.staging.carry_out(op).expect("a disk in memory works") {
                self.step(event);
            }
        }
        effects.machine.into_iter().for_each(|op| self.machine(op));
        for (token, ready) in effects.reads {
            ready.expect("a read is served");
            let request = self.reads.remove(&token).expect("it was asked for");
            let found = self.kv.range(&request).expect("the store can be read");
            assert!(found.kvs.len() <= 1, "a key is there once");
            self.answered += 1;
        }
    }

    /// The disk thread: all batches with one write, then some upkeep.
    fn log(&mut self, ops: Vec<LogOp>) {
        let mut batches = Vec::new();
        let mut last = None;
        for op in ops {
            match op {
                LogOp::Write { id, records } => {
                    batches.push(records);
                    last = Some(id);
                }
                LogOp::Read { .. } => unreachable!("nobody is behind what is in memory"),
            }
        }
        if let Some(last) = last {
            self.wal.append(&batches).expect("a disk in memory works");
            self.step(Event::Written(last));
            if self.wal.needs_maintenance() {
                self.wal.maintain().expect("a disk in memory works");
            }
        }
    }

    fn machine(&mut self, op: MachineOp) {
        match op {
            MachineOp::Apply(entries) => self.apply(entries),
            MachineOp::Level(level) => self.kv.level(level),
            MachineOp::Restore(_) => unreachable!("nobody needs a snapshot"),
        }
    }

    fn apply(&mut self, entries: Vec<ToApply>) {
        let Some(last) = entries.last().map(|entry| entry.at.index) else {
            return;
        };
        for entry in entries {
            match &entry.command {
                Some(command) => {
                    let applied = self.kv.apply(entry.at, command);
                    applied.expect("a sound command is applied");
                    self.answered += u64::from(entry.token.is_some());
                }
                None => {
                    entry.level.into_iter().for_each(|level| self.kv.level(level));
                    self.kv.skip(entry.at);
                }
            }
        }
        self.kv.batch_applied();
        self.kv.take_events();
        self.step(Event::Applied(last));
        self.work_off(false);
    }

    /// Makes the store durable.
    pub fn flush(&mut self) {
        self.work_off(true);
    }

    /// The flusher: does what the store wants done.
    fn work_off(&mut self, urgent: bool) {
        while let Some(job) = self.kv.job(urgent) {
            job().expect("a disk in memory works");
            self.step(Event::MachineDurable(self.kv.durable()));
        }
    }
}
