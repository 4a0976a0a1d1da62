//! Everything at once, by seed: members crash, restart, stall and are cut off, messages are lost, doubled and change places,
//! logs are compacted, while requests come in. A quick look that nothing panics and no promise is broken; the simulator
//! looks closer, with the real log and a real state machine.
//!
//! `QUORATE_CHAOS_SEED=n` runs one seed, `QUORATE_CHAOS_SEEDS=n` so many.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use common::{Cluster, Outcome, Random};
use quorate_base::{NodeId, Term};
use quorate_node::{Event, Failure, NodeConfig, PeerMessage};
use quorate_raft::RoleKind;

fn tight(config: &mut NodeConfig) {
    (config.cache_bytes, config.frame_bytes, config.apply_bytes) = (400, 200, 150);
    (config.keep_entries, config.keep_bytes) = (8, 1 << 20);
    (config.chunk_bytes, config.chunk_window) = (150, 3);
    (config.max_held, config.limits.max_uncommitted_bytes) = (8, 2000);
}

struct Run {
    cluster: Cluster,
    random: Random,
    /// The command of each proposal.
    proposals: BTreeMap<u64, Bytes>,
    /// Reads with the number of commands acknowledged when they were asked.
    reads: BTreeMap<u64, usize>,
    acknowledged: usize,
    /// Whose run a request belonged to: a crash takes its answer along.
    asked_at: BTreeMap<u64, u64>,
    leaders: BTreeMap<Term, NodeId>,
}

impl Run {
    fn new(seed: u64) -> Run {
        let mut cluster = Cluster::new(3 + 2 * (seed % 2), tight);
        cluster.disorder = Some(Random(seed ^ 0xabcd));
        let (random, leaders) = (Random(seed), BTreeMap::new());
        let (proposals, reads, asked_at) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Run {
            cluster,
            random,
            proposals,
            reads,
            acknowledged: 0,
            asked_at,
            leaders,
        }
    }

    fn running(&mut self) -> Option<u64> {
        let ids: Vec<u64> = self
            .cluster
            .hosts
            .iter()
            .filter(|(_, host)| host.node.is_some())
            .map(|(id, _)| id.0)
            .collect();
        (!ids.is_empty()).then(|| ids[self.random.below(ids.len() as u64) as usize])
    }

    fn act(&mut self) {
        let Some(id) = self.running() else {
            return self.start_one();
        };
        match self.random.below(52) {
            0..=15 => {
                let length = self.random.below(120) as usize;
                let command = Bytes::from(format!("{} {}", self.proposals.len(), "x".repeat(length)));
                let token = self.cluster.propose(id, command.clone());
                self.proposals.insert(token, command);
                self.asked_at.insert(token, id);
            }
            16..=21 => {
                let forward = self.random.below(4) > 0;
                let token = self.cluster.read(id, forward);
                self.reads.insert(token, self.acknowledged);
                self.asked_at.insert(token, id);
            }
            22..=23 => self.cluster.flush(id),
            24 => self.cluster.isolate(id),
            25..=26 => self.cluster.heal(),
            27 => {
                self.cluster.crash(id);
                self.asked_at.retain(|_, at| *at != id);
            }
            28..=29 => self.start_one(),
            30 => self.cluster.host(id).disk_stalled = true,
            31 => self.cluster.host(id).reads_stalled = true,
            32 => self.cluster.host(id).restore_stalled = true,
            33..=34 => self.cluster.unstall(id),
            35 => self.cluster.break_link(id),
            36 => self.cluster.step(id, Event::Transfer(None)),
            37 => self.lose_some(),
            38..=40 => self.lose_nothing(),
            _ => {
                let time = self.random.below(1_500_000_000);
                self.cluster.pass(time);
            }
        }
    }

    fn start_one(&mut self) {
        let down = self
            .cluster
            .hosts
            .iter()
            .find(|(_, host)| host.node.is_none())
            .map(|(id, _)| id.0);
        if let Some(id) = down {
            self.cluster.start(id);
        }
    }

    /// From now on every so many messages are lost, or refused by the sender's queue.
    fn lose_some(&mut self) {
        let mut random = Random(self.random.below(u64::MAX));
        let rate = 2 + random.below(40);
        let (mut filter, mut queue) = (random.clone(), random);
        self.cluster.filter = Box::new(move |_, _, _| filter.below(rate) > 0);
        self.cluster.queue = Box::new(move |_, _, message| {
            !matches!(message, PeerMessage::Append { .. } | PeerMessage::Forward { .. })
                || queue.below(rate) > 0
        });
    }

    fn lose_nothing(&mut self) {
        self.cluster.filter = Box::new(|_, _, _| true);
        self.cluster.queue = Box::new(|_, _, _| true);
    }

    fn check(&mut self) {
        for (id, host) in &self.cluster.hosts {
            let Some(raft) = host.node.as_ref().map(|node| node.raft()) else {
                continue;
            };
            quorate_raft::invariants::check(raft);
            if raft.role() == RoleKind::Leader {
                let leader = *self.leaders.entry(raft.term()).or_insert(*id);
                assert_eq!(leader, *id, "one leader a term (S1)");
            }
        }
        let applied = |token: &u64| matches!(self.cluster.outcomes.get(token), Some(Outcome::Applied(_)));
        self.acknowledged = self.proposals.keys().filter(|token| applied(token)).count();
        for (token, before) in &self.reads {
            if let Some(Outcome::Read(seen)) = self.cluster.outcomes.get(token) {
                assert!(
                    seen >= before,
                    "a read sees all that was acknowledged before it (S13)"
                );
            }
        }
    }

    /// Ends all faults and demands what must hold then. Returns how often what happened.
    fn finish(mut self) -> [(&'static str, usize); 6] {
        self.cluster.disorder = None;
        self.lose_nothing();
        self.cluster.heal();
        let ids: Vec<u64> = self.cluster.hosts.keys().map(|id| id.0).collect();
        for id in ids {
            self.cluster.unstall(id);
            self.start_one();
        }
        self.cluster.pass(2 * common::PATIENCE);
        self.cluster.write(1, "last");
        self.cluster.converge();
        let unanswered: Vec<_> = self
            .asked_at
            .keys()
            .filter(|token| !self.cluster.outcomes.contains_key(token))
            .collect();
        assert!(unanswered.is_empty(), "every request is answered: {unanswered:?}");
        let commands = &self.cluster.host(1).machine.commands;
        let distinct: BTreeSet<_> = commands.iter().cloned().collect();
        assert_eq!(distinct.len(), commands.len(), "nothing is done twice");
        for (token, command) in &self.proposals {
            match self.cluster.outcomes.get(token) {
                Some(Outcome::Applied(_)) => {
                    assert!(distinct.contains(command), "what was acknowledged is there")
                }
                Some(Outcome::Failed(Failure::NotDone(_))) => {
                    assert!(
                        !distinct.contains(command),
                        "what was not done is not there: {token}"
                    )
                }
                _ => {}
            }
        }
        self.tally()
    }

    fn tally(&self) -> [(&'static str, usize); 6] {
        let hosts = || self.cluster.hosts.values();
        let ended = |end: fn(&Outcome) -> bool| {
            self.cluster
                .outcomes
                .values()
                .filter(|outcome| end(outcome))
                .count()
        };
        [
            ("changes of leadership", self.leaders.len().saturating_sub(1)),
            ("snapshots taken over", hosts().map(|host| host.restores).sum()),
            ("cold reads", hosts().map(|host| host.cold_reads).sum()),
            (
                "requests applied",
                ended(|outcome| matches!(outcome, Outcome::Applied(_))),
            ),
            (
                "requests certainly not done",
                ended(|outcome| matches!(outcome, Outcome::Failed(Failure::NotDone(_)))),
            ),
            (
                "requests with unknown outcome",
                ended(|outcome| matches!(outcome, Outcome::Failed(Failure::Unknown(_)))),
            ),
        ]
    }
}

fn run(seed: u64) -> [(&'static str, usize); 6] {
    let mut run = Run::new(seed);
    for _ in 0..300 {
        run.act();
        for _ in 0..run.random.below(30) {
            run.cluster.advance();
            run.check();
        }
    }
    run.finish()
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn no_promise_is_broken_whatever_happens() {
    let seeds = match number("QUORATE_CHAOS_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("QUORATE_CHAOS_SEEDS").unwrap_or(60),
    };
    let mut happened = BTreeMap::new();
    for seed in seeds {
        println!("QUORATE_CHAOS_SEED={seed} repeats this");
        for (what, count) in run(seed) {
            *happened.entry(what).or_insert(0) += count;
        }
    }
    println!("{happened:?}");
    if number("QUORATE_CHAOS_SEED").is_none() {
        assert!(
            happened.values().all(|count| *count > 10),
            "everything has to happen: {happened:?}"
        );
    }
}
