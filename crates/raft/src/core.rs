//! What a node has in every role: term, vote, log, commit index, its disk, and the effects gathered so far.

use quorate_base::{Index, LogId, NodeId, Term};
use quorate_marks::reached;

use crate::config::Config;
use crate::durability::Durability;
use crate::effects::{Arm, Effects, HardState, Outgoing, SnapMeta, Timer};
use crate::haste::Haste;
use crate::log::Log;
use crate::message::{Body, EntryShape, Message, Priority};
use crate::role::transfer::Patience;

/// What the driver found on its disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// This node.
    pub id: NodeId,
    /// The last recorded term, vote and commit index.
    pub hard: HardState,
    /// Where the log starts.
    pub base: SnapMeta,
    /// The entries after that.
    pub entries: Vec<EntryShape>,
    /// The last entry whose effects the state machine has durably.
    pub applied: Index,
    /// Where this run starts to number its batches of forwarded reads, so that an answer to a former run is never taken for one to this.
    /// Must be far from that of every earlier run: random, or a durable count of starts times 2³².
    pub nonce: u64,
    /// How gladly this node leads.
    pub priority: Priority,
    /// Lease reads are on in this cluster (§6.4.1): then a restarted voter, which does not know whom it had promised to keep as leader, grants
    /// no vote for one minimum election timeout.
    pub leases: bool,
    /// Limits of flow control.
    pub limits: Limits,
}

/// Limits of flow control. Any positive values are safe; they trade memory for throughput.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Bytes of entries in one Append. A single larger entry still goes, alone.
    pub max_append_bytes: u64,
    /// Appends in flight to one peer.
    pub max_inflight: usize,
    /// Bytes in flight to one peer.
    pub max_inflight_bytes: u64,
    /// Bytes that may wait to be committed before proposals are refused.
    pub max_uncommitted_bytes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_append_bytes: 1 << 20,
            max_inflight: 256,
            max_inflight_bytes: 8 << 20,
            max_uncommitted_bytes: 64 << 20,
        }
    }
}

/// The state that every role shares.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Core {
    pub(crate) id: NodeId,
    pub(crate) term: Term,
    pub(crate) vote: Option<NodeId>,
    pub(crate) log: Log,
    pub(crate) commit: Index,
    /// Entries up to here were handed out to be applied.
    pub(crate) applying: Index,
    pub(crate) applied: Index,
    pub(crate) durability: Durability,
    /// The number of the next batch of forwarded reads.
    pub(crate) next_read: u64,
    pub(crate) priority: Priority,
    pub(crate) patience: Patience,
    pub(crate) leases: bool,
    /// It asks for votes sooner than the election timer says.
    pub(crate) haste: Option<Haste>,
    /// The disk has not answered for too long: this node neither leads nor campaigns.
    pub(crate) stalled: bool,
    pub(crate) limits: Limits,
    pub(crate) out: Effects,
}

impl Core {
    pub(crate) fn new(restored: Restored) -> Core {
        let Restored {
            id,
            hard,
            base,
            entries,
            applied,
            nonce,
            priority,
            leases,
            limits,
        } = restored;
        let log = Log::new(base, &entries);
        let last = log.last();
        assert!(
            last.term <= hard.term,
            "the log ends in term {}, after the recorded {}",
            last.term,
            hard.term
        );
        assert!(
            applied <= last.index,
            "the state machine ({applied}) is ahead of the log ({})",
            last.index
        );
        assert!(
            hard.commit <= last.index,
            "commit {} is beyond the log's end {}",
            hard.commit,
            last.index
        );
        reached!(
            "raft.restart.installed_before_restored",
            applied < log.base().last.index
        );
        reached!("raft.restart.commit_from_applied", hard.commit < applied);
        let applied = applied.max(log.base().last.index);
        Core {
            id,
            term: hard.term,
            vote: hard.vote,
            commit: hard.commit.max(applied),
            applying: applied,
            applied,
            durability: Durability::new(last.index, hard.commit),
            next_read: nonce,
            log,
            priority,
            patience: Patience::default(),
            leases,
            haste: None,
            stalled: false,
            limits,
            out: Effects::default(),
        }
    }

    /// Moves to a later term, in which no vote has been given yet (§3.3).
    pub(crate) fn set_term(&mut self, term: Term) {
        assert!(
            term > self.term,
            "the term only grows: {term} after {} (S8)",
            self.term
        );
        self.term = term;
        self.vote = None;
        self.durability.hard_changed();
    }

    /// Gives the one vote of this term (§3.4).
    pub(crate) fn set_vote(&mut self, to: NodeId) {
        assert!(self.vote.is_none_or(|vote| vote == to), "one vote a term (S8)");
        if self.vote.is_none() {
            self.vote = Some(to);
            self.durability.hard_changed();
        }
    }

    /// The commit index moves up to `index`.
    pub(crate) fn commit_to(&mut self, index: Index) {
        if index > self.commit {
            assert!(
                index <= self.log.last_index(),
                "commit {index} is beyond the log's end (S3)"
            );
            self.commit = index;
        }
    }

    /// Appends an entry.
    pub(crate) fn append(&mut self, term: Term, size: u32, config: Option<Config>) -> LogId {
        self.durability.appended();
        self.log.append(term, size, config)
    }

    /// Removes the entries after `index`, which conflict with the leader's.
    pub(crate) fn truncate_after(&mut self, index: Index) {
        assert!(
            index >= self.commit,
            "truncating after {index} would lose committed entries up to {}",
            self.commit
        );
        self.log.truncate_after(index);
        self.durability.truncated(index);
    }

    /// The commit index, if it is of the current term: only then is it known to be the latest (§6.4).
    pub(crate) fn own_term_commit(&self) -> Option<Index> {
        (self.log.term_at(self.commit) == Some(self.term)).then_some(self.commit)
    }

    /// Whether this node may campaign: a voter of the configuration in force or of the last one known to be committed
    /// (a member that is being removed may hold the only newest log).
    pub(crate) fn may_campaign(&self) -> bool {
        reached!(
            "raft.election.voter_of_committed_config_only",
            !self.log.config().is_voter(self.id) && self.log.config_at(self.commit).is_voter(self.id)
        );
        self.log.config().is_voter(self.id) || self.log.config_at(self.commit).is_voter(self.id)
    }

    /// All other voters of the configuration in force.
    pub(crate) fn other_voters(&self) -> Vec<NodeId> {
        let config = self.log.config();
        config
            .members()
            .into_iter()
            .filter(|id| *id != self.id && config.is_voter(*id))
            .collect()
    }

    /// Sends at once: for pre-votes, which promise nothing, and for a leader, whose term is durable since its election.
    pub(crate) fn send_now(&mut self, to: NodeId, body: Body) {
        let message = Message {
            term: self.term,
            body,
        };
        self.out.send.push(Outgoing::Message { to, message });
    }

    /// Sends once term and vote are durable.
    pub(crate) fn send_after_hard(&mut self, to: NodeId, body: Body) {
        let message = Message {
            term: self.term,
            body,
        };
        if let Some((to, message)) = self.durability.after_hard(to, message) {
            self.out.send.push(Outgoing::Message { to, message });
        }
    }

    /// Sends once term, vote and the log to its end are durable.
    pub(crate) fn send_after_log(&mut self, to: NodeId, body: Body) {
        let message = Message {
            term: self.term,
            body,
        };
        if let Some((to, message)) = self.durability.after_log(to, message) {
            self.out.send.push(Outgoing::Message { to, message });
        }
    }

    /// Sets or stops a timer; the last word before the drain counts.
    pub(crate) fn arm(&mut self, timer: Timer, arm: Arm) {
        let timers = &mut self.out.timers;
        match timers.binary_search_by_key(&timer, |armed| armed.0) {
            Ok(at) => timers[at].1 = arm,
            Err(at) => timers.insert(at, (timer, arm)),
        }
    }

    /// Completes and hands out the effects. The lists of `into` are used for the next ones.
    pub(crate) fn take_effects(&mut self, into: &mut Effects) {
        let hard = HardState {
            term: self.term,
            vote: self.vote,
            commit: self.commit,
        };
        self.out.write = self.durability.take_write(&self.log, hard);
        self.out.apply = self.take_apply();
        into.clear();
        std::mem::swap(&mut self.out, into);
    }

    /// What is committed, durable here, and not yet handed out. While an install is on its way to the disk, nothing is.
    fn take_apply(&mut self) -> Option<crate::effects::Range> {
        let upto = self.commit.min(self.durability.durable());
        reached!("raft.apply.waits_for_disk", upto < self.commit);
        reached!(
            "raft.apply.waits_for_install",
            self.applying < self.log.base().last.index
        );
        if self.applying < self.log.base().last.index || upto <= self.applying {
            return None;
        }
        let range = self.log.range(self.applying, upto);
        self.applying = upto;
        Some(range)
    }
}
