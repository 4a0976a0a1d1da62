//! The log of one node as the checker sees it: terms and chained hashes of entry bodies, built from the very records that
//! the node hands to its disk. Two logs with equal hashes at an index are equal up to there.

use bytes::Bytes;
use quorate_base::{Index, LogId, Term};
use quorate_node::entry::{self, Content, Entry};
use quorate_node::stored::{Mark, decode_state};
use quorate_raft::{Config, HardState, SnapMeta};
use quorate_wal::Record;

use super::Violation;
use super::commits::Commits;
use crate::rng;

/// Everything in a log's records, as of some record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GhostLog {
    /// The last hard state.
    pub hard: HardState,
    /// The last mark: where the log starts, as far as the records say.
    pub mark: SnapMeta,
    /// The entry before the first one known here. Compaction does not move it; only an install does.
    base: LogId,
    base_hash: u64,
    terms: Vec<Term>,
    hashes: Vec<u64>,
    /// The configurations after the mark.
    configs: Vec<(Index, Config)>,
}

/// The configuration that an entry holds, if it holds one.
pub fn config_in(body: &Bytes) -> Option<Config> {
    match Entry::decode(body).ok()?.content {
        Content::Config(config) => Some(config),
        Content::Noop | Content::Command { .. } => None,
    }
}

/// The chained hash after an entry.
pub fn chain(before: u64, body: &[u8]) -> u64 {
    rng::hash(before, body)
}

impl GhostLog {
    /// An empty log that starts with `config`: the founding one, or an empty one for a node that joins.
    pub fn founded(config: Config) -> GhostLog {
        let mark = SnapMeta {
            last: LogId::ZERO,
            config,
        };
        GhostLog {
            mark,
            ..GhostLog::default()
        }
    }

    /// The configuration in force: the latest in the log, or that which the log starts with (S11).
    pub fn config(&self) -> &Config {
        self.configs.last().map_or(&self.mark.config, |last| &last.1)
    }

    /// The configurations after the mark, with their indexes.
    pub fn configs(&self) -> &[(Index, Config)] {
        &self.configs
    }

    /// The configuration before the last one.
    pub fn former_config(&self) -> &Config {
        let former = self.configs.len().checked_sub(2);
        former.map_or(&self.mark.config, |slot| &self.configs[slot].1)
    }

    /// The configuration in force at `index`, from the mark on.
    fn config_at(&self, index: Index) -> &Config {
        let after = self.configs.partition_point(|config| config.0 <= index);
        let before = after.checked_sub(1).map(|slot| &self.configs[slot].1);
        before.unwrap_or(&self.mark.config)
    }

    /// The last entry.
    pub fn last(&self) -> LogId {
        match self.terms.last() {
            Some(term) => LogId {
                term: *term,
                index: Index(self.base.index.0 + self.terms.len() as u64),
            },
            None => self.base,
        }
    }

    fn slot(&self, index: Index) -> Option<usize> {
        let slot = index.0.checked_sub(self.base.index.0 + 1)? as usize;
        (slot < self.terms.len()).then_some(slot)
    }

    /// The hash of the log up to `index`, if the log reaches from its base to there.
    pub fn hash_at(&self, index: Index) -> Option<u64> {
        if index == self.base.index {
            return Some(self.base_hash);
        }
        self.slot(index).map(|slot| self.hashes[slot])
    }

    /// The term of the entry at `index`.
    pub fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        self.slot(index).map(|slot| self.terms[slot])
    }

    /// Whether this log is known to equal C up to `index`. What lies under an installed snapshot counts as equal: the
    /// install was checked.
    pub fn holds(&self, index: Index, commits: &Commits) -> bool {
        index < self.base.index
            || self
                .hash_at(index)
                .is_some_and(|hash| commits.hash_at(index) == Some(hash))
    }

    /// Carries out one record.
    pub fn carry_out(&mut self, record: &Record, commits: &Commits) -> Result<(), Violation> {
        match record {
            Record::Entry { index, body } => self.push(*index, body),
            Record::State(body) => {
                self.hard = decode_state(body).map_err(|e| Violation::new("records", e.to_string()))?;
                Ok(())
            }
            Record::Truncate { after } => self.truncate(*after),
            Record::Mark { index, body } => {
                let mark =
                    Mark::decode(*index, body).map_err(|e| Violation::new("records", e.to_string()))?;
                self.start_after(mark.meta, commits)
            }
        }
    }

    fn push(&mut self, index: Index, body: &Bytes) -> Result<(), Violation> {
        let last = self.last();
        let Some(at) = entry::id_of(body) else {
            return Violation::because("records", format!("the entry {index} has no readable id"));
        };
        if at.index != index || index != last.index.next() {
            return Violation::because("records", format!("entry {at} at {index} after {last}"));
        }
        if at.term < last.term {
            return Violation::because("S10", format!("terms fall: {at} after {last}"));
        }
        let before = self.hash_at(last.index).expect("the last entry has a hash");
        self.terms.push(at.term);
        self.hashes.push(chain(before, body));
        self.configs.extend(config_in(body).map(|config| (index, config)));
        Ok(())
    }

    fn truncate(&mut self, after: Index) -> Result<(), Violation> {
        let Some(kept) = after.0.checked_sub(self.base.index.0) else {
            return Violation::because(
                "S9",
                format!("truncation to {after} below the base {}", self.base),
            );
        };
        self.terms.truncate(kept as usize);
        self.hashes.truncate(kept as usize);
        self.configs.retain(|config| config.0 <= after);
        Ok(())
    }

    fn start_after(&mut self, meta: SnapMeta, commits: &Commits) -> Result<(), Violation> {
        let at = meta.last;
        if at.index.0 > 0 && commits.term_at(at.index) != Some(at.term) {
            return Violation::because(
                "S12",
                format!("the log starts after {at}, which was not committed"),
            );
        }
        let (since, right) = commits.config_at(at.index);
        // A node that joins knows no configuration before the first one in the log: the founding one is in no entry.
        let expected = if at.index > self.last().index {
            right
        } else {
            self.config_at(at.index)
        };
        if meta.config != *expected || (since > Index::ZERO && *expected != *right) {
            let config = &meta.config;
            return Violation::because(
                "S12",
                format!("the log starts after {at} with {config:?}, right is {right:?}"),
            );
        }
        if at.index > self.last().index {
            self.base = at;
            self.base_hash = commits.hash_at(at.index).expect("it was committed");
            self.terms.clear();
            self.hashes.clear();
        } else if !self.holds(at.index, commits) {
            return Violation::because(
                "S12",
                format!("the log was compacted to {at} and held another entry"),
            );
        }
        self.configs.retain(|config| config.0 > at.index);
        self.mark = meta;
        Ok(())
    }

    /// Whether `found`, the stream of a recovery, is what these records amount to.
    pub fn matches(&self, found: &Recovered) -> bool {
        let start = found.mark.as_ref().map_or(LogId::ZERO, |meta| meta.last);
        let Some(mut hash) = self.hash_at(start.index) else {
            return false;
        };
        for body in &found.entries {
            hash = chain(hash, body);
        }
        let last = Index(start.index.0 + found.entries.len() as u64);
        found.mark.as_ref().is_none_or(|meta| *meta == self.mark)
            && start == self.mark.last
            && found.hard.unwrap_or_default() == self.hard
            && last == self.last().index
            && self.hash_at(last) == Some(hash)
    }
}

/// What the log of a starting node said.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// The mark, if there was one.
    pub mark: Option<SnapMeta>,
    /// The hard state, if there was one.
    pub hard: Option<HardState>,
    /// The bodies of all entries.
    pub entries: Vec<Bytes>,
}

impl Recovered {
    /// Takes one record of the recovery.
    pub fn record(&mut self, record: &Record) -> Result<(), Violation> {
        let unreadable = |e: quorate_node::DecodeError| Violation::new("S20", e.to_string());
        match record {
            Record::Entry { body, .. } => self.entries.push(body.clone()),
            Record::State(body) => self.hard = Some(decode_state(body).map_err(unreadable)?),
            Record::Mark { index, body } => {
                self.mark = Some(Mark::decode(*index, body).map_err(unreadable)?.meta);
            }
            Record::Truncate { .. } => {
                return Violation::because(
                    "S20",
                    "recovery shows a truncation instead of carrying it out".into(),
                );
            }
        }
        Ok(())
    }
}
