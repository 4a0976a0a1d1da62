//! Leases across leaders: a renewal is an answer only after a round has shown that its leader still leads. And where that takes long.

use std::collections::BTreeSet;

use quorate_base::NodeId;
use quorate_sim::coverage::Kind;
use quorate_sim::failure::Failure;
use quorate_sim::history::Outcome;
use quorate_sim::params::{Params, SEC};
use quorate_sim::scenario::Scenario;

const SEEDS: u64 = 4;

const LEASE: i64 = 7;

/// In seconds.
const TTL: i64 = 20;

fn is_renewed(scenario: &Scenario, call: usize) -> bool {
    let outcome = scenario.outcome(call);
    matches!(outcome, Some(Outcome::Renewed { ttl: Some(TTL), .. }))
}

/// The lease ends, and nothing is wrong with that or with anything else.
fn ends_in_time(mut scenario: Scenario) {
    let expired = |scenario: &Scenario| scenario.met(Kind::LeaseExpired) == 1;
    scenario
        .until(TTL as u64 * SEC, "end of the lease", expired)
        .unwrap();
    scenario.finish().unwrap();
}

/// A leader of a lease is stopped and cut off, and another one takes office, with the lease at its full TTL. Two seconds later somebody asks the stopped
/// one to renew it. When it goes on it finds that request first, and knows of nothing else: it leads, as far as it can tell. Returns the
/// scenario a moment later, with the number of that call.
fn stopped_leader(seed: u64, hasty: bool) -> Result<(Scenario, usize), Failure> {
    let mut scenario = Scenario::new(3, seed);
    if hasty {
        scenario.go_hasty();
    }
    let old = scenario.elect()?;
    let grant = scenario.grant(old, LEASE, TTL);
    scenario.until(SEC, "grant", |scenario| scenario.is_done(grant))?;
    scenario.run(scenario.election())?;
    let call = scenario.renew(old, LEASE);
    scenario.until(SEC, "renewal", |scenario| is_renewed(scenario, call))?;
    let around: BTreeSet<(NodeId, NodeId)> = scenario
        .nodes()
        .into_iter()
        .filter(|id| *id != old)
        .flat_map(|id| [(id, old), (old, id)])
        .collect();
    scenario.cut(&around);
    let stopped = 8 * SEC;
    let end = scenario.now() + stopped;
    scenario.pause(old, stopped);
    scenario.until(5 * SEC, "new leader", |scenario| scenario.leader() != Some(old))?;
    scenario.run(2 * SEC)?;
    assert!(scenario.now() < end && scenario.leads(old), "it stands still");
    let call = scenario.renew(old, LEASE);
    scenario.run(end - scenario.now() + scenario.election() / 10)?;
    Ok((scenario, call))
}

#[test]
fn a_deposed_leader_that_knows_nothing_of_it_promises_nothing() {
    for seed in 0..SEEDS {
        let (mut scenario, call) = stopped_leader(seed, false).unwrap();
        scenario.run(2 * scenario.election()).unwrap();
        assert_eq!(
            scenario.outcome(call),
            Some(&Outcome::NotDone),
            "no round, no answer"
        );
        ends_in_time(scenario);
    }
}

#[test]
fn without_the_round_it_would_promise_what_its_successor_breaks() {
    for seed in 0..SEEDS {
        let (mut scenario, call) = stopped_leader(seed, true).unwrap();
        assert!(is_renewed(&scenario, call), "{:?}", scenario.outcome(call));
        match scenario.run(TTL as u64 * SEC) {
            Err(Failure::Correctness(why)) => {
                assert!(
                    why.starts_with("S17") && why.contains("after it was promised"),
                    "{why}"
                );
            }
            other => panic!("the new leader does not know of the promise: {other:?}"),
        }
    }
}

/// The others stand still for some seconds, too few for a leader to give up, while it is asked for a renewal. The lease ends when its time is over since
/// then.
#[test]
fn a_renewal_that_is_confirmed_late_is_told_what_is_left() {
    for seed in 0..SEEDS {
        let mut scenario = Scenario::with(3, seed, |params: &mut Params| params.election = 5 * SEC);
        let leader = scenario.elect().unwrap();
        let grant = scenario.grant(leader, LEASE, TTL);
        scenario
            .until(SEC, "grant", |scenario| scenario.is_done(grant))
            .unwrap();
        scenario.run(scenario.election()).unwrap();
        for id in scenario.nodes().into_iter().filter(|id| *id != leader) {
            scenario.pause(id, 2 * SEC + SEC / 2);
        }
        let call = scenario.renew(leader, LEASE);
        scenario.run(2 * SEC).unwrap();
        assert_eq!(scenario.outcome(call), None, "no round");
        scenario
            .until(SEC, "renewal", |scenario| scenario.outcome(call).is_some())
            .unwrap();
        let told = scenario.outcome(call).unwrap();
        assert!(
            matches!(told, Outcome::Renewed { ttl: Some(18), .. }),
            "{told:?}, of {TTL} s two and a half ago"
        );
        ends_in_time(scenario);
    }
}
