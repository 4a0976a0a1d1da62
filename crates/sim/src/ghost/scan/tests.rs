//! The scan of a real cluster finds nothing, and each thing that is changed behind the checker's back is found.

use quorate_raft::Config;

use super::*;
use crate::ghost::log::GhostLog;
use crate::params::SEC;
use crate::scenario::Scenario;
use crate::world::World;

/// Three nodes that have committed, flushed and compacted a good deal, and their leader.
fn cluster() -> (World, NodeId) {
    let mut scenario = Scenario::with(3, 1, |params| {
        params.keep_entries = 10;
        params.keep_bytes = 2 << 10;
        params.flush_bytes = 4 << 10;
    });
    let leader = scenario.elect().unwrap();
    for _ in 0..150 {
        scenario.must_write(leader, 5 * SEC).unwrap();
    }
    scenario.run(2 * SEC).unwrap();
    // A scan passes over cores whose effects are still to be taken.
    let drained = |scenario: &Scenario| {
        let mut processes = scenario.world.hosts.values().map(|host| host.process.as_ref());
        processes.all(|process| process.is_some_and(|process| !process.undrained))
    };
    scenario
        .until(SEC, "moment without open effects", drained)
        .unwrap();
    (scenario.world, leader)
}

type Nodes<'a> = BTreeMap<NodeId, Scanned<'a>>;

fn follower(world: &World, leader: NodeId) -> NodeId {
    let mut ids = world.hosts.keys().copied();
    ids.find(|id| *id != leader).unwrap()
}

/// The rule that a scan finds broken after these changes.
fn found(world: &World, change: impl FnOnce(&mut Ghost, &mut Nodes<'_>)) -> &'static str {
    let (mut ghost, mut nodes) = (world.ghost.clone(), world.scanned().unwrap());
    change(&mut ghost, &mut nodes);
    ghost.scan(&nodes, true).expect_err("something was changed").rule
}

/// What is on the disks, computed as a scan does.
fn logs(world: &World) -> (Chained, BTreeMap<NodeId, Plain>) {
    let c = world.ghost.scan_commits(Index::ZERO).unwrap();
    let plain = |(id, node): (NodeId, Scanned<'_>)| (id, world.ghost.scan_disk(id, &node.found, &c).unwrap());
    let logs = world.scanned().unwrap().into_iter().map(plain).collect();
    (c, logs)
}

#[test]
fn what_is_changed_behind_the_back_is_found() {
    let (world, leader) = cluster();
    let other = follower(&world, leader);
    let nodes = world.scanned().unwrap();
    assert_eq!(world.ghost.scan(&nodes, true), Ok(()));
    assert_eq!(world.ghost.scan(&nodes, false), Ok(()));
    let base = nodes[&other].found.mark.as_ref().unwrap().last.index;
    assert!(base > Index(50), "compacted to {base}");
    let term = nodes[&leader].raft.unwrap().term();

    assert_eq!(
        found(&world, |ghost, _| ghost.leaders.extend([(term, other)])),
        "S1"
    );
    let forget = |ghost: &mut Ghost, _: &mut Nodes<'_>| ghost.commits.push(term, 7, term);
    assert_eq!(found(&world, forget), "S3");
    let lose =
        |_: &mut Ghost, nodes: &mut Nodes<'_>| drop(nodes.get_mut(&other).unwrap().found.entries.pop());
    assert_eq!(found(&world, lose), "S6");
    let swap = |ghost: &mut Ghost, nodes: &mut Nodes<'_>| {
        let log = GhostLog::founded(Config::of((1..=3).map(NodeId)));
        ghost.member(other).durable = log.clone();
        ghost.member(other).volatile = log;
        nodes.get_mut(&other).unwrap().found = Recovered::default();
    };
    assert_eq!(found(&world, swap), "S2", "a core on an empty disk");
    assert_eq!(found(&world, |ghost, _| ghost.durable_votes.clear()), "S8");
    let hasten = |_: &mut Ghost, nodes: &mut Nodes<'_>| {
        let node = nodes.get_mut(&other).unwrap();
        node.applied = node.applied.map(|(applied, durable)| (applied.next(), durable));
    };
    assert_eq!(found(&world, hasten), "S9");
    let age = |ghost: &mut Ghost, nodes: &mut Nodes<'_>| {
        let hard = HardState {
            term: Term::ZERO,
            ..ghost.members[&other].durable.hard
        };
        ghost.member(other).durable.hard = hard;
        nodes.get_mut(&other).unwrap().found.hard = Some(hard);
    };
    assert_eq!(found(&world, age), "S10");
    let forget = |_: &mut Ghost, nodes: &mut Nodes<'_>| {
        let node = nodes.get_mut(&other).unwrap();
        node.applied = node.applied.map(|(applied, _)| (applied, Index::ZERO));
    };
    assert_eq!(found(&world, forget), "S12");
    let rewrite = |ghost: &mut Ghost, _: &mut Nodes<'_>| ghost.member(other).volatile.hard.commit = Index(1);
    assert_eq!(found(&world, rewrite), "S2");
}

#[test]
fn logs_that_differ_under_one_term_are_found() {
    let (world, leader) = cluster();
    let other = follower(&world, leader);
    let (c, mut logs) = logs(&world);
    let rule = |result: Result<(), Violation>| result.expect_err("it was changed").rule;
    let raft = world.hosts[&leader].process.as_ref().unwrap().node.raft();
    assert_eq!(scan_prefixes(&logs), Ok(()));
    assert_eq!(world.ghost.scan_quorums(&logs, &c), Ok(()));
    assert_eq!(world.ghost.scan_leader(leader, raft, &logs), Ok(()));
    let last = logs.get_mut(&other).unwrap().hashes.last_mut().unwrap();
    *last ^= 1;
    assert_eq!(rule(scan_prefixes(&logs)), "S2");
    assert_eq!(rule(world.ghost.scan_leader(leader, raft, &logs)), "S7");
    assert_eq!(
        world.ghost.scan_quorums(&logs, &c),
        Ok(()),
        "two of three hold it"
    );
    let third = *logs.keys().find(|id| **id != other && **id != leader).unwrap();
    let log = logs.get_mut(&third).unwrap();
    log.terms.pop();
    log.hashes.pop();
    assert_eq!(rule(world.ghost.scan_quorums(&logs, &c)), "S5");
    let disk = &logs[&third];
    let core = world.hosts[&third].process.as_ref().unwrap().node.raft();
    assert_eq!(rule(world.ghost.scan_core(third, core, disk, Index::ZERO)), "S6");
}

#[test]
fn a_leader_without_what_was_committed_is_found() {
    let (world, leader) = cluster();
    let raft = world.hosts[&leader].process.as_ref().unwrap().node.raft();
    let mut ghost = world.ghost.clone();
    // Somebody of an earlier term knew of one entry more.
    ghost.commits.push(raft.term(), 7, Term::ZERO);
    let result = ghost.scan_leader(leader, raft, &BTreeMap::new());
    assert_eq!(result.expect_err("it lacks an entry").rule, "S4");
}

#[test]
fn configurations_in_doubt_or_out_of_order_are_found() {
    let (world, leader) = cluster();
    let (c, mut logs) = logs(&world);
    let log = logs.get_mut(&leader).unwrap();
    let before = Config::of((1..=3).map(NodeId));
    let last = world.ghost.commits().last();
    let with = |configs: Vec<(Index, Config)>| {
        log.configs = configs;
        scan_configs(leader, &before, log, world.ghost.commits(), &c).map_err(|violation| violation.rule)
    };
    let mut with = with;
    assert_eq!(with(vec![(last.next(), before.clone())]), Ok(()));
    let two = vec![
        (last.next(), before.clone()),
        (last.next().next(), before.clone()),
    ];
    assert_eq!(with(two), Err("S11"));
    assert_eq!(
        with(vec![(last.next(), Config::of((4..=6).map(NodeId)))]),
        Err("S11")
    );
}
