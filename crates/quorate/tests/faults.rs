//! Disks that fail or fill up, and machines that break: the node stops or refuses, and never acknowledges what is not safe.

mod common;

use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use bytes::Bytes;
use common::*;
use quorate::*;

/// What is wrong with the log's files at the moment.
#[derive(Debug, Default)]
struct Faults {
    /// Every sync fails.
    sync: AtomicBool,
    /// Every write fails.
    write: AtomicBool,
    /// There is no room for new files.
    full: AtomicBool,
    /// Syncs do not come back while this is set.
    stall: Mutex<bool>,
    released: Condvar,
}

impl Faults {
    fn stall(&self, stalled: bool) {
        *self.stall.lock().unwrap() = stalled;
        self.released.notify_all();
    }
}

/// The real disk with faults in everything that is not the machine's.
#[derive(Debug)]
struct Faulty {
    disk: DirDisk,
    faults: Arc<Faults>,
}

#[derive(Debug)]
struct FaultyFile {
    file: Arc<dyn DiskFile>,
    faults: Arc<Faults>,
}

fn broken() -> io::Error {
    io::Error::other("injected: input/output error")
}

impl Disk for Faulty {
    fn open(&self, name: &str, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        if name.starts_with("sum") {
            return self.disk.open(name, create);
        }
        if create
            && self.faults.full.load(Ordering::SeqCst)
            && !self.disk.list()?.iter().any(|old| old == name)
        {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(Arc::new(FaultyFile {
            file: self.disk.open(name, create)?,
            faults: self.faults.clone(),
        }))
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }
    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()
    }
}

impl FaultyFile {
    fn may_write(&self) -> io::Result<()> {
        if self.faults.write.load(Ordering::SeqCst) {
            Err(broken())
        } else {
            Ok(())
        }
    }
}

impl DiskFile for FaultyFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.may_write()?;
        self.file.write_at(offset, data)
    }
    fn write_vectored_at(&self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        self.may_write()?;
        self.file.write_vectored_at(offset, parts)
    }
    fn sync(&self) -> io::Result<()> {
        drop(
            self.faults
                .released
                .wait_while(self.faults.stall.lock().unwrap(), |stalled| *stalled)
                .unwrap(),
        );
        if self.faults.sync.load(Ordering::SeqCst) {
            Err(broken())
        } else {
            self.file.sync()
        }
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
}

fn faulty(dir: &std::path::Path) -> (Arc<Faults>, Arc<dyn Disk>) {
    let faults = Arc::new(Faults::default());
    let disk = Faulty {
        disk: DirDisk::open(dir).unwrap(),
        faults: faults.clone(),
    };
    (faults, Arc::new(disk))
}

async fn start_on(disk: Arc<dyn Disk>, dir: &TempDir) -> (Handle<Sum>, Running) {
    let resources = Resources {
        disk: Some(disk),
        ..Resources::default()
    };
    start_with(alone(dir.path()), resources, Sum::open).await.unwrap()
}

#[tokio::test]
async fn a_failed_write_or_sync_of_the_log_ends_the_node_and_acknowledges_nothing() {
    let fail_sync: fn(&Faults) = |faults| faults.sync.store(true, Ordering::SeqCst);
    let fail_write: fn(&Faults) = |faults| faults.write.store(true, Ordering::SeqCst);
    for fail in [fail_sync, fail_write] {
        let dir = TempDir::new();
        let (faults, disk) = faulty(dir.path());
        let (node, running) = start_on(disk, &dir).await;
        assert_eq!(within(node.propose(add(1))).await, Ok(1));
        fail(&faults);
        let (one, two) = within(async { tokio::join!(node.propose(add(10)), node.propose(add(100))) }).await;
        for answer in [one, two] {
            let error = answer.expect_err("what is not durable is not acknowledged");
            assert_eq!(error.reason(), Reason::Stopped);
        }
        let fatal = fate(running).await;
        assert!(
            matches!(&fatal, Fatal::Log(why) if why.contains("injected")),
            "{fatal}"
        );
        assert_eq!(
            node.propose(add(1)).await,
            Err(ProposeError::NotDone(Reason::Stopped))
        );
        assert!(node.status().stopping);

        // What was acknowledged is there when the disk works again.
        let (node, _running) = start(alone(dir.path()), Sum::open).await.unwrap();
        let sum = sum(&node).await.unwrap();
        assert!([1, 11, 101, 111].contains(&sum), "{sum}");
        within(node.shutdown()).await;
    }
}

/// A node whose end waits for its disk for a moment only.
async fn hasty(disk: Option<Arc<dyn Disk>>, dir: &TempDir, open: OpenSum) -> (Handle<Sum>, Running) {
    let config = Config {
        timeout: std::time::Duration::from_millis(50),
        ..alone(dir.path())
    };
    let resources = Resources {
        disk,
        ..Resources::default()
    };
    start_with(config, resources, open).await.unwrap()
}

type OpenSum = Box<dyn FnOnce(Arc<dyn Disk>) -> io::Result<Sum>>;

/// Opens a machine whose first job ends with the other end of this.
fn held() -> (std::sync::mpsc::Sender<()>, OpenSum) {
    let (release, hold) = std::sync::mpsc::channel();
    let open = |disk| {
        let mut machine = Sum::open(disk)?;
        machine.hold = Some(hold);
        Ok(machine)
    };
    (release, Box::new(open))
}

#[tokio::test]
async fn a_log_on_a_disk_that_hangs_does_not_keep_the_node_from_ending() {
    let dir = TempDir::new();
    let (faults, disk) = faulty(dir.path());
    let (node, running) = hasty(Some(disk), &dir, Box::new(Sum::open)).await;
    reach(&node, add(1), 1).await;
    faults.stall(true);
    let lost = within(node.propose(add(10))).await;
    assert!(matches!(lost, Err(ProposeError::Unknown(_))), "{lost:?}");
    within(node.shutdown()).await;
    let fatal = fate(running).await;
    assert!(matches!(fatal, Fatal::DiskHangs), "{fatal}");
    faults.stall(false);
}

#[tokio::test]
async fn a_machine_that_hangs_does_not_keep_the_node_from_ending() {
    let dir = TempDir::new();
    let (release, open) = held();
    let (node, running) = hasty(None, &dir, open).await;
    reach(&node, add(1), 1).await;
    within(node.shutdown()).await;
    let fatal = fate(running).await;
    assert!(matches!(fatal, Fatal::DiskHangs), "{fatal}");
    let again = start(alone(dir.path()), Sum::open).await;
    assert!(matches!(again, Err(StartError::Locked { .. })), "it is in use");
    drop(release);
}

/// The machine's job hangs on the same disk on which the log fails.
#[tokio::test]
async fn a_log_that_fails_ends_the_node_although_its_machine_hangs() {
    let dir = TempDir::new();
    let (faults, disk) = faulty(dir.path());
    let (release, open) = held();
    let open: OpenSum = Box::new(|disk| {
        let mut machine = open(disk)?;
        machine.eager = true;
        Ok(machine)
    });
    let (node, running) = hasty(Some(disk), &dir, open).await;
    reach(&node, add(1), 1).await;
    faults.sync.store(true, Ordering::SeqCst);
    let lost = within(node.propose(add(10))).await;
    assert!(matches!(lost, Err(ProposeError::Unknown(_))), "{lost:?}");
    let fatal = fate(running).await;
    assert!(matches!(fatal, Fatal::Log(_)), "{fatal}");
    drop(release);
}

#[tokio::test]
async fn a_leader_whose_disk_fails_is_replaced_and_loses_nothing() {
    let mut cluster = Cluster::prepare(3);
    let mut faults = std::collections::BTreeMap::new();
    for id in 1..=3 {
        let (switch, disk) = faulty(cluster.dirs[&id].path());
        faults.insert(id, switch);
        let config = cluster.config(id);
        cluster.start_with(id, config, Some(disk)).await;
    }
    let leader = cluster.leader().await;
    cluster.connected().await;
    reach(cluster.handle(leader), add(1), 1).await;
    faults[&leader].sync.store(true, Ordering::SeqCst);
    let lost = within(cluster.handle(leader).propose(add(10))).await;
    assert_eq!(lost, Err(ProposeError::Unknown(Reason::Stopped)));
    let member = cluster.members.remove(&leader).unwrap();
    assert!(matches!(fate(member.running).await, Fatal::Log(_)));
    member.runtime.shutdown_background();

    let new = cluster.leader().await;
    let sum = within(cluster.handle(new).propose(add(100))).await.unwrap();
    assert!(
        sum == 101 || sum == 111,
        "the unknown one may have been done: {sum}"
    );
    cluster.stop_all().await;
}

#[tokio::test]
async fn a_leader_whose_disk_falls_silent_hands_over() {
    let mut cluster = Cluster::prepare(3);
    let mut faults = std::collections::BTreeMap::new();
    for id in 1..=3 {
        let (switch, disk) = faulty(cluster.dirs[&id].path());
        faults.insert(id, switch);
        let config = cluster.config(id);
        cluster.start_with(id, config, Some(disk)).await;
    }
    let old = cluster.leader().await;
    cluster.connected().await;
    reach(cluster.handle(old), add(1), 1).await;
    faults[&old].stall(true);
    let waiting = tokio::spawn({
        let handle = cluster.handle(old).clone();
        async move { handle.propose(add(10)).await }
    });
    // A leader never falls silent for lack of a disk, so nothing but a transfer can move the leadership.
    let other = old % 3 + 1;
    let mut status = cluster.handle(other).subscribe();
    let moved = |now: &Status| now.leader.is_some_and(|leader| leader.0 != old);
    within(status.wait_for(moved)).await.unwrap();
    assert_eq!(cluster.handle(old).metrics().disk_stalls.get(), 1);
    let sum = within(cluster.handle(other).propose(add(100))).await.unwrap();
    faults[&old].stall(false);
    match within(waiting).await.unwrap() {
        Ok(sum) => assert_eq!(sum, 11, "the others had it before they heard of anything later"),
        Err(error) => assert!(sum == 101 || matches!(error, ProposeError::Unknown(_)), "{error}"),
    }
    assert_eq!(common::sum(cluster.handle(old)).await, Ok(sum));
    cluster.stop_all().await;
}

#[tokio::test]
async fn a_full_disk_is_seen_before_it_hurts_and_outlived() {
    let dir = TempDir::new();
    let (faults, disk) = faulty(dir.path());
    let resources = Resources {
        disk: Some(disk),
        ..Resources::default()
    };
    // Full from the moment the log is there.
    let open = |disk| {
        faults.full.store(true, Ordering::SeqCst);
        Sum::open(disk)
    };
    let (node, running) = start_with(alone(dir.path()), resources, open).await.unwrap();
    let mut status = node.subscribe();
    within(status.wait_for(|now| now.space == Space::Low))
        .await
        .unwrap();

    let command = megabyte();
    let mut done = 0;
    let refused = loop {
        match within(node.propose(command.clone())).await {
            Ok(sum) => done = sum,
            Err(error) => break error,
        }
    };
    assert_eq!(refused, ProposeError::NotDone(Reason::NoSpace));
    assert!(done > 5, "the reserve was of some use: {done}");
    assert_eq!(node.status().space, Space::Out);
    assert_eq!(sum(&node).await, Ok(done), "reads are served");
    // The machine, which is in no hurry by itself, has saved what it has: the log can go.
    until(|| dir.path().join("sum").exists()).await;

    faults.full.store(false, Ordering::SeqCst);
    within(status.wait_for(|now| now.space == Space::Ok))
        .await
        .unwrap();
    assert_eq!(within(node.propose(command)).await, Ok(done + 1));
    within(node.shutdown()).await;
    within(running).await.unwrap();
}

#[tokio::test]
async fn a_full_member_lives_on_while_the_others_write_and_catches_up_when_there_is_room() {
    let mut cluster = Cluster::prepare(3);
    let (faults, disk) = faulty(cluster.dirs[&3].path());
    for id in 1..=3 {
        let disk = (id == 3).then(|| disk.clone());
        cluster.start_with(id, cluster.config(id), disk).await;
    }
    cluster.connected().await;
    cluster.leader().await;
    faults.full.store(true, Ordering::SeqCst);

    let command = megabyte();
    let mut status = cluster.handle(3).subscribe();
    let mut out = false;
    // Far more than two segments hold. If the full member leads, it hands over, and some proposals fail on the way.
    let mut done = 0;
    while done < 60 {
        out |= status.borrow_and_update().space == Space::Out;
        match within(cluster.handle(1).propose(command.clone())).await {
            Ok(sum) => done = sum,
            Err(_) => breathe().await,
        }
    }
    within(status.wait_for(|now| now.space == Space::Out))
        .await
        .unwrap();
    assert!(out, "the others went on after this member's room had ended");
    assert!(cluster.handle(3).status().applied < cluster.handle(1).status().applied);

    faults.full.store(false, Ordering::SeqCst);
    until(|| cluster.handle(3).status().applied == cluster.handle(1).status().applied).await;
    assert_eq!(sum_at(cluster.handle(3)).await, done);
    cluster.stop_all().await;
}

/// A megabyte that adds one.
fn megabyte() -> Bytes {
    let mut command = add(1).to_vec();
    command.resize(1 << 20, 0);
    command.into()
}

/// Reads until it works: leadership may be on the move.
async fn read_at_last(handle: &Handle<Sum>) -> u64 {
    within(async {
        loop {
            match handle.read(|machine| machine.sum).await {
                Ok(sum) => return sum,
                Err(_) => breathe().await,
            }
        }
    })
    .await
}

/// Nobody campaigns here but who is told to; and nothing is done without the other one.
#[tokio::test]
async fn where_every_disk_is_full_the_leader_stays_and_reads_go_on_even_with_the_last_room_used_up() {
    let mut cluster = Cluster::prepare(2);
    let mut faults = std::collections::BTreeMap::new();
    for id in 1..=2 {
        let (switch, disk) = faulty(cluster.dirs[&id].path());
        faults.insert(id, switch);
        cluster.disks.insert(id, disk);
    }
    let cluster = cluster.led(|config| config.election = PATIENCE).await;
    cluster.connected().await;
    let space = |id: u64| cluster.handle(id).status().space;
    let reign = |id: u64| {
        let status = cluster.handle(id).status();
        (status.term, status.leader)
    };

    for disk in faults.values() {
        disk.full.store(true, Ordering::SeqCst);
    }
    let mut done = 0;
    while (1..=2).any(|id| space(id) == Space::Ok) {
        done += 1;
        reach(cluster.handle(1), megabyte(), done).await;
    }
    // Whoever is full first hands over to the other one, which may not know yet that it is, too. At rest is a leader that has heard of the
    // other's want from itself (with every read) and takes proposals.
    let (leader, rest) = loop {
        let leader = cluster.leader().await;
        let before = reign(leader);
        read_at_last(cluster.handle(leader)).await;
        done += 1;
        reach(cluster.handle(leader), add(1), done).await;
        if before == reign(leader) && before.1 == Some(NodeId(leader)) {
            break (leader, before);
        }
    };
    for _ in 0..10 {
        done += 1;
        assert_eq!(within(cluster.handle(leader).propose(add(1))).await, Ok(done));
        for id in 1..=2 {
            assert_eq!(sum(cluster.handle(id)).await, Ok(done));
            assert_eq!(reign(id), rest);
        }
    }

    // Whoever leads and has used up its room tries once whether somebody else has some.
    while (1..=2).any(|id| space(id) != Space::Out) {
        for id in 1..=2 {
            match within(cluster.handle(id).propose(megabyte())).await {
                Ok(sum) => done = sum,
                Err(ProposeError::NotDone(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
    for id in 1..=2 {
        assert_eq!(read_at_last(cluster.handle(id)).await, done);
    }
    // A term that begins with no room at all.
    let leader = cluster.leader().await;
    within(cluster.handle(leader).transfer(None)).await.unwrap();
    for id in 1..=2 {
        assert_eq!(read_at_last(cluster.handle(id)).await, done);
        let refused = within(cluster.handle(id).propose(add(1))).await;
        assert_eq!(refused, Err(ProposeError::NotDone(Reason::NoSpace)));
    }

    for (id, disk) in &faults {
        disk.full.store(false, Ordering::SeqCst);
        until(|| space(*id) == Space::Ok).await;
    }
    reach(cluster.handle(leader), add(1), done + 1).await;
    cluster.stop_all().await;
}

#[tokio::test]
async fn a_machine_that_panics_ends_the_node() {
    let dir = TempDir::new();
    let (node, running) = start(alone(dir.path()), Sum::open).await.unwrap();
    assert_eq!(within(node.propose(add(1))).await, Ok(1));
    assert_eq!(
        within(node.propose(add(0))).await,
        Err(ProposeError::Unknown(Reason::Stopped))
    );
    let fatal = fate(running).await;
    assert!(
        matches!(&fatal, Fatal::Panic(why) if why.contains("zero was proposed")),
        "{fatal}"
    );
    within(node.shutdown()).await;
}

#[tokio::test]
async fn a_machine_that_cannot_flush_ends_the_node() {
    let dir = TempDir::new();
    let (node, running) = start(alone(dir.path()), Sum::open_eager).await.unwrap();
    assert_eq!(within(node.propose(add(1))).await, Ok(1));
    until(|| dir.path().join("sum").exists()).await;
    // A directory in the way of the machine's file.
    std::fs::create_dir_all(dir.path().join("sum.new")).unwrap();
    let _ = within(node.propose(add(1))).await;
    let fatal = fate(running).await;
    assert!(matches!(fatal, Fatal::Machine(_)), "{fatal}");
}

#[tokio::test]
async fn a_machine_that_does_not_fit_its_log_is_not_started() {
    let dir = TempDir::new();
    let (node, running) = start(alone(dir.path()), Sum::open).await.unwrap();
    assert_eq!(within(node.propose(add(1))).await, Ok(1));
    within(node.shutdown()).await;
    within(running).await.unwrap();
    let ahead = |disk| {
        let mut machine = Sum::open(disk)?;
        machine.applied.index = Index(1_000_000);
        Ok(machine)
    };
    let error = start(alone(dir.path()), ahead).await.unwrap_err();
    assert!(matches!(&error, StartError::Boot { .. }), "{error}");
}
