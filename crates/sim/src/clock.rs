//! A machine's clock, the monotonic one, which is all that a node knows of time: it runs too fast or too slow, leaps ahead, and stands
//! still while the machine is suspended. It never goes back while a process runs, since no system's monotonic clock does. There is no wall
//! clock here: nothing below the runtime reads one, so its jumps have nothing to act on.

use crate::trace::Nanos;

/// A clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// The rate's error in millionths; above -1,000,000.
    drift: i64,
    /// What it shows more than true time at its rate.
    ahead: i128,
    /// It stands still, and shows this.
    frozen: Option<Nanos>,
}

impl Clock {
    /// A clock with this error in millionths.
    pub fn new(drift: i64) -> Clock {
        Clock {
            drift,
            ..Clock::default()
        }
    }

    fn at_rate(&self, now: Nanos) -> i128 {
        i128::from(now) + i128::from(now) * i128::from(self.drift) / 1_000_000
    }

    /// What it shows at this moment.
    pub fn local(&self, now: Nanos) -> Nanos {
        self.frozen.unwrap_or((self.at_rate(now) + self.ahead) as Nanos)
    }

    /// The first moment at which it shows `local` or more, as it runs now.
    pub fn global(&self, local: Nanos) -> Nanos {
        let rate = i128::from(1_000_000 + self.drift);
        let guess = (i128::from(local) - self.ahead) * 1_000_000 / rate;
        let mut guess = guess.max(0) as Nanos;
        let shows = |now: Nanos| self.at_rate(now) + self.ahead;
        while guess > 0 && shows(guess - 1) >= i128::from(local) {
            guess -= 1;
        }
        while shows(guess) < i128::from(local) {
            guess += 1;
        }
        guess
    }

    /// The rate's error in millionths.
    pub fn drift(&self) -> i64 {
        self.drift
    }

    /// It leaps ahead.
    pub fn leap(&mut self, by: Nanos) {
        self.ahead += i128::from(by);
    }

    /// It stands still from now on.
    pub fn stop(&mut self, now: Nanos) {
        self.frozen = Some(self.local(now));
    }

    /// It goes on from where it stood, if it did.
    pub fn go_on(&mut self, now: Nanos) {
        if let Some(shown) = self.frozen.take() {
            self.ahead = i128::from(shown) - self.at_rate(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_and_what_clocks_show_belong_together() {
        for drift in [-500_000, -20_000, 0, 7, 500_000] {
            let mut clock = Clock::new(drift);
            clock.leap(12_345);
            for local in [12_345, 20_000, 1_000_000_007] {
                let now = clock.global(local);
                assert!(clock.local(now) >= local && (now == 0 || clock.local(now - 1) < local));
            }
        }
    }

    #[test]
    fn a_clock_that_stood_still_goes_on_where_it_was() {
        let mut clock = Clock::new(250_000);
        clock.stop(1_000);
        assert_eq!((clock.local(1_000), clock.local(9_000)), (1_250, 1_250));
        clock.go_on(9_000);
        assert_eq!((clock.local(9_000), clock.local(10_000)), (1_250, 2_500));
        clock.leap(50);
        assert_eq!(clock.local(10_000), 2_550);
    }
}
