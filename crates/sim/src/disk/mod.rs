//! A disk that forgets: files and a directory held in memory, of which a crash keeps what was synced and a random part of
//! the rest. It can lose power in the middle of any operation, fail a sync, run full, and, for the simulator's own
//! tests, lie about syncing. The bytes of one file are in [`file`].

mod file;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use quorate_base::{Disk, DiskFile};

use crate::rng::Rng;
use file::{Contents, Keep, Tally};

pub use file::SECTOR;

type FileId = u64;

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

/// A change of one name that is not synced. A rename is one change of two names.
#[derive(Clone, Debug)]
struct NameChange {
    set: Option<(String, FileId)>,
    unset: Option<String>,
}

#[derive(Debug)]
struct Medium {
    rng: Rng,
    run: u64,
    dead: bool,
    fuse: Option<(u64, Blow)>,
    /// The fuse has burned down.
    struck: Option<Blow>,
    /// An error was reported in this run that is not a power failure.
    faulted: bool,
    /// A write of this run found no room.
    ran_full: bool,
    lies: bool,
    capacity: Option<u64>,
    files: BTreeMap<FileId, Contents>,
    names: BTreeMap<String, FileId>,
    durable_names: BTreeMap<String, FileId>,
    changes: Vec<NameChange>,
    next_id: FileId,
    operations: u64,
    failed: Option<Blow>,
    /// It was told of an error other than a full disk.
    told: bool,
}

impl SimDisk {
    /// An empty disk whose crashes are decided by `rng`.
    pub fn new(rng: Rng) -> SimDisk {
        SimDisk {
            shared: Arc::new(Mutex::new(Medium {
                rng,
                run: 0,
                dead: false,
                fuse: None,
                struck: None,
                faulted: false,
                ran_full: false,
                lies: false,
                capacity: None,
                files: BTreeMap::new(),
                names: BTreeMap::new(),
                durable_names: BTreeMap::new(),
                changes: Vec::new(),
                next_id: 0,
                operations: 0,
                failed: None,
                told: false,
            })),
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

    /// Whether a fuse is burning.
    pub fn is_armed(&self) -> bool {
        self.medium().fuse.is_some()
    }

    /// Whether this run was ever told of such an error.
    pub fn has_failed(&self) -> bool {
        self.medium().told
    }

    /// The last such error, if it was not taken yet.
    pub fn take_failed(&self) -> Option<Blow> {
        self.medium().failed.take()
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

    /// The error that this run was told of, other than a full disk.
    pub fn failed(&self) -> Option<Blow> {
        self.medium().failed
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
    }

    /// A write to the file whose name begins so, which was confirmed some time ago, turns out to be lost, or to be elsewhere in that file (`astray`).
    /// It is none of those at the place `but`. Reads show it in its place as long as the machine has power if `cached`. Returns
    /// whether there was any.
    pub fn lose_write(&self, name: &str, but: usize, cached: bool, astray: bool) -> bool {
        let medium = &mut *self.medium();
        let files = medium.files_of(name);
        let file = files.first().and_then(|id| medium.files.get_mut(id));
        file.is_some_and(|file| file.lose_write(but, cached, astray, &mut medium.rng))
    }

    /// Whether a file whose name begins so is not what was written to it, as far as it was not written anew since.
    pub fn is_spoilt(&self, name: &str) -> bool {
        let medium = self.medium();
        let mut files = medium.files_of(name).into_iter();
        files.any(|id| medium.files[&id].is_spoilt())
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

impl Medium {
    fn used(&self) -> u64 {
        self.names
            .values()
            .map(|id| self.files[id].now.len() as u64)
            .sum()
    }

    fn crash(&mut self, keep: Keep) -> CrashReport {
        let mut report = CrashReport::default();
        for change in std::mem::take(&mut self.changes) {
            if keep.draw(&mut self.rng) {
                change.carry_out(&mut self.durable_names);
            } else {
                report.lost_names += 1;
            }
        }
        self.names = self.durable_names.clone();
        let linked: Vec<FileId> = self.names.values().copied().collect();
        self.files.retain(|id, _| linked.contains(id));
        for file in self.files.values_mut() {
            let Tally { kept, lost } = file.crash(keep, &mut self.rng);
            report.kept += kept;
            report.lost += lost;
        }
        self.end_run();
        report
    }

    fn end_run(&mut self) {
        self.run += 1;
        self.dead = false;
        self.faulted = false;
        self.ran_full = false;
        self.failed = None;
        self.told = false;
        self.fuse = None;
        self.struck = None;
    }

    /// The files whose names begin so.
    fn files_of(&self, name: &str) -> Vec<FileId> {
        let names = self.names.iter().filter(|(of, _)| of.starts_with(name));
        names.map(|(_, id)| *id).collect()
    }

    /// Whether this run may still use the disk.
    fn alive(&self, run: u64) -> io::Result<()> {
        if self.dead || run != self.run {
            return Err(io::Error::other("the simulated machine has no power"));
        }
        Ok(())
    }

    /// Counts a changing operation. Returns whether power fails inside it.
    fn burn(&mut self) -> bool {
        self.operations += 1;
        match &mut self.fuse {
            Some((0, Blow::PowerLoss)) => {
                self.dead = true;

                true
            }
            Some((left, blow)) => {
                if *blow != Blow::ReadError {
                    *left = left.saturating_sub(1);
                }
                false
            }
            None => false,
        }
    }

    /// Ends a changing operation whose effect is in place but not durable.
    fn finish(&mut self) -> io::Result<()> {
        match self.burn() {
            true => Err(io::Error::other("power failed inside a disk operation")),
            false => Ok(()),
        }
    }

    fn change_name(&mut self, set: Option<(String, FileId)>, unset: Option<String>) -> io::Result<()> {
        let change = NameChange { set, unset };
        change.carry_out(&mut self.names);
        self.changes.push(change);
        self.finish()
    }

    /// The fuse has burned down, and the process is told of an error.
    fn fail(&mut self, blow: Blow) -> io::Error {
        (self.fuse, self.failed) = (None, Some(blow));
        self.told = true;
        self.faulted = true;
        io::Error::other(IO_ERROR)
    }

    fn write(&mut self, id: FileId, offset: usize, data: &[u8]) -> io::Result<()> {
        let blow = self.fuse.filter(|fuse| fuse.0 == 0).map(|fuse| fuse.1);
        match blow {
            Some(Blow::WriteError) => return Err(self.fail(Blow::WriteError)),
            Some(Blow::ShortWrite) if data.len() > 1 => {
                let part = self.part_of(offset, data.len());
                file_of(&mut self.files, id).write(offset, &data[..part]);
                return Err(self.fail(Blow::ShortWrite));
            }
            Some(Blow::Lose { cached }) if self.is_of_log(id, offset, data) => {
                self.spoil(id, offset, data, cached);
            }
            Some(Blow::Misdirect { cached }) if self.is_of_log(id, offset, data) => {
                let files = self.files_of(LOG);
                let target = self.rng.pick(&files);
                let room = self.files[&target].len().saturating_sub(data.len()) / SECTOR;
                let place = self.rng.below(room + 1) * SECTOR;
                if (target, place) == (id, offset) {
                    file_of(&mut self.files, id).write(offset, data);
                    return self.finish();
                }
                self.spoil(id, offset, data, cached);
                file_of(&mut self.files, target).stray(place, data, cached);
            }
            _ => file_of(&mut self.files, id).write(offset, data),
        }
        self.finish()
    }

    /// How much of a write is done that ends before it should: up to any byte, and now and then up to the end of a sector, as page caches
    /// and devices do it, which take whole ones.
    fn part_of(&mut self, offset: usize, len: usize) -> usize {
        let sectors = (offset + len - 1) / SECTOR - offset / SECTOR;
        if sectors == 0 || self.rng.below(3) > 0 {
            return 1 + self.rng.below(len - 1);
        }
        (offset / SECTOR + 1 + self.rng.below(sectors)) * SECTOR - offset
    }

    /// A failed sync of the directory: the first changes of names reached the medium, or none. The process sees all of them, and the others are
    /// lost unless another sync succeeds before power fails. (File systems keep names in a journal, and take no more changes once it cannot
    /// be written: unlike contents, names are not forgotten by a sync that failed.)
    fn fail_sync_dir(&mut self) -> io::Error {
        let reached = self.rng.below(self.changes.len() + 1);
        for change in self.changes.drain(..reached) {
            change.carry_out(&mut self.durable_names);
        }
        self.fail(Blow::DirSyncError)
    }

    /// The write is lost, and nobody is told.
    fn spoil(&mut self, id: FileId, offset: usize, data: &[u8], cached: bool) {
        self.struck = self.fuse.take().map(|fuse| fuse.1);
        if cached {
            file_of(&mut self.files, id).pretend(offset, data);
        }
    }

    /// Whether this is a write of something into a place that the log has made before.
    fn is_of_log(&self, id: FileId, offset: usize, data: &[u8]) -> bool {
        let inside = offset + data.len() <= self.files[&id].len();
        inside && data.iter().any(|byte| *byte != 0) && self.files_of(LOG).contains(&id)
    }

    fn make_room(&mut self, file: FileId, end: u64) -> io::Result<()> {
        let Some(capacity) = self.capacity else {
            return Ok(());
        };
        let growth = end.saturating_sub(self.files[&file].now.len() as u64);
        if growth > 0 && self.used() + growth > capacity {
            self.ran_full = true;
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        Ok(())
    }

    fn sync(&mut self, id: FileId) -> io::Result<()> {
        if self.burn() {
            return Err(io::Error::other("power failed inside a sync"));
        }
        let file = self.files.get_mut(&id).expect("an open file exists");
        match self.fuse {
            Some((0, Blow::SyncError)) if file.is_dirty() => {
                file.fail_sync(&mut self.rng);
                Err(self.fail(Blow::SyncError))
            }
            _ if self.lies && self.rng.chance(300_000) => {
                // The data stays unsynced: visible now, and partly gone after a crash.
                Ok(())
            }
            _ => {
                file.sync();
                Ok(())
            }
        }
    }
}

fn file_of(files: &mut BTreeMap<FileId, Contents>, id: FileId) -> &mut Contents {
    files.get_mut(&id).expect("an open file exists")
}

impl NameChange {
    fn carry_out(&self, names: &mut BTreeMap<String, FileId>) {
        if let Some(name) = &self.unset {
            names.remove(name);
        }
        if let Some((name, id)) = &self.set {
            names.insert(name.clone(), *id);
        }
    }
}

/// A disk as one run of a machine sees it.
#[derive(Debug)]
struct Mounted {
    disk: SimDisk,
    run: u64,
}

impl Mounted {
    fn medium(&self) -> io::Result<MutexGuard<'_, Medium>> {
        let medium = self.disk.medium();
        medium.alive(self.run)?;
        Ok(medium)
    }
}

impl Disk for Mounted {
    fn open(&self, name: &str, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        let mut medium = self.medium()?;
        let id = match medium.names.get(name) {
            Some(id) => *id,
            None if !create => return Err(io::Error::from(io::ErrorKind::NotFound)),
            None => {
                let id = medium.next_id;
                medium.next_id += 1;
                medium.files.insert(id, Contents::empty(name.starts_with(STORE)));
                medium.change_name(Some((name.to_owned(), id)), None)?;
                id
            }
        };
        Ok(Arc::new(OpenFile {
            disk: self.disk.clone(),
            run: self.run,
            id,
        }))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.medium()?.names.keys().cloned().collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut medium = self.medium()?;
        let id = *medium.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        medium.change_name(Some((to.to_owned(), id)), Some(from.to_owned()))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut medium = self.medium()?;
        if !medium.names.contains_key(name) {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        }
        medium.change_name(None, Some(name.to_owned()))
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut medium = self.medium()?;
        if medium.burn() {
            return Err(io::Error::other("power failed inside a directory sync"));
        }
        if medium.fuse == Some((0, Blow::DirSyncError)) && !medium.changes.is_empty() {
            return Err(medium.fail_sync_dir());
        }
        for change in std::mem::take(&mut medium.changes) {
            change.carry_out(&mut medium.durable_names);
        }
        Ok(())
    }
}

/// An open file as one run of a machine sees it.
#[derive(Debug)]
struct OpenFile {
    disk: SimDisk,
    run: u64,
    id: FileId,
}

impl OpenFile {
    fn medium(&self) -> io::Result<MutexGuard<'_, Medium>> {
        let medium = self.disk.medium();
        medium.alive(self.run)?;
        Ok(medium)
    }
}

impl DiskFile for OpenFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.medium()?.files[&self.id].now.len() as u64)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let mut medium = self.medium()?;
        match &mut medium.fuse {
            Some((0, Blow::ReadError)) => return Err(medium.fail(Blow::ReadError)),
            Some((left, Blow::ReadError)) => *left -= 1,
            _ => {}
        }
        let now = &medium.files[&self.id].now;
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let bytes = start.checked_add(buf.len()).and_then(|end| now.get(start..end));
        buf.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut medium = self.medium()?;
        medium.make_room(self.id, offset + data.len() as u64)?;
        medium.write(self.id, offset as usize, data)
    }

    /// One operation, as `pwritev` is: no sector is ever seen between two parts.
    fn write_vectored_at(&self, offset: u64, parts: &[io::IoSlice<'_>]) -> io::Result<()> {
        let whole: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        self.write_at(offset, &whole)
    }

    fn sync(&self) -> io::Result<()> {
        self.medium()?.sync(self.id)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut medium = self.medium()?;
        medium.make_room(self.id, len)?;
        let file = medium.files.get_mut(&self.id).expect("an open file exists");
        file.set_len(len as usize);
        medium.finish()
    }
}

#[cfg(test)]
mod tests;
