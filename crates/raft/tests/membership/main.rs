//! Chapter 4 of the thesis, rule by rule: one test for each, named after it; and what belongs to it here: handing over to who should
//! lead instead, and leases. The invariants S5 and S11 are checked after every step by the harness.

mod catching_up;
mod changes;
#[path = "../common/mod.rs"]
mod common;
mod handover;
mod leases;
mod leaving;

use common::{Cluster, n};
use quorate_base::NodeId;
use quorate_raft::{Change, ChangeEnd, ChangeRefused, Config, Limits, Promote, RoleKind, Timer};

/// Adds a learner.
pub fn add(id: u64, promote: Promote) -> Change {
    Change::AddLearner {
        id: n(id),
        promote,
        about: Box::default(),
    }
}

/// Promotes a learner.
pub fn promote(id: u64) -> Change {
    Change::Promote(n(id))
}

/// Removes a member.
pub fn remove(id: u64) -> Change {
    Change::Remove(n(id))
}

/// Voters 1 to `voters`, learners after them up to `all`; n1 leads, and has heard of everyone.
pub fn led(voters: u64, all: u64) -> Cluster {
    let config = Config {
        learners: (voters + 1..=all).map(|id| (n(id), Promote::Never)).collect(),
        ..Config::of((1..=voters).map(n))
    };
    let mut c = Cluster::of(config, Limits::default());
    c.elect(n(1));
    c.heartbeat(n(1));
    c
}

/// An election timeout passes for a leader: heartbeats are answered, and then it looks who did.
pub fn timeout_passes(c: &mut Cluster, leader: u64) {
    c.heartbeat(n(leader));
    c.fire(n(leader), Timer::Quorum);
    c.run();
}

/// Everyone stops to count on the leader.
pub fn nobody_is_fresh(c: &mut Cluster) {
    for id in c.ids() {
        if c.is_up(id) {
            c.fire(id, Timer::Fresh);
        }
    }
}

/// How a change ended that was asked of `at`.
pub fn end(c: &Cluster, at: u64, token: u64) -> Option<ChangeEnd> {
    c.nodes[&n(at)].changed.get(&token).copied()
}

/// Why a change is refused right away.
pub fn refusal(c: &mut Cluster, at: u64, changes: &[Change]) -> Option<ChangeRefused> {
    let token = c.change(n(at), changes, false);
    c.drain(n(at));
    match end(c, at, token) {
        Some(ChangeEnd::Refused(why)) => Some(why),
        _ => None,
    }
}

/// The voters as node `at` knows them, and those of the old configuration.
pub fn voters(c: &Cluster, at: u64) -> (Vec<u64>, Vec<u64>) {
    let config = c.raft(n(at)).config();
    let list = |ids: &std::collections::BTreeSet<NodeId>| ids.iter().map(|id| id.0).collect();
    (list(&config.voters), list(&config.outgoing))
}

/// The role of a node.
pub fn role(c: &Cluster, id: u64) -> RoleKind {
    c.raft(n(id)).role()
}
