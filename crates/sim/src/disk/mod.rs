//! A disk that forgets: files and a directory held in memory, of which a crash keeps what was synced and a random part of
//! the rest. It can lose power in the middle of any operation, fail a sync, run full, and, for the simulator's own
//! tests, lie about syncing. Here is what the world does to it; what its programs do is in `mounted`, what becomes of that in `medium`, and of
//! the bytes of one file in `file`.

mod file;
mod medium;
mod mounted;

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use quorate_base::Disk;

use crate::rng::Rng;
use file::{Contents, Keep};
use medium::Medium;
use mounted::Mounted;

pub use file::SECTOR;

/// The medium of one simulated machine. It outlives the machine's runs; [`mount`](SimDisk::mount) gives each run its own
/// view, which a crash makes useless for ever.
#[derive(Clone, Debug)]
pub struct SimDisk {
    shared: Arc<Mutex<Medium>>,
}

/// What a fuse does when it has burned down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// Power fails in the middle of the operation.
    PowerLoss,
    /// The next sync fails, and the machine runs on.
    SyncError,
    /// The next write fails, and nothing is written.
    WriteError,
    /// The next write fails, and a part is written.
    ShortWrite,
    /// The next sync of the directory that has something to do fails, and the machine runs on.
    DirSyncError,
    /// The next read fails.
    ReadError,
    /// The next write to the log never reaches the medium, and nobody is told.
    Lose {
        /// Reads show it as long as the machine has power.
        cached: bool,
    },
    /// The next write to the log reaches the medium in another place of the log, and nobody is told.
    Misdirect {
        /// Reads show it in its right place as long as the machine has power.
        cached: bool,
    },
}

/// What errors of the disk say: whoever panics over one must say it too.
pub const IO_ERROR: &str = "simulated I/O error";

/// How the names of the log's files begin.
const LOG: &str = "wal-";

/// How the names of the store's files begin.
pub const STORE: &str = "store";

/// What a crash did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CrashReport {
    /// Unsynced sectors that survived.
    pub kept: u64,
    /// Unsynced sectors that did not.
    pub lost: u64,
    /// Directory operations that did not.
    pub lost_names: u64,
}

impl CrashReport {
    /// Whether one part of what was being written survived and another did not.
    pub fn is_torn(&self) -> bool {
        self.kept > 0 && self.lost > 0
    }
}

impl SimDisk {
    /// An empty disk whose crashes are decided by `rng`.
    pub fn new(rng: Rng) -> SimDisk {
        SimDisk {
            shared: Arc::new(Mutex::new(Medium::new(rng))),
        }
    }

    fn medium(&self) -> MutexGuard<'_, Medium> {
        // A panic of the code under test while it holds the lock is caught by the world and ends that run; the medium is
        // consistent at every point where it can panic.
        self.shared
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The view of the machine's current run.
    pub fn mount(&self) -> Arc<dyn Disk> {
        let run = self.medium().run;
        Arc::new(Mounted {
            disk: self.clone(),
            run,
        })
    }

    /// Lets the operation after the next `operations` changing ones go wrong.
    pub fn arm(&self, operations: u64, blow: Blow) {
        self.medium().fuse = Some((operations, blow));
    }

    /// Takes the fuse out again.
    pub fn disarm(&self) {
        self.medium().fuse = None;
    }

    /// Whether a fuse is burning that lets a read fail.
    pub fn is_read_to_fail(&self) -> bool {
        matches!(self.medium().fuse, Some((_, Blow::ReadError)))
    }

    /// Whether a fuse is burning.
    pub fn is_armed(&self) -> bool {
        self.medium().fuse.is_some()
    }

    /// The last error that this run was told of, other than a full disk, if it was not taken yet.
    pub fn take_failed(&self) -> Option<Blow> {
        self.medium().failed.take()
    }

    /// The same, and leaves it.
    pub fn failed(&self) -> Option<Blow> {
        self.medium().failed
    }

    /// What a fuse has done since the last call.
    pub fn take_struck(&self) -> Option<Blow> {
        self.medium().struck.take()
    }

    /// Whether a bound of its size is in force.
    pub fn is_limited(&self) -> bool {
        self.medium().capacity.is_some()
    }

    /// Whether power failed inside an operation. The run is over; [`crash`](SimDisk::crash) has to follow.
    pub fn is_dead(&self) -> bool {
        self.medium().dead
    }

    /// Whether this run was told of an error that no process survives, so that it has reason to stop.
    pub fn has_faulted(&self) -> bool {
        self.medium().faulted
    }

    /// Whether this run was told that there is no room: a reason to stop for that, and for nothing else.
    pub fn has_run_full(&self) -> bool {
        self.medium().ran_full
    }

    /// The process is killed: its view is void, and everything it wrote stays, synced or not.
    pub fn kill(&self) {
        self.medium().end_run();
    }

    /// From now on a sync makes only a part of the data durable and says nothing. Only to show that the checkers notice.
    pub fn lie(&self) {
        self.medium().lies = true;
    }

    /// At most so many bytes in all files from now on; `None` for no bound.
    pub fn limit(&self, capacity: Option<u64>) {
        self.medium().capacity = capacity;
    }

    /// Changing operations so far.
    pub fn operations(&self) -> u64 {
        self.medium().operations
    }

    /// Bytes in all files.
    pub fn used(&self) -> u64 {
        self.medium().used()
    }

    /// Power fails (if it has not yet): decides what survives, and ends the run.
    pub fn crash(&self) -> CrashReport {
        let medium = &mut *self.medium();
        let keep = match medium.rng.below(4) {
            0 => Keep::Nothing,
            1 => Keep::Everything,
            _ => Keep::Some(medium.rng.within(50_000..950_000) as u32),
        };
        medium.crash(keep)
    }

    /// Flips one bit of a file whose name begins so, in a part of it that is not empty, on the medium and in memory. Such a file must be
    /// there.
    pub fn rot(&self, name: &str) {
        let medium = &mut *self.medium();
        let files = medium.files_of(name);
        let file = medium.rng.pick(&files);
        let file = medium.files.get_mut(&file).expect("a linked file exists");
        file.flip(&mut medium.rng);
        medium.note_spoilt(name);
    }

    /// A write to the file whose name begins so, which was confirmed some time ago, turns out to be lost, or to be elsewhere in that file (`astray`).
    /// It is none of those at the place `but`. Reads show it in its place as long as the machine has power if `cached`. Returns
    /// whether there was any.
    pub fn lose_write(&self, name: &str, but: usize, cached: bool, astray: bool) -> bool {
        let medium = &mut *self.medium();
        let files = medium.files_of(name);
        let file = files.first().and_then(|id| medium.files.get_mut(id));
        let lost = file.is_some_and(|file| file.lose_write(but, cached, astray, &mut medium.rng));
        medium.note_spoilt(name);
        lost
    }

    /// Whether a file whose name begins so is not what was written to it, as far as it was not written anew since.
    pub fn is_spoilt(&self, name: &str) -> bool {
        let medium = self.medium();
        let mut files = medium.files_of(name).into_iter();
        files.any(|id| medium.files[&id].is_spoilt())
    }

    /// Whether any of these bytes of a file whose name begins so was ever spoilt, since the last [`forget_spoilt`](SimDisk::forget_spoilt).
    pub fn was_spoilt(&self, name: &str, bytes: Range<u64>) -> bool {
        let sectors = bytes.start as usize / SECTOR..(bytes.end as usize).div_ceil(SECTOR);
        let medium = self.medium();
        let mut spoilt = medium.spoilt.iter().filter(|(of, _)| of == name);
        spoilt.any(|(_, sector)| sectors.contains(sector))
    }

    /// What was spoilt before is of no interest any more.
    pub fn forget_spoilt(&self) {
        self.medium().spoilt.clear();
    }

    /// A disk of its own that holds what is certain to survive: the worst that a crash at this moment could leave.
    pub fn durable_copy(&self) -> SimDisk {
        self.durable_part("", file::Contents::durable_only)
    }

    /// Like [`durable_copy`](SimDisk::durable_copy) of the files whose names begin so, but only to be looked at: it is not to crash itself.
    pub fn durable_view(&self, prefix: &str) -> SimDisk {
        self.durable_part(prefix, file::Contents::durable_view)
    }

    fn durable_part(&self, prefix: &str, copy_of: impl Fn(&Contents) -> Contents) -> SimDisk {
        let medium = self.medium();
        let copy = SimDisk::new(Rng::new(0));
        {
            let mut new = copy.medium();
            let names = medium.durable_names.iter();
            new.durable_names = names
                .filter(|(name, _)| name.starts_with(prefix))
                .map(|(name, id)| (name.clone(), *id))
                .collect();
            new.files = new
                .durable_names
                .values()
                .map(|id| (*id, copy_of(&medium.files[id])))
                .collect();
            new.names = new.durable_names.clone();
            new.next_id = medium.next_id;
        }
        copy
    }
}

#[cfg(test)]
mod tests;
