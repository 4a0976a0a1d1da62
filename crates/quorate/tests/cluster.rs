//! Three members over real sockets on loopback: whoever is asked answers, whoever leads may leave, and who was away catches up.

mod common;

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bytes::Bytes;
use common::*;
use quorate::*;

#[tokio::test]
async fn every_member_takes_proposals_and_reads_what_was_answered_anywhere() {
    let cluster = Cluster::start(3).await;
    let mut expected = 0;
    for round in 1..=20 {
        for id in 1..=3 {
            expected += round;
            reach(cluster.handle(id), add(round), expected).await;
            let other = id % 3 + 1;
            assert_eq!(
                sum_at(cluster.handle(other)).await,
                expected,
                "read at {other} what {id} answered"
            );
        }
    }
    let leader = cluster.leader().await;
    for id in 1..=3 {
        let confirmed = within(cluster.handle(id).confirm_leadership()).await;
        assert_eq!(confirmed.is_ok(), id == leader, "{confirmed:?} at {id}");
    }
    cluster.stop_all().await;
}

#[tokio::test]
async fn a_killed_leader_is_replaced_and_comes_back() {
    let mut cluster = Cluster::start(3).await;
    reach(cluster.handle(1), add(7), 7).await;
    let old = cluster.leader().await;
    cluster.kill(old);
    let new = cluster.leader().await;
    assert_ne!(new, old);
    let survivor = cluster.members.keys().copied().find(|id| *id != new).unwrap();
    reach(cluster.handle(survivor), add(1), 8).await;

    cluster.start_member(old).await;
    assert_eq!(sum_at(cluster.handle(old)).await, 8);
    cluster.stop_all().await;
}

#[tokio::test]
async fn neither_the_first_election_nor_the_one_after_a_killed_leader_waits_for_a_timeout() {
    let mut cluster = Cluster::start_adjusted(3, |config| config.election = PATIENCE).await;
    let old = cluster.leader().await;
    cluster.connected().await;
    reach(cluster.handle(old), add(7), 7).await;
    cluster.kill(old);
    let new = cluster.leader().await;
    assert_ne!(new, old);
    let survivor = cluster.members.keys().copied().find(|id| *id != new).unwrap();
    reach(cluster.handle(survivor), add(1), 8).await;
    cluster.start_member(old).await;
    assert_eq!(sum_at(cluster.handle(old)).await, 8);
    cluster.stop_all().await;
}

#[tokio::test]
async fn requests_at_a_killed_member_end_unknown() {
    let mut cluster = Cluster::start_patient().await;
    let leader = cluster.leader().await;
    cluster.connected().await;
    // Without a majority nothing commits.
    let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    others.iter().for_each(|id| cluster.kill(*id));
    let handle = cluster.handle(leader).clone();
    let proposal = tokio::spawn({
        let handle = handle.clone();
        async move { handle.propose(add(1)).await }
    });
    until(|| handle.metrics().proposals_pending.get() > 0).await;
    cluster.kill(leader);
    assert_eq!(
        within(proposal).await.unwrap(),
        Err(ProposeError::Unknown(Reason::Stopped))
    );
    assert_eq!(
        within(handle.propose(add(1))).await,
        Err(ProposeError::NotDone(Reason::Stopped))
    );
    within(handle.shutdown()).await;
}

/// So long that within a test nobody campaigns because of a silence.
fn patient(config: &mut Config) {
    config.election = Duration::from_secs(15);
}

#[tokio::test]
async fn a_leader_that_stops_hands_over_first() {
    let mut cluster = Cluster::start_patient().await;
    let old = cluster.leader().await;
    cluster.connected().await;
    reach(cluster.handle(old), add(5), 5).await;
    let metrics = cluster.handle(old).clone();
    let seen = metrics.metrics().leader_changes.get();
    cluster.stop(old).await;
    // While it still ran, and not because it was gone.
    assert!(metrics.metrics().leader_changes.get() > seen);
    let new = cluster.leader().await;
    assert_ne!(new, old);
    reach(cluster.handle(new), add(1), 6).await;
    cluster.stop_all().await;
}

#[tokio::test]
async fn leadership_goes_where_it_is_sent() {
    let cluster = Cluster::start_patient().await;
    let leader = cluster.leader().await;
    cluster.connected().await;
    reach(cluster.handle(leader), add(1), 1).await;
    let other = leader % 3 + 1;
    let elsewhere = within(cluster.handle(other).transfer(None)).await;
    assert_eq!(elsewhere, Err(TransferError::NotLeader(Some(NodeId(leader)))));
    let nobody = within(cluster.handle(leader).transfer(Some(NodeId(99)))).await;
    assert_eq!(nobody, Err(TransferError::NotMember));
    assert_eq!(
        within(cluster.handle(leader).transfer(Some(NodeId(other)))).await,
        Ok(())
    );
    assert_eq!(cluster.handle(leader).status().leader, Some(NodeId(other)));
    reach(cluster.handle(leader), add(1), 2).await;
    cluster.stop_all().await;
}

/// This cluster, in which one member is stopped by then and needs a snapshot; the leader, and that member.
async fn behind(mut cluster: Cluster) -> (Cluster, u64, u64) {
    let leader = cluster.leader().await;
    let away = leader % 3 + 1;
    reach(cluster.handle(leader), add(1), 1).await;
    cluster.stop(away).await;

    // More than the log keeps for those who are away.
    let mut command = add(1).to_vec();
    command.resize(1 << 20, 0);
    let command = Bytes::from(command);
    for n in 2..=90 {
        reach(cluster.handle(leader), command.clone(), n).await;
    }
    let leader = cluster.leader().await;
    let last = cluster.handle(leader).status().commit;
    // The machine flushes after every batch, and what is flushed may be dropped from the log.
    until(|| cluster.handle(leader).status().durable >= last).await;
    (cluster, leader, away)
}

#[tokio::test]
async fn a_member_that_was_away_too_long_gets_a_snapshot() {
    let (mut cluster, _, away) = behind(Cluster::start(3).await).await;
    cluster.start_member(away).await;
    assert_eq!(sum_at(cluster.handle(away)).await, 90);
    let applied = within(cluster.handle(away).local(|machine| machine.commands))
        .await
        .unwrap();
    assert!(
        applied < 45,
        "most came with the snapshot, {applied} from the log"
    );
    reach(cluster.handle(away), add(10), 100).await;
    assert!(!cluster.dirs[&away].path().join("incoming-snapshot").exists());

    // What it restored is its own now.
    cluster.kill(away);
    cluster.start_member(away).await;
    assert_eq!(sum_at(cluster.handle(away)).await, 100);
    cluster.stop_all().await;
}

/// The real disk, on which restoring a snapshot takes as long as the gate is closed.
#[derive(Debug)]
struct Slow(DirDisk, Arc<(Mutex<bool>, Condvar)>);

impl Disk for Slow {
    fn open(&self, name: &str, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        // The disk thread writes this file, the flusher reads it.
        if name == "incoming-snapshot" && std::thread::current().name() == Some("quorate-flush") {
            let (closed, opened) = &*self.1;
            drop(
                opened
                    .wait_while(closed.lock().unwrap(), |closed| *closed)
                    .unwrap(),
            );
        }
        self.0.open(name, create)
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }
    fn sync_dir(&self) -> io::Result<()> {
        self.0.sync_dir()
    }
}

#[tokio::test]
async fn while_a_snapshot_is_restored_reads_end_in_time_and_the_status_says_why() {
    let (mut cluster, _, away) = behind(Cluster::start(3).await).await;
    let gate = Arc::new((Mutex::new(true), Condvar::new()));
    let disk = Slow(DirDisk::open(cluster.dirs[&away].path()).unwrap(), gate.clone());
    let config = Config {
        timeout: Duration::from_millis(50),
        ..cluster.config(away)
    };
    cluster.start_with(away, config, Some(Arc::new(disk))).await;
    let handle = cluster.handle(away);
    let mut status = handle.subscribe();
    within(status.wait_for(|now| now.restoring)).await.unwrap();
    let refused = within(handle.local(|machine| machine.sum)).await;
    assert_eq!(refused, Err(ReadError(Reason::Timeout)));
    assert!(handle.status().restoring);

    *gate.0.lock().unwrap() = false;
    gate.1.notify_all();
    within(status.wait_for(|now| !now.restoring)).await.unwrap();
    assert_eq!(sum_at(handle).await, 90);
    cluster.stop_all().await;
}

#[tokio::test]
async fn a_snapshot_goes_on_after_a_restart_of_its_receiver() {
    // The leader must stay, and its transfer wait as long as a start takes; but it asks as seldom how far the receiver is.
    let (mut cluster, leader, away) = behind(Cluster::start_led(patient).await).await;
    let views = within(cluster.handle(leader).local(|machine| machine.views.clone()))
        .await
        .unwrap();
    views.close_gate();
    let staging = cluster.dirs[&away].path().join("incoming-snapshot");
    let staged = || std::fs::metadata(&staging).map_or(0, |file| file.len());

    cluster.start_member(away).await;
    until(|| staged() > GATE as u64).await;
    cluster.kill(away);
    cluster.start_member(away).await;
    cluster.connected().await;
    assert!(staged() > GATE as u64, "what was staged is still there");
    views.open_gate();
    assert_eq!(sum_at(cluster.handle(away)).await, 90);
    assert_eq!(views.taken.load(Ordering::SeqCst), 1, "it was one transfer");
    assert!(!staging.exists());
    cluster.stop_all().await;
}

#[tokio::test]
async fn members_ask_each_other() {
    let mut cluster = Cluster::start(3).await;
    cluster.connected().await;
    let mut asks = cluster.handle(2).serve_asks();
    let server = tokio::spawn(async move {
        while let Some(ask) = asks.recv().await {
            match &ask.request[..] {
                b"silence" => drop(ask.reply),
                request => {
                    let mut answer = format!("{}:", ask.from).into_bytes();
                    answer.extend_from_slice(request);
                    let _ = ask.reply.send(answer.into());
                }
            }
        }
    });
    let ask = |from: u64, to: u64, what: &'static [u8]| {
        within(cluster.handle(from).ask(NodeId(to), Bytes::from_static(what)))
    };
    assert_eq!(ask(1, 2, b"hello").await, Ok(Bytes::from_static(b"1:hello")));
    assert_eq!(ask(3, 2, b"hello").await, Ok(Bytes::from_static(b"3:hello")));
    assert_eq!(ask(1, 2, b"silence").await, Err(AskError::Refused));
    assert_eq!(
        ask(1, 3, b"hello").await,
        Err(AskError::Refused),
        "3 serves nobody"
    );
    assert_eq!(ask(1, 9, b"hello").await, Err(AskError::NotMember));
    cluster.kill(2);
    cluster.connected().await;
    let gone = within(cluster.handle(1).ask(NodeId(2), Bytes::new())).await;
    assert_eq!(gone, Err(AskError::Unreachable));
    within(server).await.unwrap();
    cluster.stop_all().await;
}

#[tokio::test]
async fn a_follower_that_was_paused_does_not_blame_its_leader() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    cluster.connected().await;
    reach(cluster.handle(leader), add(1), 1).await;
    let follower = leader % 3 + 1;
    let before = (
        cluster.handle(follower).status().term,
        changes(&cluster, follower),
    );

    // The pause itself: its only thread does nothing else, longer than any election timeout.
    let pause = cluster.config(follower).election * 5 / 2;
    let paused = cluster.members[&follower]
        .runtime
        .spawn(async move { std::thread::sleep(pause) });
    within(paused).await.unwrap();

    reach(cluster.handle(leader), add(1), 2).await;
    assert_eq!(sum_at(cluster.handle(follower)).await, 2);
    let after = (
        cluster.handle(follower).status().term,
        changes(&cluster, follower),
    );
    assert_eq!(before, after, "term and leader are as they were");
    cluster.stop_all().await;
}

fn changes(cluster: &Cluster, id: u64) -> u64 {
    cluster.handle(id).metrics().leader_changes.get()
}

#[tokio::test]
async fn an_empty_handed_follower_says_that_there_is_no_leader() {
    let mut cluster = Cluster::prepare(3);
    cluster.adjust = |config| {
        patient(config);
        config.timeout = Duration::from_millis(300);
    };
    cluster.start_member(1).await;
    let proposal = within(cluster.handle(1).propose(add(1))).await;
    assert_eq!(
        proposal,
        Err(ProposeError::NotDone(Reason::NoLeader)),
        "nothing was sent anywhere"
    );
    assert_eq!(sum(cluster.handle(1)).await, Err(ReadError(Reason::NoLeader)));
    assert_eq!(
        within(cluster.handle(1).local(|machine| machine.sum)).await,
        Ok(0),
        "the local state is here"
    );
    cluster.kill(1);
}
