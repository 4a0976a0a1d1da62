//! Membership changes (§4) through whole nodes: asked of any member, forwarded, waited for, answered; what the driver is told;
//! the feature level; leases and hanging disks, which end leadership too.

mod common;

use common::{Cluster, Outcome, PATIENCE};
use quorate_base::NodeId;
use quorate_node::{About, ChangeFailure, Event, Failure, MEMBERSHIP_LEVEL, PeerMessage, Reason};
use quorate_raft::{BadChange, Change, ChangeRefused, Config, Promote, RoleKind};

fn add(id: u64, promote: Promote) -> Change {
    let about = About {
        name: format!("n{id}"),
        ..About::default()
    };
    Change::AddLearner {
        id: NodeId(id),
        promote,
        about: about.encode(),
    }
}

fn voters(cluster: &Cluster, id: u64) -> Vec<u64> {
    cluster
        .node(id)
        .raft()
        .config()
        .voters
        .iter()
        .map(|id| id.0)
        .collect()
}

/// All members agree on these voters, for good.
fn settled(cluster: &mut Cluster, members: &[u64], wanted: &[u64]) {
    cluster.run_until("the new voters everywhere", |cluster| {
        members
            .iter()
            .all(|id| voters(cluster, *id) == wanted && cluster.node(*id).raft().config_is_settled())
    });
}

fn done(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Changed(Ok(_)))
}

#[test]
fn a_learner_catches_up_and_becomes_a_voter_by_itself() {
    let mut cluster = Cluster::new(3, |_| {});
    let leader = cluster.elect();
    (0..20).for_each(|i| cluster.write(leader, format!("{i}")));
    cluster.join(4);
    let asked = cluster.change(leader, &[add(4, Promote::WhenCaughtUp)], false);
    assert!(done(&cluster.outcome(asked)));
    settled(&mut cluster, &[1, 2, 3, 4], &[1, 2, 3, 4]);
    cluster.converge();
    assert_eq!(cluster.host(4).machine.commands.len(), 20);
    let told = cluster.host(2).told.clone().unwrap();
    assert_eq!(About::decode(&told.about[&NodeId(4)]).unwrap().name, "n4");
}

#[test]
fn any_member_takes_a_change_and_answers_when_it_is_committed_there() {
    let mut cluster = Cluster::new(3, |_| {});
    cluster.elect();
    let follower = cluster.follower();
    cluster.join(4);
    let asked = cluster.change(follower, &[add(4, Promote::Never)], false);
    let Outcome::Changed(Ok(index)) = cluster.outcome(asked) else {
        panic!("{:?}", cluster.outcome(asked))
    };
    assert!(cluster.node(follower).raft().commit() >= index);
    cluster.converge();
    cluster.pass(PATIENCE);
    assert_eq!(voters(&cluster, 4), [1, 2, 3], "it is asked for, not promoted");
    let asked = cluster.change(follower, &[Change::Promote(NodeId(4))], false);
    assert!(done(&cluster.outcome(asked)));
    settled(&mut cluster, &[1, 2, 3, 4], &[1, 2, 3, 4]);
}

#[test]
fn a_follower_hears_why_a_change_makes_no_sense() {
    let mut cluster = Cluster::new(3, |_| {});
    cluster.elect();
    let follower = cluster.follower();
    let asked = cluster.change(follower, &[Change::Remove(NodeId(9))], false);
    let why = ChangeRefused::Bad(BadChange::NotMember(NodeId(9)));
    assert_eq!(
        cluster.outcome(asked),
        Outcome::Changed(Err(ChangeFailure::Refused(why)))
    );
}

#[test]
fn changes_that_come_together_wait_for_each_other() {
    let mut cluster = Cluster::new(3, |_| {});
    cluster.elect();
    let follower = cluster.follower();
    let asked: Vec<u64> = (4..8)
        .map(|id| {
            let at = if id % 2 == 0 {
                follower
            } else {
                cluster.leader().unwrap()
            };
            cluster.change(at, &[add(id, Promote::Never)], false)
        })
        .collect();
    for token in asked {
        assert!(done(&cluster.outcome(token)));
    }
    assert_eq!(cluster.node(follower).raft().config().learners.len(), 4);
}

#[test]
fn several_are_replaced_at_once_and_the_removed_hear_of_it() {
    let mut cluster = Cluster::new(3, |_| {});
    let leader = cluster.elect();
    for id in [4, 5] {
        cluster.join(id);
        let asked = cluster.change(leader, &[add(id, Promote::Never)], false);
        assert!(done(&cluster.outcome(asked)));
    }
    cluster.converge();
    let gone: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    let changes = [
        Change::Promote(NodeId(4)),
        Change::Promote(NodeId(5)),
        Change::Remove(NodeId(gone[0])),
        Change::Remove(NodeId(gone[1])),
    ];
    let asked = cluster.change(leader, &changes, false);
    assert!(done(&cluster.outcome(asked)));
    settled(&mut cluster, &[leader, 4, 5], &[leader, 4, 5]);
    let removed = |cluster: &Cluster| gone.iter().all(|id| cluster.hosts[&NodeId(*id)].removed);
    cluster.run_until("the removed to know", removed);
    assert!(!cluster.hosts[&NodeId(4)].removed);
}

#[test]
fn a_leader_removes_itself_and_another_leads() {
    let mut cluster = Cluster::new(3, |_| {});
    let leader = cluster.elect();
    cluster.write(leader, "before");
    let asked = cluster.change(leader, &[Change::Remove(NodeId(leader))], false);
    assert!(done(&cluster.outcome(asked)));
    cluster.run_until("another leader", |cluster| {
        cluster.leader().is_some_and(|now| now != leader)
    });
    assert!(cluster.host(leader).removed);
    let term = cluster.node(leader).raft().term();
    cluster.pass(PATIENCE);
    assert!(
        cluster.node(leader).raft().term() <= term.next(),
        "it campaigns no more"
    );
    let next = cluster.leader().unwrap();
    cluster.write(next, "after");
}

#[test]
fn a_change_that_would_lose_the_quorum_needs_force() {
    let mut cluster = Cluster::new(3, |_| {});
    let leader = cluster.elect();
    let dead = cluster.follower();
    cluster.crash(dead);
    cluster.pass(3 * PATIENCE / 10);
    let other = (1..=3).find(|id| *id != leader && *id != dead).unwrap();
    let change = [Change::Remove(NodeId(other))];
    let asked = cluster.change(leader, &change, false);
    let why = ChangeRefused::WouldLoseQuorum;
    assert_eq!(
        cluster.outcome(asked),
        Outcome::Changed(Err(ChangeFailure::Refused(why)))
    );
    let asked = cluster.change(leader, &[Change::Remove(NodeId(dead))], false);
    assert!(done(&cluster.outcome(asked)), "the dead one may go");
    let asked = cluster.change(leader, &change, true);
    assert!(done(&cluster.outcome(asked)), "two of two remove one");
    cluster.write(leader, "alone");
}

#[test]
fn a_joiner_that_nobody_added_stays_quiet() {
    let mut cluster = Cluster::new(3, |_| {});
    let leader = cluster.elect();
    let term = cluster.node(leader).raft().term();
    cluster.join(4);
    cluster.pass(PATIENCE);
    assert_eq!(cluster.leader(), Some(leader));
    assert_eq!(cluster.node(leader).raft().term(), term);
    assert_eq!(cluster.node(4).raft().role(), RoleKind::Follower);
    assert_eq!(cluster.host(4).told, Some(Config::default()));
}

#[test]
fn a_change_without_a_leader_is_not_done() {
    let mut cluster = Cluster::new(3, |_| {});
    let leader = cluster.elect();
    cluster.isolate(leader);
    cluster.pass(PATIENCE / 2);
    let asked = cluster.change(leader, &[add(4, Promote::Never)], false);
    assert_eq!(
        cluster.outcome(asked),
        Outcome::Changed(Err(ChangeFailure::NotDone(Reason::NoLeader)))
    );
}

#[test]
fn a_change_cut_off_in_the_middle_is_unknown_and_rolled_back_or_finished_everywhere_alike() {
    let mut cluster = Cluster::new(3, |_| {});
    let leader = cluster.elect();
    cluster.isolate(leader);
    let asked = cluster.change(leader, &[add(4, Promote::Never)], false);
    let outcome = cluster.outcome(asked);
    assert_eq!(
        outcome,
        Outcome::Changed(Err(ChangeFailure::Unknown(Reason::LeaderChanged)))
    );
    assert!(
        cluster
            .node(leader)
            .raft()
            .config()
            .learners
            .contains_key(&NodeId(4))
    );
    cluster.run_until("another leader", |cluster| {
        cluster.leader().is_some_and(|now| now != leader)
    });
    let next = cluster.leader().unwrap();
    cluster.write(next, "on another way");
    cluster.heal();
    cluster.converge();
    assert!(
        cluster.node(leader).raft().config().learners.is_empty(),
        "rolled back"
    );
    let told = cluster.host(leader).told.clone().unwrap();
    assert!(told.learners.is_empty(), "and the driver knows");
}

#[test]
fn a_forwarded_change_whose_frame_comes_twice_is_taken_once() {
    let mut cluster = Cluster::new(3, |_| {});
    let leader = cluster.elect();
    let follower = cluster.follower();
    cluster.filter = Box::new(|_, _, message| !matches!(message, PeerMessage::Reconfigured { .. }));
    let asked = cluster.change(follower, &[add(4, Promote::Never)], false);
    cluster.settle();
    let request = quorate_node::RequestId {
        node: follower,
        boot: follower * 1_000_000 + 1,
        seq: 2,
    };
    let (term, changes) = (
        cluster.node(leader).raft().term(),
        vec![Change::Remove(NodeId(4))],
    );
    let message = PeerMessage::Reconfigure {
        term,
        request,
        changes,
        force: false,
    };
    let from = NodeId(follower);
    cluster.step(leader, Event::Peer { from, message });
    cluster.settle();
    assert!(
        cluster
            .node(leader)
            .raft()
            .config()
            .learners
            .contains_key(&NodeId(4)),
        "the number was seen before"
    );
    assert_eq!(
        cluster.outcome(asked),
        Outcome::Changed(Err(ChangeFailure::Unknown(Reason::Timeout)))
    );
}

#[test]
fn a_restart_remembers_the_configuration() {
    let mut cluster = Cluster::new(3, |_| {});
    let leader = cluster.elect();
    cluster.join(4);
    let asked = cluster.change(leader, &[add(4, Promote::WhenCaughtUp)], false);
    assert!(done(&cluster.outcome(asked)));
    settled(&mut cluster, &[1, 2, 3, 4], &[1, 2, 3, 4]);
    for id in 1..=4 {
        cluster.crash(id);
    }
    for id in 1..=4 {
        cluster.start(id);
        assert_eq!(voters(&cluster, id), [1, 2, 3, 4]);
    }
    cluster.elect();
    settled(&mut cluster, &[1, 2, 3, 4], &[1, 2, 3, 4]);
}

/// etcd #20793: it stood in the log alone, and the log is dropped.
#[test]
fn a_promotion_outlives_the_log_that_it_stood_in() {
    let mut cluster = Cluster::new(3, |config| (config.keep_entries, config.keep_bytes) = (0, 0));
    let leader = cluster.elect();
    cluster.join(4);
    let asked = cluster.change(leader, &[add(4, Promote::WhenCaughtUp)], false);
    assert!(done(&cluster.outcome(asked)));
    settled(&mut cluster, &[1, 2, 3, 4], &[1, 2, 3, 4]);
    for id in 1..=4 {
        cluster.flush(id);
    }
    cluster.settle();
    for id in 1..=4 {
        let log = cluster.node(id).raft().log();
        assert_eq!(log.config_index(), log.base().last.index, "dropped at {id}");
        cluster.crash(id);
        cluster.start(id);
        assert_eq!(voters(&cluster, id), [1, 2, 3, 4]);
    }
}

/// The level up to which the cluster understands everything (mixed releases).
mod level {
    use super::*;

    fn levels(cluster: &Cluster) -> Vec<u32> {
        (1..=3).map(|id| cluster.node(id).raft().config().level).collect()
    }

    fn meet(cluster: &mut Cluster, who: u64, features: u32) {
        for id in (1..=3).filter(|id| *id != who) {
            let peer = NodeId(who);
            cluster.step(id, Event::Met { peer, features });
        }
    }

    #[test]
    fn a_new_cluster_begins_at_its_members_level() {
        let mut cluster = Cluster::new(3, |_| {});
        cluster.elect();
        assert_eq!(levels(&cluster), [MEMBERSHIP_LEVEL; 3]);
        assert_eq!(
            cluster.host(2).level,
            Some(MEMBERSHIP_LEVEL),
            "and the machine knows"
        );
    }

    #[test]
    fn it_rises_when_the_last_member_is_upgraded_and_changes_wait_for_it() {
        // The harness has one setting for all: what a node says of itself is what counts.
        let mut cluster = Cluster::new(3, |config| config.features = 1);
        let leader = cluster.elect();
        let asked = cluster.change(leader, &[add(4, Promote::Never)], false);
        assert_eq!(
            cluster.outcome(asked),
            Outcome::Changed(Err(ChangeFailure::Level))
        );
        cluster.settings = |_| {};
        for id in 1..=3 {
            assert!(levels(&cluster).iter().all(|level| *level < MEMBERSHIP_LEVEL));
            cluster.crash(id);
            cluster.start(id);
            for other in 1..=3 {
                let features = if other <= id { MEMBERSHIP_LEVEL } else { 1 };
                meet(&mut cluster, other, features);
            }
            cluster.pass(PATIENCE);
        }
        cluster.run_until("the new level", |cluster| {
            levels(cluster) == [MEMBERSHIP_LEVEL; 3]
        });
        let leader = cluster.elect();
        let asked = cluster.change(leader, &[add(4, Promote::Never)], false);
        assert!(done(&cluster.outcome(asked)));
    }

    #[test]
    fn an_older_release_does_not_start_on_a_newer_log() {
        let mut cluster = Cluster::new(1, |_| {});
        cluster.settle();
        cluster.crash(1);
        cluster.settings = |config| config.features = 1;
        let error = cluster.try_start(1).unwrap_err();
        assert!(error.to_string().contains("feature level is 2"), "{error}");
    }
}

/// Lease reads (§6.4.1).
mod leases {
    use super::*;

    /// A leader with a fresh lease, cut off.
    fn cut_off(leases: bool) -> (Cluster, u64) {
        let settings: fn(&mut quorate_node::NodeConfig) = match leases {
            true => |config| config.leases = true,
            false => |_| {},
        };
        let mut cluster = Cluster::new(3, settings);
        let leader = cluster.elect();
        cluster.write(leader, "a");
        cluster.pass(300_000_000);
        cluster.isolate(leader);
        (cluster, leader)
    }

    #[test]
    fn a_leader_with_a_lease_asks_nobody_and_without_one_it_must() {
        for leases in [true, false] {
            let (mut cluster, leader) = cut_off(leases);
            let read = cluster.read(leader, true);
            cluster.settle();
            let answer = leases.then_some(&Outcome::Read(1));
            assert_eq!(cluster.outcomes.get(&read), answer);
        }
    }

    #[test]
    fn it_runs_out_before_anybody_else_can_lead() {
        let (mut cluster, leader) = cut_off(true);
        cluster.pass(750_000_000);
        let read = cluster.read(leader, true);
        cluster.settle();
        assert!(!cluster.outcomes.contains_key(&read));
        assert_eq!(cluster.leader(), Some(leader), "nobody leads yet");
    }

    #[test]
    fn a_question_about_leadership_is_never_the_clocks() {
        let (mut cluster, leader) = cut_off(true);
        let confirm = cluster.read(leader, false);
        cluster.settle();
        assert!(!cluster.outcomes.contains_key(&confirm));
    }

    #[test]
    fn a_restarted_voter_keeps_what_it_may_have_promised() {
        let mut cluster = Cluster::new(3, |config| config.leases = true);
        let leader = cluster.elect();
        let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
        cluster.isolate(leader);
        for id in &others {
            cluster.crash(*id);
            cluster.start(*id);
        }
        let begun = cluster.now;
        cluster.run_until("another leader", |cluster| cluster.leader() != Some(leader));
        assert!(
            cluster.now - begun >= 1_000_000_000,
            "not before one election timeout"
        );
    }
}

#[test]
fn a_leader_whose_disk_hangs_is_replaced_within_two_election_timeouts() {
    let mut cluster = Cluster::new(3, |_| {});
    let leader = cluster.elect();
    cluster.write(leader, "a");
    cluster.host(leader).disk_stalled = true;
    let began = cluster.now;
    let asked = cluster.propose(leader, "b");
    cluster.run_until("another leader", |cluster| {
        cluster.leader().is_some_and(|now| now != leader)
    });
    assert!(cluster.now - began <= 2_000_000_000, "{}", cluster.now - began);
    let next = cluster.leader().unwrap();
    cluster.write(next, "c");
    cluster.unstall(leader);
    assert!(!matches!(
        cluster.outcome(asked),
        Outcome::Failed(Failure::NotDone(_))
    ));
    cluster.converge();
}

/// A mark of compaction is a write that the core knows nothing of; the stall it shows ends all the same.
#[test]
fn a_disk_that_hung_over_a_compaction_is_trusted_again() {
    let mut cluster = Cluster::new(3, |config| config.keep_entries = 8);
    let leader = cluster.elect();
    (0..60).for_each(|i| cluster.write(leader, format!("{i}")));
    cluster.converge();
    cluster.pass(3_000_000_000);
    for id in 1..=3 {
        cluster.host(id).disk_stalled = true;
        cluster.flush(id);
    }
    cluster.pass(700_000_000);
    (1..=3).for_each(|id| cluster.unstall(id));
    cluster.pass(PATIENCE);
    let leader = cluster.leader().expect("somebody leads again");
    cluster.write(leader, "after");
}
