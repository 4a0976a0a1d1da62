//! What a leader knows of one peer's log, and how it sends to it (§3.5, §10.2.1: pipelining).

use std::collections::VecDeque;

use quorate_base::Index;
use quorate_marks::reached;

use crate::message::{Priority, Round};

/// A leader's view of one peer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Progress {
    /// The peer's log is known to equal the leader's, durably, up to here. Never falls within a term.
    pub matched: Index,
    /// The next entry to send; above `matched`.
    pub next: Index,
    /// How entries are being sent.
    pub pace: Pace,
    /// The last confirmation round that the peer answered.
    pub round: Round,
    /// Heard from since the last check-quorum; in this term, so that nobody is taken for alive who was not heard of.
    pub active: bool,
    /// Heard from between the last two.
    pub was_active: bool,
    /// How gladly it leads, as it last said; least of all until it says so.
    pub priority: Priority,
    /// The largest commit index the peer was told.
    pub told_commit: Index,
    /// The round in progress when the last Append was sent. A peer that answers a later round and does not have the
    /// entries never got them.
    pub sent_in: Round,
}

/// How entries are being sent to a peer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Pace {
    /// The match is being looked for: one Append, then wait for its answer.
    Probe {
        /// An Append is out, or the link was found broken: wait for an answer or the next heartbeat's.
        waiting: bool,
    },
    /// The match is known: send ahead without waiting, within limits.
    Replicate {
        /// Last index and bytes of each Append that has not been answered.
        in_flight: VecDeque<(Index, u64)>,
        /// The bytes in flight.
        bytes: u64,
    },
    /// The peer needs a snapshot, which is on its way beside the core.
    Snapshot,
}

impl Progress {
    /// A peer of which nothing is known yet; sending starts optimistically at `next`.
    pub fn new(next: Index) -> Progress {
        Progress {
            matched: Index::ZERO,
            next,
            pace: Pace::Probe { waiting: false },
            round: 0,
            active: false,
            was_active: false,
            priority: Priority::Low,
            told_commit: Index::ZERO,
            sent_in: 0,
        }
    }

    /// Whether it was heard from lately.
    pub fn is_alive(&self) -> bool {
        self.active || self.was_active
    }

    /// The peer acknowledged everything up to `upto`. Returns whether that is news.
    pub fn acknowledge(&mut self, upto: Index) -> bool {
        let news = upto > self.matched;
        reached!("raft.ack.of_the_known", !news);
        self.matched = self.matched.max(upto);
        self.next = self.next.max(self.matched.next());
        match &mut self.pace {
            Pace::Replicate { in_flight, bytes } => {
                while in_flight.front().is_some_and(|sent| sent.0 <= upto) {
                    *bytes -= in_flight.pop_front().expect("just seen").1;
                }
            }
            // The answer to the probe, so the match is found. An old answer proves no less.
            Pace::Probe { .. } => {
                self.next = self.matched.next();
                self.pace = Pace::Replicate {
                    in_flight: VecDeque::new(),
                    bytes: 0,
                };
            }
            Pace::Snapshot => reached!("raft.ack.during_snapshot"),
        }
        news
    }

    /// Go back to looking for the match at `next`, waiting for a sign of life first if `waiting`.
    pub fn probe(&mut self, next: Index, waiting: bool) {
        self.next = next.max(self.matched.next());
        self.pace = Pace::Probe { waiting };
    }

    /// Entries up to `last` have been sent while `round` was in progress.
    pub fn sent(&mut self, last: Index, size: u64, round: Round) {
        self.sent_in = round;
        match &mut self.pace {
            Pace::Probe { waiting } => *waiting = true,
            Pace::Replicate { in_flight, bytes } => {
                in_flight.push_back((last, size));
                *bytes += size;
                self.next = last.next();
            }
            Pace::Snapshot => {}
        }
    }

    /// `next > matched`, and what is in flight is in order and beyond the match (S7: sent ≥ match).
    pub fn check(&self) {
        assert!(
            self.next > self.matched,
            "next {} is above match {}",
            self.next,
            self.matched
        );
        if let Pace::Replicate { in_flight, bytes } = &self.pace {
            assert_eq!(
                *bytes,
                in_flight.iter().map(|sent| sent.1).sum::<u64>(),
                "bytes in flight add up"
            );
            assert!(
                in_flight
                    .iter()
                    .zip(in_flight.iter().skip(1))
                    .all(|(a, b)| a.0 < b.0),
                "in order"
            );
            assert!(
                in_flight
                    .iter()
                    .all(|sent| sent.0 > self.matched && sent.0 < self.next),
                "beyond the match"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::tests::refuses;

    #[test]
    fn an_acknowledgement_is_news_once() {
        let mut peer = Progress::new(Index(5));
        let news = [3, 3, 2, 4].map(|upto| peer.acknowledge(Index(upto)));
        assert_eq!(news, [true, false, false, true]);
        assert_eq!((peer.matched, peer.next), (Index(4), Index(5)));
    }

    #[test]
    fn a_view_of_a_peer_that_cannot_be_is_named() {
        let sound = || {
            let mut peer = Progress::new(Index(1));
            peer.acknowledge(Index(2));
            peer.sent(Index(4), 20, 1);
            peer.sent(Index(6), 20, 1);
            peer.check();
            peer
        };
        type Spoil = fn(&mut Progress);
        let broken: [(&str, Spoil); 4] = [
            ("above match", |peer| peer.matched = Index(7)),
            ("add up", |peer| {
                peer.pace = Pace::Replicate {
                    in_flight: [(Index(4), 20)].into(),
                    bytes: 21,
                };
            }),
            ("in order", |peer| {
                peer.pace = Pace::Replicate {
                    in_flight: [(Index(6), 0), (Index(4), 0)].into(),
                    bytes: 0,
                };
            }),
            ("beyond the match", |peer| peer.matched = Index(4)),
        ];
        for (why, spoil) in broken {
            let mut peer = sound();
            spoil(&mut peer);
            refuses(why, || peer.check());
        }
    }
}
