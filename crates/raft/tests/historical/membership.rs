//! Who is a member, who counts, and who may lead.

use super::*;

fn config_entry(term: u64, config: Config) -> EntryShape {
    EntryShape {
        term: Term(term),
        size: 10,
        config: Some(Box::new(config)),
    }
}

/// etcd #12359, #7280, #11284: in force is the latest configuration in the log, committed or not, applied or not, restarted or not.
#[test]
fn the_configuration_is_in_force_only_when_applied() {
    let mut c = Cluster::new(3);
    let four = Config::of([1, 2, 3, 4].map(n));
    let entries = vec![config_entry(1, four.clone())];
    c.message(
        n(1),
        n(2),
        1,
        Body::Append {
            prev: at(0, 0),
            entries,
            commit: i(0),
        },
    );
    assert_eq!((c.raft(n(2)).config(), c.raft(n(2)).commit()), (&four, i(0)));
    c.settle(n(2));
    c.restart(n(2));
    assert_eq!(c.raft(n(2)).config(), &four);
}

/// ER e515a67.
#[test]
fn a_restart_forgets_the_joint_configuration() {
    let joint = Config {
        outgoing: [1, 2, 3].map(n).into(),
        ..Config::of([3, 4, 5].map(n))
    };
    let mut c = Cluster::new(3);
    let entries = vec![config_entry(1, joint.clone())];
    c.message(
        n(1),
        n(2),
        1,
        Body::Append {
            prev: at(0, 0),
            entries,
            commit: i(0),
        },
    );
    c.settle(n(2));
    c.restart(n(2));
    assert_eq!(c.raft(n(2)).config(), &joint, "from the log");
    let mut c = Cluster::of(joint.clone(), Limits::default());
    c.restart(n(2));
    assert_eq!(c.raft(n(2)).config(), &joint, "from the base");
}

fn staged(c: &mut Cluster, meta: &SnapMeta) {
    c.message(n(1), n(2), 2, Body::InstallSnapshot { last: meta.last });
    c.node(n(2)).image.staged = Some((
        meta.clone(),
        common::disk::Machine {
            applied: meta.last.index,
            digest: 0,
        },
    ));
    c.step(
        n(2),
        Input::SnapshotStaged {
            from: n(1),
            term: Term(2),
            meta: Box::new(meta.clone()),
        },
    );
}

/// ER 2f28e8a: the voter stayed cut off.
#[test]
fn a_voter_rejects_the_snapshot_that_demotes_it() {
    let mut c = Cluster::new(3);
    let config = Config {
        learners: [(n(2), Promote::Never)].into(),
        ..Config::of([n(1), n(3)])
    };
    staged(
        &mut c,
        &SnapMeta {
            last: at(2, 5),
            config: config.clone(),
        },
    );
    assert_eq!((c.raft(n(2)).config(), c.raft(n(2)).commit()), (&config, i(5)));
}

/// OR #1808: disjoint quorums.
#[test]
fn installing_a_snapshot_keeps_an_uncommitted_configuration() {
    let mut c = Cluster::new(3);
    let stale = Config::of([n(2)]);
    let entries = vec![config_entry(1, stale)];
    c.message(
        n(3),
        n(2),
        1,
        Body::Append {
            prev: at(0, 0),
            entries,
            commit: i(0),
        },
    );
    let config = Config::of([1, 2, 3].map(n));
    staged(
        &mut c,
        &SnapMeta {
            last: at(2, 5),
            config: config.clone(),
        },
    );
    assert_eq!(c.raft(n(2)).config(), &config);
    c.drain(n(2));
    c.persist(n(2), 9);
    assert_eq!(c.nodes[&n(2)].image.entries.len(), 0);
}

/// The same by truncation: the configuration before is in force again (§4.1).
#[test]
fn a_truncated_configuration_stays_in_force() {
    let mut c = Cluster::new(3);
    let entries = vec![config_entry(1, Config::of([n(2)]))];
    c.message(
        n(3),
        n(2),
        1,
        Body::Append {
            prev: at(0, 0),
            entries,
            commit: i(0),
        },
    );
    c.message(
        n(1),
        n(2),
        2,
        Body::Append {
            prev: at(0, 0),
            entries: shapes(&[2]),
            commit: i(0),
        },
    );
    assert_eq!(c.raft(n(2)).config(), &Config::of([1, 2, 3].map(n)));
}

/// OR #2091: it may hold the only newest log.
#[test]
fn a_member_under_removal_cannot_campaign() {
    let mut c = Cluster::new(3);
    let without = Config::of([n(1), n(3)]);
    let entries = vec![config_entry(1, without)];
    c.message(
        n(1),
        n(2),
        1,
        Body::Append {
            prev: at(0, 0),
            entries,
            commit: i(0),
        },
    );
    c.settle(n(2));
    c.network.clear();
    c.fire(n(2), Timer::Fresh);
    c.fire(n(2), Timer::Election);
    c.settle(n(2));
    assert_eq!(
        c.raft(n(2)).role(),
        RoleKind::PreCandidate,
        "it votes in the last committed configuration"
    );
    let asked: Vec<_> = c.network.iter().map(|parcel| parcel.to).collect();
    assert_eq!(asked, [n(1), n(3)], "and counts the latest one's votes");
}

/// etcd #11326, OR #1805.
#[test]
fn leadership_goes_to_a_learner_or_to_a_voter_that_is_not_ready() {
    let config = Config {
        learners: [(n(3), Promote::Never)].into(),
        ..Config::of([n(1), n(2)])
    };
    let mut c = Cluster::of(config, Limits::default());
    c.elect(n(1));
    c.step(n(1), Input::Transfer(Some(n(3))));
    c.drain(n(1));
    assert!(c.network.is_empty(), "n3 is no voter");
    c.node(n(2)).slow_disk = true;
    c.propose(n(1));
    c.run();
    c.step(n(1), Input::Transfer(None));
    c.drain(n(1));
    assert!(c.network.is_empty(), "n2 has not got all of it on disk");
    c.node(n(2)).slow_disk = false;
    c.run();
    assert_eq!(c.raft(n(2)).role(), RoleKind::Leader);
}

/// async-raft #62: three of five in all, but only one of the old voters.
#[test]
fn one_counter_serves_both_majorities_of_a_joint_configuration() {
    let config = Config {
        learners: [4, 5].map(|id| (n(id), Promote::Never)).into(),
        ..Config::of([1, 2, 3].map(n))
    };
    let mut c = Cluster::of(config, Limits::default());
    c.elect(n(3));
    let before = c.raft(n(3)).commit();
    c.isolate(n(1));
    c.isolate(n(2));
    let replace = [4, 5].map(|id| Change::Promote(n(id))).into_iter();
    let replace: Vec<_> = replace.chain([1, 2].map(|id| Change::Remove(n(id)))).collect();
    c.change(n(3), &replace, false);
    c.propose(n(3));
    c.run();
    assert!(c.raft(n(3)).config().is_joint());
    assert_eq!(c.raft(n(3)).commit(), before);
    c.heal();
    c.heartbeat(n(3));
    c.heartbeat(n(3));
    assert_eq!(c.raft(n(3)).config().voters, [3, 4, 5].map(n).into());
    assert_eq!(c.raft(n(3)).commit(), i(before.0 + 3));
}

/// n2 of three with learners 4 and 5, elected while its own first entry has reached nobody.
fn just_elected() -> Cluster {
    let config = Config {
        learners: [4, 5].map(|id| (n(id), Promote::Never)).into(),
        ..Config::of([1, 2, 3].map(n))
    };
    let mut c = Cluster::of(config, Limits::default());
    c.elect(n(1));
    c.crash(n(1), 0);
    c.fire(n(3), Timer::Fresh);
    c.fire(n(2), Timer::Fresh);
    c.fire(n(2), Timer::Election);
    c.run_until(|c| c.raft(n(2)).role() == RoleKind::Leader);
    c
}

fn ended(c: &Cluster, at: u64, token: u64) -> Option<ChangeEnd> {
    c.nodes[&n(at)].changed.get(&token).copied()
}

/// Ongaro's correction of 2015: with single-server changes two leaders could have got disjoint majorities.
#[test]
fn a_change_is_accepted_before_the_leaders_own_entry_is_committed() {
    let mut c = just_elected();
    let early = c.change(n(2), &[Change::Promote(n(4))], true);
    c.drain(n(2));
    let refused = ChangeEnd::Refused(ChangeRefused::Pending);
    assert_eq!(ended(&c, 2, early), Some(refused));
    c.run();
    let later = c.change(n(2), &[Change::Promote(n(4))], true);
    c.run();
    assert!(matches!(ended(&c, 2, later), Some(ChangeEnd::Done(_))));
}

/// etcd #7280, #11284: a node with a configuration that it has not applied yet counts by it all the same, as candidate and as leader.
#[test]
fn a_candidate_counts_by_the_configuration_that_it_has_applied() {
    let mut c = Cluster::new(3);
    c.elect(n(1));
    c.change(n(1), &[Change::Remove(n(3))], false);
    c.settle(n(1));
    c.run_to(&[2]);
    c.network.clear();
    c.isolate(n(1));
    assert_eq!(
        (c.raft(n(2)).applied(), c.raft(n(2)).config().is_joint()),
        (i(1), true)
    );
    // n2 and n3 are two of {1, 2, 3}, but n2 alone is no majority of {1, 2}.
    c.fire(n(2), Timer::Fresh);
    c.fire(n(3), Timer::Fresh);
    c.fire(n(2), Timer::Election);
    c.run();
    assert_eq!(c.raft(n(2)).role(), RoleKind::PreCandidate);
}

/// ER bd3c759, etcd #12136: C_new was appended over and over, or never, since the index of the pending change was wrong.
#[test]
fn the_joint_configuration_is_left_twice_or_never() {
    let mut c = just_elected();
    c.run();
    let before = c.raft(n(2)).last().index;
    c.change(n(2), &[Change::Promote(n(4)), Change::Promote(n(5))], false);
    for _ in 0..3 {
        c.run();
        c.heartbeat(n(2));
        c.fire(n(2), Timer::Quorum);
    }
    assert_eq!(c.raft(n(2)).last().index, i(before.0 + 2), "C_old,new and C_new");
    assert!(c.raft(n(2)).config_is_settled());
    // A leader that was elected in between leaves it once, too.
    c.change(n(2), &[Change::Remove(n(4))], false);
    c.settle(n(2));
    c.run_to(&[3, 4, 5]);
    c.network.clear();
    c.crash(n(2), 0);
    c.start(n(1));
    c.elect(n(5));
    c.heartbeat(n(5));
    let log = c.raft(n(5)).log();
    assert_eq!(log.last_index(), i(before.0 + 5), "C_old,new, a no-op, C_new");
    assert!(!log.config().is_joint() && log.config().removed.contains(&n(4)));
}

/// OR #2091, all the way: n1 has removed itself, C_new is in its log alone, and it is needed once more.
#[test]
fn a_removed_leader_with_the_only_newest_log_is_lost() {
    let mut c = Cluster::new(3);
    c.elect(n(1));
    c.change(n(1), &[Change::Remove(n(1))], false);
    c.run_until(|c| !c.raft(n(1)).config().is_voter(n(1)));
    c.settle(n(1));
    c.network.clear();
    for id in [2, 3] {
        c.fire(n(id), Timer::Fresh);
        c.fire(n(id), Timer::Election);
    }
    c.cut.extend([(n(2), n(3)), (n(3), n(2))]);
    c.restart(n(1));
    c.fire(n(1), Timer::Election);
    c.run();
    assert!(c.raft(n(2)).log().contains(at(1, 3)) && c.raft(n(3)).log().contains(at(1, 3)));
    assert!(c.raft(n(1)).is_removed());
    c.heal();
    for _ in 0..2 {
        // The first attempt may only spread the term.
        c.fire(n(2), Timer::Election);
        c.run();
    }
    assert!(c.leader().is_some_and(|leader| leader != n(1)));
}

/// DB: a stale configuration looked newest, since it was stamped with the snapshot's index. Here what follows the snapshot in the log
/// wins, and what comes with it is the one as of its last entry.
#[test]
fn a_snapshot_makes_a_stale_configuration_the_newest() {
    let mut c = Cluster::new(3);
    c.elect(n(1));
    for _ in 0..3 {
        c.propose(n(1));
    }
    c.change(n(1), &[Change::Remove(n(3))], false);
    c.propose(n(1));
    c.run();
    let removed = c.raft(n(1)).config().clone();
    c.compact(n(2), i(4));
    assert_eq!(c.raft(n(2)).config(), &removed);
    assert_eq!(c.raft(n(2)).log().base().config, Config::of([1, 2, 3].map(n)));
    c.restart(n(2));
    assert_eq!(c.raft(n(2)).config(), &removed);
    c.compact(n(2), i(7));
    assert_eq!(c.raft(n(2)).log().base().config, removed);
}
