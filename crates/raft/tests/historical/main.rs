//! Bugs that really happened in Raft implementations, as far as they could live in this crate: for each a test that would catch it
//! here. The names say what went wrong; where it was seen: ER etcd-io/raft, RR tikv/raft-rs, OR openraft, HC hashicorp/raft, DB
//! dragonboat, SJ sofa-jraft, LC LogCabin, RP Redpanda, NU NuRaft.
//!
//! Not here, since they cannot happen at this layer: state files rewritten in place (the log's business), gaps inside a batch (an Append
//! carries no indexes but the first), imported snapshots, answers stranded by a snapshot (the node's business). That each test notices
//! its bug is checked by `proof/kill-table`, which puts the bugs in.

#[path = "../common/mod.rs"]
mod common;
mod leadership;
mod membership;
mod reads;
mod replication;
mod snapshots;
mod votes;

use common::{Cluster, What, at, i, n, noop};
use quorate_base::Term;
use quorate_raft::{
    Body, Change, ChangeEnd, ChangeRefused, Config, EntryShape, Input, Limits, Promote, RoleKind, SnapMeta,
    Timer,
};

/// A request for a vote from one whose log ends in `last`.
pub fn vote(last: quorate_base::LogId) -> Body {
    Body::Vote {
        last,
        transfer: false,
    }
}

/// Entries of these terms.
pub fn shapes(terms: &[u64]) -> Vec<EntryShape> {
    let shape = |term: &u64| EntryShape {
        term: Term(*term),
        size: 10,
        config: None,
    };
    terms.iter().map(shape).collect()
}

/// n1 of a cluster of this size, campaigning in term 1, with nothing on its disk yet.
pub fn unwritten_candidate(count: u64) -> Cluster {
    let mut c = Cluster::new(count);
    c.node(n(1)).slow_disk = true;
    c.message(n(2), n(1), 0, Body::TimeoutNow);
    c.settle(n(1));
    assert_eq!(c.raft(n(1)).role(), RoleKind::Candidate);
    c
}
