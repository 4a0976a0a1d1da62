//! Removing servers: the leader itself (§4.2.2), and servers that do not know that they were removed (§4.2.3).

use quorate_base::Term;
use quorate_raft::{Body, ChangeEnd, ChangeRefused, Promote, RoleKind, Timer};

use crate::common::{Cluster, i, n};
use crate::{add, end, led, nobody_is_fresh, promote, refusal, remove, role, timeout_passes, voters};

/// "there will be a period of time (while it is committing C_new) when a leader can manage a cluster that does not include itself; it
/// replicates log entries but does not count itself in majorities."
#[test]
fn a_removed_leader_leads_on_without_counting_itself() {
    let mut c = led(3, 3);
    c.isolate(n(3));
    let token = c.change(n(1), &[remove(1)], true);
    c.run();
    // {1, 2} of {1, 2, 3} commit C_old,new only if {2, 3} have a majority for it, and n3 is silent.
    assert_eq!(voters(&c, 1), (vec![2, 3], vec![1, 2, 3]));
    c.heal();
    c.isolate(n(3));
    c.propose(n(1));
    c.run();
    assert_eq!((role(&c, 1), end(&c, 1, token)), (RoleKind::Leader, None));
    c.heal();
    c.heartbeat(n(1));
    c.heartbeat(n(1));
    assert!(matches!(end(&c, 1, token), Some(ChangeEnd::Done(_))));
}

/// "once C_new is committed, the leader steps down", and here it first tells the best voter of C_new to take over. It never
/// campaigns again.
#[test]
fn a_removed_leader_hands_over_and_steps_down() {
    let mut c = led(3, 3);
    c.node(n(3)).slow_disk = true;
    c.propose(n(1));
    c.run();
    let token = c.change(n(1), &[remove(1)], false);
    c.run();
    assert_eq!(
        (role(&c, 1), end(&c, 1, token)),
        (RoleKind::Leader, None),
        "n3 counts now"
    );
    c.node(n(3)).slow_disk = false;
    c.run();
    assert!(matches!(end(&c, 1, token), Some(ChangeEnd::Done(_))));
    assert_eq!(role(&c, 1), RoleKind::Follower);
    let leader = c.leader().expect("nobody had to wait for an election timeout");
    assert_ne!(leader, n(1));
    c.fire(n(1), Timer::Fresh);
    c.fire(n(1), Timer::Election);
    assert_eq!(role(&c, 1), RoleKind::Follower, "it is no voter any more");
    assert!(c.raft(n(1)).is_removed());
    c.propose(leader);
    c.run();
    assert_eq!(voters(&c, 2), (vec![2, 3], vec![]));
}

/// It steps down even if nobody takes over: at once if it tells somebody or knows nobody alive, after an election timeout if its
/// successor does not get ready.
#[test]
fn a_removed_leader_does_not_stay() {
    let mut c = led(3, 3);
    let token = c.change(n(1), &[remove(1)], false);
    c.settle(n(1));
    c.run_until(|c| end(c, 1, token).is_some());
    assert_eq!(role(&c, 1), RoleKind::Follower);
    let told = c.lose_where(|parcel| is_timeout_now(&parcel.what));
    assert_eq!(told, 1);
    c.run();
    assert_eq!(c.leader(), None);
    c.elect(n(2));
}

fn is_timeout_now(what: &crate::common::What) -> bool {
    matches!(what, crate::common::What::Message(message, _) if message.body == Body::TimeoutNow)
}

/// A proposal that comes just before C_new commits keeps the successor from being ready; if it never is, the leader goes
/// all the same.
#[test]
fn a_removed_leader_does_not_wait_for_ever() {
    let mut c = led(3, 3);
    let token = c.change(n(1), &[remove(1)], false);
    c.settle(n(1));
    c.run_until(|c| voters(c, 1) == (vec![2, 3], vec![]));
    c.run_to(&[2, 3]);
    let late = c.propose(n(1));
    c.cut.extend([(n(1), n(2)), (n(1), n(3))]);
    c.run();
    assert!(matches!(end(&c, 1, token), Some(ChangeEnd::Done(_))));
    assert_eq!(role(&c, 1), RoleKind::Leader, "its successor lacks an entry");
    let refused = c.propose(n(1));
    c.drain(n(1));
    assert!(c.nodes[&n(1)].refused.contains_key(&refused) && !c.nodes[&n(1)].refused.contains_key(&late));
    c.fire(n(1), Timer::Transfer);
    assert_eq!(role(&c, 1), RoleKind::Follower);
}

/// A leader that is not part of the committed configuration begins no change, not even to promote a learner by itself: else there
/// would always be a reason to stay.
#[test]
fn a_leader_that_must_go_begins_no_change() {
    let mut c = led(3, 3);
    c.join(n(4));
    c.isolate(n(4));
    c.change(n(1), &[add(4, Promote::WhenCaughtUp)], false);
    c.run();
    // C_new without n1 is in the log of n1 alone when it crashes, and so nobody else can be elected.
    c.change(n(1), &[remove(1)], false);
    c.settle(n(1));
    c.run_until(|c| voters(c, 1) == (vec![2, 3], vec![]));
    c.network.clear();
    c.restart(n(1));
    c.heal();
    nobody_is_fresh(&mut c);
    c.fire(n(1), Timer::Election);
    c.run_until(|c| role(c, 1) == RoleKind::Leader);
    while !c.raft(n(1)).config_is_settled() {
        c.settle(n(1));
        let parcel = c.network.pop_front().expect("C_new is being agreed upon");
        let to = parcel.to;
        c.deliver(parcel);
        if to != n(1) {
            c.settle(to);
        }
    }
    assert_eq!(role(&c, 1), RoleKind::Leader);
    assert_eq!(
        refusal(&mut c, 1, &[promote(4)]),
        Some(ChangeRefused::Transferring)
    );
    assert_ne!(role(&c, 1), RoleKind::Leader);
    c.run();
    assert_ne!(c.leader(), Some(n(1)));
}

/// OR #2091: a leader whose removal is not committed may hold the only newest log. It campaigns, is elected by C_new, and goes when
/// that is done.
#[test]
fn a_removed_leader_with_the_newest_log_is_elected_once_more() {
    let mut c = led(3, 3);
    c.change(n(1), &[remove(1)], false);
    c.settle(n(1));
    c.run_until(|c| voters(c, 1) == (vec![2, 3], vec![]));
    c.network.clear();
    c.restart(n(1));
    assert_eq!(voters(&c, 1), (vec![2, 3], vec![]));
    nobody_is_fresh(&mut c);
    c.fire(n(1), Timer::Election);
    c.run();
    assert_eq!((role(&c, 1), c.raft(n(1)).term()), (RoleKind::Follower, Term(2)));
    let leader = c.leader().expect("one of C_new");
    assert_eq!(c.raft(leader).term(), Term(3), "n1 led term 2 in between");
    assert_eq!(voters(&c, leader.0), (vec![2, 3], vec![]));
}

/// §4.2.3: "if a server receives a RequestVote request within the minimum election timeout of hearing from a current leader, it does not
/// update its term or grant its vote." So a server that was removed unheard cannot depose anybody, whatever its term.
#[test]
fn a_removed_server_disturbs_nobody() {
    let mut c = led(4, 4);
    c.isolate(n(4));
    c.change(n(1), &[remove(4)], false);
    c.run();
    timeout_passes(&mut c, 1);
    timeout_passes(&mut c, 1);
    timeout_passes(&mut c, 1);
    c.heal();
    assert!(!c.raft(n(4)).is_removed(), "it knows nothing");
    let term = c.raft(n(1)).term();
    for _ in 0..3 {
        c.fire(n(4), Timer::Fresh);
        c.fire(n(4), Timer::Election);
        c.run();
    }
    let last = c.raft(n(4)).last();
    c.message(
        n(4),
        n(2),
        77,
        Body::Vote {
            last,
            transfer: false,
        },
    );
    c.message(
        n(4),
        n(1),
        77,
        Body::Vote {
            last,
            transfer: false,
        },
    );
    c.run();
    c.heartbeat(n(1));
    assert_eq!((role(&c, 1), c.raft(n(1)).term()), (RoleKind::Leader, term));
    assert_eq!(c.raft(n(2)).term(), term);
}

/// A removed server that can be reached is told, and so is one that hears of C_new late, as long as nobody knows that to be committed.
#[test]
fn a_removed_server_learns_of_it() {
    let mut c = led(3, 3);
    c.change(n(1), &[remove(3)], false);
    c.run();
    assert!(c.raft(n(3)).is_removed());
    assert_eq!(c.raft(n(1)).peers().count(), 2, "for a while it is still served");
    for _ in 0..3 {
        timeout_passes(&mut c, 1);
    }
    assert_eq!(c.raft(n(1)).peers().count(), 1, "but not for ever");
    let mut c = led(4, 4);
    c.change(n(1), &[remove(4)], false);
    c.settle(n(1));
    c.run_until(|c| voters(c, 1) == (vec![1, 2, 3], vec![]));
    // C_new reaches nobody for a long time.
    let append = |what: &crate::common::What| matches!(what, crate::common::What::Message(message, _) if matches!(message.body, Body::Append { .. }));
    for _ in 0..5 {
        c.fire(n(1), Timer::Heartbeat);
        c.settle(n(1));
        while let Some(parcel) = c.network.pop_front() {
            let to = parcel.to;
            if append(&parcel.what) {
                c.lose(parcel);
            } else {
                c.deliver(parcel);
            }
            c.settle(to);
        }
        c.fire(n(1), Timer::Quorum);
    }
    assert!(!c.raft(n(1)).config_is_settled());
    c.heartbeat(n(1));
    c.heartbeat(n(1));
    assert!(c.raft(n(4)).is_removed());
}

/// A former member that would need a snapshot to learn of its removal gets none.
#[test]
fn a_removed_server_gets_no_snapshot() {
    let mut c = led(3, 3);
    c.isolate(n(3));
    c.propose(n(1));
    c.change(n(1), &[remove(3)], false);
    c.run();
    let applied = c.raft(n(1)).applied();
    c.compact(n(1), applied);
    c.heal();
    timeout_passes(&mut c, 1);
    c.heartbeat(n(1));
    assert_eq!(c.nodes[&n(3)].restored, 0);
    assert_eq!(
        c.raft(n(1))
            .peers()
            .find(|peer| peer.0 == n(3))
            .map(|peer| peer.1.pace),
        Some("probe")
    );
}

/// A member that was told to take over and is removed before it hears that: its campaign costs at most a term.
#[test]
fn a_successor_is_removed_before_it_is_told() {
    let mut c = led(3, 3);
    c.step(n(1), quorate_raft::Input::Transfer(Some(n(3))));
    c.settle(n(1));
    let told = c
        .network
        .iter()
        .position(|parcel| is_timeout_now(&parcel.what))
        .expect("n3 is told");
    let told = c.network.remove(told).expect("just found");
    c.fire(n(1), Timer::Transfer);
    let token = c.change(n(1), &[remove(3)], false);
    c.run();
    assert!(matches!(end(&c, 1, token), Some(ChangeEnd::Done(_))));
    c.deliver(told);
    c.run();
    assert_eq!(role(&c, 3), RoleKind::Follower);
    assert_eq!(
        c.raft(n(1)).term(),
        Term(1),
        "it knows that it was removed, and stays quiet"
    );
    // One that does not know it cannot win either: its log ends before C_new.
    let mut c = led(3, 3);
    c.step(n(1), quorate_raft::Input::Transfer(Some(n(3))));
    c.settle(n(1));
    let told = c
        .network
        .iter()
        .position(|parcel| is_timeout_now(&parcel.what))
        .expect("n3 is told");
    let told = c.network.remove(told).expect("just found");
    c.fire(n(1), Timer::Transfer);
    c.isolate(n(3));
    c.change(n(1), &[remove(3)], false);
    c.run();
    c.heal();
    c.deliver(told);
    c.run();
    assert_ne!(role(&c, 3), RoleKind::Leader);
    c.elect(n(2));
    assert_eq!(voters(&c, 1), (vec![1, 2], vec![]));
}

/// A member that leaves is no successor, not even while C_old,new lets it vote.
#[test]
fn transfer_targets_are_voters_of_c_new() {
    let mut c = led(3, 3);
    c.cut.extend([(n(1), n(2)), (n(1), n(3))]);
    c.change(n(1), &[remove(3)], false);
    c.run();
    assert_eq!(voters(&c, 1), (vec![1, 2], vec![1, 2, 3]));
    c.step(n(1), quorate_raft::Input::Transfer(Some(n(3))));
    let token = c.propose(n(1));
    c.drain(n(1));
    assert!(
        c.nodes[&n(1)].placed.contains_key(&token),
        "no transfer is under way"
    );
    c.heal();
    c.heartbeat(n(1));
    assert_eq!(c.leader(), Some(n(1)));
}

/// The commit index that proves a removal counts, not the entry: one that may still be overwritten removes nobody.
#[test]
fn a_removal_counts_when_it_is_committed() {
    let mut c: Cluster = led(3, 4);
    c.isolate(n(2));
    c.isolate(n(3));
    c.change(n(1), &[remove(4)], false);
    c.run();
    assert!(!c.raft(n(4)).config().learners.contains_key(&n(4)));
    assert!(!c.raft(n(4)).is_removed());
    c.heal();
    c.heartbeat(n(1));
    assert!(c.raft(n(4)).is_removed() && c.raft(n(4)).commit() > i(1));
}
