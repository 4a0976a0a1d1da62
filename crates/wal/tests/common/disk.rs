//! A disk in memory that can fail at any call and crash at any moment. Tests of other crates include this file by its path: it knows
//! only the `Disk` trait.
#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use quorate_base::{Disk, DiskFile};

pub const SECTOR: usize = 512;

/// A small deterministic random source.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub fn bytes(&mut self, n: usize) -> Bytes {
        (0..n).map(|_| self.next() as u8).collect::<Vec<u8>>().into()
    }
}

/// How a call of the disk fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The call has no effect.
    Nothing(io::ErrorKind),
    /// A write writes its first half and fails; other calls have no effect.
    Short(io::ErrorKind),
    /// A write writes so many of its bytes and fails; other calls have no effect.
    Cut(usize, io::ErrorKind),
    /// The call has its effect and fails all the same, and so does every later call, without any: the machine is gone.
    Crash,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors that the next sync writes. A failed sync forgets them, as Linux does.
    dirty: BTreeSet<usize>,
}

#[derive(Clone, Debug, Default)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    calls: u64,
    fault: Option<(u64, Fault)>,
    /// Calls that only look.
    looks: u64,
    look_fault: Option<(u64, io::ErrorKind)>,
    /// Bytes that all files together may take.
    capacity: Option<usize>,
    down: bool,
    syncs: u64,
    /// The most parts that one write had.
    most_parts: usize,
    /// The length of each read.
    reads: Vec<usize>,
}

/// A directory in memory. Clones are the same directory.
#[derive(Clone, Debug, Default)]
pub struct MemDisk(Arc<Mutex<State>>);

#[derive(Debug)]
struct MemFile {
    disk: MemDisk,
    inode: usize,
}

/// What a call may do.
struct Permit {
    /// Only this part of what a write would write; nothing of any other call.
    part: Option<Part>,
    fail: Option<io::Error>,
}

enum Part {
    Half,
    Bytes(usize),
}

impl MemDisk {
    /// From files that are durable.
    pub fn of(files: &BTreeMap<String, Vec<u8>>) -> MemDisk {
        let disk = MemDisk::default();
        {
            let mut state = disk.0.lock().unwrap();
            for (name, bytes) in files {
                let inode = state.inodes.len();
                state.inodes.push(Inode {
                    now: bytes.clone(),
                    durable: bytes.clone(),
                    dirty: BTreeSet::new(),
                });
                state.names.insert(name.clone(), inode);
                state.durable_names.insert(name.clone(), inode);
            }
        }
        disk
    }

    /// The same at this moment, in memory and durably; from now on another disk.
    pub fn copy(&self) -> MemDisk {
        let state = self.0.lock().unwrap().clone();
        MemDisk(Arc::new(Mutex::new(state)))
    }

    pub fn shared(&self) -> Arc<dyn Disk> {
        Arc::new(self.clone())
    }

    /// All files as a process sees them.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let state = self.0.lock().unwrap();
        let file = |(name, &inode): (&String, &usize)| (name.clone(), state.inodes[inode].now.clone());
        state.names.iter().map(file).collect()
    }

    /// Lets the `nth` changing call from now on (0 is the next) fail.
    pub fn fail_at(&self, nth: u64, fault: Fault) {
        let mut state = self.0.lock().unwrap();
        state.fault = Some((state.calls + nth, fault));
    }

    /// Lets the `nth` call from now on that changes nothing fail (0 is the next): listing, opening what is there, measuring, reading.
    pub fn fail_look_at(&self, nth: u64, kind: io::ErrorKind) {
        let mut state = self.0.lock().unwrap();
        state.look_fault = Some((state.looks + nth, kind));
    }

    /// No failure any more.
    pub fn heal(&self) {
        let mut state = self.0.lock().unwrap();
        (state.fault, state.look_fault) = (None, None);
    }

    pub fn set_capacity(&self, capacity: Option<usize>) {
        self.0.lock().unwrap().capacity = capacity;
    }

    /// Changing calls so far.
    pub fn calls(&self) -> u64 {
        self.0.lock().unwrap().calls
    }

    /// Calls so far that changed nothing.
    pub fn looks(&self) -> u64 {
        self.0.lock().unwrap().looks
    }

    pub fn syncs(&self) -> u64 {
        self.0.lock().unwrap().syncs
    }

    pub fn most_parts(&self) -> usize {
        self.0.lock().unwrap().most_parts
    }

    /// The lengths of all reads since the last time this was asked.
    pub fn take_reads(&self) -> Vec<usize> {
        std::mem::take(&mut self.0.lock().unwrap().reads)
    }

    pub fn is_down(&self) -> bool {
        self.0.lock().unwrap().down
    }

    /// Writes that are not durable, as (inode, sector).
    pub fn unsynced(&self) -> Vec<(usize, usize)> {
        let state = self.0.lock().unwrap();
        let mut out = Vec::new();
        for (i, inode) in state.inodes.iter().enumerate() {
            for sector in 0..inode.now.len().div_ceil(SECTOR) {
                if piece(&inode.now, sector) != piece(&inode.durable, sector) {
                    out.push((i, sector));
                }
            }
        }
        out
    }

    /// What is on the disk after a crash now: each sector that is not durable, each length and each name is old or new as `keep` says.
    pub fn after_crash(&self, keep: &mut dyn FnMut() -> bool) -> MemDisk {
        let state = self.0.lock().unwrap();
        let mut files = BTreeMap::new();
        let mut contents = Vec::new();
        for inode in &state.inodes {
            let length = if inode.now.len() == inode.durable.len() || keep() {
                inode.now.len()
            } else {
                inode.durable.len()
            };
            let mut bytes = inode.durable.clone();
            bytes.resize(length, 0);
            for sector in 0..length.div_ceil(SECTOR) {
                if piece(&inode.now, sector) != piece(&inode.durable, sector) && keep() {
                    let end = ((sector + 1) * SECTOR).min(length).min(inode.now.len());
                    if sector * SECTOR < end {
                        bytes[sector * SECTOR..end].copy_from_slice(&inode.now[sector * SECTOR..end]);
                    }
                }
            }
            contents.push(bytes);
        }
        let all: BTreeSet<&String> = state.names.keys().chain(state.durable_names.keys()).collect();
        for name in all {
            let (new, old) = (state.names.get(name), state.durable_names.get(name));
            let chosen = if new == old || keep() { new } else { old };
            if let Some(&inode) = chosen {
                files.insert(name.clone(), contents[inode].clone());
            }
        }
        MemDisk::of(&files)
    }

    fn call(state: &mut State) -> io::Result<Permit> {
        if state.down {
            return Err(gone());
        }
        let this = state.calls;
        state.calls += 1;
        match state.fault {
            Some((at, fault)) if at == this => match fault {
                Fault::Nothing(kind) => Err(kind.into()),
                Fault::Short(kind) => Ok(Permit {
                    part: Some(Part::Half),
                    fail: Some(kind.into()),
                }),
                Fault::Cut(bytes, kind) => Ok(Permit {
                    part: Some(Part::Bytes(bytes)),
                    fail: Some(kind.into()),
                }),
                Fault::Crash => {
                    state.down = true;
                    Ok(Permit {
                        part: None,
                        fail: Some(gone()),
                    })
                }
            },
            _ => Ok(Permit {
                part: None,
                fail: None,
            }),
        }
    }

    /// A call that changes nothing.
    fn look<T>(&self, look: impl FnOnce(&mut State) -> T) -> io::Result<T> {
        let mut state = self.0.lock().unwrap();
        let this = state.looks;
        state.looks += 1;
        match state.look_fault {
            _ if state.down => Err(gone()),
            Some((at, kind)) if at == this => Err(kind.into()),
            _ => Ok(look(&mut state)),
        }
    }

    /// A changing call that is not a write.
    fn change(&self, act: impl FnOnce(&mut State) -> io::Result<()>) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        let permit = MemDisk::call(&mut state)?;
        if permit.part.is_some() {
            return Err(permit.fail.unwrap());
        }
        act(&mut state)?;
        permit.fail.map_or(Ok(()), Err)
    }
}

fn gone() -> io::Error {
    io::Error::other("the machine is gone")
}

fn piece(bytes: &[u8], sector: usize) -> Vec<u8> {
    let from = (sector * SECTOR).min(bytes.len());
    let to = ((sector + 1) * SECTOR).min(bytes.len());
    let mut piece = bytes[from..to].to_vec();
    piece.resize(SECTOR, 0);
    piece
}

impl Disk for MemDisk {
    fn open(&self, name: &str, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        let known = self.0.lock().unwrap().names.get(name).copied();
        if known.is_none() {
            if !create {
                return Err(io::ErrorKind::NotFound.into());
            }
            self.change(|state| {
                let inode = state.inodes.len();
                state.inodes.push(Inode::default());
                state.names.insert(name.to_owned(), inode);
                Ok(())
            })?;
        }
        let inode = self.look(|state| state.names[name])?;
        let disk = self.clone();
        Ok(Arc::new(MemFile { disk, inode }))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.look(|state| state.names.keys().cloned().collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change(|state| {
            let inode = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
            state.names.insert(to.to_owned(), inode);
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.change(|state| {
            state.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
            Ok(())
        })
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.change(|state| {
            state.durable_names = state.names.clone();
            Ok(())
        })
    }
}

impl DiskFile for MemFile {
    fn len(&self) -> io::Result<u64> {
        self.disk.look(|state| state.inodes[self.inode].now.len() as u64)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let at = offset as usize;
        let found = self.disk.look(|state| {
            state.reads.push(buf.len());
            let bytes = &state.inodes[self.inode].now;
            bytes.get(at..at + buf.len()).map(<[u8]>::to_vec)
        })?;
        buf.copy_from_slice(&found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.write_vectored_at(offset, &[io::IoSlice::new(data)])
    }

    fn write_vectored_at(&self, offset: u64, parts: &[io::IoSlice<'_>]) -> io::Result<()> {
        let mut data: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let mut state = self.disk.0.lock().unwrap();
        state.most_parts = state.most_parts.max(parts.len());
        let mut permit = MemDisk::call(&mut state)?;
        match permit.part {
            Some(Part::Half) => data.truncate(data.len() / 2),
            Some(Part::Bytes(bytes)) => data.truncate(bytes),
            None => {}
        }
        let used: usize = state
            .names
            .values()
            .map(|&inode| state.inodes[inode].now.len())
            .sum();
        let grows = (offset as usize + data.len()).saturating_sub(state.inodes[self.inode].now.len());
        if state.capacity.is_some_and(|capacity| used + grows > capacity) {
            data.truncate(data.len().saturating_sub(grows));
            permit.fail = Some(io::ErrorKind::StorageFull.into());
        }
        let bytes = &mut state.inodes[self.inode].now;
        let end = offset as usize + data.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[offset as usize..end].copy_from_slice(&data);
        state.inodes[self.inode]
            .dirty
            .extend(offset as usize / SECTOR..end.div_ceil(SECTOR));
        permit.fail.map_or(Ok(()), Err)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.0.lock().unwrap();
        let failed = match MemDisk::call(&mut state) {
            Ok(permit) => permit.fail,
            Err(error) => Some(error),
        };
        // A crash in the middle of a sync makes nothing durable: whatever is kept then is chosen by the test.
        let state = &mut *state;
        let inode = &mut state.inodes[self.inode];
        let dirty = std::mem::take(&mut inode.dirty);
        if let Some(error) = failed {
            return Err(error);
        }
        inode.durable.resize(inode.now.len(), 0);
        for sector in dirty {
            let end = ((sector + 1) * SECTOR).min(inode.now.len());
            let range = (sector * SECTOR).min(end)..end;
            inode.durable[range.clone()].copy_from_slice(&inode.now[range]);
        }
        state.syncs += 1;
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.change(|state| {
            let inode = &mut state.inodes[self.inode];
            let touched = (len as usize).min(inode.now.len());
            inode.now.resize(len as usize, 0);
            inode
                .dirty
                .extend(touched / SECTOR..inode.now.len().max(inode.durable.len()).div_ceil(SECTOR));
            Ok(())
        })
    }
}
