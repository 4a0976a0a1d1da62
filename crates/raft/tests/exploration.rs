//! Random exploration: thousands of short lives of small clusters in which messages are lost, doubled and reordered, disks and
//! state machines lag as they please, nodes crash and come back from what was durable, logs are compacted and snapshots
//! installed, leadership is handed over, and everybody reads. All invariants hold throughout, and a healed cluster recovers.

mod common;

use std::panic::AssertUnwindSafe;

use common::explore::{Chance, Mood, Seen, disturb, equip, must_recover};
use common::{Cluster, n};
use quorate_raft::{ChangeEnd, Config, Limits, Promote};

/// A cluster of a random shape; small limits, so that flow control takes part.
fn any_cluster(chance: &mut Chance) -> Cluster {
    let config = match chance.below(8) {
        0 => Config::of([n(1)]),
        1 => Config::of([n(1), n(2)]),
        2 => Config::of((1..=5).map(n)),
        3 => Config {
            learners: [(n(3), Promote::Never)].into(),
            ..Config::of([n(1), n(2)])
        },
        4 => Config {
            outgoing: [n(2), n(3), n(4)].into(),
            ..Config::of([n(1), n(2), n(3)])
        },
        _ => Config::of((1..=3).map(n)),
    };
    let limits = Limits {
        max_append_bytes: chance.pick(&[15, 40, 1000]),
        max_inflight: chance.pick(&[1, 2, 10]),
        max_inflight_bytes: chance.pick(&[20, 1000]),
        max_uncommitted_bytes: chance.pick(&[60, 1000]),
    };
    Cluster::of(config, limits)
}

fn one_run(seed: u64, seen: &mut Seen) {
    let chance = &mut Chance(seed);
    let mut cluster = any_cluster(chance);
    // QUORATE_TRACE=1 prints the whole life of a run that is replayed.
    cluster.print = std::env::var_os("QUORATE_TRACE").is_some();
    let mood = Mood::any(chance);
    let mut token = 0;
    equip(&mut cluster, chance, &mood);
    if !chance.one_in(4) {
        cluster.elect(n(1));
    }
    for _ in 0..mood.length {
        disturb(&mut cluster, chance, &mood, seen, &mut token);
    }

    must_recover(&mut cluster, chance);
    *seen.entry("committed").or_default() += cluster.ghost.len().0;
    for node in cluster.nodes.values() {
        let served = node.reads.values().filter(|read| read.is_ok()).count();
        *seen.entry("served a read").or_default() += served as u64;
        let done = |end: &&ChangeEnd| matches!(end, ChangeEnd::Done(_));
        let changed = node.changed.values().filter(done).count();
        *seen.entry("changed the membership").or_default() += changed as u64;
        *seen.entry("installed a snapshot").or_default() += node.restored;
        *seen.entry("truncated the log").or_default() += node.truncated;
    }
}

#[test]
fn random_lives_keep_every_invariant_and_recover() {
    // QUORATE_SEEDS=N explores further; QUORATE_SEED=S replays one run.
    let number = |name| {
        std::env::var(name)
            .ok()
            .and_then(|value| value.parse::<u64>().ok())
    };
    let seeds = match number("QUORATE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("QUORATE_SEEDS").unwrap_or(2000),
    };
    let whole = seeds.end - seeds.start > 100;
    let mut seen = Seen::new();
    for seed in seeds {
        let run = std::panic::catch_unwind(AssertUnwindSafe(|| one_run(seed, &mut seen)));
        if let Err(panic) = run {
            eprintln!("replay: QUORATE_SEED={seed} cargo test -p quorate-raft --test exploration");
            std::panic::resume_unwind(panic);
        }
    }
    println!("{seen:?}");
    let kinds = [
        "crash",
        "start",
        "drain",
        "persist",
        "apply",
        "timer",
        "propose",
        "read",
        "compact",
        "transfer",
        "flush the machine",
        "settle",
        "cut",
        "heal",
        "loss",
        "duplicate",
        "not sent",
        "out of order",
        "in order",
        "committed",
        "installed a snapshot",
        "served a read",
        "truncated the log",
        "add",
        "promote",
        "remove",
        "describe",
        "force",
        "stall",
        "hint",
        "reachable",
        "changed the membership",
        "coup",
        "would serve by its lease",
    ];
    for kind in kinds.into_iter().filter(|_| whole) {
        assert!(
            seen.contains_key(kind) && seen[kind] > 0,
            "'{kind}' never happened"
        );
    }
}
