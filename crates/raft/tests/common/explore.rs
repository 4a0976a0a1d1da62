//! Seeded chance, and the one list of everything that may happen to a cluster, for the random explorations.

use std::collections::BTreeMap;

use quorate_base::{Index, NodeId};
use quorate_raft::{Body, Change, Input, Priority, Promote, RoleKind, Timer};

use super::clock::{T, TRUE};
use super::{Cluster, What};

/// A small generator of random numbers (SplitMix64): the same seed, the same run.
pub struct Chance(pub u64);

impl Chance {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

/// How often each kind of thing happened, so that a run that never did something is noticed.
pub type Seen = BTreeMap<&'static str, u64>;

/// How rough one run is: each run draws its own, since a cluster that is always disturbed gets nowhere, and one that never
/// is shows nothing.
pub struct Mood {
    /// Of so many messages one is lost, doubled, or reported as not sent.
    trouble: u64,
    /// Of so many messages one overtakes others.
    disorder: u64,
    /// Of so many election, freshness and check-quorum timers that could fire one does.
    patience: u64,
    /// Of so many crashes, cuts and transfers that could be one is.
    peace: u64,
    /// Of so many chances to let a node do all its work one is taken.
    sloth: u64,
    /// Of so many chances to change the membership one is taken.
    pub loyalty: u64,
    /// So many things happen.
    pub length: u64,
    /// Clocks run, and timers fire when they are due by them; lease reads are on. Otherwise timers fire at will.
    pub clocks: bool,
}

/// As many nodes as a cluster ever has, former members included.
const MOST: u64 = 7;

impl Mood {
    pub fn any(chance: &mut Chance) -> Mood {
        Mood {
            trouble: chance.pick(&[4, 20, 100, 1000]),
            disorder: chance.pick(&[2, 8, 1000]),
            patience: chance.pick(&[1, 5, 20]),
            peace: chance.pick(&[1, 3, 10]),
            sloth: chance.pick(&[1, 2, 10]),
            loyalty: chance.pick(&[1, 1, 4, 1000]),
            length: chance.pick(&[400, 800, 800, 2000]),
            clocks: chance.one_in(3),
        }
    }
}

/// Gives each node its manner, before the cluster's life begins.
pub fn equip(cluster: &mut Cluster, chance: &mut Chance, mood: &Mood) {
    for id in cluster.ids() {
        equip_node(cluster, chance, mood, id);
        cluster.restart(id);
    }
}

fn equip_node(cluster: &mut Cluster, chance: &mut Chance, mood: &Mood, id: NodeId) {
    let node = cluster.node(id);
    node.priority = chance.pick(&[Priority::Low, Priority::Normal, Priority::Normal, Priority::High]);
    node.leases = mood.clocks;
    node.clock.rate = TRUE + chance.below(TRUE / 8 + 1);
}

/// Lets one thing happen to the cluster.
pub fn disturb(cluster: &mut Cluster, chance: &mut Chance, mood: &Mood, seen: &mut Seen, token: &mut u64) {
    if mood.clocks {
        let leap = chance.one_in(100);
        cluster.pass(if leap {
            T / 2
        } else {
            chance.pick(&[0, 1, 2, 5, 10])
        });
        *seen.entry("would serve by its lease").or_default() += cluster.check_leases();
    }
    let id = chance.pick(&cluster.ids());
    if mood.clocks && chance.one_in(60) {
        return coup(cluster, chance, seen);
    }
    let what = match chance.below(108) {
        0..42 => return network(cluster, chance, mood, seen),
        42..46 if chance.one_in(mood.loyalty) => return churn(cluster, chance, mood, seen),
        100..104 if mood.clocks => "timer",
        100 if chance.one_in(mood.peace) => "stall",
        104..106 => return hint(cluster, chance, seen),
        106..108 if cluster.is_up(id) => "reachable",
        101..104 => return network(cluster, chance, mood, seen),
        46..48 if chance.one_in(mood.peace) => "crash",
        _ if !cluster.is_up(id) => "start",
        48..50 if chance.one_in(mood.sloth) => "rest",
        48..60 if chance.one_in(mood.sloth) => "settle",
        48..60 => "drain",
        60..68 => "persist",
        68..76 => "apply",
        76..84 => "timer",
        84..90 => "propose",
        90..93 => "read",
        93..95 => "compact",
        95..97 if chance.one_in(mood.peace) => "transfer",
        97..99 if chance.one_in(mood.peace) => "cut",
        99 => "heal",
        _ => "flush the machine",
    };
    match what {
        "crash" if cluster.is_up(id) => {
            let survive = chance.below(3) as usize;
            cluster.crash(id, survive);
        }
        // A node stays down for a while.
        "start" if chance.one_in(10) => cluster.start(id),
        "crash" | "start" => return,
        "rest" => cluster.run(),
        "settle" => cluster.settle(id),
        "drain" => drop(cluster.drain(id)),
        "persist" => drop(cluster.persist(id, 1 + chance.below(3) as usize)),
        "apply" => drop(cluster.apply(id)),
        "timer" => fire_any(cluster, chance, mood, id),
        // The driver says so only while a write is out.
        "stall" if cluster.nodes[&id].writes.is_empty() => return,
        "stall" => cluster.step(id, Input::DiskStalled),
        "reachable" => cluster.step(id, Input::Reachable(chance.pick(&cluster.ids()))),
        "propose" => {
            let to = cluster.leader().filter(|_| !chance.one_in(5)).unwrap_or(id);
            cluster.propose(to);
        }
        "read" => {
            *token += 1;
            cluster.read(id, *token);
        }
        "compact" => {
            let applied = cluster.nodes[&id].machine.applied;
            let keep = chance.pick(&[0, 0, 1, 4]);
            cluster.compact(id, Index(applied.0.saturating_sub(keep)));
        }
        "transfer" => {
            let to = (!chance.one_in(3)).then(|| chance.pick(&cluster.ids()));
            cluster.step(cluster.leader().unwrap_or(id), Input::Transfer(to));
        }
        "flush the machine" => cluster.flush_machine(id),
        "cut" => match chance.pick(&cluster.ids()) {
            other if other == id => cluster.isolate(id),
            other => drop(cluster.cut.insert((id, other))),
        },
        _ => cluster.heal(),
    }
    *seen.entry(what).or_default() += 1;
}

fn fire_any(cluster: &mut Cluster, chance: &mut Chance, mood: &Mood, id: NodeId) {
    if mood.clocks {
        let due = cluster.due(id);
        if !due.is_empty() {
            cluster.fire(id, chance.pick(&due));
        }
        return;
    }
    let timers: Vec<Timer> = cluster.nodes[&id].timers.iter().copied().collect();
    if timers.is_empty() {
        return;
    }
    let timer = chance.pick(&timers);
    let impatient = matches!(timer, Timer::Election | Timer::Fresh | Timer::Quorum);
    if !impatient || cluster.leader().is_none() || chance.one_in(mood.patience) {
        cluster.fire(id, timer);
    }
}

/// Some are told that a leader is dead, whether it is or not, and whether it leads or led at all. Those who believe it may be quick to elect another.
fn hint(cluster: &mut Cluster, chance: &mut Chance, seen: &mut Seen) {
    let any = chance.pick(&cluster.ids());
    let leader = cluster.leader().filter(|_| !chance.one_in(5)).unwrap_or(any);
    if cluster.is_up(leader) && chance.one_in(2) {
        cluster.crash(leader, chance.below(3) as usize);
    }
    let quick = chance.one_in(2);
    for id in cluster.ids() {
        if !cluster.is_up(id) || chance.one_in(3) {
            continue;
        }
        let before = cluster.raft(id).term();
        let term = if chance.one_in(8) { before.next() } else { before };
        let knew = cluster.raft(id).leader() == Some(leader);
        cluster.step(id, Input::LeaderDead { leader, term });
        *seen.entry("hint").or_default() += u64::from(knew && id != leader);
        let soon = chance.below(8);
        for _ in 0..soon {
            cluster.fire(id, Timer::Haste);
        }
        if quick {
            cluster.settle(id);
        }
    }
    if quick {
        cluster.run();
    }
}

/// A chain of events that leases fear, and that chance alone would hardly ever find: a member stops to hear the leader, later the leader
/// is cut off, others crash and come back or are told of newer terms, and all of them are quick to elect another.
fn coup(cluster: &mut Cluster, chance: &mut Chance, seen: &mut Seen) {
    let Some(leader) = cluster.leader() else {
        return;
    };
    *seen.entry("coup").or_default() += 1;
    let others: Vec<NodeId> = cluster.ids().into_iter().filter(|id| *id != leader).collect();
    if others.is_empty() {
        return;
    }
    cluster.heal();
    let rival = chance.pick(&others);
    cluster.cut.insert((leader, rival));
    let calm = chance.below(16);
    for _ in 0..calm {
        hurry(cluster);
    }
    if chance.one_in(2) && cluster.leader() == Some(leader) {
        churn_one(cluster, chance, leader);
        cluster.run();
    }
    if chance.one_in(4) {
        let to = chance.pick(&others);
        cluster.step(leader, Input::Transfer(Some(to)));
        cluster.settle(leader);
        cluster.run_to(&[to.0]);
    }
    cluster.isolate(leader);
    for id in others {
        if chance.one_in(2) && cluster.is_up(id) {
            cluster.crash(id, 0);
        }
        if !cluster.is_up(id) {
            cluster.start(id);
        }
    }
    for _ in 0..4 {
        if let Some(other) = cluster.leader().filter(|id| *id != leader) {
            cluster.propose(other);
        }
        hurry(cluster);
        *seen.entry("would serve by its lease").or_default() += cluster.check_leases();
    }
    cluster.heal();
}

/// A tenth of the election timeout passes, in which everybody does all there is to do.
fn hurry(cluster: &mut Cluster) {
    cluster.pass(T / 10);
    for id in cluster.ids() {
        for timer in cluster.due(id) {
            if cluster.is_up(id) {
                cluster.fire(id, timer);
            }
        }
    }
    cluster.run();
}

/// A member other than the leader is removed, by force.
fn churn_one(cluster: &mut Cluster, chance: &mut Chance, leader: NodeId) {
    let members: Vec<NodeId> = cluster.raft(leader).config().members().into_iter().collect();
    cluster.change(leader, &[Change::Remove(chance.pick(&members))], true);
}

/// Somebody asks for a change of the membership, sensible or not.
fn churn(cluster: &mut Cluster, chance: &mut Chance, mood: &Mood, seen: &mut Seen) {
    let any = chance.pick(&cluster.ids());
    let at = cluster.leader().filter(|_| !chance.one_in(5)).unwrap_or(any);
    if !cluster.is_up(at) {
        return;
    }
    let mut changes = Vec::new();
    let mut what = "";
    for _ in 0..chance.pick(&[1, 1, 1, 2, 3]) {
        let known: Vec<NodeId> = cluster.raft(at).config().members().into_iter().collect();
        let learners: Vec<NodeId> = cluster.raft(at).config().learners.keys().copied().collect();
        let about = vec![chance.below(3) as u8].into_boxed_slice();
        what = match chance.below(6) {
            0 | 1 if (cluster.nodes.len() as u64) < MOST => {
                let id = NodeId(cluster.nodes.len() as u64 + 1);
                cluster.join(id);
                equip_node(cluster, chance, mood, id);
                cluster.restart(id);
                let promote = chance.pick(&[Promote::Never, Promote::WhenCaughtUp]);
                changes.push(Change::AddLearner { id, promote, about });
                if chance.one_in(4) {
                    changes.push(Change::Promote(id));
                }
                "add"
            }
            2 | 3 if !learners.is_empty() => {
                changes.push(Change::Promote(chance.pick(&learners)));
                "promote"
            }
            4 if known.len() > 1 => {
                changes.push(Change::Remove(chance.pick(&known)));
                "remove"
            }
            5 if !known.is_empty() => {
                let id = chance.pick(&known);
                changes.push(Change::Describe { id, about });
                "describe"
            }
            _ => continue,
        };
    }
    if changes.is_empty() {
        return;
    }
    let force = chance.one_in(6);
    cluster.change(at, &changes, force);
    *seen.entry(if force { "force" } else { what }).or_default() += 1;
}

/// Something happens to one of the messages on their way: mostly it arrives, mostly in order.
fn network(cluster: &mut Cluster, chance: &mut Chance, mood: &Mood, seen: &mut Seen) {
    if cluster.network.is_empty() {
        return;
    }
    let at = if chance.one_in(mood.disorder) {
        chance.below(cluster.network.len() as u64)
    } else {
        0
    };
    let parcel = cluster.network.remove(at as usize).expect("within the queue");
    let what = match chance.below(3) {
        _ if !chance.one_in(mood.trouble) => {
            if at > 0 {
                "out of order"
            } else {
                "in order"
            }
        }
        0 => "loss",
        1 => "duplicate",
        _ => "not sent",
    };
    *seen.entry(what).or_default() += 1;
    match what {
        "loss" => cluster.lose(parcel),
        "duplicate" => {
            // The driver reports each snapshot once; messages may come any number of times.
            if matches!(parcel.what, What::Message(..)) {
                cluster.network.push_back(parcel.clone());
            }
            cluster.deliver(parcel);
        }
        "not sent" => {
            let (from, to) = (parcel.from, parcel.to);
            let first = match &parcel.what {
                What::Message(message, _) => match &message.body {
                    Body::Append { prev, .. } => Some(prev.index.next()),
                    _ => None,
                },
                _ => None,
            };
            cluster.lose(parcel);
            if let Some(first) = first.filter(|_| cluster.is_up(from)) {
                cluster.step(from, Input::NotSent { to, first });
            }
        }
        _ => cluster.deliver(parcel),
    }
}

/// All is well again: everyone runs, all messages arrive, timers fire as they would in peace. Within a bounded time
/// there must be one leader, whom all follow and equal, and who commits what is proposed.
pub fn must_recover(cluster: &mut Cluster, chance: &mut Chance) {
    cluster.heal();
    for id in cluster.ids() {
        if !cluster.is_up(id) {
            cluster.start(id);
        }
    }
    cluster.run();
    for _ in 0..100 {
        if is_whole(cluster) {
            return;
        }
        peace(cluster, chance);
    }
    panic!("a healed cluster must recover");
}

/// Every member follows one leader, a proposal reaches every state machine, and no change of the membership is left unfinished.
fn is_whole(cluster: &mut Cluster) -> bool {
    let Some(leader) = cluster.leader() else {
        return false;
    };
    let token = cluster.propose(leader);
    cluster.run();
    cluster.heartbeat(leader);
    let Some(placed) = cluster.nodes[&leader].placed.get(&token).copied() else {
        return false;
    };
    let machine = cluster.nodes[&leader].machine;
    let config = cluster.raft(leader).config();
    let waits = config
        .learners
        .values()
        .any(|promote| *promote == Promote::WhenCaughtUp);
    let settled = cluster.raft(leader).config_is_settled() && config.is_voter(leader) && !waits;
    settled
        && config.members().into_iter().all(|id| {
            let raft = cluster.raft(id);
            let follows =
                raft.leader() == Some(leader) && raft.last() == placed && raft.commit() == placed.index;
            follows && cluster.nodes[&id].machine == machine && machine.applied == placed.index
        })
}

/// One election timeout in which nothing is lost.
fn peace(cluster: &mut Cluster, chance: &mut Chance) {
    for _ in 0..3 {
        for id in cluster.ids() {
            cluster.fire(id, Timer::Heartbeat);
            cluster.run();
            cluster.fire(id, Timer::Read);
            cluster.run();
        }
    }
    // Who has a leader hears of it in time, so that only lonely nodes lose patience; one is always first.
    for id in cluster.ids() {
        cluster.fire(id, Timer::Quorum);
        cluster.fire(id, Timer::Transfer);
    }
    let led = |cluster: &Cluster, id: NodeId| {
        let leader = cluster.raft(id).leader();
        leader.is_some_and(|l| {
            cluster.raft(l).role() == RoleKind::Leader && cluster.raft(l).term() == cluster.raft(id).term()
        })
    };
    for id in cluster.ids() {
        if !led(cluster, id) {
            cluster.fire(id, Timer::Fresh);
        }
    }
    let lonely: Vec<NodeId> = cluster
        .ids()
        .into_iter()
        .filter(|id| !led(cluster, *id))
        .collect();
    if !lonely.is_empty() {
        cluster.fire(chance.pick(&lonely), Timer::Election);
    }
    cluster.run();
}
