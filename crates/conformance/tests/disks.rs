//! The disks of this project, checked as anybody would check his own: the real one, the simulator's, the one in memory, and the crashing one
//! over each of them.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quorate::DirDisk;
use quorate_base::Disk;
use quorate_conformance::{CrashDisk, Effort, Medium, MemDisk, Stacked, disk, log, power};
use quorate_sim::disk::{Blow, SimDisk};
use quorate_sim::rng::Rng;

/// Directories that go away with the test.
struct Dirs {
    root: PathBuf,
    next: AtomicU64,
}

impl Dirs {
    fn new(name: &str) -> Dirs {
        let root = std::env::temp_dir().join(format!("quorate-conformance-{name}-{}", std::process::id()));
        Dirs {
            root,
            next: AtomicU64::new(0),
        }
    }

    fn fresh(&self) -> io::Result<Arc<dyn Disk>> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::new(DirDisk::open(self.root.join(number.to_string()))?))
    }
}

impl Drop for Dirs {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

/// The simulator's disk can lose power by itself.
struct Simulated(SimDisk);

impl Medium for Simulated {
    fn mount(&mut self) -> io::Result<Arc<dyn Disk>> {
        Ok(self.0.mount())
    }

    fn cut_power_after(&mut self, operations: u64) {
        self.0.arm(operations, Blow::PowerLoss);
    }

    fn power_off(&mut self) -> io::Result<()> {
        self.0.crash();
        Ok(())
    }

    fn operations(&self) -> u64 {
        self.0.operations()
    }
}

fn simulated(seed: u64) -> Simulated {
    Simulated(SimDisk::new(Rng::new(seed)))
}

fn in_memory(seed: u64) -> CrashDisk {
    CrashDisk::over(Arc::new(MemDisk::new()), seed)
}

#[test]
fn the_contract_holds_on_every_disk_of_ours() {
    let dirs = Dirs::new("contract");
    let report = disk::contract(|| dirs.fresh()).unwrap();
    assert!(report.checks >= 14, "{report:?}");
    disk::contract(|| Ok(Arc::new(MemDisk::new()))).unwrap();
    disk::contract(|| Ok(simulated(1).0.mount())).unwrap();
    disk::contract(|| in_memory(1).mount()).unwrap();
    disk::contract(|| CrashDisk::over(dirs.fresh()?, 1).mount()).unwrap();
}

#[test]
fn what_was_synced_survives_on_every_disk_that_can_crash() {
    let effort = Effort::thorough();
    let report = power::survival(in_memory, effort).unwrap();
    assert!(report.crashes > 400, "{report:?}");
    power::survival(simulated, effort).unwrap();
    power::survival(
        |seed| Stacked::new(in_memory(seed), |raw| Ok(Arc::new(Inverted(raw)))),
        effort,
    )
    .unwrap();
}

#[test]
fn the_real_disk_under_cuts_of_what_runs_on_it() {
    let dirs = Dirs::new("cuts");
    let fresh = |seed| CrashDisk::over(dirs.fresh().unwrap(), seed);
    let effort = Effort {
        moments: 10,
        outcomes: 1,
    };
    power::survival(fresh, effort).unwrap();
    log::survival(fresh, effort).unwrap();
}

#[test]
fn the_log_survives_on_every_disk_that_can_crash() {
    let report = log::survival(in_memory, Effort::thorough()).unwrap();
    assert!(report.crashes > 300, "{report:?}");
    let some = Effort {
        moments: 60,
        outcomes: 4,
    };
    log::survival(simulated, some).unwrap();
    log::survival(
        |seed| Stacked::new(in_memory(seed), |raw| Ok(Arc::new(Inverted(raw)))),
        some,
    )
    .unwrap();
}

/// What somebody might write: a disk over a disk that changes every byte on its way.
#[derive(Debug)]
struct Inverted(Arc<dyn Disk>);

#[derive(Debug)]
struct InvertedFile(Arc<dyn quorate_base::DiskFile>);

fn inverted(bytes: &[u8]) -> Vec<u8> {
    // Zeros stay zeros, as what `set_len` adds must read.
    bytes.iter().map(|byte| byte.wrapping_neg()).collect()
}

impl Disk for Inverted {
    fn open(&self, name: &str, create: bool) -> io::Result<Arc<dyn quorate_base::DiskFile>> {
        Ok(Arc::new(InvertedFile(self.0.open(name, create)?)))
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

impl quorate_base::DiskFile for InvertedFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, buf)?;
        buf.copy_from_slice(&inverted(buf));
        Ok(())
    }
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, &inverted(data))
    }
    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
}
