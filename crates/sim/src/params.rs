//! What a seed stands for: the size of the cluster, its timing, how bad network and disks are, and the plan of faults. All
//! drawn once, before anything runs, so that a run can be read from its parameters.

use crate::coverage::Kind;
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

/// One planned fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Cut the cluster in two halves, for a while.
    Partition(Nanos),
    /// Let nothing pass from some nodes to the others, but back.
    OneWay(Nanos),
    /// Cut the leader off.
    IsolateLeader(Nanos),
    /// Break a random link.
    Reset,
    /// Take the power from a node (the leader, if so), and start it again after a while.
    PowerLoss {
        /// Whether it hits the leader.
        leader: bool,
        /// How long the node is down.
        down: Nanos,
    },
    /// Kill the process.
    Kill {
        /// Whether it hits the leader.
        leader: bool,
        /// How long the node is down.
        down: Nanos,
    },
    /// End inside the disk operation after so many.
    CrashInDisk {
        /// Operations from now.
        operations: u64,
        /// How long the node is down.
        down: Nanos,
    },
    /// The disk reports an error at a sync.
    SyncError,
    /// Kill a node, start it at once and let power fail inside one of its first disk operations.
    CrashInRecovery {
        /// Operations from the start.
        operations: u64,
    },
    /// Take the power from all nodes.
    AllDown(Nanos),
    /// Slow one disk down by a factor.
    SlowDisk {
        /// How long.
        lasts: Nanos,
        /// By how much.
        factor: u64,
    },
    /// One node stands still.
    Pause(Nanos),
    /// The leader stands still, and when it goes on it is cut off: it does not know yet that it was replaced.
    Stall(Nanos),
    /// One disk has no free space.
    FullDisk(Nanos),
    /// Ask the leader to hand over.
    Transfer,
}

impl Fault {
    /// What must be counted when it has struck.
    pub fn kind(&self) -> Kind {
        match self {
            Fault::Partition(_) => Kind::Partition,
            Fault::OneWay(_) => Kind::OneWay,
            Fault::IsolateLeader(_) => Kind::IsolateLeader,
            Fault::Reset => Kind::Reset,
            Fault::PowerLoss { .. } => Kind::PowerLoss,
            Fault::Kill { .. } => Kind::Kill,
            Fault::CrashInDisk { .. } => Kind::CrashInDisk,
            Fault::SyncError => Kind::SyncError,
            Fault::CrashInRecovery { .. } => Kind::CrashInRecovery,
            Fault::AllDown(_) => Kind::AllDown,
            Fault::SlowDisk { .. } => Kind::SlowDisk,
            Fault::Pause(_) => Kind::Pause,
            Fault::Stall(_) => Kind::Stall,
            Fault::FullDisk(_) => Kind::FullDisk,
            Fault::Transfer => Kind::Transfer,
        }
    }
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
    /// The faults.
    pub plan: Vec<(Nanos, Fault)>,
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
            plan: draw_plan(&mut rng, nodes, duration),
            lying_disks: false,
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

fn draw_plan(rng: &mut Rng, nodes: u64, duration: Nanos) -> Vec<(Nanos, Fault)> {
    let mut plan = Vec::new();
    // A quiet seed now and then shows that nothing depends on faults.
    let pause = if rng.chance(50_000) {
        duration
    } else {
        rng.pick(&[1, 2, 4, 8]) * SEC
    };
    let mut at = rng.within(1..4) * SEC;
    let mut choices: Vec<u64> = (0..15).filter(|_| rng.chance(600_000)).collect();
    choices.push(3);
    while at < duration * 9 / 10 {
        let choice = rng.pick(&choices);
        plan.push((at, draw_fault(rng, choice, nodes)));
        at += rng.within(pause / 4..pause * 2);
    }
    plan
}

fn draw_fault(rng: &mut Rng, choice: u64, nodes: u64) -> Fault {
    let lasts = rng.within(50..5_000) * MS;
    let down = rng.within(1..4_000) * MS;
    match choice {
        0 if nodes > 1 => Fault::Partition(lasts),
        1 if nodes > 1 => Fault::OneWay(lasts),
        2 if nodes > 1 => Fault::IsolateLeader(lasts),
        4 if nodes > 1 => Fault::Reset,
        5 if nodes > 1 => Fault::Transfer,
        0..=3 => Fault::CrashInDisk {
            operations: rng.within(0..60),
            down,
        },
        4 | 6 => Fault::PowerLoss {
            leader: rng.coin(),
            down,
        },
        5 | 7 => Fault::Kill {
            leader: rng.coin(),
            down,
        },
        8 => Fault::CrashInRecovery {
            operations: rng.within(0..12),
        },
        9 => Fault::AllDown(down),
        10 => Fault::SlowDisk {
            lasts,
            factor: rng.pick(&[5, 50, 500]),
        },
        11 => Fault::Pause(lasts),
        12 => Fault::FullDisk(lasts),
        13 if nodes > 1 => Fault::Stall(lasts),
        _ => Fault::SyncError,
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
