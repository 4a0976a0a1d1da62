//! Which kinds of fault and of rare event a run really met. A simulator that silently stopped injecting something would
//! prove nothing, so the tests demand that every kind is hit.

use std::collections::BTreeMap;
use std::fmt;

use crate::cells::{Matrix, States};

/// Writes the table of kinds once: the type, and the lists of its values that belong together.
macro_rules! kinds {
    (
        messages { $($(#[$of_message:meta])* $message:ident,)* }
        planned { $($(#[$of_planned:meta])* $planned:ident,)* }
        events { $($(#[$of_event:meta])* $event:ident,)* }
    ) => {
        /// A kind of event that runs are there to meet.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Kind {
            $($(#[$of_message])* $message,)*
            $($(#[$of_planned])* $planned,)*
            $($(#[$of_event])* $event,)*
        }

        impl Kind {
            /// All kinds, in order.
            pub const ALL: &[Kind] = &[$(Kind::$message,)* $(Kind::$planned,)* $(Kind::$event,)*];

            /// Those that are faults: in which states they struck is counted.
            pub const FAULTS: &[Kind] = &[$(Kind::$message,)* $(Kind::$planned,)*];

            /// The faults that a run plans. The others are those of single messages, which the network has of its own.
            pub const PLANNED: &[Kind] = &[$(Kind::$planned,)*];
        }
    };
}

kinds! {
    messages {
        /// A message vanished.
        Drop,
        /// A message took much longer than usual.
        Delay,
        /// A message overtook another of the same link.
        Reorder,
        /// A message arrived twice.
        Duplicate,
        /// A frame arrived with other bytes than were sent, and its connection was ended.
        Garbled,
    }
    planned {
        /// The cluster was cut in two.
        Partition,
        /// Messages passed in one direction only.
        OneWay,
        /// The leader was cut off from everyone.
        IsolateLeader,
        /// A follower was cut from the leader only.
        CutFollower,
        /// One link let nothing pass in one direction.
        OneLink,
        /// All nodes reached one node only.
        Hub,
        /// All nodes reached their neighbours only.
        Chain,
        /// A link, or all links of a node, came and went again and again.
        Flap,
        /// A link broke and came back.
        Reset,
        /// The power of a machine was cut. Ends that come with other faults are theirs.
        PowerLoss,
        /// A process was killed, its page cache surviving. Ends that come with other faults are theirs.
        Kill,
        /// The end came inside a disk operation.
        CrashInDisk,
        /// The end came while a node was starting.
        CrashInRecovery,
        /// A sync failed.
        SyncError,
        /// A write failed, and nothing was written.
        WriteError,
        /// A write failed, and a part was written.
        ShortWrite,
        /// A sync of the directory failed.
        DirSyncError,
        /// A read failed.
        ReadError,
        /// All nodes were down at once.
        AllDown,
        /// A disk was slow.
        SlowDisk,
        /// Operations of a disk did not return.
        StallDisk,
        /// A node stood still for a while.
        Pause,
        /// The leader stood still and was cut off meanwhile.
        Stall,
        /// A clock leapt ahead.
        ClockLeap,
        /// A machine was suspended, and its clock stood still.
        Suspend,
        /// A disk ran full.
        FullDisk,
        /// A leadership transfer was asked for.
        Transfer,
        /// Some were told so of a leader that was well: it strikes them, and it.
        FalseHint,
        /// A node with an empty disk under an old id was refused.
        WipedRefused,
        /// A node with an older copy of its disk was refused.
        BackupRefused,
        /// A second process with one id was refused.
        DuplicateRefused,
        /// A node of another cluster was refused.
        OtherCluster,
        /// Bits flipped at rest were found, and the node did not start.
        BitRotFound,
        /// Bits of a log flipped while the node ran.
        RotInUse,
        /// A disk lost a write that it had confirmed.
        LostWrite,
        /// A disk put a write in another place, and confirmed it.
        MisdirectedWrite,
        /// Bits of a store flipped.
        StoreRot,
        /// A disk lost a write to a store that it had confirmed, or put it in another place.
        StoreLostWrite,
    }
    events {
        /// Of the unsynced sectors some survived a crash and others did not.
        TornWrite,
        /// A node started again.
        Restart,
        /// A leader whose disk did not return gave up leadership.
        StalledLeaderLeft,
        /// A snapshot was installed.
        SnapshotInstall,
        /// A snapshot transfer went on where a restart of the receiver had left it.
        SnapshotResumed,
        /// A node sent several snapshots at once.
        SeveralSnapshots,
        /// A log was compacted.
        Compaction,
        /// The log was read back from disk.
        ColdRead,
        /// The state machine was flushed to disk.
        Flush,
        /// A follower's log was truncated.
        Truncation,
        /// Another node became leader.
        LeaderChange,
        /// A follower found the process of its leader gone.
        Hint,
        /// A learner was added.
        AddLearner,
        /// A learner was promoted on request.
        Promote,
        /// A learner was promoted by itself.
        AutoPromote,
        /// A member was removed.
        Remove,
        /// The leader was removed.
        RemoveLeader,
        /// Several members were replaced at once.
        ReplaceSeveral,
        /// A member's description was changed.
        Describe,
        /// A joint configuration was committed.
        Joint,
        /// A change was made by force.
        ForcedChange,
        /// A change that would have lost the quorum was refused.
        QuorumLossRefused,
        /// A change ended without anybody knowing how.
        UnknownChange,
        /// A removed node learned of it from its log, and ended.
        LeftByItself,
        /// A removed node was refused by its peers, and ended.
        RemovedRefused,
        /// A machine was destroyed with its disk.
        Destroyed,
        /// A node did not start for what such a disk had done to its log.
        DamageFound,
        /// A running node read back what was damaged, noticed, and ended.
        DamageRead,
        /// A running node read what was damaged of its store, and said so.
        StoreDamageRead,
        /// A store was found damaged: by a node, which did not start, or by the operator.
        StoreDamageFound,
        /// What was spoilt of a store nobody has read, nor written anew.
        StoreDamageUnmet,
        /// A node whose disk had lost the end of its log would have been refused by a peer.
        ShortLogRefused,
        /// A node whose disk had lost the end of its log would have been let in by all: no peer had recorded what it had lost.
        ShortLogUnseen,
        /// A read was answered by the leader's clock.
        LeaseRead,
        /// The feature level was raised.
        LevelRaised,
        /// In the end a majority had to go on while the others were still cut off.
        MajorityOnly,
        /// A watcher went on after what it had seen.
        WatchResumed,
        /// What a watcher wanted was compacted.
        WatchCompacted,
        /// A watcher was ended by its client.
        WatchCancelled,
        /// Watchers read history.
        WatchBehind,
        /// Events came in fragments.
        WatchFragment,
        /// A watcher was told how far it is.
        WatchProgress,
        /// A lease expired.
        LeaseExpired,
        /// A lease was revoked by its client.
        LeaseRevoked,
        /// The end of a lease was void: proposed in an earlier term, or for an earlier grant.
        ExpiryVoid,
        /// A client was told that its lease lives on.
        LeaseRenewed,
        /// Leaders of several terms have renewed a lease.
        LeaseRenewedAcrossLeaders,
        /// A command of a session was in the log a second time, and was answered as the first time.
        SessionRetry,
        /// A session was evicted, and its client learned of it.
        SessionExpired,
        /// A request ended without anybody knowing how.
        UnknownOutcome,
    }
}

/// How often each kind was met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    counts: BTreeMap<Kind, u64>,
    /// In which states the faults among them struck.
    pub matrix: Matrix,
}

impl Coverage {
    /// It happened.
    pub fn hit(&mut self, kind: Kind) {
        *self.counts.entry(kind).or_default() += 1;
    }

    /// A fault struck somebody in these states.
    pub fn struck(&mut self, fault: Kind, states: States) {
        self.hit(fault);
        self.matrix.hit(fault, states);
    }

    /// How often it happened.
    pub fn count(&self, kind: Kind) -> u64 {
        self.counts.get(&kind).copied().unwrap_or(0)
    }

    /// Adds another run's counts.
    pub fn add(&mut self, other: &Coverage) {
        for (kind, count) in &other.counts {
            *self.counts.entry(*kind).or_default() += count;
        }
        self.matrix.add(&other.matrix);
    }

    /// The kinds among `wanted` that never happened.
    pub fn missing(&self, wanted: &[Kind]) -> Vec<Kind> {
        wanted
            .iter()
            .copied()
            .filter(|kind| self.count(*kind) == 0)
            .collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> = Kind::ALL
            .iter()
            .map(|kind| format!("{kind:?} {}", self.count(*kind)))
            .collect();
        f.write_str(&words.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_happened_is_named() {
        let mut coverage = Coverage::default();
        coverage.hit(Kind::Drop);
        let mut sum = Coverage::default();
        sum.add(&coverage);
        sum.add(&coverage);
        assert_eq!(sum.count(Kind::Drop), 2);
        assert_eq!(sum.missing(&[Kind::Drop, Kind::Kill]), [Kind::Kill]);
    }
}
