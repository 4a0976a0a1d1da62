//! A member whose disk was emptied comes back under its old id, in the one constellation in which that would lose what was committed;
//! and a member whose log has rotted.

use std::collections::BTreeSet;

use quorate_base::NodeId;
use quorate_raft::{Change, Promote};
use quorate_sim::coverage::Kind;
use quorate_sim::failure::Failure;
use quorate_sim::scenario::Scenario;

const SEEDS: u64 = 4;

/// Both directions between `id` and everybody else.
fn around(scenario: &Scenario, id: NodeId) -> BTreeSet<(NodeId, NodeId)> {
    let others = scenario.nodes().into_iter().filter(|other| *other != id);
    others.flat_map(|other| [(id, other), (other, id)]).collect()
}

/// Something is committed by two of three; then the one of them that led is out of reach, and the other has lost its disk. Its empty
/// successor and the third, which never heard of it, are a quorum. Returns the third.
fn forgetful(seed: u64, blind: bool) -> Result<(Scenario, NodeId), Failure> {
    let mut scenario = Scenario::new(3, seed);
    let leader = scenario.elect()?;
    scenario.run(4 * scenario.election())?;
    if blind {
        scenario.go_blind();
    }
    let others: Vec<NodeId> = scenario.nodes().into_iter().filter(|id| *id != leader).collect();
    let (wiped, third) = (others[0], others[1]);
    scenario.cut(&around(&scenario, third));
    scenario.must_write(leader, scenario.election())?;
    scenario.wipe(wiped);
    scenario.cut(&around(&scenario, leader));
    scenario.run(30 * scenario.election())?;
    Ok((scenario, third))
}

#[test]
fn an_emptied_member_is_refused_by_whoever_knew_it() {
    for seed in 0..SEEDS {
        let (mut scenario, third) = forgetful(seed, false).unwrap();
        assert_eq!(scenario.met(Kind::WipedRefused), 1);
        assert_ne!(
            scenario.leader(),
            Some(third),
            "nothing is lost, so nothing goes on"
        );
        scenario.mend();
        scenario.unwipe().unwrap();
        scenario.elect().unwrap();
        scenario.finish().unwrap();
    }
}

#[test]
fn without_the_roster_what_was_committed_would_be_lost() {
    let lost = (0..SEEDS).filter(|seed| match forgetful(*seed, true) {
        Err(Failure::Correctness(_)) => true,
        Err(other) => panic!("{other}"),
        Ok(_) => false,
    });
    assert!(
        lost.count() > 0,
        "the empty disk votes for a log without what it had acknowledged"
    );
}

#[test]
fn a_member_whose_log_has_rotted_does_not_start_and_is_replaced() {
    let mut found = 0;
    for seed in 0..SEEDS {
        let mut scenario = Scenario::new(3, seed);
        let leader = scenario.elect().unwrap();
        for _ in 0..20 {
            scenario.write(leader);
        }
        scenario.run(scenario.election()).unwrap();
        let rotten = scenario.nodes().into_iter().find(|id| *id != leader).unwrap();
        scenario.rot(rotten, 5);
        scenario.run(scenario.election()).unwrap();
        if scenario.met(Kind::BitRotFound) == 0 {
            continue;
        }
        found += 1;
        assert!(!scenario.is_running(rotten));
        let (id, add) = scenario.newcomer(Promote::WhenCaughtUp);
        let changes = vec![Change::Remove(rotten), add];
        scenario.change(leader, changes, false).unwrap().unwrap();
        let votes = |scenario: &Scenario| scenario.config().voters.contains(&id);
        scenario
            .until(30 * scenario.election(), "promotion by itself", votes)
            .unwrap();
        scenario.finish().unwrap();
    }
    assert!(found > 0, "flipped bits are noticed");
}
