//! "Rules for Servers": what all do, and what followers, candidates and leaders do.

use quorate_base::Term;
use quorate_raft::{Body, RoleKind, Timer};

use crate::common::{self, Cluster, at, i, n};
use crate::{answer, shapes, vote};

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
