//! A disk whose power can fail, over any other disk: it passes everything on at once and remembers what a sync would make durable, so
//! that a power failure can take any part of it back. What survives is decided by a seed, sector by sector and name by name.

mod file;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quorate_base::{Disk, DiskFile};

use crate::medium::Medium;
use crate::random::Random;
use file::Tracked;

/// What a disk writes as a whole.
pub(crate) const SECTOR: u64 = 512;

/// Files that have lost their name, but not durably so, are kept under this and a number.
const PARKED: &str = "conformance-parked-";

type FileId = u64;

/// How a power failure treats what was not synced.
#[derive(Clone, Copy, Debug)]
enum Keep {
    Nothing,
    Everything,
    /// So many of eight.
    Some(u64),
}

impl Keep {
    fn draw(self, random: &mut Random) -> bool {
        match self {
            Keep::Nothing => false,
            Keep::Everything => true,
            Keep::Some(odds) => random.below(8) < odds,
        }
    }
}

/// A change of names that is not durable. A rename changes two at once.
#[derive(Clone, Debug)]
struct Change {
    set: Option<(String, FileId)>,
    unset: Option<String>,
}

impl Change {
    fn carry_out(&self, names: &mut BTreeMap<String, FileId>) {
        if let Some(name) = &self.unset {
            names.remove(name);
        }
        if let Some((name, id)) = &self.set {
            names.insert(name.clone(), *id);
        }
    }
}

/// See the module. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct CrashDisk(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    inner: Arc<dyn Disk>,
    random: Random,
    /// Counts the runs of the machine: handles of an earlier one are dead.
    run: u64,
    off: bool,
    fuse: Option<u64>,
    operations: u64,
    files: BTreeMap<FileId, Tracked>,
    names: BTreeMap<String, FileId>,
    durable_names: BTreeMap<String, FileId>,
    changes: Vec<Change>,
    next: FileId,
}

impl CrashDisk {
    /// Over `inner`, which nobody else may use meanwhile. What is on it is taken to be durable.
    ///
    /// # Panics
    /// If `inner` cannot be listed, or its files not be opened.
    pub fn over(inner: Arc<dyn Disk>, seed: u64) -> CrashDisk {
        let mut state = State {
            random: Random::new(seed),
            run: 0,
            off: false,
            fuse: None,
            operations: 0,
            files: BTreeMap::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            changes: Vec::new(),
            next: 0,
            inner,
        };
        for name in state.inner.list().expect("the disk below can be listed") {
            let file = state.inner.open(&name, false).expect("its files can be opened");
            let id = state.track(file, name.clone()).expect("and have a length");
            state.names.insert(name, id);
        }
        state.durable_names = state.names.clone();
        CrashDisk(Arc::new(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic of what runs above does not happen inside a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk for the machine's current run.
    ///
    /// # Errors
    /// None; it is fallible as [`Medium::mount`] is.
    pub fn mount(&self) -> io::Result<Arc<dyn Disk>> {
        let run = self.state().run;
        Ok(Arc::new(Mounted {
            disk: self.clone(),
            run,
        }))
    }

    /// See [`Medium::cut_power_after`].
    pub fn cut_power_after(&self, operations: u64) {
        self.state().fuse = Some(operations);
    }

    /// See [`Medium::power_off`].
    ///
    /// # Errors
    /// If the disk below fails.
    pub fn power_off(&self) -> io::Result<()> {
        self.state().power_off()
    }

    /// Whether power has failed inside an operation, and [`power_off`](CrashDisk::power_off) has to follow.
    pub fn is_off(&self) -> bool {
        self.state().off
    }

    /// See [`Medium::operations`].
    pub fn operations(&self) -> u64 {
        self.state().operations
    }
}

impl Medium for CrashDisk {
    fn mount(&mut self) -> io::Result<Arc<dyn Disk>> {
        CrashDisk::mount(self)
    }

    fn cut_power_after(&mut self, operations: u64) {
        CrashDisk::cut_power_after(self, operations);
    }

    fn power_off(&mut self) -> io::Result<()> {
        CrashDisk::power_off(self)
    }

    fn operations(&self) -> u64 {
        CrashDisk::operations(self)
    }
}

impl State {
    fn track(&mut self, file: Arc<dyn DiskFile>, place: String) -> io::Result<FileId> {
        let id = self.next;
        self.next += 1;
        self.files.insert(id, Tracked::new(file, place)?);
        Ok(id)
    }

    /// Counts a changing operation that has been passed on; an error if power fails inside it.
    fn finish(&mut self) -> io::Result<()> {
        self.operations += 1;
        match &mut self.fuse {
            Some(0) => {
                self.off = true;
                Err(io::Error::other("power failed inside a disk operation"))
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn move_to(&mut self, id: FileId, place: String) -> io::Result<()> {
        let file = self.files.get_mut(&id).expect("a file with a name is tracked");
        if file.place != place {
            self.inner.rename(&file.place, &place)?;
            file.place = place;
        }
        Ok(())
    }

    /// Takes a file out of the way whose name is given to another or removed.
    fn park(&mut self, id: FileId) -> io::Result<()> {
        self.move_to(id, format!("{PARKED}{id}"))
    }

    fn change(&mut self, change: Change) -> io::Result<()> {
        change.carry_out(&mut self.names);
        self.changes.push(change);
        self.finish()
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        self.finish()?;
        self.inner.sync_dir()?;
        for change in std::mem::take(&mut self.changes) {
            change.carry_out(&mut self.durable_names);
        }
        self.drop_nameless()
    }

    /// Files that no power failure can bring back go, unless somebody holds them open: then with the next one.
    fn drop_nameless(&mut self) -> io::Result<()> {
        let named: Vec<FileId> = self
            .names
            .values()
            .chain(self.durable_names.values())
            .copied()
            .collect();
        for (_, file) in self.files.extract_if(.., |id, _| !named.contains(id)) {
            self.inner.remove(&file.place)?;
        }
        Ok(())
    }

    fn power_off(&mut self) -> io::Result<()> {
        let keep = match self.random.below(4) {
            0 => Keep::Nothing,
            1 => Keep::Everything,
            _ => Keep::Some(1 + self.random.below(7)),
        };
        for change in std::mem::take(&mut self.changes) {
            if keep.draw(&mut self.random) {
                change.carry_out(&mut self.durable_names);
            }
        }
        for file in self.files.values_mut() {
            file.power_off(keep, &mut self.random)?;
        }
        self.put_in_place()?;
        self.run += 1;
        self.off = false;
        self.fuse = None;
        Ok(())
    }

    /// Gives the files below the names that survived.
    fn put_in_place(&mut self) -> io::Result<()> {
        let all: Vec<FileId> = self.files.keys().copied().collect();
        all.into_iter().try_for_each(|id| self.park(id))?;
        let mut placed = BTreeMap::new();
        for (name, id) in std::mem::take(&mut self.durable_names) {
            // Of a chain of renames some links may be lost, and then a file has two names: here, two files.
            let id = match placed.values().any(|known| *known == id) {
                false => id,
                true => {
                    let copy = self.inner.open(&format!("{PARKED}copy"), true)?;
                    self.files[&id].copy_to(&*copy)?;
                    self.track(copy, format!("{PARKED}copy"))?
                }
            };
            self.move_to(id, name.clone())?;
            placed.insert(name, id);
        }
        self.names = placed.clone();
        self.durable_names = placed;
        self.drop_nameless()?;
        self.inner.sync_dir()
    }
}

/// The disk as one run of the machine sees it.
#[derive(Debug)]
struct Mounted {
    disk: CrashDisk,
    run: u64,
}

/// The state, if this run still has power.
fn powered(disk: &CrashDisk, run: u64) -> io::Result<MutexGuard<'_, State>> {
    let state = disk.state();
    match state.off || state.run != run {
        true => Err(io::Error::other("the machine has no power")),
        false => Ok(state),
    }
}

impl Disk for Mounted {
    fn open(&self, name: &str, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = powered(&self.disk, self.run)?;
        let id = match state.names.get(name) {
            Some(id) => *id,
            None if !create => return Err(io::ErrorKind::NotFound.into()),
            None => {
                let file = state.inner.open(name, true)?;
                let id = state.track(file, name.to_owned())?;
                state.change(Change {
                    set: Some((name.to_owned(), id)),
                    unset: None,
                })?;
                id
            }
        };
        Ok(Arc::new(OpenFile {
            disk: self.disk.clone(),
            run: self.run,
            id,
            file: state.files[&id].handle(),
        }))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(powered(&self.disk, self.run)?.names.keys().cloned().collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = powered(&self.disk, self.run)?;
        let id = *state.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        if from != to {
            if let Some(replaced) = state.names.get(to).copied() {
                state.park(replaced)?;
            }
            state.move_to(id, to.to_owned())?;
        }
        state.change(Change {
            set: Some((to.to_owned(), id)),
            unset: Some(from.to_owned()),
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = powered(&self.disk, self.run)?;
        let id = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        state.park(id)?;
        state.change(Change {
            set: None,
            unset: Some(name.to_owned()),
        })
    }

    fn sync_dir(&self) -> io::Result<()> {
        powered(&self.disk, self.run)?.sync_dir()
    }
}

#[derive(Debug)]
struct OpenFile {
    disk: CrashDisk,
    run: u64,
    id: FileId,
    /// For files that have no name any more, and are not tracked.
    file: Arc<dyn DiskFile>,
}

impl OpenFile {
    /// Passes a change on and counts it.
    fn change(
        &self,
        tracked: impl FnOnce(&mut Tracked) -> io::Result<()>,
        untracked: impl FnOnce(&dyn DiskFile) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut state = powered(&self.disk, self.run)?;
        match state.files.get_mut(&self.id) {
            Some(file) => tracked(file)?,
            None => untracked(&*self.file)?,
        }
        state.finish()
    }
}

impl DiskFile for OpenFile {
    fn len(&self) -> io::Result<u64> {
        let _state = powered(&self.disk, self.run)?;
        self.file.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let _state = powered(&self.disk, self.run)?;
        self.file.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(
            |file| file.write(offset, &[io::IoSlice::new(data)]),
            |file| file.write_at(offset, data),
        )
    }

    fn write_vectored_at(&self, offset: u64, parts: &[io::IoSlice<'_>]) -> io::Result<()> {
        self.change(
            |file| file.write(offset, parts),
            |file| file.write_vectored_at(offset, parts),
        )
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = powered(&self.disk, self.run)?;
        // Power that fails inside a sync leaves any part of it undone.
        state.finish()?;
        match state.files.get_mut(&self.id) {
            Some(file) => file.sync(),
            None => self.file.sync(),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(|file| file.set_len(len), |file| file.set_len(len))
    }
}
