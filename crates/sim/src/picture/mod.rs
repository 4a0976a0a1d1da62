//! What a space-time picture of a run is made of: the last so many events, kept while the run goes on. A message is one event with
//! its end; the states of nodes and the links that are cut are kept as changes, with what they were before the oldest event. How
//! that becomes a page is in `page`.

mod page;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use quorate_base::{Index, NodeId, Term};
use quorate_node::message::PeerMessage;
use quorate_raft::{Body, RoleKind};

use crate::net::Pair;
use crate::trace::{Nanos, Number, Short};

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// A fault strikes or ends.
    Fault,
    /// A process or a machine starts or ends.
    Life,
    /// A node has become leader.
    Leader,
    /// A commit index has moved.
    Commit,
    /// A snapshot or a compaction.
    Snapshot,
    /// The disk has done something.
    Disk,
    /// A configuration, or a request for one.
    Membership,
    /// A client asks or is told.
    Client,
    /// Everything else.
    Note,
    /// The run failed here.
    Failure,
}

/// What a message is for, as far as a reader wants to tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Vote,
    Append,
    Heartbeat,
    Read,
    Forward,
    Snapshot,
}

/// What a node looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// No power.
    Dark,
    /// No process.
    Down,
    /// Its process stands still.
    Paused,
    /// It follows, or stands for election, or leads.
    Runs(RoleKind),
}

/// A node's state, as the picture shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub look: Look,
    pub term: Term,
    /// Its disk does not return.
    pub stalled: bool,
}

#[derive(Clone, Debug)]
enum Item {
    Message {
        at: Nanos,
        pair: Pair,
        class: Class,
        words: String,
        ends: Vec<(Nanos, bool)>,
    },
    Mark {
        at: Nanos,
        node: Option<NodeId>,
        topic: Topic,
        words: String,
    },
    State {
        at: Nanos,
        node: NodeId,
        state: State,
    },
    Cuts {
        at: Nanos,
        cuts: BTreeSet<Pair>,
    },
}

/// The events of a run that a picture shows.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    most: usize,
    items: VecDeque<Item>,
    /// How many are gone from the front.
    gone: u64,
    begun: Nanos,
    ended: Nanos,
    /// The states before the oldest event, and now.
    states: (BTreeMap<NodeId, State>, BTreeMap<NodeId, State>),
    /// The links that were cut before the oldest event, and now.
    cuts: (BTreeSet<Pair>, BTreeSet<Pair>),
    commits: BTreeMap<NodeId, Index>,
}

impl Picture {
    /// A picture of at most so many events, the last ones.
    pub fn new(most: usize) -> Picture {
        Picture {
            most: most.max(1),
            ..Picture::default()
        }
    }

    /// How many events are kept.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is nothing to see.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    fn push(&mut self, at: Nanos, item: Item) {
        self.ended = at;
        self.items.push_back(item);
        if self.items.len() <= self.most {
            return;
        }
        let Some(first) = self.items.pop_front() else {
            return;
        };
        self.gone += 1;
        self.begun = match first {
            Item::Message { at, .. } | Item::Mark { at, .. } => at,
            Item::State { at, node, state } => {
                self.states.0.insert(node, state);
                at
            }
            Item::Cuts { at, cuts } => {
                self.cuts.0 = cuts;
                at
            }
        };
    }

    pub(crate) fn mark(&mut self, at: Nanos, node: Option<NodeId>, topic: Topic, words: &str) {
        let words = words.to_owned();
        let mark = Item::Mark {
            at,
            node,
            topic,
            words,
        };
        self.push(at, mark);
    }

    pub(crate) fn sent(&mut self, at: Nanos, pair: Pair, message: &PeerMessage) -> Number {
        let number = self.gone + self.items.len() as u64;
        let (class, words, ends) = (class(message), Short(message).to_string(), Vec::new());
        let message = Item::Message {
            at,
            pair,
            class,
            words,
            ends,
        };
        self.push(at, message);
        number
    }

    /// A message has reached its end (once more, if it was doubled), or was lost.
    pub(crate) fn ended(&mut self, at: Nanos, number: Number, whole: bool) {
        let place = number.checked_sub(self.gone).map(|place| place as usize);
        if let Some(Item::Message { ends, .. }) = place.and_then(|place| self.items.get_mut(place)) {
            ends.push((at, whole));
        }
    }

    /// A node is in this state now.
    pub(crate) fn state(&mut self, at: Nanos, node: NodeId, state: State) {
        if self.states.1.insert(node, state) != Some(state) {
            self.push(at, Item::State { at, node, state });
        }
    }

    /// Machines that are not `there` any longer run nothing.
    pub(crate) fn gone(&mut self, at: Nanos, there: impl Fn(NodeId) -> bool) {
        let running = self.states.1.iter().filter(|(_, state)| state.look != Look::Dark);
        let gone: Vec<NodeId> = running.map(|(id, _)| *id).filter(|id| !there(*id)).collect();
        for id in gone {
            let state = State {
                look: Look::Dark,
                term: Term::ZERO,
                stalled: false,
            };
            self.state(at, id, state);
        }
    }

    /// A running node has this commit index now; `None` for one that does not run.
    pub(crate) fn commit(&mut self, at: Nanos, node: NodeId, commit: Option<Index>) {
        let Some(commit) = commit else {
            self.commits.remove(&node);
            return;
        };
        if self
            .commits
            .insert(node, commit)
            .is_some_and(|before| before < commit)
        {
            self.mark(at, Some(node), Topic::Commit, &format!("commit {commit}"));
        }
    }

    /// These links are cut now.
    pub(crate) fn cut(&mut self, at: Nanos, cuts: impl Iterator<Item = Pair>) {
        let cuts: BTreeSet<Pair> = cuts.collect();
        if cuts != self.cuts.1 {
            self.cuts.1 = cuts.clone();
            self.push(at, Item::Cuts { at, cuts });
        }
    }
}

fn class(message: &PeerMessage) -> Class {
    match message {
        PeerMessage::Raft(message) => match message.body {
            Body::PreVote { .. }
            | Body::PreVoteResponse { .. }
            | Body::Vote { .. }
            | Body::VoteResponse { .. }
            | Body::NewerTerm
            | Body::TimeoutNow => Class::Vote,
            Body::Append { .. } | Body::Appended { .. } | Body::Conflict { .. } | Body::Commit { .. } => {
                Class::Append
            }
            Body::Heartbeat { .. } | Body::HeartbeatResponse { .. } => Class::Heartbeat,
            Body::ReadIndex { .. } | Body::ReadIndexResponse { .. } => Class::Read,
            Body::InstallSnapshot { .. } => Class::Snapshot,
        },
        PeerMessage::Append { .. } => Class::Append,
        PeerMessage::Forward { .. }
        | PeerMessage::Refuse { .. }
        | PeerMessage::Accept { .. }
        | PeerMessage::Reconfigure { .. }
        | PeerMessage::Reconfigured { .. } => Class::Forward,
        PeerMessage::SnapshotBegin { .. }
        | PeerMessage::SnapshotChunk { .. }
        | PeerMessage::SnapshotAck { .. } => Class::Snapshot,
    }
}

#[cfg(test)]
mod tests;
