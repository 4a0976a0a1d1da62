//! Branches that a cluster of correct members on sound disks reaches rarely or never: what a peer may only say by mistake, answers that come
//! too late for anybody, and things at start that do not belong together. Each is handed in by hand; each test demands what must come of
//! it, and that the branch it was written for was really reached.

mod common;
#[path = "../../wal/tests/common/disk.rs"]
mod disk;

use bytes::Bytes;
use common::{Cluster, Outcome, PATIENCE};
use disk::MemDisk;
use quorate_base::{Disk, Index, LogId, NodeId, Term};
use quorate_node::roster::{self, Roster};
use quorate_node::stored::{Mark, Origin, state_record};
use quorate_node::{
    Boot, BootError, ChangeFailure, Event, Failure, NodeConfig, PeerMessage, Reason, RequestId,
    SnapshotOutcome, StageOp, entry,
};
use quorate_raft::{Body, Change, Config, HardState, Message, SnapMeta};
use quorate_wal::Record;

fn reached(mark: &str) {
    assert!(quorate_marks::hits(mark) > 0, "{mark} was not reached");
}

fn peer(from: u64, message: PeerMessage) -> Event {
    let from = NodeId(from);
    Event::Peer { from, message }
}

/// Three members, with their leader and one that follows it.
fn three() -> (Cluster, u64, u64) {
    let mut cluster = Cluster::new(3, |_| {});
    let leader = cluster.elect();
    cluster.converge();
    let follower = cluster.follower();
    (cluster, leader, follower)
}

fn term(cluster: &Cluster, id: u64) -> Term {
    cluster.node(id).raft().term()
}

fn last(cluster: &Cluster, id: u64) -> Index {
    cluster.node(id).raft().last().index
}

/// The first request of a member's first run.
fn first_request(id: u64) -> RequestId {
    RequestId {
        node: id,
        boot: id * 1_000_000 + 1,
        seq: 1,
    }
}

fn founding() -> Record {
    let meta = SnapMeta {
        last: LogId::ZERO,
        config: Config::of([NodeId(1)]),
    };
    let origin = Origin::Founded;
    Mark { origin, meta }.record()
}

fn noop(term: u64, index: u64) -> Record {
    let at = LogId::new(term, index);
    Record::Entry {
        index: at.index,
        body: entry::encode_noop(at),
    }
}

fn hard(term: u64, commit: u64) -> Record {
    state_record(&HardState {
        term: Term(term),
        vote: None,
        commit: Index(commit),
    })
}

fn boot(records: Vec<Record>, initial: Option<Config>) -> BootError {
    let mut boot = Boot::new();
    records.into_iter().for_each(|record| boot.record(record));
    let config = NodeConfig::new(NodeId(1), 1, 1);
    boot.finish(config, initial, LogId::ZERO, Index::ZERO)
        .expect_err("not a log that a node wrote")
}

#[test]
fn logs_that_no_node_wrote_are_not_started_from() {
    let falls = vec![founding(), noop(2, 1), noop(1, 2), hard(2, 0)];
    assert!(matches!(boot(falls, None), BootError::Terms { .. }));
    reached("node.boot.term_falls");
    let above = vec![founding(), noop(2, 1), hard(1, 0)];
    assert!(matches!(boot(above, None), BootError::Terms { .. }));
    reached("node.boot.term_above_recorded");
    let lost = vec![founding(), noop(1, 1), hard(1, 2)];
    let (commit, last) = (Index(2), Index(1));
    assert_eq!(boot(lost, None), BootError::CommitLost { commit, last });
    reached("node.boot.commit_lost");
    let garbage = vec![founding(), Record::State(Bytes::from_static(b"\xff"))];
    assert!(matches!(boot(garbage, None), BootError::Unreadable { .. }));
    reached("node.boot.unreadable");
    assert_eq!(boot(Vec::new(), Some(Config::default())), BootError::NoVoters);
    reached("node.boot.no_voters");
}

#[test]
fn a_roster_of_others_is_not_taken_for_ones_own() {
    let disk = MemDisk::default();
    Roster::new(9, NodeId(2)).save(&disk).unwrap();
    let other_cluster = Roster::load(&disk, 8, NodeId(2)).expect("a new founding begins without memories");
    assert_eq!(other_cluster, Roster::new(8, NodeId(2)));
    reached("node.roster.file_of_another_cluster");
    Roster::load(&disk, 9, NodeId(3)).expect_err("another member's");
    reached("node.roster.file_of_another_member");
    let file = disk.open(roster::FILE, false).unwrap();
    file.set_len(1 << 20).unwrap();
    Roster::load(&disk, 9, NodeId(2)).expect_err("longer than any");
    reached("node.roster.file_too_long");
}

#[test]
fn messages_that_no_correct_peer_sends_change_nothing() {
    let (mut cluster, leader, follower) = three();
    let (term, end) = (term(&cluster, leader), last(&cluster, leader));
    let body = Body::Append {
        prev: LogId::ZERO,
        entries: Vec::new(),
        commit: Index(100),
    };
    let message = PeerMessage::Raft(Message { term, body });
    cluster.step(follower, peer(leader, message));
    reached("node.message.append_without_bodies");
    // A request in another's name.
    let request = first_request(leader);
    let command = Bytes::from_static(b"x");
    let forward = PeerMessage::Forward {
        term,
        request,
        command,
    };
    cluster.step(leader, peer(follower, forward));
    reached("node.forward.impostor");
    // One that the sender should have refused itself.
    let request = first_request(follower);
    let command = vec![0; NodeConfig::new(NodeId(1), 1, 1).max_proposal + 1].into();
    let forward = PeerMessage::Forward {
        term,
        request,
        command,
    };
    cluster.step(leader, peer(follower, forward));
    reached("node.forward.too_large");
    let other = (1..=3).find(|id| ![leader, follower].contains(id)).unwrap();
    cluster.step(follower, Event::Gone(NodeId(other)));
    reached("node.gone.no_leader_of_ours");
    let change = PeerMessage::Reconfigure {
        term,
        request: RequestId {
            seq: 2,
            ..first_request(other)
        },
        changes: vec![Change::RaiseLevel(9)],
        force: false,
    };
    cluster.step(follower, peer(other, change));
    reached("node.change.to_no_leader");
    cluster.converge();
    assert_eq!(last(&cluster, leader), end, "nothing was appended");
    assert_eq!(term_of_all(&cluster), [term; 3]);
}

fn term_of_all(cluster: &Cluster) -> [Term; 3] {
    [1, 2, 3].map(|id| term(cluster, id))
}

/// A follower whose proposal goes to the leader and gets lost on the way.
fn forwarded() -> (Cluster, u64, u64, u64) {
    let (mut cluster, leader, follower) = three();
    cluster.filter = Box::new(|_, _, message| !matches!(message, PeerMessage::Forward { .. }));
    let token = cluster.propose(follower, "lost");
    cluster.settle();
    (cluster, leader, follower, token)
}

#[test]
fn an_acceptance_that_comes_after_its_index_is_settled_at_once() {
    for (of_term, mark, why) in [
        (0, "node.accept.too_late", Failure::Unknown(Reason::LeaderChanged)),
        (
            7,
            "node.accept.overwritten",
            Failure::NotDone(Reason::LeaderChanged),
        ),
    ] {
        let (mut cluster, leader, follower, token) = forwarded();
        let at = LogId {
            term: Term(term(&cluster, leader).0 + of_term),
            index: last(&cluster, leader),
        };
        let request = first_request(follower);
        cluster.step(follower, peer(leader, PeerMessage::Accept { request, at }));
        assert_eq!(cluster.outcome(token), Outcome::Failed(why));
        reached(mark);
    }
}

#[test]
fn an_acceptance_that_was_not_true_leaves_the_outcome_unknown() {
    let (mut cluster, leader, follower, token) = forwarded();
    let at = LogId {
        term: term(&cluster, leader),
        index: last(&cluster, leader).next(),
    };
    let request = first_request(follower);
    cluster.step(follower, peer(leader, PeerMessage::Accept { request, at }));
    cluster.write(leader, "another");
    let unknown = Outcome::Failed(Failure::Unknown(Reason::LeaderChanged));
    assert_eq!(cluster.outcome(token), unknown);
    reached("node.committed.passed_by");
}

#[test]
fn a_refusal_of_what_was_not_forwarded_is_ignored() {
    let mut cluster = Cluster::new(3, |_| {});
    let token = cluster.propose(1, "held");
    let (request, why) = (first_request(1), Reason::Busy);
    cluster.step(1, peer(2, PeerMessage::Refuse { request, why }));
    reached("node.refuse.of_nothing_forwarded");
    cluster.elect();
    assert!(matches!(cluster.outcome(token), Outcome::Applied(_)));
}

/// It becomes a follower and loses the end of its log before it has even told the entries placed.
#[test]
fn what_is_truncated_before_it_was_told_placed_is_answered_as_not_done() {
    let (mut cluster, leader, follower) = three();
    let term = term(&cluster, leader);
    let prev = cluster.node(leader).raft().last();
    let token = cluster.propose(leader, "own");
    let (request, command) = (first_request(follower), Bytes::from_static(b"forwarded"));
    cluster.step(
        leader,
        peer(
            follower,
            PeerMessage::Forward {
                term,
                request,
                command,
            },
        ),
    );
    let term = Term(term.0 + 1);
    let (commit, round) = (Index::ZERO, 1);
    let body = Body::Heartbeat { commit, round };
    cluster.step(leader, peer(follower, PeerMessage::Raft(Message { term, body })));
    let at = LogId {
        term,
        index: prev.index.next(),
    };
    let entries = vec![entry::encode_noop(at)];
    let append = PeerMessage::Append {
        term,
        prev,
        entries,
        commit,
    };
    cluster.step(leader, peer(follower, append));
    let effects = cluster.host(leader).node.as_mut().unwrap().take_effects();
    let failure = Failure::NotDone(Reason::LeaderChanged);
    assert_eq!(effects.answers, [(token, failure)]);
    let refused =
        |message: &PeerMessage| matches!(message, PeerMessage::Refuse { request: r, .. } if *r == request);
    assert!(
        effects.send.iter().any(|(_, message)| refused(message)),
        "{:?}",
        effects.send
    );
    reached("node.placed.lost_before_write");
    reached("node.placed.forwarded_lost_before_write");
}

/// What is committed and cannot be read is the end of this node, whatever it is that came instead.
#[test]
fn a_committed_entry_that_cannot_be_read_is_fatal() {
    for (what, mark) in [
        (Err("a bad sector".to_owned()), "node.apply.unreadable"),
        (Ok(15), "node.apply.not_what_log_has"),
    ] {
        let mut cluster = Cluster::new(1, |_| {});
        cluster.settle();
        cluster.write(1, "applied, and forgotten by the restart");
        cluster.crash(1);
        cluster.start(1);
        cluster.host(1).reads_stalled = true;
        cluster.settle();
        let next = cluster.node(1).applied().next();
        let at = cluster
            .node(1)
            .raft()
            .log()
            .id_at(next)
            .expect("an entry waits to be applied");
        let bodies = what.map(|kind: u8| {
            let mut body = entry::encode_noop(at).to_vec();
            body[0] = body[0] & 0xf0 | kind;
            vec![body.into()]
        });
        // Reads of the log are numbered from 1.
        for id in 1..=8 {
            cluster.step(
                1,
                Event::LogRead {
                    id,
                    bodies: bodies.clone(),
                },
            );
        }
        let effects = cluster.host(1).node.as_mut().unwrap().take_effects();
        assert!(
            effects
                .fatal
                .is_some_and(|why| why.contains(&format!("entry {next}")))
        );
        reached(mark);
    }
}

#[test]
fn a_change_whose_request_is_lost_ends_unknown() {
    let change = [Change::RaiseLevel(2), Change::RaiseLevel(3)];
    let lose: fn(NodeId, NodeId, &PeerMessage) -> bool =
        |_, _, message| !matches!(message, PeerMessage::Reconfigure { .. });
    let (mut cluster, leader, follower) = three();
    cluster.filter = Box::new(lose);
    let token = cluster.change(follower, &change, false);
    cluster.settle();
    cluster.break_link(leader);
    let unknown = |why| Outcome::Changed(Err(ChangeFailure::Unknown(why)));
    assert_eq!(cluster.outcome(token), unknown(Reason::LinkDown));
    reached("node.change.forwarded_unknown_by_broken_link");

    let (mut cluster, leader, follower) = three();
    cluster.filter = Box::new(lose);
    let token = cluster.change(follower, &change, false);
    cluster.settle();
    cluster.step(leader, Event::Transfer(Some(NodeId(follower))));
    assert_eq!(cluster.outcome(token), unknown(Reason::LeaderChanged));
    reached("node.change.forwarded_unknown_by_new_term");
}

#[test]
fn a_change_that_could_not_be_sent_is_tried_again() {
    let (mut cluster, _, follower) = three();
    let mut left = 1;
    cluster.queue = Box::new(move |_, _, message| {
        let sent = !matches!(message, PeerMessage::Reconfigure { .. }) || left == 0;
        left -= usize::from(!sent);
        sent
    });
    let (id, about) = (NodeId(follower), Box::from(*b"described"));
    let token = cluster.change(follower, &[Change::Describe { id, about }], false);
    assert!(matches!(cluster.outcome(token), Outcome::Changed(Ok(_))));
    reached("node.dropped.change");
    reached("node.change.not_sent");
}

/// Nobody acknowledges, but all answer heartbeats, so the leader leads on.
#[test]
fn a_change_that_ends_after_its_deadline_is_answered_once() {
    let (mut cluster, leader, follower) = three();
    let followers: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    let acknowledges = |message: &PeerMessage| match message {
        PeerMessage::Raft(Message { body, .. }) => matches!(body, Body::Appended { .. }),
        _ => false,
    };
    cluster.filter = Box::new(move |_, _, message| {
        let late = |matched: &Index| *matched > Index(1);
        let told = matches!(message, PeerMessage::Raft(Message { body: Body::HeartbeatResponse { matched, .. }, .. }) if late(matched));
        !acknowledges(message) && !told
    });
    let (id, about) = (NodeId(follower), Box::from(*b"described"));
    let token = cluster.change(leader, &[Change::Describe { id, about }], false);
    for id in followers {
        cluster.host(id).disk_stalled = true;
    }
    cluster.pass(PATIENCE + PATIENCE / 10);
    let timeout = Outcome::Changed(Err(ChangeFailure::Unknown(Reason::Timeout)));
    assert_eq!(cluster.outcome(token), timeout);
    cluster.filter = Box::new(|_, _, _| true);
    (1..=3)
        .filter(|id| *id != leader)
        .for_each(|id| cluster.unstall(id));
    cluster.converge();
    reached("node.change.expired_already");
}

fn meta(cluster: &Cluster, index: Index) -> SnapMeta {
    let config = cluster.node(1).raft().config().clone();
    let term = term(cluster, 1);
    SnapMeta {
        last: LogId { term, index },
        config,
    }
}

fn acks(cluster: &mut Cluster, id: u64) -> Vec<SnapshotOutcome> {
    let effects = cluster.host(id).node.as_mut().unwrap().take_effects();
    let outcome = |(_, message): (NodeId, PeerMessage)| match message {
        PeerMessage::SnapshotAck { outcome, .. } => Some(outcome),
        _ => None,
    };
    effects.send.into_iter().filter_map(outcome).collect()
}

#[test]
fn snapshots_of_others_than_the_leader_or_with_wrong_bytes_are_refused() {
    let (mut cluster, leader, follower) = three();
    let other = (1..=3).find(|id| ![leader, follower].contains(id)).unwrap();
    let (term, meta) = (term(&cluster, leader), meta(&cluster, Index(1000)));
    let begin = PeerMessage::SnapshotBegin {
        stream: 5,
        term,
        meta,
    };
    cluster.step(follower, peer(other, begin.clone()));
    reached("node.take_snapshot.of_no_leader");
    assert_eq!(acks(&mut cluster, follower), [SnapshotOutcome::Refused]);
    cluster.step(follower, peer(leader, begin));
    assert_eq!(acks(&mut cluster, follower), [SnapshotOutcome::More]);
    let piece = PeerMessage::SnapshotChunk {
        stream: 5,
        term,
        offset: 0,
        bytes: Bytes::from_static(b"not these"),
        crc: 1,
        done: false,
    };
    cluster.step(follower, peer(leader, piece));
    reached("node.take_snapshot.wrong_bytes");
    assert_eq!(acks(&mut cluster, follower), [SnapshotOutcome::Refused]);
    cluster.step(follower, Event::StageFailed { stream: 999 });
    reached("node.take_snapshot.no_room_for_former");
    assert_eq!(acks(&mut cluster, follower), []);
}

#[test]
fn a_snapshot_that_cannot_be_is_refused_when_it_is_staged_and_one_that_is_being_installed_is_alone() {
    for index in [Index(u64::MAX / 2), Index(1000)] {
        let (mut cluster, leader, follower) = three();
        let (term, meta) = (term(&cluster, leader), meta(&cluster, index));
        let begin = |stream| PeerMessage::SnapshotBegin {
            stream,
            term,
            meta: meta.clone(),
        };
        cluster.step(follower, peer(leader, begin(5)));
        let (bytes, crc, done) = (Bytes::new(), 0, true);
        let offset = 0;
        let end = PeerMessage::SnapshotChunk {
            stream: 5,
            term,
            offset,
            bytes,
            crc,
            done,
        };
        cluster.step(follower, peer(leader, end));
        let effects = cluster.host(follower).node.as_mut().unwrap().take_effects();
        let finish = effects.stage.iter().find_map(|op| match op {
            StageOp::Finish { stream } => Some(*stream),
            _ => None,
        });
        let (stream, len, finished) = (finish.expect("it is complete"), 0, true);
        cluster.step(
            follower,
            Event::Staged {
                stream,
                len,
                finished,
            },
        );
        if index == Index(1000) {
            cluster.step(follower, peer(leader, begin(6)));
            reached("node.take_snapshot.while_installing");
            assert_eq!(acks(&mut cluster, follower), [], "the leader will ask again");
        } else {
            reached("node.take_snapshot.staged_but_refused");
            assert_eq!(acks(&mut cluster, follower), [SnapshotOutcome::Refused]);
        }
    }
}
