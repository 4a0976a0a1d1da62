//! The leader's lease (§6.4.1): while it lasts nobody else can have been elected, so reads need no round. The core says which rounds
//! began and were confirmed; here is the clock.
//!
//! A voter that answered a round gives no vote for one election timeout T of *its* clock, counted from when it got the message. The
//! leader counts from when it *sent* it, and only three quarters of T: so clocks may differ in rate by up to an eighth.

use std::collections::VecDeque;

use quorate_base::{Index, Term};
use quorate_marks::reached;
use quorate_raft::{Raft, Round};

use crate::config::NodeConfig;
use crate::event::Nanos;

/// What the clock says about this leader's rounds.
#[derive(Debug)]
pub(crate) struct Lease {
    /// How long it lasts; zero if leases are off.
    length: Nanos,
    term: Term,
    /// When the rounds that are not confirmed yet began.
    begun: VecDeque<(Round, Nanos)>,
    /// The lease lasts until just before this.
    until: Nanos,
}

impl Lease {
    pub(crate) fn new(config: &NodeConfig) -> Lease {
        Lease {
            length: if config.leases { config.election / 4 * 3 } else { 0 },
            term: Term::ZERO,
            begun: VecDeque::new(),
            until: 0,
        }
    }

    /// Rounds of the current term have begun, or were confirmed.
    pub(crate) fn follow(&mut self, now: Nanos, term: Term, begun: Option<Round>, confirmed: Option<Round>) {
        if self.length == 0 {
            return;
        }
        if term != self.term {
            reached!("node.lease.ended_by_term", self.until > 0);
            self.term = term;
            self.begun.clear();
            self.until = 0;
        }
        if let Some(round) = begun {
            self.begun.push_back((round, now));
        }
        let Some(confirmed) = confirmed else { return };
        while let Some((_, since)) = self.begun.pop_front_if(|begun| begun.0 <= confirmed) {
            self.until = self.until.max(since.saturating_add(self.length));
        }
    }

    /// From which index on this node may serve a read now without asking anybody.
    pub(crate) fn read_index(&self, now: Nanos, raft: &Raft) -> Option<Index> {
        reached!(
            "node.lease.ran_out",
            self.until > 0 && now >= self.until && raft.term() == self.term
        );
        let lasts = self.length > 0 && raft.term() == self.term && now < self.until;
        lasts.then(|| raft.lease_index()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_base::NodeId;

    fn lease(leases: bool) -> Lease {
        let mut config = NodeConfig::new(NodeId(1), 1, 1);
        (config.election, config.leases) = (1000, leases);
        Lease::new(&config)
    }

    #[test]
    fn it_is_counted_from_the_sending_of_the_confirmed_round() {
        let mut lease = lease(true);
        lease.follow(100, Term(1), Some(1), None);
        lease.follow(200, Term(1), Some(2), None);
        lease.follow(900, Term(1), Some(3), Some(2));
        assert_eq!(lease.until, 200 + 750);
        lease.follow(950, Term(1), None, Some(3));
        assert_eq!(lease.until, 900 + 750);
        lease.follow(960, Term(2), Some(1), None);
        assert_eq!(lease.until, 0, "another term, another lease");
    }

    #[test]
    fn without_the_option_there_is_none() {
        let mut lease = lease(false);
        lease.follow(100, Term(1), Some(1), Some(1));
        assert_eq!(lease.until, 0);
    }
}
