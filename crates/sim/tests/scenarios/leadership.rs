//! Handing leadership over, priorities, and reads on the strength of a leader's clock: sound as long as clocks keep to the assumption, and
//! noticed by the checks when they do not.

use std::collections::BTreeSet;

use quorate_base::NodeId;
use quorate_raft::Priority;
use quorate_sim::coverage::Kind;
use quorate_sim::failure::Failure;
use quorate_sim::scenario::Scenario;

const SEEDS: u64 = 4;

#[test]
fn leadership_goes_where_it_is_sent() {
    for seed in 0..SEEDS {
        let mut scenario = Scenario::new(5, seed);
        let leader = scenario.elect().unwrap();
        scenario.must_write(leader, scenario.election()).unwrap();
        let term = scenario.term(leader);
        let to = scenario.nodes().into_iter().rfind(|id| *id != leader).unwrap();
        scenario.transfer(leader, to).unwrap();
        let election = scenario.election();
        scenario
            .until(election, "transfer", |scenario| scenario.leads(to))
            .unwrap();
        assert_eq!(scenario.term(to), term.next());
        scenario.must_write(to, election).unwrap();
        scenario.finish().unwrap();
    }
}

#[test]
fn the_member_of_the_highest_priority_comes_to_lead_and_stays() {
    for seed in 0..SEEDS {
        let mut scenario = Scenario::new(3, seed);
        let (low, high) = (NodeId(1 + seed % 3), NodeId(1 + (seed + 1) % 3));
        scenario.prefer(low, Priority::Low);
        scenario.prefer(high, Priority::High);
        let election = scenario.election();
        scenario
            .until(20 * election, "leader by priority", |scenario| {
                scenario.leads(high)
            })
            .unwrap();
        let term = scenario.term(high);
        scenario.run(20 * election).unwrap();
        assert!(scenario.leads(high) && scenario.term(high) == term);
        // It is down, and leads again after its return.
        scenario.crash(high, 5 * election);
        scenario
            .until(30 * election, "return", |scenario| scenario.leads(high))
            .unwrap();
        scenario.finish().unwrap();
    }
}

/// A leader whose clock goes so is cut off, the others go on, and it is asked for reads all the while.
fn lonely_leader(seed: u64, drift: i64) -> Result<u64, Failure> {
    let mut scenario = Scenario::with(3, seed, |params| {
        params.leases = true;
        params.drift = vec![drift, 0, 0];
    });
    let (first, election) = (NodeId(1), scenario.election());
    let leader = scenario.elect()?;
    if leader != first {
        scenario.transfer(leader, first)?;
        scenario.until(10 * election, "transfer", |scenario| scenario.leads(first))?;
    }
    scenario.must_write(first, 4 * election)?;
    scenario.run(2 * election)?;
    let others = [NodeId(2), NodeId(3)];
    let cut: BTreeSet<_> = others
        .into_iter()
        .flat_map(|id| [(first, id), (id, first)])
        .collect();
    scenario.cut(&cut);
    for _ in 0..100 {
        scenario.run(election / 20)?;
        for id in others {
            scenario.write(id);
        }
        scenario.read(first);
    }
    let served = scenario.met(Kind::LeaseRead);
    scenario.finish()?;
    Ok(served)
}

#[test]
fn clocks_within_the_assumption_never_make_a_read_stale() {
    for seed in 0..SEEDS {
        for drift in [-60_000, 0, 60_000] {
            let served = lonely_leader(seed, drift).unwrap();
            assert!(served > 0, "the lease lasted for a while");
        }
    }
}

#[test]
fn a_clock_far_outside_the_assumption_makes_stale_reads_that_are_found() {
    for seed in 0..SEEDS {
        let found = match lonely_leader(seed, -800_000) {
            Err(Failure::Correctness(why)) => why.contains("S13"),
            _ => false,
        };
        assert!(found, "seed {seed}");
    }
}

/// For one election timeout the others are asked for writes and `leader` for reads; then everything is judged.
fn race(mut scenario: Scenario, leader: NodeId) -> Result<(), Failure> {
    let others: Vec<NodeId> = scenario.nodes().into_iter().filter(|id| *id != leader).collect();
    for _ in 0..50 {
        for id in others.iter().copied() {
            if scenario.is_running(id) {
                scenario.write(id);
            }
        }
        scenario.run(scenario.election() / 50)?;
        scenario.read(leader);
    }
    scenario.finish().map(|_| ())
}

fn with_leases(nodes: u64, seed: u64) -> Scenario {
    Scenario::with(nodes, seed, |params| params.leases = true)
}

#[test]
fn a_lease_ends_with_the_word_to_the_successor() {
    for seed in 0..SEEDS {
        let mut scenario = with_leases(3, seed);
        let leader = scenario.elect().unwrap();
        scenario.must_write(leader, scenario.election()).unwrap();
        scenario.run(2 * scenario.election()).unwrap();
        let others = scenario.nodes().into_iter().filter(|id| *id != leader);
        let others: Vec<NodeId> = others.collect();
        // It speaks and hears nothing, so it does not learn of its successor.
        scenario.cut(&others.iter().map(|id| (*id, leader)).collect());
        scenario.transfer(leader, others[0]).unwrap();
        race(scenario, leader).unwrap();
    }
}

#[test]
fn a_restarted_voter_keeps_the_promise_that_it_has_forgotten() {
    for seed in 0..12 {
        let mut scenario = with_leases(3, seed);
        let leader = scenario.elect().unwrap();
        scenario.must_write(leader, scenario.election()).unwrap();
        scenario.run(2 * scenario.election()).unwrap();
        let others = scenario.nodes().into_iter().filter(|id| *id != leader);
        let others: Vec<NodeId> = others.collect();
        let (eager, voter) = (others[0], others[1]);
        // One has not heard of the leader for long and would like to lead; the other has promised the leader to wait.
        scenario.cut(&BTreeSet::from([(leader, eager), (eager, leader)]));
        scenario
            .run(3 * scenario.election() + seed * scenario.election() / 12)
            .unwrap();
        scenario.cut(
            &others
                .iter()
                .flat_map(|id| [(leader, *id), (*id, leader)])
                .collect(),
        );
        scenario.crash(voter, 1);
        race(scenario, leader).unwrap();
    }
}
