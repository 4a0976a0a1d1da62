//! Ways in which a node could stall, spin or panic that the paper does not speak of: slow disks, slow links, terms that differ,
//! messages that no correct member sends.

mod common;

use common::explore::Chance;
use common::{Cluster, at, i, n};
use quorate_base::{Index, LogId, Term};
use quorate_raft::{
    Body, Config, EntryShape, Input, Limits, Priority, Promote, RoleKind, SnapMeta, Timer, invariants,
};

/// A driver takes the effects only when it is told that there may be some.
#[test]
fn nothing_that_follows_from_an_input_is_hidden_from_the_driver() {
    let mut c = Cluster::new(3);
    c.restart(n(1));
    let mut raft = c.raft(n(1)).clone();
    assert!(raft.has_effects(), "timers to be set");
    raft.take_effects();
    assert!(!raft.has_effects());
    raft.step(Input::Applied(Index::ZERO));
    raft.step(Input::Compacted(Index::ZERO));
    assert!(!raft.has_effects(), "these are only noted");
    raft.step(Input::Fired(Timer::Election));
    assert!(raft.has_effects());
    raft.step(Input::Applied(Index::ZERO));
    assert!(raft.has_effects(), "what was there before is there still");
    assert!(!raft.take_effects().send.is_empty() && !raft.has_effects());
}

/// A pre-vote changes nothing at the voter, so a grant comes with the voter's own term, which may be lower than the asker's.
#[test]
fn a_pre_vote_granted_in_a_lower_term_counts() {
    let mut c = Cluster::with_logs(&[&[1, 2], &[1], &[]], 0);
    assert_eq!((c.raft(n(1)).term(), c.raft(n(2)).term()), (Term(2), Term(1)));
    c.isolate(n(3));
    c.fire(n(1), Timer::Election);
    c.run();
    assert_eq!(
        c.raft(n(1)).role(),
        RoleKind::Leader,
        "n2 would vote for n1, and n1 knows"
    );
}

/// The same where the voter will never campaign, and so never learns the term by itself: it is a learner by its own, older log.
#[test]
fn a_voter_that_does_not_know_it_is_one_cannot_be_missed() {
    let old = Config {
        learners: [(n(2), Promote::Never)].into(),
        ..Config::of([n(1)])
    };
    let mut c = Cluster::default();
    c.add(n(1), &Config::of([n(1), n(2)]), &[1], 3);
    c.add(n(2), &old, &[1], 1);
    c.fire(n(1), Timer::Election);
    c.run();
    assert_eq!(c.raft(n(1)).role(), RoleKind::Leader);
}

/// Each new campaign has to be written down first. Were it given up for the next one before it is, a disk that takes longer than
/// an election timeout would never see the end of it.
#[test]
fn a_candidate_waits_for_its_disk() {
    for voters in [1, 3] {
        let mut c = Cluster::new(voters);
        c.node(n(1)).slow_disk = true;
        c.fire(n(1), Timer::Election);
        for _ in 0..5 {
            c.run();
            c.fire(n(1), Timer::Election);
        }
        assert_eq!(c.raft(n(1)).term(), Term(1), "one campaign, still being written");
        c.persist(n(1), 1);
        c.run();
        assert_eq!(c.raft(n(1)).role(), RoleKind::Leader);
    }
}

/// While an install is on its way to the disk, the disk still has the committed prefix of the log before, and no more.
#[test]
fn an_install_under_way_leaves_the_committed_prefix_durable() {
    let mut c = Cluster::with_logs(&[&[1, 1], &[1, 1, 1], &[1, 1]], 1);
    let raft = c.node(n(2)).raft.as_mut().unwrap();
    let say = |body| Input::Message {
        from: n(1),
        message: quorate_raft::Message { term: Term(2), body },
    };
    raft.step(say(Body::Append {
        prev: at(1, 2),
        entries: vec![],
        commit: i(2),
    }));
    let applying = raft.take_effects().apply.unwrap();
    assert_eq!((applying.last.index, raft.durable()), (i(2), i(3)));
    let meta = SnapMeta {
        last: at(2, 9),
        config: Config::of([n(1), n(2)]),
    };
    raft.step(Input::SnapshotStaged {
        from: n(1),
        term: Term(2),
        meta: Box::new(meta),
    });
    invariants::check(raft);
    assert_eq!(
        raft.durable(),
        i(2),
        "entry 3 may conflict with what the snapshot covers"
    );
}

/// A batch of forwarded reads keeps its number when it is asked again, so the answer to the first asking is good. With a new
/// number each time, a link slower than the timer would never get a read through.
#[test]
fn reads_over_a_link_slower_than_the_timer_are_answered() {
    let mut c = Cluster::new(3);
    c.elect(n(1));
    c.read(n(2), 7);
    c.drain(n(2));
    c.fire(n(2), Timer::Read);
    c.drain(n(2));
    assert_eq!(c.bodies(2, 1).len(), 2, "asked twice");
    // The first asking arrives; its answer comes after the timer.
    let first = c.network.pop_front().unwrap();
    c.lose_where(|parcel| parcel.from == n(2));
    c.deliver(first);
    c.run();
    assert_eq!(c.node(n(2)).reads.get(&7), Some(&Ok(i(1))));
}

/// The follower's last entry lies where the leader's log starts after compaction, and differs from what was there: nothing that the
/// leader still has can match, so it must send a snapshot instead of trying the same place for ever.
#[test]
fn a_conflict_at_the_very_base_of_the_leaders_log_calls_for_a_snapshot() {
    let mut c = Cluster::with_logs(&[&[2, 2], &[2, 2], &[1, 1]], 2);
    c.isolate(n(3));
    c.elect(n(1));
    c.run();
    c.compact(n(1), i(2));
    c.heal();
    c.run();
    for _ in 0..3 {
        c.heartbeat(n(1));
    }
    assert_eq!((c.nodes[&n(3)].restored, c.raft(n(3)).commit()), (1, i(3)));
}

/// A follower whose disk was emptied behind its back is a breach of the contract; it must not set off a storm of messages.
#[test]
fn a_follower_that_lost_its_disk_is_asked_no_more_than_once_a_heartbeat() {
    let mut c = Cluster::new(3);
    c.elect(n(1));
    c.propose(n(1));
    c.run();
    c.crash(n(3), 0);
    let config = c.raft(n(1)).config().clone();
    c.nodes.remove(&n(3));
    c.add(n(3), &config, &[], 1);
    c.propose(n(1));
    c.run(); // Fails if it never comes to rest.
    c.heartbeat(n(1));
    assert_eq!(c.raft(n(1)).role(), RoleKind::Leader);
    assert_eq!(
        c.raft(n(3)).commit(),
        i(0),
        "and what it no longer holds it does not commit"
    );
}

/// The committed entries in an Append are not taken again, but what follows them must still follow them.
#[test]
fn an_append_whose_terms_fall_below_what_is_committed_is_ignored() {
    let mut c = Cluster::with_logs(&[&[2, 2], &[2, 2]], 2);
    c.elect(n(1));
    let shape = |term| EntryShape {
        term: Term(term),
        size: 1,
        config: None,
    };
    let entries = vec![shape(1), shape(1), shape(1), shape(1)];
    let raft = c.node(n(2)).raft.as_mut().unwrap();
    let before = raft.log().clone();
    let message = quorate_raft::Message {
        term: Term(3),
        body: Body::Append {
            prev: at(0, 0),
            entries,
            commit: i(0),
        },
    };
    raft.step(Input::Message { from: n(1), message });
    assert_eq!(*raft.log(), before);
}

/// Any message of anyone, at any time: numbers from a small range, so that they often mean something, and from the ends.
#[test]
fn no_message_makes_a_node_panic() {
    for seed in 0..3000 {
        let chance = &mut Chance(seed);
        let mut c = Cluster::with_logs(&[&[1, 1, 2], &[1, 1], &[1, 3]], 0);
        c.limits = Limits {
            max_append_bytes: 20,
            ..Limits::default()
        };
        if chance.one_in(2) {
            c.elect(n(3));
        }
        let mut raft = c.node(chance.pick(&[n(3), n(2)])).raft.take().unwrap();
        for _ in 0..60 {
            let from = n(chance.below(5));
            let message = any_message(chance);
            raft.step(Input::Message {
                from,
                message: message.clone(),
            });
            if let (Body::InstallSnapshot { last }, true) = (&message.body, chance.one_in(2)) {
                let meta = SnapMeta {
                    last: *last,
                    config: any_config(chance),
                };
                raft.step(Input::SnapshotStaged {
                    from,
                    term: message.term,
                    meta: Box::new(meta),
                });
            }
            match chance.below(10) {
                0 => raft.step(Input::Fired(Timer::Election)),
                1 => raft.step(Input::Fired(Timer::Fresh)),
                2 => raft.step(Input::Fired(Timer::Heartbeat)),
                3 => raft.step(Input::Propose { token: 1, size: 7 }),
                4 => raft.step(Input::Read {
                    token: 1,
                    forward: true,
                }),
                5..8 => {
                    let effects = raft.take_effects();
                    if let Some(write) = effects.write {
                        raft.step(Input::Persisted(write.id));
                    }
                    if let Some(range) = effects.apply {
                        raft.step(Input::Applied(range.last.index));
                    }
                    if let Some(meta) = effects.restore {
                        raft.step(Input::Applied(meta.last.index));
                    }
                }
                _ => {}
            }
        }
    }
}

fn any_number(chance: &mut Chance) -> u64 {
    match chance.below(30) {
        0 => u64::MAX,
        1 => u64::MAX - chance.below(3),
        2 => u64::MAX / 2 - chance.below(3),
        _ => chance.below(6),
    }
}

fn any_id(chance: &mut Chance) -> LogId {
    LogId {
        term: Term(any_number(chance)),
        index: Index(any_number(chance)),
    }
}

fn any_config(chance: &mut Chance) -> Config {
    let voters = (0..5).filter(|_| chance.one_in(2)).map(n).collect();
    let outgoing = if chance.one_in(4) {
        [n(2), n(4)].into()
    } else {
        [].into()
    };
    Config {
        voters,
        outgoing,
        ..Config::default()
    }
}

fn any_message(chance: &mut Chance) -> quorate_raft::Message {
    let index = Index(any_number(chance));
    let term = Term(any_number(chance));
    let round = any_number(chance);
    let granted = chance.one_in(2);
    let body = match chance.below(17) {
        0 => Body::PreVote {
            next: term,
            last: any_id(chance),
        },
        1 => Body::PreVoteResponse { next: term, granted },
        2 => Body::Vote {
            last: any_id(chance),
            transfer: granted,
        },
        3 => Body::VoteResponse { granted },
        4..7 => {
            let prev = any_id(chance);
            let entries = (0..chance.below(4)).map(|_| {
                let config = chance.one_in(4).then(|| Box::new(any_config(chance)));
                EntryShape {
                    term: Term(any_number(chance)),
                    size: any_number(chance) as u32,
                    config,
                }
            });
            let mut entries: Vec<_> = entries.collect();
            if chance.one_in(2) {
                entries.sort_by_key(|entry| entry.term);
            }
            Body::Append {
                prev,
                entries,
                commit: index,
            }
        }
        7 => Body::Appended { upto: index },
        8 => Body::Conflict {
            prev: index,
            hint: any_id(chance),
        },
        9 => Body::Heartbeat { commit: index, round },
        10 => Body::HeartbeatResponse {
            round,
            verified: index,
            matched: Index(any_number(chance)),
            priority: [Priority::Low, Priority::Normal, Priority::High][chance.below(3) as usize],
        },
        11 => Body::Commit { index },
        12 => Body::InstallSnapshot { last: any_id(chance) },
        13 => Body::TimeoutNow,
        14 => Body::ReadIndex { id: round },
        15 => Body::ReadIndexResponse { id: round, index },
        _ => Body::NewerTerm,
    };
    quorate_raft::Message {
        term: Term(any_number(chance)),
        body,
    }
}

/// One link is cut, both ways: whoever lost the leader reaches the others, who have not. No term moves, the leader stays.
#[test]
fn a_follower_cut_from_the_leader_alone_disturbs_nobody() {
    let mut c = Cluster::new(5);
    c.elect(n(1));
    c.cut.extend([(n(1), n(5)), (n(5), n(1))]);
    for _ in 0..5 {
        c.heartbeat(n(1));
        c.fire(n(5), Timer::Fresh);
        c.fire(n(5), Timer::Election);
        c.run();
        c.fire(n(1), Timer::Quorum);
    }
    assert!(c.ids().into_iter().all(|id| c.raft(id).term() == Term(1)));
    assert_eq!(c.raft(n(1)).role(), RoleKind::Leader);
}

/// A leader that is heard and hears nobody keeps the others from voting only until it steps down itself. Afterwards its own attempts
/// are heard by all, and change nothing.
#[test]
fn a_leader_that_hears_nobody_steps_down_and_is_replaced() {
    let mut c = Cluster::new(3);
    c.elect(n(1));
    c.fire(n(1), Timer::Quorum); // It has heard of all during its election.
    c.cut.extend([(n(2), n(1)), (n(3), n(1))]);
    c.heartbeat(n(1));
    c.fire(n(2), Timer::Election);
    c.run();
    assert_eq!(c.raft(n(2)).role(), RoleKind::PreCandidate, "n3 still hears n1");
    c.fire(n(1), Timer::Quorum);
    assert_eq!(c.raft(n(1)).role(), RoleKind::Follower);
    c.elect(n(2));
    let term = c.raft(n(2)).term();
    for _ in 0..5 {
        c.fire(n(1), Timer::Election);
        c.run();
        c.heartbeat(n(2));
    }
    assert_eq!(
        (c.raft(n(2)).role(), c.raft(n(2)).term()),
        (RoleKind::Leader, term)
    );
}

/// The same for a follower that hears nobody: it asks and asks, and nobody minds.
#[test]
fn a_follower_that_hears_nobody_disturbs_nobody() {
    let mut c = Cluster::new(3);
    c.elect(n(1));
    c.cut.extend([(n(1), n(3)), (n(2), n(3))]);
    for _ in 0..5 {
        c.fire(n(3), Timer::Election);
        c.propose(n(1));
        c.run();
    }
    assert_eq!(
        (c.raft(n(1)).term(), c.raft(n(3)).term(), c.raft(n(2)).commit()),
        (Term(1), Term(1), i(6))
    );
}

/// What the driver could not send is sent again from there on, but not before the peer gives a sign of life: the link may be down.
#[test]
fn what_was_not_sent_is_sent_again_after_a_sign_of_life() {
    let mut c = Cluster::new(3);
    c.elect(n(1));
    c.propose(n(1));
    c.propose(n(1));
    c.drain(n(1));
    c.network.retain(|parcel| parcel.to != n(3));
    c.step(
        n(1),
        Input::NotSent {
            to: n(3),
            first: i(2),
        },
    );
    let peer = |c: &Cluster| c.raft(n(1)).peers().find(|peer| peer.0 == n(3)).unwrap().1;
    assert_eq!((peer(&c).next, peer(&c).pace), (i(2), "probe"));
    c.propose(n(1));
    c.drain(n(1));
    assert_eq!(c.bodies(1, 3), [], "the link may be down");
    c.heartbeat(n(1));
    assert_eq!((peer(&c).matched, peer(&c).pace), (i(4), "replicate"));
}

/// A peer that says it has all that the snapshot covers needs it no more, whatever became of the transfer.
#[test]
fn an_acknowledgement_ends_the_wait_for_a_snapshot() {
    let mut c = Cluster::new(3);
    c.isolate(n(3));
    c.elect(n(1));
    c.propose(n(1));
    c.run();
    c.compact(n(1), i(2));
    c.heal();
    c.fire(n(1), Timer::Heartbeat);
    let pace = |c: &Cluster| c.raft(n(1)).peers().find(|peer| peer.0 == n(3)).unwrap().1.pace;
    while pace(&c) != "snapshot" {
        c.settle(n(1));
        let parcel = c.network.pop_front().expect("n3 is found to need a snapshot");
        let to = parcel.to;
        c.deliver(parcel);
        c.settle(to);
    }
    c.message(n(3), n(1), 1, Body::Appended { upto: i(1) });
    assert_eq!(pace(&c), "snapshot", "not enough");
    c.message(n(3), n(1), 1, Body::Appended { upto: i(2) });
    assert_ne!(pace(&c), "snapshot");
}

/// A peer that does not answer gets so many Appends, or so many bytes of them, and no more; its answers make room for the rest.
#[test]
fn what_is_in_flight_is_bounded() {
    let numbers = Limits {
        max_inflight: 2,
        ..Limits::default()
    };
    let bytes = Limits {
        max_inflight_bytes: 20,
        ..Limits::default()
    };
    for limits in [numbers, bytes] {
        let mut c = Cluster::of(Config::of([1, 2, 3].map(n)), limits);
        c.elect(n(1));
        for _ in 0..5 {
            c.propose(n(1));
            c.drain(n(1));
        }
        assert_eq!(c.bodies(1, 2).len(), 2);
        c.run();
        assert_eq!(c.raft(n(2)).commit(), i(6));
    }
}

/// Only who could lead is to be told to campaign; a learner that is told all the same does not.
#[test]
fn a_learner_does_not_campaign_when_told_to() {
    let config = Config {
        learners: [(n(3), Promote::Never)].into(),
        ..Config::of([1, 2].map(n))
    };
    let mut c = Cluster::of(config, Limits::default());
    c.elect(n(1));
    c.message(n(1), n(3), 1, Body::TimeoutNow);
    assert_eq!(
        (c.raft(n(3)).role(), c.raft(n(3)).term()),
        (RoleKind::Follower, Term(1))
    );
}
