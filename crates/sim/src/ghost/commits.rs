//! C, the sequence of everything ever committed, and the bytes of every entry ever written: the two things that never
//! change. Append-only by construction.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_base::{Index, LogId, Term};
use quorate_raft::Config;

use super::Violation;
use super::log::config_in;

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
    /// The configurations in C by index; the founding one at 0.
    configs: BTreeMap<Index, Config>,
}

impl Commits {
    /// Nothing is committed yet in a cluster that was founded with `config`.
    pub fn founded(config: Config) -> Commits {
        Commits {
            configs: BTreeMap::from([(Index::ZERO, config)]),
            ..Commits::default()
        }
    }

    /// The configuration that C says is in force at `index`, and the index where it stands.
    pub fn config_at(&self, index: Index) -> (Index, &Config) {
        let (at, config) = self
            .configs
            .range(..=index)
            .next_back()
            .expect("a founding configuration");
        (*at, config)
    }

    /// The last committed configuration.
    pub fn config(&self) -> &Config {
        self.config_at(self.last()).1
    }

    /// All committed configurations, the founding one first.
    pub fn configs(&self) -> impl Iterator<Item = &Config> {
        self.configs.values()
    }

    /// Whether an entry of `term` before `index` is committed.
    pub fn has_of_term(&self, term: Term, index: Index) -> bool {
        let before = (index.0 as usize).saturating_sub(1).min(self.sequence.len());
        let of_term = |commit: &Commit| commit.term == term;
        self.sequence[..before].iter().rev().any(of_term)
    }

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
        let at = LogId {
            term,
            index: self.last(),
        };
        let config = self.entries.get(&at).and_then(config_in);
        self.configs.extend(config.map(|config| (at.index, config)));
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
