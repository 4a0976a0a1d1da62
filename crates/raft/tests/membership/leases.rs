//! Lease reads (§6.4.1): when a leader may count on the clock, and who has promised it what. A lease lasts three quarters of the election
//! timeout from the sending of the confirmed round; clocks may differ in rate by an eighth.

use quorate_base::Term;
use quorate_raft::{Body, Config, Input, Limits, Promote, RoleKind, Timer};

use crate::common::clock::{LEASE, T, TRUE};
use crate::common::{Cluster, n};
use crate::{end, promote, remove, role, voters};

/// Nodes 1 to `voters` and learners up to `all`, all with leases; n1 leads.
fn leasing(voters: u64, all: u64) -> Cluster {
    let config = Config {
        learners: (voters + 1..=all).map(|id| (n(id), Promote::Never)).collect(),
        ..Config::of((1..=voters).map(n))
    };
    let mut c = Cluster::of(config, Limits::default());
    for id in c.ids() {
        c.node(id).leases = true;
        c.restart(id);
    }
    c.elect(n(1));
    c
}

/// A confirmed round gives a lease, which ends when its time is over; an elected leader has none before that.
#[test]
fn a_confirmed_round_gives_a_lease() {
    let mut c = leasing(3, 3);
    assert_eq!(c.lease_read(n(1)), None);
    c.heartbeat(n(1));
    assert_eq!(c.lease_read(n(1)), Some(c.raft(n(1)).commit()));
    c.pass(LEASE - 1);
    assert!(c.lease_read(n(1)).is_some());
    c.pass(1);
    assert_eq!(c.lease_read(n(1)), None);
    c.heartbeat(n(1));
    assert!(c.lease_read(n(1)).is_some());
    assert_eq!(c.lease_read(n(2)), None, "a follower never");
}

/// The lease is counted from when the round was sent, not from when it was answered.
#[test]
fn a_lease_begins_with_the_sending() {
    let mut c = leasing(3, 3);
    c.fire(n(1), Timer::Heartbeat);
    c.drain(n(1));
    c.pass(LEASE - 10);
    c.run();
    assert!(c.lease_read(n(1)).is_some());
    c.pass(10);
    assert_eq!(c.lease_read(n(1)), None);
}

/// §6.4: a new leader does not know what is committed before an entry of its own term is.
#[test]
fn there_is_no_lease_before_an_entry_of_the_own_term_is_committed() {
    let mut c = leasing(3, 3);
    c.isolate(n(1));
    for id in [2, 3] {
        c.fire(n(id), Timer::Fresh);
    }
    c.fire(n(2), Timer::Election);
    c.node(n(2)).slow_disk = false;
    c.run_until(|c| role(c, 2) == RoleKind::Leader);
    let append = |p: &crate::common::Parcel| matches!(&p.what, crate::common::What::Message(m, _) if matches!(m.body, Body::Append { .. }));
    c.settle(n(2));
    c.lose_where(append);
    c.fire(n(2), Timer::Heartbeat);
    c.settle(n(2));
    c.run_to(&[3]);
    c.run_to(&[2]);
    c.settle(n(2));
    assert_eq!(c.raft(n(2)).lease_index(), None);
    c.run();
    c.heartbeat(n(2));
    assert_eq!(c.raft(n(2)).lease_index(), Some(c.raft(n(2)).commit()));
}

/// OR #1747, ER #99: who was told to campaign does so regardless of the leader, at any time; so there is no lease for the rest of the
/// term, even if the transfer is given up.
#[test]
fn a_transfer_ends_the_lease_for_the_term() {
    let mut c = leasing(3, 3);
    c.heartbeat(n(1));
    c.step(n(1), Input::Transfer(Some(n(2))));
    c.settle(n(1));
    assert_eq!(c.bodies(1, 2).last(), Some(&Body::TimeoutNow));
    assert_eq!(c.lease_read(n(1)), None);
    assert!(c.raft(n(1)).is_handing_over());
    let late = c.network.pop_back().expect("just seen");
    c.fire(n(1), Timer::Transfer);
    assert!(!c.raft(n(1)).is_handing_over());
    c.heartbeat(n(1));
    c.heartbeat(n(1));
    assert_eq!(c.lease_read(n(1)), None);
    c.deliver(late);
    c.isolate(n(1));
    c.run();
    assert_eq!((role(&c, 2), role(&c, 1)), (RoleKind::Leader, RoleKind::Leader));
    c.propose(n(2));
    c.run();
    c.check_leases();
}

/// A voter that restarts does not know whom it had promised to keep: it grants nothing for one election timeout.
#[test]
fn a_restarted_voter_keeps_its_promise() {
    let mut c = leasing(3, 3);
    c.heartbeat(n(1));
    c.isolate(n(1));
    c.restart(n(2));
    c.fire(n(3), Timer::Fresh);
    c.fire(n(3), Timer::Election);
    c.run();
    assert_eq!(role(&c, 3), RoleKind::PreCandidate);
    let last = c.raft(n(3)).last();
    c.message(
        n(3),
        n(2),
        9,
        Body::Vote {
            last,
            transfer: false,
        },
    );
    c.run();
    assert_eq!(c.raft(n(2)).term(), Term(1), "nor does it take the term");
    c.fire(n(2), Timer::Fresh);
    c.fire(n(3), Timer::Election);
    c.run();
    assert_eq!(role(&c, 3), RoleKind::Leader);
    // Without leases it may vote at once.
    let mut c = Cluster::new(3);
    c.elect(n(1));
    c.isolate(n(1));
    c.restart(n(2));
    c.fire(n(3), Timer::Fresh);
    c.fire(n(3), Timer::Election);
    c.run();
    assert_eq!(role(&c, 3), RoleKind::Leader);
}

/// A higher term does not end the promise: it says nothing about the leader.
#[test]
fn a_higher_term_does_not_end_the_promise() {
    for leases in [true, false] {
        let mut c = leasing(3, 3);
        for id in c.ids() {
            c.node(id).leases = leases;
            c.restart(id);
        }
        c.elect(n(1));
        c.heartbeat(n(1));
        c.isolate(n(1));
        c.message(n(3), n(2), 7, Body::NewerTerm);
        assert_eq!(c.raft(n(2)).term(), Term(7));
        let last = c.raft(n(3)).last();
        c.message(
            n(3),
            n(2),
            7,
            Body::Vote {
                last,
                transfer: false,
            },
        );
        assert_eq!(c.raft(n(2)).vote(), (!leases).then_some(n(3)));
        // Neither does a second one.
        c.message(n(3), n(2), 8, Body::NewerTerm);
        c.message(
            n(3),
            n(2),
            8,
            Body::Vote {
                last,
                transfer: false,
            },
        );
        assert_eq!(c.raft(n(2)).vote(), (!leases).then_some(n(3)));
        c.fire(n(2), Timer::Fresh);
        c.message(
            n(3),
            n(2),
            8,
            Body::Vote {
                last,
                transfer: false,
            },
        );
        assert_eq!(c.raft(n(2)).vote(), Some(n(3)));
    }
}

/// Both majorities confirm a round, else either could elect another leader meanwhile.
#[test]
fn in_a_joint_configuration_both_majorities_give_the_lease() {
    for silent in [[2, 3], [4, 5]] {
        let mut c = leasing(3, 5);
        c.heartbeat(n(1));
        c.pass(LEASE);
        for id in silent {
            c.isolate(n(id));
        }
        c.change(n(1), &[promote(4), promote(5), remove(2), remove(3)], false);
        c.heartbeat(n(1));
        assert!(c.raft(n(1)).config().is_joint());
        assert_eq!(c.lease_read(n(1)), None, "without {silent:?}");
        c.heal();
        c.heartbeat(n(1));
        c.heartbeat(n(1));
        assert!(c.lease_read(n(1)).is_some());
    }
}

/// A leader that is not part of C_new has no lease once that is committed; and the single voter that it leaves behind, restarted, waits
/// before it campaigns, unless it knows of that.
#[test]
fn a_lone_voter_waits_for_the_leader_that_left_it_alone() {
    let mut c = leasing(2, 2);
    c.heartbeat(n(1));
    let token = c.change(n(1), &[remove(1)], false);
    c.settle(n(1));
    c.run_until(|c| voters(c, 1) == (vec![2], vec![]));
    c.run_to(&[2]);
    assert_eq!(voters(&c, 2), (vec![2], vec![]));
    assert_eq!(end(&c, 1, token), None);
    assert!(c.lease_read(n(1)).is_some(), "n2 has promised to wait");
    c.network.clear();
    c.restart(n(2));
    c.settle(n(2));
    assert_eq!(role(&c, 2), RoleKind::Follower, "and does");
    c.check_leases();
    c.run();
    c.heartbeat(n(1));
    c.heartbeat(n(1));
    assert_eq!((role(&c, 1), c.lease_read(n(1))), (RoleKind::Follower, None));
    assert_eq!(c.leader(), Some(n(2)));
    c.restart(n(2));
    c.settle(n(2));
    assert_eq!(
        role(&c, 2),
        RoleKind::Leader,
        "it is alone, and knows that to be committed"
    );
}

/// A leader that must go has no lease, also while it waits for its successor to get ready.
#[test]
fn a_leader_that_must_go_has_no_lease() {
    let mut c = leasing(3, 3);
    c.heartbeat(n(1));
    c.change(n(1), &[remove(1)], false);
    c.run_until(|c| voters(c, 1) == (vec![2, 3], vec![]));
    c.run_to(&[2, 3]);
    c.propose(n(1));
    c.cut.extend([(n(1), n(2)), (n(1), n(3))]);
    assert!(c.lease_read(n(1)).is_some());
    c.run();
    assert_eq!(role(&c, 1), RoleKind::Leader, "its successor lacks an entry");
    assert!(c.raft(n(1)).config_is_settled());
    assert_eq!(c.lease_read(n(1)), None);
}

/// What the leader waits out before it steps down is no lease: RR #140, ER #166.
#[test]
fn the_lease_is_shorter_than_check_quorum() {
    let mut c = leasing(3, 3);
    c.heartbeat(n(1));
    c.isolate(n(1));
    c.pass(LEASE);
    assert_eq!(
        (role(&c, 1), c.due(n(1))),
        (RoleKind::Leader, vec![Timer::Heartbeat])
    );
    assert_eq!(c.lease_read(n(1)), None);
}

/// The leader's clock has this rate and all others that one; n1 gets a lease and is cut off; the others elect and commit as soon as their
/// clocks let them. Whether its lease was over by then.
fn lease_is_over_in_time(leader: u64, others: u64) -> bool {
    let mut c = leasing(3, 3);
    for id in c.ids() {
        c.node(id).clock.rate = if id == n(1) { leader } else { others };
    }
    c.heartbeat(n(1));
    c.isolate(n(1));
    for _ in 0..3 * T {
        c.pass(1);
        for id in [2, 3] {
            if c.due(n(id)).contains(&Timer::Fresh) {
                c.fire(n(id), Timer::Fresh);
            }
        }
        // The luckiest of all draws: the timeout is as short as may be.
        if c.nodes
            .values()
            .skip(1)
            .all(|node| !node.timers.contains(&Timer::Fresh))
        {
            c.fire(n(2), Timer::Election);
            c.run();
            assert_eq!(role(&c, 2), RoleKind::Leader);
            c.propose(n(2));
            c.run();
            return c.lease_read(n(1)).is_none();
        }
    }
    panic!("nobody was elected");
}

/// The clock assumption: rates differ by an eighth at most, and the lease has room for that; beyond a third it has not, and a read may
/// be stale.
#[test]
fn leases_bear_clocks_that_drift_by_an_eighth() {
    assert!(lease_is_over_in_time(TRUE, TRUE));
    assert!(
        lease_is_over_in_time(TRUE, TRUE + TRUE / 8),
        "the others' clocks are fast"
    );
    assert!(
        lease_is_over_in_time(TRUE - TRUE / 8, TRUE),
        "the leader's clock is slow"
    );
    assert!(lease_is_over_in_time(TRUE, TRUE * 4 / 3));
    assert!(
        !lease_is_over_in_time(TRUE, TRUE * 3 / 2),
        "this is no clock to lease by"
    );
}
