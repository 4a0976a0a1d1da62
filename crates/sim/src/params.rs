//! What a seed stands for: the size of the cluster, its timing, how bad network and disks are, and the plan of faults
//! (see [`plan`](crate::plan)). All drawn once, before anything runs, so that a run can be read from its parameters.

use quorate_kv::watch::HubOptions;
use quorate_node::handshake::FEATURE_LEVEL;
use quorate_raft::Priority;

use crate::ambush;
use crate::coverage::Kind;
use crate::plan::{Setting, Strike, When, draw_plan};
use crate::rng::Rng;
use crate::trace::Nanos;

/// A microsecond.
pub const US: Nanos = 1_000;
/// A millisecond.
pub const MS: Nanos = 1_000_000;
/// A second.
pub const SEC: Nanos = 1_000_000_000;

/// How the network treats messages.
#[derive(Clone, Debug)]
pub struct NetParams {
    /// Links keep order and lose nothing while they are up, as TCP does. Otherwise each message is on its own.
    pub stream: bool,
    /// Fastest delivery.
    pub min_delay: Nanos,
    /// Slowest usual delivery.
    pub max_delay: Nanos,
    /// Messages that take up to twenty times as long, per million.
    pub slow: u32,
    /// Messages lost, per million; not on streams.
    pub drop: u32,
    /// Messages delivered twice, per million; not on streams.
    pub duplicate: u32,
    /// Messages travel as the bytes of the wire.
    pub bytes: bool,
    /// Frames that arrive garbled, per million; only as bytes.
    pub garble: u32,
}

/// Everything a seed decides in advance.
#[derive(Clone, Debug)]
pub struct Params {
    /// The seed.
    pub seed: u64,
    /// Number of nodes.
    pub nodes: u64,
    /// Heartbeat interval.
    pub heartbeat: Nanos,
    /// Election timeout T.
    pub election: Nanos,
    /// Clock error of each founder in millionths.
    pub drift: Vec<i64>,
    /// The largest clock error in millionths.
    pub clock_error: u64,
    /// The network.
    pub net: NetParams,
    /// Fastest disk operation.
    pub min_disk: Nanos,
    /// Slowest usual one.
    pub max_disk: Nanos,
    /// Segment size of the log.
    pub segment_bytes: u32,
    /// Entries kept in the log for slow followers.
    pub keep_entries: u64,
    /// Bytes kept in the log for slow followers.
    pub keep_bytes: u64,
    /// Bytes of entries kept in memory.
    pub tail_bytes: usize,
    /// Bytes in one Append.
    pub max_append_bytes: u64,
    /// Appends in flight to one peer.
    pub max_inflight: usize,
    /// Bytes of a snapshot's chunk.
    pub chunk_bytes: usize,
    /// Bytes of proposals that a leader takes before the first of them is committed.
    pub max_uncommitted: u64,
    /// Requests that wait for a leader.
    pub max_held: usize,
    /// Bytes in memory at which the store is flushed.
    pub flush_bytes: usize,
    /// Number of clients.
    pub clients: u64,
    /// Longest pause of a client between requests.
    pub think: Nanos,
    /// Number of keys.
    pub keys: u64,
    /// How long faults strike.
    pub duration: Nanos,
    /// At least so many requests.
    pub operations: u64,
    /// How often the membership is changed: a usual pause between two changes.
    pub churn: Option<Nanos>,
    /// Lease reads are on.
    pub leases: bool,
    /// Members have different priorities.
    pub priorities: bool,
    /// What the founders understand. Those of level 1 learn more by and by.
    pub features: u32,
    /// The faults.
    pub plan: Vec<Strike>,
    /// Number of watch clients, each with a few watchers.
    pub watch_clients: u64,
    /// The bounds of the watch hubs.
    pub hub: HubOptions,
    /// The longest time to live of a lease, in seconds.
    pub max_ttl: u64,
    /// Let all disks lie about syncs: the run must fail. Only for the simulator's own tests.
    pub lying_disks: bool,
}

impl Params {
    /// The parameters of a seed.
    pub fn draw(seed: u64) -> Params {
        let mut rng = Rng::new(seed);
        let nodes = rng.pick(&[1, 2, 3, 3, 3, 3, 3, 4, 5, 5, 6, 7]);
        let heartbeat = rng.log_within(20..130) * MS;
        let wide = rng.chance(200_000);
        let duration = rng.within(60..75) * SEC;
        let fsync = rng.log_within(50 * US..6 * MS);
        let features = if rng.chance(200_000) { 1 } else { FEATURE_LEVEL };
        let churn = rng.chance(500_000).then(|| rng.log_within(SEC..6 * SEC));
        let leases = features > 1 && rng.chance(300_000);
        // With leases clocks may differ by an eighth, and without them by much more.
        let clock_error = match leases {
            true => rng.pick(&[1_000, 20_000, 58_000]),
            false => rng.pick(&[1_000, 20_000, 100_000, 400_000]),
        };
        let drift = (0..nodes).map(|_| draw_error(&mut rng, clock_error)).collect();
        let setting = Setting {
            nodes,
            features,
            leases,
            churn: churn.is_some(),
            duration,
        };
        let mut params = Params {
            seed,
            nodes,
            heartbeat,
            election: heartbeat * rng.within(8..15) + if wide { 300 * MS } else { 0 },
            drift,
            net: draw_net(&mut rng, wide),
            min_disk: fsync / 2,
            max_disk: fsync * 3,
            segment_bytes: rng.log_within(4096..256 << 10) as u32,
            keep_entries: rng.log_within(1..500) - 1,
            keep_bytes: rng.log_within(1 << 10..128 << 10),
            tail_bytes: rng.log_within(512..512 << 10) as usize,
            max_append_bytes: rng.log_within(100..128 << 10),
            max_inflight: rng.log_within(1..128) as usize,
            chunk_bytes: rng.log_within(256..32 << 10) as usize,
            max_uncommitted: rng.log_within(8 << 10..256 << 10),
            max_held: rng.log_within(1..64) as usize,
            flush_bytes: rng.log_within(4 << 10..128 << 10) as usize,
            clients: rng.within(3..9),
            think: rng.log_within(78 * MS..350 * MS),
            keys: rng.log_within(2..64),
            duration,
            operations: 1_000,
            churn,
            leases,
            clock_error,
            priorities: rng.chance(300_000),
            features,
            plan: draw_plan(&mut rng, &setting),
            watch_clients: rng.within(1..4),
            hub: draw_hub(&mut rng),
            max_ttl: rng.pick(&[2, 4, 10]),
            lying_disks: false,
        };
        ambush::lay(seed, &setting, &params.net, &mut params.plan);
        params
    }

    /// The timeout, in milliseconds, that lease reads count on, if they are on.
    pub fn lease_timeout(&self) -> Option<u32> {
        self.leases.then_some((self.election / MS) as u32)
    }

    /// The clock error of one more member.
    pub fn draw_drift(&self, rng: &mut Rng) -> i64 {
        draw_error(rng, self.clock_error)
    }

    /// How gladly one more member leads.
    pub fn draw_priority(&self, rng: &mut Rng) -> Priority {
        if self.priorities {
            rng.pick(&[Priority::Low, Priority::Normal, Priority::High])
        } else {
            Priority::Normal
        }
    }

    /// The kinds that must have been met by the end of the run.
    pub fn planned(&self) -> Vec<Kind> {
        let certain = self
            .plan
            .iter()
            .filter(|strike| !matches!(strike.when, When::Only(_)));
        let mut kinds: Vec<Kind> = certain.map(|strike| strike.fault.kind()).collect();
        if self.nodes > 1 {
            kinds.extend((self.net.drop > 0).then_some(Kind::Drop));
            kinds.extend((self.net.duplicate > 0).then_some(Kind::Duplicate));
            kinds.extend((self.net.slow > 0).then_some(Kind::Delay));
            // At the lower rate some clusters send too little to meet it.
            kinds.extend((self.net.bytes && self.net.garble > 1_000).then_some(Kind::Garbled));
        }
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }
}

fn draw_error(rng: &mut Rng, most: u64) -> i64 {
    rng.within(0..2 * most + 1) as i64 - most as i64
}

fn draw_hub(rng: &mut Rng) -> HubOptions {
    let queue_bytes = rng.pick(&[400, 4 << 10, 1 << 20]);
    HubOptions {
        queue_bytes,
        // Two watchers of a client cannot both fill theirs.
        stream_bytes: queue_bytes + queue_bytes / 2,
        fragment_bytes: rng.pick(&[200, 1 << 10, 1 << 20]),
        history_bytes: rng.pick(&[300, 4 << 10, 1 << 20]),
    }
}

fn draw_net(rng: &mut Rng, wide: bool) -> NetParams {
    let stream = rng.coin();
    let (min_delay, max_delay) = if wide {
        (10 * MS, 40 * MS)
    } else {
        let least = rng.log_within(20 * US..2 * MS);
        (least, least + rng.log_within(100 * US..6 * MS))
    };
    let often = |rng: &mut Rng, rates: &[u32]| if stream { 0 } else { rng.pick(rates) };
    NetParams {
        stream,
        min_delay,
        max_delay,
        slow: rng.pick(&[1_000, 10_000, 50_000]),
        drop: often(rng, &[0, 5_000, 50_000, 150_000]),
        duplicate: often(rng, &[0, 5_000, 50_000]),
        bytes: rng.coin(),
        garble: rng.pick(&[0, 100, 2_000]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_fault_is_planned_by_some_seed_and_none_by_all() {
        let kinds = |seed| Params::draw(seed).planned().into_iter().collect::<BTreeSet<_>>();
        let all: Vec<BTreeSet<Kind>> = (0..200).map(kinds).collect();
        let union: BTreeSet<Kind> = all.iter().flatten().copied().collect();
        assert!(union.len() >= 38, "{union:?}");
        assert!(
            union
                .iter()
                .all(|kind| all.iter().any(|seed| !seed.contains(kind)))
        );
    }

    /// Every quantity is drawn from its whole range: small and large values come in one hundred seeds, several times.
    #[test]
    fn quantities_are_drawn_widely() {
        let all: Vec<Params> = (0..100).map(Params::draw).collect();
        let spread = |name: &str, times: u64, of: fn(&Params) -> u64| {
            let mut values: Vec<u64> = all.iter().map(of).collect();
            values.sort_unstable();
            let (low, high) = (values[10].max(1), values[89]);
            assert!(high >= low * times, "{name}: {low} to {high}");
        };
        spread("heartbeat", 3, |p| p.heartbeat);
        spread("delay", 4, |p| p.net.max_delay);
        spread("disk", 20, |p| p.max_disk);
        spread("segment", 16, |p| p.segment_bytes.into());
        spread("keep_entries", 32, |p| p.keep_entries);
        spread("keep_bytes", 16, |p| p.keep_bytes);
        spread("tail", 64, |p| p.tail_bytes as u64);
        spread("append", 64, |p| p.max_append_bytes);
        spread("inflight", 16, |p| p.max_inflight as u64);
        spread("chunk", 16, |p| p.chunk_bytes as u64);
        spread("uncommitted", 8, |p| p.max_uncommitted);
        spread("held", 8, |p| p.max_held as u64);
        spread("flush", 8, |p| p.flush_bytes as u64);
        spread("clients", 2, |p| p.clients);
        spread("think", 3, |p| p.think);
        spread("keys", 8, |p| p.keys);
        spread("clock error", 100, |p| p.clock_error);
        let sizes: BTreeSet<u64> = all.iter().map(|params| params.nodes).collect();
        assert_eq!(sizes, (1..=7).collect());
        let share = |name: &str, of: fn(&Params) -> bool| {
            let count = all.iter().filter(|params| of(params)).count();
            assert!((5..96).contains(&count), "{name}: in {count} of 100 seeds");
        };
        share("stream", |p| p.net.stream);
        share("drop", |p| p.net.drop > 0);
        share("duplicate", |p| p.net.duplicate > 0);
        share("bytes", |p| p.net.bytes);
        share("garble", |p| p.net.bytes && p.net.garble > 0);
        share("churn", |p| p.churn.is_some());
        share("leases", |p| p.leases);
        share("priorities", |p| p.priorities);
        share("level 1", |p| p.features == 1);
        share("steered faults", |p| {
            p.plan.iter().any(|strike| strike.when != When::Now)
        });
    }

    #[test]
    fn faults_stop_before_the_end() {
        for seed in 0..100 {
            let params = Params::draw(seed);
            assert!(params.plan.iter().all(|strike| strike.at < params.duration));
            assert!(params.duration >= 60 * SEC && params.operations >= 1000);
        }
    }
}
