//! Leading: replication (§3.5), commitment (§3.6.2), check-quorum (§6.2) and confirmation rounds for reads (§6.4). Changes of the membership
//! are in [`membership`](super::membership), handing over in [`transfer`](super::transfer).

use std::collections::BTreeMap;

use quorate_base::{Index, LogId, NodeId};
use quorate_marks::reached;

use crate::core::Core;
use crate::effects::{Arm, Outgoing, Placed, Refused, Timer};
use crate::haste;
use crate::message::{Body, Round};
use crate::progress::{Pace, Progress};
use crate::quorum;
use crate::read::{ReadQueue, Reader};
use crate::role::Next;
use crate::role::membership::Changing;
use crate::role::transfer::Handover;

/// What a no-op counts for in flow control: about the encoded size of an entry without payload.
pub const NOOP_SIZE: u32 = 17;

/// The leader of the current term.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Leader {
    /// Every other member, and those that have just left.
    pub peers: BTreeMap<NodeId, Progress>,
    /// The last confirmation round begun.
    round: Round,
    /// The last one that was reported as confirmed.
    reported: Round,
    reads: ReadQueue,
    pub(super) handover: Handover,
    pub(super) change: Changing,
}

impl Leader {
    /// Takes over. The no-op makes earlier entries committable at once: entries of earlier terms are never committed by
    /// counting replicas, only along with one of this term (§3.6.2, Figure 3.7).
    pub fn enter(core: &mut Core) -> Leader {
        let next = core.log.last_index().next();
        let members = core.log.config().members();
        let peers = members
            .into_iter()
            .filter(|id| *id != core.id)
            .map(|id| (id, Progress::new(next)))
            .collect();
        haste::end(core);
        core.arm(Timer::Election, Arm::Off);
        core.arm(Timer::Fresh, Arm::Off);
        core.arm(Timer::Heartbeat, Arm::Set);
        core.arm(Timer::Quorum, Arm::Set);
        let at = core.append(core.term, NOOP_SIZE, None);
        core.out.placed.push(Placed::Noop { at });
        Leader {
            peers,
            round: 0,
            reported: 0,
            reads: ReadQueue::default(),
            handover: Handover::default(),
            change: Changing::new(at.index),
        }
    }

    /// The role ends: reads are refused, and may be asked again of the next leader.
    pub fn leave(mut self, core: &mut Core) {
        for timer in [Timer::Heartbeat, Timer::Quorum, Timer::Transfer] {
            core.arm(timer, Arm::Off);
        }
        self.change.abandon(core);
        for reader in self.reads.drain() {
            reached!("raft.read.dropped_with_leadership");
            if let Reader::Local(token) = reader {
                core.out.reads.push((token, Err(Refused::NotLeader(None))));
            }
        }
    }

    /// A client's command.
    pub fn on_propose(&mut self, core: &mut Core, token: u64, size: u32) {
        let waiting = core.log.bytes_between(core.commit, core.log.last_index());
        let refused = if self.handover.is_under_way() {
            Some(Refused::Transferring)
        } else if waiting > 0 && waiting + u64::from(size) > core.limits.max_uncommitted_bytes {
            Some(Refused::Busy)
        } else {
            None
        };
        reached!(
            "raft.propose.transferring",
            matches!(refused, Some(Refused::Transferring))
        );
        reached!("raft.propose.busy", matches!(refused, Some(Refused::Busy)));
        match refused {
            Some(why) => core.out.refused.push((token, why)),
            None => {
                let at = core.append(core.term, size, None);
                core.out.placed.push(Placed::Proposal { token, at });
            }
        }
    }

    /// A read, of a client here or of a follower's.
    pub fn on_read(&mut self, core: &Core, reader: Reader) {
        self.reads.push(reader, core.own_term_commit(), self.round);
    }

    /// A peer holds everything up to `upto` durably.
    pub fn on_appended(&mut self, core: &mut Core, from: NodeId, upto: Index) {
        let Some(peer) = self.peers.get_mut(&from) else {
            reached!("raft.ack.of_stranger");
            return;
        };
        if upto > core.log.last_index() {
            reached!("raft.ack.beyond_log");
            return; // No correct peer says so.
        }
        let news = peer.acknowledge(upto);
        if matches!(peer.pace, Pace::Snapshot) && peer.matched >= core.log.base().last.index {
            reached!("raft.ack.ends_snapshot");
            peer.probe(peer.matched.next(), false);
        }
        if news {
            self.advance_commit(core);
        }
    }

    /// A peer's log does not match at `prev`; `hint` is the last place where it may (§3.5).
    pub fn on_conflict(&mut self, core: &Core, from: NodeId, prev: Index, hint: LogId) {
        let Some(peer) = self.peers.get_mut(&from) else {
            reached!("raft.conflict.of_stranger");
            return;
        };
        let current = match &peer.pace {
            Pace::Probe { .. } => prev == peer.next.prev(),
            Pace::Replicate { .. } => prev > peer.matched,
            Pace::Snapshot => false,
        };
        reached!("raft.conflict.outdated", !current);
        if current {
            // Where nothing that the log still has may agree, it lies before the base, and a snapshot is needed.
            let before_base = core.log.base().last.index.prev();
            let agrees = core
                .log
                .last_at_or_below(hint.index, hint.term)
                .map_or(hint.index.min(before_base), |id| id.index);
            // Below the match there is nothing to look for: the peer lost what it had acknowledged, which no correct disk
            // does. It is asked again at each heartbeat, and not as fast as the network allows.
            reached!("raft.conflict.below_match", agrees < peer.matched);
            reached!("raft.conflict.before_base", agrees <= before_base);
            reached!("raft.conflict.skips_a_term", agrees < hint.index);
            peer.probe(agrees.next(), agrees < peer.matched);
        }
    }

    /// A peer confirmed that this node still led when `round` began, and says how far its log is verified and durable.
    pub fn on_heartbeat_response(
        &mut self,
        core: &mut Core,
        from: NodeId,
        round: Round,
        verified: Index,
        matched: Index,
    ) {
        let begun = self.round;
        reached!("raft.round.not_begun", round > begun);
        let Some(peer) = self.peers.get_mut(&from).filter(|_| round <= begun) else {
            return;
        };
        peer.round = peer.round.max(round);
        let replicating = matches!(peer.pace, Pace::Replicate { .. });
        reached!(
            "raft.round.before_last_append",
            round <= peer.sent_in && replicating
        );
        if round > peer.sent_in {
            // The heartbeat was sent after the last Append, so the answer tells what became of that.
            match &mut peer.pace {
                Pace::Probe { waiting } => *waiting = false,
                Pace::Replicate { .. } if verified < peer.next.prev() => {
                    reached!("raft.round.shows_loss");
                    peer.probe(verified.next(), false);
                }
                Pace::Replicate { .. } | Pace::Snapshot => {}
            }
        }
        if replicating && matched > peer.matched {
            reached!("raft.round.carries_lost_ack");
            self.on_appended(core, from, matched);
        }
    }

    /// Any message of the current term: the peer is alive and follows.
    pub fn on_contact(&mut self, from: NodeId) {
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.active = true;
        }
    }

    /// A peer can be reached (again): it need not wait for the next heartbeat to hear who leads and to say what it lacks.
    pub fn on_reachable(&mut self, core: &mut Core, to: NodeId) {
        let Some(peer) = self.peers.get_mut(&to) else {
            return;
        };
        if let Pace::Probe { waiting } = &mut peer.pace {
            reached!("raft.reachable.probed_at_once");
            *waiting = false;
            return;
        }
        let (commit, round) = (core.commit.min(peer.matched), self.round);
        peer.told_commit = peer.told_commit.max(commit);
        core.send_now(to, Body::Heartbeat { commit, round });
    }

    /// The driver did not send an Append from `first` on.
    pub fn on_not_sent(&mut self, to: NodeId, first: Index) {
        if let Some(peer) = self
            .peers
            .get_mut(&to)
            .filter(|peer| !matches!(peer.pace, Pace::Snapshot))
        {
            reached!("raft.not_sent.goes_back", first < peer.next);
            peer.probe(first.min(peer.next), true);
        } else {
            reached!("raft.not_sent.to_nobody");
        }
    }

    /// A snapshot to `to` has been installed up to `last`, or was given up.
    pub fn on_snapshot_sent(&mut self, to: NodeId, last: Option<LogId>) {
        if let Some(peer) = self
            .peers
            .get_mut(&to)
            .filter(|peer| matches!(peer.pace, Pace::Snapshot))
        {
            match last {
                Some(last) => peer.probe(last.index.next(), false),
                None => peer.probe(peer.matched.next(), true),
            }
            reached!("raft.snapshot.given_up", last.is_none());
            peer.sent_in = self.round;
        } else {
            reached!("raft.snapshot.sent_to_nobody");
        }
    }

    /// The heartbeat, check-quorum or transfer timer ran out.
    pub fn on_timer(&mut self, core: &mut Core, timer: Timer) -> Option<Next> {
        match timer {
            Timer::Heartbeat => {
                self.begin_round(core);
                core.arm(Timer::Heartbeat, Arm::Set);
            }
            Timer::Quorum => {
                let alive = |id| id == core.id || self.peers.get(&id).is_some_and(|peer| peer.active);
                if !quorum::has_quorum(core.log.config(), alive) {
                    reached!("raft.quorum.lost");
                    return Some(Next::Follower {
                        term: core.term,
                        leader: None,
                    });
                }
                for peer in self.peers.values_mut() {
                    peer.was_active = std::mem::take(&mut peer.active);
                }
                self.tick_membership(core);
                self.prefer_others(core);
                core.arm(Timer::Quorum, Arm::Set);
            }
            Timer::Transfer => return self.give_up_transfer(core),
            Timer::Election | Timer::Fresh | Timer::Read | Timer::Haste => {}
        }
        None
    }

    /// Commits what a quorum holds durably, if it is of this term (§3.6.2). The leader counts itself like the others: only
    /// for what its own disk has.
    pub fn advance_commit(&mut self, core: &mut Core) {
        let durable = core.durability.durable();
        let held = |id| {
            if id == core.id {
                durable
            } else {
                self.peers.get(&id).map_or(Index::ZERO, |p| p.matched)
            }
        };
        let index = Index(quorum::reached(core.log.config(), |id| held(id).0));
        reached!(
            "raft.commit.not_of_own_term",
            index > core.commit && core.log.term_at(index) != Some(core.term)
        );
        if index > core.commit && core.log.term_at(index) == Some(core.term) {
            reached!("raft.commit.without_own_disk", durable < index);
            core.commit_to(index);
            self.reads.commit_known(index, self.round);
        }
    }

    fn begin_round(&mut self, core: &mut Core) {
        self.round += 1;
        core.out.round_begun = Some(self.round);
        for (id, peer) in &mut self.peers {
            let commit = core.commit.min(peer.matched);
            peer.told_commit = peer.told_commit.max(commit);
            core.send_now(
                *id,
                Body::Heartbeat {
                    commit,
                    round: self.round,
                },
            );
        }
    }

    /// The last round that a quorum answered.
    fn confirmed(&self, core: &Core) -> Round {
        let answered = |id| {
            if id == core.id {
                self.round
            } else {
                self.peers.get(&id).map_or(0, |p| p.round)
            }
        };
        quorum::reached(core.log.config(), answered)
    }

    /// Sends what has gathered since the last drain, all of it batched.
    pub fn flush(&mut self, core: &mut Core) -> Option<Next> {
        self.flush_membership(core);
        self.flush_reads(core);
        for (id, peer) in &mut self.peers {
            // What a former member would learn from a snapshot is not worth one.
            let compacted = core.log.term_at(peer.next.prev()).is_none();
            reached!(
                "raft.leaving.not_worth_a_snapshot",
                compacted && self.change.is_leaving(*id)
            );
            if !(compacted && self.change.is_leaving(*id)) {
                send_entries(core, *id, peer, self.round);
            }
            let commit = core.commit.min(peer.matched);
            if commit > peer.told_commit {
                peer.told_commit = commit;
                core.send_now(*id, Body::Commit { index: commit });
            }
        }
        self.flush_transfer(core)
    }

    fn flush_reads(&mut self, core: &mut Core) {
        if self.reads.is_empty() && self.reported == self.round {
            return; // Nobody asks, and what was asked has been answered.
        }
        let mut confirmed = self.confirmed(core);
        if self.reads.wants_round(self.round, confirmed) {
            self.begin_round(core);
            self.reads.round_begun(self.round);
            confirmed = self.confirmed(core); // One that needs nobody else is confirmed already.
        }
        if confirmed > self.reported {
            self.reported = confirmed;
            core.out.round_confirmed = Some(confirmed);
        }
        while let Some((reader, index)) = self.reads.pop(confirmed) {
            match reader {
                Reader::Local(token) => core.out.reads.push((token, Ok(index))),
                Reader::Peer(to, id) => core.send_now(to, Body::ReadIndexResponse { id, index }),
            }
        }
    }

    /// See [`Raft::rename`](crate::Raft::rename).
    #[cfg(feature = "check")]
    pub fn rename(&mut self, names: crate::Names) {
        crate::rename::keys(&mut self.peers, names);
        self.reads.rename(names);
        self.handover.rename(names);
        // Who is leaving was removed, and keeps its name.
    }

    /// See [`Raft::forget_repetitions`](crate::Raft::forget_repetitions).
    #[cfg(feature = "check")]
    pub fn forget_repetitions(&mut self) {
        self.reads.forget_repetitions();
    }

    /// What this role adds to the invariants (S7, S9).
    pub fn check(&self, core: &Core) {
        let members = core.log.config().members();
        assert!(
            self.peers
                .keys()
                .all(|id| *id != core.id && (members.contains(id) || self.change.is_leaving(*id))),
            "peers are members, or were until lately"
        );
        assert!(
            members
                .iter()
                .all(|id| *id == core.id || self.peers.contains_key(id)),
            "every member is replicated to"
        );
        self.check_membership(core);
        assert!(
            core.log.last().term == core.term,
            "a leader's log ends in its own term"
        );
        for peer in self.peers.values() {
            peer.check();
            assert!(
                peer.matched <= core.log.last_index(),
                "nobody matches beyond the leader's log"
            );
            assert!(
                peer.next <= core.log.last_index().next(),
                "nothing beyond the log is sent"
            );
            assert!(peer.round <= self.round, "no round is answered before it began");
        }
    }
}

/// Sends to one peer what its pace allows: entries in messages of bounded size, or a snapshot if they are gone.
fn send_entries(core: &mut Core, to: NodeId, peer: &mut Progress, round: Round) {
    loop {
        match &peer.pace {
            Pace::Probe { waiting: true } | Pace::Snapshot => return,
            Pace::Probe { waiting: false } => {}
            Pace::Replicate { in_flight, bytes } => {
                let full =
                    in_flight.len() >= core.limits.max_inflight || *bytes >= core.limits.max_inflight_bytes;
                reached!("raft.append.window_full", full);
                if full || peer.next > core.log.last_index() {
                    return;
                }
            }
        }
        let prev = peer.next.prev();
        if core.log.term_at(prev).is_none() {
            reached!("raft.append.needs_snapshot");
            peer.pace = Pace::Snapshot;
            core.out.send.push(Outgoing::Snapshot { to, term: core.term });
            return;
        }
        let last = core.log.last_within(prev, core.limits.max_append_bytes);
        let range = core.log.range(prev, last);
        peer.sent(last, core.log.bytes_between(prev, last), round);
        peer.told_commit = peer.told_commit.max(core.commit.min(last));
        core.out.send.push(Outgoing::Append {
            to,
            term: core.term,
            range,
            commit: core.commit,
        });
    }
}
