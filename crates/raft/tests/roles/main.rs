//! What one node does, in the role it has, with inputs that are late, early, or meant for another role: rules so small that a cluster
//! hides their absence, since something later makes up for it.

mod node;

use node::{N1, N2, N3, Node, entries, heartbeat, one_of_three};
use quorate_base::{Index, LogId, NodeId, Term};
use quorate_raft::{
    Arm, Body, Change, ChangeEnd, ChangeRefused, Config, Effects, Input, Limits, Message, Priority, Promote,
    Raft, Refused, Restored, RoleKind, SnapMeta, Timer,
};

/// §3.4: at most one leader a term, so another that says it is one is wrong, or lies.
#[test]
fn a_second_leader_of_a_term_is_not_believed() {
    let mut node = Node::follower(&[1], 0);
    node.hear(N2, 2, heartbeat(1));
    node.take_sent();
    let effects = node.hear(N3, 2, heartbeat(1));
    assert_eq!(node.raft.leader(), Some(N2));
    assert_eq!(node.take_sent(), []);
    assert!(effects.timers.is_empty(), "nor does it put off an election");
}

/// A word about a leader that this node does not follow, or not in this term any more, says nothing.
#[test]
fn only_the_leader_that_is_followed_can_be_gone() {
    let mut node = Node::follower(&[1], 0);
    node.hear(N2, 2, heartbeat(1));
    for (leader, term) in [(N3, 2), (N2, 1), (N3, 1)] {
        let term = Term(term);
        let effects = node.step(Input::LeaderDead { leader, term });
        assert!(effects.timers.is_empty(), "{leader} {term}");
        assert_eq!(node.raft.role(), RoleKind::Follower);
    }
    node.step(Input::LeaderDead {
        leader: N2,
        term: Term(2),
    });
    assert_eq!(node.raft.role(), RoleKind::PreCandidate);
}

/// What the leader asked when it was not the leader yet may arrive late.
#[test]
fn only_a_request_of_this_term_is_an_abdication() {
    let ask = |node: &mut Node, term: u64| {
        let (next, last) = (Term(term + 1), LogId::new(1, 1));
        node.hear(N2, term, Body::PreVote { next, last });
        node.take_sent()
    };
    let mut node = Node::follower(&[1], 0);
    node.hear(N2, 2, heartbeat(1));
    node.take_sent();
    assert_eq!(ask(&mut node, 1), [], "its leader is alive");
    assert_eq!(
        ask(&mut node, 3),
        [],
        "a later term is not believed of a leader that is alive"
    );
    let (next, granted) = (Term(3), true);
    assert_eq!(ask(&mut node, 2), [(N2, Body::PreVoteResponse { next, granted })]);
}

/// Who follows a leader need not hurry because some link is up; who follows none may find a voter behind it.
#[test]
fn a_link_that_comes_up_is_of_interest_to_who_has_no_leader() {
    let hurries = |node: &mut Node| {
        let effects = node.step(Input::Reachable(N3));
        effects.timers.contains(&(Timer::Haste, Arm::Set))
    };
    let mut node = Node::follower(&[1], 0);
    node.hear(N2, 2, heartbeat(1));
    node.step(Input::Fired(Timer::Fresh));
    assert!(!hurries(&mut node));
    node.hear(N2, 3, Body::VoteResponse { granted: false });
    assert_eq!(node.raft.leader(), None);
    assert!(hurries(&mut node));
}

/// A campaign ends by votes, by another leader, by a later term, or when its own time is over.
#[test]
fn a_campaign_knows_only_its_own_timer() {
    let timers = [
        Timer::Fresh,
        Timer::Heartbeat,
        Timer::Quorum,
        Timer::Transfer,
        Timer::Read,
    ];
    for stalled in [false, true] {
        let mut node = Node::follower(&[1], 0);
        node.step(Input::Fired(Timer::Election));
        for timer in timers {
            node.step(Input::Fired(timer));
            assert_eq!(
                (node.raft.role(), node.raft.term()),
                (RoleKind::PreCandidate, Term(1))
            );
        }
        node.slow = stalled;
        let (next, granted) = (Term(2), true);
        node.hear(N2, 1, Body::PreVoteResponse { next, granted });
        if stalled {
            node.step(Input::DiskStalled);
        }
        for timer in timers.into_iter().chain([Timer::Haste]) {
            node.step(Input::Fired(timer));
            assert_eq!(
                (node.raft.role(), node.raft.term()),
                (RoleKind::Candidate, Term(2))
            );
        }
        node.slow = false;
        node.drain();
        node.take_sent();
        node.step(Input::Fired(Timer::Election));
        assert_eq!(node.raft.role(), RoleKind::PreCandidate);
    }
}

/// A campaign that is still being written down waits for the disk, however long it hangs, and then goes on.
#[test]
fn a_hanging_disk_does_not_end_a_campaign_that_it_has_not_got() {
    let mut node = Node::follower(&[1], 0);
    node.slow = true;
    node.step(Input::Fired(Timer::Election));
    let (next, granted) = (Term(2), true);
    node.hear(N2, 1, Body::PreVoteResponse { next, granted });
    node.take_sent();
    node.step(Input::DiskStalled);
    assert_eq!(node.raft.role(), RoleKind::Candidate);
    assert_eq!(node.take_sent(), [], "nobody is asked for what is not durable");
    node.slow = false;
    node.drain();
    assert_eq!(node.take_sent().len(), 2);
    // One that the disk has could be won, and by a leader that cannot write.
    node.step(Input::DiskStalled);
    assert_eq!(node.raft.role(), RoleKind::Follower);
}

/// A voter that has answered is not asked again, and a member that does not vote is not asked at all.
#[test]
fn a_candidate_asks_again_who_has_not_answered() {
    let mut restored = one_of_three(&[1], 0);
    restored.base.config = Config {
        learners: [(NodeId(4), Promote::Never)].into(),
        ..Config::of([1, 2, 3, 5, 6].map(NodeId))
    };
    let mut node = Node::new(restored);
    node.step(Input::Fired(Timer::Election));
    for from in [N2, N3] {
        let (next, granted) = (Term(2), true);
        node.hear(from, 1, Body::PreVoteResponse { next, granted });
    }
    node.hear(N2, 2, Body::VoteResponse { granted: false });
    node.take_sent();
    for (peer, asked) in [(2, false), (3, true), (4, false), (9, false)] {
        node.step(Input::Reachable(NodeId(peer)));
        let sent = node.take_sent();
        assert_eq!(!sent.is_empty(), asked, "n{peer}: {sent:?}");
    }
}

#[test]
fn whoever_follows_nobody_has_no_freshness_to_lose() {
    let mut node = Node::follower(&[1], 0);
    let effects = node.hear(N2, 2, heartbeat(1));
    assert!(effects.timers.contains(&(Timer::Fresh, Arm::Set)));
    let effects = node.hear(N3, 3, Body::VoteResponse { granted: false });
    assert_eq!(node.raft.leader(), None);
    assert!(effects.timers.contains(&(Timer::Fresh, Arm::Off)));
}

/// With leases on a vote binds no longer than the promise before it: one who hears nobody votes in each new term.
#[test]
fn who_has_promised_nothing_votes_in_every_term() {
    let mut node = Node::new(Restored {
        leases: true,
        ..one_of_three(&[1], 0)
    });
    node.step(Input::Fired(Timer::Fresh));
    for (term, from) in [(2, N2), (3, N3), (4, N2)] {
        let last = LogId::new(1, 1);
        let transfer = false;
        node.hear(from, term, Body::Vote { last, transfer });
        assert_eq!(node.take_sent(), [(from, Body::VoteResponse { granted: true })]);
    }
}

/// An Append may begin before the commit index. What is committed is in every leader's log, so it counts from there on (§3.6.3).
#[test]
fn an_append_over_the_commit_index_is_taken_from_there_on() {
    let append = |terms: &[u64]| Body::Append {
        prev: LogId::default(),
        entries: entries(terms),
        commit: Index::ZERO,
    };
    let mut node = Node::follower(&[1, 1, 1], 2);
    node.hear(N2, 3, append(&[1, 1, 2, 3]));
    assert_eq!(node.raft.last(), LogId::new(3, 4));
    let upto = Index(4);
    assert_eq!(node.take_sent(), [(N2, Body::Appended { upto })]);
    // No correct leader lacks what is committed.
    let mut node = Node::follower(&[1, 1, 1], 2);
    node.hear(N2, 3, append(&[1, 2, 2, 3]));
    assert_eq!((node.raft.last(), node.take_sent()), (LogId::new(1, 3), vec![]));
}

/// A leader that offers a snapshot of what is committed here is told how far that is.
#[test]
fn an_offer_of_what_is_there_is_answered() {
    let mut node = Node::follower(&[1, 1, 1], 2);
    node.hear(N2, 1, heartbeat(1));
    node.take_sent();
    for index in [1, 2] {
        let last = LogId::new(1, index);
        node.hear(N2, 1, Body::InstallSnapshot { last });
        let upto = Index(2);
        assert_eq!(node.take_sent(), [(N2, Body::Appended { upto })]);
    }
    let last = LogId::new(1, 3);
    node.hear(N2, 1, Body::InstallSnapshot { last });
    assert_eq!(node.take_sent(), [], "that one is of use");
}

/// What is staged counts if a correct leader of this term can have sent it, and if it covers more than is committed.
#[test]
fn a_staged_snapshot_that_cannot_be_right_changes_nothing() {
    let absurd = u64::MAX / 2;
    for (term, index, installed) in [
        (2, 9, true),
        (3, 9, false),
        (2, absurd - 1, true),
        (2, absurd, false),
        (2, 2, false),
        (1, 1, false),
    ] {
        let mut node = Node::follower(&[1, 1, 1], 2);
        node.hear(N2, 2, heartbeat(1));
        let meta = Box::new(SnapMeta {
            last: LogId::new(term, index),
            config: Config::of([N1, N2, N3]),
        });
        let (from, term) = (N2, Term(2));
        node.step(Input::SnapshotStaged { from, term, meta });
        let base = node.raft.log().base().last.index;
        assert_eq!(base == Index(index), installed, "{term} {index}");
        assert_eq!(node.raft.last().index, Index(if installed { index } else { 3 }));
    }
}

/// A read that may not be forwarded is refused with the leader's name; one that might be, and nobody leads, is refused as well.
#[test]
fn a_follower_forwards_only_what_it_may() {
    let mut node = Node::follower(&[1], 0);
    let read = |node: &mut Node, token, forward| node.step(Input::Read { token, forward }).reads;
    assert_eq!(read(&mut node, 1, true), [(1, Err(Refused::NotLeader(None)))]);
    node.hear(N2, 2, heartbeat(1));
    node.take_sent();
    assert_eq!(
        read(&mut node, 2, false),
        [(2, Err(Refused::NotLeader(Some(N2))))]
    );
    assert_eq!(node.take_sent(), []);
    assert_eq!(read(&mut node, 3, true), []);
    assert_eq!(node.take_sent(), [(N2, Body::ReadIndex { id: 100 })]);
}

/// Each batch has a number of its own, under which it is asked again; an answer to another says nothing about it.
#[test]
fn a_forwarded_batch_is_known_by_its_number() {
    let mut node = Node::follower(&[1], 0);
    node.hear(N2, 2, heartbeat(1));
    node.take_sent();
    let asked = |id| vec![(N2, Body::ReadIndex { id })];
    let answer = |id| Body::ReadIndexResponse { id, index: Index(7) };
    let (token, forward) = (1, true);
    let effects = node.step(Input::Read { token, forward });
    assert!(effects.timers.contains(&(Timer::Read, Arm::Set)));
    assert_eq!(node.take_sent(), asked(100));
    node.step(Input::Fired(Timer::Read));
    assert_eq!(node.take_sent(), asked(100), "again");
    let late = node.hear(N2, 2, answer(99));
    assert_eq!((late.reads, late.timers), (vec![], vec![]), "another's");
    let token = 2;
    node.step(Input::Read { token, forward });
    assert_eq!(node.take_sent(), [], "one batch at a time");
    let effects = node.hear(N2, 2, answer(100));
    assert_eq!(effects.reads, [(1, Ok(Index(7)))]);
    assert_eq!(node.take_sent(), asked(101));
    let effects = node.hear(N2, 2, answer(101));
    assert_eq!(effects.reads, [(2, Ok(Index(7)))]);
    assert!(effects.timers.contains(&(Timer::Read, Arm::Off)));
}

/// Whoever waits for the leader of a term that is over may ask the next one.
#[test]
fn reads_do_not_outlive_the_leader_they_were_asked_of() {
    let mut node = Node::follower(&[1], 0);
    node.hear(N2, 2, heartbeat(1));
    for token in [1, 2] {
        node.step(Input::Read { token, forward: true });
    }
    let effects = node.hear(N3, 3, heartbeat(1));
    let refused = Err(Refused::NotLeader(None));
    assert_eq!(effects.reads, [(1, refused), (2, refused)]);
    assert!(effects.timers.contains(&(Timer::Read, Arm::Off)));
}

/// The bound on what waits to be committed is reached by what fits exactly, and not passed, except by what comes when nothing waits.
#[test]
fn what_waits_to_be_committed_is_bounded_to_the_byte() {
    let limits = Limits {
        max_uncommitted_bytes: 100,
        ..Limits::default()
    };
    let mut node = Node::leader(&[1], limits);
    let refused = |node: &mut Node, size| {
        let token = 1;
        let refused = node.step(Input::Propose { token, size }).refused;
        assert!(refused.is_empty() || refused == [(1, Refused::Busy)]);
        !refused.is_empty()
    };
    // The entry of term 1, of ten bytes, and the no-op of seventeen wait.
    assert!(refused(&mut node, 74));
    assert!(!refused(&mut node, 73));
    assert!(refused(&mut node, 1));
    let upto = node.raft.last().index;
    node.hear(N2, 2, Body::Appended { upto });
    assert_eq!(node.raft.commit(), upto);
    assert!(!refused(&mut node, 1000), "a large one alone");
    assert!(refused(&mut node, 1));
}

/// A peer to which entries stream does not lack what it acknowledged: a conflict there is an old one.
#[test]
fn a_conflict_at_what_is_matched_is_an_old_one() {
    let mut node = Node::leader(&[1, 1], Limits::default());
    node.hear(N2, 2, Body::Appended { upto: Index(2) });
    let status = |node: &Node| node.raft.peers().find(|peer| peer.0 == N2).expect("a peer").1;
    let before = status(&node);
    assert_eq!((before.pace, before.matched), ("replicate", Index(2)));
    for prev in [1, 2] {
        let (prev, hint) = (Index(prev), LogId::new(1, 1));
        node.hear(N2, 2, Body::Conflict { prev, hint });
        assert_eq!(status(&node), before);
    }
    let (prev, hint) = (Index(3), LogId::new(1, 2));
    node.hear(N2, 2, Body::Conflict { prev, hint });
    assert_eq!(status(&node).pace, "probe");
}

/// §4.1: the one before is committed first, even if it moves no voter.
#[test]
fn a_change_waits_for_the_one_before() {
    let mut node = Node::leader(&[1], Limits::default());
    let add = |node: &mut Node, id: u64| {
        let changes = vec![Change::AddLearner {
            id: NodeId(id),
            promote: Promote::Never,
            about: Box::default(),
        }];
        let (token, force) = (id, false);
        node.step(Input::Reconfigure {
            token,
            changes,
            force,
        })
        .changed
    };
    let pending = |id| vec![(id, ChangeEnd::Refused(ChangeRefused::Pending))];
    assert_eq!(
        add(&mut node, 4),
        pending(4),
        "no entry of its own term is committed"
    );
    let upto = node.raft.last().index;
    node.hear(N2, 2, Body::Appended { upto });
    assert_eq!(add(&mut node, 5), []);
    assert!(!node.raft.config().is_joint());
    assert_eq!(add(&mut node, 6), pending(6));
    let upto = node.raft.last().index;
    let effects = node.hear(N2, 2, Body::Appended { upto });
    assert_eq!(effects.changed, [(5, ChangeEnd::Done(upto))]);
}

/// A leader that is in the middle of a change finishes it before it makes room for a better one.
#[test]
fn leadership_is_not_offered_in_the_middle_of_a_change() {
    let mut node = Node::leader(&[1], Limits::default());
    let upto = node.raft.last().index;
    node.hear(N2, 2, Body::Appended { upto });
    node.step(Input::Fired(Timer::Heartbeat));
    let better = Body::HeartbeatResponse {
        round: 1,
        verified: upto,
        matched: upto,
        priority: Priority::High,
    };
    node.hear(N2, 2, better);
    let (token, force) = (1, false);
    let changes = vec![Change::AddLearner {
        id: NodeId(4),
        promote: Promote::Never,
        about: Box::default(),
    }];
    node.step(Input::Reconfigure {
        token,
        changes,
        force,
    });
    let offered = |node: &mut Node| {
        node.step(Input::Fired(Timer::Quorum));
        let refused = node.step(Input::Propose { token: 2, size: 1 }).refused;
        refused == [(2, Refused::Transferring)]
    };
    assert!(!offered(&mut node), "the change is not committed");
    let upto = node.raft.last().index;
    node.hear(N2, 2, Body::Appended { upto });
    assert!(offered(&mut node));
}

/// Effects that a driver takes into what it took before do not come twice.
#[test]
fn effects_are_handed_out_once() {
    let mut raft = Raft::new(one_of_three(&[1], 0));
    let mut effects = raft.take_effects();
    raft.step(Input::Fired(Timer::Election));
    raft.take_effects_into(&mut effects);
    assert_eq!(effects.send.len(), 2, "two pre-votes");
    raft.take_effects_into(&mut effects);
    assert_eq!(effects, Effects::default());
    raft.take_effects_into(&mut effects);
    assert_eq!(effects, Effects::default(), "nor later");
}

/// What a follower asks twice is answered once, if the repetition is forgotten; whether before the own-term commit or after it.
#[test]
fn a_read_that_arrived_twice_can_be_answered_once() {
    let mut node = Node::leader(&[1], Limits::default());
    let ask = |id| Input::Message {
        from: N2,
        message: Message {
            term: Term(2),
            body: Body::ReadIndex { id },
        },
    };
    let twice = |node: &mut Node, id| {
        node.raft.step(ask(id));
        node.raft.step(ask(id));
        node.raft.forget_repetitions();
        node.drain();
    };
    twice(&mut node, 1);
    let upto = node.raft.last().index;
    node.hear(N2, 2, Body::Appended { upto });
    twice(&mut node, 2);
    node.take_sent();
    for round in 1..=2 {
        let (verified, matched, priority) = (upto, upto, Priority::Normal);
        let answer = Body::HeartbeatResponse {
            round,
            verified,
            matched,
            priority,
        };
        node.hear(N2, 2, answer);
    }
    let answers = node.take_sent().into_iter().filter_map(|(_, body)| match body {
        Body::ReadIndexResponse { id, .. } => Some(id),
        _ => None,
    });
    assert_eq!(answers.collect::<Vec<_>>(), [1, 2]);
}
