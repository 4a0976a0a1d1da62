//! Sees what the engine keeps to itself: it writes to a file once more when it closes it, which is when the last one who reads it lets go, and
//! tells nobody whether that worked. After a failed write or sync the process must end, whoever was told. So the store's disk goes
//! through a [`Witness`]: after a failure it lets no file take another's name, and whoever closed one asks it.

use std::io;
use std::sync::{Arc, OnceLock};

use quorate_base::disk::is_full;
use quorate_base::{Disk, DiskFile};

/// A disk, with note kept of the first error that is final.
#[derive(Clone, Debug)]
pub(crate) struct Witness {
    disk: Arc<dyn Disk>,
    failed: Arc<OnceLock<String>>,
}

impl Witness {
    pub(crate) fn new(disk: Arc<dyn Disk>) -> Witness {
        Witness {
            disk,
            failed: Arc::default(),
        }
    }

    /// The disk that it stands before.
    pub(crate) fn disk(&self) -> Arc<dyn Disk> {
        self.disk.clone()
    }

    /// # Errors
    /// If a write or sync has failed, by whomsoever it was asked for. Never "full": a write for which there was no room waits for it, see
    /// [`Backend`](crate::backend::Backend), and a sync for which there was none has lost nobody knows what.
    pub(crate) fn check(&self) -> io::Result<()> {
        match self.failed.get() {
            None => Ok(()),
            Some(error) => Err(io::Error::other(format!("writing the store: {error}"))),
        }
    }

    fn synced(&self, done: io::Result<()>) -> io::Result<()> {
        if let Err(error) = &done {
            // Only the first one counts.
            let _ = self.failed.set(error.to_string());
        }
        done
    }

    fn written(&self, done: io::Result<()>) -> io::Result<()> {
        match done {
            Err(error) if is_full(&error) => Err(error),
            done => self.synced(done),
        }
    }
}

impl Disk for Witness {
    fn open(&self, name: &str, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk.open(name, create)?;
        let witness = self.clone();
        Ok(Arc::new(Witnessed { file, witness }))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.check()?;
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()
    }
}

#[derive(Debug)]
struct Witnessed {
    file: Arc<dyn DiskFile>,
    witness: Witness,
}

impl DiskFile for Witnessed {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.witness.written(self.file.write_at(offset, data))
    }

    fn write_vectored_at(&self, offset: u64, parts: &[io::IoSlice<'_>]) -> io::Result<()> {
        self.witness.written(self.file.write_vectored_at(offset, parts))
    }

    fn sync(&self) -> io::Result<()> {
        self.witness.synced(self.file.sync())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.witness.written(self.file.set_len(len))
    }
}
