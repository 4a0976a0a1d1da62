//! One core with a disk of its own and nobody else: others are what the test says they are.

use quorate_base::{Index, LogId, NodeId, Term};
use quorate_raft::{
    Body, Config, Effects, EntryShape, HardState, Input, Limits, Message, Outgoing, Raft, Restored, RoleKind,
    SnapMeta, Timer, invariants,
};

pub const N1: NodeId = NodeId(1);
pub const N2: NodeId = NodeId(2);
pub const N3: NodeId = NodeId(3);

/// One node, n1, with a quick disk, and what came of it.
pub struct Node {
    pub raft: Raft,
    /// All that was sent since the last look.
    pub sent: Vec<(NodeId, Body)>,
    /// The disk does nothing.
    pub slow: bool,
    pub writes: Vec<u64>,
}

impl Node {
    pub fn new(restored: Restored) -> Node {
        let mut node = Node {
            raft: Raft::new(restored),
            sent: Vec::new(),
            slow: false,
            writes: Vec::new(),
        };
        node.drain();
        node
    }

    /// One of three voters, in term `terms.last()`.
    pub fn follower(terms: &[u64], commit: u64) -> Node {
        Node::new(one_of_three(terms, commit))
    }

    /// The same, elected for the next term.
    pub fn leader(terms: &[u64], limits: Limits) -> Node {
        let mut node = Node::new(Restored {
            limits,
            ..one_of_three(terms, 0)
        });
        node.elect();
        assert_eq!(node.raft.role(), RoleKind::Leader);
        node
    }

    pub fn elect(&mut self) {
        let next = self.raft.term().next();
        self.step(Input::Fired(Timer::Election));
        self.hear(N2, next.0 - 1, Body::PreVoteResponse { next, granted: true });
        self.hear(N2, next.0, Body::VoteResponse { granted: true });
    }

    pub fn step(&mut self, input: Input) -> Effects {
        let before = self.raft.clone();
        self.raft.step(input);
        invariants::check(&self.raft);
        invariants::check_delta(&before, &self.raft);
        self.drain()
    }

    pub fn drain(&mut self) -> Effects {
        let mut all = self.raft.take_effects();
        self.writes.extend(all.write.as_ref().map(|write| write.id));
        while !self.slow
            && let Some(write) = self.writes.pop()
        {
            self.writes.clear();
            self.raft.step(Input::Persisted(write));
            let more = self.raft.take_effects();
            self.writes.extend(more.write.as_ref().map(|write| write.id));
            all.send.extend(more.send);
            all.reads.extend(more.reads);
            all.changed.extend(more.changed);
            all.timers.extend(more.timers);
        }
        for outgoing in &all.send {
            if let Outgoing::Message { to, message } = outgoing {
                self.sent.push((*to, message.body.clone()));
            }
        }
        all
    }

    pub fn hear(&mut self, from: NodeId, term: u64, body: Body) -> Effects {
        let term = Term(term);
        let message = Message { term, body };
        self.step(Input::Message { from, message })
    }

    pub fn take_sent(&mut self) -> Vec<(NodeId, Body)> {
        std::mem::take(&mut self.sent)
    }
}

pub fn one_of_three(terms: &[u64], commit: u64) -> Restored {
    Restored {
        id: N1,
        hard: HardState {
            term: Term(terms.last().copied().unwrap_or(0)),
            vote: None,
            commit: Index(commit),
        },
        base: SnapMeta {
            last: LogId::default(),
            config: Config::of([N1, N2, N3]),
        },
        entries: entries(terms),
        nonce: 100,
        ..Restored::default()
    }
}

pub fn entries(terms: &[u64]) -> Vec<EntryShape> {
    let entry = |term: &u64| EntryShape {
        term: Term(*term),
        size: 10,
        config: None,
    };
    terms.iter().map(entry).collect()
}

pub fn heartbeat(round: u64) -> Body {
    let commit = Index::ZERO;
    Body::Heartbeat { commit, round }
}
