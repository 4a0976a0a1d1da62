//! The tail cache: the bodies of the newest entries, bounded in bytes. What is not durable yet is always here;
//! older entries are read from the log when a slow follower or a restarted state machine needs them.

use std::collections::VecDeque;

use bytes::Bytes;
use quorate_base::{Index, LogId, Term};
use quorate_marks::reached;
use quorate_raft::Log;

/// The bodies of a run of entries that ends with the log.
#[derive(Debug)]
pub(crate) struct Tail {
    /// Index of the first body, if there is one.
    first: Index,
    bodies: VecDeque<(Term, Bytes)>,
    bytes: usize,
    limit: usize,
    /// The log's epoch that the bodies were last compared with.
    epoch: u64,
}

impl Tail {
    pub(crate) fn new(limit: usize) -> Tail {
        Tail {
            first: Index::ZERO,
            bodies: VecDeque::new(),
            bytes: 0,
            limit,
            epoch: 0,
        }
    }

    /// Where the next body belongs.
    fn next(&self) -> Index {
        Index(self.first.0 + self.bodies.len() as u64)
    }

    /// Drops what a truncation or an install removed from the log.
    pub(crate) fn sync(&mut self, log: &Log) {
        if self.epoch == log.epoch() {
            return;
        }
        self.epoch = log.epoch();
        while let Some((term, body)) = self.bodies.back() {
            let at = LogId {
                term: *term,
                index: self.next().prev(),
            };
            if log.contains(at) {
                break;
            }
            reached!("node.tail.truncated");
            self.bytes -= body.len();
            self.bodies.pop_back();
        }
    }

    /// Keeps the body of an entry that is in the log. Known entries and those before the cache are passed over.
    pub(crate) fn put(&mut self, at: LogId, body: Bytes) {
        if self.bodies.is_empty() {
            self.first = at.index;
        }
        if at.index < self.next() {
            reached!("node.tail.before_the_cache", at.index < self.first);
            if let Some((term, _)) = self.slot(at.index) {
                assert_eq!(
                    *term, at.term,
                    "the cache holds another entry at {at}: it was not synced with the log"
                );
            }
            return;
        }
        assert_eq!(at.index, self.next(), "the tail cache has no gaps");
        self.bytes += body.len();
        self.bodies.push_back((at.term, body));
    }

    fn slot(&self, index: Index) -> Option<&(Term, Bytes)> {
        let offset = index.0.checked_sub(self.first.0)?;
        self.bodies.get(usize::try_from(offset).ok()?)
    }

    /// The bodies from `first` up to `last` that are here, at most `max_bytes` of them but at least one.
    pub(crate) fn run(&self, first: Index, last: Index, max_bytes: usize) -> Vec<Bytes> {
        let mut run = Vec::new();
        let mut bytes = 0;
        for body in self.bodies(first, last) {
            bytes += body.len();
            if bytes > max_bytes && !run.is_empty() {
                reached!("node.tail.run_cut");
                break;
            }
            run.push(body.clone());
        }
        run
    }

    /// The bodies from `first` up to `last`, or none if that of `first` is not here; fewer if the cache ends before.
    pub(crate) fn bodies(&self, first: Index, last: Index) -> impl Iterator<Item = &Bytes> {
        let end = last.next().min(self.next()).0.saturating_sub(self.first.0) as usize;
        let start = first
            .0
            .checked_sub(self.first.0)
            .map_or(end, |offset| offset as usize);
        self.bodies.range(start.min(end)..end).map(|(_, body)| body)
    }

    /// Lets go of the oldest bodies that the log has durably up to `durable`, until the limit is kept.
    pub(crate) fn evict(&mut self, durable: Index) {
        while self.bytes > self.limit && self.first <= durable {
            reached!("node.tail.evicts");
            let Some((_, body)) = self.bodies.pop_front() else {
                return;
            };
            self.bytes -= body.len();
            self.first = self.first.next();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_raft::SnapMeta;

    fn body(n: u8) -> Bytes {
        vec![n; 10].into()
    }

    fn get(tail: &Tail, index: u64) -> Option<&Bytes> {
        tail.bodies(Index(index), Index(index)).next()
    }

    fn cache(limit: usize, last: u64) -> Tail {
        let mut tail = Tail::new(limit);
        (5..=last).for_each(|i| tail.put(LogId::new(1, i), body(i as u8)));
        tail
    }

    #[test]
    fn a_run_is_bounded_and_never_skips() {
        let tail = cache(1000, 9);
        assert_eq!(tail.run(Index(6), Index(9), 25), [body(6), body(7)]);
        assert_eq!(tail.run(Index(6), Index(6), 1), [body(6)], "at least one");
        assert_eq!(tail.run(Index(9), Index(12), 100), [body(9)], "what is there");
        assert!(
            tail.run(Index(4), Index(9), 100).is_empty(),
            "never from the middle"
        );
    }

    #[test]
    fn what_is_not_durable_stays_whatever_the_limit() {
        let mut tail = cache(10, 9);
        tail.evict(Index(7));
        assert!(get(&tail, 7).is_none());
        assert_eq!(get(&tail, 8), Some(&body(8)));
        tail.evict(Index(9));
        assert_eq!(get(&tail, 9), Some(&body(9)), "the limit is kept again");
        tail.put(LogId::new(1, 3), body(3));
        assert!(
            get(&tail, 3).is_none(),
            "what lies before the cache is passed over"
        );
    }

    #[test]
    fn truncated_entries_leave_with_the_log() {
        let mut tail = cache(1000, 9);
        let mut log = Log::new(SnapMeta::default(), &[]);
        (1..=9).for_each(|_| _ = log.append(Term(1), 10, None));
        log.truncate_after(Index(6));
        tail.sync(&log);
        assert_eq!((get(&tail, 6), get(&tail, 7)), (Some(&body(6)), None));
        tail.put(log.append(Term(2), 10, None), body(70));
        assert_eq!(get(&tail, 7), Some(&body(70)));
        log.install(SnapMeta {
            last: LogId::new(2, 20),
            ..SnapMeta::default()
        });
        tail.sync(&log);
        tail.put(LogId::new(2, 21), body(21));
        assert_eq!(
            get(&tail, 21),
            Some(&body(21)),
            "after an install the cache starts afresh"
        );
    }

    #[test]
    #[should_panic(expected = "no gaps")]
    fn a_gap_is_a_bug() {
        cache(1000, 9).put(LogId::new(1, 11), body(11));
    }
}
