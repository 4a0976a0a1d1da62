//! Replication, commitment, and what the disk has.

use super::*;

/// LC #44; the paper's Figure 8, see figure8.rs. Here the shortest case: all have the entry, and it waits for the no-op.
#[test]
fn entries_of_an_earlier_term_are_committed_by_counting() {
    let mut c = Cluster::with_logs(&[&[1], &[1], &[1]], 1);
    c.settle(n(1));
    c.message(n(2), n(1), 1, Body::TimeoutNow);
    c.settle(n(1));
    c.message(n(2), n(1), 2, Body::VoteResponse { granted: true });
    assert_eq!(c.raft(n(1)).role(), RoleKind::Leader);
    c.message(n(2), n(1), 2, Body::Appended { upto: i(1) });
    c.message(n(3), n(1), 2, Body::Appended { upto: i(1) });
    assert_eq!(c.raft(n(1)).commit(), i(0));
}

/// OR #1802: commit without a quorum. The peers' order is not that of their matches.
#[test]
fn match_indexes_are_not_sorted_before_the_median_is_taken() {
    let mut c = Cluster::new(5);
    c.elect(n(1));
    for slow in [2, 4, 5] {
        c.node(n(slow)).slow_disk = true;
    }
    c.propose(n(1));
    c.run();
    assert_eq!(c.raft(n(1)).commit(), i(1), "n1 and n3 are two of five");
    c.persist(n(5), 9);
    c.run();
    assert_eq!(c.raft(n(1)).commit(), i(2));
}

/// OR cecb5de8: the acknowledgement of an earlier term says nothing about this leader's log.
#[test]
fn a_stale_acknowledgement_advances_match() {
    let mut c = Cluster::with_logs(&[&[1, 1, 1], &[1, 1, 1], &[1]], 1);
    c.isolate(n(2));
    c.isolate(n(3));
    c.heal();
    c.cut.extend([(n(3), n(1)), (n(2), n(1))]);
    c.settle(n(1));
    c.message(n(2), n(1), 1, Body::TimeoutNow);
    c.settle(n(1));
    c.message(n(2), n(1), 2, Body::VoteResponse { granted: true });
    c.message(n(3), n(1), 1, Body::Appended { upto: i(3) });
    c.message(
        n(3),
        n(1),
        1,
        Body::HeartbeatResponse {
            round: 0,
            verified: i(3),
            matched: i(3),
            priority: quorate_raft::Priority::Normal,
        },
    );
    assert!(c.raft(n(1)).peers().all(|(_, peer)| peer.matched == i(0)));
}

/// OR 9540c904: by a late message with fewer entries, where nothing that follows is known to be committed.
#[test]
fn truncating_after_prev_deletes_entries_that_match() {
    let mut c = Cluster::new(3);
    for entries in [&[1, 1, 1, 1][..], &[1, 1]] {
        c.message(
            n(1),
            n(2),
            1,
            Body::Append {
                prev: at(0, 0),
                entries: shapes(entries),
                commit: i(0),
            },
        );
        c.settle(n(2));
        assert_eq!(c.raft(n(2)).last(), at(1, 4));
    }
}

/// OR 71a290cd: what is compacted here is committed, and so matches.
#[test]
fn a_purged_prev_is_taken_for_a_conflict() {
    let mut c = Cluster::new(3);
    c.elect(n(1));
    for _ in 0..3 {
        c.propose(n(1));
    }
    c.run();
    c.compact(n(2), i(3));
    c.message(
        n(1),
        n(2),
        1,
        Body::Append {
            prev: at(1, 1),
            entries: shapes(&[1, 1, 1]),
            commit: i(4),
        },
    );
    c.settle(n(2));
    assert_eq!(c.bodies(2, 1), [Body::Appended { upto: i(4) }]);
}

/// OR #1795: entries went out as the first of the log, since the one before them could not be read. Here a snapshot goes in their place.
#[test]
fn entries_whose_prev_cannot_be_read_are_sent_as_the_first() {
    let mut c = Cluster::new(3);
    c.isolate(n(3));
    c.elect(n(1));
    for _ in 0..3 {
        c.propose(n(1));
    }
    c.run();
    c.compact(n(1), i(2));
    assert_eq!(c.terms(n(1)), [1, 1], "entries 3 and 4");
    c.heal();
    c.heartbeat(n(1));
    c.heartbeat(n(1));
    assert_eq!((c.nodes[&n(3)].restored, c.raft(n(3)).commit()), (1, i(4)));
}

/// The leader's commit index used without the bound of what is known to match.
#[test]
fn commit_advances_over_an_unverified_tail() {
    let mut c = Cluster::with_logs(&[&[1, 3], &[1, 2, 2], &[1, 3]], 0);
    c.isolate(n(2));
    c.elect(n(1));
    for body in [
        Body::Heartbeat {
            commit: i(3),
            round: 1,
        },
        Body::Commit { index: i(3) },
    ] {
        c.message(n(1), n(2), 4, body);
        assert_eq!(c.raft(n(2)).commit(), i(0));
    }
    c.message(
        n(1),
        n(2),
        4,
        Body::Append {
            prev: at(1, 1),
            entries: vec![],
            commit: i(3),
        },
    );
    assert_eq!(c.raft(n(2)).commit(), i(1));
}

/// ER #31: and so "matched" a prev of term 0.
#[test]
fn the_term_of_a_compacted_entry_reads_as_zero() {
    let mut c = Cluster::new(3);
    c.elect(n(1));
    c.propose(n(1));
    c.propose(n(1));
    c.run();
    c.compact(n(2), i(2));
    let log = c.raft(n(2)).log();
    assert_eq!(
        (log.term_at(i(1)), log.term_at(i(2)), log.term_at(i(4))),
        (None, Some(Term(1)), None)
    );
    assert!(!log.contains(at(0, 1)));
}

/// ER #149, RR #555: by a late refusal.
#[test]
fn next_index_falls_to_match_index() {
    let mut c = Cluster::new(3);
    c.elect(n(1));
    c.propose(n(1));
    c.run();
    c.message(
        n(2),
        n(1),
        1,
        Body::Conflict {
            prev: i(2),
            hint: at(0, 0),
        },
    );
    c.message(
        n(2),
        n(1),
        1,
        Body::Conflict {
            prev: i(1),
            hint: at(0, 0),
        },
    );
    c.step(
        n(1),
        Input::NotSent {
            to: n(2),
            first: i(1),
        },
    );
    let peer = c.raft(n(1)).peers().next().unwrap().1;
    assert_eq!((peer.matched, peer.next), (i(2), i(3)));
}

/// ER, asynchronous append: an entry is written, overwritten, and comes back (A, B, A). The completion of the first write must not count
/// for the third: the disk may hold the second.
#[test]
fn the_acknowledgement_of_an_overwritten_entry_counts_for_its_successor() {
    let mut c = Cluster::new(3);
    c.node(n(2)).slow_disk = true;
    for (leader, term, entry) in [(1, 1, 1), (3, 2, 2), (1, 3, 1)] {
        c.message(
            n(leader),
            n(2),
            term,
            Body::Append {
                prev: at(0, 0),
                entries: shapes(&[entry]),
                commit: i(0),
            },
        );
        c.drain(n(2));
    }
    assert_eq!(c.nodes[&n(2)].writes.len(), 3);
    c.persist(n(2), 1);
    assert_eq!(c.raft(n(2)).durable(), i(0));
    c.persist(n(2), 1);
    assert_eq!(c.raft(n(2)).durable(), i(0));
    c.drain(n(2));
    assert!(c.network.is_empty(), "nothing is acknowledged: {:?}", c.network);
    c.persist(n(2), 1);
    c.drain(n(2));
    assert_eq!(
        (c.raft(n(2)).durable(), c.bodies(2, 1)),
        (i(1), vec![Body::Appended { upto: i(1) }])
    );
}

/// ER a370b6f, #54: proposals stalled for ever. Over a change of leaders nothing is left behind.
#[test]
fn the_quota_of_uncommitted_bytes_leaks() {
    let limits = Limits {
        max_uncommitted_bytes: 40,
        ..Limits::default()
    };
    let mut c = Cluster::of(Config::of([1, 2, 3].map(n)), limits);
    for round in 0..6 {
        let (leader, other) = if round % 2 == 0 {
            (n(1), n(2))
        } else {
            (n(2), n(1))
        };
        c.elect(leader);
        c.isolate(leader);
        let tokens: Vec<_> = (0..6).map(|_| c.propose(leader)).collect();
        c.settle(leader);
        let refused = tokens
            .iter()
            .filter(|token| c.nodes[&leader].refused.contains_key(token))
            .count();
        assert_eq!(refused, 2, "four of ten bytes each fit, in round {round}");
        c.network.clear();
        c.heal();
        c.elect(other);
    }
}

/// ER 8ecce32: entries skipped, or named twice. The harness's state machine insists on each, once, in order.
#[test]
fn committed_entries_are_skipped_while_the_disk_lags() {
    let mut c = Cluster::new(3);
    c.elect(n(1));
    c.node(n(1)).slow_disk = true;
    for _ in 0..10 {
        c.propose(n(1));
        c.run();
    }
    assert_eq!((c.raft(n(1)).commit(), c.raft(n(1)).applied()), (i(11), i(1)));
    for persisted in 2..=11 {
        c.persist(n(1), 1);
        c.settle(n(1));
        assert_eq!(c.raft(n(1)).applied(), i(persisted));
    }
}

/// etcd #14370.
#[test]
fn a_single_voter_acknowledges_before_its_own_fsync() {
    let mut c = Cluster::new(1);
    c.run();
    c.node(n(1)).slow_disk = true;
    c.propose(n(1));
    c.run();
    assert_eq!((c.raft(n(1)).commit(), c.raft(n(1)).applied()), (i(1), i(1)));
    c.persist(n(1), 1);
    c.run();
    assert_eq!(c.raft(n(1)).applied(), i(2));
}

/// OR a9f696a9.
#[test]
fn the_leader_counts_its_own_unflushed_noop() {
    let mut c = Cluster::new(3);
    c.isolate(n(3));
    c.message(n(2), n(1), 0, Body::TimeoutNow);
    c.settle(n(1));
    c.node(n(1)).slow_disk = true;
    c.run();
    assert_eq!(c.raft(n(1)).role(), RoleKind::Leader);
    let n2 = c.raft(n(1)).peers().next().unwrap().1;
    assert_eq!(
        (n2.matched, c.raft(n(1)).commit()),
        (i(1), i(0)),
        "n2 has it; n1 does not yet"
    );
    c.persist(n(1), 9);
    assert_eq!(c.raft(n(1)).commit(), i(1));
}

/// OR #1960: a later completion covers the earlier ones, which may then come late or not at all.
#[test]
fn disk_completions_out_of_order_strand_progress() {
    let mut c = Cluster::new(3);
    c.elect(n(1));
    c.node(n(2)).slow_disk = true;
    c.propose(n(1));
    c.drain(n(1));
    c.run();
    c.propose(n(1));
    c.run();
    let ids: Vec<_> = c.nodes[&n(2)]
        .writes
        .iter()
        .map(|filled| filled.write.id)
        .collect();
    assert_eq!(ids.len(), 2);
    c.persist(n(2), 2); // Tells of the second only.
    c.settle(n(2));
    assert_eq!(
        c.bodies(2, 1),
        [Body::Appended { upto: i(2) }, Body::Appended { upto: i(3) }]
    );
    c.step(n(2), Input::Persisted(ids[0]));
    assert_eq!(c.raft(n(2)).durable(), i(3));
}
