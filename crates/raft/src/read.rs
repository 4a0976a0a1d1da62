//! Linearizable reads by ReadIndex (§6.4): on the leader, batched in confirmation rounds; on a follower, forwarded.

use std::collections::VecDeque;

use quorate_base::{Index, NodeId};

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
            None => self.early.push(reader),
        }
    }

    /// An entry of the leader's own term is committed now, at `commit`.
    pub fn commit_known(&mut self, commit: Index, round: Round) {
        for reader in self.early.drain(..) {
            self.waiting.push_back((round + 1, commit, reader));
        }
    }

    /// Whether a round has to begin: some read needs one that has not begun, and none begun for reads is open. So
    /// all reads that come during one round share the next.
    pub fn wants_round(&self, round: Round, confirmed: Round) -> bool {
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
    asked: Option<(u64, Vec<u64>)>,
}

impl ForwardedReads {
    /// A read comes.
    pub fn push(&mut self, token: u64) {
        self.waiting.push(token);
    }

    /// Makes the next batch, if there is none out: it goes by the number `id`.
    pub fn ask(&mut self, id: u64) -> bool {
        if self.waiting.is_empty() || self.asked.is_some() {
            return false;
        }
        self.asked = Some((id, std::mem::take(&mut self.waiting)));
        true
    }

    /// No answer came in time: the batch joins those that wait, to be asked again under a new number. Its reads
    /// only get newer by that.
    pub fn retry(&mut self) {
        if let Some((_, tokens)) = self.asked.take() {
            self.waiting.splice(0..0, tokens);
        }
    }

    /// The leader answered batch `id`. An answer to any other batch is late and says nothing.
    pub fn answered(&mut self, id: u64) -> Vec<u64> {
        match self.asked.take_if(|asked| asked.0 == id) {
            Some((_, tokens)) => tokens,
            None => Vec::new(),
        }
    }

    /// All that wait: the leader changed.
    pub fn drain(&mut self) -> impl Iterator<Item = u64> {
        let asked = self.asked.take().map(|asked| asked.1).unwrap_or_default();
        asked.into_iter().chain(self.waiting.drain(..))
    }
}
