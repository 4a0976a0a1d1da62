//! When operations are due. Pure arithmetic on numbered operations: who waits, and for how long, is the driver's affair.
//!
//! With a rate, operation k is due at k/rate seconds after the start, whatever became of those before it, and its latency counts
//! from there. A server that stalls for a second so adds a second to the latency of all that was due meanwhile, as it does for
//! real users, instead of to one operation per client ("coordinated omission").

use std::time::Duration;

/// The plan of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Operations a second; without one, an operation is due as soon as a client is free.
    pub rate: Option<u64>,
    /// Number of operations.
    pub total: Option<u64>,
    /// Nothing is begun after this time.
    pub duration: Option<Duration>,
}

impl Pace {
    /// So many operations as fast as the clients can: for warming up.
    pub fn unpaced(total: u64) -> Pace {
        Pace {
            rate: None,
            total: Some(total),
            duration: None,
        }
    }

    /// When the operation of this number (from 0) is due, counted from the start; nothing without a rate.
    pub fn due(&self, number: u64) -> Option<Duration> {
        let rate = u128::from(self.rate?);
        let nanos = u128::from(number) * 1_000_000_000 / rate;
        Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }

    /// Whether the operation of this number is still begun when it is its turn at `now`, counted from the start.
    pub fn admits(&self, number: u64, now: Duration) -> bool {
        let begins = self.due(number).map_or(now, |due| due.max(now));
        self.total.is_none_or(|total| number < total) && self.duration.is_none_or(|end| begins < end)
    }

    /// Operations that were due within the plan, of which `begun` were begun before it ended: what is left was never sent,
    /// because all clients were waiting for answers. Nothing is left over without a rate.
    pub fn left_over(&self, begun: u64) -> u64 {
        let (Some(rate), Some(duration)) = (self.rate, self.duration) else {
            return 0;
        };
        // Number k is due in time if k/rate < duration.
        let due = (duration.as_nanos() * u128::from(rate)).div_ceil(1_000_000_000);
        let due = u64::try_from(due).unwrap_or(u64::MAX);
        self.total
            .map_or(due, |total| due.min(total))
            .saturating_sub(begun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn operations_are_due_at_even_distances_that_do_not_drift() {
        let pace = Pace {
            rate: Some(3),
            total: None,
            duration: None,
        };
        let due = |number| pace.due(number).expect("there is a rate");
        assert_eq!(due(0), Duration::ZERO);
        assert_eq!(due(1), Duration::from_nanos(333_333_333));
        assert_eq!(due(3), SECOND);
        assert_eq!(due(3_000_000_000), SECOND * 1_000_000_000);
        assert_eq!(Pace::unpaced(1).due(7), None);
    }

    #[test]
    fn a_total_and_a_duration_each_end_it() {
        let pace = Pace {
            rate: None,
            total: Some(2),
            duration: Some(SECOND),
        };
        assert!(pace.admits(1, Duration::ZERO));
        assert!(!pace.admits(2, Duration::ZERO));
        assert!(!pace.admits(0, SECOND));
    }

    #[test]
    fn with_a_rate_what_is_due_after_the_end_is_not_waited_for() {
        let pace = Pace {
            rate: Some(10),
            total: None,
            duration: Some(SECOND),
        };
        assert!(pace.admits(9, Duration::ZERO));
        assert!(!pace.admits(10, Duration::ZERO), "due when the second is over");
        assert!(!pace.admits(3, SECOND), "due in time, but nobody was free");
        assert_eq!(pace.left_over(3), 7);
        assert_eq!(pace.left_over(10), 0);
        assert_eq!(
            Pace {
                total: Some(5),
                ..pace
            }
            .left_over(3),
            2
        );
        assert_eq!(Pace { rate: None, ..pace }.left_over(3), 0);
    }
}
