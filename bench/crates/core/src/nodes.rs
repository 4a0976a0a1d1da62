//! Whole nodes of `quorate-node`, with what a driver would do for them reduced to the least: messages are encoded, copied once as a socket
//! would, and decoded; writes count as durable at once. Time does not pass, so no timer fires after the election.

use std::collections::VecDeque;

use bytes::Bytes;
use quorate_base::{LogId, NodeId};
use quorate_node::handshake::PROTOCOL;
use quorate_node::{Boot, Effects, Event, LogOp, MachineOp, Node, NodeConfig, wire};
use quorate_raft::{Config, RoleKind};

use crate::cluster::{Applied, COMPACT_EVERY, Cluster};

/// Three nodes.
pub struct Nodes {
    members: Vec<Member>,
    now: u64,
    last_token: u64,
    /// Commands whose proposer has heard that they were applied.
    answered: u64,
}

struct Member {
    node: Node,
    inbox: VecDeque<(NodeId, Bytes)>,
    applied: Applied,
    /// What was said to be durable of the state machine.
    durable: u64,
}

impl Cluster for Nodes {
    fn start() -> Nodes {
        let ids = [1, 2, 3].map(NodeId);
        let member = |id: NodeId| {
            let mut config = NodeConfig::new(id, id.0 << 32, id.0);
            config.keep_entries = COMPACT_EVERY / 2;
            let (node, _) = Boot::new()
                .finish(config, Some(Config::of(ids)), LogId::ZERO, LogId::ZERO.index)
                .expect("an empty disk is sound");
            Member {
                node,
                inbox: VecDeque::new(),
                applied: Applied::default(),
                durable: 0,
            }
        };
        let mut nodes = Nodes {
            members: ids.map(member).into(),
            now: 1,
            last_token: 0,
            answered: 0,
        };
        for member in 0..3 {
            nodes.step(member, Event::Wake);
            ids.iter()
                .filter(|id| id.0 as usize != member + 1)
                .for_each(|id| nodes.step(member, Event::LinkUp(*id)));
        }
        nodes.settle();
        while nodes.leader().is_none() {
            let deadlines = nodes
                .members
                .iter()
                .filter_map(|member| member.node.next_deadline());
            nodes.now = deadlines.min().expect("a timer is always armed");
            (0..3).for_each(|member| nodes.step(member, Event::Wake));
            nodes.settle();
        }
        nodes
    }

    fn round(&mut self, commands: Vec<Vec<u8>>) {
        let leader = self.leader().expect("elected at the start");
        let deadline = self.now + 5_000_000_000;
        for command in commands {
            self.last_token += 1;
            let event = Event::Propose {
                token: self.last_token,
                command: command.into(),
                deadline,
            };
            self.step(leader, event);
        }
        self.settle();
        assert_eq!(self.answered, self.last_token, "every proposer has its answer");
    }

    fn applied(&self) -> [&Applied; 3] {
        [0, 1, 2].map(|n| &self.members[n].applied)
    }
}

impl Nodes {
    fn leader(&self) -> Option<usize> {
        let leads = |member: &Member| member.node.raft().role() == RoleKind::Leader;
        self.members.iter().position(leads)
    }

    fn step(&mut self, member: usize, event: Event) {
        self.members[member].node.step(self.now, event);
    }

    fn settle(&mut self) {
        let mut busy = true;
        while busy {
            busy = false;
            for member in 0..self.members.len() {
                busy |= self.turn(member);
            }
        }
    }

    /// Lets a member take all that has arrived, and does what it then wants done.
    fn turn(&mut self, member: usize) -> bool {
        let mut inbox = std::mem::take(&mut self.members[member].inbox);
        for (from, frame) in inbox.drain(..) {
            let message = wire::decode(frame).expect("what a member encodes can be decoded");
            self.step(member, Event::Peer { from, message });
        }
        self.members[member].inbox = inbox;
        let mut busy = false;
        loop {
            let effects = self.members[member].node.take_effects();
            if !self.carry_out(member, effects) {
                return busy;
            }
            busy = true;
        }
    }

    /// Returns whether there was anything to do.
    fn carry_out(&mut self, member: usize, effects: Effects) -> bool {
        assert!(
            effects.answers.is_empty() && effects.fatal.is_none(),
            "nothing fails here"
        );
        let busy = !(effects.send.is_empty() && effects.log.is_empty() && effects.machine.is_empty());
        let from = NodeId(member as u64 + 1);
        for (to, message) in effects.send {
            let frame = wire::encode(&message, PROTOCOL).expect("all speak the same version");
            let mut bytes = Vec::with_capacity(frame.len());
            bytes.extend_from_slice(&frame.head);
            frame.parts.iter().for_each(|part| bytes.extend_from_slice(part));
            self.members[to.0 as usize - 1]
                .inbox
                .push_back((from, bytes.into()));
        }
        for op in effects.log {
            match op {
                LogOp::Write { id, records } => {
                    assert!(!records.is_empty(), "no write without a record");
                    self.step(member, Event::Written(id));
                }
                LogOp::Read { .. } => panic!("nobody falls behind here"),
            }
        }
        for op in effects.machine {
            if let MachineOp::Apply(entries) = op {
                let last = entries.last().expect("never an empty batch").at.index;
                for entry in entries {
                    if let Some(command) = &entry.command {
                        self.members[member].applied.apply(command);
                    }
                    self.answered += u64::from(entry.token.is_some());
                }
                self.step(member, Event::Applied(last));
                if last.0 - self.members[member].durable >= COMPACT_EVERY {
                    self.members[member].durable = last.0;
                    self.step(member, Event::MachineDurable(last));
                }
            }
        }
        busy
    }
}
