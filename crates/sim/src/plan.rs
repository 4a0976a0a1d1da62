//! The faults that a run may plan, what each must be counted as, and how a seed draws its plan. What a fault does when it strikes is
//! in `nemesis` and `cuts`.

use crate::coverage::Kind;
use crate::params::{MS, SEC};
use crate::rng::Rng;
use crate::trace::Nanos;

/// One planned fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Cut the cluster in two halves, for a while.
    Partition(Nanos),
    /// Let nothing pass from some nodes to the others, but back.
    OneWay(Nanos),
    /// Cut the leader off.
    IsolateLeader(Nanos),
    /// Cut one follower from the leader, and from nobody else.
    CutFollower(Nanos),
    /// Let nothing pass in one direction between two nodes.
    OneLink(Nanos),
    /// Every node reaches one node only, the same for all, which does not lead.
    Hub {
        /// How long.
        lasts: Nanos,
        /// The leader reaches nobody at all.
        without_leader: bool,
    },
    /// The nodes stand in a line, and reach their neighbours only.
    Chain(Nanos),
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
    /// Operations of one disk do not return, without an error.
    StallDisk {
        /// Whether it hits the leader.
        leader: bool,
        /// How long.
        lasts: Nanos,
    },
    /// One node stands still.
    Pause(Nanos),
    /// The leader stands still, and when it goes on it is cut off: it does not know yet that it was replaced.
    Stall(Nanos),
    /// One disk has no free space.
    FullDisk(Nanos),
    /// Ask the leader to hand over.
    Transfer,
    /// Tell some nodes, or all, that the leader's process is gone, while it is not.
    FalseHint,
    /// A member's identity comes back with less than it had.
    Impostor(Pretence),
    /// A node of another cluster connects.
    OtherCluster,
    /// Bits of a log flip while the node is down.
    BitRot {
        /// How many.
        flips: u64,
    },
}

/// What an impostor runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pretence {
    /// An empty disk, instead of the member.
    Wiped,
    /// An older copy of the member's disk, instead of the member.
    Backup,
    /// An older copy of the member's disk, beside the member.
    Duplicate,
}

impl Fault {
    /// What must be counted when it has struck.
    pub fn kind(&self) -> Kind {
        match self {
            Fault::Partition(_) => Kind::Partition,
            Fault::OneWay(_) => Kind::OneWay,
            Fault::IsolateLeader(_) => Kind::IsolateLeader,
            Fault::CutFollower(_) => Kind::CutFollower,
            Fault::OneLink(_) => Kind::OneLink,
            Fault::Hub { .. } => Kind::Hub,
            Fault::Chain(_) => Kind::Chain,
            Fault::Reset => Kind::Reset,
            Fault::PowerLoss { .. } => Kind::PowerLoss,
            Fault::Kill { .. } => Kind::Kill,
            Fault::CrashInDisk { .. } => Kind::CrashInDisk,
            Fault::SyncError => Kind::SyncError,
            Fault::CrashInRecovery { .. } => Kind::CrashInRecovery,
            Fault::AllDown(_) => Kind::AllDown,
            Fault::SlowDisk { .. } => Kind::SlowDisk,
            Fault::StallDisk { .. } => Kind::StallDisk,
            Fault::Pause(_) => Kind::Pause,
            Fault::Stall(_) => Kind::Stall,
            Fault::FullDisk(_) => Kind::FullDisk,
            Fault::Transfer => Kind::Transfer,
            Fault::FalseHint => Kind::FalseHint,
            Fault::Impostor(Pretence::Wiped) => Kind::WipedRefused,
            Fault::Impostor(Pretence::Backup) => Kind::BackupRefused,
            Fault::Impostor(Pretence::Duplicate) => Kind::DuplicateRefused,
            Fault::OtherCluster => Kind::OtherCluster,
            Fault::BitRot { .. } => Kind::BitRotFound,
        }
    }
}

pub(crate) fn draw_plan(rng: &mut Rng, nodes: u64, features: u32, duration: Nanos) -> Vec<(Nanos, Fault)> {
    let mut plan = Vec::new();
    // A quiet seed now and then shows that nothing depends on faults.
    let pause = if rng.chance(50_000) {
        duration
    } else {
        rng.pick(&[1, 2, 4, 8]) * SEC
    };
    let mut at = rng.within(1..4) * SEC;
    let mut choices: Vec<u64> = (0..26).filter(|_| rng.chance(600_000)).collect();
    choices.push(3);
    while at < duration * 9 / 10 {
        let choice = rng.pick(&choices);
        plan.push((at, draw_fault(rng, choice, nodes, features)));
        at += rng.within(pause / 4..pause * 2);
    }
    plan
}

fn draw_fault(rng: &mut Rng, choice: u64, nodes: u64, features: u32) -> Fault {
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
        14 if nodes > 2 => Fault::CutFollower(lasts),
        15 if nodes > 1 => Fault::OneLink(lasts),
        16 if nodes > 2 => Fault::Hub {
            lasts,
            without_leader: rng.coin(),
        },
        17 if nodes > 2 => Fault::Chain(lasts),
        // Old software shows no identity; and whoever is alone has nobody to be refused by.
        20 | 21 if nodes > 2 && features > 1 => {
            let pretences = [Pretence::Wiped, Pretence::Backup, Pretence::Duplicate];
            Fault::Impostor(rng.pick(&pretences))
        }
        22 => Fault::OtherCluster,
        24 if nodes > 1 => Fault::FalseHint,
        23 if nodes > 2 && features > 1 => Fault::BitRot {
            flips: rng.within(1..4),
        },
        18 | 19 => Fault::StallDisk {
            leader: choice == 18,
            lasts: lasts * rng.pick(&[1, 1, 4]),
        },
        _ => Fault::SyncError,
    }
}
