//! What a seed stands for: the size of the cluster, its timing, how bad network and disks are, and the plan of faults
//! (see [`plan`](crate::plan)). All drawn once, before anything runs, so that a run can be read from its parameters.

use quorate_kv::watch::HubOptions;
use quorate_node::handshake::FEATURE_LEVEL;
use quorate_raft::Priority;

use crate::coverage::Kind;
use crate::plan::{Fault, draw_plan};
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
    /// Clock error of each node in millionths.
    pub drift: Vec<i64>,
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
    pub plan: Vec<(Nanos, Fault)>,
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
        let nodes = rng.pick(&[1, 2, 3, 3, 3, 3, 3, 4, 5, 5, 5]);
        let heartbeat = rng.within(20..100) * MS;
        let wide = rng.chance(200_000);
        let duration = rng.within(60..75) * SEC;
        let fsync = rng.pick(&[100 * US, MS, 5 * MS]);
        let features = if rng.chance(200_000) { 1 } else { FEATURE_LEVEL };
        let drift = (0..nodes)
            .map(|_| rng.within(0..40_000) as i64 - 20_000)
            .collect();
        Params {
            seed,
            nodes,
            heartbeat,
            election: heartbeat * rng.within(8..15) + if wide { 300 * MS } else { 0 },
            drift,
            net: draw_net(&mut rng, wide),
            min_disk: fsync / 2,
            max_disk: fsync * 3,
            segment_bytes: rng.pick(&[4096, 16 << 10, 64 << 10]),
            keep_entries: rng.pick(&[0, 10, 50, 200]),
            keep_bytes: rng.pick(&[2 << 10, 64 << 10]),
            tail_bytes: rng.pick(&[1 << 10, 8 << 10, 256 << 10]),
            max_append_bytes: rng.pick(&[200, 2 << 10, 64 << 10]),
            max_inflight: rng.pick(&[1, 4, 64]),
            chunk_bytes: rng.pick(&[256, 1 << 10, 16 << 10]),
            flush_bytes: rng.pick(&[4 << 10, 16 << 10, 64 << 10]),
            clients: rng.within(3..9),
            think: rng.pick(&[100 * MS, 200 * MS, 400 * MS]),
            keys: rng.pick(&[3, 10, 40]),
            duration,
            operations: 1_000,
            churn: rng.chance(500_000).then(|| rng.pick(&[1, 2, 4]) * SEC),
            leases: features > 1 && rng.chance(300_000),
            priorities: rng.chance(300_000),
            features,
            plan: draw_plan(&mut rng, nodes, features, duration),
            watch_clients: rng.within(1..4),
            hub: HubOptions {
                queue_bytes: rng.pick(&[400, 4 << 10, 1 << 20]),
                fragment_bytes: rng.pick(&[200, 1 << 10, 1 << 20]),
                history_bytes: rng.pick(&[300, 4 << 10, 1 << 20]),
            },
            max_ttl: rng.pick(&[2, 4, 10]),
            lying_disks: false,
        }
    }

    /// The timeout, in milliseconds, that lease reads count on, if they are on.
    pub fn lease_timeout(&self) -> Option<u32> {
        self.leases.then_some((self.election / MS) as u32)
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
        let mut kinds: Vec<Kind> = self.plan.iter().map(|(_, fault)| fault.kind()).collect();
        if self.nodes > 1 {
            kinds.extend((self.net.drop > 0).then_some(Kind::Drop));
            kinds.extend((self.net.duplicate > 0).then_some(Kind::Duplicate));
            kinds.extend((self.net.slow > 0).then_some(Kind::Delay));
        }
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }
}

fn draw_net(rng: &mut Rng, wide: bool) -> NetParams {
    let stream = rng.coin();
    let (min_delay, max_delay) = if wide {
        (10 * MS, 40 * MS)
    } else {
        (100 * US, rng.pick(&[MS, 5 * MS]))
    };
    let often = |rng: &mut Rng, rates: &[u32]| if stream { 0 } else { rng.pick(rates) };
    NetParams {
        stream,
        min_delay,
        max_delay,
        slow: rng.pick(&[1_000, 10_000, 50_000]),
        drop: often(rng, &[0, 5_000, 50_000, 150_000]),
        duplicate: often(rng, &[0, 5_000, 50_000]),
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
        assert!(union.len() >= 18, "{union:?}");
        assert!(
            union
                .iter()
                .all(|kind| all.iter().any(|seed| !seed.contains(kind)))
        );
    }

    #[test]
    fn faults_stop_before_the_end() {
        for seed in 0..100 {
            let params = Params::draw(seed);
            assert!(params.plan.iter().all(|(at, _)| *at < params.duration));
            assert!(params.duration >= 60 * SEC && params.operations >= 1000);
        }
    }
}
