//! redb's storage backend over a [`Checked`] file, with one addition: it survives a full disk.
//!
//! redb gives a database up after any failed write, and with it all reads. So a write that finds the disk full is not passed on as an
//! error: from then on writes collect in memory ([`Deferred`]), layer by layer as redb's syncs divide them, while reads see
//! them. The commit so completes in memory only, which the job learns from [`Backend::is_deferred`]: nothing
//! of it counts as durable, and no other transaction begins. [`Backend::drain`] replays the layers in order,
//! each followed by its sync, as redb would have done it; a crash in between is one that redb is built for.
//! Every other error is passed on, and ends the process.
//!
//! And it writes at a pace: much that is written at once and synced at the end keeps the disk from the log's syncs, for which
//! clients wait. So there is a sync after every [`PORTION`].

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use quorate_base::DiskFile;
use quorate_base::disk::is_full;
use redb::StorageBackend;

use crate::checked::{Checked, FirstDamage};
use crate::error::Damage;
use crate::layout::BLOCK;

/// Neighbouring blocks are written at once up to this size.
const RUN_BYTES: usize = 1 << 20;
/// Bytes that may be written without a sync: what a disk does in about a millisecond.
const PORTION: usize = 512 << 10;

/// The file, as shared by redb and the jobs. Only one thread writes, that of the running job; its writes and syncs hold the lock
/// shared, so that reads never wait for the disk's slowest operations.
#[derive(Clone, Debug)]
pub(crate) struct Backend {
    file: Arc<dyn DiskFile>,
    /// The same file, unless it has no checksums.
    checked: Option<Arc<Checked>>,
    deferred: Arc<RwLock<Option<Deferred>>>,
    /// Bytes written since the last sync.
    unsynced: Arc<AtomicUsize>,
}

/// Writes that wait for space.
#[derive(Debug)]
struct Deferred {
    /// The oldest first; the last one is open for writes.
    layers: Vec<Layer>,
    /// The length as redb sees it.
    len: u64,
}

/// The writes between two syncs, or after a change of length.
#[derive(Debug, Default)]
struct Layer {
    /// The length that the file has from this layer on.
    set_len: Option<u64>,
    blocks: BTreeMap<u64, Box<[u8]>>,
}

/// Neighbouring blocks on their way to the file.
#[derive(Default)]
struct Run {
    start: u64,
    bytes: Vec<u8>,
}

impl Run {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

impl Backend {
    pub(crate) fn new(file: Checked) -> Backend {
        let file = Arc::new(file);
        Backend {
            checked: Some(file.clone()),
            ..Backend::plain(file)
        }
    }

    /// Over a file of a release that had no checksums.
    pub(crate) fn plain(file: Arc<dyn DiskFile>) -> Backend {
        Backend {
            file,
            checked: None,
            deferred: Arc::default(),
            unsynced: Arc::default(),
        }
    }

    /// Where the first damage found in the file is told.
    pub(crate) fn damage(&self) -> FirstDamage {
        self.checked
            .as_ref()
            .map_or_else(FirstDamage::default, |checked| checked.damage().clone())
    }

    /// An error of the engine. Once it met damage, it says of everything only that there was an error before.
    pub(crate) fn explain(&self, error: io::Error) -> io::Error {
        match self.damage().get() {
            Some(damage) => damage_error(damage),
            None => error,
        }
    }

    /// Syncs if a portion has been written.
    fn keep_pace(&self, written: usize) -> io::Result<()> {
        // One thread writes: the order of these is of no consequence.
        let unsynced = self.unsynced.load(Ordering::Relaxed) + written;
        if unsynced < PORTION || self.is_deferred() {
            self.unsynced.store(unsynced, Ordering::Relaxed);
            return Ok(());
        }
        self.sync()
    }

    /// Syncs the file. Its checksums come first, and may find the disk full as any write may: then they wait in memory as well.
    fn sync(&self) -> io::Result<()> {
        self.unsynced.store(0, Ordering::Relaxed);
        match self.settle() {
            Ok(()) => {}
            Err(e) if is_full(&e) => {
                self.defer(&mut self.exclusive())?.open();
                return Ok(());
            }
            Err(e) => return Err(e),
        }
        // A disk found full only by the sync has lost nobody knows what: that is final, like any failed sync.
        self.file.sync()
    }

    fn settle(&self) -> io::Result<()> {
        self.checked.as_ref().map_or(Ok(()), |checked| checked.settle())
    }

    /// Whether writes are held back for want of space.
    pub(crate) fn is_deferred(&self) -> bool {
        self.shared().is_some()
    }

    /// Tries to write what was held back. `Ok(false)` if the disk is still full.
    pub(crate) fn drain(&self) -> io::Result<bool> {
        let mut guard = self.exclusive();
        let Some(deferred) = guard.as_mut() else {
            return Ok(true);
        };
        while !deferred.layers.is_empty() {
            match self.write_layer(&deferred.layers[0]).and_then(|()| self.settle()) {
                Ok(()) => {
                    self.file.sync()?;
                    deferred.layers.remove(0);
                }
                Err(e) if is_full(&e) => return Ok(false),
                Err(e) => return Err(e),
            }
        }
        *guard = None;
        Ok(true)
    }

    /// Writing a layer again after it failed half-way is harmless.
    fn write_layer(&self, layer: &Layer) -> io::Result<()> {
        if let Some(len) = layer.set_len {
            self.file.set_len(len)?;
        }
        let end = self.file.len()?;
        let mut run = Run::default();
        for (block, data) in &layer.blocks {
            let offset = block * BLOCK;
            if run.end() != offset || run.bytes.len() >= RUN_BYTES {
                self.write_run(&mut run, end)?;
                run.start = offset;
            }
            run.bytes.extend_from_slice(data);
        }
        self.write_run(&mut run, end)
    }

    /// Writes neighbouring blocks at once. The last block may reach beyond the length that redb set.
    fn write_run(&self, run: &mut Run, end: u64) -> io::Result<()> {
        let room = usize::try_from(end.saturating_sub(run.start)).unwrap_or(usize::MAX);
        let bytes = &run.bytes[..run.bytes.len().min(room)];
        if !bytes.is_empty() {
            self.file.write_at(run.start, bytes)?;
        }
        run.bytes.clear();
        Ok(())
    }

    fn shared(&self) -> RwLockReadGuard<'_, Option<Deferred>> {
        self.deferred.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn exclusive(&self) -> RwLockWriteGuard<'_, Option<Deferred>> {
        self.deferred.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lock for writing to what is deferred; `None` if nothing is.
    fn exclusive_if_deferred(&self) -> Option<RwLockWriteGuard<'_, Option<Deferred>>> {
        self.is_deferred().then(|| self.exclusive())
    }

    /// Does `direct` on the file unless writes are being deferred already; if that finds the disk full, or they are, does `later`.
    fn write_or_defer(
        &self,
        direct: impl FnOnce(&dyn DiskFile) -> io::Result<()>,
        later: impl FnOnce(&mut Deferred, &dyn DiskFile) -> io::Result<()>,
    ) -> io::Result<()> {
        {
            let guard = self.shared();
            if guard.is_none() {
                match direct(&*self.file) {
                    Err(e) if is_full(&e) => {}
                    other => return other,
                }
            }
        }
        later(self.defer(&mut self.exclusive())?, &*self.file)
    }

    /// From now on writes are held back.
    fn defer<'a>(&self, deferred: &'a mut Option<Deferred>) -> io::Result<&'a mut Deferred> {
        if deferred.is_none() {
            *deferred = Some(Deferred {
                layers: Vec::new(),
                len: self.file.len()?,
            });
        }
        Ok(deferred.as_mut().expect("set above"))
    }
}

impl Deferred {
    fn open(&mut self) -> &mut Layer {
        if self.layers.is_empty() {
            self.layers.push(Layer::default());
        }
        self.layers.last_mut().expect("just made sure")
    }

    /// A block as redb sees it now.
    fn block(&self, file: &dyn DiskFile, block: u64) -> io::Result<Box<[u8]>> {
        let start = block * BLOCK;
        let mut data = vec![0; BLOCK as usize].into_boxed_slice();
        for layer in self.layers.iter().rev() {
            if let Some(written) = layer.blocks.get(&block) {
                return Ok(written.clone());
            }
            if layer.set_len.is_some_and(|len| len <= start) {
                return Ok(data); // cut off here; zeros if the file grew again
            }
        }
        let on_disk = file.len()?.saturating_sub(start).min(BLOCK) as usize;
        if on_disk > 0 {
            file.read_at(start, &mut data[..on_disk])?;
        }
        Ok(data)
    }

    fn read(&self, file: &dyn DiskFile, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset + out.len() as u64 > self.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (block, skip, piece) in pieces(offset, out.len()) {
            let data = self.block(file, block)?;
            out[piece.clone()].copy_from_slice(&data[skip..skip + piece.len()]);
        }
        Ok(())
    }

    fn write(&mut self, file: &dyn DiskFile, offset: u64, bytes: &[u8]) -> io::Result<()> {
        for (block, skip, piece) in pieces(offset, bytes.len()) {
            // What an attempt to write left of a block that is written whole is nothing to read.
            let mut data = match piece.len() == BLOCK as usize {
                true => vec![0; BLOCK as usize].into_boxed_slice(),
                false => self.block(file, block)?,
            };
            data[skip..skip + piece.len()].copy_from_slice(&bytes[piece]);
            self.open().blocks.insert(block, data);
        }
        Ok(())
    }
}

/// Damage as an error of I/O.
pub(crate) fn damage_error(damage: &Damage) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, damage.clone())
}

/// Cuts `[offset, offset + len)` at block borders: block, where in the block, which part of the buffer.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset + done as u64;
        let skip = (at % BLOCK) as usize;
        let piece = done..len.min(done + BLOCK as usize - skip);
        done = piece.end;
        Some((at / BLOCK, skip, piece))
    })
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        match &*self.shared() {
            Some(deferred) => Ok(deferred.len),
            None => self.file.len(),
        }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        match &*self.shared() {
            Some(deferred) => deferred.read(&*self.file, offset, out),
            None => self.file.read_at(offset, out),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.write_or_defer(
            |file| file.set_len(len),
            |deferred, _| {
                deferred.len = len;
                deferred.layers.push(Layer {
                    set_len: Some(len),
                    blocks: BTreeMap::new(),
                });
                Ok(())
            },
        )
    }

    fn sync_data(&self) -> io::Result<()> {
        if let Some(deferred) = self
            .exclusive_if_deferred()
            .as_mut()
            .and_then(|guard| guard.as_mut())
        {
            deferred.layers.push(Layer::default());
            return Ok(());
        }
        self.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.write_or_defer(
            |file| file.write_at(offset, data),
            |deferred, file| deferred.write(file, offset, data),
        )?;
        self.keep_pace(data.len())
    }
}
