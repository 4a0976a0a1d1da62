//! Counters, gauges and histograms of one node: plain atomics, cheap enough for the hot path, without any registry. How they
//! are named and rendered is the server's affair.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quorate_base::NodeId;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    pub(crate) fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }
}

/// How many buckets a [`Histogram`] has besides the last one without a bound.
pub const BUCKETS: usize = 14;

/// Durations in fixed buckets: 1 ms, 2 ms, 4 ms and so on up to 8.192 s, as etcd has them.
#[derive(Debug, Default)]
pub struct Histogram {
    counts: [AtomicU64; BUCKETS + 1],
    nanos: AtomicU64,
}

/// A [`Histogram`] at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct HistogramReading {
    /// Upper bound of each bucket in seconds, and how many durations were at most that long (cumulative).
    pub buckets: Vec<(f64, u64)>,
    /// How many there were.
    pub count: u64,
    /// Their sum in seconds.
    pub sum: f64,
}

impl Histogram {
    pub(crate) fn observe(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let millis = nanos.div_ceil(1_000_000).max(1);
        // The bucket of the smallest power of two that is not below it.
        let bucket = (millis.next_power_of_two().trailing_zeros() as usize).min(BUCKETS);
        self.counts[bucket].fetch_add(1, Relaxed);
        self.nanos.fetch_add(nanos, Relaxed);
    }

    /// Its content. Taken bucket by bucket while others add: sums may be off by what came in between.
    pub fn read(&self) -> HistogramReading {
        let mut count = 0;
        let mut buckets = Vec::with_capacity(BUCKETS);
        for (bucket, counted) in self.counts.iter().enumerate() {
            count += counted.load(Relaxed);
            if bucket < BUCKETS {
                buckets.push(((1_u64 << bucket) as f64 / 1e3, count));
            }
        }
        HistogramReading {
            buckets,
            count,
            sum: self.nanos.load(Relaxed) as f64 / 1e9,
        }
    }
}

/// The traffic with one other member.
#[derive(Debug, Default)]
pub struct PeerMetrics {
    /// Bytes written to it.
    pub sent_bytes: Counter,
    /// Bytes read from it.
    pub received_bytes: Counter,
    /// Messages dropped because its queue was full or its link down.
    pub dropped: Counter,
    /// How often a connection to it was made.
    pub connects: Counter,
    /// 1 while the connection to it is up.
    pub connected: Gauge,
}

/// All metrics of a node.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Proposals made here.
    pub proposals: Counter,
    /// Proposals made here that were answered with an error.
    pub proposals_failed: Counter,
    /// Proposals made here that wait for their answer.
    pub proposals_pending: Gauge,
    /// Linearizable reads asked for here.
    pub reads: Counter,
    /// Of these, how many failed.
    pub reads_failed: Counter,
    /// Entries applied since the start.
    pub applied: Counter,
    /// How often another leader, or none, was seen.
    pub leader_changes: Counter,
    /// Writes of the log: each one is one sync of the disk.
    pub log_writes: Counter,
    /// Batches in these writes.
    pub log_batches: Counter,
    /// How long one write of the log took, its sync included.
    pub fsync_duration: Histogram,
    /// From the arrival of a proposal here to its being applied here.
    pub commit_latency: Histogram,
    /// How often the disk did not answer a write for half an election timeout.
    pub disk_stalls: Counter,
    /// How long one job of the state machine (a flush) took.
    pub flush_duration: Histogram,
    /// Connections on the peer port that were refused or closed because of what they sent.
    pub peer_refused: Counter,
    /// Connections on the peer port that were refused because a member came with other or older data than it had.
    pub impostors_refused: Counter,
    peers: Mutex<BTreeMap<NodeId, Arc<PeerMetrics>>>,
}

impl Metrics {
    /// The traffic with every other member, former ones included, and with whoever else was let in.
    pub fn peers(&self) -> BTreeMap<NodeId, Arc<PeerMetrics>> {
        // No code runs under this lock that could leave the map half changed.
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The traffic with this member, counted from now on if it never was.
    pub(crate) fn peer(&self, id: NodeId) -> Arc<PeerMetrics> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.entry(id).or_default().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_counted_from_when_they_are_first_named() {
        let metrics = Metrics::default();
        assert!(metrics.peers().is_empty());
        metrics.peer(NodeId(2)).sent_bytes.add(3);
        metrics.peer(NodeId(2)).sent_bytes.add(4);
        assert_eq!(metrics.peers()[&NodeId(2)].sent_bytes.get(), 7);
    }

    #[test]
    fn durations_fall_into_the_bucket_that_bounds_them() {
        let histogram = Histogram::default();
        for micros in [0, 1_000, 1_001, 8_192_000, 8_193_000] {
            histogram.observe(Duration::from_micros(micros));
        }
        let reading = histogram.read();
        assert_eq!(reading.buckets[0], (0.001, 2), "0 and exactly 1 ms");
        assert_eq!(reading.buckets[1], (0.002, 3), "just above 1 ms");
        assert_eq!(reading.buckets[BUCKETS - 1], (8.192, 4), "exactly the last bound");
        assert_eq!(reading.count, 5, "beyond the last bound");
        assert!((reading.sum - 16.387_001).abs() < 1e-6, "{}", reading.sum);
    }
}
