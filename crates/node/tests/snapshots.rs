//! Snapshots to followers that are too far behind: with lost pieces, broken links, changing leaders and crashes.

mod common;

use std::cell::RefCell;
use std::rc::Rc;

use common::{Cluster, Outcome};
use quorate_base::{Index, NodeId};
use quorate_node::{Event, Failure, NodeConfig, PeerMessage, Reason, SnapshotOutcome};
use quorate_raft::RoleKind;

fn small(config: &mut NodeConfig) {
    (config.keep_entries, config.keep_bytes) = (5, 1 << 20);
    (config.chunk_bytes, config.chunk_window) = (100, 4);
}

/// A cluster whose member `.1` needs a snapshot from leader `.2`; still cut off.
fn behind() -> (Cluster, u64, u64) {
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
    let log = cluster.node(leader).raft().log();
    assert_eq!(
        log.last_index().0 - log.base().last.index.0,
        5,
        "the log keeps as much as it is told to"
    );
    (cluster, slow, leader)
}

/// Counts the messages that `wanted` picks.
fn count(wanted: impl Fn(&PeerMessage) -> bool + 'static) -> (Rc<RefCell<usize>>, impl Fn(&PeerMessage)) {
    let counter = Rc::new(RefCell::new(0));
    let inside = counter.clone();
    (counter, move |message: &PeerMessage| {
        *inside.borrow_mut() += usize::from(wanted(message))
    })
}

#[test]
fn a_follower_too_far_behind_gets_a_snapshot_and_goes_on_from_there() {
    let (mut cluster, slow, leader) = behind();
    cluster.heal();
    cluster.converge();
    assert_eq!(cluster.host(slow).restores, 1);
    assert_eq!(cluster.open_views(), 0, "views are closed");
    cluster.write(slow, "after");
    cluster.converge();
    cluster.crash(slow);
    cluster.start(slow);
    cluster.write(leader, "once more");
    cluster.converge();
    assert_eq!(cluster.host(slow).restores, 1, "the snapshot was kept");
}

#[test]
fn a_wiped_member_is_filled_from_a_snapshot() {
    let (mut cluster, slow, _) = behind();
    cluster.crash(slow);
    cluster.host(slow).log = common::LogDisk::default();
    cluster.host(slow).saved = common::Machine::default();
    cluster.start(slow);
    cluster.heal();
    cluster.converge();
    assert_eq!(cluster.host(slow).restores, 1);
}

#[test]
fn lost_pieces_are_sent_again() {
    let (mut cluster, slow, _) = behind();
    cluster.heal();
    let mut seen = 0;
    let (begins, tally) = count(|message| matches!(message, PeerMessage::SnapshotBegin { .. }));
    cluster.filter = Box::new(move |_, _, message| {
        tally(message);
        let part = matches!(
            message,
            PeerMessage::SnapshotChunk { .. } | PeerMessage::SnapshotAck { .. }
        );
        seen += usize::from(part);
        !part || seen % 5 != 0
    });
    cluster.converge();
    assert_eq!(cluster.host(slow).restores, 1);
    assert!(
        *begins.borrow() < 10,
        "a lost piece does not mean another transfer"
    );
}

#[test]
fn a_broken_link_does_not_cost_what_was_staged() {
    let (mut cluster, slow, leader) = behind();
    cluster.heal();
    let (chunks, tally) = count(|message| matches!(message, PeerMessage::SnapshotChunk { .. }));
    cluster.filter = Box::new(move |_, _, message| {
        tally(message);
        true
    });
    let staged = |cluster: &Cluster| cluster.hosts[&NodeId(slow)].staged();
    // Member by member and message by message, so that the link breaks in the middle.
    let pieces = chunks.clone();
    let enough = Rc::new(RefCell::new(false));
    let stop = enough.clone();
    cluster.queue = Box::new(move |_, _, message| {
        let chunk = matches!(message, PeerMessage::SnapshotChunk { .. });
        *stop.borrow_mut() |= *pieces.borrow() >= 10;
        !(chunk && *stop.borrow())
    });
    cluster.run_until("half of it", |cluster| *enough.borrow() && staged(cluster) >= 800);
    let before = staged(&cluster);
    cluster.break_link(slow);
    cluster.queue = Box::new(|_, _, _| true);
    cluster.step(leader, Event::LinkUp(NodeId(slow)));
    cluster.step(slow, Event::LinkUp(NodeId(leader)));
    cluster.settle();
    assert!(cluster.host(slow).restores == 1, "no timer is needed for it");
    assert!(before >= 800);
    let whole = cluster.host(leader).machine.encode().len() / 100;
    assert!(
        *chunks.borrow() < 10 + whole,
        "{} pieces for {whole}: what was staged was not sent again",
        chunks.borrow()
    );
    cluster.converge();
}

#[test]
fn a_damaged_piece_is_not_taken() {
    let (mut cluster, slow, leader) = behind();
    cluster.heal();
    let (refusals, tally) = count(|message| {
        matches!(
            message,
            PeerMessage::SnapshotAck {
                outcome: SnapshotOutcome::Refused,
                ..
            }
        )
    });
    let swapped = Rc::new(RefCell::new(None));
    let damaged = swapped.clone();
    cluster.filter = Box::new(move |_, _, message| {
        tally(message);
        match message {
            PeerMessage::SnapshotChunk {
                stream,
                term,
                offset: 0,
                bytes,
                crc,
                done,
            } if damaged.borrow().is_none() => {
                let mut bytes = bytes.to_vec();
                bytes[7] ^= 1;
                let (stream, term, bytes) = (*stream, *term, bytes.into());
                *damaged.borrow_mut() = Some(PeerMessage::SnapshotChunk {
                    stream,
                    term,
                    offset: 0,
                    bytes,
                    crc: *crc,
                    done: *done,
                });
                false
            }
            _ => true,
        }
    });
    cluster.run_until("the first piece", |_| swapped.borrow().is_some());
    let message = swapped.borrow().clone().unwrap();
    cluster.step(
        slow,
        Event::Peer {
            from: NodeId(leader),
            message,
        },
    );
    cluster.converge();
    assert!(*refusals.borrow() > 0);
    assert!(cluster.host(slow).restores == 1);
}

#[test]
fn a_full_disk_at_the_follower_ends_the_transfer_until_there_is_room() {
    let (mut cluster, slow, leader) = behind();
    cluster.host(slow).staging_room = 500;
    let (refusals, tally) = count(|message| {
        matches!(
            message,
            PeerMessage::SnapshotAck {
                outcome: SnapshotOutcome::Refused,
                ..
            }
        )
    });
    cluster.filter = Box::new(move |_, _, message| {
        tally(message);
        true
    });
    cluster.heal();
    cluster.run_until("a refusal", |_| *refusals.borrow() > 0);
    let before = cluster.node(leader).raft().log().base().last.index;
    (0..30).for_each(|i| cluster.write(leader, format!("later {i}")));
    cluster.flush(leader);
    cluster.run_until("the next attempt", |_| *refusals.borrow() > 2);
    cluster.flush(leader);
    assert!(
        cluster.node(leader).raft().log().base().last.index > before,
        "the log goes on"
    );
    cluster.host(slow).staging_room = usize::MAX;
    cluster.converge();
    assert_eq!(cluster.host(slow).restores, 1);
    assert_eq!(cluster.open_views(), 0);
}

#[test]
fn a_follower_that_stages_nothing_more_is_given_up() {
    let (mut cluster, slow, _) = behind();
    let host = cluster.host(slow);
    (host.staging_room, host.staging_silent) = (500, true);
    cluster.heal();
    cluster.run_until("the transfer", |cluster| cluster.open_views() > 0);
    let begun = std::rc::Rc::new(RefCell::new(std::collections::BTreeSet::new()));
    let streams = begun.clone();
    cluster.filter = Box::new(move |_, _, message| {
        if let PeerMessage::SnapshotBegin { stream, .. } = message {
            streams.borrow_mut().insert(*stream);
        }
        true
    });
    cluster.run_until("another transfer", |_| begun.borrow().len() > 1);
    cluster.host(slow).staging_room = usize::MAX;
    cluster.converge();
    assert_eq!(cluster.host(slow).restores, 1);
}

#[test]
fn a_view_that_opens_after_its_transfer_ended_is_closed() {
    let (mut cluster, slow, leader) = behind();
    cluster.host(leader).open_stalled = true;
    cluster.heal();
    cluster.run_until("a transfer", |cluster| {
        cluster.hosts[&NodeId(leader)].waits_for_view()
    });
    let other = (1..=3).find(|id| *id != slow && *id != leader).unwrap();
    cluster.step(leader, Event::Transfer(Some(NodeId(other))));
    cluster.run_until("the new leader", |cluster| cluster.leader() == Some(other));
    cluster.converge();
    cluster.unstall(leader);
    cluster.settle();
    assert_eq!(cluster.open_views(), 0);
}

#[test]
fn a_crash_between_install_and_takeover_is_made_good_at_the_start() {
    let (mut cluster, slow, leader) = behind();
    cluster.host(slow).restore_stalled = true;
    cluster.heal();
    cluster.run_until("the install", |cluster| {
        cluster.hosts[&NodeId(slow)].log.last() >= Index(40) && cluster.hosts[&NodeId(slow)].restores == 0
    });
    cluster.crash(slow);
    assert!(cluster.host(slow).machine.applied.index < Index(40));
    cluster.start(slow);
    assert_eq!(cluster.host(slow).restores, 1, "before anything else");
    cluster.write(leader, "after");
    cluster.converge();
}

/// A leader that was cut off with proposals of its own while the others went on, and has been given their snapshot, which its machine has
/// not taken over yet. Also the first of the proposals.
fn deposed(proposals: u64) -> (Cluster, u64, u64) {
    let mut cluster = Cluster::new(3, small);
    let old = cluster.elect();
    cluster.isolate(old);
    let first = cluster.propose(old, "lost");
    for i in 1..proposals {
        cluster.propose(old, format!("lost {i}"));
    }
    let others: Vec<u64> = (1..=3).filter(|id| *id != old).collect();
    let leads = |cluster: &Cluster, id: &u64| cluster.node(*id).raft().role() == RoleKind::Leader;
    cluster.run_until("a leader of the others", |cluster| {
        others.iter().any(|id| leads(cluster, id))
    });
    let new = *others.iter().find(|id| leads(&cluster, id)).expect("just seen");
    (0..40).for_each(|i| cluster.write(new, format!("command {i:040}")));
    others.iter().for_each(|id| cluster.flush(*id));
    cluster.settle();
    assert!(!cluster.outcomes.contains_key(&first), "it cannot know yet");
    cluster.host(old).restore_stalled = true;
    cluster.heal();
    cluster.run_until("the install", |cluster| {
        let raft = cluster.node(old).raft();
        raft.log().base().last.index > Index(30) && raft.durable() > Index(30)
    });
    (cluster, old, first)
}

/// A snapshot covers what was proposed: nobody can say any more what became of that, and nobody waits for it either.
#[test]
fn a_proposal_covered_by_a_snapshot_is_answered_at_once() {
    let (cluster, old, lost) = deposed(1);
    assert_eq!(cluster.hosts[&NodeId(old)].restores, 0, "nothing is applied yet");
    assert_eq!(
        cluster.outcomes.get(&lost),
        Some(&Outcome::Failed(Failure::Unknown(Reason::LeaderChanged)))
    );
}

/// The install leaves nothing of a log that was longer than the snapshot, and conflicts with what follows it.
#[test]
fn a_crash_after_an_install_finds_no_conflicting_tail() {
    let (mut cluster, old, _) = deposed(60);
    let tail = cluster.node(old).raft().last();
    assert!(tail.index < Index(50), "60 entries were there: {tail}");
    cluster.crash(old);
    cluster.start(old);
    assert_eq!(cluster.host(old).restores, 1);
    assert!(cluster.node(old).raft().last() <= tail);
    cluster.converge();
}

#[test]
fn a_crash_before_the_install_leaves_nothing_behind() {
    let (mut cluster, slow, _) = behind();
    cluster.heal();
    cluster.filter = Box::new(
        |_, _, message| !matches!(message, PeerMessage::SnapshotChunk { offset, .. } if *offset > 500),
    );
    cluster.run_until("a part of it", |cluster| {
        cluster.hosts[&NodeId(slow)].staged() >= 500
    });
    cluster.crash(slow);
    cluster.start(slow);
    cluster.settle();
    cluster.filter = Box::new(|_, _, _| true);
    cluster.converge();
    assert_eq!(cluster.host(slow).restores, 1);
}

#[test]
fn a_new_leader_sends_its_own_snapshot() {
    let (mut cluster, slow, leader) = behind();
    cluster.heal();
    cluster.filter =
        Box::new(|_, _, message| !matches!(message, PeerMessage::SnapshotChunk { done: true, .. }));
    cluster.run_until("most of it", |cluster| {
        cluster.hosts[&NodeId(slow)].staged() > 1000
    });
    let other = (1..=3).find(|id| *id != slow && *id != leader).unwrap();
    cluster.step(leader, Event::Transfer(Some(NodeId(other))));
    cluster.run_until("the new leader", |cluster| cluster.leader() == Some(other));
    cluster.filter = Box::new(|_, _, _| true);
    cluster.converge();
    assert_eq!(cluster.open_views(), 0, "the old leader's view is closed");
}

#[test]
fn several_followers_are_served_at_once() {
    let mut cluster = Cluster::new(5, small);
    let leader = cluster.elect();
    let slow: Vec<u64> = (1..=5).filter(|id| *id != leader).take(2).collect();
    slow.iter().for_each(|id| cluster.isolate(*id));
    (0..40).for_each(|i| cluster.write(leader, format!("command {i:040}")));
    cluster.flush(leader);
    cluster.settle();
    cluster.heal();
    cluster.converge();
    assert!(slow.iter().all(|id| cluster.hosts[&NodeId(*id)].restores == 1));
}

#[test]
fn the_log_keeps_what_follows_a_snapshot_under_way() {
    let (mut cluster, slow, leader) = behind();
    cluster.heal();
    cluster.filter = Box::new(|_, _, message| !matches!(message, PeerMessage::SnapshotChunk { .. }));
    cluster.run_until("the transfer", |cluster| {
        cluster.hosts[&NodeId(slow)].staging.is_some()
    });
    let covered = cluster.host(leader).machine.applied.index;
    (0..30).for_each(|i| cluster.write(leader, format!("later {i}")));
    cluster.flush(leader);
    cluster.settle();
    assert!(cluster.node(leader).raft().log().base().last.index <= covered);
    cluster.filter = Box::new(|_, _, _| true);
    cluster.converge();
    assert_eq!(cluster.host(slow).restores, 1, "one snapshot is enough");
}
