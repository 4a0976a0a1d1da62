//! What one node's disk holds: the durable image that a restart starts from, and the writes on their way into it.
//! Entries carry ghost payloads, unique numbers in place of bytes, so that one entry taken for another is seen.

use quorate_base::{Index, LogId, NodeId, Term};
use quorate_raft::{EntryShape, HardState, Limits, Priority, Restored, SnapMeta, Write};

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub shape: EntryShape,
    pub payload: Payload,
}

/// A log write with its payloads filled in.
#[derive(Clone, Debug)]
pub struct FilledWrite {
    pub write: Write,
    pub entries: Vec<Entry>,
}

/// A state machine: how far it is, and a digest of everything it applied in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    pub applied: Index,
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
#[derive(Clone, Debug, Default)]
pub struct Image {
    pub hard: HardState,
    pub base: SnapMeta,
    pub entries: Vec<Entry>,
    pub machine: Machine,
    pub staged: Option<(SnapMeta, Machine)>,
}

impl Image {
    pub fn last_index(&self) -> Index {
        Index(self.base.last.index.0 + self.entries.len() as u64)
    }

    pub fn entry(&self, index: Index) -> Option<&Entry> {
        let at = index.0.checked_sub(self.base.last.index.0 + 1)?;
        self.entries.get(at as usize)
    }

    pub fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.base.last.index {
            return Some(self.base.last.term);
        }
        self.entry(index).map(|entry| entry.shape.term)
    }

    /// The entries after `index` go; they are handed back for the checks.
    fn cut(&mut self, index: Index) -> Vec<(Index, Entry)> {
        assert!(
            index >= self.base.last.index,
            "the disk is never cut into its snapshot"
        );
        let at = (index.0 - self.base.last.index.0) as usize;
        assert!(
            at <= self.entries.len(),
            "truncation after {index}, beyond what was written"
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
                "only what is staged durably is installed"
            );
            self.base = (**meta).clone();
            self.entries.clear();
        }
        if let Some(index) = write.truncate_after {
            gone = self.cut(index);
        }
        if let Some(range) = write.append {
            assert_eq!(range.prev.index, self.last_index(), "the log on disk has no gap");
            assert_eq!(
                Some(range.prev.term),
                self.term_at(range.prev.index),
                "the log on disk is one log"
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

    /// Drops the log up to `index`, which the durable machine covers.
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
    pub fn restored(&mut self, id: NodeId, nonce: u64, limits: Limits) -> Restored {
        if self.base.last.index > self.machine.applied {
            let (meta, machine) = self.staged.clone().expect("what was installed is staged");
            assert_eq!(meta, self.base, "what was installed is what is staged");
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
            leases: false,
            limits,
        }
    }
}
