//! Entries on their way: cold reads for slow followers, ranges overtaken meanwhile, full queues, restarts.

mod common;

use bytes::Bytes;
use common::{Cluster, Outcome};
use quorate_base::{Index, LogId, NodeId, Term};
use quorate_node::{BootError, Event, MachineOp, NodeConfig, PeerMessage};
use quorate_raft::{Body, RoleKind};

fn small_cache(config: &mut NodeConfig) {
    config.cache_bytes = 300;
    config.frame_bytes = 200;
    config.apply_bytes = 150;
}

/// A cluster whose member `.1` has missed 50 entries of leader `.2`, which has none of them in its cache any more.
fn behind(settings: fn(&mut NodeConfig)) -> (Cluster, u64, u64) {
    let mut cluster = Cluster::new(3, settings);
    let leader = cluster.elect();
    let slow = cluster.follower();
    cluster.isolate(slow);
    for i in 0..50 {
        cluster.write(leader, format!("command {i:040}"));
    }
    (cluster, slow, leader)
}

#[test]
fn a_slow_follower_gets_cold_entries_from_the_log() {
    let (mut cluster, _, leader) = behind(small_cache);
    assert_eq!(cluster.host(leader).cold_reads, 0);
    cluster.heal();
    cluster.converge();
    assert!(
        cluster.host(leader).cold_reads > 5,
        "the entries did not fit the cache"
    );
    assert_eq!(cluster.leader(), Some(leader));
}

/// A leader whose log is damaged where a follower has to go on ends. If it went on asking the log in vain, the follower would get nothing for
/// ever, and nobody would know why.
#[test]
fn a_leader_that_cannot_read_what_a_follower_needs_ends() {
    let (mut cluster, slow, leader) = behind(small_cache);
    cluster.host(leader).damaged = true;
    cluster.heal();
    cluster.pass(2_000_000_000);
    let why = cluster.host(leader).ended.clone();
    assert!(why.is_some_and(|why| why.contains("cannot be read from the log: damaged")));
    cluster.elect();
    cluster.run_until("the follower to get on", |cluster| {
        cluster.node(slow).raft().commit() >= Index(50)
    });
}

#[test]
fn entries_that_take_long_to_read_are_not_asked_for_again_at_every_heartbeat() {
    let catch_up = |stalled_for| {
        let (mut cluster, _, leader) = behind(small_cache);
        cluster.host(leader).reads_stalled = true;
        cluster.heal();
        // Heartbeats go on meanwhile, and the follower says to each that it has nothing of what the core thinks was sent.
        cluster.pass(stalled_for);
        cluster.unstall(leader);
        cluster.converge();
        cluster.host(leader).cold_reads
    };
    let (soon, late) = (catch_up(200_000_000), catch_up(5_000_000_000));
    assert!(
        late <= soon + 5,
        "{late} reads after a long stall, {soon} after a short one"
    );
}

#[test]
fn a_cold_read_that_ends_after_the_leadership_is_passed_over() {
    let (mut cluster, _, leader) = behind(small_cache);
    cluster.host(leader).reads_stalled = true;
    cluster.heal();
    cluster.pass(300_000_000);
    cluster.isolate(leader);
    cluster.run_until("another leader", |cluster| {
        let term = cluster.node(leader).raft().term();
        cluster.hosts.values().any(|host| {
            host.node
                .as_ref()
                .is_some_and(|n| n.raft().role() == RoleKind::Leader && n.raft().term() > term)
        })
    });
    cluster.heal();
    cluster.elect();
    cluster.unstall(leader);
    cluster.write(leader, "last");
    cluster.converge();
}

#[test]
fn an_entry_compacted_while_it_was_being_read_is_replaced_by_a_snapshot() {
    let (mut cluster, slow, leader) = behind(|config| {
        small_cache(config);
        (config.keep_entries, config.keep_bytes) = (0, 0);
    });
    cluster.host(leader).reads_stalled = true;
    cluster.heal();
    cluster.pass(300_000_000);
    cluster.flush(leader);
    cluster.settle();
    assert!(
        cluster.node(leader).raft().log().first() > Index(50),
        "the log was compacted"
    );
    cluster.unstall(leader);
    cluster.converge();
    assert_eq!(cluster.host(slow).restores, 1);
}

#[test]
fn a_full_queue_is_reported_and_made_good() {
    let mut cluster = Cluster::new(3, |config| config.frame_bytes = 100);
    let leader = cluster.elect();
    let slow = NodeId(cluster.follower());
    // Room for three Appends between two heartbeats.
    let mut room = 3;
    cluster.queue = Box::new(move |_, to, message| {
        if to != slow {
            return true;
        }
        match message {
            PeerMessage::Raft(message) if matches!(message.body, Body::Heartbeat { .. }) => room = 3,
            PeerMessage::Append { .. } if room == 0 => return false,
            PeerMessage::Append { .. } => room -= 1,
            _ => {}
        }
        true
    });
    let tokens: Vec<_> = (0..40)
        .map(|i| cluster.propose(leader, format!("command {i}")))
        .collect();
    tokens
        .into_iter()
        .for_each(|token| assert!(matches!(cluster.outcome(token), Outcome::Applied(_))));
    cluster.converge();
}

#[test]
fn nothing_is_applied_before_it_is_durable_here_and_at_a_majority() {
    let mut cluster = Cluster::new(3, |_| {});
    let leader = cluster.elect();
    (1..=3)
        .filter(|id| *id != leader)
        .for_each(|id| cluster.host(id).disk_stalled = true);
    let token = cluster.propose(leader, "a");
    cluster.settle();
    assert!(
        !cluster.outcomes.contains_key(&token),
        "only the leader has it on disk"
    );
    let follower = cluster.follower();
    cluster.unstall(follower);
    cluster.settle();
    assert!(cluster.outcomes.contains_key(&token));
    let third = (1..=3).find(|id| *id != leader && *id != follower).unwrap();
    assert_eq!(
        cluster.host(third).machine.commands.len(),
        0,
        "it knows of the commit, and not durably of the entry"
    );
    cluster.unstall(third);
    cluster.converge();
}

#[test]
fn a_leaders_own_disk_may_be_the_slow_one() {
    let mut cluster = Cluster::new(3, |_| {});
    let leader = cluster.elect();
    cluster.host(leader).disk_stalled = true;
    let (own, other) = (
        cluster.propose(leader, "a"),
        cluster.propose(cluster.follower(), "b"),
    );
    cluster.settle();
    assert!(
        matches!(cluster.outcomes.get(&other), Some(Outcome::Applied(_))),
        "two followers are a majority"
    );
    assert!(
        !cluster.outcomes.contains_key(&own),
        "the leader applies what its own disk has"
    );
    cluster.unstall(leader);
    assert!(matches!(cluster.outcome(own), Outcome::Applied(_)));
}

#[test]
fn everything_acknowledged_survives_a_crash_of_all() {
    let mut cluster = Cluster::new(3, small_cache);
    let leader = cluster.elect();
    for i in 0..30 {
        cluster.write(leader, format!("command {i}"));
    }
    cluster.flush(1);
    let term = cluster.node(leader).raft().term();
    (1..=3).for_each(|id| cluster.crash(id));
    (1..=3).for_each(|id| cluster.start(id));
    assert!(
        (1..=3).all(|id| cluster.node(id).raft().term() >= term),
        "terms never fall"
    );
    cluster.elect();
    cluster.write(2, "after");
    cluster.converge();
    assert_eq!(cluster.host(3).machine.commands.len(), 31);
    assert!(
        cluster.host(2).cold_reads > 0,
        "what the machine lost was applied again from the log"
    );
}

#[test]
fn what_was_not_written_is_gone_and_never_acknowledged() {
    let mut cluster = Cluster::new(1, |_| {});
    cluster.write(1, "a");
    cluster.host(1).disk_stalled = true;
    let lost = cluster.propose(1, "b");
    cluster.settle();
    cluster.crash(1);
    cluster.start(1);
    cluster.write(1, "c");
    assert_eq!(cluster.outcomes.get(&lost), None);
    assert_eq!(
        cluster.host(1).machine.commands,
        [Bytes::from("a"), Bytes::from("c")]
    );
}

#[test]
fn the_initial_configuration_founds_the_cluster_once() {
    let mut cluster = Cluster::new(3, |_| {});
    cluster.elect();
    let config = cluster.node(1).raft().config().clone();
    cluster.crash(1);
    let mut boot = quorate_node::Boot::new();
    cluster
        .host(1)
        .log
        .records()
        .into_iter()
        .for_each(|record| boot.record(record));
    assert!(!boot.is_fresh());
    let other = quorate_raft::Config::of([NodeId(9)]);
    let (node, ops) = boot
        .finish(
            NodeConfig::new(NodeId(1), 5, 5),
            Some(other),
            LogId::ZERO,
            Index::ZERO,
        )
        .unwrap();
    assert_eq!(node.raft().config(), &config);
    assert!(
        matches!(ops[..], [MachineOp::Level(level)] if level == config.level),
        "{ops:?}"
    );
}

#[test]
fn a_store_that_does_not_fit_the_log_is_refused() {
    let (mut cluster, _, leader) = behind(|config| (config.keep_entries, config.keep_bytes) = (10, 1 << 20));
    cluster.flush(leader);
    cluster.settle();
    cluster.crash(leader);
    let good = cluster.host(leader).saved.clone();
    let last = good.applied;
    let mut start_with = |applied| {
        cluster.host(leader).saved.applied = applied;
        cluster.try_start(leader).err()
    };
    let behind = LogId {
        index: Index(3),
        ..last
    };
    assert!(matches!(
        start_with(behind),
        Some(BootError::MachineBehind { .. })
    ));
    let ahead = LogId {
        index: Index(1000),
        ..last
    };
    assert!(matches!(start_with(ahead), Some(BootError::MachineAhead { .. })));
    let other = LogId {
        term: Term(77),
        ..last
    };
    assert!(matches!(start_with(other), Some(BootError::Diverged { .. })));
    assert_eq!(start_with(last), None);
    cluster.heal();
    cluster.elect();
    cluster.converge();
}

#[test]
fn garbage_in_an_append_is_passed_over() {
    let mut cluster = Cluster::new(3, |_| {});
    let leader = cluster.elect();
    let (follower, before) = (cluster.follower(), cluster.now);
    cluster.write(leader, "a");
    let (term, last) = (
        cluster.node(leader).raft().term(),
        cluster.node(follower).raft().last(),
    );
    let far = LogId {
        index: Index(u64::MAX),
        term,
    };
    for (prev, entries) in [
        (last, vec![Bytes::from_static(b"no entry")]),
        (
            far,
            vec![quorate_node::entry::encode_noop(LogId {
                index: Index(0),
                term,
            })],
        ),
        (last, vec![quorate_node::entry::encode_noop(last)]),
        (
            LogId {
                index: Index(u64::MAX - 1),
                term,
            },
            vec![quorate_node::entry::encode_noop(far)],
        ),
        (far, vec![]),
    ] {
        let message = PeerMessage::Append {
            term,
            prev,
            entries,
            commit: Index(u64::MAX),
        };
        cluster.step(
            follower,
            Event::Peer {
                from: NodeId(leader),
                message,
            },
        );
    }
    cluster.settle();
    assert_eq!(cluster.node(follower).raft().last(), last);
    assert_eq!(cluster.now, before);
    cluster.write(leader, "b");
    cluster.converge();
}

/// Each body names its own index, and one that is not the next spoils the whole message.
#[test]
fn a_batch_with_a_gap_in_its_indexes_is_passed_over() {
    let mut cluster = Cluster::new(3, |_| {});
    let leader = cluster.elect();
    let follower = cluster.follower();
    let term = cluster.node(leader).raft().term();
    let prev = cluster.node(follower).raft().last();
    let noop = |ahead| {
        quorate_node::entry::encode_noop(LogId {
            index: Index(prev.index.0 + ahead),
            term,
        })
    };
    for ahead in [[1, 3], [2, 3], [1, 1]] {
        let message = PeerMessage::Append {
            term,
            prev,
            entries: ahead.map(noop).into(),
            commit: prev.index,
        };
        let from = NodeId(leader);
        cluster.step(follower, Event::Peer { from, message });
        assert_eq!(cluster.node(follower).raft().last(), prev, "{ahead:?}");
    }
}

#[test]
fn an_old_append_over_cold_entries_leaves_no_gap_in_the_cache() {
    let mut cluster = Cluster::new(3, |_| {});
    let leader = cluster.elect();
    let follower = cluster.follower();
    let old = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let kept = old.clone();
    cluster.filter = Box::new(move |_, to, message| {
        if to == NodeId(follower) && matches!(message, PeerMessage::Append { .. }) {
            kept.borrow_mut().push(message.clone());
        }
        true
    });
    (0..5).for_each(|i| cluster.write(leader, format!("{i}")));
    cluster.flush(follower);
    cluster.crash(follower);
    cluster.start(follower);
    cluster.run_until("news of the leader", |cluster| {
        cluster.node(follower).raft().leader() == Some(NodeId(leader))
    });
    let first = old.borrow()[1].clone();
    cluster.step(
        follower,
        Event::Peer {
            from: NodeId(leader),
            message: first,
        },
    );
    cluster.write(leader, "after");
    cluster.converge();
}
