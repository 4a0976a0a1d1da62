//! Each invariant rejects a forged deed that breaks it.

use bytes::Bytes;
use quorate_node::entry::{Content, Entry, encode_noop};
use quorate_node::message::{PeerMessage, SnapshotOutcome};
use quorate_node::stored::{Mark, Origin, state_record};
use quorate_raft::{Body, HardState, Message, Raft, Restored, SnapMeta};

use super::*;

fn ids() -> impl Iterator<Item = NodeId> {
    (1..=3).map(NodeId)
}

fn ghost() -> Ghost {
    Ghost::new(Config::of(ids()))
}

fn entry(term: u64, index: u64) -> Record {
    let at = LogId::new(term, index);
    Record::Entry {
        index: at.index,
        body: encode_noop(at),
    }
}

fn state(term: u64, vote: Option<u64>, commit: u64) -> Record {
    state_record(&HardState {
        term: Term(term),
        vote: vote.map(NodeId),
        commit: Index(commit),
    })
}

/// Writes `records` durably on `id`.
fn write(ghost: &mut Ghost, id: u64, number: u64, records: Vec<Record>) -> Result<(), Violation> {
    ghost.emitted(NodeId(id), number, &records)?;
    ghost.appending(NodeId(id), number);
    ghost.appended(NodeId(id))
}

/// A core that has just started from such a disk.
fn raft(id: u64, term: u64, entries: &[u64], commit: u64) -> Raft {
    let shape = |term: &u64| quorate_raft::EntryShape {
        term: Term(*term),
        size: 17,
        config: None,
    };
    Raft::new(Restored {
        id: NodeId(id),
        hard: HardState {
            term: Term(term),
            vote: None,
            commit: Index(commit),
        },
        base: SnapMeta {
            last: LogId::ZERO,
            config: Config::of(ids()),
        },
        entries: entries.iter().map(shape).collect(),
        ..Restored::default()
    })
}

fn rule(result: Result<(), Violation>) -> &'static str {
    result.expect_err("this must be rejected").rule
}

#[test]
fn one_name_for_two_entries_is_rejected() {
    let mut ghost = ghost();
    write(&mut ghost, 1, 1, vec![entry(1, 1)]).unwrap();
    let mut other = encode_noop(LogId::new(1, 1)).to_vec();
    other.push(9);
    let forged = Record::Entry {
        index: Index(1),
        body: Bytes::from(other),
    };
    assert_eq!(rule(write(&mut ghost, 2, 1, vec![forged])), "S2");
}

#[test]
fn falling_terms_and_gaps_are_rejected() {
    assert_eq!(
        rule(write(&mut ghost(), 1, 1, vec![entry(2, 1), entry(1, 2)])),
        "S10"
    );
    assert_eq!(rule(write(&mut ghost(), 1, 1, vec![entry(1, 2)])), "records");
}

#[test]
fn a_second_vote_in_a_term_is_rejected() {
    let mut ghost = ghost();
    write(&mut ghost, 1, 1, vec![state(3, Some(2), 0)]).unwrap();
    assert_eq!(rule(write(&mut ghost, 1, 2, vec![state(3, Some(3), 0)])), "S8");
}

#[test]
fn a_commit_that_is_not_on_a_quorum_of_disks_is_rejected() {
    let mut ghost = ghost();
    write(&mut ghost, 1, 1, vec![state(1, None, 0), entry(1, 1)]).unwrap();
    assert_eq!(rule(ghost.stepped(NodeId(1), &raft(1, 1, &[1], 1))), "S5");
    let mut ghost = self::ghost();
    write(&mut ghost, 1, 1, vec![state(1, None, 0), entry(1, 1)]).unwrap();
    write(&mut ghost, 2, 1, vec![entry(1, 1)]).unwrap();
    assert_eq!(ghost.stepped(NodeId(1), &raft(1, 1, &[1], 1)), Ok(()));
    assert_eq!(ghost.commits().last(), Index(1));
}

#[test]
fn committing_another_entry_than_others_did_is_rejected() {
    let mut ghost = ghost();
    for id in 1..=2 {
        write(&mut ghost, id, 1, vec![state(1, None, 0), entry(1, 1)]).unwrap();
    }
    ghost.stepped(NodeId(1), &raft(1, 1, &[1], 1)).unwrap();
    write(&mut ghost, 3, 1, vec![state(2, None, 0), entry(2, 1)]).unwrap();
    assert_eq!(rule(ghost.stepped(NodeId(3), &raft(3, 2, &[2], 1))), "S3");
}

#[test]
fn losing_what_a_quorum_had_is_rejected() {
    let mut ghost = ghost();
    for id in 1..=2 {
        write(&mut ghost, id, 1, vec![state(1, None, 0), entry(1, 1)]).unwrap();
    }
    ghost.stepped(NodeId(1), &raft(1, 1, &[1], 1)).unwrap();
    assert_eq!(
        rule(write(
            &mut ghost,
            2,
            2,
            vec![Record::Truncate { after: Index(0) }]
        )),
        "S5"
    );
}

#[test]
fn a_believed_log_that_was_never_written_is_rejected() {
    assert_eq!(rule(ghost().stepped(NodeId(1), &raft(1, 1, &[1], 0))), "S2");
}

#[test]
fn promises_without_a_durable_vote_are_rejected() {
    let mut ghost = ghost();
    let core = raft(1, 3, &[], 0);
    let say = |body| PeerMessage::Raft(Message { term: Term(3), body });
    let granted = say(Body::VoteResponse { granted: true });
    assert_eq!(
        rule(ghost.sent(NodeId(1), &core, NodeId(2), &granted)),
        "S6",
        "the term is not durable"
    );
    write(&mut ghost, 1, 1, vec![state(3, None, 0)]).unwrap();
    assert_eq!(
        rule(ghost.sent(NodeId(1), &core, NodeId(2), &granted)),
        "S6",
        "the vote is not durable"
    );
    write(&mut ghost, 1, 2, vec![state(3, Some(2), 0)]).unwrap();
    assert_eq!(ghost.sent(NodeId(1), &core, NodeId(2), &granted), Ok(()));
    assert_eq!(
        rule(ghost.sent(NodeId(1), &core, NodeId(3), &granted)),
        "S6",
        "it was for another"
    );
    let later = PeerMessage::Raft(Message {
        term: Term(4),
        body: Body::NewerTerm,
    });
    assert_eq!(
        rule(ghost.sent(NodeId(1), &core, NodeId(3), &later)),
        "S6",
        "a term that it has not reached"
    );
}

#[test]
fn acknowledging_what_is_not_durable_is_rejected() {
    let mut ghost = ghost();
    write(&mut ghost, 2, 1, vec![state(1, None, 0)]).unwrap();
    ghost.leaders.insert(Term(1), NodeId(1));
    ghost.emitted(NodeId(2), 2, &[entry(1, 1)]).unwrap();
    let appended = PeerMessage::Raft(Message {
        term: Term(1),
        body: Body::Appended { upto: Index(1) },
    });
    let core = raft(2, 1, &[1], 0);
    assert_eq!(rule(ghost.sent(NodeId(2), &core, NodeId(1), &appended)), "S6");
    ghost.appending(NodeId(2), 2);
    ghost.appended(NodeId(2)).unwrap();
    assert_eq!(ghost.sent(NodeId(2), &core, NodeId(1), &appended), Ok(()));
}

/// Elected and deposed by one batch of inputs: only what it sent shows that it led.
#[test]
fn a_leader_is_known_by_what_it_sends() {
    let mut ghost = ghost();
    for id in [1, 2] {
        write(&mut ghost, id, 1, vec![state(2, None, 0)]).unwrap();
    }
    let append = PeerMessage::Append {
        term: Term(1),
        prev: LogId::default(),
        entries: Vec::new(),
        commit: Index::ZERO,
    };
    assert_eq!(
        ghost.sent(NodeId(1), &raft(1, 2, &[], 0), NodeId(3), &append),
        Ok(())
    );
    let appended = PeerMessage::Raft(Message {
        term: Term(1),
        body: Body::Appended { upto: Index::ZERO },
    });
    let core = raft(2, 2, &[], 0);
    assert_eq!(ghost.sent(NodeId(2), &core, NodeId(1), &appended), Ok(()));
    assert_eq!(rule(ghost.sent(NodeId(2), &core, NodeId(3), &append)), "S1");
}

#[test]
fn acknowledging_more_of_a_snapshot_than_is_durable_is_rejected() {
    let mut ghost = ghost();
    let entries: Vec<Record> = (1..=3).map(|index| entry(1, index)).collect();
    for id in [1, 3] {
        write(
            &mut ghost,
            id,
            1,
            [vec![state(1, None, 0)], entries.clone()].concat(),
        )
        .unwrap();
    }
    ghost.leaders.insert(Term(1), NodeId(1));
    ghost.stepped(NodeId(1), &raft(1, 1, &[1, 1, 1], 3)).unwrap();
    let meta = SnapMeta {
        last: LogId::new(1, 3),
        config: Config::of(ids()),
    };
    let offer = PeerMessage::SnapshotBegin {
        stream: 7,
        term: Term(1),
        meta: meta.clone(),
    };
    let core = raft(1, 1, &[1, 1, 1], 3);
    ghost.sent(NodeId(1), &core, NodeId(2), &offer).unwrap();
    let transfer = (NodeId(1), 7);
    let says = |ghost: &Ghost, core: &Raft, what, staged| {
        ghost.acknowledged(NodeId(2), core, transfer, what, staged)
    };
    let behind = raft(2, 1, &[], 0);
    assert_eq!(says(&ghost, &behind, (100, SnapshotOutcome::More), 100), Ok(()));
    assert_eq!(
        rule(says(&ghost, &behind, (100, SnapshotOutcome::More), 99)),
        "S6"
    );
    assert_eq!(says(&ghost, &behind, (100, SnapshotOutcome::Checking), 0), Ok(()));
    assert_eq!(says(&ghost, &behind, (0, SnapshotOutcome::Refused), 0), Ok(()));
    // The core has logged the install, and the disk does not have it yet.
    let installing = Raft::new(Restored {
        id: NodeId(2),
        hard: HardState {
            term: Term(1),
            vote: None,
            commit: Index(3),
        },
        base: meta.clone(),
        ..Restored::default()
    });
    let done = (100, SnapshotOutcome::Done);
    assert_eq!(rule(says(&ghost, &installing, done, 100)), "S6");
    let origin = Origin::Installed;
    let mark = Mark { origin, meta }.record();
    write(&mut ghost, 2, 1, vec![state(1, None, 3), mark]).unwrap();
    assert_eq!(says(&ghost, &installing, done, 100), Ok(()));
    let unknown = ghost.acknowledged(NodeId(2), &installing, (NodeId(1), 8), done, 100);
    assert_eq!(rule(unknown), "S6", "nobody has sent that");
}

#[test]
fn sending_other_bytes_than_the_entrys_is_rejected() {
    let mut ghost = ghost();
    write(
        &mut ghost,
        1,
        1,
        vec![state(2, None, 0), entry(1, 1), entry(2, 2)],
    )
    .unwrap();
    let core = raft(1, 2, &[1, 2], 0);
    let append = |prev: u64, body: Bytes| PeerMessage::Append {
        term: Term(2),
        prev: LogId::new(1, prev),
        entries: vec![body],
        commit: Index(0),
    };
    let right = append(1, encode_noop(LogId::new(2, 2)));
    assert_eq!(ghost.sent(NodeId(1), &core, NodeId(2), &right), Ok(()));
    let old_bytes_new_place = append(1, encode_noop(LogId::new(1, 1)));
    assert_eq!(
        rule(ghost.sent(NodeId(1), &core, NodeId(2), &old_bytes_new_place)),
        "S2"
    );
    let never_written = append(1, encode_noop(LogId::new(1, 2)));
    assert_eq!(
        rule(ghost.sent(NodeId(1), &core, NodeId(2), &never_written)),
        "S2"
    );
}

#[test]
fn a_recovery_gives_what_was_durable_and_whole_batches_after_it() {
    let mut ghost = ghost();
    let (first, second, third) = (state(1, None, 0), entry(1, 1), entry(1, 2));
    write(&mut ghost, 1, 1, vec![first.clone(), second.clone()]).unwrap();
    ghost.emitted(NodeId(1), 2, std::slice::from_ref(&third)).unwrap();
    ghost.appending(NodeId(1), 2);
    ghost.crashed(NodeId(1));
    let found = |records: &[&Record]| {
        let mut found = Recovered::default();
        records.iter().for_each(|record| found.record(record).unwrap());
        found
    };
    let recover = |records: &[&Record]| ghost.clone().recovered(NodeId(1), &found(records));
    assert_eq!(recover(&[&first, &second]), Ok(()));
    assert_eq!(recover(&[&first, &second, &third]), Ok(()), "it may have arrived");
    assert_eq!(rule(recover(&[&first])), "S20", "a durable entry is lost");
    assert_eq!(rule(recover(&[&second])), "S20", "the durable hard state is lost");
    assert_eq!(
        rule(recover(&[&first, &second, &third, &entry(1, 3)])),
        "S20",
        "never written"
    );
    assert_eq!(rule(ghost.check_image(NodeId(1), &found(&[&first]))), "S6");
    assert_eq!(ghost.check_image(NodeId(1), &found(&[&first, &second])), Ok(()));
}

#[test]
fn different_states_and_stale_reads_are_rejected() {
    let mut ghost = ghost();
    ghost.machines.check_hash(NodeId(1), Index(5), 7).unwrap();
    ghost.machines.check_hash(NodeId(2), Index(5), 7).unwrap();
    assert_eq!(rule(ghost.machines.check_hash(NodeId(3), Index(5), 8)), "S14");
    assert_eq!(rule(ghost.check_read(NodeId(1), Index(9), Index(8))), "S13");
    assert_eq!(ghost.check_read(NodeId(1), Index(9), Index(9)), Ok(()));
}

#[test]
fn applying_what_is_not_committed_or_not_durable_is_rejected() {
    let mut ghost = ghost();
    for id in 1..=2 {
        write(&mut ghost, id, 1, vec![state(1, None, 0), entry(1, 1)]).unwrap();
    }
    let apply = |index| quorate_node::ToApply {
        at: LogId::new(1, index),
        command: None,
        token: None,
        level: None,
    };
    assert_eq!(rule(ghost.check_apply(NodeId(1), &apply(1))), "S3");
    ghost.stepped(NodeId(1), &raft(1, 1, &[1], 1)).unwrap();
    assert_eq!(ghost.check_apply(NodeId(1), &apply(1)), Ok(()));
    assert_eq!(rule(ghost.check_apply(NodeId(3), &apply(1))), "S9");
    let mut other = apply(1);
    other.command = Some(Bytes::from_static(b"something"));
    assert_eq!(rule(ghost.check_apply(NodeId(1), &other)), "S2");
    assert_eq!(
        rule(ghost.applied(0, NodeId(1), &apply(2), None).map(drop)),
        "S9",
        "one was left out"
    );
}

fn config_entry(term: u64, index: u64, voters: &[u64], outgoing: &[u64]) -> Record {
    let set = |ids: &[u64]| ids.iter().copied().map(NodeId).collect();
    let content = Content::Config(Config {
        voters: set(voters),
        outgoing: set(outgoing),
        ..Config::default()
    });
    let at = LogId::new(term, index);
    Record::Entry {
        index: at.index,
        body: Entry { at, content }.encode(),
    }
}

/// A core whose log holds what the records say, and nothing is committed.
fn raft_of(id: u64, term: u64, records: &[Record]) -> Raft {
    let shape = |record: &Record| match record {
        Record::Entry { body, .. } => Some(quorate_node::entry::shape(body).unwrap().1),
        _ => None,
    };
    Raft::new(Restored {
        id: NodeId(id),
        hard: HardState {
            term: Term(term),
            ..HardState::default()
        },
        base: SnapMeta {
            last: LogId::ZERO,
            config: Config::of(ids()),
        },
        entries: records.iter().filter_map(shape).collect(),
        ..Restored::default()
    })
}

fn holds(records: Vec<Record>) -> Result<(), Violation> {
    let mut ghost = ghost();
    let core = raft_of(1, 1, &records);
    write(&mut ghost, 1, 1, records)?;
    ghost.stepped(NodeId(1), &core)
}

#[test]
fn configurations_out_of_order_are_rejected() {
    let joint = || config_entry(1, 2, &[1, 2, 4], &[1, 2, 3]);
    let all = |more: Vec<Record>| [vec![state(1, None, 0), entry(1, 1)], more].concat();
    assert_eq!(holds(all(vec![joint()])), Ok(()));
    let both = vec![joint(), config_entry(1, 3, &[1, 2, 4], &[])];
    assert_eq!(rule(holds(all(both))), "S11", "the first is not committed");
    let leap = vec![config_entry(1, 2, &[3, 4, 5], &[])];
    assert_eq!(rule(holds(all(leap))), "S11", "no joint configuration");
    let mut ghost = ghost();
    let core = raft(1, 1, &[1, 1], 0);
    write(&mut ghost, 1, 1, all(vec![joint()])).unwrap();
    assert_eq!(
        rule(ghost.stepped(NodeId(1), &core)),
        "S11",
        "acts on another configuration than the latest in its log"
    );
}

#[test]
fn a_commit_must_be_on_both_halves_of_a_joint_configuration() {
    let records = || {
        vec![
            state(1, None, 0),
            entry(1, 1),
            config_entry(1, 2, &[3, 4, 5], &[1, 2, 3]),
        ]
    };
    let committed = |on: &[u64]| {
        let mut ghost = ghost();
        (4..=5).for_each(|id| ghost.join(NodeId(id), Config::default()));
        for id in 1..=2 {
            write(&mut ghost, id, 1, vec![state(1, None, 0), entry(1, 1)]).unwrap();
        }
        ghost.stepped(NodeId(1), &raft(1, 1, &[1], 1)).unwrap();
        let rest = |id: u64| {
            if id < 3 {
                records()[2..].to_vec()
            } else {
                records()
            }
        };
        on.iter()
            .for_each(|id| write(&mut ghost, *id, 2, rest(*id)).unwrap());
        ghost.commits.push(
            Term(1),
            ghost.members[&NodeId(1)].durable.hash_at(Index(2)).unwrap(),
            Term(1),
        );
        ghost.counted_by = ghost.members[&NodeId(1)].volatile.config().clone();
        ghost.check_durable_quorum()
    };
    assert_eq!(rule(committed(&[1, 2, 3])), "S5", "one of the new half");
    assert_eq!(committed(&[1, 2, 3, 4]), Ok(()));
}

/// A leader that leaves a joint configuration counts by the new one as soon as that is in its own log, and not yet on its disk; and loses it.
#[test]
fn what_counted_a_commit_may_be_lost() {
    let committed = |on: &[u64]| {
        let mut ghost = Ghost::new(Config::of([NodeId(1), NodeId(2)]));
        ghost.join(NodeId(3), Config::default());
        let joint = || vec![state(1, None, 0), config_entry(1, 1, &[1, 2, 3], &[1, 2])];
        (1..=3).for_each(|id| write(&mut ghost, id, 1, joint()).unwrap());
        on.iter()
            .for_each(|id| write(&mut ghost, *id, 2, vec![entry(1, 2)]).unwrap());
        for index in [1, 2] {
            let hash = ghost.members[&NodeId(1)].durable.hash_at(Index(index)).unwrap();
            ghost.commits.push(Term(1), hash, Term(1));
        }
        ghost
    };
    let mut ghost = committed(&[1, 3]);
    assert_eq!(
        rule(ghost.check_durable_quorum()),
        "S5",
        "the joint one needs both of 1 and 2"
    );
    ghost.counted_by = Config::of([1, 2, 3].map(NodeId));
    assert_eq!(ghost.check_durable_quorum(), Ok(()));
    let mut ghost = committed(&[1]);
    ghost.counted_by = Config::of([1, 2, 3].map(NodeId));
    assert_eq!(rule(ghost.check_durable_quorum()), "S5");
}

#[test]
fn a_leader_needs_the_votes_of_a_quorum() {
    let mut ghost = ghost();
    write(&mut ghost, 1, 1, vec![state(1, Some(1), 0), entry(1, 1)]).unwrap();
    let core = raft(1, 1, &[1], 0);
    assert_eq!(rule(ghost.check_election(NodeId(1), &core)), "S11");
    ghost.votes.insert((NodeId(2), Term(1)), NodeId(1));
    assert_eq!(ghost.check_election(NodeId(1), &core), Ok(()));
}
