//! What one node's disk holds: the durable image that a restart starts from, and the writes on their way into it. Entries carry
//! ghost payloads, numbers in place of bytes, so that one entry taken for another is seen. A broken promise panics here with
//! the invariant's name; whoever steps the model catches that (`model`).

use quorate_base::{Index, LogId, NodeId, Term};
use quorate_raft::{EntryShape, HardState, Priority, Restored, SnapMeta, Write};

use crate::node::Rules;

/// What stands in an entry: a number that no other proposal has.
pub type Payload = u64;

/// The payload of the no-op at the start of a term.
pub fn noop(term: Term) -> Payload {
    1 << 63 | term.0
}

/// The payload of a configuration entry.
pub fn configuration(at: LogId) -> Payload {
    1 << 61 | at.term.0 << 32 | at.index.0
}

/// An entry on disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Term, size and configuration.
    pub shape: EntryShape,
    /// What stands in it.
    pub payload: Payload,
}

/// A log write with its payloads filled in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FilledWrite {
    /// As the core handed it out.
    pub write: Write,
    /// The entries to append.
    pub entries: Vec<Entry>,
}

/// A state machine: how far it is, and a digest of everything it applied in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Machine {
    /// The last entry applied.
    pub applied: Index,
    /// Of everything up to there.
    pub digest: u64,
}

impl Machine {
    /// Applies the next entry.
    pub fn apply(&mut self, id: LogId, payload: Payload) {
        assert_eq!(
            id.index,
            self.applied.next(),
            "entries are applied in order, each once (S14)"
        );
        self.applied = id.index;
        self.digest = digest(self.digest, id, payload);
    }
}

/// The digest after one more entry.
pub fn digest(before: u64, id: LogId, payload: Payload) -> u64 {
    [id.term.0, id.index.0, payload]
        .iter()
        .fold(before, |hash, word| {
            (hash.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        })
}

/// The durable image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Image {
    /// Term, vote and commit index, as last recorded.
    pub hard: HardState,
    /// Where the log starts.
    pub base: SnapMeta,
    /// The entries after that.
    pub entries: Vec<Entry>,
    /// The state machine, as last made durable.
    pub machine: Machine,
    /// A snapshot received whole, and not installed or just being so.
    pub staged: Option<(SnapMeta, Machine)>,
}

impl Image {
    /// Index of the last entry.
    pub fn last_index(&self) -> Index {
        Index(self.base.last.index.0 + self.entries.len() as u64)
    }

    /// The entry at `index`, if it is here.
    pub fn entry(&self, index: Index) -> Option<&Entry> {
        let at = index.0.checked_sub(self.base.last.index.0 + 1)?;
        self.entries.get(at as usize)
    }

    /// The term of the entry at `index`, the base included.
    pub fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.base.last.index {
            return Some(self.base.last.term);
        }
        self.entry(index).map(|entry| entry.shape.term)
    }

    /// Whether it has everything up to `last`.
    pub fn holds(&self, last: LogId) -> bool {
        self.base.last.index >= last.index || self.term_at(last.index) == Some(last.term)
    }

    /// The entries after `index` go; they are handed back for the checks.
    fn cut(&mut self, index: Index) -> Vec<(Index, Entry)> {
        assert!(
            index >= self.base.last.index,
            "the disk is never cut into its snapshot (S9)"
        );
        let at = (index.0 - self.base.last.index.0) as usize;
        assert!(
            at <= self.entries.len(),
            "truncation after {index}, beyond what was written (S9)"
        );
        let gone = self.entries.split_off(at);
        (index.0 + 1..).map(Index).zip(gone).collect()
    }

    /// Does one write, as a whole. Returns the entries that it removed.
    pub fn apply(&mut self, filled: &FilledWrite) -> Vec<(Index, Entry)> {
        let write = &filled.write;
        let mut gone = Vec::new();
        if let Some(meta) = &write.installed {
            assert!(
                self.staged.as_ref().is_some_and(|staged| staged.0 == **meta),
                "only what is staged durably is installed (S12)"
            );
            self.base = (**meta).clone();
            self.entries.clear();
        }
        if let Some(index) = write.truncate_after {
            gone = self.cut(index);
        }
        if let Some(range) = write.append {
            assert_eq!(
                (range.prev.index, Some(range.prev.term)),
                (self.last_index(), self.term_at(range.prev.index)),
                "the log on disk is one log without a gap (S9)"
            );
            self.entries.extend(filled.entries.iter().cloned());
        }
        if let Some(hard) = write.hard {
            assert!(hard.term >= self.hard.term, "the durable term never falls (S8)");
            if hard.term == self.hard.term && self.hard.vote.is_some() {
                assert_eq!(hard.vote, self.hard.vote, "one vote a term across restarts (S8)");
            }
            self.hard = hard;
        }
        gone
    }

    /// Drops the log up to `meta`, which the durable machine covers.
    pub fn compact(&mut self, meta: SnapMeta) {
        assert!(
            meta.last.index <= self.machine.applied,
            "compaction ≤ durable snapshot (S12)"
        );
        if meta.last.index > self.base.last.index {
            self.entries
                .drain(..(meta.last.index.0 - self.base.last.index.0) as usize);
            self.base = meta;
        }
    }

    /// What a restart finds. An install that was cut off before the machine was swapped is completed first.
    pub fn restored(&mut self, id: NodeId, nonce: u64, rules: &Rules) -> Restored {
        if self.base.last.index > self.machine.applied {
            let (meta, machine) = self.staged.clone().expect("what was installed is staged (S12)");
            assert_eq!(meta, self.base, "what was installed is what is staged (S12)");
            self.machine = machine;
        }
        Restored {
            id,
            hard: self.hard,
            base: self.base.clone(),
            entries: self.entries.iter().map(|entry| entry.shape.clone()).collect(),
            applied: self.machine.applied,
            nonce,
            priority: Priority::Normal,
            leases: rules.leases,
            limits: rules.limits.clone(),
        }
    }
}
