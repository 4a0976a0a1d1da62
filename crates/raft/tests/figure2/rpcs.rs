//! The left and upper half of the figure: what servers remember, and how they answer AppendEntries and RequestVote.

use quorate_base::Term;
use quorate_raft::Body;

use crate::common::{Cluster, at, i, n};
use crate::{answer, shapes, vote};

/// "Persistent state on all servers: updated on stable storage before responding to RPCs": currentTerm and votedFor.
#[test]
fn state_current_term_and_voted_for_are_stable_before_a_response() {
    let mut c = Cluster::new(3);
    c.node(n(2)).slow_disk = true;
    assert_eq!(
        answer(&mut c, 5, vote(at(0, 0))),
        [],
        "the vote is on its way to the disk"
    );
    c.persist(n(2), 1);
    c.settle(n(2));
    assert_eq!(c.bodies(2, 1), [Body::VoteResponse { granted: true }]);
    c.restart(n(2));
    assert_eq!((c.raft(n(2)).term(), c.raft(n(2)).vote()), (Term(5), Some(n(1))));
}

/// The same for log[].
#[test]
fn state_log_is_stable_before_a_response() {
    let mut c = Cluster::with_logs(&[&[1, 1], &[]], 1);
    c.node(n(2)).slow_disk = true;
    let append = Body::Append {
        prev: at(0, 0),
        entries: shapes(&[1, 1]),
        commit: i(0),
    };
    assert_eq!(answer(&mut c, 1, append), []);
    c.persist(n(2), 1);
    c.settle(n(2));
    assert_eq!(c.bodies(2, 1), [Body::Appended { upto: i(2) }]);
    c.restart(n(2));
    assert_eq!(c.terms(n(2)), [1, 1]);
}

/// "Volatile state on all servers: commitIndex and lastApplied increase monotonically": a late message does not turn them back.
#[test]
fn state_commit_index_and_last_applied_increase_monotonically() {
    let mut c = Cluster::new(3);
    c.elect(n(1));
    c.propose(n(1));
    c.run();
    assert_eq!((c.raft(n(2)).commit(), c.raft(n(2)).applied()), (i(2), i(2)));
    answer(
        &mut c,
        1,
        Body::Append {
            prev: at(0, 0),
            entries: shapes(&[1]),
            commit: i(0),
        },
    );
    answer(
        &mut c,
        1,
        Body::Heartbeat {
            commit: i(1),
            round: 0,
        },
    );
    assert_eq!((c.raft(n(2)).commit(), c.raft(n(2)).applied()), (i(2), i(2)));
}

/// "Volatile state on leaders: nextIndex initialized to leader last log index + 1, matchIndex to 0."
#[test]
fn state_next_index_and_match_index_start_anew_with_each_leader() {
    let mut c = Cluster::with_logs(&[&[1, 1], &[1, 1], &[1, 1]], 1);
    c.isolate(n(3));
    c.elect(n(1));
    let peers: Vec<_> = c
        .raft(n(1))
        .peers()
        .map(|(id, peer)| (id.0, peer.next, peer.matched))
        .collect();
    assert_eq!(
        peers[1],
        (3, i(3), i(0)),
        "n3 was told of entry 3, and has not answered"
    );
}

/// AppendEntries 1: "Reply false if term < currentTerm."
#[test]
fn append_entries_1_replies_false_to_an_old_term() {
    let mut c = Cluster::with_logs(&[&[1], &[1]], 3);
    let append = Body::Append {
        prev: at(1, 1),
        entries: shapes(&[2]),
        commit: i(1),
    };
    assert_eq!(
        answer(&mut c, 2, append),
        [Body::NewerTerm],
        "any lower-term leader hears of the newer term"
    );
    assert_eq!((c.terms(n(2)), c.raft(n(2)).commit()), (vec![1], i(0)));
}

/// AppendEntries 2: "Reply false if log doesn't contain an entry at prevLogIndex whose term matches prevLogTerm." The answer says
/// where the logs may agree (§3.5: "the protocol can be optimized").
#[test]
fn append_entries_2_replies_false_where_prev_does_not_match() {
    let mut c = Cluster::with_logs(&[&[1, 3, 3], &[1, 2]], 3);
    let append = |prev| Body::Append {
        prev,
        entries: shapes(&[3]),
        commit: i(0),
    };
    let missing = answer(&mut c, 3, append(at(3, 3)));
    assert_eq!(
        missing,
        [Body::Conflict {
            prev: i(3),
            hint: at(2, 2)
        }]
    );
    let other = answer(&mut c, 3, append(at(3, 2)));
    assert_eq!(
        other,
        [Body::Conflict {
            prev: i(2),
            hint: at(2, 2)
        }]
    );
    let skips = answer(&mut c, 3, append(at(1, 2)));
    assert_eq!(
        skips,
        [Body::Conflict {
            prev: i(2),
            hint: at(1, 1)
        }]
    );
    assert_eq!(c.terms(n(2)), [1, 2], "nothing was touched");
}

/// AppendEntries 3: "If an existing entry conflicts with a new one, delete the existing entry and all that follow it."
#[test]
fn append_entries_3_deletes_a_conflicting_entry_and_all_that_follow() {
    let mut c = Cluster::with_logs(&[&[1, 3], &[1, 2, 2, 2]], 3);
    let answers = answer(
        &mut c,
        3,
        Body::Append {
            prev: at(1, 1),
            entries: shapes(&[3]),
            commit: i(0),
        },
    );
    assert_eq!(answers, [Body::Appended { upto: i(2) }]);
    assert_eq!(c.terms(n(2)), [1, 3]);
    assert_eq!(c.nodes[&n(2)].image.last_index(), i(2), "on disk too");
}

/// Only then: entries that do not conflict stay, and so does what follows them, for the message may be an old one.
#[test]
fn append_entries_3_deletes_nothing_without_a_conflict() {
    let mut c = Cluster::with_logs(&[&[1, 1, 1], &[1, 1, 1]], 1);
    let answers = answer(
        &mut c,
        1,
        Body::Append {
            prev: at(0, 0),
            entries: shapes(&[1]),
            commit: i(0),
        },
    );
    assert_eq!(
        answers,
        [Body::Appended { upto: i(1) }],
        "no more than this message proves"
    );
    assert_eq!(c.terms(n(2)), [1, 1, 1]);
}

/// AppendEntries 4: "Append any new entries not already in the log."
#[test]
fn append_entries_4_appends_what_is_not_yet_in_the_log() {
    let mut c = Cluster::with_logs(&[&[1, 1, 2], &[1, 1]], 2);
    let append = Body::Append {
        prev: at(1, 1),
        entries: shapes(&[1, 2]),
        commit: i(0),
    };
    assert_eq!(answer(&mut c, 2, append.clone()), [Body::Appended { upto: i(3) }]);
    assert_eq!(
        answer(&mut c, 2, append),
        [Body::Appended { upto: i(3) }],
        "twice is once"
    );
    assert_eq!(c.terms(n(2)), [1, 1, 2]);
}

/// AppendEntries 5: "If leaderCommit > commitIndex, set commitIndex = min(leaderCommit, index of last new entry)." What lies behind
/// the last new entry may not be the leader's.
#[test]
fn append_entries_5_commits_no_further_than_the_last_new_entry() {
    let mut c = Cluster::with_logs(&[&[1, 1], &[1, 1], &[1, 1, 1, 1]], 1);
    c.isolate(n(3));
    c.cut.remove(&(n(3), n(1)));
    c.elect(n(1)); // In term 2, with its no-op at 3.
    assert_eq!(c.raft(n(1)).commit(), i(3));
    c.network.clear();
    c.message(
        n(1),
        n(3),
        2,
        Body::Append {
            prev: at(1, 1),
            entries: shapes(&[1]),
            commit: i(3),
        },
    );
    assert_eq!(c.raft(n(3)).commit(), i(2), "its entry 3 is another");
    c.message(
        n(1),
        n(3),
        2,
        Body::Heartbeat {
            commit: i(3),
            round: 1,
        },
    );
    c.message(n(1), n(3), 2, Body::Commit { index: i(3) });
    assert_eq!(
        c.raft(n(3)).commit(),
        i(2),
        "nor does any other message get past it"
    );
}

/// RequestVote 1: "Reply false if term < currentTerm."
#[test]
fn request_vote_1_replies_false_to_an_old_term() {
    let mut c = Cluster::with_logs(&[&[], &[]], 3);
    assert_eq!(
        answer(&mut c, 2, vote(at(2, 9))),
        [Body::VoteResponse { granted: false }]
    );
    assert_eq!(c.raft(n(2)).vote(), None);
}

/// RequestVote 2: "If votedFor is null or candidateId, and candidate's log is at least as up-to-date as receiver's log, grant vote":
/// one vote a term.
#[test]
fn request_vote_2_grants_one_vote_a_term() {
    let mut c = Cluster::new(3);
    assert_eq!(
        answer(&mut c, 1, vote(at(0, 0))),
        [Body::VoteResponse { granted: true }]
    );
    assert_eq!(
        answer(&mut c, 1, vote(at(0, 0))),
        [Body::VoteResponse { granted: true }],
        "the same again"
    );
    c.message(n(3), n(2), 1, vote(at(0, 0)));
    c.settle(n(2));
    assert_eq!(c.bodies(2, 3), [Body::VoteResponse { granted: false }]);
    c.restart(n(2));
    c.network.clear();
    c.message(n(3), n(2), 1, vote(at(0, 0)));
    c.settle(n(2));
    assert_eq!(
        c.bodies(2, 3),
        [Body::VoteResponse { granted: false }],
        "nor after a restart"
    );
}

/// RequestVote 2, the log's part (§3.6.1): the later last term is more up to date; in one term the longer log is.
#[test]
fn request_vote_2_grants_only_to_a_log_at_least_as_up_to_date() {
    for (last, granted) in [
        (at(3, 1), true),
        (at(2, 2), true),
        (at(2, 3), true),
        (at(2, 1), false),
        (at(1, 9), false),
    ] {
        let mut c = Cluster::with_logs(&[&[], &[1, 2]], 4);
        assert_eq!(
            answer(&mut c, 5, vote(last)),
            [Body::VoteResponse { granted }],
            "log ends {last}"
        );
        assert_eq!(c.raft(n(2)).term(), Term(5), "the term counts all the same");
    }
}
