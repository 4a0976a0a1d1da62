//! Time, for the tests that need it: each node's own clock with its own rate, when its timers are due, and the leader's lease
//! (§6.4.1) as a driver counts it. Without these tests time does not exist, and timers fire when the test says so.

use std::collections::BTreeMap;

use quorate_base::{Index, NodeId, Term};
use quorate_raft::{Arm, Round, Timer};

use super::Cluster;

/// The minimum election timeout.
pub const T: u64 = 1000;
/// How long a lease lasts, from the sending of the confirmed round.
pub const LEASE: u64 = T / 4 * 3;
/// A clock of this rate runs true; the fastest runs an eighth faster.
pub const TRUE: u64 = 64;

/// One node's clock.
#[derive(Clone, Debug)]
pub struct Clock {
    /// What it shows, in 1/64.
    now: u64,
    /// 64 to 72.
    pub rate: u64,
    /// When each timer is due.
    due: BTreeMap<Timer, u64>,
    draws: u64,
    /// The term that the rounds are of, and when each began.
    rounds: (Option<Term>, BTreeMap<Round, u64>),
    /// Until when the lease lasts.
    lease: u64,
}

impl Default for Clock {
    fn default() -> Clock {
        Clock {
            now: 0,
            rate: TRUE,
            due: BTreeMap::new(),
            draws: 0,
            rounds: (None, BTreeMap::new()),
            lease: 0,
        }
    }
}

impl Clock {
    /// A crash takes everything but the time.
    pub fn after_crash(self) -> Clock {
        Clock {
            now: self.now,
            rate: self.rate,
            draws: self.draws,
            ..Clock::default()
        }
    }

    /// A timer is set or stopped.
    pub fn arm(&mut self, timer: Timer, arm: Arm) {
        if arm == Arm::Off {
            self.due.remove(&timer);
            return;
        }
        self.draws = self
            .draws
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e);
        let wait = match timer {
            Timer::Election => T + (self.draws >> 33) % T,
            Timer::Fresh | Timer::Quorum | Timer::Transfer => T,
            Timer::Heartbeat | Timer::Read => T / 10,
            Timer::Haste => T / 200,
        };
        self.due.insert(timer, self.now + wait * TRUE);
    }

    /// What a drain said about rounds, in the term that the node leads, if it does.
    pub fn rounds(&mut self, leads: Option<Term>, begun: Option<Round>, confirmed: Option<Round>) {
        if leads != self.rounds.0 || leads.is_none() {
            self.rounds = (leads, BTreeMap::new());
            self.lease = 0;
        }
        if let Some(round) = begun {
            self.rounds.1.insert(round, self.now);
        }
        if let Some(began) = confirmed.and_then(|round| self.rounds.1.get(&round)) {
            self.lease = self.lease.max(began + LEASE * TRUE);
        }
    }
}

impl Cluster {
    /// Time passes, as a true clock measures it.
    pub fn pass(&mut self, time: u64) {
        for node in self.nodes.values_mut() {
            node.clock.now += time * node.clock.rate;
        }
    }

    /// The timers of a node that have run out by its own clock.
    pub fn due(&self, id: NodeId) -> Vec<Timer> {
        let node = &self.nodes[&id];
        let due = |timer: &&Timer| {
            node.clock
                .due
                .get(timer)
                .is_some_and(|due| *due <= node.clock.now)
        };
        node.timers.iter().filter(due).copied().collect()
    }

    /// The index at which this node would serve a read by its lease, if it would.
    pub fn lease_read(&self, id: NodeId) -> Option<Index> {
        let node = &self.nodes[&id];
        let raft = node.raft.as_ref()?;
        (node.clock.rounds.0 == Some(raft.term()) && node.clock.now < node.clock.lease)
            .then(|| raft.lease_index())
            .flatten()
    }

    /// Nobody's lease read would be stale (S13). Returns how many would be served.
    pub fn check_leases(&self) -> u64 {
        let mut count = 0;
        for id in self.ids() {
            if let Some(index) = self.lease_read(id) {
                assert!(
                    index >= self.ghost.len(),
                    "n{id}'s lease would serve a read at {index}, but {} is committed (S13)",
                    self.ghost.len()
                );
                count += 1;
            }
        }
        count
    }
}
