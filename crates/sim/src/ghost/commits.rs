//! C, the sequence of everything ever committed, and the bytes of every entry ever written: the two things that never
//! change. Append-only by construction.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_base::{Index, LogId, Term};

use super::Violation;

/// One committed entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Commit {
    term: Term,
    /// Hash of the log up to here.
    hash: u64,
    /// The term of the node that was first to know.
    known_in: Term,
}

/// C, and all entries by name.
#[derive(Clone, Debug, Default)]
pub struct Commits {
    sequence: Vec<Commit>,
    entries: BTreeMap<LogId, Bytes>,
}

impl Commits {
    /// The length of C, which is also the largest index ever committed.
    pub fn last(&self) -> Index {
        Index(self.sequence.len() as u64)
    }

    fn get(&self, index: Index) -> Option<&Commit> {
        self.sequence.get(index.0.checked_sub(1)? as usize)
    }

    /// The hash of C up to `index`.
    pub fn hash_at(&self, index: Index) -> Option<u64> {
        if index == Index::ZERO {
            return Some(0);
        }
        self.get(index).map(|commit| commit.hash)
    }

    /// The term of C's entry at `index`.
    pub fn term_at(&self, index: Index) -> Option<Term> {
        self.get(index).map(|commit| commit.term)
    }

    /// The last index that was known to be committed in a term before `term` (S4).
    pub fn known_before(&self, term: Term) -> Index {
        let after = self.sequence.iter().rposition(|commit| commit.known_in < term);
        Index(after.map_or(0, |slot| slot as u64 + 1))
    }

    /// A node of term `known_in` takes the entry after C's last for committed.
    pub fn push(&mut self, term: Term, hash: u64, known_in: Term) {
        self.sequence.push(Commit { term, hash, known_in });
    }

    /// An entry stands in somebody's log: the first to say fixes its bytes (S2: a log id names one entry).
    pub fn name(&mut self, at: LogId, body: &Bytes) -> Result<(), Violation> {
        match self.entries.get(&at) {
            None => drop(self.entries.insert(at, body.clone())),
            Some(known) if known == body => {}
            Some(_) => return Violation::because("S2", format!("two different entries are named {at}")),
        }
        Ok(())
    }

    /// The body of the entry of this name.
    pub fn body(&self, at: LogId) -> Option<&Bytes> {
        self.entries.get(&at)
    }
}
