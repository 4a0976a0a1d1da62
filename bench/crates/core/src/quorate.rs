//! Quorate's core, driven the way `quorate-node` drives it but without bytes: payloads are kept beside it, an Append carries them along with
//! their shapes, and whatever is to be written counts as durable at once.

use std::collections::VecDeque;

use bytes::Bytes;
use quorate_base::{Index, LogId, NodeId};
use quorate_raft::{
    Body, Config, Effects, Input, Message, Outgoing, Placed, Raft, Range, Restored, RoleKind, SnapMeta, Timer,
};

use crate::cluster::{Applied, COMPACT_EVERY, Cluster};

/// Three cores.
pub struct Cores {
    members: Vec<Member>,
    /// Reused from turn to turn.
    effects: Effects,
}

struct Member {
    raft: Raft,
    inbox: VecDeque<(NodeId, Message, Vec<Bytes>)>,
    /// The commands of the entries after the log's base; empty for the no-op.
    payloads: VecDeque<Bytes>,
    /// Commands given to the core and not yet placed.
    proposed: VecDeque<Bytes>,
    applied: Applied,
}

impl Cluster for Cores {
    fn start() -> Cores {
        let ids = [1, 2, 3].map(NodeId);
        let base = SnapMeta {
            last: LogId::ZERO,
            config: Config::of(ids),
        };
        let member = |id: NodeId| Member {
            raft: Raft::new(Restored {
                id,
                base: base.clone(),
                nonce: id.0 << 32,
                ..Restored::default()
            }),
            inbox: VecDeque::new(),
            payloads: VecDeque::new(),
            proposed: VecDeque::new(),
            applied: Applied::default(),
        };
        let mut cores = Cores {
            members: ids.map(member).into(),
            effects: Effects::default(),
        };
        cores.settle();
        cores.members[0].raft.step(Input::Fired(Timer::Election));
        cores.settle();
        assert_eq!(cores.members[0].raft.role(), RoleKind::Leader);
        cores
    }

    fn round(&mut self, commands: Vec<Vec<u8>>) {
        let leader = &mut self.members[0];
        for command in commands {
            let size = command.len() as u32;
            leader.proposed.push_back(command.into());
            leader.raft.step(Input::Propose { token: 0, size });
        }
        self.settle();
    }

    fn applied(&self) -> [&Applied; 3] {
        [0, 1, 2].map(|n| &self.members[n].applied)
    }
}

impl Cores {
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
        for (from, message, payloads) in inbox.drain(..) {
            self.members[member].receive(from, message, payloads);
        }
        self.members[member].inbox = inbox;
        let mut busy = false;
        while self.members[member].raft.has_effects() {
            busy = true;
            self.drain(member);
        }
        busy
    }

    fn drain(&mut self, member: usize) {
        let this = &mut self.members[member];
        let effects = &mut self.effects;
        this.raft.take_effects_into(effects);
        for placed in effects.placed.drain(..) {
            let payload = match placed {
                Placed::Proposal { .. } => this.proposed.pop_front().expect("it was proposed here"),
                Placed::Noop { .. } | Placed::Config { .. } => Bytes::new(),
            };
            this.payloads.push_back(payload);
        }
        assert!(
            effects.refused.is_empty(),
            "a leader alone in its term takes every proposal"
        );
        let from = this.raft.id();
        for outgoing in effects.send.drain(..) {
            let this = &self.members[member];
            let (to, message, payloads) = match outgoing {
                Outgoing::Message { to, message } => (to, message, Vec::new()),
                Outgoing::Append {
                    to,
                    term,
                    range,
                    commit,
                } => {
                    let body = Body::Append {
                        prev: range.prev,
                        entries: this.raft.log().shapes(range.prev.index, range.last.index),
                        commit,
                    };
                    (
                        to,
                        Message { term, body },
                        this.payloads(range).cloned().collect(),
                    )
                }
                Outgoing::Snapshot { .. } => panic!("nobody falls behind here"),
            };
            self.members[to.0 as usize - 1]
                .inbox
                .push_back((from, message, payloads));
        }
        let this = &mut self.members[member];
        if let Some(write) = &effects.write {
            this.raft.step(Input::Persisted(write.id));
        }
        if let Some(range) = effects.apply {
            this.apply(range);
        }
    }
}

impl Member {
    fn receive(&mut self, from: NodeId, message: Message, payloads: Vec<Bytes>) {
        let before = self.raft.last().index;
        self.raft.step(Input::Message { from, message });
        if !payloads.is_empty() {
            // The search for the match after the election may repeat entries; nothing is ever truncated here.
            let new = (self.raft.last().index.0 - before.0) as usize;
            let known = payloads.len() - new;
            self.payloads.extend(payloads.into_iter().skip(known));
        }
    }

    fn payloads(&self, range: Range) -> impl Iterator<Item = &Bytes> {
        let start = (range.first().0 - self.raft.log().first().0) as usize;
        self.payloads.range(start..start + range.len() as usize)
    }

    fn apply(&mut self, range: Range) {
        let start = (range.first().0 - self.raft.log().first().0) as usize;
        for payload in self.payloads.range(start..start + range.len() as usize) {
            if !payload.is_empty() {
                self.applied.apply(payload);
            }
        }
        let last = range.last.index;
        self.raft.step(Input::Applied(last));
        let base = self.raft.log().base().last.index;
        if last.0 - base.0 >= COMPACT_EVERY {
            // What the other members may still have to be sent stays.
            let to = Index(last.0 - COMPACT_EVERY / 2);
            self.payloads.drain(..(to.0 - base.0) as usize);
            self.raft.step(Input::Compacted(to));
        }
    }
}
