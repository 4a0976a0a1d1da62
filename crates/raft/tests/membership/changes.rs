//! Safety (§4.1) and joint consensus (§4.3): when a change may begin, from when on it counts, and how it comes to its end.

use quorate_base::NodeId;
use quorate_raft::{
    BadChange, Body, Change, ChangeEnd, ChangeRefused, Input, Promote, Raft, RoleKind, Timer,
};

use crate::common::{Cluster, i, n};
use crate::{add, end, led, promote, refusal, remove, role, timeout_passes, voters};

/// §4.1: "A server always uses the latest configuration in its log, regardless of whether the entry is committed."
#[test]
fn a_configuration_is_in_force_from_its_append() {
    let mut c = led(1, 2);
    c.isolate(n(2));
    let before = c.raft(n(1)).commit();
    c.change(n(1), &[promote(2)], false);
    c.propose(n(1));
    c.run();
    assert_eq!(voters(&c, 1), (vec![1, 2], vec![1]));
    assert_eq!(c.raft(n(1)).commit(), before, "n2 counts, and has not answered");
    c.heal();
    c.heartbeat(n(1));
    c.heartbeat(n(1));
    assert_eq!(c.raft(n(1)).commit(), i(before.0 + 3));
    assert_eq!(voters(&c, 2), (vec![1, 2], vec![]));
}

/// §4.1: "it must fall back to the previous configuration", when another leader removes the entry.
#[test]
fn a_configuration_is_rolled_back_when_it_is_overwritten() {
    let mut c = led(3, 4);
    c.isolate(n(1));
    let token = c.change(n(1), &[promote(4), remove(3)], false);
    c.run();
    assert_eq!(voters(&c, 1), (vec![1, 2, 4], vec![1, 2, 3]));
    c.elect(n(2));
    c.heal();
    c.heartbeat(n(2));
    assert_eq!(voters(&c, 1), (vec![1, 2, 3], vec![]));
    assert_eq!(c.raft(n(1)).config(), c.raft(n(2)).config());
    assert_eq!(end(&c, 1, token), Some(ChangeEnd::Unknown), "n1 could not know");
}

/// §4.1: one at a time, until the whole of it is committed.
#[test]
fn one_change_at_a_time() {
    let mut c = led(3, 5);
    c.isolate(n(3));
    c.cut.insert((n(2), n(1)));
    let first = c.change(n(1), &[promote(4)], false);
    c.run();
    assert_eq!(refusal(&mut c, 1, &[promote(5)]), Some(ChangeRefused::Pending));
    let level = [Change::RaiseLevel(7)];
    assert_eq!(refusal(&mut c, 1, &level), Some(ChangeRefused::Pending));
    c.heal();
    c.heartbeat(n(1));
    assert!(matches!(end(&c, 1, first), Some(ChangeEnd::Done(_))));
    let second = c.change(n(1), &[promote(5)], false);
    c.run();
    assert!(matches!(end(&c, 1, second), Some(ChangeEnd::Done(_))));
    assert_eq!(voters(&c, 5), (vec![1, 2, 3, 4, 5], vec![]));
}

/// A driver may step several inputs before it drains: a change that is committed in between is answered, though the next one begins at once.
#[test]
fn a_change_is_answered_though_the_next_one_begins_in_the_same_drain() {
    let mut raft = led(1, 2).raft(n(1)).clone();
    let ask = |raft: &mut Raft, token: u64| {
        let about = token.to_be_bytes().into();
        raft.step(Input::Reconfigure {
            token,
            changes: vec![Change::Describe { id: n(1), about }],
            force: false,
        });
    };
    ask(&mut raft, 101);
    let write = raft.take_effects().write.expect("the new configuration").id;
    raft.step(Input::Persisted(write));
    ask(&mut raft, 102);
    let changed = raft.take_effects().changed;
    assert!(matches!(changed[..], [(101, ChangeEnd::Done(_))]), "{changed:?}");
}

/// Ongaro's correction of 2015 to §4.1: "a leader may not append a new configuration entry until it has committed an entry from its
/// current term", not even if it is forced.
#[test]
fn no_change_before_an_entry_of_the_leaders_term_is_committed() {
    let mut c = led(3, 4);
    c.heal();
    c.cut.extend([(n(2), n(1)), (n(3), n(1))]);
    for id in [1, 2, 3] {
        c.fire(n(id), Timer::Fresh);
    }
    c.fire(n(1), Timer::Quorum);
    c.fire(n(1), Timer::Quorum);
    assert_eq!(role(&c, 1), RoleKind::Follower);
    c.run();
    // n2 is elected by n3, and its no-op reaches nobody.
    c.heal();
    for id in [1, 2, 3] {
        c.fire(n(id), Timer::Fresh);
    }
    c.fire(n(2), Timer::Election);
    c.run_until(|c| role(c, 2) == RoleKind::Leader);
    for force in [false, true] {
        let token = c.change(n(2), &[promote(4)], force);
        c.drain(n(2));
        assert_eq!(
            end(&c, 2, token),
            Some(ChangeEnd::Refused(ChangeRefused::Pending))
        );
    }
    c.run();
    assert_eq!(refusal(&mut c, 2, &[promote(4)]), None);
}

/// §4.3: "Agreement (for elections and entry commitment) requires separate majorities from both the old and new configurations."
#[test]
fn both_majorities_are_needed() {
    let replace = [promote(4), promote(5), remove(2), remove(3)];
    for silent in [[2, 3], [4, 5]] {
        let mut c = led(3, 5);
        let before = c.raft(n(1)).commit();
        for id in silent {
            c.isolate(n(id));
        }
        c.change(n(1), &replace, false);
        c.propose(n(1));
        c.run();
        assert_eq!(c.raft(n(1)).commit(), before, "without {silent:?}");
        // Nor can anybody else be elected by one of the two.
        c.isolate(n(1));
        let others: Vec<NodeId> = c.ids().into_iter().filter(|id| id.0 != 1).collect();
        for id in others {
            c.fire(id, Timer::Fresh);
            c.fire(id, Timer::Election);
            c.run();
            assert_ne!(
                c.raft(id).role(),
                RoleKind::Leader,
                "n{id} without {silent:?} and n1"
            );
        }
    }
}

/// §4.3: "there is no point in time in which either configuration can decide alone"; the leader goes on to C_new by itself, and
/// the change has ended when that is committed.
#[test]
fn a_change_of_several_members_goes_through_the_joint_configuration() {
    let mut c = led(3, 6);
    c.cut.insert((n(2), n(1)));
    c.cut.insert((n(3), n(1)));
    let replace = [promote(4), promote(5), promote(6), remove(2), remove(3)];
    let token = c.change(n(1), &replace, false);
    c.run();
    assert_eq!(voters(&c, 1), (vec![1, 4, 5, 6], vec![1, 2, 3]));
    assert_eq!(end(&c, 1, token), None, "C_old,new is not committed");
    assert!(!c.raft(n(1)).config_is_settled());
    c.heal();
    c.cut.extend([(n(4), n(1)), (n(5), n(1)), (n(6), n(1))]);
    c.fire(n(1), Timer::Heartbeat);
    c.lose_where(|parcel| parcel.to.0 > 3);
    c.run();
    assert_eq!(c.raft(n(1)).config().voters.len(), 4);
    c.heal();
    c.heartbeat(n(1));
    c.heartbeat(n(1));
    let at = c.raft(n(1)).log().config_index();
    assert_eq!(end(&c, 1, token), Some(ChangeEnd::Done(at)));
    assert_eq!(voters(&c, 6), (vec![1, 4, 5, 6], vec![]));
    assert!(c.raft(n(1)).config_is_settled());
}

/// The answer comes when C_new is committed, not when it is appended.
#[test]
fn a_change_has_ended_when_c_new_is_committed() {
    let mut c = led(2, 3);
    let token = c.change(n(1), &[promote(3), remove(2)], false);
    c.run_until(|c| voters(c, 1) == (vec![1, 3], vec![]));
    c.lose_where(|_| true);
    c.settle(n(1));
    assert_eq!(end(&c, 1, token), None);
    c.isolate(n(2));
    c.run();
    c.heartbeat(n(1));
    c.heartbeat(n(1));
    assert!(
        matches!(end(&c, 1, token), Some(ChangeEnd::Done(_))),
        "n1 and n3 are enough for C_new"
    );
}

/// What leaves the voters alone is one entry: adding, removing and describing learners, and the feature level.
#[test]
fn changes_of_no_voter_take_one_entry() {
    let mut c = led(3, 3);
    c.join(n(4));
    let about: Box<[u8]> = [7].into();
    let changes = [
        add(4, Promote::Never),
        Change::Describe {
            id: n(1),
            about: about.clone(),
        },
        remove(4),
        Change::RaiseLevel(2),
    ];
    for change in changes {
        let before = c.raft(n(1)).last().index;
        let token = c.change(n(1), &[change], false);
        c.run();
        let at = before.next();
        assert_eq!(
            (c.raft(n(1)).last().index, end(&c, 1, token)),
            (at, Some(ChangeEnd::Done(at)))
        );
    }
    let config = c.raft(n(2)).config();
    assert_eq!((config.level, &config.about[&n(1)]), (2, &about));
    assert!(config.removed.contains(&n(4)));
}

/// §4.3: a leader that crashes is succeeded by one of C_old or C_old,new, and whoever finds C_old,new in its log finishes the change;
/// only then another begins.
#[test]
fn the_next_leader_finishes_the_change() {
    let mut c = led(3, 5);
    c.change(n(1), &[promote(4), promote(5), remove(1)], false);
    c.settle(n(1));
    c.run_to(&[2, 4]);
    c.crash(n(1), 0);
    c.network.clear();
    assert_eq!(voters(&c, 2), (vec![2, 3, 4, 5], vec![1, 2, 3]));
    c.elect(n(2));
    assert_eq!(voters(&c, 5), (vec![2, 3, 4, 5], vec![]));
    assert!(c.raft(n(5)).config().removed.contains(&n(1)));
    assert_eq!(refusal(&mut c, 2, &[remove(5)]), None);
}

/// The same where the next leader is one that has not heard of the change: it never happened.
#[test]
fn a_change_that_no_majority_has_may_be_undone() {
    let mut c = led(3, 4);
    c.change(n(1), &[promote(4), remove(3)], false);
    c.settle(n(1));
    c.run_to(&[4]);
    c.crash(n(1), 0);
    c.network.clear();
    c.elect(n(2));
    c.heartbeat(n(2));
    assert_eq!(voters(&c, 4), (vec![1, 2, 3], vec![]));
    assert_eq!(refusal(&mut c, 2, &[promote(4)]), None, "nothing is pending");
}

/// All crash in the joint configuration, and start in it.
#[test]
fn a_restart_in_the_joint_configuration_finishes_the_change() {
    let mut c = led(3, 5);
    c.change(n(1), &[promote(4), promote(5), remove(2), remove(3)], false);
    c.settle(n(1));
    c.run_to(&[2, 3, 4, 5]);
    c.network.clear();
    for id in c.ids() {
        c.restart(id);
        assert!(c.raft(id).config().is_joint());
    }
    c.elect(n(4));
    assert_eq!(voters(&c, 1), (vec![1, 4, 5], vec![]));
}

/// §5.1: a snapshot carries the configuration as of its last entry, joint or not; and a leader that starts from it goes on from there.
#[test]
fn a_configuration_is_restored_from_a_snapshot() {
    let mut c = led(3, 5);
    c.isolate(n(3));
    c.change(n(1), &[promote(4), promote(5)], false);
    c.run_until(|c| voters(c, 1) == (vec![1, 2, 3, 4, 5], vec![]));
    // C_old,new is committed, and C_new stays on its way.
    c.cut.extend([(n(1), n(2)), (n(1), n(4)), (n(1), n(5))]);
    c.lose_where(|_| true);
    let applied = c.raft(n(1)).applied();
    c.compact(n(1), applied);
    c.cut.remove(&(n(1), n(3)));
    c.cut.remove(&(n(3), n(1)));
    c.heartbeat(n(1));
    c.heartbeat(n(1));
    assert_eq!(c.nodes[&n(3)].restored, 1);
    assert!(c.raft(n(3)).log().base().config.is_joint());
    assert_eq!(voters(&c, 3), (vec![1, 2, 3, 4, 5], vec![]));
    c.restart(n(3));
    assert_eq!(voters(&c, 3), (vec![1, 2, 3, 4, 5], vec![]));
    c.heal();
    c.crash(n(1), 0);
    c.elect(n(3));
    assert_eq!(voters(&c, 4), (vec![1, 2, 3, 4, 5], vec![]));
}

/// A change that would leave too few of those alive is refused, unless forced; and who has not been heard of since the election is not
/// taken for alive.
#[test]
fn a_change_that_would_lose_the_quorum_is_refused() {
    let mut c = led(3, 3);
    c.isolate(n(3));
    timeout_passes(&mut c, 1);
    timeout_passes(&mut c, 1);
    assert_eq!(
        refusal(&mut c, 1, &[remove(2)]),
        Some(ChangeRefused::WouldLoseQuorum)
    );
    assert_eq!(refusal(&mut c, 1, &[remove(3)]), None, "n1 and n2 are two of two");
    let mut c = led(3, 3);
    c.isolate(n(3));
    c.restart(n(1));
    c.elect(n(2));
    assert_eq!(
        refusal(&mut c, 2, &[remove(1)]),
        Some(ChangeRefused::WouldLoseQuorum)
    );
    let token = c.change(n(2), &[remove(1)], true);
    c.run();
    assert_eq!(voters(&c, 2), (vec![2, 3], vec![1, 2, 3]));
    assert_eq!(end(&c, 2, token), None, "n3 is needed now");
    c.heal();
    c.heartbeat(n(2));
    c.heartbeat(n(2));
    assert!(matches!(end(&c, 2, token), Some(ChangeEnd::Done(_))));
}

/// What makes no sense is refused by name, and so is what is asked of somebody else.
#[test]
fn nonsense_is_refused() {
    let mut c = led(3, 4);
    let bad = |c: &mut Cluster, changes: &[Change]| match refusal(c, 1, changes) {
        Some(ChangeRefused::Bad(why)) => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(bad(&mut c, &[promote(9)]), BadChange::NotMember(n(9)));
    assert_eq!(bad(&mut c, &[promote(1)]), BadChange::NotLearner(n(1)));
    assert_eq!(
        bad(&mut c, &[add(2, Promote::Never)]),
        BadChange::AlreadyMember(n(2))
    );
    assert_eq!(
        bad(&mut c, &[remove(1), remove(2), remove(3)]),
        BadChange::NoVoters
    );
    assert_eq!(bad(&mut c, &[]), BadChange::Nothing);
    let why = refusal(&mut c, 2, &[promote(4)]);
    assert_eq!(why, Some(ChangeRefused::NotLeader(Some(n(1)))));
    c.step(n(1), quorate_raft::Input::Transfer(Some(n(2))));
    assert_eq!(
        refusal(&mut c, 1, &[promote(4)]),
        Some(ChangeRefused::Transferring)
    );
}

/// A removed id never comes back, so that an old server cannot pass for a new one.
#[test]
fn a_removed_id_is_never_used_again() {
    let mut c = led(3, 3);
    c.change(n(1), &[remove(3)], false);
    c.run();
    let back = refusal(&mut c, 1, &[add(3, Promote::Never)]);
    assert_eq!(back, Some(ChangeRefused::Bad(BadChange::WasRemoved(n(3)))));
    c.restart(n(1));
    c.elect(n(2));
    let back = refusal(&mut c, 2, &[add(3, Promote::Never)]);
    assert_eq!(back, Some(ChangeRefused::Bad(BadChange::WasRemoved(n(3)))));
}

/// A leader that is succeeded says that it does not know what becomes of the change.
#[test]
fn a_deposed_leader_does_not_know_the_end() {
    let mut c = led(3, 4);
    c.isolate(n(1));
    let token = c.change(n(1), &[promote(4)], false);
    c.run();
    c.heal();
    c.message(n(2), n(1), 9, Body::NewerTerm);
    c.drain(n(1));
    assert_eq!(end(&c, 1, token), Some(ChangeEnd::Unknown));
}
