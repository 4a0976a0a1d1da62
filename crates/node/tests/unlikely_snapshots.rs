//! Like `unlikely.rs`, for snapshots, cold reads and compaction: views that cannot be opened or read, answers about other transfers, reads
//! of the log that fail or come too late. Each test demands what must come of it, and that the branch was really reached.

mod common;
#[path = "../../wal/tests/common/disk.rs"]
mod disk;

use bytes::Bytes;
use common::Cluster;
use disk::MemDisk;
use quorate_base::{Index, LogId, NodeId, Term};
use quorate_node::{
    Effects, Event, NodeConfig, PeerMessage, SnapshotOp, SnapshotOutcome, StageOp, Staging, entry,
};
use quorate_raft::{Body, Config, Message, SnapMeta};

fn reached(mark: &str) {
    assert!(quorate_marks::hits(mark) > 0, "{mark} was not reached");
}

fn peer(from: u64, message: PeerMessage) -> Event {
    let from = NodeId(from);
    Event::Peer { from, message }
}

fn effects(cluster: &mut Cluster, id: u64) -> Effects {
    cluster.host(id).node.as_mut().expect("it runs").take_effects()
}

fn small(config: &mut NodeConfig) {
    (config.keep_entries, config.keep_bytes) = (5, 1 << 20);
}

/// A leader that is about to open a view for a follower that is too far behind: leader, follower, and the number of the transfer.
fn about_to_send() -> (Cluster, u64, u64, u64) {
    let mut cluster = Cluster::new(3, small);
    let leader = cluster.elect();
    let slow = cluster.follower();
    cluster.isolate(slow);
    for i in 0..40 {
        cluster.write(leader, format!("command {i:040}"));
    }
    for id in (1..=3).filter(|id| *id != slow) {
        cluster.flush(id);
    }
    cluster.settle();
    cluster.host(leader).open_stalled = true;
    cluster.heal();
    cluster.run_until("a view is to be opened", |cluster| {
        cluster.hosts[&NodeId(leader)].waits_for_view()
    });
    // Transfers are numbered from half the run's number on, which is a million times the member's, and one.
    let stream = leader * 500_000 + 1;
    (cluster, leader, slow, stream)
}

fn closes(cluster: &mut Cluster, leader: u64, stream: u64, mark: &str) {
    let ops = effects(cluster, leader).snapshots;
    let closed = |op: &SnapshotOp| matches!(op, SnapshotOp::Close { stream: closed } if *closed == stream);
    assert!(
        ops.iter().any(closed),
        "given up, to be tried again later: {ops:?}"
    );
    reached(mark);
}

#[test]
fn views_that_cannot_be_opened_or_read_end_the_transfer() {
    let (mut cluster, leader, _, stream) = about_to_send();
    cluster.step(leader, Event::SnapshotOpened { stream, at: None });
    closes(&mut cluster, leader, stream, "node.send_snapshot.no_view");

    let (mut cluster, leader, _, stream) = about_to_send();
    let at = Some(LogId::new(1, 1));
    cluster.step(leader, Event::SnapshotOpened { stream, at });
    closes(&mut cluster, leader, stream, "node.send_snapshot.view_before_log");

    let (mut cluster, leader, _, stream) = about_to_send();
    let at = Some(cluster.node(leader).raft().log().base().last);
    cluster.step(leader, Event::SnapshotOpened { stream, at });
    cluster.step(leader, Event::SnapshotChunk { stream, chunk: None });
    closes(&mut cluster, leader, stream, "node.send_snapshot.view_unreadable");
}

#[test]
fn an_answer_about_more_than_was_read_ends_the_transfer() {
    let (mut cluster, leader, slow, stream) = about_to_send();
    let at = Some(cluster.node(leader).raft().log().base().last);
    cluster.step(leader, Event::SnapshotOpened { stream, at });
    let (len, outcome) = (1 << 40, SnapshotOutcome::More);
    cluster.step(
        leader,
        peer(slow, PeerMessage::SnapshotAck { stream, len, outcome }),
    );
    closes(&mut cluster, leader, stream, "node.send_snapshot.of_another_view");
}

#[test]
fn a_sync_for_a_transfer_that_is_over_is_not_answered() {
    let mut staging = Staging::new(MemDisk::default().shared());
    assert!(staging.carry_out(StageOp::Sync { stream: 3 }).unwrap().is_none());
    reached("node.staging.of_former_stream");
}

/// Hands a follower a whole snapshot without bytes, up to `index`, and returns the number under which it stages it, and how it describes
/// it to itself.
fn send_empty(cluster: &mut Cluster, leader: u64, follower: u64, index: u64) -> (u64, Bytes) {
    let term = cluster.node(leader).raft().term();
    let meta = SnapMeta {
        last: LogId {
            term,
            index: Index(index),
        },
        config: cluster.node(leader).raft().config().clone(),
    };
    let stream = 5;
    cluster.step(
        follower,
        peer(leader, PeerMessage::SnapshotBegin { stream, term, meta }),
    );
    let (offset, bytes, crc, done) = (0, Bytes::new(), 0, true);
    let end = PeerMessage::SnapshotChunk {
        stream,
        term,
        offset,
        bytes,
        crc,
        done,
    };
    cluster.step(follower, peer(leader, end));
    let begun = effects(cluster, follower)
        .stage
        .into_iter()
        .find_map(|op| match op {
            StageOp::Begin { stream, about } => Some((stream, about)),
            _ => None,
        });
    begun.expect("it is staged")
}

#[test]
fn a_snapshot_whose_entries_came_while_it_was_staged_is_not_needed() {
    let mut cluster = Cluster::new(3, |_| {});
    let leader = cluster.elect();
    cluster.converge();
    let follower = cluster.follower();
    let end = cluster.node(leader).raft().last();
    let (stream, _) = send_empty(&mut cluster, leader, follower, end.index.0 + 1);
    let (term, index) = (end.term, end.index.next());
    let entries = vec![entry::encode_noop(LogId { term, index })];
    let append = PeerMessage::Append {
        term,
        prev: end,
        entries,
        commit: index,
    };
    cluster.step(follower, peer(leader, append));
    let (len, finished) = (0, true);
    cluster.step(
        follower,
        Event::Staged {
            stream,
            len,
            finished,
        },
    );
    reached("node.take_snapshot.staged_but_had");
    let done = |message: &PeerMessage| {
        matches!(
            message,
            PeerMessage::SnapshotAck {
                outcome: SnapshotOutcome::Done,
                ..
            }
        )
    };
    let effects = effects(&mut cluster, follower);
    assert!(
        effects.send.iter().any(|(_, message)| done(message)),
        "{:?}",
        effects.send
    );
    assert!(effects.stage.iter().any(|op| matches!(op, StageOp::Discard)));
}

#[test]
fn what_an_earlier_run_staged_of_a_former_leader_is_removed() {
    let mut cluster = Cluster::new(3, |_| {});
    let leader = cluster.elect();
    cluster.converge();
    let follower = cluster.follower();
    let (_, about) = send_empty(&mut cluster, leader, follower, 1000);

    let mut later = Cluster::new(3, |_| {});
    let leader = later.elect();
    later.step(leader, Event::Transfer(None));
    later.settle();
    let leader = later.elect();
    later.converge();
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    later.crash(follower);
    later.start(follower);
    later.host(follower).staging_stalled = true;
    later.converge();
    assert!(later.node(follower).raft().term() > Term(1));
    let (about, len, crc, end) = (Some(about), 0, 0, true);
    later.step(follower, Event::StageChecked { about, len, crc, end });
    reached("node.take_snapshot.remains_of_no_use");
    let stage = effects(&mut later, follower).stage;
    assert!(stage.iter().any(|op| matches!(op, StageOp::Discard)), "{stage:?}");
}

/// It is to apply entries that it has to read, and gets a snapshot that covers them.
#[test]
fn a_read_for_applying_that_comes_after_an_install_is_passed_over() {
    let mut cluster = Cluster::new(3, |_| {});
    let leader = cluster.elect();
    cluster.write(leader, "to be applied again");
    cluster.converge();
    let follower = cluster.follower();
    cluster.crash(follower);
    cluster.start(follower);
    cluster.host(follower).reads_stalled = true;
    cluster.run_until("it follows", |cluster| {
        cluster.node(follower).raft().leader() == Some(NodeId(leader))
    });
    cluster.settle();
    let (stream, _) = send_empty(&mut cluster, leader, follower, 1000);
    let (len, finished) = (0, true);
    cluster.step(
        follower,
        Event::Staged {
            stream,
            len,
            finished,
        },
    );
    let failed = || Err("nobody needs it".to_owned());
    for id in 1..=8 {
        cluster.step(follower, Event::LogRead { id, bodies: failed() });
    }
    reached("node.apply.read_overtaken_by_install");
    assert_eq!(effects(&mut cluster, follower).fatal, None);
}

#[test]
fn the_log_keeps_no_more_bytes_than_it_is_told_to() {
    let few: fn(&mut NodeConfig) = |config| (config.keep_entries, config.keep_bytes) = (1000, 500);
    let mut cluster = Cluster::new(1, few);
    cluster.settle();
    for i in 0..40 {
        cluster.write(1, format!("command {i:040}"));
    }
    cluster.flush(1);
    cluster.settle();
    let log = cluster.node(1).raft().log();
    let (base, last) = (log.base().last.index, log.last_index());
    assert!(base > Index::ZERO && log.bytes_between(base, last) <= 500);
    reached("node.compact.keeps_by_bytes");
}

#[test]
fn a_cluster_that_has_gone_beyond_this_release_is_the_end_of_this_node() {
    let mut cluster = Cluster::new(3, |_| {});
    let leader = cluster.elect();
    cluster.converge();
    let follower = cluster.follower();
    let prev = cluster.node(leader).raft().last();
    let mut config: Config = cluster.node(leader).raft().config().clone();
    config.level = 99;
    let at = LogId {
        term: prev.term,
        index: prev.index.next(),
    };
    let content = entry::Content::Config(config);
    let entries = vec![entry::Entry { at, content }.encode()];
    let (term, commit) = (prev.term, prev.index);
    cluster.step(
        follower,
        peer(
            leader,
            PeerMessage::Append {
                term,
                prev,
                entries,
                commit,
            },
        ),
    );
    let fatal = effects(&mut cluster, follower).fatal;
    assert!(fatal.is_some_and(|why| why.contains("upgrade")));
    reached("node.level.beyond_this_release");
}

/// A new leader goes back to an entry that its follower has long committed, and that has to be read in pieces: as soon as the follower says
/// so, the rest is not sent.
#[test]
fn what_is_acknowledged_while_it_is_read_is_not_sent() {
    let mut cluster = Cluster::new(3, |config| (config.cache_bytes, config.frame_bytes) = (300, 100));
    let leader = cluster.elect();
    for i in 0..20 {
        cluster.write(leader, format!("command {i:040}"));
    }
    cluster.converge();
    let (old, next) = (leader, cluster.follower());
    let answers = |message: &PeerMessage| match message {
        PeerMessage::Raft(message) => {
            matches!(
                message.body,
                Body::Appended { .. } | Body::HeartbeatResponse { .. }
            )
        }
        _ => false,
    };
    cluster.filter = Box::new(move |from, _, message| from != NodeId(old) || !answers(message));
    cluster.step(leader, Event::Transfer(Some(NodeId(next))));
    let leader = cluster.elect();
    assert_eq!(leader, next);
    cluster.settle();
    cluster.host(leader).reads_stalled = true;
    let (log, term) = (
        cluster.node(leader).raft().log(),
        cluster.node(leader).raft().term(),
    );
    let (prev, last) = (log.id_at(Index(5)).expect("in the log"), log.last_index());
    let (to, entries, commit) = (NodeId(old), Vec::new(), Index::ZERO);
    let message = PeerMessage::Append {
        term,
        prev,
        entries,
        commit,
    };
    cluster.step(leader, Event::Dropped { to, message });
    cluster.step(leader, Event::LinkUp(to));
    let appends = |effects: Effects| {
        let appends = |(_, message): &(NodeId, PeerMessage)| matches!(message, PeerMessage::Append { .. });
        effects.send.iter().filter(|sent| appends(sent)).count()
    };
    assert_eq!(appends(effects(&mut cluster, leader)), 0, "it has to be read");
    // Reads of the log are numbered; this one is the only one under way.
    let read = |cluster: &mut Cluster, index| {
        (1..100).any(|id| {
            let bodies = cluster.host(leader).log.read(Index(index), Index(index), 1);
            cluster.step(leader, Event::LogRead { id, bodies });
            appends(effects(cluster, leader)) > 0
        })
    };
    assert!(read(&mut cluster, 6), "the first piece goes");
    let body = Body::Appended { upto: last };
    cluster.step(leader, peer(old, PeerMessage::Raft(Message { term, body })));
    read(&mut cluster, 7);
    reached("node.fill.acknowledged_already");
}

/// It knows that all members understand more as soon as it leads, and may not say so yet.
#[test]
fn a_level_that_cannot_be_raised_yet_is_raised_later() {
    let mut cluster = Cluster::new(3, |config| config.features = 1);
    cluster.elect();
    cluster.converge();
    cluster.settings = |config| config.features = 2;
    for id in 1..=3 {
        cluster.crash(id);
    }
    for id in 1..=3 {
        cluster.start(id);
        for peer in (1..=3).filter(|peer| *peer != id).map(NodeId) {
            let features = 2;
            cluster.step(id, Event::Met { peer, features });
        }
    }
    let leader = cluster.elect();
    cluster.run_until("the level is raised", |cluster| {
        cluster.node(leader).raft().config().level == 2
    });
    reached("node.level.raise_refused");
}
