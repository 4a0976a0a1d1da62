//! What snapshot transfers cost: the shared rate, what a restart of either side repeats, how failures are spaced, and several
//! followers at once. Whether what arrives is right is for `snapshots.rs`.

mod common;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use common::Cluster;
use quorate_base::{Index, NodeId};
use quorate_node::event::{Nanos, StreamId};
use quorate_node::{Event, NodeConfig, PeerMessage, SnapshotOutcome};

const SECOND: Nanos = 1_000_000_000;
const RATE: u64 = 10_000;
const WINDOW: usize = 4;

fn small(config: &mut NodeConfig) {
    (config.keep_entries, config.keep_bytes) = (5, 1 << 20);
    (config.chunk_bytes, config.chunk_window) = (100, WINDOW);
}

fn slow(config: &mut NodeConfig) {
    small(config);
    config.snapshot_rate = RATE;
}

/// What went over the network.
#[derive(Clone, Default)]
struct Traffic(Rc<RefCell<Tally>>);

#[derive(Default)]
struct Tally {
    /// Bytes of pieces to each follower, and of all to any, in order.
    bytes: BTreeMap<NodeId, u64>,
    order: Vec<NodeId>,
    streams: BTreeSet<StreamId>,
    /// Those that the follower refused.
    refused: BTreeSet<StreamId>,
}

impl Traffic {
    /// Counts whatever is sent from now on, and lets it pass.
    fn of(cluster: &mut Cluster) -> Traffic {
        let traffic = Traffic::default();
        let inside = traffic.clone();
        cluster.filter = Box::new(move |_, to, message| {
            inside.count(to, message);
            true
        });
        traffic
    }

    fn count(&self, to: NodeId, message: &PeerMessage) {
        let mut tally = self.0.borrow_mut();
        match message {
            PeerMessage::SnapshotBegin { stream, .. } => drop(tally.streams.insert(*stream)),
            PeerMessage::SnapshotChunk { bytes, .. } => {
                *tally.bytes.entry(to).or_default() += bytes.len() as u64;
                tally.order.push(to);
            }
            PeerMessage::SnapshotAck {
                stream,
                outcome: SnapshotOutcome::Refused,
                ..
            } => drop(tally.refused.insert(*stream)),
            _ => {}
        }
    }

    fn to(&self, id: u64) -> u64 {
        self.0.borrow().bytes.get(&NodeId(id)).copied().unwrap_or(0)
    }

    fn streams(&self) -> usize {
        self.0.borrow().streams.len()
    }

    fn refused(&self) -> usize {
        self.0.borrow().refused.len()
    }
}

/// A cluster of `n` whose leader has dropped the log that the last members of `behind` need; those are still cut off.
fn behind(n: u64, behind: usize, settings: fn(&mut NodeConfig)) -> (Cluster, Vec<u64>, u64) {
    let mut cluster = Cluster::new(n, settings);
    let leader = cluster.elect();
    let slow: Vec<u64> = (1..=n).filter(|id| *id != leader).take(behind).collect();
    slow.iter().for_each(|id| cluster.isolate(*id));
    (0..100).for_each(|i| cluster.write(leader, format!("command {i:0200}")));
    let ids: Vec<u64> = (1..=n).filter(|id| !slow.contains(id)).collect();
    ids.into_iter().for_each(|id| cluster.flush(id));
    cluster.settle();
    (cluster, slow, leader)
}

fn size(cluster: &Cluster, id: u64) -> u64 {
    cluster.hosts[&NodeId(id)].machine.encode().len() as u64
}

fn staged(cluster: &Cluster, id: u64) -> usize {
    cluster.hosts[&NodeId(id)].staged()
}

fn restores(cluster: &Cluster, id: u64) -> usize {
    cluster.hosts[&NodeId(id)].restores
}

/// How long until all of these have taken over a snapshot.
fn until_restored(cluster: &mut Cluster, ids: &[u64]) -> Nanos {
    let began = cluster.now;
    cluster.run_until("the snapshot", |cluster| {
        ids.iter().all(|id| restores(cluster, *id) == 1)
    });
    cluster.now - began
}

#[test]
fn a_transfer_keeps_to_the_rate_and_the_leader_to_its_heartbeats() {
    let (mut cluster, slow, leader) = behind(3, 1, slow);
    let term = cluster.node(leader).raft().term();
    let bytes = size(&cluster, leader);
    cluster.heal();
    let took = until_restored(&mut cluster, &slow);
    let least = bytes * SECOND / RATE - SECOND / 10;
    assert!(took > least, "{bytes} bytes in {took} ns");
    assert!(took < least + 5 * SECOND, "{bytes} bytes in {took} ns");
    cluster.converge();
    assert_eq!(
        cluster.node(leader).raft().term(),
        term,
        "nobody missed a heartbeat"
    );
    assert!(took > 2 * SECOND, "long enough to miss one");
}

#[test]
fn a_rate_below_one_piece_a_second_repeats_nothing() {
    fn settings(config: &mut NodeConfig) {
        slow(config);
        (config.chunk_bytes, config.snapshot_rate) = (8000, 2500);
    }
    let (mut cluster, slow, leader) = behind(3, 1, settings);
    let traffic = Traffic::of(&mut cluster);
    let bytes = size(&cluster, leader);
    cluster.heal();
    until_restored(&mut cluster, &slow);
    assert_eq!(traffic.to(slow[0]), bytes);
    assert_eq!(traffic.streams(), 1);
}

#[test]
fn two_followers_share_the_rate_in_turns() {
    let (mut cluster, slow, leader) = behind(5, 2, slow);
    let traffic = Traffic::of(&mut cluster);
    let bytes = size(&cluster, leader);
    cluster.heal();
    let took = until_restored(&mut cluster, &slow);
    let least = 2 * bytes * SECOND / RATE - SECOND / 10;
    assert!(took > least, "twice {bytes} bytes in {took} ns");
    assert!(took < least + 5 * SECOND, "twice {bytes} bytes in {took} ns");
    // The first may have begun before the second; from then on neither gets ahead.
    let order = traffic.0.borrow().order.clone();
    let both = order
        .iter()
        .position(|to| *to != order[0])
        .expect("both are served");
    let mut lead = 0i64;
    for to in &order[both..order.len() - both - 2 * WINDOW] {
        lead += if *to == NodeId(slow[0]) { 1 } else { -1 };
        assert!(lead.unsigned_abs() as usize <= WINDOW, "in turns: {order:?}");
    }
}

#[test]
fn of_four_followers_a_hanging_and_a_dead_one_do_not_hold_up_the_others() {
    let (mut cluster, behind, leader) = behind(9, 4, slow);
    let [hanging, dead, first, second] = behind[..] else {
        panic!("four are behind")
    };
    let traffic = Traffic::of(&mut cluster);
    let bytes = size(&cluster, leader);
    cluster.host(hanging).staging_stalled = true;
    cluster.heal();
    cluster.run_until("all four transfers", |cluster| {
        traffic.to(hanging) > 0 && [dead, first, second].iter().all(|id| staged(cluster, *id) > 1000)
    });
    cluster.isolate(dead);
    let took = until_restored(&mut cluster, &[first, second]);
    assert!(took < 3 * bytes * SECOND / RATE, "they took {took} ns");
    assert_eq!(restores(&cluster, hanging) + restores(&cluster, dead), 0);
    cluster.unstall(hanging);
    cluster.heal();
    cluster.converge();
    assert_eq!(cluster.open_views(), 0);
}

#[test]
fn a_restart_of_the_receiver_repeats_nothing_that_was_durable() {
    let (mut cluster, slow, leader) = behind(3, 1, slow);
    let (slow, bytes) = (slow[0], size(&cluster, leader));
    let traffic = Traffic::of(&mut cluster);
    cluster.heal();
    cluster.run_until("half of it", |cluster| staged(cluster, slow) as u64 > bytes / 2);
    cluster.crash(slow);
    let durable = staged(&cluster, slow) as u64;
    assert!(durable > bytes / 3, "most of it was synced");
    cluster.pass(5 * SECOND);
    cluster.start(slow);
    until_restored(&mut cluster, &[slow]);
    let again = (WINDOW * 100) as u64;
    assert!(
        traffic.to(slow) <= bytes + again,
        "{} bytes were sent for {bytes}",
        traffic.to(slow)
    );
    assert_eq!(traffic.streams(), 1);
    cluster.converge();
}

#[test]
fn a_crash_at_any_operation_of_the_receiver_repeats_next_to_nothing() {
    for ops in 0.. {
        let (mut cluster, slow, leader) = behind(3, 1, small);
        let (slow, bytes) = (slow[0], size(&cluster, leader));
        let traffic = Traffic::of(&mut cluster);
        cluster.host(slow).staging_ops = ops;
        cluster.heal();
        cluster.run_until("the crash or the end", |cluster| {
            let host = &cluster.hosts[&NodeId(slow)];
            host.waits_for_staging() || host.restores == 1
        });
        let crashes = restores(&cluster, slow) == 0;
        cluster.crash(slow);
        cluster.start(slow);
        cluster.converge();
        assert_eq!(restores(&cluster, slow), 1, "crash after {ops} operations");
        let again = (2 * WINDOW * 100) as u64;
        assert!(traffic.to(slow) <= bytes + again, "crash after {ops} operations");
        let left = cluster.host(slow).staging.is_some();
        assert!(!left, "crash after {ops} operations");
        if !crashes {
            assert!(ops > 100, "the transfer is too short to tell: {ops}");
            return;
        }
    }
}

#[test]
fn a_view_waits_for_a_receiver_whose_machine_starts_anew() {
    let (mut cluster, slow, leader) = behind(3, 1, slow);
    let (slow, bytes) = (slow[0], size(&cluster, leader));
    let traffic = Traffic::of(&mut cluster);
    cluster.heal();
    cluster.run_until("some of it", |cluster| staged(cluster, slow) > 2000);
    cluster.crash(slow);
    (0..3).for_each(|_| cluster.pass(10 * SECOND));
    cluster.start(slow);
    until_restored(&mut cluster, &[slow]);
    assert_eq!(traffic.streams(), 1);
    assert!(traffic.to(slow) <= bytes + (WINDOW * 100) as u64);
    // But not for ever, or it would keep the log.
    let (mut cluster, slow, _) = behind(3, 1, small);
    cluster.host(slow[0]).staging_stalled = true;
    cluster.heal();
    cluster.run_until("the transfer", |cluster| cluster.open_views() == 1);
    cluster.crash(slow[0]);
    (0..12).for_each(|_| cluster.pass(10 * SECOND));
    assert_eq!(cluster.open_views(), 0);
}

#[test]
fn a_receiver_that_lost_part_of_what_it_had_acknowledged_gets_another_snapshot() {
    let (mut cluster, slow, leader) = behind(3, 1, small);
    let (slow, bytes) = (slow[0], size(&cluster, leader));
    let traffic = Traffic::of(&mut cluster);
    let pieces = traffic.clone();
    cluster.queue = Box::new(move |_, to, message| {
        !(matches!(message, PeerMessage::SnapshotChunk { .. }) && pieces.to(to.0) > 5000)
    });
    cluster.heal();
    cluster.run_until("a part", |cluster| staged(cluster, slow) > 5000);
    cluster.crash(slow);
    cluster.queue = Box::new(|_, _, _| true);
    let staging = cluster.host(slow).staging.as_mut().expect("a part is staged");
    staging.bytes.truncate(3000);
    staging.synced = 3000;
    cluster.start(slow);
    until_restored(&mut cluster, &[slow]);
    assert_eq!(traffic.streams(), 2);
    assert!(traffic.to(slow) <= bytes + 6000, "one whole snapshot more");
}

#[test]
fn what_was_staged_of_a_transfer_that_ended_does_not_stay() {
    let (mut cluster, slow, leader) = behind(3, 1, slow);
    let slow = slow[0];
    cluster.heal();
    cluster.run_until("some of it", |cluster| staged(cluster, slow) > 2000);
    cluster.crash(slow);
    let other = (1..=3).find(|id| *id != slow && *id != leader).expect("three");
    cluster.step(leader, Event::Transfer(Some(NodeId(other))));
    cluster.run_until("the new leader", |cluster| cluster.leader() == Some(other));
    // Its term reaches the restarted member, and no snapshot.
    cluster.filter = Box::new(|_, _, message| !matches!(message, PeerMessage::SnapshotBegin { .. }));
    cluster.start(slow);
    assert!(staged(&cluster, slow) > 2000);
    cluster.run_until("its end", |cluster| {
        cluster.hosts[&NodeId(slow)].staging.is_none()
    });
}

#[test]
fn failures_are_spaced_further_and_further_apart() {
    let (mut cluster, slow, leader) = behind(3, 1, small);
    let slow = slow[0];
    cluster.host(slow).staging_room = 500;
    let traffic = Traffic::of(&mut cluster);
    cluster.heal();
    let mut failures = Vec::new();
    for _ in 0..9 {
        let before = traffic.refused();
        // Longer than any pause of the cluster's patience allows for.
        for _ in 0..100 {
            if traffic.refused() == before {
                cluster.pass(SECOND);
            }
        }
        assert!(traffic.refused() > before, "it is tried again");
        failures.push(cluster.now);
    }
    let pauses: Vec<u64> = failures
        .windows(2)
        .map(|pair| (pair[1] - pair[0]) / SECOND)
        .collect();
    for (n, pause) in pauses.iter().enumerate() {
        let expected = 1u64 << n.min(6);
        assert!((expected..=expected + 3).contains(pause), "{pauses:?}");
    }
    // A new connection may mean that what was wrong has been set right: no pause.
    let before = traffic.refused();
    cluster.break_link(slow);
    cluster.step(leader, Event::LinkUp(NodeId(slow)));
    cluster.step(slow, Event::LinkUp(NodeId(leader)));
    cluster.pass(SECOND / 2);
    assert_eq!(traffic.refused(), before + 1);
    // And the pauses are short again.
    cluster.host(slow).staging_room = usize::MAX;
    let took = until_restored(&mut cluster, &[slow]);
    assert!(took < 4 * SECOND, "{took}");
    assert_eq!(cluster.open_views(), 0);
}

#[test]
fn while_a_transfer_rests_the_log_may_go() {
    let (mut cluster, slow, leader) = behind(3, 1, small);
    let slow = slow[0];
    cluster.host(slow).staging_room = 500;
    let traffic = Traffic::of(&mut cluster);
    cluster.heal();
    cluster.run_until("some failures", |_| traffic.refused() == 4);
    cluster.settle();
    assert_eq!(cluster.open_views(), 0, "nothing is pinned meanwhile");
    let before = cluster.node(leader).raft().log().base().last;
    (0..30).for_each(|i| cluster.write(leader, format!("later {i}")));
    cluster.flush(leader);
    assert!(cluster.node(leader).raft().log().base().last > before);
    cluster.host(slow).staging_room = usize::MAX;
    cluster.converge();
}

#[test]
fn a_view_of_more_than_the_leader_would_keep_in_a_crash_holds_nothing() {
    let (mut cluster, slow, leader) = behind(3, 1, self::slow);
    let slow = slow[0];
    (0..30).for_each(|i| cluster.write(leader, format!("later {i}")));
    let applied = cluster.node(leader).applied();
    cluster.heal();
    cluster.run_until("a part of it", |cluster| staged(cluster, slow) > 500);
    cluster.step(leader, Event::MachineDurable(Index(applied.0 - 10)));
    cluster.converge();
    assert_eq!(restores(&cluster, slow), 1);
}

#[test]
fn a_follower_slower_than_the_log_grows_does_not_hold_it_for_ever() {
    fn settings(config: &mut NodeConfig) {
        slow(config);
        (config.hold_bytes, config.snapshot_rate) = (5000, 2000);
    }
    let (mut cluster, slow, leader) = behind(3, 1, settings);
    let slow = slow[0];
    let traffic = Traffic::of(&mut cluster);
    cluster.heal();
    cluster.run_until("a part of it", |cluster| staged(cluster, slow) > 1000);
    let held = cluster.node(leader).raft().log().base().last;
    // At most four times what the follower has taken in, and what is kept in any case.
    let bound = |cluster: &Cluster| 5000 + 4 * staged(cluster, slow) as u64;
    let mut freed = false;
    for i in 0..200 {
        let before = bound(&cluster);
        cluster.write(leader, format!("later {i:0200}"));
        cluster.flush(leader);
        let log = cluster.node(leader).raft().log();
        let kept = log.bytes_between(log.base().last.index, log.last_index());
        assert!(kept < before + 1000, "{kept} bytes are kept");
        freed |= log.base().last > held;
    }
    assert!(freed, "the first transfer was given up");
    cluster.converge();
    assert!(traffic.streams() > 1);
}
