//! What the tests of whole nodes share: a machine that sums numbers, directories that go away, and clusters on loopback.
#![allow(dead_code, unused_imports, reason = "every test file uses another part")]

mod asking;

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::Duration;

pub use asking::*;
use bytes::Bytes;
use quorate::{
    Config, Disk, Fatal, Handle, Index, Job, LogId, NodeId, ReadError, Resources, Running, SnapshotReader,
    StartError, StateMachine, Status, start_with,
};
use tokio::runtime::{Builder, Runtime};

/// Length of a snapshot of [`Sum`], and how much of it can be read while the gate is held.
const SNAPSHOT: usize = 3 << 20;
pub const GATE: usize = 2 << 20;

/// Sums the numbers it is given, and answers the sum. Keeps it in the file `sum` when asked to hurry, or after every batch if
/// it is eager.
pub struct Sum {
    disk: Arc<dyn Disk>,
    pub applied: LogId,
    pub sum: u64,
    /// Commands applied since the start: those that were replayed, after a restart.
    pub commands: u64,
    durable: Arc<AtomicU64>,
    pub eager: bool,
    /// How often it still has no job although it has something to save.
    pub reluctance: u32,
    /// The next job first waits for the other end; until it is done there is a backlog.
    pub hold: Option<mpsc::Receiver<()>>,
    pub views: Views,
}

/// The snapshots taken of a [`Sum`].
#[derive(Clone, Default)]
pub struct Views {
    /// How many there were.
    pub taken: Arc<AtomicU64>,
    /// They cannot be read further than [`GATE`] while this is set.
    gate: Arc<(Mutex<bool>, Condvar)>,
}

impl Views {
    pub fn close_gate(&self) {
        *self.gate.0.lock().unwrap() = true;
    }

    pub fn open_gate(&self) {
        *self.gate.0.lock().unwrap() = false;
        self.gate.1.notify_all();
    }

    /// Waits for the gate, but not for ever: a test that failed must end.
    fn pass_gate(&self) -> io::Result<()> {
        let closed = self.gate.0.lock().unwrap();
        let limit = Duration::from_secs(120);
        let (_closed, waited) = self
            .gate
            .1
            .wait_timeout_while(closed, limit, |closed| *closed)
            .unwrap();
        match waited.timed_out() {
            true => Err(io::Error::other("the gate stays closed")),
            false => Ok(()),
        }
    }
}

/// A command of [`Sum`]; 0 makes the machine panic.
pub fn add(n: u64) -> Bytes {
    Bytes::copy_from_slice(&n.to_le_bytes())
}

impl Sum {
    pub fn open(disk: Arc<dyn Disk>) -> io::Result<Sum> {
        let mut numbers = [0; 3];
        match disk.open("sum", false) {
            Ok(file) => {
                for (i, number) in numbers.iter_mut().enumerate() {
                    let mut bytes = [0; 8];
                    file.read_at(8 * i as u64, &mut bytes)?;
                    *number = u64::from_le_bytes(bytes);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let [term, index, sum] = numbers;
        let durable = Arc::new(AtomicU64::new(index));
        Ok(Sum {
            disk,
            applied: LogId::new(term, index),
            sum,
            commands: 0,
            durable,
            eager: false,
            reluctance: 0,
            hold: None,
            views: Views::default(),
        })
    }

    pub fn open_eager(disk: Arc<dyn Disk>) -> io::Result<Sum> {
        Ok(Sum {
            eager: true,
            ..Sum::open(disk)?
        })
    }
}

fn save(disk: &dyn Disk, at: LogId, sum: u64) -> io::Result<()> {
    let file = disk.open("sum.new", true)?;
    let bytes: Vec<u8> = [at.term.0, at.index.0, sum]
        .into_iter()
        .flat_map(u64::to_le_bytes)
        .collect();
    file.write_at(0, &bytes)?;
    file.sync()?;
    disk.rename("sum.new", "sum")?;
    disk.sync_dir()
}

impl StateMachine for Sum {
    type Output = u64;

    fn apply(&mut self, at: LogId, command: &Bytes) -> u64 {
        let n = u64::from_le_bytes(command[..8].try_into().expect("a command starts with 8 bytes"));
        assert!(n != 0, "zero was proposed");
        self.applied = at;
        self.sum += n;
        self.commands += 1;
        self.sum
    }

    fn skip(&mut self, at: LogId) {
        self.applied = at;
    }

    fn applied(&self) -> LogId {
        self.applied
    }

    fn durable(&self) -> Index {
        Index(self.durable.load(Ordering::SeqCst))
    }

    fn job(&mut self, urgent: bool) -> Option<Job> {
        if self.durable() == self.applied.index || !(urgent || self.eager) {
            return None;
        }
        if self.reluctance > 0 {
            self.reluctance -= 1;
            return None;
        }
        let (disk, at, sum, durable) = (self.disk.clone(), self.applied, self.sum, self.durable.clone());
        let hold = self.hold.take();
        Some(Box::new(move || {
            hold.map(|hold| hold.recv());
            save(&*disk, at, sum)?;
            durable.store(at.index.0, Ordering::SeqCst);
            Ok(())
        }))
    }

    fn backlog(&self) -> bool {
        self.eager && self.durable() < self.applied.index
    }

    fn snapshot(&self) -> io::Result<Box<dyn SnapshotReader>> {
        struct Whole(Bytes, Views);
        impl SnapshotReader for Whole {
            fn read_chunk(&mut self, max: usize) -> io::Result<Bytes> {
                let left = self.0.len();
                if SNAPSHOT - left >= GATE {
                    self.1.pass_gate()?;
                }
                Ok(self.0.split_to(max.min(left)))
            }
        }
        self.views.taken.fetch_add(1, Ordering::SeqCst);
        // Padded, so that a transfer takes several pieces.
        let mut bytes = self.sum.to_le_bytes().to_vec();
        bytes.resize(SNAPSHOT, 0x5a);
        Ok(Box::new(Whole(bytes.into(), self.views.clone())))
    }

    fn restore(&mut self, at: LogId, source: &mut dyn io::Read) -> io::Result<()> {
        let mut bytes = Vec::new();
        source.read_to_end(&mut bytes)?;
        if bytes.len() != SNAPSHOT || bytes[8..].iter().any(|byte| *byte != 0x5a) {
            return Err(io::Error::other("the snapshot is damaged"));
        }
        let sum = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes"));
        save(&*self.disk, at, sum)?;
        (self.applied, self.sum) = (at, sum);
        self.durable.store(at.index.0, Ordering::SeqCst);
        Ok(())
    }
}

/// A fresh directory, removed with everything in it when dropped.
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> TempDir {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("quorate-test-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        TempDir(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub const CLUSTER: u64 = 0xc1;

/// Timings that make tests quick and still leave a loaded machine some slack.
pub fn config(id: u64, members: &BTreeMap<NodeId, String>, dir: &Path) -> Config {
    Config {
        heartbeat: Duration::from_millis(50),
        election: Duration::from_millis(500),
        timeout: Duration::from_secs(10),
        ..Config::new(NodeId(id), CLUSTER, format!("n{id}"), members.clone(), dir)
    }
}

/// A cluster of one.
pub fn alone(dir: &Path) -> Config {
    config(1, &BTreeMap::from([(NodeId(1), "127.0.0.1:0".to_owned())]), dir)
}

/// One running member, on a runtime of its own: that can be taken away from it at any moment.
pub struct Live {
    pub handle: Handle<Sum>,
    pub running: Running,
    pub runtime: Runtime,
}

/// No test takes as long.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// How the members of a cluster are started.
pub type Adjust = fn(&mut Config);

/// Members on loopback, each with a directory of its own.
pub struct Cluster {
    pub dirs: BTreeMap<u64, TempDir>,
    /// Of the founders.
    pub addresses: BTreeMap<NodeId, String>,
    /// Of everyone.
    bound: BTreeMap<u64, SocketAddr>,
    /// Bound until first used, so that nobody takes the port.
    listeners: BTreeMap<u64, TcpListener>,
    pub members: BTreeMap<u64, Live>,
    /// What members run on in place of the real disk.
    pub disks: BTreeMap<u64, Arc<dyn Disk>>,
    pub adjust: Adjust,
}

impl Cluster {
    /// `size` members, none of them running.
    pub fn prepare(size: u64) -> Cluster {
        let mut cluster = Cluster {
            dirs: BTreeMap::new(),
            addresses: BTreeMap::new(),
            bound: BTreeMap::new(),
            listeners: BTreeMap::new(),
            members: BTreeMap::new(),
            disks: BTreeMap::new(),
            adjust: |_| {},
        };
        for id in 1..=size {
            let address = cluster.prepare_member(id);
            cluster.addresses.insert(NodeId(id), address);
        }
        cluster
    }

    /// A directory and a bound listener for one that is no member of the founding cluster; answers its address.
    pub fn prepare_member(&mut self, id: u64) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        self.dirs.insert(id, TempDir::new());
        self.bound.insert(id, address);
        self.listeners.insert(id, listener);
        address.to_string()
    }

    pub async fn start(size: u64) -> Cluster {
        Cluster::start_adjusted(size, |_| {}).await
    }

    pub async fn start_adjusted(size: u64, adjust: Adjust) -> Cluster {
        let mut cluster = Cluster::prepare(size);
        cluster.adjust = adjust;
        for id in 1..=size {
            cluster.start_member(id).await;
        }
        cluster
    }

    /// Three members of which one leads, none of whom campaigns because of a silence shorter than [`PATIENCE`].
    pub async fn start_patient() -> Cluster {
        Cluster::start_led(|config| config.election = PATIENCE).await
    }

    /// Three members with election timeouts so long that a first election would take its time, and yet with a leader.
    pub async fn start_led(patient: Adjust) -> Cluster {
        Cluster::prepare(3).led(patient).await
    }

    /// The same of what was prepared.
    pub async fn led(self, patient: Adjust) -> Cluster {
        let mut cluster = self;
        // Somebody has to begin.
        cluster.adjust = |config| config.election = Duration::from_secs(2);
        cluster.start_member(1).await;
        cluster.adjust = patient;
        for id in 2..=cluster.addresses.len() as u64 {
            cluster.start_member(id).await;
        }
        within(async {
            while cluster.leader().await == 1 {
                // Whether somebody took over is seen above.
                let _ = cluster.handle(1).transfer(None).await;
            }
        })
        .await;
        cluster.stop(1).await;
        cluster.start_member(1).await;
        cluster
    }

    pub fn address(&self, id: u64) -> SocketAddr {
        self.bound[&id]
    }

    pub fn config(&self, id: u64) -> Config {
        let mut config = config(id, &self.addresses, self.dirs[&id].path());
        (self.adjust)(&mut config);
        config
    }

    pub async fn start_member(&mut self, id: u64) {
        let config = self.config(id);
        self.start_with(id, config, self.disks.get(&id).cloned()).await;
    }

    pub async fn start_with(&mut self, id: u64, config: Config, disk: Option<Arc<dyn Disk>>) {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        // The port was this test's a moment ago; std binds with SO_REUSEADDR.
        let mut listener = self.listeners.remove(&id);
        let (handle, running) = within(async {
            loop {
                let bound = listener
                    .take()
                    .map_or_else(|| TcpListener::bind(self.address(id)), Ok);
                let Ok(bound) = bound else {
                    // A runtime that was shut down closes its sockets a moment later.
                    breathe().await;
                    continue;
                };
                let resources = Resources {
                    listeners: vec![bound],
                    disk: disk.clone(),
                };
                match runtime
                    .spawn(start_with(config.clone(), resources, Sum::open_eager))
                    .await
                    .unwrap()
                {
                    // Likewise its threads and their lock.
                    Err(StartError::Locked { .. }) => breathe().await,
                    started => return started.unwrap(),
                }
            }
        })
        .await;
        self.members.insert(
            id,
            Live {
                handle,
                running,
                runtime,
            },
        );
    }

    pub fn handle(&self, id: u64) -> &Handle<Sum> {
        &self.members[&id].handle
    }

    /// Waits until all running members agree on a leader among them, and answers it.
    pub async fn leader(&self) -> u64 {
        within(async {
            loop {
                let mut leaders = Vec::new();
                for member in self.members.values() {
                    let mut status = member.handle.subscribe();
                    leaders.push(
                        status
                            .wait_for(|now| now.leader.is_some())
                            .await
                            .unwrap()
                            .leader
                            .unwrap()
                            .0,
                    );
                }
                if leaders
                    .iter()
                    .all(|leader| *leader == leaders[0] && self.members.contains_key(leader))
                {
                    return leaders[0];
                }
                breathe().await;
            }
        })
        .await
    }

    /// Stops a member in order.
    pub async fn stop(&mut self, id: u64) {
        let member = self.members.remove(&id).unwrap();
        within(member.handle.shutdown()).await;
        within(member.running).await.unwrap();
        member.runtime.shutdown_background();
    }

    /// Takes everything away from a member, where it stands.
    pub fn kill(&mut self, id: u64) {
        let member = self.members.remove(&id).unwrap();
        member.runtime.shutdown_background();
    }

    /// Waits until everyone running sees every other one running, and nobody else.
    pub async fn connected(&self) {
        for member in self.members.values() {
            let mut status = member.handle.subscribe();
            let all = |now: &Status| {
                now.peers
                    .iter()
                    .all(|(id, peer)| peer.connected == self.members.contains_key(&id.0))
            };
            within(status.wait_for(all)).await.unwrap();
        }
    }

    pub async fn stop_all(mut self) {
        let ids: Vec<u64> = self.members.keys().copied().collect();
        for id in ids {
            self.stop(id).await;
        }
    }
}

/// Awaits, but not for ever: a test that hangs says where. So long that nothing else reaches it.
pub async fn within<F: IntoFuture>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(120), future.into_future())
        .await
        .expect("this should not take so long")
}

pub async fn sum(handle: &Handle<Sum>) -> Result<u64, ReadError> {
    within(handle.read(|machine| machine.sum)).await
}

/// A node that is expected to end by itself.
pub async fn fate(running: Running) -> Fatal {
    within(running).await.expect_err("the node should have failed")
}

/// For conditions that nothing announces: looks again a moment later.
pub async fn until(condition: impl Fn() -> bool) {
    within(async {
        while !condition() {
            breathe().await;
        }
    })
    .await;
}

pub async fn breathe() {
    tokio::time::sleep(Duration::from_millis(2)).await;
}
