//! Linearizable reads by ReadIndex (§6.4): on the leader, batched in confirmation rounds; on a follower, forwarded.

use std::collections::VecDeque;

use quorate_base::{Index, NodeId};
use quorate_marks::reached;

use crate::message::Round;

/// Who asked for a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reader {
    /// A client here.
    Local(u64),
    /// A follower's batch.
    Peer(NodeId, u64),
}

/// Reads at the leader, waiting for a round that began after they came.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ReadQueue {
    /// They came before an entry of this term was committed: the leader does not yet know what is committed
    /// (§6.4 step 1), so they have no index.
    early: Vec<Reader>,
    /// Reader, its index, and the first round that counts for it; rounds never fall along the queue.
    waiting: VecDeque<(Round, Index, Reader)>,
    /// The last round begun for the sake of reads.
    begun: Round,
}

impl ReadQueue {
    /// A read that comes while `round` is the last one begun. `commit` is the commit index if it is of the leader's own term.
    pub fn push(&mut self, reader: Reader, commit: Option<Index>, round: Round) {
        match commit {
            Some(index) => self.waiting.push_back((round + 1, index, reader)),
            None => {
                reached!("raft.read.waits_for_own_term");
                self.early.push(reader);
            }
        }
    }

    /// An entry of the leader's own term is committed now, at `commit`.
    pub fn commit_known(&mut self, commit: Index, round: Round) {
        for reader in self.early.drain(..) {
            self.waiting.push_back((round + 1, commit, reader));
        }
    }

    /// Whether no read waits for a round.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether a round has to begin: some read needs one that has not begun, and none begun for reads is open. So
    /// all reads that come during one round share the next.
    pub fn wants_round(&self, round: Round, confirmed: Round) -> bool {
        reached!(
            "raft.read.waits_for_open_round",
            confirmed < self.begun && self.waiting.back().is_some_and(|last| last.0 > round)
        );
        self.waiting.back().is_some_and(|last| last.0 > round) && confirmed >= self.begun
    }

    /// `round` has begun for the sake of reads.
    pub fn round_begun(&mut self, round: Round) {
        self.begun = round;
    }

    /// The next read that the confirmation of all rounds up to `confirmed` lets through.
    pub fn pop(&mut self, confirmed: Round) -> Option<(Reader, Index)> {
        let (_, index, reader) = self.waiting.pop_front_if(|first| first.0 <= confirmed)?;
        Some((reader, index))
    }

    /// See [`Raft::rename`](crate::Raft::rename).
    #[cfg(feature = "check")]
    pub fn rename(&mut self, names: crate::Names) {
        let waiting = self.waiting.iter_mut().map(|waiting| &mut waiting.2);
        for reader in self.early.iter_mut().chain(waiting) {
            if let Reader::Peer(id, _) = reader {
                *id = names(*id);
            }
        }
    }

    /// See [`Raft::forget_repetitions`](crate::Raft::forget_repetitions).
    #[cfg(feature = "check")]
    pub fn forget_repetitions(&mut self) {
        let early = std::mem::take(&mut self.early);
        for reader in early {
            if !self.early.contains(&reader) {
                self.early.push(reader);
            }
        }
        let waiting = std::mem::take(&mut self.waiting);
        for reader in waiting {
            if !self.waiting.contains(&reader) {
                self.waiting.push_back(reader);
            }
        }
    }

    /// All that still wait: leadership is over.
    pub fn drain(&mut self) -> impl Iterator<Item = Reader> {
        self.early
            .drain(..)
            .chain(self.waiting.drain(..).map(|waiting| waiting.2))
    }
}

/// Reads at a follower: one batch is asked of the leader at a time, the others wait for the next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ForwardedReads {
    waiting: Vec<u64>,
    asked: Option<Asked>,
}

/// A batch that was asked of the leader. Its reads came before it was first asked, and none joins later, so that an answer to any
/// asking is good for all of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Asked {
    id: u64,
    tokens: Vec<u64>,
    /// To be asked (again) at the next drain.
    due: bool,
}

impl ForwardedReads {
    /// A read comes.
    pub fn push(&mut self, token: u64) {
        self.waiting.push(token);
    }

    /// The number of the batch that is to be asked now, if any. A new one is made if none is out; it goes by `new`.
    pub fn ask(&mut self, new: u64) -> Option<u64> {
        if self.asked.is_none() && !self.waiting.is_empty() {
            self.asked = Some(Asked {
                id: new,
                tokens: std::mem::take(&mut self.waiting),
                due: true,
            });
        }
        let asked = self.asked.as_mut().filter(|asked| asked.due)?;
        asked.due = false;
        Some(asked.id)
    }

    /// No answer came in time: the batch is asked again, under its number. With a new one, a link slower than the timer
    /// would never get an answer through.
    pub fn retry(&mut self) {
        if let Some(asked) = &mut self.asked {
            reached!("raft.read.asked_again");
            asked.due = true;
        }
    }

    /// The leader answered batch `id`. An answer to any other batch is late and says nothing.
    pub fn answered(&mut self, id: u64) -> Vec<u64> {
        reached!(
            "raft.read.answer_to_nobody",
            self.asked.as_ref().is_none_or(|asked| asked.id != id)
        );
        self.asked
            .take_if(|asked| asked.id == id)
            .map(|asked| asked.tokens)
            .unwrap_or_default()
    }

    /// All that wait: the leader changed.
    pub fn drain(&mut self) -> impl Iterator<Item = u64> {
        let asked = self.asked.take().map(|asked| asked.tokens).unwrap_or_default();
        asked.into_iter().chain(self.waiting.drain(..))
    }
}
