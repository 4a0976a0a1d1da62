//! Votes, pre-votes and elections.

use super::*;

/// HC #661: a crash between the two writes allowed a second vote.
#[test]
fn term_and_vote_are_persisted_in_separate_writes() {
    let mut c = Cluster::new(3);
    c.node(n(2)).slow_disk = true;
    c.message(n(1), n(2), 4, vote(at(0, 0)));
    c.drain(n(2));
    let writes = &c.nodes[&n(2)].writes;
    let hard = writes[0].write.hard.expect("a state");
    assert_eq!((writes.len(), hard.term, hard.vote), (1, Term(4), Some(n(1))));
}

/// SJ #1245.
#[test]
fn vote_requests_leave_before_the_own_vote_is_on_disk() {
    let mut c = unwritten_candidate(3);
    assert!(c.network.is_empty());
    c.persist(n(1), 1);
    c.settle(n(1));
    assert_eq!(c.network.len(), 2);
}

/// SJ #1241: without a completed write there is no grant, however often it is asked for.
#[test]
fn a_failed_write_of_the_vote_is_ignored() {
    let mut c = Cluster::new(3);
    c.node(n(2)).slow_disk = true;
    for _ in 0..5 {
        c.message(n(1), n(2), 1, vote(at(0, 0)));
        c.settle(n(2));
    }
    assert!(c.network.is_empty());
}

/// RP #14.
#[test]
fn stepping_down_within_a_term_erases_the_vote() {
    let mut c = unwritten_candidate(5);
    c.persist(n(1), 1);
    c.message(
        n(3),
        n(1),
        1,
        Body::Heartbeat {
            commit: i(0),
            round: 1,
        },
    );
    assert_eq!(
        (c.raft(n(1)).role(), c.raft(n(1)).vote()),
        (RoleKind::Follower, Some(n(1)))
    );
    let mut c = Cluster::new(3);
    c.elect(n(1));
    c.isolate(n(1));
    c.fire(n(1), Timer::Quorum);
    c.fire(n(1), Timer::Quorum);
    assert_eq!(
        (c.raft(n(1)).role(), c.raft(n(1)).vote()),
        (RoleKind::Follower, Some(n(1)))
    );
}

/// OR #1220: a stale-log leader.
#[test]
fn observing_a_higher_term_counts_as_having_voted() {
    let mut c = Cluster::with_logs(&[&[1], &[1, 1], &[1]], 1);
    c.message(n(1), n(2), 5, vote(at(1, 1)));
    assert_eq!((c.raft(n(2)).term(), c.raft(n(2)).vote()), (Term(5), None));
    c.settle(n(2));
    assert_eq!(c.bodies(2, 1), [Body::VoteResponse { granted: false }]);
}

/// etcd #8243: the asker never recognised the answer. (robustness.rs has the case of the voter in a lower term.)
#[test]
fn the_pre_vote_response_carries_the_wrong_term() {
    let mut c = Cluster::with_logs(&[&[1, 7], &[1], &[1]], 0);
    c.isolate(n(3));
    c.fire(n(1), Timer::Election);
    c.run();
    assert_eq!(
        (c.raft(n(1)).role(), c.raft(n(1)).term()),
        (RoleKind::Leader, Term(8))
    );
}

/// etcd #8501: neither the node with the higher term nor the one with the better log got anywhere.
#[test]
fn pre_votes_of_different_terms_deadlock() {
    let mut c = Cluster::with_logs(&[&[1], &[1, 2], &[]], 0);
    c.isolate(n(3));
    c.message(n(3), n(1), 9, Body::NewerTerm); // The worse log, the higher term.
    for _ in 0..3 {
        c.fire(n(1), Timer::Election);
        c.run();
        c.fire(n(2), Timer::Election);
        c.run();
    }
    assert_eq!(c.raft(n(2)).role(), RoleKind::Leader);
}

/// OR #1796: two cohorts blocked each other for ever.
#[test]
fn pre_vote_never_spreads_the_higher_term() {
    let mut c = Cluster::with_logs(&[&[1, 2], &[1]], 0);
    c.message(n(3), n(2), 9, Body::NewerTerm);
    c.fire(n(1), Timer::Election);
    c.run();
    assert_eq!(c.raft(n(1)).term(), Term(9), "the refusal brought it");
    c.fire(n(1), Timer::Election);
    c.run();
    assert_eq!(c.raft(n(1)).role(), RoleKind::Leader);
}

/// ER abb533c: the node does not know yet that it is a voter.
#[test]
fn a_learner_refuses_to_vote_and_blocks_its_own_promotion() {
    let mut c = Cluster::default();
    c.add(n(1), &Config::of([n(1), n(2)]), &[1], 1);
    let old = Config {
        learners: [(n(2), Promote::Never)].into(),
        ..Config::of([n(1)])
    };
    c.add(n(2), &old, &[1], 1);
    c.fire(n(1), Timer::Election);
    c.run();
    assert_eq!(c.raft(n(1)).role(), RoleKind::Leader);
}

/// OR #1838: ties repeated for ever.
#[test]
fn the_election_timeout_is_drawn_once() {
    let mut c = Cluster::new(3);
    c.isolate(n(1));
    for _ in 0..3 {
        c.fire(n(1), Timer::Election); // Each firing uses up the timer; the harness would not fire an unset one.
        c.drain(n(1));
        assert!(
            c.nodes[&n(1)].timers.contains(&Timer::Election),
            "set, so drawn, anew"
        );
    }
}
