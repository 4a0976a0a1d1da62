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
        // Nothing of it is left to compare where a snapshot was installed beyond it.
        assert!(
            (from.0..=b.commit.0).all(same),
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

#[cfg(test)]
pub(crate) mod tests {
    //! A check that lets anything pass is worse than none, so each is shown something that is wrong.

    use std::panic::{AssertUnwindSafe, catch_unwind};

    use quorate_base::{LogId, NodeId, Term};

    use super::*;
    use crate::config::Config;
    use crate::core::Restored;
    use crate::effects::{HardState, Input, SnapMeta};
    use crate::message::EntryShape;
    use crate::role;

    /// Node 1 with a log of entries of these terms, the last of which is the current one, committed up to `commit`.
    fn follower(voters: &[u64], terms: &[u64], commit: u64) -> Raft {
        let entry = |term: &u64| EntryShape {
            term: Term(*term),
            size: 10,
            config: None,
        };
        Raft::new(Restored {
            id: NodeId(1),
            hard: HardState {
                term: Term(terms.last().copied().unwrap_or(0)),
                vote: None,
                commit: Index(commit),
            },
            base: SnapMeta {
                last: LogId::default(),
                config: Config::of(voters.iter().copied().map(NodeId)),
            },
            entries: terms.iter().map(entry).collect(),
            ..Restored::default()
        })
    }

    /// The leader of term 2, alone, with entries of terms 1, 1 and 2.
    fn leader() -> Raft {
        let mut raft = follower(&[1], &[1, 1], 0);
        while let Some(write) = raft.take_effects().write {
            raft.step(Input::Persisted(write.id));
        }
        assert_eq!((raft.role(), raft.commit()), (RoleKind::Leader, Index(3)));
        check(&raft);
        raft
    }

    /// The check panics, and says why.
    pub(crate) fn refuses(why: &str, check: impl FnOnce()) {
        let panic = catch_unwind(AssertUnwindSafe(check)).expect_err(why);
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        assert!(text.is_some_and(|text| text.contains(why)), "{why}: {text:?}");
    }

    /// A state in which `spoil` broke what `why` says.
    fn bad_state(raft: &Raft, why: &str, spoil: impl FnOnce(&mut Raft)) {
        check(raft);
        let mut raft = raft.clone();
        spoil(&mut raft);
        refuses(why, || check(&raft));
    }

    /// A step in which `spoil` broke what `why` says.
    fn bad_step(before: &Raft, why: &str, spoil: impl FnOnce(&mut Raft)) {
        check_delta(before, before);
        let mut after = before.clone();
        spoil(&mut after);
        refuses(why, || check_delta(before, &after));
    }

    fn change(raft: &mut Raft, config: Config) {
        let term = raft.core.term;
        raft.core.log.append(term, 10, Some(config));
    }

    #[test]
    fn every_state_that_cannot_be_is_named() {
        let one = follower(&[1, 2, 3], &[1, 1, 2], 2);
        bad_state(&one, "(S10)", |raft| raft.core.term = Term(1));
        bad_state(&one, "≤ last 3", |raft| raft.core.commit = Index(4));
        bad_state(&one, "compacted", |raft| {
            raft.core.log.compact(Index(2));
            raft.core.commit = Index(1);
        });
        bad_state(&one, "handed out", |raft| raft.core.applied = Index(1));
        bad_state(&one, "only what is committed", |raft| {
            raft.core.applying = Index(3)
        });
        bad_state(&one, "(S3)", |raft| raft.core.commit = Index(3));
        bad_state(&one, "a fresh leader is a known one", |raft| {
            let Role::Follower(follower) = &mut raft.role else {
                unreachable!()
            };
            follower.fresh = true;
        });
        bad_state(&one, "no haste while a leader lives", |raft| {
            let Role::Follower(follower) = &mut raft.role else {
                unreachable!()
            };
            (follower.fresh, follower.leader) = (true, Some(NodeId(2)));
        });
        let leader = leader();
        bad_state(&leader, "voted for itself", |raft| raft.core.vote = None);
        bad_state(&leader, "in no haste", |raft| raft.core.haste = one.core.haste);
        bad_state(&leader, "ends in its own term", |raft| raft.core.term = Term(3));
        bad_state(&leader, "every member is replicated to", |raft| {
            change(raft, Config::of([1, 2].map(NodeId)));
        });
        bad_state(&leader, "one change at a time", |raft| {
            change(raft, Config::of([NodeId(1)]));
            change(raft, Config::of([NodeId(1)]));
        });
    }

    #[test]
    fn every_step_that_cannot_be_is_named() {
        let mut one = follower(&[1, 2, 3], &[1, 1, 2], 2);
        one.core.vote = Some(NodeId(2));
        bad_step(&one, "of one node", |raft| raft.core.id = NodeId(2));
        bad_step(&one, "the term never falls", |raft| raft.core.term = Term(1));
        bad_step(&one, "one vote a term", |raft| raft.core.vote = Some(NodeId(3)));
        bad_step(&one, "commit index never falls", |raft| {
            raft.core.commit = Index(1)
        });
        let leader = leader();
        bad_step(&leader, "applied index never falls", |raft| {
            raft.core.applying = Index(0)
        });
        let mut compacted = leader.clone();
        compacted.core.log.compact(Index(1));
        refuses("base never falls", || check_delta(&compacted, &leader));
        check_delta(&leader, &compacted);
    }

    #[test]
    fn what_was_committed_and_is_gone_is_named() {
        let one = follower(&[1, 2, 3], &[1, 1, 2], 3);
        bad_step(&one, "entry 3 is kept", |raft| {
            raft.core.log.truncate_after(Index(2));
            raft.core.term = Term(3);
            raft.core.log.append(Term(3), 10, None);
        });
        bad_step(&one, "spares what is committed", |raft| {
            raft.core.log.truncate_after(Index(1));
            raft.core.log.append(Term(2), 10, None);
            raft.core.log.append(Term(2), 10, None);
        });
        let mut installed = one.clone();
        let last = LogId::new(2, 9);
        installed.core.log.install(SnapMeta {
            last,
            config: one.config().clone(),
        });
        installed.core.commit = Index(9);
        check_delta(&one, &installed);
    }

    #[test]
    fn what_a_leader_may_not_do_is_named() {
        let leader = leader();
        let mut longer = leader.clone();
        longer.core.log.append(Term(2), 10, None);
        bad_step(&longer, "never shortens its log", |raft| {
            raft.core.log.truncate_after(Index(3));
        });
        bad_step(&longer, "never overwrites its log", |raft| {
            raft.core.log.truncate_after(Index(3));
            raft.core.log.append(Term(2), 20, None);
        });
        let mut early = leader.clone();
        early.core.commit = Index(1);
        bad_step(&early, "entries of its own term", |raft| {
            raft.core.commit = Index(2)
        });
        let config = Config::of([1, 2].map(NodeId));
        let joint = |voters: &[u64], outgoing: &[u64]| Config {
            outgoing: outgoing.iter().copied().map(NodeId).collect(),
            ..Config::of(voters.iter().copied().map(NodeId))
        };
        let mut changed = leader.clone();
        change(&mut changed, joint(&[1, 2], &[1]));
        check_delta(&leader, &changed);
        bad_step(&leader, "one change in a step", |raft| {
            change(raft, joint(&[1, 2], &[1]));
            change(raft, config.clone());
        });
        bad_step(&changed, "when the last is committed", |raft| {
            change(raft, config.clone())
        });
        bad_step(&early, "in the leader's term", |raft| {
            change(raft, joint(&[1, 2], &[1]))
        });
        for apart in [config.clone(), joint(&[1], &[2]), joint(&[1, 2], &[2])] {
            bad_step(&leader, "could decide apart", |raft| change(raft, apart));
        }
        changed.core.commit = changed.core.log.last_index();
        bad_step(&changed, "could decide apart", |raft| {
            change(raft, Config::of([NodeId(2)]))
        });
        bad_step(&changed, "could decide apart", |raft| {
            change(raft, joint(&[1, 2], &[1]))
        });
        let mut marked = Config::of([NodeId(1)]);
        marked.removed.insert(NodeId(7));
        let mut before = leader.clone();
        change(&mut before, marked);
        before.core.commit = before.core.log.last_index();
        bad_step(&before, "for good", |raft| change(raft, Config::of([NodeId(1)])));
    }

    #[test]
    fn only_legal_changes_of_role_pass() {
        use RoleKind::{Candidate, Follower, Leader, PreCandidate};
        let node = follower(&[1, 2, 3], &[1], 0);
        let mut core = node.core.clone();
        let roles = [
            (Follower, node.role.clone()),
            (
                PreCandidate,
                Role::PreCandidate(role::PreCandidate::enter(&mut core).0),
            ),
            (
                Candidate,
                Role::Candidate(role::Candidate::enter(&mut core, false)),
            ),
            (Leader, Role::Leader(role::Leader::enter(&mut core))),
        ];
        for (from, was) in &roles {
            for (to, is) in &roles {
                for later in [0, 1] {
                    let legal = match (from, to) {
                        (_, Follower | PreCandidate) => (*from, *to) != (Leader, PreCandidate),
                        (Candidate | Leader, Leader) | (Candidate, Candidate) => later == 0,
                        (Follower | PreCandidate, Candidate) => later == 1,
                        (Follower | PreCandidate, Leader) | (Leader, Candidate) => false,
                    };
                    let (mut before, mut after) = (node.clone(), node.clone());
                    (before.role, after.role) = (was.clone(), is.clone());
                    after.core.term = Term(before.core.term.0 + later);
                    let passes = catch_unwind(AssertUnwindSafe(|| check_roles(&before, &after))).is_ok();
                    assert_eq!(passes, legal, "{from:?} to {to:?}, {later} terms later");
                }
            }
        }
    }
}
