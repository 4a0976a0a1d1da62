//! The bytes per second that all outgoing snapshots share, on the node's clock.

use crate::event::Nanos;

const SECOND: u128 = 1_000_000_000;
/// What was not used is kept for so long, so that a driver that wakes late need not fall behind the rate.
const KEPT: Nanos = 20_000_000;

/// When the next piece may leave.
#[derive(Debug)]
pub(crate) struct Budget {
    rate: u64,
    next: Nanos,
}

impl Budget {
    /// `rate` bytes per second.
    pub(crate) fn new(rate: u64) -> Budget {
        Budget {
            rate: rate.max(1),
            next: 0,
        }
    }

    /// The moment from which something may be sent.
    pub(crate) fn next(&self) -> Nanos {
        self.next
    }

    /// So many bytes are sent.
    pub(crate) fn spend(&mut self, now: Nanos, bytes: usize) {
        let cost = (bytes as u128 * SECOND).div_ceil(u128::from(self.rate));
        let cost = Nanos::try_from(cost).unwrap_or(Nanos::MAX);
        self.next = self.next.max(now.saturating_sub(KEPT)).saturating_add(cost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends pieces of `len` bytes whenever allowed, looked at every `step`; the bytes sent until `end`.
    fn sent(rate: u64, len: usize, step: Nanos, end: Nanos) -> u64 {
        let mut budget = Budget::new(rate);
        let mut sent = 0;
        for now in (0..end).step_by(step as usize) {
            while budget.next() <= now {
                budget.spend(now, len);
                sent += len as u64;
            }
        }
        sent
    }

    #[test]
    fn the_rate_is_kept_however_often_the_clock_is_looked_at() {
        for (rate, len, step) in [
            (1_000_000, 1000, 1_000_000),
            (1_000_000, 1000, 15_000_000),
            (1000, 100, 3_000_000),
        ] {
            let sent = sent(rate, len, step, 10_000_000_000);
            assert!(sent <= 10 * rate + rate / 50 + len as u64, "{sent} at {rate}");
            assert!(sent >= 10 * rate - rate / 50 - len as u64, "{sent} at {rate}");
        }
    }

    #[test]
    fn a_pause_is_not_made_up_for() {
        let mut budget = Budget::new(1000);
        budget.spend(0, 100);
        let now = 1_000_000_000_000;
        let mut burst = 0;
        while budget.next() <= now {
            budget.spend(now, 10);
            burst += 10;
        }
        assert!(burst <= 40, "{burst}");
    }

    #[test]
    fn a_rate_of_nothing_and_one_without_bounds_are_survived() {
        let mut budget = Budget::new(0);
        budget.spend(5, usize::MAX);
        assert_eq!(budget.next(), Nanos::MAX);
        let mut budget = Budget::new(u64::MAX);
        budget.spend(KEPT, 1 << 20);
        assert!(budget.next() <= KEPT);
    }
}
