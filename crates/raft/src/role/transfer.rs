//! Handing leadership over: when asked to (§3.10), to a member of higher priority, away from a hanging disk, and when this
//! leader is not a voter of the new configuration (§4.2.2). A vote is never biased: the old leader only says "now".

use quorate_base::NodeId;
use quorate_marks::reached;

use crate::core::Core;
use crate::effects::{Arm, Timer};
use crate::message::{Body, Priority};
use crate::role::{Leader, Next};

/// How long at most a member of higher priority is left alone after it did not take over, in quorum checks.
const MAX_PATIENCE: u32 = 64;

/// How long a member of higher priority that did not take over is left alone. Kept across terms: one that reaches this node but no quorum
/// costs the cluster its leader each time it is told to campaign.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Patience {
    /// Who was asked last and has not led since.
    asked: Option<NodeId>,
    /// Quorum checks to pass before anyone is asked again.
    wait: u32,
    /// How many there were to pass the last time.
    gap: u32,
}

impl Patience {
    /// A quorum check. Whether it is time to ask.
    fn is_over(&mut self) -> bool {
        let over = self.wait == 0;
        self.wait = self.wait.saturating_sub(1);
        over
    }

    /// This member is told to take over: twice the patience if it was the last time, too.
    fn ask(&mut self, id: NodeId) {
        let again = self.asked.replace(id) == Some(id);
        reached!("raft.patience.asks_again", again);
        self.gap = if again {
            (self.gap * 2).min(MAX_PATIENCE)
        } else {
            1
        };
        self.wait = self.gap;
    }

    /// See [`Raft::rename`](crate::Raft::rename).
    #[cfg(feature = "check")]
    pub fn rename(&mut self, names: crate::Names) {
        self.asked = self.asked.map(names);
    }

    /// A member leads.
    pub fn leads(&mut self, id: NodeId) {
        if self.asked == Some(id) {
            reached!("raft.patience.rewarded");
            *self = Patience::default();
        }
    }
}

/// What a leader does to be succeeded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Handover {
    transfer: Option<Transfer>,
    /// Somebody was told to campaign in this term. The message may arrive at any time, so there is no lease any more (§6.4.1).
    told_ever: bool,
    /// The disk hangs.
    stalled: bool,
}

/// A leadership transfer under way (§3.10).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Transfer {
    to: NodeId,
    told: bool,
}

impl Handover {
    /// Whether proposals are held back for a successor.
    pub fn is_under_way(&self) -> bool {
        self.transfer.is_some()
    }

    /// See [`Raft::rename`](crate::Raft::rename).
    #[cfg(feature = "check")]
    pub fn rename(&mut self, names: crate::Names) {
        if let Some(transfer) = &mut self.transfer {
            transfer.to = names(transfer.to);
        }
    }
}

impl Leader {
    /// Whether another member is to take over.
    pub fn is_handing_over(&self) -> bool {
        self.handover.is_under_way()
    }

    /// Hands over to `to`, or to the best voter that was heard of lately: one that has caught up before others, then of the highest
    /// priority, then with the longest log. Proposals are refused until it is done or given up.
    pub fn on_transfer(&mut self, core: &mut Core, to: Option<NodeId>) {
        let voters = &core.log.config().voters;
        let best = || {
            let candidates = self
                .peers
                .iter()
                .filter(|(id, peer)| voters.contains(id) && peer.is_alive());
            let rank = |id: &NodeId| self.has_caught_up(*id);
            candidates
                .max_by_key(|(id, peer)| (rank(id), peer.priority, peer.matched))
                .map(|(id, _)| *id)
        };
        let Some(to) = to
            .or_else(best)
            .filter(|id| *id != core.id && voters.contains(id))
        else {
            reached!("raft.transfer.to_nobody");
            return;
        };
        reached!("raft.transfer.redirected", self.handover.is_under_way());
        // A leader that cannot write gets no more time by being asked again.
        if !(self.handover.stalled && self.handover.is_under_way()) {
            core.arm(Timer::Transfer, Arm::Set);
        }
        self.handover.transfer = Some(Transfer { to, told: false });
    }

    /// The disk hangs. Followers have what was sent, so one of them can take over; if none does in time, this leader just ends.
    pub fn on_stalled(&mut self, core: &mut Core) -> Option<Next> {
        if core.other_voters().is_empty() {
            reached!("raft.stalled.alone");
            return None; // Nobody could do better.
        }
        self.handover.stalled = true;
        if !self.handover.is_under_way() {
            self.on_transfer(core, None);
        }
        reached!("raft.stalled.resigns", !self.handover.is_under_way());
        reached!("raft.stalled.hands_over", self.handover.is_under_way());
        (!self.handover.is_under_way()).then(|| resign(core))
    }

    /// The disk works again.
    pub fn on_writable(&mut self) {
        self.handover.stalled = false;
    }

    /// A peer says how gladly it leads.
    pub fn on_priority(&mut self, from: NodeId, priority: Priority) {
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.priority = priority;
        }
    }

    /// At a quorum check: a voter of higher priority that has caught up should lead. One that does not take over is asked ever
    /// more rarely, since nothing is proposed meanwhile.
    pub fn prefer_others(&mut self, core: &mut Core) {
        if !core.patience.is_over() {
            reached!("raft.patience.waits");
            return;
        }
        let config = core.log.config();
        let better = |id: &NodeId| {
            let peer = self.peers.get(id);
            peer.is_some_and(|peer| peer.priority > core.priority) && self.has_caught_up(*id)
        };
        let settled = !config.is_joint() && core.log.config_index() <= core.commit;
        let best = config
            .voters
            .iter()
            .filter(|id| better(id))
            .max_by_key(|id| self.peers[id].priority);
        if let Some(best) = best.copied()
            && settled
            && !self.handover.is_under_way()
        {
            reached!("raft.transfer.to_preferred");
            core.patience.ask(best);
            self.on_transfer(core, Some(best));
        }
    }

    /// The successor did not take over in time.
    pub fn give_up_transfer(&mut self, core: &mut Core) -> Option<Next> {
        reached!("raft.transfer.timeout");
        reached!(
            "raft.transfer.timeout_resigns",
            self.handover.stalled || self.must_go(core)
        );
        self.handover.transfer = None;
        (self.handover.stalled || self.must_go(core)).then(|| resign(core))
    }

    /// Tells the successor once it has everything.
    pub fn flush_transfer(&mut self, core: &mut Core) -> Option<Next> {
        if self.must_go(core) && !self.handover.is_under_way() {
            self.on_transfer(core, None);
            if !self.handover.is_under_way() {
                return Some(resign(core));
            }
        }
        let transfer = self
            .handover
            .transfer
            .as_mut()
            .filter(|transfer| !transfer.told)?;
        let matched = self.peers.get(&transfer.to).map(|peer| peer.matched);
        if matched != Some(core.log.last_index()) {
            reached!("raft.transfer.waits_for_match");
            return None;
        }
        transfer.told = true;
        self.handover.told_ever = true;
        core.send_now(transfer.to, Body::TimeoutNow);
        reached!("raft.transfer.removed_leader_leaves", self.must_go(core));
        self.must_go(core).then(|| resign(core))
    }

    /// Whether the clock may count for reads: as long as nobody was told to campaign regardless of this leader, and this one
    /// need not go. A single voter that is left behind would not wait for it after a restart.
    pub fn may_hold_lease(&self, core: &Core) -> bool {
        reached!("raft.lease.ended_by_transfer", self.handover.told_ever);
        reached!("raft.lease.ended_by_removal", self.must_go(core));
        !self.handover.told_ever && !self.must_go(core)
    }
}

/// Follows, without knowing whom yet.
fn resign(core: &Core) -> Next {
    Next::Follower {
        term: core.term,
        leader: None,
    }
}
