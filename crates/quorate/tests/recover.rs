//! A new cluster out of what one member still has, when the others are lost for good.

mod common;

use std::path::Path;
use std::sync::Arc;

use common::*;
use quorate::recover::{self, RecoverError};
use quorate::*;
use quorate_conformance::{CrashDisk, MemDisk};

/// A cluster that has added up to 7, of which one member is left, stopped, with an 8 in its log that nobody else has.
async fn remains() -> (Cluster, u64) {
    loop {
        let mut cluster = Cluster::start(3).await;
        let leader = cluster.leader().await;
        cluster.connected().await;
        reach(cluster.handle(leader), add(7), 7).await;
        let others = (1..=3).filter(|id| *id != leader);
        others.for_each(|id| cluster.kill(id));
        let handle = cluster.handle(leader).clone();
        let last = handle.status().last_log;
        let lonely = {
            let handle = handle.clone();
            tokio::spawn(async move { handle.propose(add(8)).await })
        };
        until(|| handle.status().last_log > last || !handle.status().is_leader()).await;
        cluster.stop(leader).await;
        if let Err(ProposeError::Unknown(_)) = within(lonely).await.unwrap() {
            return (cluster, leader);
        }
        // Somebody else led by then. Once more.
    }
}

#[tokio::test]
async fn what_one_member_has_becomes_a_cluster_that_grows_again() {
    let (mut cluster, id) = remains().await;
    let dir = cluster.dirs[&id].path().to_owned();
    let remains = recover::inspect(&dir, Sum::open).unwrap();
    assert_eq!((remains.cluster, remains.id), (CLUSTER, NodeId(id)));
    assert_eq!(remains.membership.voters, [1, 2, 3].map(NodeId).into());
    assert!(remains.uncommitted() > 0);
    let said = remains.to_string();
    for part in [
        &format!("after entry {}", remains.last_log),
        "lost for good",
        "may never have been acknowledged",
        &cluster.addresses[&NodeId(1)],
    ] {
        assert!(said.contains(part), "{said}");
    }

    let unconfirmed = recover::recover(&dir, CLUSTER + 1, Sum::open).unwrap_err();
    assert!(
        matches!(unconfirmed, RecoverError::NotConfirmed { found: CLUSTER, .. }),
        "{unconfirmed}"
    );
    assert_eq!(
        recover::inspect(&dir, Sum::open).unwrap(),
        remains,
        "nothing has changed"
    );

    let recovered = recover::recover(&dir, CLUSTER, Sum::open).unwrap();
    assert_ne!(recovered.cluster, CLUSTER);
    assert_eq!(recovered.before, remains);
    let strange = start(cluster.config(id), Sum::open).await.unwrap_err();
    assert!(matches!(strange, StartError::WrongCluster { .. }), "{strange}");
    let config = Config {
        cluster: recovered.cluster,
        ..cluster.config(id)
    };
    cluster.start_with(id, config, None).await;
    let used = recover::inspect(&dir, Sum::open).unwrap_err();
    assert!(
        matches!(used, RecoverError::Open(StartError::Locked { .. })),
        "{used}"
    );
    assert_eq!(sum_at(cluster.handle(id)).await, 15, "the whole log counts");
    let status = cluster.handle(id).status();
    assert_eq!(status.membership.voters, [NodeId(id)].into());
    assert_eq!(status.membership.removed.len(), 2);

    // The others come back with what they have, to a cluster that is not there any more.
    let old = id % 3 + 1;
    cluster.start_member(old).await;
    for new in [4, 5] {
        let address = cluster.prepare_member(new);
        let added = MemberChange::AddLearner {
            id: NodeId(new),
            promote: Promote::WhenCaughtUp,
            member: Member::from(&address),
        };
        let knows = |now: &Membership| now.members.contains_key(&NodeId(new));
        change_when_ready(&cluster, id, vec![added], false, knows).await;
        let joined = within(join(&[cluster.addresses[&NodeId(id)].clone()], &[address]))
            .await
            .unwrap();
        assert_eq!(joined.cluster, recovered.cluster);
        let config = Config {
            cluster: joined.cluster,
            members: joined.members,
            join: true,
            ..cluster.config(new)
        };
        cluster.start_with(new, config, None).await;
        let mut status = cluster.handle(new).subscribe();
        within(status.wait_for(|now| now.membership.voters.contains(&NodeId(new))))
            .await
            .unwrap();
    }
    reach(cluster.handle(5), add(1), 16).await;
    assert_eq!(sum_at(cluster.handle(4)).await, 16);
    assert_eq!(cluster.handle(old).status().leader, None);
    cluster.stop_all().await;
}

/// Without the log's spare segment, which it can do without and the test is faster without.
fn copy(dir: &Path) -> Arc<dyn Disk> {
    let copy: Arc<dyn Disk> = Arc::new(MemDisk::new());
    let names = DirDisk::open(dir).unwrap().list().unwrap();
    let first = names.iter().find(|name| name.starts_with("wal-"));
    for name in names
        .iter()
        .filter(|name| !name.starts_with("wal-") || Some(*name) == first)
    {
        let bytes = std::fs::read(dir.join(name)).unwrap();
        copy.open(name, true).unwrap().write_at(0, &bytes).unwrap();
    }
    copy
}

#[tokio::test]
async fn a_crash_leaves_the_old_or_the_new() {
    let (cluster, id) = remains().await;
    let dir = cluster.dirs[&id].path();
    let before = recover::inspect(dir, Sum::open).unwrap();
    let (mut old, mut new) = (0, 0);
    for operations in 0.. {
        let medium = CrashDisk::over(copy(dir), operations);
        medium.cut_power_after(operations);
        let result = recover::recover_on(medium.mount().unwrap(), dir, CLUSTER, Sum::open);
        let cut = medium.is_off();
        assert!(cut || result.is_ok(), "{result:?}");
        medium.power_off().unwrap();

        let after = recover::inspect_on(medium.mount().unwrap(), dir, Sum::open).unwrap();
        if after.cluster == CLUSTER {
            assert!(cut, "what was reported done is undone");
            assert_eq!(after, before);
            old += 1;
            // It can be tried again.
            let again = recover::recover_on(medium.mount().unwrap(), dir, CLUSTER, Sum::open);
            assert_eq!(again.unwrap().before, before);
        } else {
            assert_eq!(after.membership.voters, [NodeId(id)].into());
            assert_eq!(after.last_log.index, before.last_log.index.next());
            assert_eq!((after.commit, after.uncommitted()), (after.last_log.index, 0));
            new += 1;
        }
        if !cut {
            break;
        }
    }
    assert!(old > 5 && new > 2, "{old} before the decision, {new} after it");
}

#[tokio::test]
async fn what_holds_nothing_is_not_recovered() {
    let dir = TempDir::new();
    let nothing = recover::inspect(&dir.path().join("absent"), Sum::open).unwrap_err();
    assert!(matches!(nothing, RecoverError::Nothing), "{nothing}");
    assert!(!dir.path().join("absent").exists());
    let nothing = recover::recover(dir.path(), CLUSTER, Sum::open).unwrap_err();
    assert!(matches!(nothing, RecoverError::Nothing), "{nothing}");

    // Added to a cluster that it has never heard of.
    let mut config = alone(dir.path());
    config.members = [(NodeId(9), Member::from("127.0.0.1:1"))].into();
    config.join = true;
    let (node, running) = start(config, Sum::open).await.unwrap();
    assert!(node.status().membership.voters.is_empty());
    within(node.shutdown()).await;
    within(running).await.unwrap();
    let never = recover::recover(dir.path(), CLUSTER, Sum::open).unwrap_err();
    assert!(matches!(never, RecoverError::NeverJoined(NodeId(1))), "{never}");
}

#[tokio::test]
async fn damage_is_not_papered_over() {
    let (cluster, id) = remains().await;
    let dir = cluster.dirs[&id].path();
    let log = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let log = log
        .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("wal-"))
        .min()
        .unwrap();
    let mut bytes = std::fs::read(&log).unwrap();
    // In the middle of what is written.
    bytes[600] ^= 1;
    std::fs::write(&log, &bytes).unwrap();
    let error = recover::recover(dir, CLUSTER, Sum::open).unwrap_err();
    assert!(matches!(error, RecoverError::Open(StartError::Log(_))), "{error}");
    assert_eq!(std::fs::read(&log).unwrap(), bytes);
    assert_eq!(owner(dir).unwrap().unwrap().cluster, CLUSTER);
}
