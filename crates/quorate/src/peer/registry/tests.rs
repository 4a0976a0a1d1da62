//! Who is let in, on a directory and on disks that fail, fill up or hang.

use std::sync::{Condvar, mpsc};

use quorate_base::DiskFile;
use quorate_node::handshake::Papers;

use super::*;
use crate::disk::DirDisk;
use crate::testing::TempDir;

fn hello(boot: u64) -> Hello {
    Hello {
        protocol: 2,
        features: 2,
        cluster: 9,
        from: NodeId(1),
        to: NodeId(2),
        boot,
        lane: 0,
        papers: Some(Papers {
            nonces: (1..=boot).collect(),
            ..Papers::default()
        }),
    }
}

fn registry(dir: &TempDir) -> Registry {
    let disk = DirDisk::open(dir.path()).unwrap();
    let roster = Roster::load(&disk, 9, NodeId(2)).unwrap();
    let reports: Reports = Arc::new(|_| panic!("this disk does not fail"));
    Registry::new(roster, Arc::new(disk), None, reports)
}

#[tokio::test]
async fn who_is_let_in_is_known_after_a_restart() {
    let dir = TempDir::new();
    registry(&dir).admit(NodeId(1), &hello(3)).await.unwrap();
    let again = registry(&dir);
    assert!(again.admit(NodeId(1), &hello(2)).await.is_err());
    again.admit(NodeId(1), &hello(3)).await.unwrap();
    again.note(NodeId(1), Term(5), Index(7));
    again.close().await;
    let known = *registry(&dir).state().roster.known(NodeId(1)).unwrap();
    assert_eq!((known.boot, known.term, known.matched), (3, Term(5), Index(7)));
}

/// What is wrong with a disk.
#[derive(Debug, Default)]
struct Faults {
    /// Which call fails, if one does, and how.
    fails: Mutex<Option<(Call, io::ErrorKind)>>,
    /// Syncs do not come back while this is set.
    stalled: Mutex<bool>,
    released: Condvar,
    /// One for every sync that was begun.
    syncs: tokio::sync::Notify,
}

/// The real disk, with these.
#[derive(Debug)]
struct Bad(DirDisk, Arc<Faults>);

/// Making a file, syncing it, or syncing the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Create,
    Sync,
    SyncDir,
}

impl Faults {
    fn set(&self, fails: Option<(Call, io::ErrorKind)>) {
        *self.fails.lock().unwrap() = fails;
    }

    fn check(&self, call: Call) -> io::Result<()> {
        match *self.fails.lock().unwrap() {
            Some((bad, error)) if bad == call => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn stall(&self, stalled: bool) {
        *self.stalled.lock().unwrap() = stalled;
        self.released.notify_all();
    }
}

impl Disk for Bad {
    fn open(&self, name: &str, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        if create {
            self.1.check(Call::Create)?;
        }
        Ok(Arc::new(BadFile(self.0.open(name, create)?, self.1.clone())))
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
        self.1.check(Call::SyncDir)?;
        self.0.sync_dir()
    }
}

#[derive(Debug)]
struct BadFile(Arc<dyn DiskFile>, Arc<Faults>);

impl DiskFile for BadFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, data)
    }
    fn sync(&self) -> io::Result<()> {
        self.1.syncs.notify_one();
        let stalled = self.1.stalled.lock().unwrap();
        drop(self.1.released.wait_while(stalled, |stalled| *stalled).unwrap());
        self.1.check(Call::Sync)?;
        self.0.sync()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
}

/// A registry on such a disk, and what it says of the node's end.
fn bad(dir: &TempDir, call: Call, error: io::ErrorKind) -> (Registry, Arc<Faults>, mpsc::Receiver<Fatal>) {
    let faults = Arc::new(Faults::default());
    faults.set(Some((call, error)));
    let disk = Bad(DirDisk::open(dir.path()).unwrap(), faults.clone());
    let (sender, told) = mpsc::channel();
    let reports: Reports = Arc::new(move |report| match report {
        Report::Failed(fatal) => sender.send(fatal).unwrap(),
        _ => panic!("nothing else is said"),
    });
    let roster = Roster::new(9, NodeId(2));
    (Registry::new(roster, Arc::new(disk), None, reports), faults, told)
}

#[tokio::test]
async fn a_full_disk_keeps_nobody_out() {
    let dir = TempDir::new();
    let (bad, faults, told) = bad(&dir, Call::Create, io::ErrorKind::StorageFull);
    bad.admit(NodeId(1), &hello(3)).await.unwrap();
    assert!(
        bad.admit(NodeId(1), &hello(2)).await.is_err(),
        "it is known all the same"
    );
    assert!(!dir.path().join("peers").exists());
    faults.set(None);
    bad.admit(NodeId(1), &hello(3)).await.unwrap();
    let good = registry(&dir);
    assert!(good.admit(NodeId(1), &hello(2)).await.is_err(), "now it is saved");
    assert!(told.try_recv().is_err());
}

/// What was not recorded lets nobody in, and is not recorded by trying again either: a sync that succeeds after one that failed says
/// nothing.
#[tokio::test]
async fn a_broken_disk_lets_nobody_in_and_ends_the_node() {
    for call in [Call::Create, Call::Sync, Call::SyncDir] {
        let dir = TempDir::new();
        let (bad, faults, told) = bad(&dir, call, io::ErrorKind::Other);
        assert_eq!(bad.admit(NodeId(1), &hello(3)).await, Err(Refusal::NotRecorded));
        assert!(matches!(told.try_recv(), Ok(Fatal::Peers(_))), "{call:?}");
        faults.set(None);
        let before = std::fs::read(dir.path().join("peers")).ok();
        for boot in [3, 4] {
            let again = bad.admit(NodeId(1), &hello(boot)).await;
            assert_eq!(again, Err(Refusal::NotRecorded), "{call:?}");
        }
        bad.close().await;
        assert_eq!(std::fs::read(dir.path().join("peers")).ok(), before);
        assert!(told.try_recv().is_err(), "once is enough");
    }
}

/// What could wait is not waited for by anybody, and yet its failure ends the node.
#[tokio::test]
async fn a_failure_to_save_at_leisure_ends_the_node() {
    let dir = TempDir::new();
    let (bad, faults, told) = bad(&dir, Call::Sync, io::ErrorKind::Other);
    faults.set(None);
    bad.admit(NodeId(1), &hello(3)).await.unwrap();
    faults.set(Some((Call::Sync, io::ErrorKind::Other)));
    bad.note(NodeId(1), Term(5), Index(7));
    Arc::new(bad).keep().await;
    assert!(matches!(told.try_recv(), Ok(Fatal::Peers(_))));
}

#[tokio::test]
async fn after_closing_the_file_is_left_alone() {
    let dir = TempDir::new();
    let registry = registry(&dir);
    registry.close().await;
    assert_eq!(
        registry.admit(NodeId(1), &hello(1)).await,
        Err(Refusal::NotRecorded)
    );
    assert!(!dir.path().join("peers").exists());
}

/// A greeting whose time ran out while the disk did not answer: the save that it waited for is under way.
async fn cut_off(registry: &Arc<Registry>, faults: &Faults) {
    faults.set(None);
    faults.stall(true);
    let greeting = tokio::spawn({
        let registry = registry.clone();
        async move { registry.admit(NodeId(1), &hello(3)).await }
    });
    faults.syncs.notified().await;
    greeting.abort();
    assert!(greeting.await.unwrap_err().is_cancelled());
    let free = registry.saving.try_lock().is_ok();
    if free {
        // Else the runtime waits for its thread for ever.
        faults.stall(false);
    }
    assert!(!free, "the disk is still at it, and nobody else may begin");
}

#[tokio::test]
async fn a_save_that_nobody_waits_for_any_more_is_still_the_only_one() {
    let dir = TempDir::new();
    let (bad, faults, told) = bad(&dir, Call::Sync, io::ErrorKind::Other);
    let bad = Arc::new(bad);
    cut_off(&bad, &faults).await;
    let again = tokio::spawn({
        let bad = bad.clone();
        async move { bad.admit(NodeId(1), &hello(3)).await }
    });
    faults.stall(false);
    assert_eq!(again.await.unwrap(), Ok(()));
    bad.close().await;
    assert!(told.try_recv().is_err(), "a slow disk is no broken one");
    let known = *registry(&dir).state().roster.known(NodeId(1)).unwrap();
    assert_eq!(known.boot, 3);
}

#[tokio::test]
async fn a_save_that_nobody_waits_for_any_more_still_ends_the_node_if_it_fails() {
    let dir = TempDir::new();
    let (bad, faults, told) = bad(&dir, Call::Sync, io::ErrorKind::Other);
    let bad = Arc::new(bad);
    cut_off(&bad, &faults).await;
    faults.set(Some((Call::Sync, io::ErrorKind::Other)));
    faults.stall(false);
    // Until that one is done.
    drop(bad.saving.lock().await);
    assert!(matches!(told.try_recv(), Ok(Fatal::Peers(_))));
    faults.set(None);
    let again = bad.admit(NodeId(1), &hello(3)).await;
    assert_eq!(again, Err(Refusal::NotRecorded), "nor is it tried again");
    bad.close().await;
    assert!(!dir.path().join("peers").exists());
}

/// What waits for the end of a node leaves the directory to others: by then nobody may be writing there.
#[tokio::test]
async fn closing_waits_for_the_save_that_nobody_waits_for_any_more() {
    let dir = TempDir::new();
    let (bad, faults, _told) = bad(&dir, Call::Sync, io::ErrorKind::Other);
    let bad = Arc::new(bad);
    cut_off(&bad, &faults).await;
    let closing = tokio::spawn({
        let bad = bad.clone();
        async move { bad.close().await }
    });
    faults.stall(false);
    closing.await.unwrap();
    let (saved, version) = {
        let state = bad.state();
        (state.saved, state.version)
    };
    assert_eq!(saved, version);
    assert!(!dir.path().join("peers.new").exists());
}
