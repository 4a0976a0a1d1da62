//! Handing leadership over (§3.10) without being asked: to a member of higher priority, and away from a disk that hangs.

use quorate_base::Term;
use quorate_raft::{Body, Input, Priority, RoleKind, Timer};

use crate::common::{Cluster, i, n};
use crate::{led, nobody_is_fresh, promote, remove, role, timeout_passes, voters};

/// Nodes 1 to n of these priorities; n1 leads.
fn ranked(priorities: &[Priority]) -> Cluster {
    let mut c = Cluster::new(priorities.len() as u64);
    for (id, priority) in (1..).zip(priorities) {
        c.node(n(id)).priority = *priority;
        c.restart(n(id));
    }
    c.elect(n(1));
    c
}

/// A member of higher priority that has caught up leads after the next check; the highest of several.
#[test]
fn leadership_goes_to_the_member_of_the_highest_priority() {
    let mut c = ranked(&[Priority::Low, Priority::Normal, Priority::High]);
    timeout_passes(&mut c, 1);
    assert_eq!(c.leader(), Some(n(3)));
    for _ in 0..5 {
        timeout_passes(&mut c, 3);
    }
    assert_eq!(
        (c.leader(), c.raft(n(3)).term()),
        (Some(n(3)), Term(2)),
        "and stays there"
    );
}

/// Nobody hands over to an equal, whoever leads.
#[test]
fn equals_leave_leadership_where_it_is() {
    for priority in [Priority::Low, Priority::Normal, Priority::High] {
        let mut c = ranked(&[priority; 3]);
        for _ in 0..5 {
            timeout_passes(&mut c, 1);
        }
        assert_eq!((c.leader(), c.raft(n(1)).term()), (Some(n(1)), Term(1)));
    }
}

/// A member that has not said how gladly it leads is not taken for one that does: two of low priority would hand over to each other.
#[test]
fn an_unknown_priority_is_no_higher_one() {
    let mut c = ranked(&[Priority::Low; 3]);
    c.propose(n(1));
    c.run();
    c.fire(n(1), Timer::Quorum);
    c.run();
    assert_eq!((c.leader(), c.raft(n(1)).term()), (Some(n(1)), Term(1)));
}

/// A member of higher priority that lags is not asked, nor is a learner.
#[test]
fn only_a_voter_that_has_caught_up_is_preferred() {
    let mut c = ranked(&[Priority::Low, Priority::Low, Priority::High]);
    c.node(n(3)).slow_disk = true;
    c.propose(n(1));
    timeout_passes(&mut c, 1);
    c.propose(n(1));
    c.fire(n(1), Timer::Transfer);
    for _ in 0..8 {
        timeout_passes(&mut c, 1);
        assert_eq!(
            c.bodies(1, 3)
                .iter()
                .filter(|body| **body == Body::TimeoutNow)
                .count(),
            0
        );
    }
    let token = c.propose(n(1));
    c.run();
    assert!(c.nodes[&n(1)].placed.contains_key(&token), "it goes on leading");
    let mut c = led(1, 2);
    c.node(n(2)).priority = Priority::High;
    c.restart(n(2));
    for _ in 0..3 {
        timeout_passes(&mut c, 1);
    }
    assert_eq!(c.leader(), Some(n(1)));
}

/// One that does not take over is asked again ever more rarely, since nothing is proposed meanwhile; and in between proposals are taken.
#[test]
fn who_does_not_take_over_is_asked_ever_more_rarely() {
    let mut c = ranked(&[Priority::Low, Priority::Low, Priority::High]);
    c.heartbeat(n(1));
    let mut asked = Vec::new();
    for check in 0..40 {
        c.heartbeat(n(1));
        c.fire(n(1), Timer::Quorum);
        c.settle(n(1));
        if c.lose_where(
            |p| matches!(&p.what, crate::common::What::Message(m, _) if m.body == Body::TimeoutNow),
        ) > 0
        {
            asked.push(check);
            c.fire(n(1), Timer::Transfer);
        }
        c.run();
        let token = c.propose(n(1));
        c.run();
        assert!(c.nodes[&n(1)].placed.contains_key(&token));
    }
    let gaps: Vec<i32> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(gaps, [2, 3, 5, 9, 17], "at checks {asked:?}");
}

/// That one reaches the leader and no quorum: each campaign of it costs the cluster its leader, so what was learnt of it outlasts the term.
#[test]
fn who_cannot_win_is_asked_ever_more_rarely_by_later_leaders_too() {
    let mut c = ranked(&[
        Priority::Low,
        Priority::Low,
        Priority::Low,
        Priority::Low,
        Priority::High,
    ]);
    for other in [2, 3, 4] {
        c.cut.extend([(n(other), n(5)), (n(5), n(other))]);
    }
    let mut checks = 0;
    let mut lost = Vec::new();
    while lost.len() < 4 {
        let term = c.raft(n(1)).term();
        timeout_passes(&mut c, 1);
        checks += 1;
        assert!(checks < 100, "n5 is asked now and then: {lost:?}");
        if c.raft(n(1)).term() > term {
            lost.push(checks);
            assert_ne!(role(&c, 5), RoleKind::Leader);
            nobody_is_fresh(&mut c);
            // That another leads in between changes nothing.
            for _ in 0..10 {
                if role(&c, 2) != RoleKind::Leader {
                    c.fire(n(2), Timer::Election);
                    c.run();
                }
            }
            c.step(n(2), Input::Transfer(Some(n(1))));
            c.run();
        }
    }
    let gaps: Vec<i32> = lost.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(gaps, [2, 3, 5], "at checks {lost:?}");
    // Once it has led, it is forgiven.
    c.heal();
    for _ in 0..100 {
        if c.leader() != Some(n(5)) {
            timeout_passes(&mut c, 1);
        }
    }
    assert_eq!(c.leader(), Some(n(5)));
    c.step(n(5), Input::Transfer(Some(n(1))));
    c.run();
    assert_eq!(c.leader(), Some(n(1)));
    timeout_passes(&mut c, 1);
    assert_eq!(c.leader(), Some(n(5)));
}

/// Nothing is handed over in the middle of a change.
#[test]
fn no_one_is_preferred_during_a_change() {
    let mut c = led(3, 4);
    c.node(n(2)).priority = Priority::High;
    c.restart(n(2));
    c.heartbeat(n(1));
    c.cut.extend([(n(3), n(1)), (n(2), n(1))]);
    c.change(n(1), &[promote(4), remove(3)], false);
    c.run();
    assert!(c.raft(n(1)).config().is_joint());
    c.fire(n(1), Timer::Quorum);
    c.run();
    assert_eq!((role(&c, 1), c.raft(n(1)).term()), (RoleKind::Leader, Term(1)));
    let token = c.propose(n(1));
    c.drain(n(1));
    assert!(
        c.nodes[&n(1)].placed.contains_key(&token),
        "no transfer is under way"
    );
    c.heal();
    timeout_passes(&mut c, 1);
    timeout_passes(&mut c, 1);
    assert_eq!(c.leader(), Some(n(2)));
}

/// Priority biases whom a leader prefers, never a vote: with a better log, or asked first, the least gets it.
#[test]
fn priority_never_biases_a_vote() {
    let mut c = ranked(&[Priority::High, Priority::High, Priority::Low]);
    c.isolate(n(1));
    c.fire(n(2), Timer::Fresh);
    c.fire(n(3), Timer::Election);
    c.run();
    assert_eq!(role(&c, 3), RoleKind::Leader);
}

/// Among those that have caught up the highest priority is the best successor, even if another has an entry more by now.
#[test]
fn the_best_successor_is_the_one_of_the_highest_priority() {
    let mut c = ranked(&[Priority::High, Priority::High, Priority::Normal]);
    c.heartbeat(n(1));
    c.node(n(2)).slow_disk = true;
    c.propose(n(1));
    c.run();
    c.step(n(1), Input::Transfer(None));
    c.run();
    assert_eq!(c.leader(), Some(n(1)), "n2 does not have it all yet");
    c.node(n(2)).slow_disk = false;
    c.run();
    assert_eq!(c.leader(), Some(n(2)));
}

/// HC #503: the disk hangs while heartbeats go on. The best follower takes over, as soon as it has what was sent.
#[test]
fn a_leader_whose_disk_hangs_hands_over() {
    let mut c = led(3, 3);
    c.node(n(1)).slow_disk = true;
    c.propose(n(1));
    c.settle(n(1));
    c.step(n(1), Input::DiskStalled);
    c.run();
    let leader = c.leader().expect("one of the others");
    assert_ne!(leader, n(1));
    let before = c.raft(leader).commit();
    c.propose(leader);
    c.run();
    assert!(c.raft(leader).commit() > before);
    // It does not campaign, and is no danger when its disk works again.
    c.fire(n(1), Timer::Fresh);
    c.fire(n(1), Timer::Election);
    assert_eq!(role(&c, 1), RoleKind::Follower);
    c.node(n(1)).slow_disk = false;
    c.run();
    c.heartbeat(leader);
    assert_eq!(
        (c.leader(), c.raft(n(1)).last()),
        (Some(leader), c.raft(leader).last())
    );
    c.elect(n(1));
}

/// It does not stay even if nobody takes over: at once if no one is alive, else after the transfer's timeout.
#[test]
fn a_leader_whose_disk_hangs_does_not_stay() {
    let mut c = led(3, 3);
    c.node(n(1)).slow_disk = true;
    c.propose(n(1));
    c.settle(n(1));
    c.cut.extend([(n(1), n(2)), (n(1), n(3))]);
    c.step(n(1), Input::DiskStalled);
    c.run();
    assert_eq!(role(&c, 1), RoleKind::Leader, "its successor may yet answer");
    let refused = c.propose(n(1));
    c.drain(n(1));
    assert!(c.nodes[&n(1)].refused.contains_key(&refused));
    c.fire(n(1), Timer::Transfer);
    assert_eq!(role(&c, 1), RoleKind::Follower);
    let mut c = led(3, 3);
    c.isolate(n(1));
    c.fire(n(2), Timer::Fresh);
    c.fire(n(3), Timer::Fresh);
    c.fire(n(2), Timer::Election);
    c.run_until(|c| role(c, 2) == RoleKind::Leader);
    c.isolate(n(2));
    c.node(n(2)).slow_disk = true;
    c.settle(n(2));
    c.step(n(2), Input::DiskStalled);
    assert_eq!(
        role(&c, 2),
        RoleKind::Follower,
        "it has not heard of anyone as a leader"
    );
}

/// If the disk comes back in time, the transfer may still be given up, and the leader leads on.
#[test]
fn a_leader_whose_disk_recovers_may_stay() {
    let mut c = led(3, 3);
    c.node(n(1)).slow_disk = true;
    c.propose(n(1));
    c.settle(n(1));
    c.cut.extend([(n(1), n(2)), (n(1), n(3))]);
    c.step(n(1), Input::DiskStalled);
    c.run();
    c.node(n(1)).slow_disk = false;
    c.run();
    c.fire(n(1), Timer::Transfer);
    assert_eq!(role(&c, 1), RoleKind::Leader);
}

/// Nobody could do better than a single voter.
#[test]
fn a_single_voter_whose_disk_hangs_stays() {
    let mut c = led(1, 2);
    c.node(n(1)).slow_disk = true;
    c.propose(n(1));
    c.settle(n(1));
    c.step(n(1), Input::DiskStalled);
    c.settle(n(1));
    assert_eq!(role(&c, 1), RoleKind::Leader);
    c.node(n(1)).slow_disk = false;
    c.run();
    assert_eq!(c.raft(n(1)).commit(), i(2));
}

/// In a joint configuration only a voter of C_new is a successor; where there is none but the leader itself, it just ends, and
/// leads again when its disk does.
#[test]
fn a_leader_whose_disk_hangs_in_a_joint_configuration() {
    let mut c = led(3, 4);
    c.node(n(1)).slow_disk = true;
    c.change(n(1), &[promote(4), remove(2)], false);
    c.cut.insert((n(3), n(1)));
    c.run();
    assert_eq!(voters(&c, 1), (vec![1, 3, 4], vec![1, 2, 3]));
    c.step(n(1), Input::DiskStalled);
    c.run();
    assert_eq!(c.leader(), Some(n(4)), "n2 leaves, and n3 was heard of less");
    let mut c = led(2, 2);
    c.node(n(1)).slow_disk = true;
    c.change(n(1), &[remove(2)], false);
    c.settle(n(1));
    c.step(n(1), Input::DiskStalled);
    c.run();
    assert_eq!(c.leader(), None);
    c.node(n(1)).slow_disk = false;
    c.run();
    c.elect(n(1));
    assert_eq!(voters(&c, 1), (vec![1], vec![]));
}

/// A node whose disk hangs does not campaign, though it is told to: its vote for itself could not be written down. Nor does it go on
/// asking around.
#[test]
fn a_stalled_node_does_not_campaign() {
    let mut c = led(3, 3);
    c.node(n(2)).slow_disk = true;
    c.propose(n(1));
    c.run();
    c.step(n(2), Input::DiskStalled);
    c.message(n(1), n(2), 1, Body::TimeoutNow);
    assert_eq!((role(&c, 2), c.raft(n(2)).term()), (RoleKind::Follower, Term(1)));
    c.isolate(n(1));
    c.fire(n(3), Timer::Fresh);
    c.fire(n(2), Timer::Fresh);
    c.fire(n(2), Timer::Election);
    assert_eq!(role(&c, 2), RoleKind::Follower);
    c.node(n(2)).slow_disk = false;
    c.run();
    c.fire(n(2), Timer::Election);
    c.run();
    assert_eq!(role(&c, 2), RoleKind::Leader);
    let mut c = led(3, 3);
    c.node(n(2)).slow_disk = true;
    c.propose(n(1));
    c.run();
    c.isolate(n(2));
    c.fire(n(2), Timer::Fresh);
    c.fire(n(2), Timer::Election);
    assert_eq!(role(&c, 2), RoleKind::PreCandidate);
    c.step(n(2), Input::DiskStalled);
    assert_eq!(role(&c, 2), RoleKind::Follower);
}

/// It would lead without being able to write, and its driver says so once for each write that hangs, not again for each role.
#[test]
fn a_candidate_whose_disk_hangs_does_not_win() {
    let mut c = led(3, 3);
    c.crash(n(1), 0);
    for id in [2, 3] {
        c.fire(n(id), Timer::Fresh);
    }
    c.fire(n(2), Timer::Election);
    c.run_until(|c| role(c, 2) == RoleKind::Candidate);
    c.settle(n(2));
    // Its own vote is durable, the requests are on their way; what hangs is something later.
    c.step(n(2), Input::DiskStalled);
    c.run();
    assert_eq!(role(&c, 2), RoleKind::Follower);
    assert_eq!(c.leader(), None);
    // The other does it, in the next term.
    c.fire(n(3), Timer::Fresh);
    c.fire(n(3), Timer::Election);
    c.run();
    assert_eq!(c.leader(), Some(n(3)));
}

/// Whoever asks a leader that cannot write to hand over may name another successor, but gives it no more time.
#[test]
fn a_leader_whose_disk_hangs_gets_no_more_time_by_being_asked_to_go() {
    let mut c = led(3, 3);
    c.node(n(1)).slow_disk = true;
    c.propose(n(1));
    c.settle(n(1));
    c.step(n(1), Input::DiskStalled);
    let mut raft = c.raft(n(1)).clone();
    let armed = |raft: &mut quorate_raft::Raft| {
        let timers = raft.take_effects().timers;
        timers.iter().any(|(timer, _)| *timer == Timer::Transfer)
    };
    assert!(armed(&mut raft));
    raft.step(Input::Transfer(Some(n(3))));
    assert!(!armed(&mut raft));
}
