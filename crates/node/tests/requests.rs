//! Proposals and reads, from the request to the one answer: at leaders and followers, with and without a leader, across
//! changes of leadership.

mod common;

use bytes::Bytes;
use common::{Cluster, Outcome, PATIENCE};
use quorate_base::NodeId;
use quorate_node::{Event, Failure, PeerMessage, Reason};
use quorate_raft::{Body, RoleKind};

#[test]
fn a_single_voter_leads_at_once_and_commits_alone() {
    let mut cluster = Cluster::new(1, |_| {});
    cluster.settle();
    assert_eq!(cluster.node(1).raft().role(), RoleKind::Leader);
    cluster.write(1, "a");
    let read = cluster.read(1, true);
    assert_eq!(cluster.outcome(read), Outcome::Read(1));
    assert_eq!(cluster.now, 1, "none of it takes a timer");
}

#[test]
fn each_member_takes_proposals_and_all_apply_the_same() {
    let mut cluster = Cluster::new(3, |_| {});
    cluster.elect();
    let tokens: Vec<_> = (0..30)
        .map(|i| cluster.propose(1 + i % 3, format!("command {i}")))
        .collect();
    for token in tokens {
        assert!(matches!(cluster.outcome(token), Outcome::Applied(_)));
    }
    cluster.converge();
    assert_eq!(cluster.host(1).machine.commands.len(), 30);
}

#[test]
fn many_proposals_share_one_write() {
    let mut cluster = Cluster::new(1, |_| {});
    cluster.settle();
    (0..100).for_each(|i| _ = cluster.propose(1, format!("{i}")));
    let node = cluster.host(1).node.as_mut().unwrap();
    assert_eq!(node.take_effects().log.len(), 1);
}

#[test]
fn reads_at_followers_see_every_write_acknowledged_before() {
    let mut cluster = Cluster::new(3, |_| {});
    let leader = cluster.elect();
    for i in 1..=10 {
        cluster.write(leader, format!("{i}"));
        for id in 1..=3 {
            let read = cluster.read(id, true);
            assert_eq!(cluster.outcome(read), Outcome::Read(i));
        }
    }
}

#[test]
fn only_a_leader_confirms_its_leadership() {
    let mut cluster = Cluster::new(3, |_| {});
    let leader = cluster.elect();
    let follower = cluster.follower();
    let (here, there) = (cluster.read(leader, false), cluster.read(follower, false));
    assert_eq!(cluster.outcome(here), Outcome::Read(0));
    assert_eq!(
        cluster.outcome(there),
        Outcome::Failed(Failure::NotDone(Reason::LeaderChanged))
    );
}

#[test]
fn a_leader_cut_off_confirms_nothing() {
    let mut cluster = Cluster::new(3, |_| {});
    let leader = cluster.elect();
    cluster.isolate(leader);
    let read = cluster.read(leader, false);
    let outcome = cluster.outcome(read);
    assert!(
        matches!(outcome, Outcome::Failed(Failure::NotDone(_))),
        "{outcome:?}"
    );
}

#[test]
fn without_a_leader_requests_wait_for_one() {
    let mut cluster = Cluster::new(3, |_| {});
    let (write, read) = (cluster.propose(2, "early"), cluster.read(3, true));
    assert!(matches!(cluster.outcome(write), Outcome::Applied(_)));
    assert!(matches!(cluster.outcome(read), Outcome::Read(_)));
}

#[test]
fn without_a_leader_for_too_long_nothing_was_done() {
    let mut cluster = Cluster::new(3, |_| {});
    (1..=3).for_each(|id| cluster.isolate(id));
    let (write, read) = (cluster.propose(2, "early"), cluster.read(2, true));
    assert_eq!(
        cluster.outcome(write),
        Outcome::Failed(Failure::NotDone(Reason::NoLeader))
    );
    assert_eq!(
        cluster.outcome(read),
        Outcome::Failed(Failure::NotDone(Reason::NoLeader))
    );
    assert!(cluster.now >= PATIENCE);
    cluster.heal();
    cluster.elect();
    cluster.converge();
    assert!(cluster.host(1).machine.commands.is_empty());
}

#[test]
fn what_waits_for_a_leader_is_bounded() {
    let mut cluster = Cluster::new(3, |config| (config.max_held, config.max_held_bytes) = (3, 100));
    (1..=3).for_each(|id| cluster.isolate(id));
    let large = cluster.propose(1, vec![0; 101]);
    assert_eq!(
        cluster.outcome(large),
        Outcome::Failed(Failure::NotDone(Reason::Busy))
    );
    let tokens: Vec<_> = (0..4).map(|_| cluster.propose(1, "small")).collect();
    assert_eq!(
        cluster.outcome(tokens[3]),
        Outcome::Failed(Failure::NotDone(Reason::Busy))
    );
    cluster.heal();
    assert!(matches!(cluster.outcome(tokens[0]), Outcome::Applied(_)));
}

#[test]
fn a_command_over_the_limit_is_refused() {
    let mut cluster = Cluster::new(1, |config| config.max_proposal = 10);
    let (fits, over) = (cluster.propose(1, vec![0; 10]), cluster.propose(1, vec![0; 11]));
    assert!(matches!(cluster.outcome(fits), Outcome::Applied(_)));
    assert_eq!(
        cluster.outcome(over),
        Outcome::Failed(Failure::NotDone(Reason::TooLarge))
    );
}

#[test]
fn a_leader_without_a_quorum_is_busy_at_some_point() {
    let mut cluster = Cluster::new(3, |config| config.limits.max_uncommitted_bytes = 1000);
    let leader = cluster.elect();
    let follower = cluster.follower();
    cluster.filter = Box::new(|_, _, message| !matches!(message, PeerMessage::Append { .. }));
    let tokens: Vec<_> = (0..5).map(|_| cluster.propose(leader, vec![0; 300])).collect();
    let forwarded = cluster.propose(follower, vec![0; 300]);
    assert_eq!(
        cluster.outcome(tokens[4]),
        Outcome::Failed(Failure::NotDone(Reason::Busy))
    );
    assert_eq!(
        cluster.outcome(forwarded),
        Outcome::Failed(Failure::NotDone(Reason::Busy))
    );
    cluster.filter = Box::new(|_, _, _| true);
    assert!(matches!(cluster.outcome(tokens[0]), Outcome::Applied(_)));
}

#[test]
fn a_proposal_overtaken_by_another_leaders_entry_was_certainly_not_done() {
    let mut cluster = Cluster::new(3, |_| {});
    let old = cluster.elect();
    cluster.isolate(old);
    let lost = cluster.propose(old, "lost");
    cluster.settle();
    let others: Vec<u64> = (1..=3).filter(|id| *id != old).collect();
    cluster.run_until("a leader of the others", |cluster| {
        others
            .iter()
            .any(|id| cluster.node(*id).raft().role() == RoleKind::Leader)
    });
    let new = *others
        .iter()
        .find(|id| cluster.node(**id).raft().role() == RoleKind::Leader)
        .unwrap();
    cluster.write(new, "kept");
    assert!(
        !cluster.outcomes.contains_key(&lost),
        "the old leader cannot know yet"
    );
    cluster.heal();
    assert_eq!(
        cluster.outcome(lost),
        Outcome::Failed(Failure::NotDone(Reason::LeaderChanged))
    );
    cluster.converge();
    assert_eq!(cluster.host(old).machine.commands, [Bytes::from("kept")]);
}

#[test]
fn a_forwarded_proposal_is_unknown_when_the_link_breaks() {
    let mut cluster = Cluster::new(3, |_| {});
    let leader = cluster.elect();
    let follower = cluster.follower();
    cluster.filter = Box::new(|_, _, message| !matches!(message, PeerMessage::Forward { .. }));
    let token = cluster.propose(follower, "into the void");
    cluster.settle();
    cluster.crash(leader);
    assert_eq!(
        cluster.outcome(token),
        Outcome::Failed(Failure::Unknown(Reason::LinkDown))
    );
}

#[test]
fn a_forwarded_proposal_is_unknown_when_the_term_ends() {
    let mut cluster = Cluster::new(3, |_| {});
    let leader = cluster.elect();
    let follower = cluster.follower();
    cluster.filter = Box::new(|_, _, message| !matches!(message, PeerMessage::Forward { .. }));
    let token = cluster.propose(follower, "into the void");
    cluster.settle();
    cluster.isolate(leader);
    assert_eq!(
        cluster.outcome(token),
        Outcome::Failed(Failure::Unknown(Reason::LeaderChanged))
    );
}

#[test]
fn a_lost_answer_is_made_good_by_the_entry_itself() {
    let mut cluster = Cluster::new(3, |_| {});
    cluster.elect();
    let follower = cluster.follower();
    cluster.filter = Box::new(|_, _, message| !matches!(message, PeerMessage::Accept { .. }));
    let token = cluster.propose(follower, "accepted in silence");
    assert!(matches!(cluster.outcome(token), Outcome::Applied(_)));
}

#[test]
fn a_proposal_that_could_not_be_sent_is_sent_later() {
    let mut cluster = Cluster::new(3, |_| {});
    cluster.elect();
    let follower = cluster.follower();
    let mut refusals = 3;
    cluster.queue = Box::new(move |_, _, message| {
        let refuse = matches!(message, PeerMessage::Forward { .. }) && refusals > 0;
        refusals -= i32::from(refuse);
        !refuse
    });
    let token = cluster.propose(follower, "a");
    assert!(matches!(cluster.outcome(token), Outcome::Applied(_)));
    cluster.converge();
    assert_eq!(cluster.host(1).machine.commands.len(), 1);
}

#[test]
fn a_proposal_that_could_not_be_sent_is_not_taken_for_an_old_one_later() {
    let mut cluster = Cluster::new(3, |_| {});
    cluster.elect();
    let follower = cluster.follower();
    let mut refusals = 1;
    cluster.queue = Box::new(move |_, _, message| {
        let refuse = matches!(message, PeerMessage::Forward { .. }) && refusals > 0;
        refusals -= i32::from(refuse);
        !refuse
    });
    let token = cluster.propose(follower, "first");
    // So many overtake it that the leader counts its number as seen long ago.
    let others: Vec<_> = (0..2000)
        .map(|i| cluster.propose(follower, format!("{i}")))
        .collect();
    assert!(matches!(cluster.outcome(token), Outcome::Applied(_)));
    for other in others {
        assert!(matches!(cluster.outcome(other), Outcome::Applied(_)));
    }
    cluster.converge();
    assert_eq!(cluster.host(1).machine.commands.len(), 2001);
}

#[test]
fn a_doubled_forward_is_done_once() {
    let mut cluster = Cluster::new(3, |_| {});
    let leader = cluster.elect();
    let follower = cluster.follower();
    let seen = std::rc::Rc::new(std::cell::RefCell::new(None));
    let kept = seen.clone();
    cluster.filter = Box::new(move |_, _, message| {
        if matches!(message, PeerMessage::Forward { .. }) {
            *kept.borrow_mut() = Some(message.clone());
        }
        true
    });
    cluster.write(follower, "once");
    let message = seen.borrow_mut().take().expect("it was forwarded");
    cluster.step(
        leader,
        Event::Peer {
            from: NodeId(follower),
            message,
        },
    );
    cluster.write(leader, "twice");
    cluster.converge();
    assert_eq!(
        cluster.host(leader).machine.commands,
        [Bytes::from("once"), Bytes::from("twice")]
    );
}

#[test]
fn leadership_is_handed_over_and_requests_go_on() {
    let mut cluster = Cluster::new(3, |_| {});
    let old = cluster.elect();
    let to = cluster.follower();
    cluster.step(old, Event::Transfer(Some(NodeId(to))));
    let during = cluster.propose(old, "during");
    assert!(matches!(cluster.outcome(during), Outcome::Applied(_)));
    assert_eq!(cluster.elect(), to);
    cluster.converge();
}

#[test]
fn a_transfer_that_fails_holds_proposals_up_only_for_a_while() {
    let mut cluster = Cluster::new(3, |_| {});
    let leader = cluster.elect();
    cluster.filter =
        Box::new(|_, _, message| !matches!(message, PeerMessage::Raft(m) if m.body == Body::TimeoutNow));
    cluster.step(leader, Event::Transfer(None));
    let (own, forwarded) = (
        cluster.propose(leader, "own"),
        cluster.propose(cluster.follower(), "forwarded"),
    );
    assert!(matches!(cluster.outcome(own), Outcome::Applied(_)));
    assert!(matches!(cluster.outcome(forwarded), Outcome::Applied(_)));
    assert_eq!(cluster.leader(), Some(leader));
}
