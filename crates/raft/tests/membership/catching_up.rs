//! New servers catch up first (§4.2.1): learners, and how they become voters.

use quorate_base::Term;
use quorate_raft::{Body, ChangeEnd, ChangeRefused, Config, Promote, RoleKind, Timer};

use crate::common::{at, i, n};
use crate::{add, end, led, promote, refusal, remove, role, timeout_passes, voters};

/// "the leader replicates log entries to it, but it is not yet counted towards majorities for voting or commitment".
#[test]
fn a_learner_does_not_count() {
    let mut c = led(2, 3);
    c.isolate(n(2));
    let before = c.raft(n(1)).commit();
    c.propose(n(1));
    c.run();
    assert_eq!(c.raft(n(3)).last(), c.raft(n(1)).last());
    assert_eq!(c.raft(n(1)).commit(), before, "n1 and n3 are one voter");
    c.fire(n(1), Timer::Quorum);
    c.fire(n(1), Timer::Quorum);
    assert_eq!(role(&c, 1), RoleKind::Follower, "and no quorum to lead");
    for id in [1, 3] {
        c.fire(n(id), Timer::Fresh);
        c.fire(n(id), Timer::Election);
        c.run();
        assert_ne!(role(&c, id), RoleKind::Leader);
    }
    assert_eq!(role(&c, 3), RoleKind::Follower, "a learner does not even ask");
}

/// A learner that lags is not promoted, however it is asked for; once it has the log as of two election timeouts ago it is.
#[test]
fn promotion_waits_until_the_learner_has_caught_up() {
    let mut c = led(3, 4);
    c.isolate(n(4));
    let late = Some(ChangeRefused::NotCaughtUp(n(4)));
    c.propose(n(1));
    timeout_passes(&mut c, 1);
    timeout_passes(&mut c, 1);
    assert_eq!(refusal(&mut c, 1, &[promote(4)]), late);
    c.heal();
    // It is alive, but its disk has nothing.
    c.node(n(4)).slow_disk = true;
    timeout_passes(&mut c, 1);
    assert_eq!(refusal(&mut c, 1, &[promote(4)]), late);
    c.node(n(4)).slow_disk = false;
    timeout_passes(&mut c, 1);
    assert_eq!(refusal(&mut c, 1, &[promote(4)]), None);
}

/// A learner that has the log as of long ago has not caught up, one that has it as of two checks ago has: the last round of
/// catching up was shorter than an election may take.
#[test]
fn the_last_round_must_be_short() {
    let mut c = led(3, 4);
    c.node(n(4)).slow_disk = true;
    c.propose(n(1));
    c.run();
    timeout_passes(&mut c, 1);
    assert_eq!(
        refusal(&mut c, 1, &[promote(4)]),
        None,
        "one entry of a moment ago"
    );
    let mut c = led(3, 4);
    c.node(n(4)).slow_disk = true;
    c.propose(n(1));
    c.run();
    timeout_passes(&mut c, 1);
    timeout_passes(&mut c, 1);
    assert_eq!(
        refusal(&mut c, 1, &[promote(4)]),
        Some(ChangeRefused::NotCaughtUp(n(4)))
    );
}

/// A learner that had everything but is not heard of any more is not promoted either.
#[test]
fn a_learner_must_be_alive() {
    let mut c = led(3, 4);
    c.isolate(n(4));
    for _ in 0..3 {
        timeout_passes(&mut c, 1);
    }
    assert_eq!(
        refusal(&mut c, 1, &[promote(4)]),
        Some(ChangeRefused::NotCaughtUp(n(4)))
    );
}

/// A learner that is to be promoted by itself is, as soon as it has caught up; the other kind is not.
#[test]
fn a_learner_is_promoted_by_itself() {
    let mut c = led(3, 3);
    c.propose(n(1));
    c.run();
    c.join(n(4));
    c.join(n(5));
    c.isolate(n(4));
    let both = [add(4, Promote::WhenCaughtUp), add(5, Promote::Never)];
    let token = c.change(n(1), &both, false);
    c.run();
    assert!(matches!(end(&c, 1, token), Some(ChangeEnd::Done(_))));
    for _ in 0..3 {
        timeout_passes(&mut c, 1);
    }
    assert_eq!(voters(&c, 1), (vec![1, 2, 3], vec![]), "n4 was never heard of");
    c.heal();
    timeout_passes(&mut c, 1);
    assert_eq!(voters(&c, 4), (vec![1, 2, 3, 4], vec![]));
    let learners = &c.raft(n(4)).config().learners;
    assert_eq!(learners, &[(n(5), Promote::Never)].into());
}

/// Later leaders know of it too.
#[test]
fn the_next_leader_promotes_it() {
    let mut c = led(3, 3);
    c.join(n(4));
    c.isolate(n(4));
    c.change(n(1), &[add(4, Promote::WhenCaughtUp)], false);
    c.run();
    c.elect(n(2));
    c.heal();
    timeout_passes(&mut c, 2);
    assert_eq!(voters(&c, 4), (vec![1, 2, 3, 4], vec![]));
}

/// A learner that is there but does not keep up, or has kept up but is gone again, stays one.
#[test]
fn a_flapping_learner_waits() {
    let mut c = led(3, 3);
    c.join(n(4));
    c.node(n(4)).slow_disk = true;
    c.change(n(1), &[add(4, Promote::WhenCaughtUp)], false);
    c.run();
    for _ in 0..4 {
        c.propose(n(1));
        timeout_passes(&mut c, 1);
    }
    assert_eq!(
        voters(&c, 1),
        (vec![1, 2, 3], vec![]),
        "its disk does not keep up"
    );
    // It catches up, but the leader cannot hear of that before it is gone for long.
    c.isolate(n(4));
    c.node(n(4)).slow_disk = false;
    c.run();
    for _ in 0..3 {
        timeout_passes(&mut c, 1);
    }
    assert_eq!(voters(&c, 1), (vec![1, 2, 3], vec![]));
    c.heal();
    timeout_passes(&mut c, 1);
    assert_eq!(voters(&c, 1), (vec![1, 2, 3, 4], vec![]));
}

/// Of several learners those become voters that are there; nobody waits for the others.
#[test]
fn a_silent_learner_holds_up_nobody() {
    let mut c = led(3, 3);
    for id in [4, 5] {
        c.join(n(id));
    }
    c.isolate(n(5));
    let both = [add(4, Promote::WhenCaughtUp), add(5, Promote::WhenCaughtUp)];
    c.change(n(1), &both, false);
    c.run();
    timeout_passes(&mut c, 1);
    assert_eq!(voters(&c, 1), (vec![1, 2, 3, 4], vec![]));
    c.heal();
    timeout_passes(&mut c, 1);
    assert_eq!(voters(&c, 5), (vec![1, 2, 3, 4, 5], vec![]));
}

/// A server that joins starts from an empty configuration: it is no voter of anything, and takes what a leader sends and votes for
/// whoever asks. Its first configuration is the one that it finds in the log.
#[test]
fn a_joining_server_knows_nobody() {
    let mut c = led(3, 3);
    c.propose(n(1));
    c.run();
    c.join(n(4));
    c.fire(n(4), Timer::Election);
    c.run();
    assert_eq!((role(&c, 4), c.raft(n(4)).term()), (RoleKind::Follower, Term(0)));
    assert!(!c.raft(n(4)).is_removed());
    let vote = Body::Vote {
        last: at(1, 2),
        transfer: false,
    };
    c.message(n(2), n(4), 5, vote);
    c.settle(n(4));
    assert_eq!(c.bodies(4, 2), [Body::VoteResponse { granted: true }]);
    c.message(n(2), n(4), 5, Body::TimeoutNow);
    assert_eq!(
        role(&c, 4),
        RoleKind::Follower,
        "told to campaign, it is no voter"
    );
    c.crash(n(4), 0);
    c.network.clear();
    c.join(n(5));
    c.change(n(1), &[add(5, Promote::WhenCaughtUp)], false);
    c.run();
    timeout_passes(&mut c, 1);
    assert_eq!(voters(&c, 5), (vec![1, 2, 3, 5], vec![]));
    c.restart(n(5));
    c.elect(n(5));
    assert_eq!(c.terms(n(5)), c.terms(n(1)), "and it may lead as any other");
}

/// What the entries before a joining server's first configuration said of the membership it never learns; compacted away, they leave
/// it as it was.
#[test]
fn a_joining_server_restarts_before_its_first_configuration() {
    let mut c = led(3, 3);
    for _ in 0..5 {
        c.propose(n(1));
    }
    c.run();
    c.join(n(4));
    c.limits.max_append_bytes = 1;
    c.change(n(1), &[add(4, Promote::Never)], false);
    c.settle(n(1));
    // A leader of the same term that knows of three committed entries sends these.
    let entries = c.raft(n(1)).log().shapes(i(0), i(3));
    c.lose_where(|parcel| parcel.to == n(4));
    c.message(
        n(1),
        n(4),
        1,
        Body::Append {
            prev: at(0, 0),
            entries,
            commit: i(3),
        },
    );
    c.settle(n(4));
    c.compact(n(4), i(2));
    c.restart(n(4));
    assert_eq!(c.raft(n(4)).config(), &Config::default());
    c.fire(n(4), Timer::Election);
    assert_eq!(role(&c, 4), RoleKind::Follower);
    c.run();
    c.heartbeat(n(1));
    c.heartbeat(n(1));
    assert_eq!(c.raft(n(4)).config(), c.raft(n(1)).config());
    assert_eq!(c.raft(n(4)).applied(), c.raft(n(1)).applied());
}

/// A new server that needs what is compacted away gets a snapshot, and the configuration with it.
#[test]
fn a_joining_server_starts_from_a_snapshot() {
    let mut c = led(3, 3);
    c.propose(n(1));
    c.change(n(1), &[remove(3)], false);
    c.run();
    let applied = c.raft(n(1)).applied();
    c.compact(n(1), applied);
    c.join(n(4));
    c.change(n(1), &[add(4, Promote::WhenCaughtUp)], false);
    c.run();
    timeout_passes(&mut c, 1);
    timeout_passes(&mut c, 1);
    assert_eq!(c.nodes[&n(4)].restored, 1);
    assert_eq!(voters(&c, 4), (vec![1, 2, 4], vec![]));
    assert!(c.raft(n(4)).config().removed.contains(&n(3)));
}
