//! States in memory: when they are saved, what a full disk does to that, and what a damaged checkpoint says. That nothing is lost or
//! differs, whatever crashes, is checked by the conformance suite.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use quorate::{Checkpointed, Disk, DiskFile, Index, LogId, State, StateMachine};
use quorate_conformance::MemDisk;

/// Keeps every byte.
#[derive(Default, Debug)]
struct Pile(Vec<u8>);

impl State for Pile {
    type Output = usize;

    fn apply(&mut self, _at: LogId, command: &Bytes) -> usize {
        self.0.extend_from_slice(command);
        self.0.len()
    }

    fn save(&self) -> Vec<u8> {
        self.0.clone()
    }

    fn load(&mut self, saved: &[u8]) -> io::Result<()> {
        self.0 = saved.to_vec();
        Ok(())
    }
}

/// A disk that can be full.
#[derive(Clone, Debug, Default)]
struct Narrow {
    inner: MemDisk,
    full: Arc<AtomicBool>,
}

#[derive(Debug)]
struct NarrowFile(Arc<dyn DiskFile>, Arc<AtomicBool>);

impl Disk for Narrow {
    fn open(&self, name: &str, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(NarrowFile(
            self.inner.open(name, create)?,
            self.full.clone(),
        )))
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.inner.list()
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)
    }
    fn sync_dir(&self) -> io::Result<()> {
        self.inner.sync_dir()
    }
}

impl DiskFile for NarrowFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.1.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.write_at(offset, data)
    }
    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
}

fn open(disk: &Narrow) -> Checkpointed<Pile> {
    Checkpointed::open(Arc::new(disk.clone()), Pile::default())
        .unwrap()
        .every(1000)
}

/// Applies `count` commands of 100 bytes.
fn apply(machine: &mut Checkpointed<Pile>, count: u64) {
    for _ in 0..count {
        let at = LogId::new(1, machine.applied().index.0 + 1);
        machine.apply(at, &Bytes::from_static(&[7; 100]));
    }
}

/// Runs the job there is; whether there was one.
fn run_job(machine: &mut Checkpointed<Pile>, urgent: bool) -> bool {
    machine.job(urgent).map(|job| job().unwrap()).is_some()
}

#[test]
fn checkpoints_come_as_often_as_they_are_worth_it() {
    let mut machine = open(&Narrow::default());
    assert!(!run_job(&mut machine, true), "there is nothing to save");
    apply(&mut machine, 3);
    assert!(!run_job(&mut machine, false), "not yet");
    assert!(run_job(&mut machine, true), "unless it is urgent");
    assert_eq!(machine.durable(), Index(3));
    assert!(!run_job(&mut machine, true), "and only once");
    apply(&mut machine, 20);
    let job = machine.job(false).expect("more than 1000 bytes were applied");
    apply(&mut machine, 1);
    assert_eq!(machine.durable(), Index(3), "while it runs nothing is promised");
    job().unwrap();
    assert_eq!(machine.durable(), Index(23), "what came later is not in it");
    // The state has 2300 bytes now: fewer are not worth saving it again.
    apply(&mut machine, 10);
    assert!(!run_job(&mut machine, false));
    apply(&mut machine, 10);
    assert!(run_job(&mut machine, false));
}

#[test]
fn a_full_disk_costs_no_node_and_is_tried_again_later() {
    let disk = Narrow::default();
    let mut machine = open(&disk);
    apply(&mut machine, 10);
    assert!(run_job(&mut machine, true));
    disk.full.store(true, Ordering::SeqCst);
    apply(&mut machine, 10);
    assert!(run_job(&mut machine, true), "it is tried, and ends well");
    assert_eq!(machine.durable(), Index(10), "but nothing more is durable");
    assert_eq!(disk.list().unwrap(), ["checkpoint"], "what it wrote is gone");
    apply(&mut machine, 1);
    assert!(
        !run_job(&mut machine, true),
        "however urgent, it is not tried at every turn"
    );
    disk.full.store(false, Ordering::SeqCst);
    apply(&mut machine, 20);
    assert!(run_job(&mut machine, false), "later it is, and there is room");
    assert_eq!(machine.durable(), Index(41));
    apply(&mut machine, 1);
    assert!(run_job(&mut machine, true), "and all is as before");
    assert_eq!(open(&disk).applied(), LogId::new(1, 42));
    assert_eq!(open(&disk).state().0.len(), 4200);
}

#[test]
fn a_damaged_checkpoint_is_refused_with_what_to_do() {
    let disk = Narrow::default();
    let mut machine = open(&disk);
    apply(&mut machine, 10);
    assert!(run_job(&mut machine, true));
    disk.open("checkpoint", false)
        .unwrap()
        .write_at(500, b"rot")
        .unwrap();
    let error = Checkpointed::open(Arc::new(disk), Pile::default()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    let text = error.to_string();
    assert!(
        text.contains("checksum") && text.contains("join again with an empty data directory"),
        "{text}"
    );
}
