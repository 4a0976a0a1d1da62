//! How soon there is a leader again: at once where the end of the old one can be seen, after a timeout where it cannot. And that being told of an end
//! that never was does no harm.

use quorate_base::NodeId;
use quorate_sim::failure::Failure;
use quorate_sim::params::{MS, SEC};
use quorate_sim::scenario::Scenario;

const SEEDS: u64 = 8;

/// A cluster at rest with a leader that has committed something.
fn led(nodes: u64, seed: u64) -> (Scenario, NodeId) {
    let mut scenario = Scenario::new(nodes, seed);
    let leader = scenario.elect().unwrap();
    scenario.must_write(leader, scenario.election()).unwrap();
    scenario.run(scenario.election()).unwrap();
    (scenario, leader)
}

fn others(scenario: &Scenario, leader: NodeId) -> Vec<NodeId> {
    scenario.nodes().into_iter().filter(|id| *id != leader).collect()
}

/// Somebody else leads, and takes a write at each node that runs.
fn must_go_on(scenario: &mut Scenario, old: NodeId, time: u64) -> Result<(), Failure> {
    scenario.until(time, "successor", |scenario| {
        scenario.leader().is_some_and(|leader| leader != old)
    })?;
    for id in scenario.nodes() {
        if scenario.is_running(id) {
            scenario.must_write(id, time)?;
        }
    }
    Ok(())
}

#[test]
fn a_killed_leader_is_replaced_long_before_any_timeout() {
    for seed in 0..SEEDS {
        for nodes in [2, 3, 4, 5] {
            let (mut scenario, leader) = led(nodes, seed);
            let killed = scenario.now();
            scenario.kill(leader, 10 * SEC);
            if nodes == 2 {
                // One of two is no majority: it asks a few times, and then as rarely as ever.
                scenario.run(5 * SEC).unwrap();
                assert_eq!(scenario.leader(), None);
                continue;
            }
            let soon = scenario.election() / 5;
            must_go_on(&mut scenario, leader, soon).unwrap();
            assert!(scenario.now() - killed < scenario.election() / 2);
            scenario.finish().unwrap();
        }
    }
}

#[test]
fn the_end_of_a_machine_is_no_hint_and_is_found_by_its_silence() {
    for seed in 0..SEEDS {
        let (mut scenario, leader) = led(3, seed);
        let (heartbeat, election) = (100 * MS, scenario.election());
        scenario.crash(leader, 10 * SEC);
        scenario.run(election - 2 * heartbeat).unwrap();
        assert_eq!(scenario.leader(), None, "nobody could know before");
        must_go_on(&mut scenario, leader, 4 * election).unwrap();
        scenario.finish().unwrap();
    }
}

#[test]
fn a_leader_that_is_back_at_once_leads_again_or_is_replaced_at_once() {
    for seed in 0..SEEDS {
        let (mut scenario, leader) = led(3, seed);
        let term = scenario.term(leader);
        let election = scenario.election();
        scenario.kill(leader, MS);
        scenario
            .until(election * 3 / 4, "leader", |scenario| {
                let now = scenario.leader();
                now.is_some_and(|now| scenario.term(now) > term)
            })
            .unwrap();
        scenario.finish().unwrap();
    }
}

#[test]
fn a_cluster_has_its_first_leader_before_any_timeout() {
    for seed in 0..SEEDS {
        for nodes in [1, 2, 3, 5] {
            let mut scenario = Scenario::new(nodes, seed);
            scenario
                .until(scenario.election(), "first leader", |scenario| {
                    scenario.leader().is_some()
                })
                .unwrap();
            scenario.finish().unwrap();
        }
    }
}

#[test]
fn a_false_hint_at_one_follower_changes_nothing() {
    for seed in 0..SEEDS {
        for nodes in [3, 5] {
            let (mut scenario, leader) = led(nodes, seed);
            let term = scenario.term(leader);
            let victims = others(&scenario, leader);
            for turn in 0..60 {
                let victim = victims[turn % victims.len()];
                scenario.hint(victim, leader).unwrap();
                let call = scenario.write(victims[(turn / 2) % victims.len()]);
                // As often as a heartbeat can have set it right.
                scenario.run(250 * MS).unwrap();
                assert!(scenario.is_done(call), "turn {turn} of seed {seed}");
                assert!(scenario.leads(leader) && scenario.highest_term() == term);
            }
            scenario.finish().unwrap();
        }
    }
}

#[test]
fn false_hints_at_all_followers_cost_an_election_each_and_no_more() {
    for seed in 0..SEEDS {
        for nodes in [3, 5] {
            let (mut scenario, _) = led(nodes, seed);
            for _ in 0..20 {
                let leader = scenario.elect().unwrap();
                let before = scenario.highest_term().0;
                for id in others(&scenario, leader) {
                    scenario.hint(id, leader).unwrap();
                }
                // Whoever leads next, if it is another, does so soon, and stays.
                scenario.run(scenario.election() / 5).unwrap();
                for id in scenario.nodes() {
                    scenario.must_write(id, scenario.election() / 5).unwrap();
                }
                scenario.run(3 * scenario.election()).unwrap();
                let now = scenario.highest_term().0;
                assert!(now <= before + 1, "seed {seed}: from term {before} to {now}");
            }
            scenario.finish().unwrap();
        }
    }
}

#[test]
fn with_lease_reads_on_no_hint_shortens_a_promise() {
    for seed in 0..SEEDS {
        let mut scenario = Scenario::with(3, seed, |params| params.leases = true);
        let leader = scenario.elect().unwrap();
        scenario.must_write(leader, scenario.election()).unwrap();
        scenario.run(2 * scenario.election()).unwrap();
        let term = scenario.term(leader);
        for _ in 0..20 {
            for id in others(&scenario, leader) {
                scenario.hint(id, leader).unwrap();
            }
            scenario.run(scenario.election() / 4).unwrap();
            assert!(scenario.leads(leader) && scenario.highest_term() == term);
        }
        // A true one does not, either.
        scenario.kill(leader, 10 * SEC);
        scenario.run(scenario.election() - 2 * 100 * MS).unwrap();
        assert_eq!(scenario.leader(), None);
        let late = 4 * scenario.election();
        must_go_on(&mut scenario, leader, late).unwrap();
        scenario.finish().unwrap();
    }
}
