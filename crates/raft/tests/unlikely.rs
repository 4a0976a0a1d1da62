//! Turns of one follower that a cluster takes rarely: a leader that takes back what it sent, truncations and installs that overtake each
//! other before they are written, and a restart between an install and the swap. Each test demands what must come of it, and that the
//! branch it was written for was really reached.

use quorate_base::{Index, LogId, NodeId, Term};
use quorate_raft::{
    Body, Config, EntryShape, HardState, Input, Message, Outgoing, Raft, Restored, SnapMeta, Write,
};

fn reached(mark: &str) {
    assert!(quorate_marks::hits(mark) > 0, "{mark} was not reached");
}

fn config() -> Config {
    Config::of([NodeId(1), NodeId(2), NodeId(3)])
}

fn entries(terms: &[u64]) -> Vec<EntryShape> {
    let shape = |term: &u64| EntryShape {
        term: Term(*term),
        size: 10,
        config: None,
    };
    terms.iter().map(shape).collect()
}

/// Node 2 with a log of these terms, of which `commit` entries are known to be committed and applied.
fn node(terms: &[u64], commit: u64) -> Raft {
    let term = Term(*terms.last().expect("a log"));
    let hard = HardState {
        term,
        vote: None,
        commit: Index(commit),
    };
    Raft::new(Restored {
        id: NodeId(2),
        hard,
        base: SnapMeta {
            last: LogId::ZERO,
            config: config(),
        },
        entries: entries(terms),
        applied: Index(commit),
        ..Restored::default()
    })
}

fn message(raft: &mut Raft, from: u64, term: u64, body: Body) {
    let (from, term) = (NodeId(from), Term(term));
    raft.step(Input::Message {
        from,
        message: Message { term, body },
    });
}

fn append(raft: &mut Raft, from: u64, term: u64, prev: (u64, u64), terms: &[u64]) {
    let (prev, entries, commit) = (LogId::new(prev.0, prev.1), entries(terms), Index::ZERO);
    message(
        raft,
        from,
        term,
        Body::Append {
            prev,
            entries,
            commit,
        },
    );
}

fn staged(raft: &mut Raft, from: u64, term: u64, index: u64) {
    let meta = Box::new(SnapMeta {
        last: LogId::new(1, index),
        config: config(),
    });
    let (from, term) = (NodeId(from), Term(term));
    raft.step(Input::SnapshotStaged { from, term, meta });
}

fn write(raft: &mut Raft) -> Write {
    raft.take_effects().write.expect("there is something to write")
}

/// Acknowledgements that are let go.
fn acknowledged(raft: &mut Raft) -> Vec<Index> {
    let upto = |sent: Outgoing| match sent {
        Outgoing::Message { message, .. } => match message.body {
            Body::Appended { upto } => Some(upto),
            _ => None,
        },
        _ => None,
    };
    raft.take_effects().send.into_iter().filter_map(upto).collect()
}

/// No correct leader does so in one term; but what this follower then calls equal must be so.
#[test]
fn a_leader_that_takes_back_what_it_sent_is_followed_no_further_than_it_goes() {
    let mut raft = node(&[1], 1);
    append(&mut raft, 1, 2, (1, 1), &[1, 1]);
    append(&mut raft, 1, 2, (1, 1), &[2]);
    reached("raft.append.takes_back_verified");
    assert_eq!(raft.last(), LogId::new(2, 2));
    message(&mut raft, 1, 2, Body::Commit { index: Index(3) });
    assert_eq!(raft.commit(), Index(2), "not beyond what is equal");
}

#[test]
fn a_truncation_before_another_is_written_reaches_as_far_as_the_further_one() {
    let mut raft = node(&[1, 1, 1], 0);
    append(&mut raft, 1, 2, (1, 2), &[2]);
    append(&mut raft, 3, 3, (1, 1), &[3]);
    reached("raft.truncate.again_before_written");
    let write = write(&mut raft);
    assert_eq!(write.truncate_after, Some(Index(1)));
    assert_eq!(write.append.map(|range| range.last), Some(LogId::new(3, 2)));
}

/// The first write, of three entries, is still under way when two of them are truncated: its end makes the one durable, not the new ones.
#[test]
fn a_truncation_of_what_is_being_written_counts_when_that_is_done() {
    let mut raft = node(&[1], 1);
    append(&mut raft, 1, 2, (1, 1), &[2, 2, 2]);
    let first = write(&mut raft);
    append(&mut raft, 3, 3, (2, 2), &[3, 3]);
    reached("raft.truncate.of_write_in_flight");
    let second = write(&mut raft);
    raft.step(Input::Persisted(first.id));
    assert_eq!(raft.durable(), Index(2));
    assert_eq!(
        acknowledged(&mut raft),
        [],
        "that of term 2 is worth nothing, that of term 3 waits"
    );
    raft.step(Input::Persisted(second.id));
    assert_eq!(raft.durable(), Index(4));
    assert_eq!(acknowledged(&mut raft), [Index(4)]);
}

#[test]
fn an_install_before_another_is_written_takes_its_place() {
    let mut raft = node(&[1], 1);
    append(&mut raft, 1, 1, (1, 1), &[]);
    staged(&mut raft, 1, 1, 10);
    staged(&mut raft, 1, 1, 20);
    reached("raft.install.over_unwritten_install");
    let write = write(&mut raft);
    assert_eq!(write.installed.map(|meta| meta.last), Some(LogId::new(1, 20)));
    raft.step(Input::Persisted(write.id));
    let restored = raft.take_effects().restore.map(|meta| meta.last);
    assert_eq!(restored, Some(LogId::new(1, 20)));
}

#[test]
fn of_two_installs_that_become_durable_together_the_later_one_is_restored() {
    let mut raft = node(&[1], 1);
    append(&mut raft, 1, 1, (1, 1), &[]);
    staged(&mut raft, 1, 1, 10);
    write(&mut raft);
    staged(&mut raft, 1, 1, 20);
    let second = write(&mut raft);
    raft.step(Input::Persisted(second.id));
    reached("raft.install.two_at_once");
    let restored = raft.take_effects().restore.map(|meta| meta.last);
    assert_eq!(restored, Some(LogId::new(1, 20)));
}

#[test]
fn a_restart_between_an_install_and_the_swap_knows_what_the_snapshot_covers() {
    let last = LogId::new(1, 20);
    let raft = Raft::new(Restored {
        id: NodeId(2),
        hard: HardState {
            term: Term(1),
            vote: None,
            commit: Index(3),
        },
        base: SnapMeta {
            last,
            config: config(),
        },
        applied: Index(3),
        ..Restored::default()
    });
    reached("raft.restart.installed_before_restored");
    assert_eq!((raft.commit(), raft.applied()), (last.index, last.index));
}
