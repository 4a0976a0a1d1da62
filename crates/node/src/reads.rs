//! Linearizable reads (§6.4) from the request to the moment they may be served: the core gives each an index, and it waits
//! here until the state machine has applied that. Reads that find no leader wait for one.

use std::collections::{BTreeMap, BTreeSet};

use quorate_base::Index;
use quorate_marks::reached;
use quorate_raft::{Input, Raft, Refused};

use crate::event::{Failure, Nanos, Reason, Token};
use crate::outbox::Outbox;

/// The reads under way.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    /// The last number given to a read.
    last: u64,
    live: BTreeMap<u64, Pending>,
    due: BTreeSet<(Nanos, u64)>,
    /// Reads whose index is known and not applied yet.
    waiting: BTreeSet<(Index, u64)>,
    /// Reads without a leader to ask.
    held: BTreeSet<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    token: Token,
    forward: bool,
    deadline: Nanos,
    index: Option<Index>,
}

impl Reads {
    /// A new read. With a lease this node need not ask anybody: it leads, and knows what is committed.
    pub(crate) fn read(
        &mut self,
        (token, forward, deadline): (Token, bool, Nanos),
        leased: Option<Index>,
        applied: Index,
        out: &mut Outbox,
    ) {
        self.last += 1;
        self.live.insert(
            self.last,
            Pending {
                token,
                forward,
                deadline,
                index: None,
            },
        );
        self.due.insert((deadline, self.last));
        match leased {
            // A question about leadership itself is about a round, not about the clock.
            Some(index) if forward => {
                reached!("node.read.by_lease");
                self.answered(self.last, Ok(index), applied, out);
            }
            _ => out.inputs.push(Input::Read {
                token: self.last,
                forward,
            }),
        }
    }

    /// The core's answer to a read. Those given up meanwhile are passed over.
    pub(crate) fn answered(
        &mut self,
        id: u64,
        result: Result<Index, Refused>,
        applied: Index,
        out: &mut Outbox,
    ) {
        let Some(pending) = self.live.get_mut(&id) else {
            reached!("node.read.expired_already");
            return;
        };
        match result {
            Ok(index) if index <= applied => self.finish(id, Ok(()), out),
            Ok(index) => {
                reached!("node.read.waits_for_apply");
                pending.index = Some(index);
                self.waiting.insert((index, id));
            }
            Err(_) if pending.forward => {
                reached!("node.read.held_for_leader");
                self.held.insert(id);
            }
            Err(Refused::NotLeader(None)) => {
                reached!("node.read.nobody_leads");
                self.finish(id, Err(Failure::NotDone(Reason::NoLeader)), out);
            }
            Err(_) => {
                reached!("node.read.another_leads");
                self.finish(id, Err(Failure::NotDone(Reason::LeaderChanged)), out);
            }
        }
    }

    /// The state machine has applied up to `applied`.
    pub(crate) fn applied(&mut self, applied: Index, out: &mut Outbox) {
        while let Some((_, id)) = self.waiting.first().copied().filter(|first| first.0 <= applied) {
            self.finish(id, Ok(()), out);
        }
    }

    /// Asks held reads as soon as there is a leader: it, or whoever knows it, refuses none.
    pub(crate) fn follow(&mut self, raft: &Raft, out: &mut Outbox) {
        if raft.leader().is_some() {
            let ids = std::mem::take(&mut self.held);
            out.inputs
                .extend(ids.into_iter().map(|token| Input::Read { token, forward: true }));
        }
    }

    /// Fails the reads whose deadline has passed.
    pub(crate) fn expire(&mut self, now: Nanos, out: &mut Outbox) {
        while let Some((_, id)) = self.due.first().copied().filter(|first| first.0 <= now) {
            let why = if self.held.contains(&id) {
                Reason::NoLeader
            } else {
                Reason::Timeout
            };
            reached!("node.read.expired_without_leader", why == Reason::NoLeader);
            reached!("node.read.expired", why == Reason::Timeout);
            self.finish(id, Err(Failure::NotDone(why)), out);
        }
    }

    /// The next deadline.
    pub(crate) fn next_deadline(&self) -> Option<Nanos> {
        self.due.first().map(|first| first.0)
    }

    fn finish(&mut self, id: u64, result: Result<(), Failure>, out: &mut Outbox) {
        let pending = self.live.remove(&id).expect("a read is answered once");
        self.due.remove(&(pending.deadline, id));
        self.held.remove(&id);
        if let Some(index) = pending.index {
            self.waiting.remove(&(index, id));
        }
        out.effects.reads.push((pending.token, result));
    }
}
