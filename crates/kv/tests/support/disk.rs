//! A disk in memory that can be full, and that can crash at any operation: what was synced stays, of everything since any part
//! may, cut at sectors.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use quorate_base::{Disk, DiskFile};

const SECTOR: usize = 512;

/// The disk. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct MemDisk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    files: Vec<Contents>,
    /// Operations that change something, so far.
    ops: u64,
    /// From this operation on everything fails.
    crash_at: Option<u64>,
    /// This operation fails, and no other.
    fail_at: Option<u64>,
    /// This operation fails, and no other; if it is a write, so many bytes of it were written.
    short_at: Option<(u64, usize)>,
    /// From this operation on writes fail with "no space".
    full_at: Option<u64>,
    unreadable: bool,
}

#[derive(Clone, Debug, Default)]
struct Contents {
    now: Vec<u8>,
    durable: Vec<u8>,
    since: Vec<Change>,
}

impl Contents {
    fn as_seen(&self) -> Contents {
        Contents {
            now: self.now.clone(),
            durable: self.now.clone(),
            since: Vec::new(),
        }
    }
}

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Len(usize),
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Change::Len(len) => to.resize(*len, 0),
            Change::Write(at, data) => {
                let end = at + data.len();
                if to.len() < end {
                    to.resize(end, 0);
                }
                to[*at..end].copy_from_slice(data);
            }
        }
    }
}

impl MemDisk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub fn ops(&self) -> u64 {
        self.state().ops
    }

    /// Fails everything from `ops` operations from now on.
    pub fn crash_after(&self, ops: u64) {
        let mut state = self.state();
        state.crash_at = Some(state.ops + ops);
    }

    /// Fails one operation, after so many others.
    pub fn fail_after(&self, ops: u64) {
        let mut state = self.state();
        state.fail_at = Some(state.ops + ops);
    }

    /// Fails one operation, after so many others; a write leaves its first `bytes` bytes.
    pub fn short_after(&self, ops: u64, bytes: usize) {
        let mut state = self.state();
        state.short_at = Some((state.ops + ops, bytes));
    }

    /// The disk as found after the process was killed: all of it, synced or not.
    pub fn after_kill(&self) -> MemDisk {
        let state = self.state();
        MemDisk(Arc::new(Mutex::new(State {
            names: state.names.clone(),
            durable_names: state.names.clone(),
            files: state.files.iter().map(Contents::as_seen).collect(),
            ..State::default()
        })))
    }

    /// Fails writes for want of space from `ops` operations from now on; `None`: there is space again.
    pub fn full_after(&self, ops: Option<u64>) {
        let mut state = self.state();
        state.full_at = ops.map(|ops| state.ops + ops);
    }

    /// From now on nothing can be read.
    pub fn fail_reads(&self) {
        self.state().unreadable = true;
    }

    /// The disk as found after a power cut now.
    pub fn after_crash(&self, seed: u64) -> MemDisk {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut coin = move || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random >> 32 & 1 == 1
        };
        let state = self.state();
        let names = if coin() {
            &state.names
        } else {
            &state.durable_names
        };
        let files = state.files.iter().map(|file| {
            let mut found = file.durable.clone();
            for change in &file.since {
                match change {
                    Change::Len(_) if coin() => change.apply(&mut found),
                    Change::Len(_) => {}
                    Change::Write(at, data) => {
                        let mut done = 0;
                        while done < data.len() {
                            let end = data.len().min(done + SECTOR - (at + done) % SECTOR);
                            if coin() {
                                Change::Write(at + done, data[done..end].to_vec()).apply(&mut found);
                            }
                            done = end;
                        }
                    }
                }
            }
            Contents {
                now: found.clone(),
                durable: found,
                since: Vec::new(),
            }
        });
        MemDisk(Arc::new(Mutex::new(State {
            names: names.clone(),
            durable_names: names.clone(),
            files: files.collect(),
            ..State::default()
        })))
    }
}

impl State {
    fn changing(&mut self) -> io::Result<()> {
        self.alive()?;
        self.ops += 1;
        match self.fail_at {
            Some(at) if self.ops == at + 1 => Err(io::Error::other("failed")),
            _ => Ok(()),
        }
    }

    /// How much of the operation under way is done before it fails; `None` if it does not.
    fn cut(&self) -> Option<usize> {
        self.short_at
            .filter(|(at, _)| self.ops == at + 1)
            .map(|(_, bytes)| bytes)
    }

    fn alive(&self) -> io::Result<()> {
        match self.crash_at {
            Some(at) if self.ops >= at => Err(io::Error::other("crashed")),
            _ => Ok(()),
        }
    }

    fn space(&self) -> io::Result<()> {
        match self.full_at {
            Some(at) if self.ops >= at => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }
}

impl Disk for MemDisk {
    fn open(&self, name: &str, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.alive()?;
        let file = match state.names.get(name) {
            Some(file) => *file,
            None if create => {
                state.changing()?;
                state.files.push(Contents::default());
                let file = state.files.len() - 1;
                state.names.insert(name.to_owned(), file);
                file
            }
            None => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok(Arc::new(MemFile {
            disk: self.clone(),
            file,
        }))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let state = self.state();
        state.alive()?;
        Ok(state.names.keys().cloned().collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.changing()?;
        let file = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.changing()?;
        state.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.state();
        state.changing()?;
        state.durable_names = state.names.clone();
        Ok(())
    }
}

#[derive(Debug)]
struct MemFile {
    disk: MemDisk,
    file: usize,
}

impl MemFile {
    fn change(&self, change: Change) -> io::Result<()> {
        let mut state = self.disk.state();
        state.changing()?;
        state.space()?;
        let cut = state.cut();
        let file = &mut state.files[self.file];
        let change = match (change, cut) {
            (Change::Write(at, data), Some(bytes)) => {
                Change::Write(at, data[..bytes.min(data.len())].to_vec())
            }
            (Change::Len(_), Some(_)) => return Err(io::Error::other("cut short")),
            (change, None) => change,
        };
        change.apply(&mut file.now);
        file.since.push(change);
        match cut {
            None => Ok(()),
            Some(_) => Err(io::Error::other("cut short")),
        }
    }
}

impl DiskFile for MemFile {
    fn len(&self) -> io::Result<u64> {
        let state = self.disk.state();
        state.alive()?;
        Ok(state.files[self.file].now.len() as u64)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let state = self.disk.state();
        state.alive()?;
        if state.unreadable {
            return Err(io::Error::other("unreadable"));
        }
        let start = offset as usize;
        let data = state.files[self.file].now.get(start..start + buf.len());
        buf.copy_from_slice(data.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Change::Write(offset as usize, data.to_vec()))
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        state.changing()?;
        let file = &mut state.files[self.file];
        for change in std::mem::take(&mut file.since) {
            change.apply(&mut file.durable);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Change::Len(len as usize))
    }
}
