//! Networks in which some links are cut and the nodes on both sides of them still talk to others. Raft with pre-vote, check-quorum and
//! sticky followers makes progress wherever some node reaches a majority and its log allows it to be elected; and where
//! nothing is wrong with the leader, neither it nor the term changes. The three cases named by the authors of OmniPaxos are
//! quorum loss, constrained election, and the chain.

use std::collections::BTreeSet;

use quorate_base::NodeId;
use quorate_sim::net::Pair;
use quorate_sim::scenario::Scenario;

const SEEDS: u64 = 5;

/// Both directions of the links for which `cut` holds.
fn links(nodes: &[NodeId], cut: impl Fn(NodeId, NodeId) -> bool) -> BTreeSet<Pair> {
    let all = nodes
        .iter()
        .flat_map(|one| nodes.iter().map(move |other| (*one, *other)));
    all.filter(|(one, other)| one != other && (cut(*one, *other) || cut(*other, *one)))
        .collect()
}

fn led(nodes: u64, seed: u64) -> (Scenario, NodeId, Vec<NodeId>) {
    let mut scenario = Scenario::new(nodes, seed);
    let leader = scenario.elect().unwrap();
    scenario.must_write(leader, scenario.election()).unwrap();
    let followers = scenario.nodes().into_iter().filter(|id| *id != leader).collect();
    (scenario, leader, followers)
}

/// Under `severed`, leader and term stay for twenty election timeouts: while nothing is written, so that all logs are equal and only the
/// living leader speaks against an election, and then while writes at `at` go on.
fn nothing_changes(mut scenario: Scenario, severed: &BTreeSet<Pair>, leader: NodeId, at: &[NodeId]) {
    let term = scenario.term(leader);
    scenario.cut(severed);
    for round in 0..20 {
        for id in at.iter().filter(|_| round >= 10) {
            scenario.must_write(*id, scenario.election()).unwrap();
        }
        scenario.run(scenario.election()).unwrap();
        assert_eq!(scenario.leader(), Some(leader));
        assert_eq!(scenario.highest_term(), term, "no term inflation");
    }
    let report = scenario.finish().unwrap();
    assert_eq!(report.elections, 1, "healing disturbs nobody either");
}

#[test]
fn a_follower_that_misses_only_the_leader_changes_nothing() {
    for seed in 0..SEEDS {
        for nodes in [3, 5] {
            let (scenario, leader, followers) = led(nodes, seed);
            let severed = BTreeSet::from([(leader, followers[0]), (followers[0], leader)]);
            nothing_changes(scenario, &severed, leader, &[leader, followers[1]]);
        }
    }
}

#[test]
fn a_follower_that_does_not_hear_the_leader_changes_nothing() {
    for seed in 0..SEEDS {
        let (scenario, leader, followers) = led(3, seed);
        let severed = BTreeSet::from([(leader, followers[0])]);
        nothing_changes(scenario, &severed, leader, &[leader, followers[1]]);
    }
}

#[test]
fn a_follower_that_the_leader_does_not_hear_changes_nothing() {
    for seed in 0..SEEDS {
        let (scenario, leader, followers) = led(3, seed);
        let severed = BTreeSet::from([(followers[0], leader)]);
        nothing_changes(scenario, &severed, leader, &[leader, followers[1]]);
    }
}

#[test]
fn a_node_that_hears_nobody_disturbs_nobody() {
    for seed in 0..SEEDS {
        let (scenario, leader, followers) = led(5, seed);
        let deaf = followers[2];
        let severed = scenario.nodes().into_iter().filter(|id| *id != deaf);
        let severed = severed.map(|id| (id, deaf)).collect();
        nothing_changes(scenario, &severed, leader, &[leader, followers[0]]);
    }
}

#[test]
fn a_leader_that_hears_nobody_is_replaced() {
    for seed in 0..SEEDS {
        let (mut scenario, leader, followers) = led(3, seed);
        scenario.cut(&followers.iter().map(|id| (*id, leader)).collect());
        let election = scenario.election();
        scenario
            .until(2 * election, "resignation", |scenario| !scenario.leads(leader))
            .unwrap();
        let replaced = |scenario: &Scenario| scenario.leader().is_some_and(|id| id != leader);
        scenario.until(6 * election, "new leader", replaced).unwrap();
        let next = scenario.leader().unwrap();
        nothing_more(&mut scenario, next);
        scenario.finish().unwrap();
    }
}

/// From now on the leader stays, in its term, and takes writes.
fn nothing_more(scenario: &mut Scenario, leader: NodeId) {
    let term = scenario.term(leader);
    for _ in 0..20 {
        scenario.must_write(leader, scenario.election()).unwrap();
        scenario.run(scenario.election()).unwrap();
        assert_eq!((scenario.leader(), scenario.term(leader)), (Some(leader), term));
    }
}

#[test]
fn quorum_loss_makes_the_only_node_with_a_majority_leader() {
    for seed in 0..SEEDS {
        let (mut scenario, leader, followers) = led(5, seed);
        let (term, hub) = (scenario.term(leader), followers[1]);
        scenario.cut(&links(&scenario.nodes(), |one, other| one != hub && other != hub));
        let election = scenario.election();
        scenario
            .until(8 * election, "leader in the hub", |scenario| scenario.leads(hub))
            .unwrap();
        scenario
            .until(2 * election, "resignation", |scenario| !scenario.leads(leader))
            .unwrap();
        assert_eq!(scenario.highest_term(), term.next(), "one election was enough");
        nothing_more(&mut scenario, hub);
        scenario.finish().unwrap();
    }
}

/// The hub was away when something was committed: whoever has it reaches two of five, and the hub must not be elected. No leader-based
/// algorithm that lets the longest log win makes progress here, and Raft does not pretend to: nothing is lost, no term rises.
#[test]
fn a_constrained_election_waits_for_a_log_that_may_win() {
    for seed in 0..SEEDS {
        let (mut scenario, leader, followers) = led(5, seed);
        let (term, hub) = (scenario.term(leader), followers[1]);
        scenario.cut(&links(&scenario.nodes(), |one, _| one == hub));
        scenario.run(scenario.election()).unwrap();
        scenario.must_write(leader, scenario.election()).unwrap();
        let nodes = scenario.nodes();
        scenario.cut(&links(&nodes, |one, other| {
            one == leader || (one != hub && other != hub)
        }));
        scenario.run(4 * scenario.election()).unwrap();
        for _ in 0..16 {
            assert_eq!(scenario.leader(), None);
            assert_eq!(scenario.highest_term(), term);
            scenario.run(scenario.election()).unwrap();
        }
        // One more link, and somebody with the whole log reaches a majority.
        let (one, other) = (followers[2], followers[3]);
        scenario.cut(&links(&nodes, |a, b| {
            a == leader || (a != hub && b != hub && (a, b) != (one, other) && (a, b) != (other, one))
        }));
        let election = scenario.election();
        let chosen = |scenario: &Scenario| scenario.leads(one) || scenario.leads(other);
        scenario
            .until(12 * election, "leader with the whole log", chosen)
            .unwrap();
        let next = scenario.leader().unwrap();
        nothing_more(&mut scenario, next);
        scenario.finish().unwrap();
    }
}

#[test]
fn the_same_hub_with_the_whole_log_is_elected() {
    for seed in 0..SEEDS {
        let (mut scenario, leader, followers) = led(5, seed);
        let (term, hub) = (scenario.term(leader), followers[1]);
        scenario.run(scenario.election()).unwrap();
        scenario.cut(&links(&scenario.nodes(), |one, other| {
            one == leader || (one != hub && other != hub)
        }));
        let election = scenario.election();
        scenario
            .until(8 * election, "leader in the hub", |scenario| scenario.leads(hub))
            .unwrap();
        scenario.run(2 * election).unwrap();
        assert_eq!(scenario.highest_term(), term.next());
        nothing_more(&mut scenario, hub);
        scenario.finish().unwrap();
    }
}

#[test]
fn a_chain_of_three_keeps_its_leader_wherever_it_stands() {
    for seed in 0..SEEDS {
        for place in [0, 1] {
            let (scenario, leader, followers) = led(3, seed);
            let mut line = followers.clone();
            line.insert(place, leader);
            let ends = BTreeSet::from([(line[0], line[2]), (line[2], line[0])]);
            nothing_changes(scenario, &ends, leader, &[leader, line[1]]);
        }
    }
}

#[test]
fn a_chain_of_five_is_led_from_where_a_majority_is_reached() {
    for seed in 0..SEEDS {
        let (mut scenario, leader, followers) = led(5, seed);
        let line = [&[leader], &followers[..]].concat();
        let place = |id| line.iter().position(|other| *other == id).unwrap();
        scenario.cut(&links(&line, |one, other| place(one).abs_diff(place(other)) > 1));
        let election = scenario.election();
        let inside = |scenario: &Scenario| line[1..4].iter().any(|id| scenario.leads(*id));
        scenario
            .until(12 * election, "leader inside the chain", inside)
            .unwrap();
        scenario.run(3 * election).unwrap();
        let next = scenario.leader().unwrap();
        nothing_more(&mut scenario, next);
        scenario.finish().unwrap();
    }
}
