//! The shape of the log: terms, sizes and configurations of its entries, without their bytes.
//!
//! The log starts after its *base*, the last entry covered by a snapshot or dropped by compaction. Terms are kept as
//! runs, since a term lasts for many entries; sizes as running totals, so that the bytes of any range are one subtraction.

use std::collections::VecDeque;

use quorate_base::{Index, LogId, Term};
use quorate_marks::reached;

use crate::config::Config;
use crate::effects::{Range, SnapMeta};
use crate::message::EntryShape;

/// The shape of one node's log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Log {
    base: SnapMeta,
    /// First index and term of each run of entries of one term, after the base.
    runs: VecDeque<(Index, Term)>,
    /// Bytes from the beginning of time up to and including each entry after the base.
    ends: VecDeque<u64>,
    /// The same total for the base.
    base_bytes: u64,
    /// Configuration entries after the base.
    configs: VecDeque<(Index, Config)>,
    epoch: u64,
}

impl Log {
    /// A log of `entries` after `base`.
    pub fn new(base: SnapMeta, entries: &[EntryShape]) -> Log {
        let mut log = Log {
            base,
            runs: VecDeque::new(),
            ends: VecDeque::with_capacity(entries.len()),
            base_bytes: 0,
            configs: VecDeque::new(),
            epoch: 0,
        };
        for entry in entries {
            log.append(entry.term, entry.size, entry.config.as_deref().cloned());
        }
        log
    }

    /// The last entry covered by a snapshot or dropped, and the configuration as of there.
    pub fn base(&self) -> &SnapMeta {
        &self.base
    }

    /// Index of the first entry held, if there is one; otherwise where it would be.
    pub fn first(&self) -> Index {
        self.base.last.index.next()
    }

    /// Index of the last entry.
    pub fn last_index(&self) -> Index {
        Index(self.base.last.index.0 + self.ends.len() as u64)
    }

    /// The last entry.
    pub fn last(&self) -> LogId {
        let term = self.runs.back().map_or(self.base.last.term, |run| run.1);
        LogId {
            term,
            index: self.last_index(),
        }
    }

    /// The term of the entry at `index`; `None` if it is beyond the end or was compacted away. Never a made-up 0 for a
    /// compacted entry, which could match by accident.
    pub fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.base.last.index {
            return Some(self.base.last.term);
        }
        if index < self.base.last.index || index > self.last_index() {
            return None;
        }
        // Nearly always it is the last one.
        let last = self.runs.back().filter(|run| run.0 <= index);
        let run = last.or_else(|| {
            let after = self.runs.partition_point(|run| run.0 <= index);
            self.runs.get(after - 1)
        });
        run.map(|run| run.1)
    }

    /// The entry at `index`, where [`term_at`](Log::term_at) knows it.
    pub fn id_at(&self, index: Index) -> Option<LogId> {
        self.term_at(index).map(|term| LogId { term, index })
    }

    /// Whether this log holds the entry `id` (or has it as its base).
    pub fn contains(&self, id: LogId) -> bool {
        self.term_at(id.index) == Some(id.term)
    }

    /// Advanced by every truncation and install; a [`Range`] of another epoch may name entries that are gone.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether `range` still names entries of this log.
    pub fn holds(&self, range: &Range) -> bool {
        range.epoch == self.epoch && self.contains(range.prev) && self.contains(range.last)
    }

    /// The entries after `prev` up to `last`, which must both be known.
    pub fn range(&self, prev: Index, last: Index) -> Range {
        let id = |index| self.id_at(index).expect("a range's ends are in the log");
        Range {
            prev: id(prev),
            last: id(last),
            epoch: self.epoch,
        }
    }

    /// Encoded bytes of the entries after `prev` up to `last`.
    pub fn bytes_between(&self, prev: Index, last: Index) -> u64 {
        self.end_of(last) - self.end_of(prev)
    }

    /// Bytes from the beginning of time up to the end.
    fn total(&self) -> u64 {
        self.ends.back().copied().unwrap_or(self.base_bytes)
    }

    fn end_of(&self, index: Index) -> u64 {
        match index.0.saturating_sub(self.base.last.index.0) {
            0 => self.base_bytes,
            n => self.ends[n as usize - 1],
        }
    }

    /// The largest last index such that the entries after `prev` up to it take at most `max_bytes`; at least one entry
    /// if there is any.
    pub fn last_within(&self, prev: Index, max_bytes: u64) -> Index {
        if prev >= self.last_index() {
            return prev;
        }
        let limit = self.end_of(prev).saturating_add(max_bytes);
        if self.total() <= limit {
            return self.last_index();
        }
        reached!("raft.append.split_by_size");
        let fitting = self.ends.partition_point(|end| *end <= limit) as u64;
        Index(self.base.last.index.0 + fitting).max(prev.next())
    }

    /// The shapes of the entries after `prev` up to `last`, as an Append carries them.
    pub fn shapes(&self, prev: Index, last: Index) -> Vec<EntryShape> {
        let mut before = self.end_of(prev);
        let no_config = self.configs_after(prev) == 0;
        let shape = |i| {
            let index = Index(i);
            let end = self.end_of(index);
            let size = (end - std::mem::replace(&mut before, end)) as u32;
            let config = match no_config {
                true => None,
                false => self.config_entry(index).map(|config| Box::new(config.clone())),
            };
            let term = self.term_at(index).expect("the entry is in the log");
            EntryShape { term, size, config }
        };
        (prev.0 + 1..=last.0).map(shape).collect()
    }

    /// The last entry at or before `index` whose term is at most `term`: where two logs that differ at `index` may still
    /// agree (§3.5, fast backtracking). `None` if that lies before the base.
    pub fn last_at_or_below(&self, index: Index, term: Term) -> Option<LogId> {
        let index = index.min(self.last_index());
        if index < self.base.last.index {
            reached!("raft.hint.before_base");
            return None;
        }
        // Terms never fall along the log, so the entries of a term above `term` are a suffix.
        let above = self.runs.partition_point(|run| run.1 <= term);
        let end = self.runs.get(above).map_or(index, |run| run.0.prev().min(index));
        self.id_at(end).filter(|id| id.term <= term)
    }

    /// Appends one entry.
    pub fn append(&mut self, term: Term, size: u32, config: Option<Config>) -> LogId {
        let last = self.last();
        assert!(
            term >= last.term,
            "terms never fall along the log: {term} after {last} (S10)"
        );
        let index = last.index.next();
        if term > last.term || self.runs.is_empty() {
            self.runs.push_back((index, term));
        }
        self.ends.push_back(self.total() + u64::from(size));
        if let Some(config) = config {
            self.configs.push_back((index, config));
        }
        LogId { term, index }
    }

    /// Removes all entries after `index`. A configuration among them is rolled back (§4.1).
    pub fn truncate_after(&mut self, index: Index) {
        assert!(
            index >= self.base.last.index,
            "truncation never reaches into a snapshot"
        );
        if index >= self.last_index() {
            return;
        }
        self.ends.truncate((index.0 - self.base.last.index.0) as usize);
        while self.runs.back().is_some_and(|run| run.0 > index) {
            self.runs.pop_back();
        }
        while self.configs.back().is_some_and(|config| config.0 > index) {
            reached!("raft.config.rolled_back");
            self.configs.pop_back();
        }
        self.epoch += 1;
    }

    /// Forgets the entries up to `index`, which becomes the base.
    pub fn compact(&mut self, index: Index) {
        if index <= self.base.last.index {
            return;
        }
        let last = self.id_at(index).expect("only entries of the log are compacted");
        let config = self.config_at(index).clone();
        self.base_bytes = self.end_of(index);
        self.ends.drain(..(index.0 - self.base.last.index.0) as usize);
        while self.runs.get(1).is_some_and(|run| run.0 <= index.next()) {
            self.runs.pop_front();
        }
        match self.runs.front_mut() {
            Some(run) if !self.ends.is_empty() => run.0 = run.0.max(index.next()),
            _ => self.runs.clear(),
        }
        while self.configs.front().is_some_and(|config| config.0 <= index) {
            self.configs.pop_front();
        }
        self.base = SnapMeta { last, config };
    }

    /// Replaces everything by a snapshot.
    pub fn install(&mut self, meta: SnapMeta) {
        reached!("raft.install.drops_entries", !self.ends.is_empty());
        reached!("raft.install.drops_config", !self.configs.is_empty());
        self.base = meta;
        self.runs.clear();
        self.ends.clear();
        self.configs.clear();
        self.epoch += 1;
    }

    /// The latest configuration in the log, committed or not: the one in force (§4.1).
    pub fn config(&self) -> &Config {
        self.configs.back().map_or(&self.base.config, |config| &config.1)
    }

    /// Where the configuration in force stands: its entry, or the base.
    pub fn config_index(&self) -> Index {
        self.configs
            .back()
            .map_or(self.base.last.index, |config| config.0)
    }

    /// All configurations that the log knows, the base's first.
    #[cfg(feature = "check")]
    pub(crate) fn configs(&self) -> impl Iterator<Item = &Config> {
        let entries = self.configs.iter().map(|(_, config)| config);
        std::iter::once(&self.base.config).chain(entries)
    }

    /// The configuration in force as of `index`, which is not before the base.
    pub fn config_at(&self, index: Index) -> &Config {
        let later = self.configs.partition_point(|config| config.0 <= index);
        match later {
            0 => &self.base.config,
            n => &self.configs[n - 1].1,
        }
    }

    /// Number of configuration entries after `index`.
    pub fn configs_after(&self, index: Index) -> usize {
        self.configs.len() - self.configs.partition_point(|config| config.0 <= index)
    }

    /// The configuration that the entry at `index` holds, if it is one.
    pub fn config_entry(&self, index: Index) -> Option<&Config> {
        let at = self
            .configs
            .binary_search_by_key(&index, |config| config.0)
            .ok()?;
        Some(&self.configs[at].1)
    }

    /// Counts bytes from the base on, and epochs from now on. Returns the epoch that was.
    #[cfg(feature = "check")]
    pub(crate) fn renumber(&mut self) -> u64 {
        let before = std::mem::take(&mut self.base_bytes);
        self.ends.iter_mut().for_each(|end| *end -= before);
        std::mem::take(&mut self.epoch)
    }

    /// Terms never fall, runs and totals fit the entries (S10).
    pub fn check(&self) {
        assert_eq!(
            self.runs.is_empty(),
            self.ends.is_empty(),
            "runs cover the entries"
        );
        if let Some(run) = self.runs.front() {
            assert_eq!(run.0, self.first(), "the first run starts at the first entry");
        }
        let mut before = (self.base.last.index, self.base.last.term);
        for (i, run) in self.runs.iter().enumerate() {
            assert!(run.0 > before.0, "runs start at rising indexes");
            assert!(
                if i == 0 {
                    run.1 >= before.1
                } else {
                    run.1 > before.1
                },
                "terms never fall (S10)"
            );
            before = *run;
        }
        assert!(
            self.configs
                .iter()
                .all(|c| c.0 >= self.first() && c.0 <= self.last_index()),
            "configs are entries"
        );
        assert!(
            self.configs
                .iter()
                .zip(self.configs.iter().skip(1))
                .all(|(a, b)| a.0 < b.0),
            "the last configuration is the latest (S11)"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::tests::refuses;

    fn log(base: (u64, u64), terms: &[u64]) -> Log {
        let base = SnapMeta {
            last: LogId::new(base.0, base.1),
            config: Config::default(),
        };
        let entries: Vec<_> = terms
            .iter()
            .map(|t| EntryShape {
                term: Term(*t),
                size: 10,
                config: None,
            })
            .collect();
        Log::new(base, &entries)
    }

    #[test]
    fn terms_are_known_from_the_base_to_the_end_and_nowhere_else() {
        let log = log((2, 5), &[2, 2, 3, 5]);
        let terms: Vec<_> = (4..=10).map(|i| log.term_at(Index(i)).map(Term::get)).collect();
        assert_eq!(terms, [None, Some(2), Some(2), Some(2), Some(3), Some(5), None]);
        assert_eq!(log.last(), LogId::new(5, 9));
        log.check();
    }

    #[test]
    fn truncation_and_compaction_keep_the_runs_right() {
        for keep in 0..=6 {
            for drop in 0..=keep {
                let terms = [1, 1, 2, 4, 4, 4];
                let mut log = log((0, 0), &terms);
                log.truncate_after(Index(keep));
                log.compact(Index(drop));
                log.check();
                assert_eq!(log.last_index(), Index(keep));
                for i in drop + 1..=keep {
                    assert_eq!(log.term_at(Index(i)), Some(Term(terms[i as usize - 1])));
                }
                assert_eq!(log.bytes_between(Index(drop), Index(keep)), 10 * (keep - drop));
                log.append(Term(7), 3, None);
                log.check();
                assert_eq!(log.last(), LogId::new(7, keep + 1));
            }
        }
    }

    #[test]
    fn the_hint_is_the_last_entry_that_may_agree() {
        let log = log((1, 2), &[1, 4, 4, 6, 6]);
        let hint = |index, term| log.last_at_or_below(Index(index), Term(term));
        assert_eq!(
            hint(9, 9),
            Some(LogId::new(6, 7)),
            "a short log answers with its end"
        );
        assert_eq!(
            hint(7, 5),
            Some(LogId::new(4, 5)),
            "all of term 6 is skipped at once"
        );
        assert_eq!(hint(6, 3), Some(LogId::new(1, 3)));
        assert_eq!(hint(6, 1), Some(LogId::new(1, 3)));
        assert_eq!(hint(1, 9), None, "before the base nothing is known");
    }

    #[test]
    fn a_message_takes_what_fits_and_at_least_one_entry() {
        let log = log((0, 0), &[1, 1, 1, 1]);
        assert_eq!(log.last_within(Index(0), 25), Index(2));
        assert_eq!(log.last_within(Index(2), 1), Index(3));
        assert_eq!(log.last_within(Index(4), 100), Index(4));
    }

    #[test]
    fn the_hint_may_be_the_base() {
        let log = log((2, 5), &[4, 6]);
        let hint = |index, term| log.last_at_or_below(Index(index), Term(term));
        assert_eq!(hint(5, 9), Some(LogId::new(2, 5)));
        assert_eq!(hint(7, 3), Some(LogId::new(2, 5)));
        assert_eq!(hint(7, 1), None, "the base is later than that");
        assert_eq!((hint(4, 9), hint(0, 9)), (None, None));
    }

    /// A range names entries, and not places where other entries may stand by now.
    #[test]
    fn a_range_is_held_as_long_as_its_entries_are() {
        let mut log = log((1, 2), &[1, 1, 2]);
        let range = log.range(Index(2), Index(4));
        assert!(log.holds(&range));
        assert_eq!(
            (range.first(), range.len(), range.is_empty()),
            (Index(3), 2, false)
        );
        let empty = log.range(Index(4), Index(4));
        assert_eq!((empty.len(), empty.is_empty()), (0, true));
        let foreign = |prev, last| Range { prev, last, ..range };
        assert!(!log.holds(&foreign(LogId::new(2, 2), range.last)));
        assert!(!log.holds(&foreign(range.prev, LogId::new(2, 4))));
        log.append(Term(2), 10, None);
        assert!(log.holds(&range), "more may follow");
        log.truncate_after(Index(4));
        assert!(log.contains(range.prev) && log.last() == range.last);
        assert!(!log.holds(&range), "after a truncation nobody can tell");
        let range = log.range(Index(2), Index(4));
        log.compact(Index(3));
        assert!(!log.holds(&range), "its beginning is gone");
    }

    #[test]
    fn configurations_go_with_their_entries_and_no_others() {
        let config = |id| Some(Config::of([quorate_base::NodeId(id)]));
        let mut log = log((1, 2), &[1]);
        for id in [4, 5, 6] {
            log.append(Term(1), 10, config(id));
        }
        let counts: Vec<_> = (2..=6).map(|i| log.configs_after(Index(i))).collect();
        assert_eq!(counts, [3, 3, 2, 1, 0]);
        log.check();
        log.truncate_after(Index(5));
        assert_eq!(
            (log.config_index(), log.config()),
            (Index(5), &config(5).unwrap())
        );
        log.compact(Index(4));
        assert_eq!((log.config_index(), log.configs_after(Index(4))), (Index(5), 1));
        assert_eq!(log.base().config, config(4).unwrap());
        log.truncate_after(Index(4));
        assert_eq!(
            (log.config_index(), log.config()),
            (Index(4), &config(4).unwrap())
        );
        log.check();
    }

    #[test]
    fn renumbering_changes_no_difference() {
        let mut log = log((1, 2), &[1, 1, 2, 2]);
        for keep in [5, 4] {
            log.truncate_after(Index(keep));
        }
        log.compact(Index(3));
        log.append(Term(2), 7, None);
        assert_eq!((log.renumber(), log.epoch()), (2, 0));
        assert_eq!(log.bytes_between(Index(3), Index(5)), 17);
        assert_eq!((log.renumber(), log.total()), (0, 17), "from the base on");
    }

    #[test]
    fn a_log_that_cannot_be_is_named() {
        let sound = || {
            let mut log = log((1, 2), &[1, 2, 2]);
            log.append(Term(2), 10, Some(Config::default()));
            log.append(Term(3), 10, Some(Config::default()));
            log.check();
            log
        };
        type Spoil = fn(&mut Log);
        let broken: [(&str, Spoil); 6] = [
            ("runs cover", |log| log.runs.clear()),
            ("first run", |log| log.runs[0].0 = Index(4)),
            ("rising indexes", |log| log.runs[1].0 = Index(3)),
            ("terms never fall", |log| log.runs[1].1 = Term(1)),
            ("configs are entries", |log| log.configs[1].0 = Index(8)),
            ("is the latest", |log| log.configs.swap(0, 1)),
        ];
        for (why, spoil) in broken {
            let mut log = sound();
            spoil(&mut log);
            refuses(why, || log.check());
        }
    }
}
