//! The core's timers on the driver's clock, and the randomness of elections (§3.4). The core says what to arm; here is
//! decided for how long.

use std::collections::BTreeMap;

use quorate_raft::{Arm, Priority, Timer};

use crate::config::NodeConfig;
use crate::event::Nanos;

/// Steps of a node in haste in one election timeout, and the longest: who is in haste is not for long, however patient the members are.
const HASTE: (Nanos, Nanos) = (200, 25_000_000);

/// When which timer runs out.
#[derive(Debug)]
pub(crate) struct Timers {
    due: BTreeMap<Timer, Nanos>,
    heartbeat: Nanos,
    election: Nanos,
    priority: Priority,
    random: u64,
}

impl Timers {
    pub(crate) fn new(config: &NodeConfig) -> Timers {
        Timers {
            due: BTreeMap::new(),
            heartbeat: config.heartbeat,
            election: config.election,
            priority: config.priority,
            random: config.seed,
        }
    }

    /// (Re)starts or stops a timer.
    pub(crate) fn arm(&mut self, now: Nanos, timer: Timer, arm: Arm) {
        match arm {
            Arm::Off => {
                self.due.remove(&timer);
            }
            Arm::Set => {
                let after = match timer {
                    Timer::Election => self.draw_election(),
                    Timer::Fresh | Timer::Quorum | Timer::Transfer => self.election,
                    Timer::Heartbeat | Timer::Read => self.heartbeat,
                    Timer::Haste => (self.election / HASTE.0).clamp(1, HASTE.1),
                };
                self.due.insert(timer, now.saturating_add(after));
            }
        }
    }

    /// The earliest moment at which a timer runs out.
    pub(crate) fn next(&self) -> Option<Nanos> {
        self.due.values().min().copied()
    }

    /// Takes the timer that ran out first, if any has by `now`.
    pub(crate) fn pop_due(&mut self, now: Nanos) -> Option<Timer> {
        let (timer, _) = self
            .due
            .iter()
            .filter(|(_, due)| **due <= now)
            .min_by_key(|(_, due)| **due)?;
        let timer = *timer;
        self.due.remove(&timer);
        Some(timer)
    }

    /// From [T, 2T) (§3.4). Whoever leads more gladly draws from the first half, whoever would rather not starts half a timeout later:
    /// this biases who asks first, and never a vote.
    fn draw_election(&mut self) -> Nanos {
        let half = self.election / 2;
        let (from, width) = match self.priority {
            Priority::High => (self.election, half),
            Priority::Normal => (self.election, self.election),
            Priority::Low => (self.election + half, self.election),
        };
        from + self.draw() % width.max(1)
    }

    /// The next number of a splitmix64 sequence.
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_base::NodeId;

    #[test]
    fn election_timeouts_are_drawn_anew_between_once_and_twice_the_timeout() {
        let config = NodeConfig::new(NodeId(1), 1, 7);
        let mut timers = Timers::new(&config);
        let mut drawn = Vec::new();
        for _ in 0..100 {
            timers.arm(5, Timer::Election, Arm::Set);
            drawn.push(timers.next().unwrap() - 5);
        }
        assert!(
            drawn
                .iter()
                .all(|t| (config.election..2 * config.election).contains(t))
        );
        drawn.dedup();
        assert!(drawn.len() > 90, "each is drawn anew: {drawn:?}");
    }

    #[test]
    fn timers_run_out_in_order_and_once() {
        let config = NodeConfig::new(NodeId(1), 1, 7);
        let mut timers = Timers::new(&config);
        timers.arm(0, Timer::Quorum, Arm::Set);
        timers.arm(0, Timer::Heartbeat, Arm::Set);
        timers.arm(0, Timer::Transfer, Arm::Set);
        timers.arm(0, Timer::Transfer, Arm::Off);
        assert_eq!(timers.pop_due(config.heartbeat - 1), None);
        assert_eq!(timers.pop_due(config.election), Some(Timer::Heartbeat));
        assert_eq!(timers.pop_due(config.election), Some(Timer::Quorum));
        assert_eq!(timers.pop_due(config.election), None);
    }
}
