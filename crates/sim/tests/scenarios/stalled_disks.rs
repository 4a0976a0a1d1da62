//! Disks whose operations do not return, without an error, while everything else goes on, heartbeats too.

use quorate_sim::scenario::Scenario;

const SEEDS: u64 = 5;

#[test]
fn a_leader_whose_disk_stalls_gives_up_within_two_election_timeouts() {
    for seed in 0..SEEDS {
        for nodes in [2, 3, 5] {
            let mut scenario = Scenario::new(nodes, seed);
            let leader = scenario.elect().unwrap();
            scenario.must_write(leader, scenario.election()).unwrap();
            scenario.stall_disk(leader);
            scenario.run(3 * scenario.election()).unwrap();
            // Nothing was written, so nobody could notice.
            assert_eq!(scenario.leader(), Some(leader));
            let since = scenario.now();
            scenario.write(leader);
            let election = scenario.election();
            scenario
                .until(2 * election, "resignation", |scenario| !scenario.leads(leader))
                .unwrap();
            assert!(scenario.now() - since <= 2 * election);
            if nodes > 2 {
                let replaced = |scenario: &Scenario| scenario.leader().is_some_and(|id| id != leader);
                scenario.until(6 * election, "new leader", replaced).unwrap();
                let next = scenario.leader().unwrap();
                scenario.must_write(next, election).unwrap();
                scenario.run(20 * election).unwrap();
                assert_eq!(scenario.leader(), Some(next), "it does not come back either");
            }
            scenario.free_disk(leader);
            scenario.elect().unwrap();
            scenario.finish().unwrap();
        }
    }
}

#[test]
fn a_follower_whose_disk_stalls_changes_nothing() {
    for seed in 0..SEEDS {
        let mut scenario = Scenario::new(3, seed);
        let leader = scenario.elect().unwrap();
        let follower = scenario.nodes().into_iter().find(|id| *id != leader).unwrap();
        scenario.stall_disk(follower);
        for _ in 0..10 {
            scenario.must_write(leader, scenario.election()).unwrap();
            scenario.run(scenario.election()).unwrap();
            assert_eq!(scenario.leader(), Some(leader));
        }
        scenario.free_disk(follower);
        let report = scenario.finish().unwrap();
        assert_eq!(report.elections, 1);
    }
}
