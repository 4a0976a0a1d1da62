//! What a core makes of the names of nodes. With lease reads on it does the same whatever the members are called, as long as no leader has to
//! choose a successor: at any moment of many random lives, one whose nodes have all changed names does with every input what the original does,
//! under the new names. The model checker relies on that where it takes such states for one. Without lease reads there is haste, in
//! which ids decide; the last tests show where.

mod common;

use common::explore::{Chance, Mood};
use common::inputs::inputs;
use common::lives::{live, three};
use common::{Cluster, n};
use quorate_base::NodeId;
use quorate_raft::{
    Body, ChangeEnd, ChangeRefused, Effects, Input, Names, Outgoing, Placed, Priority, Raft, Refused,
    RoleKind, Timer,
};

/// An input under the new names; what it says of configurations stays.
fn input(input: Input, names: Names) -> Input {
    match input {
        Input::Message { from, message } => Input::Message {
            from: names(from),
            message,
        },
        Input::LeaderDead { leader, term } => Input::LeaderDead {
            leader: names(leader),
            term,
        },
        Input::Reachable(peer) => Input::Reachable(names(peer)),
        Input::Transfer(to) => Input::Transfer(to.map(names)),
        Input::NotSent { to, first } => Input::NotSent { to: names(to), first },
        Input::SnapshotSent { to, last } => Input::SnapshotSent { to: names(to), last },
        Input::SnapshotStaged { from, term, meta } => Input::SnapshotStaged {
            from: names(from),
            term,
            meta,
        },
        other => other,
    }
}

/// Effects under the new names, messages in one order.
fn effects(mut effects: Effects, names: Names) -> Effects {
    let refused = |why: &mut Refused| match why {
        Refused::NotLeader(leader) => *leader = leader.map(names),
        Refused::Transferring | Refused::Busy => {}
    };
    effects.refused.iter_mut().for_each(|(_, why)| refused(why));
    effects
        .reads
        .iter_mut()
        .filter_map(|(_, answer)| answer.as_mut().err())
        .for_each(refused);
    for (_, end) in &mut effects.changed {
        if let ChangeEnd::Refused(ChangeRefused::NotLeader(leader)) = end {
            *leader = leader.map(names);
        }
    }
    if let Some(hard) = effects.write.as_mut().and_then(|write| write.hard.as_mut()) {
        hard.vote = hard.vote.map(names);
    }
    for outgoing in &mut effects.send {
        match outgoing {
            Outgoing::Message { to, .. } | Outgoing::Append { to, .. } | Outgoing::Snapshot { to, .. } => {
                *to = names(*to);
            }
        }
    }
    effects.send.sort_by_key(|outgoing| match outgoing {
        Outgoing::Message { to, .. } | Outgoing::Append { to, .. } | Outgoing::Snapshot { to, .. } => *to,
    });
    assert!(
        !effects
            .placed
            .iter()
            .any(|placed| matches!(placed, Placed::Config { .. })),
        "the membership stays"
    );
    effects
}

fn renamed(raft: &Raft, names: Names) -> Raft {
    let mut raft = raft.clone();
    raft.rename(names);
    raft
}

/// All ways to give three nodes each other's names, but for the one that changes nothing.
const OTHER: [[u64; 3]; 5] = [[1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]];

/// Whether the input does to the renamed core what it does to the original.
fn does_the_same(original: &Raft, given: &Input, names: Names) -> bool {
    let mut copy = renamed(original, names);
    let mut original = original.clone();
    original.step(given.clone());
    copy.step(input(given.clone(), names));
    let done = effects(original.take_effects(), names) == effects(copy.take_effects(), &|id| id);
    done && renamed(&original, names) == renamed(&copy, &|id| id)
}

/// A cluster with lease reads on and a membership that stays.
fn with_lease_reads(seed: u64, chance: &mut Chance) -> (Cluster, Mood) {
    let mut cluster = three(chance);
    // All alike, or no two: among equals a leader goes by ids when it chooses whom to prefer.
    let priorities = match seed % 2 {
        0 => [Priority::Normal; 3],
        _ => chance.pick(&[
            [Priority::High, Priority::Normal, Priority::Low],
            [Priority::Low, Priority::High, Priority::Normal],
        ]),
    };
    for (id, priority) in cluster.ids().into_iter().zip(priorities) {
        let node = cluster.node(id);
        (node.priority, node.leases) = (priority, true);
        cluster.restart(id);
    }
    let mut mood = Mood::any(chance);
    (mood.loyalty, mood.clocks) = (u64::MAX, false);
    (cluster, mood)
}

#[test]
fn with_lease_reads_names_do_not_matter() {
    let (mut compared, mut led) = (0, 0);
    live(120, with_lease_reads, |cluster, id, chance| {
        let raft = cluster.raft(id);
        let other = chance.pick(&OTHER);
        let names = |id: NodeId| n(other[id.0 as usize - 1]);
        for given in inputs(cluster, id, u64::MAX) {
            // Both have the leader choose whom it would rather be succeeded by.
            if matches!(given, Input::DiskStalled | Input::Transfer(None)) {
                continue;
            }
            assert!(
                does_the_same(raft, &given, &names),
                "n{id} as n{} does otherwise on {given:?}",
                names(id)
            );
            compared += 1;
            led += u64::from(raft.role() == RoleKind::Leader);
        }
    });
    assert!(
        compared > 5_000 && led > 1_000,
        "only {compared} inputs, {led} of them to leaders"
    );
}

/// Two who ask for each other's pre-vote at once, with equal logs: the one with the lower id goes on, the other gives way.
#[test]
fn in_a_haste_the_lower_id_goes_first() {
    let swapped = |id: NodeId| n([2, 1, 3][id.0 as usize - 1]);
    let mut cluster = Cluster::new(3);
    cluster.fire(n(1), Timer::Election);
    cluster.fire(n(2), Timer::Election);
    for id in cluster.ids() {
        cluster.drain(id);
    }
    let asks = cluster.network.iter().find_map(|parcel| match &parcel.what {
        common::What::Message(message, _) if matches!(message.body, Body::PreVote { .. }) => {
            Some(message.clone())
        }
        _ => None,
    });
    let given = |from| Input::Message {
        from: n(from),
        message: asks.clone().expect("somebody asks"),
    };
    assert!(!does_the_same(cluster.raft(n(1)), &given(2), &swapped));
    assert!(!does_the_same(cluster.raft(n(2)), &given(1), &swapped));
}

/// A leader whose disk hangs hands over to the best; among equals, to the one with the highest id.
#[test]
fn among_equal_successors_ids_decide() {
    let swapped = |id: NodeId| n([1, 3, 2][id.0 as usize - 1]);
    let mut cluster = Cluster::new(3);
    cluster.elect(n(1));
    cluster.heartbeat(n(1));
    cluster.drain(n(1));
    let leader = cluster.raft(n(1));
    assert!(!does_the_same(leader, &Input::DiskStalled, &swapped));
    assert!(!does_the_same(leader, &Input::Transfer(None), &swapped));
    assert!(does_the_same(leader, &Input::Transfer(Some(n(3))), &swapped));
}
