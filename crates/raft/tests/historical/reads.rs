//! Linearizable reads.

use super::*;

/// etcd #7331; and RP #5090, "elected" taken for "caught up": the new leader does not know yet what is committed.
#[test]
fn a_read_is_served_before_an_entry_of_the_own_term_is_committed() {
    let mut c = Cluster::new(3);
    c.elect(n(1));
    c.propose(n(1));
    c.drain(n(1));
    for follower in [2, 3] {
        let at = c.network.iter().position(|p| p.to == n(follower)).unwrap();
        let parcel = c.network.remove(at).unwrap();
        c.deliver(parcel);
        c.settle(n(follower));
    }
    c.settle(n(1));
    let at = c.network.iter().position(|p| p.to == n(1)).unwrap();
    let parcel = c.network.remove(at).unwrap();
    c.deliver(parcel);
    assert_eq!(
        (c.raft(n(1)).commit(), c.raft(n(2)).commit()),
        (i(2), i(1)),
        "n1 alone knows"
    );
    c.crash(n(1), 0);
    c.network.clear();
    c.message(n(1), n(2), 1, Body::TimeoutNow);
    while c.raft(n(2)).role() != RoleKind::Leader {
        c.settle(n(2));
        let parcel = c.network.pop_front().expect("the election goes on");
        let to = parcel.to;
        c.deliver(parcel);
        c.settle(to);
    }
    c.read(n(2), 1);
    c.drain(n(2));
    assert!(c.nodes[&n(2)].reads.is_empty());
    c.lose_where(
        |parcel| matches!(&parcel.what, What::Message(m, _) if matches!(m.body, Body::Append { .. })),
    );
    c.heartbeat(n(2)); // Confirms leadership, and sends the no-op again.
    c.heartbeat(n(2));
    assert_eq!(
        c.nodes[&n(2)].reads[&1],
        Ok(i(3)),
        "with the no-op, behind the entry that was committed"
    );
}

/// etcd #20418, ER #397: the answers to an earlier round let a later read through.
#[test]
fn late_answers_to_an_earlier_round_confirm_a_later_read() {
    let mut c = Cluster::new(3);
    c.elect(n(1));
    c.read(n(1), 1);
    c.drain(n(1));
    for follower in [2, 3] {
        let parcel = c.network.pop_front().unwrap();
        c.deliver(parcel);
        c.settle(n(follower));
    }
    assert_eq!(c.network.len(), 2, "two answers to round 1 are on their way");
    c.read(n(1), 2);
    while let Some(parcel) = c.network.pop_front() {
        c.deliver(parcel);
    }
    c.drain(n(1));
    let reads = &c.nodes[&n(1)].reads;
    assert_eq!(
        (reads.get(&1), reads.get(&2)),
        (Some(&Ok(i(1))), None),
        "read 2 came after that round began"
    );
    c.run();
    assert!(c.nodes[&n(1)].reads.contains_key(&2));
}

/// The same at a follower, over its restart: the answer to a former run's question is not taken for one to this run's.
#[test]
fn a_read_context_is_used_again_after_a_restart() {
    let mut c = Cluster::new(3);
    c.elect(n(1));
    c.read(n(2), 1);
    c.settle(n(2));
    let question = c.network.pop_front().unwrap();
    c.deliver(question);
    c.settle(n(1));
    // Its round is confirmed by n3, and the answer stays on the way.
    let heartbeat = c.network.iter().position(|p| p.to == n(3)).unwrap();
    let parcel = c.network.remove(heartbeat).unwrap();
    c.deliver(parcel);
    c.settle(n(3));
    let answer = c.network.iter().position(|p| p.from == n(3)).unwrap();
    let parcel = c.network.remove(answer).unwrap();
    c.deliver(parcel);
    c.settle(n(1));
    let at = c.network.iter().position(
        |p| matches!(&p.what, What::Message(m, _) if matches!(m.body, Body::ReadIndexResponse { .. })),
    );
    let late = c.network.remove(at.expect("the answer")).unwrap();
    c.restart(n(2));
    c.settle(n(2));
    c.heartbeat(n(1));
    c.read(n(2), 2);
    c.drain(n(2));
    c.deliver(late);
    c.drain(n(2));
    assert!(c.nodes[&n(2)].reads.is_empty());
    c.run();
    assert!(c.nodes[&n(2)].reads[&2].is_ok());
}
