//! The roster of peers with its file: who may come in is settled and made durable here, before anybody is answered. The rules are
//! `quorate_node::roster`'s.
//!
//! A disk that is full keeps nobody out: what should be recorded then stays in memory until there is room. Only if this node restarts
//! before that, it has forgotten it. Any other failure to write is final, as it is for the log: nobody is let in, nothing is tried again, and
//! the node ends.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quorate_base::disk::is_full;
use quorate_base::{Disk, Index, NodeId, Term};
use quorate_node::handshake::{Hello, Refusal};
use quorate_node::roster::{Changed, Roster};

use crate::error::Fatal;
use crate::lock::DirLock;
use crate::work::{Report, Reports};

/// How often it is looked whether there is something to save that could wait, and every how many looks log positions are reason enough:
/// they move on all the time. Terms hardly ever do.
const LOOKS: (Duration, u32) = (Duration::from_secs(1), 10);

/// See the module.
pub(crate) struct Registry {
    disk: Arc<dyn Disk>,
    /// Where it is told that the node must end.
    reports: Reports,
    state: Mutex<State>,
    /// One save at a time.
    saving: tokio::sync::Mutex<()>,
}

struct State {
    roster: Roster,
    /// Held by whoever writes, so that no other process does before it is done.
    lock: Option<Arc<DirLock>>,
    /// Counts changes.
    version: u64,
    /// The last change of a term or of a data directory's identity.
    telling: u64,
    /// The last change that somebody waits for.
    urgent: u64,
    /// The last change in the file.
    saved: u64,
    /// The disk had no room the last time.
    full: bool,
    closed: bool,
}

impl Registry {
    pub(crate) fn new(
        roster: Roster,
        disk: Arc<dyn Disk>,
        lock: Option<Arc<DirLock>>,
        reports: Reports,
    ) -> Registry {
        Registry {
            disk,
            reports,
            state: Mutex::new(State {
                roster,
                lock,
                version: 0,
                telling: 0,
                urgent: 0,
                saved: 0,
                full: false,
                closed: false,
            }),
            saving: tokio::sync::Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code runs under this lock that could leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this one may come in; with what it shows recorded, durably.
    pub(crate) async fn admit(&self, from: NodeId, hello: &Hello) -> Result<(), Refusal> {
        let wait_for = {
            let mut state = self.state();
            if state.roster.admit(from, hello)? == Changed::Now {
                state.version += 1;
                (state.telling, state.urgent) = (state.version, state.version);
            }
            // Perhaps another connection of the same peer came first, and its record is on its way.
            state.urgent
        };
        self.save(wait_for).await.map_err(|error| {
            tracing::error!(%error, "cannot record what a peer shows");
            Refusal::NotRecorded
        })
    }

    /// Notes facts about a peer, see [`Roster::note`].
    pub(crate) fn note(&self, peer: NodeId, term: Term, matched: Index) {
        let mut state = self.state();
        let term_before = state.roster.known(peer).map(|known| known.term);
        if state.roster.note(peer, term, matched) {
            state.version += 1;
            if state.roster.known(peer).map(|known| known.term) != term_before {
                state.telling = state.version;
            }
        }
    }

    /// Forgets those who were removed; the file does so with its next change.
    pub(crate) fn forget(&self, removed: &BTreeSet<NodeId>) {
        let mut state = self.state();
        if state.roster.forget(removed) {
            state.version += 1;
        }
    }

    /// Makes the changes up to this one durable, and all others that there are.
    async fn save(&self, wait_for: u64) -> io::Result<()> {
        if self.state().saved >= wait_for {
            return Ok(());
        }
        let _one = self.saving.lock().await;
        let (roster, version, lock) = {
            let state = self.state();
            if state.saved >= wait_for {
                return Ok(());
            }
            if state.closed {
                return Err(io::Error::other("the node has stopped"));
            }
            (state.roster.clone(), state.version, state.lock.clone())
        };
        let disk = self.disk.clone();
        let result = tokio::task::spawn_blocking(move || {
            let result = roster.save(&*disk);
            drop(lock);
            result
        })
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)));
        let mut state = self.state();
        match result {
            Err(error) if is_full(&error) => {
                if !std::mem::replace(&mut state.full, true) {
                    tracing::error!(
                        "the disk is full: what is learned of the peers' identities is kept in memory only"
                    );
                }
                Ok(())
            }
            Err(error) => {
                // Whether the new file has the name is not known, nor what a second attempt would be worth.
                (state.closed, state.lock) = (true, None);
                drop(state);
                (self.reports)(Report::Failed(Fatal::Peers(error.to_string())));
                Err(error)
            }
            Ok(()) => {
                (state.full, state.saved) = (false, version);
                Ok(())
            }
        }
    }

    /// Saves now and then what could wait.
    pub(crate) async fn keep(self: Arc<Self>) {
        let mut look = 0_u32;
        loop {
            tokio::time::sleep(LOOKS.0).await;
            look = look.wrapping_add(1);
            let wanted = {
                let state = self.state();
                if look.is_multiple_of(LOOKS.1) {
                    state.version
                } else {
                    state.telling
                }
            };
            if self.save(wanted).await.is_err() {
                // The node has been told.
                return;
            }
        }
    }

    /// Saves everything for the last time: from now on the file is left alone. That the node ends is settled, and whoever was let in was
    /// recorded before. So if this fails, nothing is lost but what might have waited, and might have been lost by a crash.
    pub(crate) async fn close(&self) {
        let (version, closed) = {
            let state = self.state();
            (state.version, state.closed)
        };
        if !closed && let Err(error) = self.save(version).await {
            tracing::warn!(%error, "cannot save what is known of the peers");
        }
        let _one = self.saving.lock().await;
        let mut state = self.state();
        (state.closed, state.lock) = (true, None);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

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

    /// Which call fails, if one does, and how.
    type Fails = Arc<Mutex<Option<(Call, io::ErrorKind)>>>;

    /// A disk of which one call fails from now on: making a file, syncing it, or syncing the directory.
    #[derive(Debug)]
    struct Bad(DirDisk, Fails);

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Call {
        Create,
        Sync,
        SyncDir,
    }

    fn fails(state: &Mutex<Option<(Call, io::ErrorKind)>>, call: Call) -> io::Result<()> {
        match *state.lock().unwrap() {
            Some((bad, error)) if bad == call => Err(error.into()),
            _ => Ok(()),
        }
    }

    impl Disk for Bad {
        fn open(&self, name: &str, create: bool) -> io::Result<Arc<dyn DiskFile>> {
            if create {
                fails(&self.1, Call::Create)?;
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
            fails(&self.1, Call::SyncDir)?;
            self.0.sync_dir()
        }
    }

    #[derive(Debug)]
    struct BadFile(Arc<dyn DiskFile>, Fails);

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
            fails(&self.1, Call::Sync)?;
            self.0.sync()
        }
        fn set_len(&self, len: u64) -> io::Result<()> {
            self.0.set_len(len)
        }
    }

    /// A registry on such a disk, and what it says of the node's end.
    fn bad(dir: &TempDir, call: Call, error: io::ErrorKind) -> (Registry, Fails, mpsc::Receiver<Fatal>) {
        let state = Arc::new(Mutex::new(Some((call, error))));
        let disk = Bad(DirDisk::open(dir.path()).unwrap(), state.clone());
        let (sender, told) = mpsc::channel();
        let reports: Reports = Arc::new(move |report| match report {
            Report::Failed(fatal) => sender.send(fatal).unwrap(),
            _ => panic!("nothing else is said"),
        });
        let roster = Roster::new(9, NodeId(2));
        (Registry::new(roster, Arc::new(disk), None, reports), state, told)
    }

    #[tokio::test]
    async fn a_full_disk_keeps_nobody_out() {
        let dir = TempDir::new();
        let (bad, state, told) = bad(&dir, Call::Create, io::ErrorKind::StorageFull);
        bad.admit(NodeId(1), &hello(3)).await.unwrap();
        assert!(
            bad.admit(NodeId(1), &hello(2)).await.is_err(),
            "it is known all the same"
        );
        assert!(!dir.path().join("peers").exists());
        *state.lock().unwrap() = None;
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
            let (bad, state, told) = bad(&dir, call, io::ErrorKind::Other);
            assert_eq!(bad.admit(NodeId(1), &hello(3)).await, Err(Refusal::NotRecorded));
            assert!(matches!(told.try_recv(), Ok(Fatal::Peers(_))), "{call:?}");
            *state.lock().unwrap() = None;
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
        let (bad, state, told) = bad(&dir, Call::Sync, io::ErrorKind::Other);
        *state.lock().unwrap() = None;
        bad.admit(NodeId(1), &hello(3)).await.unwrap();
        *state.lock().unwrap() = Some((Call::Sync, io::ErrorKind::Other));
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
}
