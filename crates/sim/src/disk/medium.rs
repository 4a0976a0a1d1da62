//! The medium itself: which files have which names, now and after a crash, and what each operation of a program does to it, with the fuse
//! that makes one of them go wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::file::{Contents, Keep, SECTOR, Tally};
use super::{Blow, CrashReport, IO_ERROR, LOG};
use crate::rng::Rng;

pub(super) type FileId = u64;

/// A change of one name that is not synced. A rename is one change of two names.
#[derive(Clone, Debug)]
pub(super) struct NameChange {
    set: Option<(String, FileId)>,
    unset: Option<String>,
}

#[derive(Debug)]
pub(super) struct Medium {
    pub(super) rng: Rng,
    pub(super) run: u64,
    pub(super) dead: bool,
    pub(super) fuse: Option<(u64, Blow)>,
    /// The fuse has burned down.
    pub(super) struck: Option<Blow>,
    /// This run was told of an error that is no power failure and no full disk.
    pub(super) faulted: bool,
    /// A write of this run found no room.
    pub(super) ran_full: bool,
    pub(super) lies: bool,
    pub(super) capacity: Option<u64>,
    pub(super) files: BTreeMap<FileId, Contents>,
    pub(super) names: BTreeMap<String, FileId>,
    pub(super) durable_names: BTreeMap<String, FileId>,
    pub(super) changes: Vec<NameChange>,
    pub(super) next_id: FileId,
    pub(super) operations: u64,
    /// Sectors that were ever spoilt in a file whose name begins so.
    pub(super) spoilt: BTreeSet<(String, usize)>,
    /// The last such error, until the world has noticed it.
    pub(super) failed: Option<Blow>,
}

impl Medium {
    pub(super) fn new(rng: Rng) -> Medium {
        Medium {
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
            spoilt: BTreeSet::new(),
            failed: None,
        }
    }

    pub(super) fn used(&self) -> u64 {
        self.names
            .values()
            .map(|id| self.files[id].now.len() as u64)
            .sum()
    }

    pub(super) fn crash(&mut self, keep: Keep) -> CrashReport {
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

    pub(super) fn end_run(&mut self) {
        self.run += 1;
        self.dead = false;
        self.faulted = false;
        self.ran_full = false;
        self.failed = None;
        self.fuse = None;
        self.struck = None;
    }

    /// The files whose names begin so.
    pub(super) fn files_of(&self, name: &str) -> Vec<FileId> {
        let names = self.names.iter().filter(|(of, _)| of.starts_with(name));
        names.map(|(_, id)| *id).collect()
    }

    /// Remembers what is spoilt now in the files whose names begin so.
    pub(super) fn note_spoilt(&mut self, name: &str) {
        for id in self.files_of(name) {
            let sectors = self.files[&id].spoilt_sectors();
            self.spoilt
                .extend(sectors.map(|sector| (name.to_owned(), sector)));
        }
    }

    /// Whether this run may still use the disk.
    pub(super) fn alive(&self, run: u64) -> io::Result<()> {
        if self.dead || run != self.run {
            return Err(io::Error::other("the simulated machine has no power"));
        }
        Ok(())
    }

    /// Counts a changing operation. Returns whether power fails inside it.
    pub(super) fn burn(&mut self) -> bool {
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
    pub(super) fn finish(&mut self) -> io::Result<()> {
        match self.burn() {
            true => Err(io::Error::other("power failed inside a disk operation")),
            false => Ok(()),
        }
    }

    pub(super) fn change_name(
        &mut self,
        set: Option<(String, FileId)>,
        unset: Option<String>,
    ) -> io::Result<()> {
        let change = NameChange { set, unset };
        change.carry_out(&mut self.names);
        self.changes.push(change);
        self.finish()
    }

    /// The fuse has burned down, and the process is told of an error.
    pub(super) fn fail(&mut self, blow: Blow) -> io::Error {
        (self.fuse, self.failed) = (None, Some(blow));
        self.faulted = true;
        io::Error::other(IO_ERROR)
    }

    pub(super) fn write(&mut self, id: FileId, offset: usize, data: &[u8]) -> io::Result<()> {
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
    pub(super) fn fail_sync_dir(&mut self) -> io::Error {
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

    pub(super) fn make_room(&mut self, file: FileId, end: u64) -> io::Result<()> {
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

    pub(super) fn sync(&mut self, id: FileId) -> io::Result<()> {
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
    pub(super) fn carry_out(&self, names: &mut BTreeMap<String, FileId>) {
        if let Some(name) = &self.unset {
            names.remove(name);
        }
        if let Some((name, id)) = &self.set {
            names.insert(name.clone(), *id);
        }
    }
}
