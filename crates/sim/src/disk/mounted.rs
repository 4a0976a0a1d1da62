//! What the programs of one run of a machine see of its disk.

use std::io;
use std::sync::{Arc, MutexGuard};

use quorate_base::{Disk, DiskFile};

use super::file::Contents;
use super::medium::{FileId, Medium};
use super::{Blow, STORE, SimDisk};

/// A disk as one run of a machine sees it.
#[derive(Debug)]
pub(super) struct Mounted {
    pub(super) disk: SimDisk,
    pub(super) run: u64,
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
        let mut whole = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
        parts.iter().for_each(|part| whole.extend_from_slice(part));
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
