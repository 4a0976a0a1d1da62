//! Figure 7 of the Raft paper (Figure 3.6 of the thesis): when the leader at the top comes to power, a follower may be in any of the
//! states (a) to (f). Whatever it lacks is sent, whatever it has too much is removed, in one conflict per term at most.

mod common;

use common::{Cluster, n};
use quorate_base::Term;
use quorate_raft::RoleKind;

/// The leader's log, in terms; it leads term 8.
const LEADER: &[u64] = &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6];

/// The leader, two more that equal it and make it a leader, and the follower, n4, whose terms are `log`.
fn repaired(log: &[u64], conflicts_at_most: usize) {
    let mut c = Cluster::with_logs(&[LEADER, LEADER, LEADER, log], 7);
    c.trace = Some(Vec::new());
    c.isolate(n(4));
    c.elect(n(1));
    assert_eq!(
        (c.raft(n(1)).role(), c.raft(n(1)).term()),
        (RoleKind::Leader, Term(8))
    );
    c.heal();
    c.heartbeat(n(1));
    c.heartbeat(n(1));
    let mut whole = LEADER.to_vec();
    whole.push(8);
    assert_eq!(c.terms(n(4)), whole);
    assert_eq!(c.raft(n(4)).commit(), c.raft(n(1)).commit());
    assert_eq!(c.nodes[&n(4)].machine, c.nodes[&n(1)].machine);
    let conflicts = c
        .trace
        .unwrap()
        .iter()
        .filter(|line| line.contains("Conflict"))
        .count();
    assert!(conflicts <= conflicts_at_most, "{conflicts} conflicts");
}

#[test]
fn a_one_entry_missing() {
    repaired(&[1, 1, 1, 4, 4, 5, 5, 6, 6], 1);
}

#[test]
fn b_many_entries_missing() {
    repaired(&[1, 1, 1, 4], 1);
}

#[test]
fn c_one_entry_too_many() {
    repaired(&[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6], 1);
}

#[test]
fn d_entries_of_a_later_term_too_many() {
    repaired(&[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7], 1);
}

#[test]
fn e_entries_missing_and_too_many() {
    repaired(&[1, 1, 1, 4, 4, 4, 4], 2);
}

#[test]
fn f_two_whole_terms_too_many() {
    repaired(&[1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3], 3);
}
