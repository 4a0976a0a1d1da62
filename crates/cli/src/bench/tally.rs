//! What happened to the operations: latencies, failures by message, and the longest time without a success.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// Significant decimal digits of the latencies.
const DIGITS: u8 = 3;

/// Counts of one thread; those of all threads are added up at the end.
#[derive(Debug)]
pub struct Tally {
    /// Of what succeeded, in nanoseconds.
    pub latency: Histogram<u64>,
    /// What failed, by message.
    pub errors: BTreeMap<String, u64>,
    /// Connections that could not be made, by message, since before the first operation.
    pub dial_errors: BTreeMap<String, u64>,
    /// The longest time without a success.
    pub longest_gap: Gap,
    /// Begin of the first operation and end of the last one, counted from the start; nothing without any.
    pub span: Option<(Duration, Duration)>,
    /// Reads that found no key.
    pub not_found: u64,
    /// The latencies of operations of different kinds apart, if there are such.
    pub parts: BTreeMap<&'static str, Histogram<u64>>,
    /// What watchers received.
    pub events: Events,
}

/// Events that watchers received.
#[derive(Debug)]
pub struct Events {
    /// From the put being sent to its event being received, in nanoseconds.
    pub latency: Histogram<u64>,
    /// When the last one came.
    pub last: Option<Instant>,
    /// How watches broke, by message. They are begun again where they ended.
    pub errors: BTreeMap<String, u64>,
}

impl Events {
    /// None yet.
    pub fn new() -> Events {
        Events {
            latency: histogram(),
            last: None,
            errors: BTreeMap::new(),
        }
    }

    /// An event came now that was sent so long ago.
    pub fn note(&mut self, latency: Duration, now: Instant) {
        record(&mut self.latency, latency);
        self.last = Some(now);
    }

    fn add(&mut self, other: Events) {
        add(&mut self.latency, &other.latency);
        self.last = self.last.max(other.last);
        sum(&mut self.errors, other.errors);
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new(DIGITS).expect("between 0 and 5 digits are possible")
}

fn record(histogram: &mut Histogram<u64>, latency: Duration) {
    let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
    histogram.record(nanos).expect("the histogram grows as needed");
}

fn add(histogram: &mut Histogram<u64>, other: &Histogram<u64>) {
    histogram.add(other).expect("the histogram grows as needed");
}

fn sum(errors: &mut BTreeMap<String, u64>, others: BTreeMap<String, u64>) {
    for (message, count) in others {
        *errors.entry(message).or_default() += count;
    }
}

/// A time without any success, between two successes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gap {
    /// How long it was.
    pub length: Duration,
    /// The success before it, counted from the start.
    pub begun: Duration,
}

/// When, over all threads, something last succeeded: nanoseconds from the start, 0 before the first success.
#[derive(Debug, Default)]
pub struct LastSuccess(AtomicU64);

impl LastSuccess {
    /// Notes a success, and gives the time without any that it ended.
    fn note(&self, now: Duration) -> Gap {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX).max(1);
        let before = self.0.fetch_max(now, Ordering::Relaxed);
        if before == 0 {
            return Gap::default();
        }
        Gap {
            length: Duration::from_nanos(now.saturating_sub(before)),
            begun: Duration::from_nanos(before),
        }
    }
}

impl Tally {
    /// Nothing yet.
    pub fn new() -> Tally {
        Tally {
            latency: histogram(),
            errors: BTreeMap::new(),
            dial_errors: BTreeMap::new(),
            longest_gap: Gap::default(),
            span: None,
            not_found: 0,
            parts: BTreeMap::new(),
            events: Events::new(),
        }
    }

    /// An operation that was due at `due` succeeded at `end`, both counted from the start.
    pub fn success(&mut self, due: Duration, end: Duration, last: &LastSuccess) {
        record(&mut self.latency, end.saturating_sub(due));
        let gap = last.note(end);
        if gap.length > self.longest_gap.length {
            self.longest_gap = gap;
        }
        self.cover(due, end);
    }

    /// Notes the latency of an operation of one of several kinds, beside [`Tally::success`].
    pub fn part(&mut self, name: &'static str, latency: Duration) {
        record(self.parts.entry(name).or_insert_with(histogram), latency);
    }

    /// An operation that was due at `due` failed at `end`.
    pub fn failure(&mut self, due: Duration, end: Duration, message: String) {
        *self.errors.entry(message).or_default() += 1;
        self.cover(due, end);
    }

    /// Adds connections that could not be made.
    pub fn refused(&mut self, dial_errors: BTreeMap<String, u64>) {
        sum(&mut self.dial_errors, dial_errors);
    }

    fn cover(&mut self, due: Duration, end: Duration) {
        self.span = Some(match self.span {
            None => (due, end),
            Some((first, last)) => (first.min(due), last.max(end)),
        });
    }

    /// Adds what another thread counted.
    pub fn add(&mut self, other: Tally) {
        add(&mut self.latency, &other.latency);
        sum(&mut self.errors, other.errors);
        self.refused(other.dial_errors);
        self.events.add(other.events);
        for (name, part) in other.parts {
            add(self.parts.entry(name).or_insert_with(histogram), &part);
        }
        if other.longest_gap.length > self.longest_gap.length {
            self.longest_gap = other.longest_gap;
        }
        if let Some((first, last)) = other.span {
            self.cover(first, last);
        }
        self.not_found += other.not_found;
    }

    /// Operations that succeeded.
    pub fn succeeded(&self) -> u64 {
        self.latency.len()
    }

    /// Operations that failed.
    pub fn failed(&self) -> u64 {
        self.errors.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_longest_gap_lies_between_successes_of_any_thread() {
        let last = LastSuccess::default();
        let (mut a, mut b) = (Tally::new(), Tally::new());
        a.success(ms(0), ms(100), &last);
        b.success(ms(0), ms(110), &last);
        a.failure(ms(110), ms(150), "no".to_owned());
        a.success(ms(150), ms(160), &last);
        // Of an earlier moment than one that another thread has noted already.
        b.success(ms(150), ms(155), &last);
        b.success(ms(155), ms(190), &last);
        a.add(b);
        assert_eq!(
            a.longest_gap,
            Gap {
                length: ms(50),
                begun: ms(110)
            },
            "the time before the first success is none"
        );
        assert_eq!(a.span, Some((ms(0), ms(190))));
        assert_eq!((a.succeeded(), a.failed()), (5, 1));
    }

    #[test]
    fn latency_counts_from_the_time_it_was_due() {
        let mut tally = Tally::new();
        tally.success(ms(5), ms(1005), &LastSuccess::default());
        let max = tally.latency.max();
        assert!(max.abs_diff(1_000_000_000) <= 1_000_000, "{max}");
    }

    #[test]
    fn failures_of_threads_are_added_by_message() {
        let (mut a, mut b) = (Tally::new(), Tally::new());
        for (tally, message) in [(&mut a, "x"), (&mut b, "x")] {
            tally.failure(ms(0), ms(1), message.to_owned());
        }
        b.failure(ms(0), ms(1), "y".to_owned());
        a.add(b);
        assert_eq!(
            a.errors,
            BTreeMap::from([("x".to_owned(), 2), ("y".to_owned(), 1)])
        );
    }
}
