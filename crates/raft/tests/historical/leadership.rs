//! Leases that outlast leadership, and leaders that can do nothing.

use super::*;
use common::clock::LEASE;

fn leasing() -> Cluster {
    let mut c = Cluster::new(3);
    for id in c.ids() {
        c.node(id).leases = true;
        c.restart(id);
    }
    c.elect(n(1));
    c.heartbeat(n(1));
    assert!(c.lease_read(n(1)).is_some());
    c
}

/// OR #1747, ER #99: the old leader went on serving reads while the new one committed.
#[test]
fn a_lease_survives_leadership_transfer() {
    let mut c = leasing();
    c.step(n(1), Input::Transfer(Some(n(3))));
    c.settle(n(1));
    // n1 says so to n3, and hears nothing any more.
    c.cut.extend([(n(2), n(1)), (n(3), n(1))]);
    c.run();
    assert_eq!((c.raft(n(1)).role(), c.leader()), (RoleKind::Leader, Some(n(3))));
    c.propose(n(3));
    c.run();
    assert!(c.ghost.len() > c.raft(n(1)).commit(), "others have moved on");
    assert_eq!(c.lease_read(n(1)), None);
}

/// RR #140, ER #166: a leader that no quorum answers keeps no lease until it notices, and does notice.
#[test]
fn a_lease_without_check_quorum_or_longer() {
    let mut c = leasing();
    c.isolate(n(1));
    for _ in 0..3 {
        c.heartbeat(n(1));
    }
    c.pass(LEASE);
    assert_eq!(
        (c.raft(n(1)).role(), c.lease_read(n(1))),
        (RoleKind::Leader, None)
    );
    c.fire(n(1), Timer::Quorum);
    c.fire(n(1), Timer::Quorum);
    assert_eq!(c.raft(n(1)).role(), RoleKind::Follower);
    // And voters that heard the leader within its lease elect nobody else.
    let mut c = leasing();
    c.isolate(n(1));
    c.pass(LEASE - 1);
    c.fire(n(2), Timer::Election);
    c.run();
    assert_eq!(c.leader(), Some(n(1)));
    assert!(c.lease_read(n(1)).is_some());
}

/// HC #503: the leader could write nothing, answered heartbeats, and was never replaced.
#[test]
fn a_leader_whose_disk_stalls_is_never_replaced() {
    for answering in [true, false] {
        let mut c = Cluster::new(3);
        c.elect(n(1));
        c.heartbeat(n(1));
        c.node(n(1)).slow_disk = true;
        if !answering {
            // Nobody gets ready to take over.
            c.cut.extend([(n(1), n(2)), (n(1), n(3))]);
        }
        c.propose(n(1));
        c.settle(n(1));
        c.step(n(1), Input::DiskStalled);
        c.run();
        c.fire(n(1), Timer::Transfer);
        assert_eq!(
            c.raft(n(1)).role(),
            RoleKind::Follower,
            "half a timeout, and one more at most"
        );
        c.heal();
        if !answering {
            c.fire(n(3), Timer::Fresh);
            c.fire(n(2), Timer::Election);
            c.run();
        }
        let leader = c.leader().expect("another");
        let token = c.propose(leader);
        c.run();
        let placed = c.nodes[&leader].placed[&token];
        assert!(c.ghost.len() >= placed.index);
    }
}
