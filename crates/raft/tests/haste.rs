//! Asking for votes before the election timer runs out: who is in haste, when it asks, how it gives way. Only the pace is decided there, so
//! what is shown here is that pace, in steps of [`Timer::Haste`]; that no haste does harm is shown by everything else.

mod common;

use common::{Cluster, n};
use quorate_base::{NodeId, Term};
use quorate_raft::{Body, Config, Input, Limits, Priority, Promote, RoleKind, Timer};

/// Only this node runs, newly started, and nobody answers.
fn alone(mut c: Cluster, id: u64) -> Cluster {
    for other in c.ids() {
        c.crash(other, 0);
    }
    c.start(n(id));
    c
}

/// Lets steps pass until the node asks for pre-votes, and counts them; `None` if it is not in haste any more.
fn steps_until_it_asks(c: &mut Cluster, id: NodeId) -> Option<u32> {
    for steps in 1.. {
        c.drain(id);
        c.network.clear();
        if !c.nodes[&id].timers.contains(&Timer::Haste) {
            return None;
        }
        c.fire(id, Timer::Haste);
        c.drain(id);
        if !c.network.is_empty() {
            return Some(steps);
        }
    }
    unreachable!()
}

/// Everyone else says no to the pre-vote that is under way.
fn refuse(c: &mut Cluster, id: NodeId) {
    let next = c.raft(id).term().next();
    for other in c.ids().into_iter().filter(|other| *other != id) {
        let granted = false;
        c.message(other, id, next.0 - 1, Body::PreVoteResponse { next, granted });
    }
    assert_eq!(c.raft(id).role(), RoleKind::Follower);
}

#[test]
fn it_asks_ever_more_rarely_and_then_waits_like_everybody() {
    let mut c = alone(Cluster::new(3), 1);
    let pauses: Vec<u32> = std::iter::from_fn(|| steps_until_it_asks(&mut c, n(1))).collect();
    assert_eq!(pauses, [1, 1, 1, 2, 2, 4, 4, 8, 8, 16, 16]);
    assert!(c.nodes[&n(1)].timers.contains(&Timer::Election));
}

#[test]
fn the_lowest_id_asks_first_and_has_time_to_ask_twice() {
    for (id, first) in [(1, 1), (2, 3), (3, 5)] {
        let mut c = alone(Cluster::new(3), id);
        assert_eq!(steps_until_it_asks(&mut c, n(id)), Some(first), "n{id}");
    }
    // One that would rather not lead lets all others go first.
    let mut c = Cluster::new(3);
    c.node(n(1)).priority = Priority::Low;
    let mut c = alone(c, 1);
    assert_eq!(steps_until_it_asks(&mut c, n(1)), Some(5));
}

/// The leader that is gone is waited for by nobody.
#[test]
fn without_the_leader_the_next_in_rank_asks_at_once() {
    let mut c = Cluster::new(4);
    c.elect(n(1));
    c.isolate(n(1));
    for (id, first) in [(3, Some(2)), (4, Some(4))] {
        let (leader, term) = (n(1), Term(1));
        c.step(n(id), Input::LeaderDead { leader, term });
        assert_eq!(c.raft(n(id)).role(), RoleKind::Follower);
        assert_eq!(steps_until_it_asks(&mut c, n(id)), first, "n{id}");
    }
    let (leader, term) = (n(1), Term(1));
    c.step(n(2), Input::LeaderDead { leader, term });
    assert_eq!(c.raft(n(2)).role(), RoleKind::PreCandidate);
}

#[test]
fn whoever_was_refused_stands_back_longer_each_time() {
    let mut c = alone(Cluster::new(3), 1);
    let mut pauses = Vec::new();
    while let Some(steps) = steps_until_it_asks(&mut c, n(1)) {
        pauses.push(steps);
        refuse(&mut c, n(1));
    }
    // After the tenth time it waits for its election timer, like everybody.
    assert_eq!(pauses, [1, 10, 20, 20, 40, 40, 40, 40, 40, 40]);
}

/// Whoever has a step or two to go waits out the other's campaign; whoever has more waits no less than it would have.
#[test]
fn granting_a_pre_vote_gives_the_asker_time() {
    let mut c = alone(Cluster::new(3), 3);
    let last = c.raft(n(3)).last();
    c.message(n(1), n(3), 0, Body::PreVote { next: Term(1), last });
    assert_eq!(steps_until_it_asks(&mut c, n(3)), Some(10));
    for _ in 0..8 {
        steps_until_it_asks(&mut c, n(3));
    }
    let mut late = c.clone();
    assert_eq!(steps_until_it_asks(&mut late, n(3)), Some(16));
}

#[test]
fn a_campaign_suspends_the_haste_and_its_loss_stands_back() {
    let mut c = alone(Cluster::new(3), 1);
    steps_until_it_asks(&mut c, n(1));
    let (next, granted) = (Term(1), true);
    c.message(n(2), n(1), 0, Body::PreVoteResponse { next, granted });
    assert_eq!(c.raft(n(1)).role(), RoleKind::Candidate);
    c.drain(n(1));
    assert!(
        !c.nodes[&n(1)].timers.contains(&Timer::Haste),
        "it has other things to do"
    );
    c.run();
    for other in [2, 3] {
        c.message(n(other), n(1), 1, Body::VoteResponse { granted: false });
    }
    assert_eq!(c.raft(n(1)).role(), RoleKind::Follower);
    assert_eq!(steps_until_it_asks(&mut c, n(1)), Some(10));
}

#[test]
fn a_leader_heard_of_or_a_vote_given_ends_it() {
    let mut c = alone(Cluster::new(3), 1);
    c.message(
        n(2),
        n(1),
        1,
        Body::Heartbeat {
            commit: 0.into(),
            round: 1,
        },
    );
    assert_eq!(steps_until_it_asks(&mut c, n(1)), None);

    let mut c = alone(Cluster::new(3), 1);
    let last = c.raft(n(1)).last();
    c.message(
        n(2),
        n(1),
        1,
        Body::Vote {
            last,
            transfer: false,
        },
    );
    assert_eq!(c.raft(n(1)).vote(), Some(n(2)));
    assert_eq!(steps_until_it_asks(&mut c, n(1)), None);
}

/// With lease reads on everybody counts on that. A disk that hangs could not write down a vote. A learner may not campaign at all.
#[test]
fn some_are_never_in_haste() {
    let mut c = Cluster::new(3);
    c.node(n(1)).leases = true;
    let mut c = alone(c, 1);
    c.step(n(1), Input::Reachable(n(2)));
    assert_eq!(steps_until_it_asks(&mut c, n(1)), None, "leases");

    let config = Config {
        learners: [(n(3), Promote::Never)].into(),
        ..Config::of([n(1), n(2)])
    };
    let mut c = alone(Cluster::of(config, Limits::default()), 3);
    c.step(n(3), Input::Reachable(n(2)));
    assert_eq!(steps_until_it_asks(&mut c, n(3)), None, "a learner");

    let mut c = Cluster::new(3);
    c.elect(n(1));
    c.run();
    c.step(n(2), Input::DiskStalled);
    let (leader, term) = (n(1), Term(1));
    c.step(n(2), Input::LeaderDead { leader, term });
    assert_eq!(c.raft(n(2)).role(), RoleKind::Follower);
    assert_eq!(steps_until_it_asks(&mut c, n(2)), None, "its disk hangs");
}

/// Being reached by one more does not begin the count anew.
#[test]
fn who_is_in_haste_stays_in_the_same() {
    let mut c = alone(Cluster::new(3), 3);
    for _ in 0..4 {
        c.fire(n(3), Timer::Haste);
        c.step(n(3), Input::Reachable(n(2)));
    }
    assert_eq!(steps_until_it_asks(&mut c, n(3)), Some(1));
}

/// What made it unfit may have come while it waited.
#[test]
fn a_disk_that_hangs_by_now_ends_the_haste() {
    let mut c = alone(Cluster::new(3), 3);
    c.fire(n(3), Timer::Haste);
    c.step(n(3), Input::DiskStalled);
    assert_eq!(steps_until_it_asks(&mut c, n(3)), None);
    assert_eq!(c.raft(n(3)).role(), RoleKind::Follower);
}
