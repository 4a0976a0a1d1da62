//! Data directories that are not, or no longer, what their members were: wiped, put back from an old copy, run twice, removed, or of an
//! older release. Each is recognised by whoever knew it better, and says what to do.

mod common;

use std::path::Path;
use std::sync::Arc;

use common::*;
use quorate::*;

/// Copies all files of a data directory, perhaps of a running member. What a member replaces or prepares goes by a passing name until it is
/// complete: such a file may vanish, and the copy is as good without it.
fn copy(from: &Path, to: &Path) {
    wipe(to);
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        match std::fs::copy(file.path(), to.join(file.file_name())) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => assert!(!file.path().exists()),
            copied => drop(copied.unwrap()),
        }
    }
}

/// Removes all files of a data directory.
fn wipe(dir: &Path) {
    for file in std::fs::read_dir(dir).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
}

/// Listens where nobody expects it.
fn elsewhere() -> Resources {
    Resources {
        listeners: vec![std::net::TcpListener::bind("127.0.0.1:0").unwrap()],
        ..Resources::default()
    }
}

/// Starts a member that is expected to end by itself, and answers what it says.
async fn doom(cluster: &mut Cluster, id: u64) -> Fatal {
    cluster.start_member(id).await;
    let member = cluster.members.remove(&id).unwrap();
    let end = fate(member.running).await;
    member.runtime.shutdown_background();
    end
}

#[tokio::test]
async fn a_wiped_directory_is_not_let_in_under_its_old_id() {
    let mut cluster = Cluster::start(3).await;
    cluster.connected().await;
    reach(cluster.handle(1), add(5), 5).await;
    cluster.stop(3).await;
    wipe(cluster.dirs[&3].path());
    let end = doom(&mut cluster, 3).await;
    assert!(
        matches!(&end, Fatal::Refused(why) if why.contains("its data was lost")
            && why.contains("add it as a new member")),
        "{end}"
    );
    reach(cluster.handle(1), add(1), 6).await;
    // It does not even try again.
    let error = start_with(cluster.config(3), elsewhere(), Sum::open)
        .await
        .unwrap_err();
    assert!(matches!(error, StartError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("its data was lost"), "{error}");
    cluster.stop_all().await;
}

#[tokio::test]
async fn an_old_copy_is_not_let_in() {
    let mut cluster = Cluster::start(3).await;
    cluster.connected().await;
    reach(cluster.handle(1), add(5), 5).await;
    let leader = cluster.leader().await;
    let victim = leader % 3 + 1;
    let leader = caught_up(&cluster, victim).await;
    until(|| {
        let now = cluster.handle(victim).status();
        now.durable == now.last_log.index
    })
    .await;
    // Taken while nothing is written, as good as a backup can be.
    let backup = TempDir::new();
    copy(cluster.dirs[&victim].path(), backup.path());
    // In a later term the victim votes and acknowledges.
    let term = cluster.handle(leader).status().term;
    let next = within(async {
        loop {
            let now = cluster.leader().await;
            if now != victim && cluster.handle(now).status().term > term {
                return now;
            }
            let other = (1..=3).find(|id| *id != now && *id != victim).unwrap();
            // Whether or not somebody took over in time is seen above.
            let _ = cluster.handle(now).transfer(Some(NodeId(other))).await;
        }
    })
    .await;
    reach(cluster.handle(next), add(1), 6).await;
    caught_up(&cluster, victim).await;
    cluster.stop(victim).await;
    copy(backup.path(), cluster.dirs[&victim].path());
    let end = doom(&mut cluster, victim).await;
    assert!(
        matches!(&end, Fatal::Refused(why) if why.contains("has been seen in term")
            && why.contains("add it as a new member")),
        "{end}"
    );
    reach(cluster.handle(next), add(1), 7).await;
    cluster.stop_all().await;
}

#[tokio::test]
async fn of_two_processes_with_one_id_the_second_is_not_let_in() {
    let mut cluster = Cluster::start(3).await;
    cluster.connected().await;
    reach(cluster.handle(1), add(5), 5).await;
    cluster.stop(3).await;
    let twin = TempDir::new();
    copy(cluster.dirs[&3].path(), twin.path());
    cluster.start_member(3).await;
    cluster.connected().await;
    let config = Config {
        data_dir: twin.path().to_owned(),
        ..cluster.config(3)
    };
    let (_handle, running) = start_with(config, elsewhere(), Sum::open_eager).await.unwrap();
    let end = fate(running).await;
    assert!(
        matches!(&end, Fatal::Refused(why) if why.contains("another process")),
        "{end}"
    );
    reach(cluster.handle(3), add(1), 6).await;
    cluster.stop_all().await;
}

#[tokio::test]
async fn what_was_seen_of_a_peer_survives_the_restart_of_all_who_saw_it() {
    let mut cluster = Cluster::start(3).await;
    cluster.connected().await;
    reach(cluster.handle(1), add(5), 5).await;
    for id in 1..=3 {
        cluster.stop(id).await;
    }
    wipe(cluster.dirs[&3].path());
    cluster.start_member(1).await;
    cluster.start_member(2).await;
    let end = doom(&mut cluster, 3).await;
    assert!(matches!(&end, Fatal::Refused(_)), "{end}");
    cluster.stop_all().await;
}

#[tokio::test]
async fn a_damaged_record_of_the_peers_is_not_ignored() {
    let mut cluster = Cluster::start(3).await;
    cluster.connected().await;
    cluster.stop(1).await;
    let path = cluster.dirs[&1].path().join("peers");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[30] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let disk: Arc<dyn Disk> = Arc::new(DirDisk::open(cluster.dirs[&1].path()).unwrap());
    let resources = Resources {
        disk: Some(disk),
        ..elsewhere()
    };
    let error = start_with(cluster.config(1), resources, Sum::open)
        .await
        .unwrap_err();
    assert!(matches!(error, StartError::Roster { .. }), "{error}");
    assert!(error.to_string().contains("remove that one file"), "{error}");
    std::fs::remove_file(path).unwrap();
    cluster.start_member(1).await;
    cluster.connected().await;
    cluster.stop_all().await;
}

#[tokio::test]
async fn a_member_that_was_away_when_it_was_removed_hears_of_it() {
    let mut cluster = Cluster::start(3).await;
    cluster.connected().await;
    reach(cluster.handle(1), add(5), 5).await;
    cluster.stop(3).await;
    let removal = vec![MemberChange::Remove(NodeId(3))];
    change_when_ready(&cluster, 1, removal, false, voting(&[1, 2])).await;
    let end = doom(&mut cluster, 3).await;
    assert!(matches!(end, Fatal::Removed), "{end}");
    reach(cluster.handle(2), add(1), 6).await;
    cluster.stop_all().await;
}

/// All members of an old release.
fn old(config: &mut Config) {
    config.features = 1;
}

#[tokio::test]
async fn members_of_two_releases_make_one_cluster_until_all_are_of_the_new_one() {
    let mut cluster = Cluster::start_adjusted(3, old).await;
    cluster.connected().await;
    reach(cluster.handle(1), add(1), 1).await;
    let removal = || vec![MemberChange::Remove(NodeId(3))];
    let mut sum = 1;
    cluster.adjust = |_| {};
    for upgraded in 1..=3 {
        cluster.stop(upgraded).await;
        cluster.start_member(upgraded).await;
        cluster.connected().await;
        for id in 1..=3 {
            sum += 1;
            reach(cluster.handle(id), add(1), sum).await;
        }
        if upgraded < 3 {
            let status = cluster.handle(1).status();
            assert!(status.membership.level < 2, "one does not understand level 2 yet");
            // Nor changes of the membership.
            refused(cluster.handle(1), removal(), ChangeRefusal::Level).await;
        }
    }
    for id in 1..=3 {
        let mut status = cluster.handle(id).subscribe();
        within(status.wait_for(|now| now.membership.level == 2))
            .await
            .unwrap();
    }
    // In its log for good, that is.
    caught_up(&cluster, 3).await;
    // An old release would not understand what it finds from now on.
    cluster.stop(3).await;
    cluster.adjust = old;
    let error = start_with(cluster.config(3), elsewhere(), Sum::open)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("start a later release"), "{error}");
    cluster.stop_all().await;
}
