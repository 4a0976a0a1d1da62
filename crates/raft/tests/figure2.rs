//! Figure 2 of the Raft paper (Figure 3.1 of the thesis), rule by rule: one test for each, named after it. Where the core does
//! better than the figure asks, the test says how.

mod common;

use common::{Cluster, at, i, n};
use quorate_base::Term;
use quorate_raft::{Body, EntryShape, RoleKind, Timer};

fn shapes(terms: &[u64]) -> Vec<EntryShape> {
    let shape = |term: &u64| EntryShape {
        term: Term(*term),
        size: 10,
        config: None,
    };
    terms.iter().map(shape).collect()
}

/// Sends n2 a message as n1, lets it work, and returns what it says to n1.
fn answer(c: &mut Cluster, term: u64, body: Body) -> Vec<Body> {
    c.network.clear();
    c.message(n(1), n(2), term, body);
    c.settle(n(2));
    c.bodies(2, 1)
}

fn vote(last: quorate_base::LogId) -> Body {
    Body::Vote {
        last,
        transfer: false,
    }
}

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

/// All servers: "If commitIndex > lastApplied: increment lastApplied, apply log[lastApplied]": in order, each once. (The harness's
/// state machine insists.) Only what is durable here is applied.
#[test]
fn all_servers_apply_what_is_committed() {
    let mut c = Cluster::new(3);
    c.elect(n(1));
    c.node(n(2)).slow_disk = true;
    c.propose(n(1));
    c.propose(n(1));
    c.run();
    assert_eq!((c.raft(n(1)).applied(), c.raft(n(3)).applied()), (i(3), i(3)));
    c.propose(n(1)); // Brings n2 the news that 3 is committed.
    c.run();
    assert_eq!(
        (c.raft(n(2)).commit(), c.raft(n(2)).applied()),
        (i(3), i(1)),
        "n2 has them not on disk yet"
    );
    c.persist(n(2), 9);
    c.run();
    assert_eq!(c.raft(n(2)).applied(), i(4));
}

/// All servers: "If RPC request or response contains term T > currentTerm: set currentTerm = T, convert to follower."
#[test]
fn all_servers_follow_a_higher_term() {
    let higher = [
        Body::Append {
            prev: at(0, 0),
            entries: vec![],
            commit: i(0),
        },
        Body::Appended { upto: i(0) },
        Body::Heartbeat {
            commit: i(0),
            round: 0,
        },
        Body::VoteResponse { granted: false },
        Body::PreVoteResponse {
            next: Term(2),
            granted: false,
        },
        Body::NewerTerm,
        Body::Vote {
            last: at(0, 0),
            transfer: true,
        },
    ];
    for body in higher {
        let mut c = Cluster::new(3);
        c.elect(n(1));
        c.message(n(2), n(1), 9, body.clone());
        assert_eq!(
            (c.raft(n(1)).role(), c.raft(n(1)).term()),
            (RoleKind::Follower, Term(9)),
            "{body:?}"
        );
    }
}

/// Followers: "Respond to RPCs from candidates and leaders."
#[test]
fn followers_respond_to_candidates_and_leaders() {
    let mut c = Cluster::new(3);
    assert_eq!(answer(&mut c, 1, vote(at(0, 0))).len(), 1);
    assert_eq!(
        answer(
            &mut c,
            1,
            Body::Append {
                prev: at(0, 0),
                entries: vec![],
                commit: i(0)
            }
        )
        .len(),
        1
    );
    assert_eq!(
        answer(
            &mut c,
            1,
            Body::Heartbeat {
                commit: i(0),
                round: 1
            }
        )
        .len(),
        1
    );
}

/// Followers: "If election timeout elapses without receiving AppendEntries RPC from current leader or granting vote to candidate:
/// convert to candidate", after asking around (§9.6).
#[test]
fn followers_convert_to_candidate_when_the_election_timeout_elapses() {
    let mut c = Cluster::new(3);
    c.fire(n(1), Timer::Election);
    assert_eq!(c.raft(n(1)).role(), RoleKind::PreCandidate);
    c.run();
    assert_eq!(
        (c.raft(n(1)).role(), c.raft(n(1)).term()),
        (RoleKind::Leader, Term(1))
    );
}

/// What resets that timer: the current leader's messages and a vote granted; a vote refused does not.
#[test]
fn followers_reset_the_timer_for_leaders_and_for_granted_votes_only() {
    let resets = |term, body| {
        let mut c = Cluster::with_logs(&[&[], &[1]], 1);
        c.settle(n(2));
        c.node(n(2)).timers.clear();
        answer(&mut c, term, body);
        c.nodes[&n(2)].timers.contains(&Timer::Election)
    };
    assert!(resets(
        1,
        Body::Append {
            prev: at(0, 0),
            entries: vec![],
            commit: i(0)
        }
    ));
    assert!(resets(
        1,
        Body::Heartbeat {
            commit: i(0),
            round: 1
        }
    ));
    assert!(resets(1, vote(at(1, 1))), "granted");
    assert!(!resets(1, vote(at(0, 0))), "refused");
    assert!(
        !resets(
            0,
            Body::Heartbeat {
                commit: i(0),
                round: 1
            }
        ),
        "not the current leader"
    );
}

/// Candidates: "On conversion to candidate, start election: increment currentTerm, vote for self, reset election timer, send RequestVote
/// RPCs to all other servers."
#[test]
fn candidates_start_an_election() {
    let mut c = Cluster::with_logs(&[&[1], &[], &[]], 1);
    c.message(n(2), n(1), 1, Body::TimeoutNow); // Skips the pre-vote.
    assert_eq!(c.raft(n(1)).role(), RoleKind::Candidate);
    assert_eq!((c.raft(n(1)).term(), c.raft(n(1)).vote()), (Term(2), Some(n(1))));
    c.settle(n(1));
    let request = Body::Vote {
        last: at(1, 1),
        transfer: true,
    };
    assert_eq!(
        (c.bodies(1, 2), c.bodies(1, 3)),
        (vec![request.clone()], vec![request])
    );
    assert!(c.nodes[&n(1)].timers.contains(&Timer::Election));
}

/// A candidate of a cluster of five, in term 1.
fn candidate_of_five() -> Cluster {
    let mut c = Cluster::new(5);
    c.message(n(2), n(1), 0, Body::TimeoutNow);
    c.settle(n(1));
    c.network.clear();
    c
}

/// Candidates: "If votes received from majority of servers: become leader."
#[test]
fn candidates_with_a_majority_become_leader() {
    let mut c = candidate_of_five();
    c.message(n(2), n(1), 1, Body::VoteResponse { granted: true });
    c.message(n(2), n(1), 1, Body::VoteResponse { granted: true });
    assert_eq!(
        c.raft(n(1)).role(),
        RoleKind::Candidate,
        "two of five: one vote counts once"
    );
    c.message(n(3), n(1), 1, Body::VoteResponse { granted: true });
    assert_eq!(c.raft(n(1)).role(), RoleKind::Leader);
}

/// Candidates: "If AppendEntries RPC received from new leader: convert to follower."
#[test]
fn candidates_follow_a_new_leader() {
    let mut c = candidate_of_five();
    c.message(
        n(3),
        n(1),
        1,
        Body::Append {
            prev: at(0, 0),
            entries: vec![],
            commit: i(0),
        },
    );
    let raft = c.raft(n(1));
    assert_eq!(
        (raft.role(), raft.leader(), raft.vote()),
        (RoleKind::Follower, Some(n(3)), Some(n(1)))
    );
}

/// Candidates: "If election timeout elapses: start new election."
#[test]
fn candidates_start_a_new_election_when_the_election_timeout_elapses() {
    let mut c = candidate_of_five();
    c.fire(n(1), Timer::Election);
    c.run();
    assert_eq!(
        (c.raft(n(1)).role(), c.raft(n(1)).term()),
        (RoleKind::Leader, Term(2))
    );
}

/// Leaders: "Upon election: send initial empty AppendEntries RPCs (heartbeat) to each server". Ours are not empty: they carry the
/// no-op of the new term (§6.4), in the same drain.
#[test]
fn leaders_announce_themselves_upon_election() {
    let mut c = candidate_of_five();
    c.message(n(2), n(1), 1, Body::VoteResponse { granted: true });
    c.message(n(3), n(1), 1, Body::VoteResponse { granted: true });
    c.drain(n(1));
    for peer in 2..=5 {
        assert!(
            matches!(&c.bodies(1, peer)[..], [Body::Append { entries, .. }] if entries[0].term == Term(1))
        );
    }
}

/// Leaders: "repeat during idle periods to prevent election timeouts."
#[test]
fn leaders_repeat_heartbeats_during_idle_periods() {
    let mut c = Cluster::new(3);
    c.elect(n(1));
    for round in 1..4 {
        c.fire(n(1), Timer::Heartbeat);
        c.drain(n(1));
        assert_eq!(c.bodies(1, 2), [Body::Heartbeat { commit: i(1), round }]);
        c.node(n(2)).timers.clear();
        c.run();
        assert!(
            c.nodes[&n(2)].timers.contains(&Timer::Election),
            "the election timeout starts anew"
        );
    }
}

/// Leaders: "If command received from client: append entry to local log, respond after entry applied to state machine."
#[test]
fn leaders_append_commands_and_answer_once_applied() {
    let mut c = Cluster::new(3);
    c.elect(n(1));
    let token = c.propose(n(1));
    c.drain(n(1));
    assert_eq!(c.nodes[&n(1)].placed[&token], at(1, 2));
    assert_eq!(c.raft(n(1)).applied(), i(1), "not yet");
    c.run();
    assert_eq!(c.raft(n(1)).applied(), i(2));
    let follower = c.propose(n(2));
    c.drain(n(2));
    assert!(c.nodes[&n(2)].refused.contains_key(&follower), "others refuse");
}

/// Leaders: "If last log index ≥ nextIndex for a follower: send AppendEntries RPC with log entries starting at nextIndex."
#[test]
fn leaders_send_entries_from_next_index_on() {
    let mut c = Cluster::new(3);
    c.elect(n(1));
    c.propose(n(1));
    c.propose(n(1));
    c.drain(n(1));
    assert_eq!(
        c.bodies(1, 2),
        [Body::Append {
            prev: at(1, 1),
            entries: shapes(&[1, 1]),
            commit: i(1)
        }]
    );
    c.propose(n(1));
    c.drain(n(1));
    assert_eq!(
        c.bodies(1, 2).len(),
        2,
        "the next, without waiting for an answer (§10.2.1)"
    );
    assert!(!c.drain(n(1)), "and nothing twice");
}

/// Leaders: "If successful: update nextIndex and matchIndex for follower."
#[test]
fn leaders_advance_next_index_and_match_index_on_success() {
    let mut c = Cluster::new(3);
    c.elect(n(1));
    c.propose(n(1));
    c.run();
    for (_, peer) in c.raft(n(1)).peers() {
        assert_eq!((peer.matched, peer.next), (i(2), i(3)));
    }
}

/// Leaders: "If AppendEntries fails because of log inconsistency: decrement nextIndex and retry." By a term at a time.
#[test]
fn leaders_decrement_next_index_on_inconsistency_and_retry() {
    let mut c = Cluster::with_logs(&[&[1, 4, 4], &[1, 2, 2, 2], &[1, 4, 4]], 4);
    c.isolate(n(2));
    c.elect(n(1));
    c.heal();
    c.fire(n(1), Timer::Heartbeat);
    c.run();
    assert_eq!(c.terms(n(2)), [1, 4, 4, 5]);
}

/// Leaders: "If there exists an N such that N > commitIndex, a majority of matchIndex[i] ≥ N, and log[N].term == currentTerm: set
/// commitIndex = N." The leader's own log counts like any other: once it is on disk.
#[test]
fn leaders_commit_what_a_majority_holds() {
    let mut c = Cluster::new(5);
    c.elect(n(1));
    c.node(n(1)).slow_disk = true;
    c.propose(n(1));
    c.settle(n(1));
    c.network.clear();
    for (follower, commits) in [(2, 1), (3, 1), (4, 2)] {
        c.node(n(follower)).slow_disk = false;
        let append = Body::Append {
            prev: at(1, 1),
            entries: shapes(&[1]),
            commit: i(1),
        };
        let payload = c.nodes[&n(1)].bodies[&i(2)].1;
        let message = quorate_raft::Message {
            term: Term(1),
            body: append,
        };
        c.deliver(common::Parcel {
            from: n(1),
            to: n(follower),
            what: common::What::Message(message, vec![payload]),
        });
        c.settle(n(follower));
        let answer = c.network.pop_back().unwrap();
        c.deliver(answer);
        assert_eq!(c.raft(n(1)).commit(), i(commits), "n{follower} has it too");
    }
}

/// The last part of that rule: an entry of an earlier term is never committed by counting (§3.6.2). `figure8.rs` shows why.
#[test]
fn leaders_commit_only_entries_of_their_own_term_by_counting() {
    let mut c = Cluster::with_logs(&[&[1, 2], &[1, 2], &[1]], 2);
    c.elect(n(1));
    assert_eq!(
        c.raft(n(1)).commit(),
        i(3),
        "all of it at once, with the no-op of term 3"
    );
    assert_eq!(
        c.ghost
            .committed
            .iter()
            .filter(|entry| entry.by < Term(3))
            .count(),
        0
    );
}
