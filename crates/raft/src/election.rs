//! Voting: who gets this node's vote (§3.4, §3.6.1), its pre-vote (§9.6), and when both are not even considered (§4.2.3).

use quorate_base::{LogId, NodeId, Term};
use quorate_marks::reached;

use crate::core::Core;
use crate::effects::{Arm, Timer};
use crate::haste;
use crate::message::Body;
use crate::role::Role;

/// Whether requests for votes are ignored because a leader is known to be alive. A node that lost contact to the leader
/// alone, or was removed, must not disturb the others.
pub(crate) fn leader_is_fresh(role: &Role) -> bool {
    match role {
        Role::Leader(_) => true,
        Role::Follower(follower) => follower.fresh || follower.held,
        Role::PreCandidate(_) | Role::Candidate(_) => false,
    }
}

/// Whether a leader's last sign of life is less than the minimum election timeout old, whatever became of it since.
pub(crate) fn leader_is_heard(role: &Role) -> bool {
    matches!(role, Role::Follower(follower) if follower.fresh || follower.held)
}

/// Answers "would you vote for me in term `next`?". Nothing changes here; a refusal tells this node's term, which
/// the asker adopts, so that terms spread even where nobody would vote for the asker. Returns whether it was granted.
pub(crate) fn pre_vote(core: &mut Core, from: NodeId, next: Term, last: LogId) -> bool {
    reached!("raft.pre_vote.stale_term", next <= core.term);
    reached!("raft.pre_vote.stale_log", last < core.log.last());
    let granted = next > core.term && last >= core.log.last();
    core.send_after_hard(from, Body::PreVoteResponse { next, granted });
    granted
}

/// Answers RequestVote of the current term: the first candidate whose log is at least as up to date gets the vote. The
/// answer leaves when the vote is durable. Whether the candidate is listed in this node's configuration does not matter:
/// that may be the older one (§4.2.2).
pub(crate) fn vote(core: &mut Core, role: &Role, from: NodeId, last: LogId) {
    let free = core.vote.is_none_or(|vote| vote == from);
    let granted = free && last >= core.log.last() && matches!(role, Role::Follower(_));
    reached!("raft.vote.already_given", !free);
    reached!("raft.vote.stale_log", last < core.log.last());
    reached!("raft.vote.not_follower", !matches!(role, Role::Follower(_)));
    if granted {
        reached!("raft.vote.repeated", core.vote.is_some());
        reached!("raft.vote.for_unlisted", !core.log.config().is_voter(from));
        reached!("raft.vote.by_unlisted", !core.log.config().is_voter(core.id));
        core.set_vote(from);
        core.arm(Timer::Election, Arm::Set);
        haste::end(core);
    }
    core.send_after_hard(from, Body::VoteResponse { granted });
}
