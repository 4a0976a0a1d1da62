//! Members that come, grow, go and are replaced while a cluster works, over real sockets: by whatever member is asked, and nothing that was
//! acknowledged is lost.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::*;
use quorate::*;
use tokio::task::JoinHandle;

/// Adds up ones at several members in turn for as long as it is not stopped.
struct Load {
    stop: Arc<AtomicBool>,
    task: JoinHandle<(u64, u64)>,
}

impl Load {
    fn on(cluster: &Cluster) -> Load {
        let handles: Vec<Handle<Sum>> = cluster.members.values().map(|m| m.handle.clone()).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let (mut done, mut unknown) = (0, 0);
            for handle in handles.iter().cycle() {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                match handle.propose(add(1)).await {
                    Ok(_) => done += 1,
                    Err(ProposeError::Unknown(_)) => unknown += 1,
                    Err(ProposeError::NotDone(_)) => {}
                }
                breathe().await;
            }
            (done, unknown)
        });
        Load { stop, task }
    }

    /// Stops, and sees that this member has everything that was acknowledged and nothing that was not asked for.
    async fn end(self, handle: &Handle<Sum>) {
        self.stop.store(true, Ordering::SeqCst);
        let (done, unknown) = within(self.task).await.unwrap();
        assert!(done > 0, "nothing was done all the while");
        let sum = sum(handle).await.unwrap();
        assert!(
            (done..=done + unknown).contains(&sum),
            "{done} were acknowledged, {unknown} are unknown, the sum is {sum}"
        );
    }
}

fn learner(id: u64, promote: Promote, address: &str) -> MemberChange {
    MemberChange::AddLearner {
        id: NodeId(id),
        promote,
        member: Member::new(format!("n{id}"), address),
    }
}

/// Adds a member by asking `at`, and answers how it is to be started.
async fn admit(cluster: &mut Cluster, at: u64, id: u64, promote: Promote) -> Config {
    let address = cluster.prepare_member(id);
    let added = vec![learner(id, promote, &address)];
    let waits = |now: &Membership| now.learners.get(&NodeId(id)) == Some(&promote);
    change_when_ready(cluster, at, added, false, waits).await;
    let others: Vec<String> = cluster.addresses.values().cloned().collect();
    let joined = within(join(&others, &[address])).await.unwrap();
    assert_eq!((joined.cluster, joined.id), (CLUSTER, NodeId(id)));
    Config {
        members: joined.members,
        join: true,
        ..cluster.config(id)
    }
}

/// Waits until this member knows a membership like this.
async fn settled(cluster: &Cluster, id: u64, voters: &[u64]) -> Arc<Membership> {
    let mut status = cluster.handle(id).subscribe();
    let voting = voting(voters);
    let now = within(status.wait_for(|now| voting(&now.membership)))
        .await
        .unwrap();
    now.membership.clone()
}

/// Waits for the end of a member that was removed.
async fn expelled(cluster: &mut Cluster, id: u64) {
    let member = cluster.members.remove(&id).unwrap();
    let fatal = fate(member.running).await;
    assert!(matches!(fatal, Fatal::Removed), "{fatal}");
    assert!(member.handle.status().stopping);
    member.runtime.shutdown_background();
}

#[tokio::test]
async fn an_added_member_catches_up_under_load_and_votes_by_itself() {
    let mut cluster = Cluster::start(3).await;
    let load = Load::on(&cluster);
    let follower = cluster.leader().await % 3 + 1;
    let config = admit(&mut cluster, follower, 4, Promote::WhenCaughtUp).await;
    cluster.start_with(4, config, None).await;
    for id in 1..=4 {
        let membership = settled(&cluster, id, &[1, 2, 3, 4]).await;
        assert_eq!(membership.members[&NodeId(4)].name, "n4");
    }
    load.end(cluster.handle(4)).await;

    // Restarted with what it would have been told before it was added: its directory knows better.
    cluster.kill(4);
    let stale = Config {
        members: [(NodeId(4), Member::from("127.0.0.1:1"))].into(),
        ..cluster.config(4)
    };
    cluster.start_with(4, stale, None).await;
    settled(&cluster, 4, &[1, 2, 3, 4]).await;
    let before = sum_at(cluster.handle(1)).await;
    // Now three of four are needed, so its voice counts.
    let gone = cluster.leader().await % 3 + 1;
    cluster.kill(gone);
    reach(cluster.handle(4), add(5), before + 5).await;
    cluster.stop_all().await;
}

#[tokio::test]
async fn a_learner_votes_when_it_is_asked_to_and_has_caught_up() {
    let mut cluster = Cluster::start(3).await;
    reach(cluster.handle(1), add(3), 3).await;
    let config = admit(&mut cluster, 1, 4, Promote::Never).await;
    let promote = vec![MemberChange::Promote(NodeId(4))];
    // It does not even run.
    let behind = ChangeRefusal::NotCaughtUp(NodeId(4));
    refused(cluster.handle(2), promote.clone(), behind).await;

    cluster.start_with(4, config, None).await;
    assert_eq!(sum_at(cluster.handle(4)).await, 3);
    assert!(!cluster.handle(4).status().membership.is_voter(NodeId(4)));
    let to_learner = transfer_from_leader(&cluster, 4).await;
    assert_eq!(to_learner, Err(TransferError::NotMember), "only voters lead");
    let membership = change_when_ready(&cluster, 2, promote.clone(), false, voting(&[1, 2, 3, 4])).await;
    assert!(membership.voters.contains(&NodeId(4)) && membership.learners.is_empty());
    let voter = ChangeRefusal::NotLearner(NodeId(4));
    refused(cluster.handle(3), promote, voter).await;
    caught_up(&cluster, 4).await;
    cluster.stop_all().await;
}

#[tokio::test]
async fn two_of_three_are_replaced_at_once_under_load() {
    let mut cluster = Cluster::start(3).await;
    let load = Load::on(&cluster);
    let leader = cluster.leader().await;
    for id in [4, 5] {
        let config = admit(&mut cluster, leader, id, Promote::Never).await;
        cluster.start_with(id, config, None).await;
    }
    let old = [leader, leader % 3 + 1];
    let stays = (1..=3).find(|id| !old.contains(id)).unwrap();
    let mut changes: Vec<MemberChange> = [4, 5].map(|id| MemberChange::Promote(NodeId(id))).into();
    changes.extend(old.map(|id| MemberChange::Remove(NodeId(id))));
    let membership = change_when_ready(&cluster, stays, changes, false, voting(&[stays, 4, 5])).await;
    assert_eq!(membership.removed, old.map(NodeId).into());
    assert!(!membership.members.contains_key(&NodeId(leader)));
    for id in old {
        expelled(&mut cluster, id).await;
    }
    for id in [stays, 4, 5] {
        settled(&cluster, id, &[stays, 4, 5]).await;
    }
    load.end(cluster.handle(5)).await;

    // The new ones bear it on their own.
    cluster.kill(stays);
    let before = sum_at(cluster.handle(4)).await;
    reach(cluster.handle(5), add(1), before + 1).await;
    cluster.stop_all().await;
}

#[tokio::test]
async fn a_leader_that_is_removed_hands_over_and_ends() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    cluster.connected().await;
    reach(cluster.handle(leader), add(1), 1).await;
    let remove = vec![MemberChange::Remove(NodeId(leader))];
    let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    let membership = change_when_ready(&cluster, leader, remove.clone(), false, voting(&others)).await;
    assert!(membership.removed.contains(&NodeId(leader)));
    expelled(&mut cluster, leader).await;
    settled(&cluster, others[0], &others).await;
    let next = cluster.leader().await;
    assert!(others.contains(&next));
    reach(cluster.handle(next), add(1), 2).await;

    // Started again, it knows; and it is not let back in.
    cluster.start_member(leader).await;
    expelled(&mut cluster, leader).await;
    let none = ChangeRefusal::NotMember(NodeId(leader));
    refused(cluster.handle(next), remove, none).await;
    let back = vec![learner(leader, Promote::Never, "127.0.0.1:1")];
    let removed = ChangeRefusal::WasRemoved(NodeId(leader));
    refused(cluster.handle(next), back, removed).await;
    cluster.stop_all().await;
}

#[tokio::test]
async fn a_member_that_was_away_when_it_was_removed_hears_of_it() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let away = leader % 3 + 1;
    cluster.connected().await;
    cluster.kill(away);
    let remove = vec![MemberChange::Remove(NodeId(away))];
    let left: Vec<u64> = (1..=3).filter(|id| *id != away).collect();
    change_when_ready(&cluster, leader, remove, false, voting(&left)).await;
    cluster.start_member(away).await;
    let member = cluster.members.remove(&away).unwrap();
    let fatal = fate(member.running).await.to_string();
    assert!(fatal.contains("removed"), "{fatal}");
    member.runtime.shutdown_background();
    cluster.stop_all().await;
}

#[tokio::test]
async fn what_would_lose_the_quorum_is_refused_unless_it_is_forced() {
    let mut cluster = Cluster::start(3).await;
    reach(cluster.handle(1), add(7), 7).await;
    let leader = cluster.leader().await;
    let config = admit(&mut cluster, leader, 4, Promote::Never).await;
    let promote = vec![MemberChange::Promote(NodeId(4))];
    // Although it never ran.
    change_when_ready(&cluster, leader, promote, true, voting(&[1, 2, 3, 4])).await;

    // It would be one of two, and it is not there.
    let leader = cluster.leader().await;
    let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    let remove: Vec<MemberChange> = others
        .iter()
        .map(|id| MemberChange::Remove(NodeId(*id)))
        .collect();
    let lost = ChangeRefusal::WouldLoseQuorum;
    refused(cluster.handle(others[0]), remove.clone(), lost).await;
    reach(cluster.handle(1), add(1), 8).await;

    // With force the change begins, and ends when it is there.
    let handle = std::iter::once(cluster.handle(leader).clone());
    let forced = tokio::spawn(insist(handle, remove, true));
    let mut status = cluster.handle(leader).subscribe();
    within(status.wait_for(|now| now.membership.is_joint() || now.membership.voters.len() == 2))
        .await
        .unwrap();
    cluster.start_with(4, config, None).await;
    within(forced).await.unwrap();
    settled(&cluster, 4, &[leader, 4]).await;
    for id in others {
        expelled(&mut cluster, id).await;
    }
    reach(cluster.handle(4), add(1), 9).await;
    cluster.stop_all().await;
}

#[tokio::test]
async fn a_change_that_makes_no_sense_says_why() {
    let cluster = Cluster::start(3).await;
    let follower = cluster.leader().await % 3 + 1;
    let handle = cluster.handle(follower);
    let known = learner(2, Promote::Never, "127.0.0.1:1");
    refused(handle, vec![known], ChangeRefusal::AlreadyMember(NodeId(2))).await;
    let unknown = MemberChange::Describe {
        id: NodeId(9),
        member: Member::default(),
    };
    refused(handle, vec![unknown], ChangeRefusal::NotMember(NodeId(9))).await;
    let all = [1, 2, 3].map(|id| MemberChange::Remove(NodeId(id)));
    refused(handle, all.into(), ChangeRefusal::NoVoters).await;
    refused(handle, Vec::new(), ChangeRefusal::Nothing).await;
    cluster.stop_all().await;
}

#[tokio::test]
async fn who_was_not_added_before_is_told_so() {
    let mut cluster = Cluster::start(3).await;
    cluster.leader().await;
    let own = [cluster.prepare_member(4)];
    let others: Vec<String> = cluster.addresses.values().cloned().collect();
    let error = within(join(&others, &own)).await.unwrap_err();
    assert!(matches!(error, JoinError::NotMember { .. }), "{error}");
    let said = error.to_string();
    for part in ["add it first", &own[0], &others[2]] {
        assert!(said.contains(part), "{said}");
    }
    // Nor may a voter begin with nothing.
    let error = within(join(&others[..2], &others[2..])).await.unwrap_err();
    assert_eq!(error, JoinError::Votes(NodeId(3)));
    cluster.stop_all().await;
}

#[tokio::test]
async fn a_member_moves_to_another_address() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let mover = leader % 3 + 1;
    cluster.connected().await;
    cluster.stop(mover).await;
    // The listener of another directory stands for the new machine.
    let address = cluster.prepare_member(9);
    let describe = vec![MemberChange::Describe {
        id: NodeId(mover),
        member: Member::new("moved", &address),
    }];
    let moved = |now: &Membership| now.members[&NodeId(mover)].name == "moved";
    change_when_ready(&cluster, leader, describe, false, moved).await;
    let config = Config {
        id: NodeId(mover),
        name: format!("n{mover}"),
        data_dir: cluster.dirs[&mover].path().to_owned(),
        ..cluster.config(9)
    };
    cluster.start_with(9, config, None).await;
    reach(cluster.handle(9), add(4), 4).await;
    let mut status = cluster.handle(leader).subscribe();
    within(status.wait_for(|now| now.peers[&NodeId(mover)].connected))
        .await
        .unwrap();
    assert_eq!(status.borrow().membership.members[&NodeId(mover)].name, "moved");
    cluster.stop_all().await;
}

#[tokio::test]
async fn a_rolling_upgrade_makes_membership_changes_possible_at_its_end() {
    let mut cluster = Cluster::start_adjusted(3, |config| config.features = 1).await;
    reach(cluster.handle(1), add(1), 1).await;
    cluster.adjust = |_| {};
    let mut expected = 1;
    for id in 1..=3 {
        let membership = cluster.handle(id).status().membership;
        assert!(membership.level < 2, "{membership:?} before the upgrade of {id}");
        let add_four = vec![learner(4, Promote::Never, "127.0.0.1:1")];
        refused(cluster.handle(id), add_four, ChangeRefusal::Level).await;
        cluster.stop(id).await;
        cluster.start_member(id).await;
        expected += id;
        reach(cluster.handle(id), add(id), expected).await;
    }
    for id in 1..=3 {
        let mut status = cluster.handle(id).subscribe();
        let raised = |now: &Status| now.membership.level == 2;
        within(status.wait_for(raised)).await.unwrap();
        // The log knows by now where everyone is.
        let described = |now: &Status| {
            let members = now.membership.members.iter();
            members
                .filter(|(id, member)| member.addresses == [cluster.addresses[id].clone()])
                .count()
                == 3
        };
        within(status.wait_for(described)).await.unwrap();
    }
    let config = admit(&mut cluster, 2, 4, Promote::WhenCaughtUp).await;
    cluster.start_with(4, config, None).await;
    settled(&cluster, 4, &[1, 2, 3, 4]).await;
    assert_eq!(sum_at(cluster.handle(4)).await, expected);
    cluster.stop_all().await;
}

#[tokio::test]
async fn with_a_lease_a_leader_reads_without_asking() {
    let mut cluster = Cluster::start_adjusted(3, |config| {
        config.leases = true;
        // The lease lasts for three quarters of this.
        config.election = Duration::from_secs(6);
    })
    .await;
    let leader = cluster.leader().await;
    cluster.connected().await;
    reach(cluster.handle(leader), add(1), 1).await;
    // This one may have to ask; what it asks gives the lease.
    assert_eq!(sum_at(cluster.handle(leader)).await, 1);
    let others = (1..=3).filter(|id| *id != leader);
    others.for_each(|id| cluster.kill(id));
    assert_eq!(sum(cluster.handle(leader)).await, Ok(1), "there is nobody to ask");
    cluster.kill(leader);
}

#[tokio::test]
async fn a_leader_that_slept_through_its_lease_reads_nothing_stale() {
    let cluster = Cluster::start_adjusted(3, |config| config.leases = true).await;
    let old = cluster.leader().await;
    cluster.connected().await;
    reach(cluster.handle(old), add(1), 1).await;

    // Its only thread does nothing else, until somebody else leads and has written.
    let (wake, woken) = std::sync::mpsc::channel::<()>();
    let asleep = cluster.members[&old].runtime.spawn(async move {
        let _ = woken.recv();
    });
    let awake = old % 3 + 1;
    let mut status = cluster.handle(awake).subscribe();
    within(status.wait_for(|now| now.leader.is_some_and(|leader| leader.0 != old)))
        .await
        .unwrap();
    reach(cluster.handle(awake), add(1), 2).await;

    // The questions wait for it to wake up.
    let reads: Vec<_> = (0..8)
        .map(|_| {
            let handle = cluster.handle(old).clone();
            tokio::spawn(async move { sum(&handle).await })
        })
        .collect();
    breathe().await;
    wake.send(()).unwrap();
    within(asleep).await.unwrap();
    for read in reads {
        let read = within(read).await.unwrap();
        assert!(matches!(read, Ok(2) | Err(_)), "{read:?}");
    }
    cluster.stop_all().await;
}

#[tokio::test]
async fn the_member_that_leads_gladly_leads() {
    let mut cluster = Cluster::start_adjusted(3, |config| {
        if config.id == NodeId(3) {
            config.priority = Priority::High;
        }
    })
    .await;
    let leads = |cluster: &Cluster| {
        let mut status = cluster.handle(1).subscribe();
        async move {
            within(status.wait_for(|now| now.leader == Some(NodeId(3))))
                .await
                .unwrap();
        }
    };
    leads(&cluster).await;
    cluster.kill(3);
    let other = cluster.leader().await;
    reach(cluster.handle(other), add(2), 2).await;
    cluster.start_member(3).await;
    leads(&cluster).await;
    assert_eq!(sum_at(cluster.handle(3)).await, 2);
    cluster.stop_all().await;
}
