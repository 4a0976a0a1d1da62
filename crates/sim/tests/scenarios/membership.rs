//! Membership changes of running clusters: what they end with, who leads afterwards, and that those who left disturb nobody.

use std::collections::BTreeSet;

use quorate_base::NodeId;
use quorate_node::event::ChangeFailure;
use quorate_raft::{Change, ChangeRefused, Promote};
use quorate_sim::coverage::Kind;
use quorate_sim::scenario::Scenario;

const SEEDS: u64 = 4;

/// Both directions between `id` and everybody else.
fn around(scenario: &Scenario, id: NodeId) -> BTreeSet<(NodeId, NodeId)> {
    let others = scenario.nodes().into_iter().filter(|other| *other != id);
    others.flat_map(|other| [(id, other), (other, id)]).collect()
}

#[test]
fn a_cluster_grows_from_one_and_replaces_all_of_itself() {
    for seed in 0..SEEDS {
        let mut scenario = Scenario::new(1, seed);
        let first = scenario.elect().unwrap();
        for _ in 0..2 {
            let (id, add) = scenario.newcomer(Promote::WhenCaughtUp);
            scenario.change(first, vec![add], false).unwrap().unwrap();
            let votes = |scenario: &Scenario| scenario.config().voters.contains(&id);
            scenario
                .until(30 * scenario.election(), "promotion by itself", votes)
                .unwrap();
        }
        let old = scenario.config().voters.clone();
        let (mut adds, mut swap) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let (id, add) = scenario.newcomer(Promote::Never);
            adds.push(add);
            swap.push(Change::Promote(id));
        }
        swap.extend(old.iter().copied().map(Change::Remove));
        let leader = scenario.elect().unwrap();
        scenario.change(leader, adds, false).unwrap().unwrap();
        scenario.run(8 * scenario.election()).unwrap();
        let leader = scenario.elect().unwrap();
        scenario.change(leader, swap, false).unwrap().unwrap();
        assert!(scenario.config().voters.is_disjoint(&old) && scenario.config().voters.len() == 3);
        let next = scenario.elect().unwrap();
        scenario.must_write(next, scenario.election()).unwrap();
        scenario.finish().unwrap();
    }
}

#[test]
fn a_leader_that_is_removed_finishes_the_change_and_goes() {
    for seed in 0..SEEDS {
        let mut scenario = Scenario::new(3, seed);
        let leader = scenario.elect().unwrap();
        scenario.run(scenario.election()).unwrap();
        scenario
            .change(leader, vec![Change::Remove(leader)], false)
            .unwrap()
            .unwrap();
        let replaced = |scenario: &Scenario| scenario.leader().is_some_and(|id| id != leader);
        let election = scenario.election();
        scenario.until(4 * election, "another leader", replaced).unwrap();
        scenario
            .until(4 * election, "end of the removed", |scenario| {
                !scenario.is_running(leader)
            })
            .unwrap();
        assert!(scenario.config().removed.contains(&leader));
        scenario.finish().unwrap();
    }
}

#[test]
fn a_change_that_would_lose_the_quorum_is_refused_unless_forced() {
    for seed in 0..SEEDS {
        let mut scenario = Scenario::new(3, seed);
        let leader = scenario.elect().unwrap();
        let others: Vec<NodeId> = scenario.nodes().into_iter().filter(|id| *id != leader).collect();
        let election = scenario.election();
        scenario.crash(others[0], 30 * election);
        scenario.run(4 * election).unwrap();
        let remove = vec![Change::Remove(others[1])];
        let lost = ChangeFailure::Refused(ChangeRefused::WouldLoseQuorum);
        assert_eq!(scenario.change(leader, remove.clone(), false).unwrap(), Err(lost));
        // By force it is begun, and done when the dead member is back.
        scenario.ask_change(leader, remove, true);
        scenario
            .until(60 * election, "change", |scenario| {
                scenario.config().removed.contains(&others[1])
            })
            .unwrap();
        assert!(scenario.is_running(others[0]));
        scenario.finish().unwrap();
    }
}

#[test]
fn a_member_that_misses_its_own_removal_disturbs_nobody_and_is_told_when_it_is_back() {
    for seed in 0..SEEDS {
        let mut scenario = Scenario::new(4, seed);
        let leader = scenario.elect().unwrap();
        let gone = scenario.nodes().into_iter().find(|id| *id != leader).unwrap();
        let election = scenario.election();
        scenario.run(election).unwrap();
        let term = scenario.term(leader);
        scenario.cut(&around(&scenario, gone));
        scenario.run(3 * election).unwrap();
        scenario
            .change(leader, vec![Change::Remove(gone)], false)
            .unwrap()
            .unwrap();
        scenario.mend();
        scenario
            .until(10 * election, "end of the removed", |scenario| {
                !scenario.is_running(gone)
            })
            .unwrap();
        assert_eq!(
            scenario.met(Kind::RemovedRefused) + scenario.met(Kind::LeftByItself),
            1
        );
        scenario.run(10 * election).unwrap();
        assert_eq!((scenario.leader(), scenario.term(leader)), (Some(leader), term));
        scenario.finish().unwrap();
    }
}

#[test]
fn a_learner_that_cannot_catch_up_is_not_promoted() {
    for seed in 0..SEEDS {
        let mut scenario = Scenario::new(3, seed);
        let leader = scenario.elect().unwrap();
        let (id, add) = scenario.newcomer(Promote::WhenCaughtUp);
        scenario.change(leader, vec![add], false).unwrap().unwrap();
        scenario.cut(&around(&scenario, id));
        scenario.run(20 * scenario.election()).unwrap();
        assert!(scenario.config().learners.contains_key(&id));
        let early = scenario.change(leader, vec![Change::Promote(id)], false).unwrap();
        let behind = ChangeFailure::Refused(ChangeRefused::NotCaughtUp(id));
        assert_eq!(early, Err(behind));
        scenario.mend();
        let votes = |scenario: &Scenario| scenario.config().voters.contains(&id);
        scenario
            .until(20 * scenario.election(), "promotion by itself", votes)
            .unwrap();
        scenario.finish().unwrap();
    }
}
