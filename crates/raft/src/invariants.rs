//! What must hold in every state of one node, and over every step of it. Run after every step in tests, simulator and model
//! checker; the ones that cost nothing stand as `assert!`s in the code itself, on in production.

use quorate_base::Index;

use crate::raft::Raft;
use crate::role::{Role, RoleKind};

/// Checks one state; panics with the invariant that does not hold.
pub fn check(raft: &Raft) {
    let core = &raft.core;
    let last = core.log.last();
    core.log.check();
    core.durability.check(&core.log);
    assert!(
        last.term <= core.term,
        "the log's last term {} ≤ the current {} (S10)",
        last.term,
        core.term
    );
    assert!(
        core.commit <= last.index,
        "commit {} ≤ last {}",
        core.commit,
        last.index
    );
    assert!(
        core.log.base().last.index <= core.commit,
        "only committed entries are compacted (S12)"
    );
    assert!(
        core.applied <= core.applying,
        "applied {} ≤ handed out {}",
        core.applied,
        core.applying
    );
    let durable = core.durability.durable();
    assert!(
        core.applying <= core.commit.min(durable),
        "applied only what is committed and durable here (S9)"
    );
    match &raft.role {
        Role::Follower(follower) => {
            let (verified, commit) = (follower.verified, core.commit);
            assert!(
                commit <= verified && verified <= last.index,
                "{commit} ≤ {verified} ≤ {} (S3)",
                last.index
            );
            assert!(
                !follower.fresh || follower.leader.is_some(),
                "a fresh leader is a known one"
            );
            assert!(
                core.haste.is_none() || !follower.fresh,
                "no haste while a leader lives (§4.2.3)"
            );
        }
        Role::PreCandidate(_) => {}
        Role::Candidate(_) => assert_eq!(core.vote, Some(core.id), "a candidate votes for itself (§3.4)"),
        Role::Leader(leader) => {
            assert_eq!(core.vote, Some(core.id), "a leader voted for itself");
            assert!(core.haste.is_none(), "a leader is in no haste");
            leader.check(core);
        }
    }
}

/// Checks one step of one run of a node; panics with the invariant that does not hold.
pub fn check_delta(before: &Raft, after: &Raft) {
    let (b, a) = (&before.core, &after.core);
    assert_eq!(b.id, a.id, "a step of one node");
    assert!(a.term >= b.term, "the term never falls (S8)");
    if a.term == b.term && b.vote.is_some() {
        assert_eq!(a.vote, b.vote, "one vote a term (S8)");
    }
    assert!(a.commit >= b.commit, "the commit index never falls (S9)");
    assert!(
        a.applied >= b.applied && a.applying >= b.applying,
        "the applied index never falls (S9)"
    );
    assert!(
        a.log.base().last.index >= b.log.base().last.index,
        "the log's base never falls (S12)"
    );
    check_committed_kept(before, after);
    check_roles(before, after);
    if let (Role::Leader(was), Role::Leader(is)) = (&before.role, &after.role)
        && a.term == b.term
    {
        assert!(
            a.log.last_index() >= b.log.last_index(),
            "a leader never shortens its log (§3.6.3, S9)"
        );
        assert_eq!(
            a.log.epoch(),
            b.log.epoch(),
            "a leader never overwrites its log (§3.6.3, S9)"
        );
        for (id, peer) in &was.peers {
            let now = is.peers.get(id).map_or(peer.matched, |peer| peer.matched);
            assert!(
                now >= peer.matched,
                "a match index never falls within a term (S9)"
            );
        }
        check_change(before, after);
        if a.commit > b.commit {
            assert_eq!(
                a.log.term_at(a.commit),
                Some(a.term),
                "a leader commits entries of its own term (§3.6.2)"
            );
        }
    }
}

/// A leader changes the configuration only when the one before is committed, and with it an entry of its own term; and only to one of
/// which each quorum shares a member with each of that (S11, §4.1, §4.3).
fn check_change(before: &Raft, after: &Raft) {
    let (b, a) = (&before.core, &after.core);
    if a.log.config_index() <= b.log.last_index() {
        return;
    }
    assert_eq!(
        a.log.configs_after(b.log.last_index()),
        1,
        "one change in a step (S11)"
    );
    assert!(
        b.log.config_index() <= b.commit && b.own_term_commit().is_some(),
        "a change begins when the last is committed, in the leader's term (S11)"
    );
    let (was, is) = (b.log.config(), a.log.config());
    let adjacent = if was.is_joint() {
        *is == was.without_old()
    } else {
        is.outgoing == was.voters || (!is.is_joint() && is.voters == was.voters)
    };
    assert!(adjacent, "{was:?} and {is:?} could decide apart (S11)");
    assert!(
        is.level >= was.level && is.removed.is_superset(&was.removed),
        "feature level and removals are for good"
    );
}

/// What was committed is still there, or covered by the base.
fn check_committed_kept(before: &Raft, after: &Raft) {
    let (b, a) = (&before.core, &after.core);
    let from = b.log.base().last.index.max(a.log.base().last.index);
    for index in [from, b.commit] {
        if index >= from && index <= b.commit {
            let (was, is) = (b.log.term_at(index), a.log.term_at(index));
            assert_eq!(was, is, "the committed entry {index} is kept (S9)");
        }
    }
    if a.log.epoch() != b.log.epoch() {
        let same = |i: u64| a.log.term_at(Index(i)) == b.log.term_at(Index(i));
        let installed = a.log.base().last.index > b.commit;
        assert!(
            installed || (from.0..=b.commit.0).all(same),
            "truncation spares what is committed (S9)"
        );
    }
}

/// Only legal changes of role (§3.3): one step may pass through several, so this names the impossible ones.
fn check_roles(before: &Raft, after: &Raft) {
    use RoleKind::{Candidate, Follower, Leader, PreCandidate};
    let same_term = before.core.term == after.core.term;
    match (before.role.kind(), after.role.kind()) {
        (Candidate, Leader) => assert!(same_term, "a candidate wins in its own term"),
        (Follower | PreCandidate, Leader) => panic!("nobody leads without an election"),
        (Leader, Candidate | PreCandidate) => panic!("a leader steps down before it campaigns"),
        (Leader, Leader) => assert!(same_term, "no second term without an election"),
        (Follower | PreCandidate, Candidate) => assert!(!same_term, "an election starts a new term"),
        // Asking around lies between two elections; a node that is its own quorum is done with that in the same step.
        (Candidate, Candidate) => assert!(
            same_term || after.core.other_voters().is_empty(),
            "a pre-vote comes between two elections"
        ),
        (_, Follower | PreCandidate) => {}
    }
}
