//! Following: the receiver's side of AppendEntries (§3.5), heartbeats, and reads asked of the leader.

use quorate_base::{Index, LogId, NodeId};
use quorate_marks::reached;

use crate::core::Core;
use crate::effects::{Arm, Refused, Timer};
use crate::haste;
use crate::message::{Body, EntryShape, Round};
use crate::read::ForwardedReads;
use crate::role::Next;

/// A follower of the current term's leader, if one is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Follower {
    /// The leader of the current term, once heard of.
    pub leader: Option<NodeId>,
    /// The leader was heard of within the minimum election timeout.
    pub fresh: bool,
    /// With lease reads on: a leader may have been promised to be kept for a while, although the term has moved on or this node has
    /// restarted since (§6.4.1).
    pub held: bool,
    /// This log equals the leader's up to here: the committed prefix at first (Leader Completeness, §3.6.3), more as
    /// Appends match. Commit never passes it, since beyond there may be entries that the leader does not have.
    pub verified: Index,
    reads: ForwardedReads,
}

impl Follower {
    /// Follows `leader`, if it is known. `held`: a promise to another leader runs on, and with it the timer that ends it.
    pub fn enter(core: &mut Core, leader: Option<NodeId>, held: bool) -> Follower {
        core.arm(Timer::Election, Arm::Set);
        match leader {
            Some(leader) => {
                core.patience.leads(leader);
                haste::end(core);
            }
            None => haste::stand_back(core),
        }
        match leader {
            Some(_) => core.arm(Timer::Fresh, Arm::Set),
            None if !held => core.arm(Timer::Fresh, Arm::Off),
            None => {}
        }
        reached!("raft.follower.stays_held", held && leader.is_none());
        Follower {
            leader,
            fresh: leader.is_some(),
            held: held && leader.is_none(),
            verified: core.commit,
            reads: ForwardedReads::default(),
        }
    }

    /// The leader gave a sign of life.
    pub fn hear(&mut self, core: &mut Core, leader: NodeId) {
        core.patience.leads(leader);
        haste::end(core);
        self.leader = Some(leader);
        self.fresh = true;
        self.held = false;
        core.arm(Timer::Election, Arm::Set);
        core.arm(Timer::Fresh, Arm::Set);
    }

    /// The leader leads no more, as far as could be seen from here. Its silence is not waited for then, by this node alone: others make up
    /// their minds for themselves. With lease reads on a promise is a promise (§6.4.1), and this changes nothing. Returns whether it did.
    pub fn doubt(&mut self, core: &mut Core) -> bool {
        if core.leases {
            reached!("raft.hint.refused_with_leases");
            return false;
        }
        self.fresh = false;
        core.arm(Timer::Fresh, Arm::Off);
        true
    }

    /// AppendEntries, receiver's rules 2 to 5 (Figure 3.1); rule 1, the term, was checked in `step`.
    pub fn on_append(
        &mut self,
        core: &mut Core,
        from: NodeId,
        prev: LogId,
        entries: &[EntryShape],
        commit: Index,
    ) {
        let last = Index(prev.index.0.saturating_add(entries.len() as u64));
        // What is committed here is in the log of every later leader, so it matches without a look. That also covers
        // a `prev` that was compacted away here, which is no conflict.
        if last <= core.commit {
            reached!("raft.append.all_committed");
            let upto = core.commit;
            return core.send_after_log(from, Body::Appended { upto });
        }
        let known = core.commit.0.saturating_sub(prev.index.0) as usize;
        let (prev, entries) = match known {
            0 => (prev, entries),
            n => {
                reached!("raft.append.overlaps_commit");
                let term = entries[n - 1].term;
                let committed = LogId {
                    term,
                    index: core.commit,
                };
                if !core.log.contains(committed) {
                    reached!("raft.append.contradicts_commit");
                    return; // No correct leader lacks what is committed.
                }
                (committed, &entries[n..])
            }
        };
        if !core.log.contains(prev) {
            reached!("raft.conflict.entry_missing", prev.index > core.log.last_index());
            reached!("raft.conflict.other_term", prev.index <= core.log.last_index());
            // Rule 2. The hint lets the leader skip a whole term at once.
            let hint = core
                .log
                .last_at_or_below(prev.index, prev.term)
                .unwrap_or(core.log.base().last);
            return core.send_after_hard(
                from,
                Body::Conflict {
                    prev: prev.index,
                    hint,
                },
            );
        }
        self.append(core, prev, entries);
        self.verified = self.verified.max(last);
        self.learn_commit(core, commit);
        core.send_after_log(from, Body::Appended { upto: last });
    }

    /// Rules 3 and 4: drops what conflicts, appends what is new. Entries that are already here are left alone, together with what
    /// follows them: the message may be an old one, and its successors acknowledged.
    fn append(&mut self, core: &mut Core, prev: LogId, entries: &[EntryShape]) {
        let held = |(i, entry): &(usize, &EntryShape)| {
            core.log.contains(LogId {
                term: entry.term,
                index: Index(prev.index.0 + 1 + *i as u64),
            })
        };
        let same = entries.iter().enumerate().take_while(held).count();
        reached!("raft.append.some_held", same > 0 && same < entries.len());
        if same == entries.len() {
            reached!("raft.append.all_held", same > 0);
            return;
        }
        let keep = Index(prev.index.0 + same as u64);
        if keep < core.log.last_index() {
            reached!("raft.append.truncates");
            reached!("raft.append.takes_back_verified", self.verified > keep);
            core.truncate_after(keep);
            // A correct leader never takes back what it sent in this term, but no message may break this node.
            self.verified = self.verified.min(keep);
        }
        for entry in &entries[same..] {
            core.append(entry.term, entry.size, entry.config.as_deref().cloned());
        }
    }

    /// Rule 5, bounded by what is known to equal the leader's log.
    pub fn learn_commit(&mut self, core: &mut Core, commit: Index) {
        reached!("raft.commit.beyond_verified", commit > self.verified);
        core.commit_to(commit.min(self.verified));
    }

    /// A staged snapshot was taken, and what it covers is committed.
    pub fn staged(&mut self, core: &Core) {
        self.verified = self.verified.clamp(core.commit, core.log.last_index());
    }

    /// A heartbeat: the leader asks whether it still leads.
    pub fn on_heartbeat(&mut self, core: &mut Core, from: NodeId, commit: Index, round: Round) {
        self.learn_commit(core, commit);
        let verified = self.verified;
        let matched = verified.min(core.durability.durable());
        core.send_after_hard(
            from,
            Body::HeartbeatResponse {
                round,
                verified,
                matched,
                priority: core.priority,
            },
        );
    }

    /// A client wants to read here.
    pub fn on_read(&mut self, core: &mut Core, token: u64, forward: bool) {
        if forward && self.leader.is_some() {
            self.reads.push(token);
        } else {
            reached!("raft.read.refused_by_follower");
            core.out.reads.push((token, Err(Refused::NotLeader(self.leader))));
        }
    }

    /// The leader says from which index on batch `id` may be served.
    pub fn on_read_index(&mut self, core: &mut Core, id: u64, index: Index) {
        let tokens = self.reads.answered(id);
        if !tokens.is_empty() {
            core.arm(Timer::Read, Arm::Off);
        }
        core.out
            .reads
            .extend(tokens.into_iter().map(|token| (token, Ok(index))));
    }

    /// The election, freshness or read timer ran out.
    pub fn on_timer(&mut self, core: &mut Core, timer: Timer) -> Option<Next> {
        match timer {
            Timer::Election if core.may_campaign() && !core.stalled => return Some(Next::PreCandidate),
            Timer::Election => {
                reached!("raft.election.no_voter", !core.may_campaign());
                reached!("raft.election.disk_stalled", core.stalled);
                core.arm(Timer::Election, Arm::Set);
            }
            Timer::Fresh => (self.fresh, self.held) = (false, false),
            Timer::Read => self.reads.retry(),
            Timer::Haste => return self.on_haste(core),
            Timer::Heartbeat | Timer::Quorum | Timer::Transfer => {}
        }
        None
    }

    fn on_haste(&mut self, core: &mut Core) -> Option<Next> {
        if !haste::is_due(core) {
            return None;
        }
        if core.may_campaign() && !core.stalled {
            return Some(Next::PreCandidate);
        }
        reached!("raft.haste.no_longer_fit");
        haste::end(core);
        None
    }

    /// Sends what has gathered since the last drain.
    pub fn flush(&mut self, core: &mut Core) {
        let Some(leader) = self.leader else { return };
        if let Some(id) = self.reads.ask(core.next_read) {
            if id == core.next_read {
                core.next_read = core.next_read.wrapping_add(1);
            }
            core.send_after_hard(leader, Body::ReadIndex { id });
            core.arm(Timer::Read, Arm::Set);
        }
    }

    /// The role ends: reads are refused, and may be asked again of whoever leads then.
    pub fn leave(mut self, core: &mut Core) {
        core.arm(Timer::Read, Arm::Off);
        core.out.reads.extend(
            self.reads
                .drain()
                .map(|token| (token, Err(Refused::NotLeader(None)))),
        );
    }
}
