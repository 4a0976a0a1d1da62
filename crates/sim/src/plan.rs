//! The faults that a run may plan, what each must be counted as, and how a seed draws its plan. What a fault does when it strikes is
//! in `nemesis`, `cuts` and `media`; how it waits for its moment, in `steering`; which wait for rare states, in `ambush`.

use crate::cells::{State, impossible};
use crate::coverage::Kind;
use crate::params::{MS, SEC};
use crate::rng::Rng;
use crate::trace::Nanos;

/// A planned fault and its moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strike {
    /// Not before.
    pub at: Nanos,
    /// In which state.
    pub when: When,
    /// What.
    pub fault: Fault,
}

/// What a planned fault waits for when its time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Nothing.
    Now,
    /// Until somebody is in this state, or for some seconds.
    Soon(State),
    /// Until it can strike somebody who is in this state; it does not strike at all if that never comes.
    Only(State),
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
    /// Links come and go in a random rhythm.
    Flap {
        /// How long.
        lasts: Nanos,
        /// Longest time in one state.
        rhythm: Nanos,
        /// All links of one node, and not only one in one direction.
        all: bool,
    },
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
    /// The disk reports an error at a write, of which nothing was done.
    WriteError {
        /// Operations from now.
        operations: u64,
    },
    /// The disk reports an error at a write, of which a part was done.
    ShortWrite {
        /// Operations from now.
        operations: u64,
    },
    /// The disk reports an error at a sync of the directory.
    DirSyncError,
    /// The disk reports an error at a read.
    ReadError {
        /// Reads from now.
        reads: u64,
    },
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
    /// One node's clock leaps ahead.
    ClockLeap(Nanos),
    /// One node is suspended, and its clock with it.
    Suspend(Nanos),
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
    /// Bits of a log flip while the node runs.
    RotInUse {
        /// How many.
        flips: u64,
    },
    /// The disk says of a write to the log that it is durable, and has lost it.
    LostWrite {
        /// Operations from now.
        operations: u64,
        /// Reads show it while the machine has power.
        cached: bool,
    },
    /// The disk says of a write to the log that it is durable, and has put it in another place of the log.
    MisdirectedWrite {
        /// Operations from now.
        operations: u64,
        /// Reads show it in its place while the machine has power.
        cached: bool,
    },
    /// Bits of a store flip.
    StoreRot {
        /// How many.
        flips: u64,
        /// While the node is down.
        at_rest: bool,
    },
    /// The disk said of a write to the store that it was durable, and has lost it.
    StoreLostWrite {
        /// Reads show it while the machine has power.
        cached: bool,
        /// It is in another place of the store.
        astray: bool,
    },
    /// A message is dropped, delayed, duplicated or garbled.
    Message(Kind),
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
            Fault::Flap { .. } => Kind::Flap,
            Fault::Reset => Kind::Reset,
            Fault::PowerLoss { .. } => Kind::PowerLoss,
            Fault::Kill { .. } => Kind::Kill,
            Fault::CrashInDisk { .. } => Kind::CrashInDisk,
            Fault::SyncError => Kind::SyncError,
            Fault::WriteError { .. } => Kind::WriteError,
            Fault::ShortWrite { .. } => Kind::ShortWrite,
            Fault::DirSyncError => Kind::DirSyncError,
            Fault::ReadError { .. } => Kind::ReadError,
            Fault::CrashInRecovery { .. } => Kind::CrashInRecovery,
            Fault::AllDown(_) => Kind::AllDown,
            Fault::SlowDisk { .. } => Kind::SlowDisk,
            Fault::StallDisk { .. } => Kind::StallDisk,
            Fault::Pause(_) => Kind::Pause,
            Fault::ClockLeap(_) => Kind::ClockLeap,
            Fault::Suspend(_) => Kind::Suspend,
            Fault::Stall(_) => Kind::Stall,
            Fault::FullDisk(_) => Kind::FullDisk,
            Fault::Transfer => Kind::Transfer,
            Fault::FalseHint => Kind::FalseHint,
            Fault::Impostor(Pretence::Wiped) => Kind::WipedRefused,
            Fault::Impostor(Pretence::Backup) => Kind::BackupRefused,
            Fault::Impostor(Pretence::Duplicate) => Kind::DuplicateRefused,
            Fault::OtherCluster => Kind::OtherCluster,
            Fault::BitRot { .. } => Kind::BitRotFound,
            Fault::RotInUse { .. } => Kind::RotInUse,
            Fault::LostWrite { .. } => Kind::LostWrite,
            Fault::MisdirectedWrite { .. } => Kind::MisdirectedWrite,
            Fault::StoreRot { .. } => Kind::StoreRot,
            Fault::StoreLostWrite { .. } => Kind::StoreLostWrite,
            Fault::Message(kind) => *kind,
        }
    }
}

/// What decides which faults a seed may plan.
pub(crate) struct Setting {
    pub nodes: u64,
    /// What the founders understand.
    pub features: u32,
    pub leases: bool,
    /// The membership changes.
    pub churn: bool,
    pub duration: Nanos,
}

pub(crate) fn draw_plan(rng: &mut Rng, setting: &Setting) -> Vec<Strike> {
    let mut plan = Vec::new();
    // A quiet seed now and then shows that nothing depends on faults.
    let pause = if rng.chance(50_000) {
        setting.duration
    } else {
        rng.log_within(SEC..10 * SEC)
    };
    // Each seed has a mixture of its own.
    let choices: Vec<Kind> = Kind::PLANNED
        .iter()
        .copied()
        .filter(|_| rng.chance(600_000))
        .collect();
    let (steered, bursts) = (rng.pick(&[0, 500_000, 800_000]), rng.pick(&[0, 100_000, 400_000]));
    let mut at = rng.within(1..4) * SEC;
    while at < setting.duration * 9 / 10 {
        let kind = rng.pick(&choices);
        let fault = draw_fault(rng, kind, setting).unwrap_or_else(|| draw_crash(rng));
        let when = rng.chance(steered).then(|| rng.pick(&State::ALL));
        let when = when.filter(|state| impossible(fault.kind(), *state).is_none() && setting.knows(*state));
        let when = when.map_or(When::Now, When::Soon);
        plan.push(Strike { at, when, fault });
        // The next one strikes in the same moment, more or less, or when the last is over or not.
        at += if rng.chance(bursts) {
            rng.within(0..500 * MS)
        } else {
            rng.within(pause / 4..pause * 2)
        };
    }
    plan
}

impl Setting {
    /// Whether a member can be replaced. Old software shows no identity; and whoever is alone has nobody to be refused by, nor to be replaced with.
    pub fn can_replace(&self) -> bool {
        self.nodes > 2 && self.features > 1
    }

    /// Whether a run of this kind ever is in this state.
    pub fn knows(&self, state: State) -> bool {
        match state {
            State::Leasing => self.leases,
            State::Learning | State::Joint => self.churn,
            _ => self.nodes > 1,
        }
    }
}

/// What may strike any cluster.
fn draw_crash(rng: &mut Rng) -> Fault {
    let (operations, down) = (rng.within(0..60), rng.within(1..4_000) * MS);
    match rng.below(4) {
        0 => Fault::SyncError,
        1 => Fault::PowerLoss {
            leader: rng.coin(),
            down,
        },
        _ => Fault::CrashInDisk { operations, down },
    }
}

/// A fault of this kind; `None` if such a cluster cannot have it.
pub(crate) fn draw_fault(rng: &mut Rng, kind: Kind, setting: &Setting) -> Option<Fault> {
    let (several, many) = (setting.nodes > 1, setting.nodes > 2);
    let (lasts, down) = (rng.log_within(20..8_000) * MS, rng.log_within(1..5_000) * MS);
    let replaceable = setting.can_replace();
    let operations = rng.log_within(1..80);
    let leader = rng.coin();
    Some(match kind {
        Kind::Partition if several => Fault::Partition(lasts),
        Kind::OneWay if several => Fault::OneWay(lasts),
        Kind::IsolateLeader if several => Fault::IsolateLeader(lasts),
        Kind::CutFollower if many => Fault::CutFollower(lasts),
        Kind::OneLink if several => Fault::OneLink(lasts),
        Kind::Hub if many => Fault::Hub {
            lasts,
            without_leader: leader,
        },
        Kind::Chain if many => Fault::Chain(lasts),
        Kind::Flap if several => Fault::Flap {
            lasts,
            rhythm: rng.log_within(5..1_000) * MS,
            all: rng.coin(),
        },
        Kind::Reset if several => Fault::Reset,
        Kind::Transfer if several => Fault::Transfer,
        Kind::FalseHint if several => Fault::FalseHint,
        Kind::Stall if several => Fault::Stall(lasts),
        Kind::PowerLoss => Fault::PowerLoss { leader, down },
        Kind::Kill => Fault::Kill { leader, down },
        Kind::AllDown => Fault::AllDown(down),
        Kind::Pause => Fault::Pause(lasts),
        // Leases count on clocks that run at about the same rate.
        Kind::ClockLeap if !setting.leases => Fault::ClockLeap(rng.log_within(1..20_000) * MS),
        Kind::Suspend if !setting.leases => Fault::Suspend(lasts),
        Kind::OtherCluster => Fault::OtherCluster,
        Kind::WipedRefused if replaceable => Fault::Impostor(Pretence::Wiped),
        Kind::BackupRefused if replaceable => Fault::Impostor(Pretence::Backup),
        Kind::DuplicateRefused if replaceable => Fault::Impostor(Pretence::Duplicate),
        _ => return draw_disk_fault(rng, kind, replaceable, (lasts, down, operations)),
    })
}

fn draw_disk_fault(
    rng: &mut Rng,
    kind: Kind,
    replaceable: bool,
    (lasts, down, operations): (Nanos, Nanos, u64),
) -> Option<Fault> {
    let (flips, cached) = (rng.within(1..4), rng.coin());
    Some(match kind {
        Kind::CrashInDisk => Fault::CrashInDisk { operations, down },
        Kind::CrashInRecovery => Fault::CrashInRecovery {
            operations: rng.within(0..12),
        },
        Kind::SyncError => Fault::SyncError,
        Kind::WriteError => Fault::WriteError { operations },
        Kind::ShortWrite => Fault::ShortWrite { operations },
        Kind::DirSyncError => Fault::DirSyncError,
        Kind::ReadError => Fault::ReadError { reads: operations },
        Kind::SlowDisk => Fault::SlowDisk {
            lasts,
            factor: rng.log_within(3..600),
        },
        Kind::StallDisk => Fault::StallDisk {
            leader: rng.coin(),
            lasts: lasts * rng.pick(&[1, 4, 16]),
        },
        Kind::FullDisk => Fault::FullDisk(lasts),
        Kind::BitRotFound if replaceable => Fault::BitRot { flips },
        Kind::RotInUse if replaceable => Fault::RotInUse {
            flips: rng.log_within(1..60),
        },
        Kind::LostWrite if replaceable => Fault::LostWrite { operations, cached },
        Kind::MisdirectedWrite if replaceable => Fault::MisdirectedWrite { operations, cached },
        Kind::StoreRot if replaceable => Fault::StoreRot {
            flips: rng.log_within(1..60),
            at_rest: rng.coin(),
        },
        Kind::StoreLostWrite if replaceable => Fault::StoreLostWrite {
            cached,
            astray: rng.coin(),
        },
        _ => return None,
    })
}
