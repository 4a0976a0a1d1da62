//! Figure 2 of the Raft paper (Figure 3.1 of the thesis), rule by rule: one test for each, named after it. Where the core does
//! better than the figure asks, the test says how.

#[path = "../common/mod.rs"]
mod common;
mod rpcs;
mod servers;

use common::{Cluster, n};
use quorate_base::Term;
use quorate_raft::{Body, EntryShape};

/// Entries of these terms.
pub fn shapes(terms: &[u64]) -> Vec<EntryShape> {
    let shape = |term: &u64| EntryShape {
        term: Term(*term),
        size: 10,
        config: None,
    };
    terms.iter().map(shape).collect()
}

/// Sends n2 a message as n1, lets it work, and returns what it says to n1.
pub fn answer(c: &mut Cluster, term: u64, body: Body) -> Vec<Body> {
    c.network.clear();
    c.message(n(1), n(2), term, body);
    c.settle(n(2));
    c.bodies(2, 1)
}

/// A request for a vote from one whose log ends in `last`.
pub fn vote(last: quorate_base::LogId) -> Body {
    Body::Vote {
        last,
        transfer: false,
    }
}
