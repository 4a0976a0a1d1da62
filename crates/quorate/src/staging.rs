//! The staging file of an incoming snapshot, as the node orders it. What is in it, and when it counts, is the node's affair.

use std::io;
use std::sync::Arc;

use quorate_base::{Disk, DiskFile};
use quorate_node::event::{Event, StageOp, StreamId};

/// The staging file's name.
pub(crate) const STAGING: &str = "incoming-snapshot";

/// Bytes read at once from the staging file.
const READ_BYTES: usize = 256 << 10;

/// The file being written, if one is.
pub(crate) struct Staging {
    disk: Arc<dyn Disk>,
    open: Option<(StreamId, Arc<dyn DiskFile>)>,
}

impl Staging {
    pub(crate) fn new(disk: Arc<dyn Disk>) -> Staging {
        Staging { disk, open: None }
    }

    /// Carries out one operation. On a full disk the transfer is given up, which the node hears of. Any other error is final.
    pub(crate) fn carry_out(&mut self, op: StageOp) -> Result<Option<Event>, String> {
        let stream = match op {
            StageOp::Begin { stream } | StageOp::Write { stream, .. } | StageOp::Finish { stream } => {
                Some(stream)
            }
            StageOp::Discard => None,
        };
        match self.try_carry_out(op) {
            Ok(event) => Ok(event),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
                ) =>
            {
                tracing::error!(%error, "no room to stage a snapshot from the leader");
                if let Some((_, file)) = self.open.take() {
                    let _ = file.set_len(0);
                }
                Ok(stream.map(|stream| Event::StageFailed { stream }))
            }
            Err(error) => Err(error.to_string()),
        }
    }

    fn try_carry_out(&mut self, op: StageOp) -> io::Result<Option<Event>> {
        match op {
            StageOp::Begin { stream } => {
                let file = self.disk.open(STAGING, true)?;
                file.set_len(0)?;
                self.open = Some((stream, file));
                Ok(None)
            }
            StageOp::Write {
                stream,
                offset,
                bytes,
            } => {
                let Some(file) = self.current(stream) else {
                    return Ok(None);
                };
                file.write_at(offset, &bytes)?;
                Ok(Some(Event::Staged {
                    stream,
                    len: offset + bytes.len() as u64,
                    finished: false,
                }))
            }
            StageOp::Finish { stream } => {
                let Some(file) = self.current(stream) else {
                    return Ok(None);
                };
                file.sync()?;
                let len = file.len()?;
                self.disk.sync_dir()?;
                Ok(Some(Event::Staged {
                    stream,
                    len,
                    finished: true,
                }))
            }
            StageOp::Discard => {
                self.open = None;
                discard(&*self.disk)?;
                Ok(None)
            }
        }
    }

    /// The open file, if it is this transfer's. An operation for another one comes after that was given up.
    fn current(&self, stream: StreamId) -> Option<&Arc<dyn DiskFile>> {
        self.open
            .as_ref()
            .filter(|(open, _)| *open == stream)
            .map(|(_, file)| file)
    }
}

/// Removes the staging file if there is one.
pub(crate) fn discard(disk: &dyn Disk) -> io::Result<()> {
    match disk.remove(STAGING) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => disk.sync_dir(),
    }
}

/// Reads the staging file from its beginning.
pub(crate) struct StagingReader {
    file: Arc<dyn DiskFile>,
    at: u64,
    len: u64,
}

impl StagingReader {
    /// Opens what was staged, for large reads.
    pub(crate) fn open(disk: &dyn Disk) -> io::Result<io::BufReader<StagingReader>> {
        let file = disk.open(STAGING, false)?;
        let len = file.len()?;
        Ok(io::BufReader::with_capacity(
            READ_BYTES,
            StagingReader { file, at: 0, len },
        ))
    }
}

impl io::Read for StagingReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = (self.len - self.at).min(buf.len() as u64) as usize;
        self.file.read_at(self.at, &mut buf[..count])?;
        self.at += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use bytes::Bytes;

    use super::*;
    use crate::disk::DirDisk;
    use crate::testing::TempDir;

    fn write(stream: StreamId, offset: u64, bytes: &'static [u8]) -> StageOp {
        StageOp::Write {
            stream,
            offset,
            bytes: Bytes::from_static(bytes),
        }
    }

    /// A disk whose files take no more than `room` bytes each.
    #[derive(Debug)]
    struct Narrow {
        inner: DirDisk,
        room: u64,
    }

    #[derive(Debug)]
    struct NarrowFile(Arc<dyn DiskFile>, u64);

    impl Disk for Narrow {
        fn open(&self, name: &str, create: bool) -> io::Result<Arc<dyn DiskFile>> {
            Ok(Arc::new(NarrowFile(self.inner.open(name, create)?, self.room)))
        }
        fn list(&self) -> io::Result<Vec<String>> {
            self.inner.list()
        }
        fn rename(&self, from: &str, to: &str) -> io::Result<()> {
            self.inner.rename(from, to)
        }
        fn remove(&self, name: &str) -> io::Result<()> {
            self.inner.remove(name)
        }
        fn sync_dir(&self) -> io::Result<()> {
            self.inner.sync_dir()
        }
    }

    impl DiskFile for NarrowFile {
        fn len(&self) -> io::Result<u64> {
            self.0.len()
        }
        fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
            self.0.read_at(offset, buf)
        }
        fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            if offset + data.len() as u64 > self.1 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0.write_at(offset, data)
        }
        fn sync(&self) -> io::Result<()> {
            self.0.sync()
        }
        fn set_len(&self, len: u64) -> io::Result<()> {
            self.0.set_len(len)
        }
    }

    #[test]
    fn a_full_disk_fails_the_transfer_once_and_frees_what_it_took() {
        let dir = TempDir::new();
        let disk: Arc<dyn Disk> = Arc::new(Narrow {
            inner: DirDisk::open(dir.path()).unwrap(),
            room: 8,
        });
        let mut staging = Staging::new(disk.clone());
        staging.carry_out(StageOp::Begin { stream: 1 }).unwrap();
        let fits = staging.carry_out(write(1, 0, b"fits")).unwrap();
        assert!(matches!(fits, Some(Event::Staged { len: 4, .. })));
        let fails = staging.carry_out(write(1, 4, b"too much")).unwrap();
        assert!(
            matches!(fails, Some(Event::StageFailed { stream: 1 })),
            "{fails:?}"
        );
        assert_eq!(disk.open(STAGING, false).unwrap().len().unwrap(), 0);
        // What was queued behind it changes nothing.
        assert!(staging.carry_out(write(1, 4, b"late")).unwrap().is_none());
        assert!(
            staging
                .carry_out(StageOp::Finish { stream: 1 })
                .unwrap()
                .is_none()
        );
        staging.carry_out(StageOp::Begin { stream: 2 }).unwrap();
        let again = staging.carry_out(write(2, 0, b"again")).unwrap();
        assert!(matches!(
            again,
            Some(Event::Staged {
                stream: 2,
                len: 5,
                ..
            })
        ));
    }

    #[test]
    fn pieces_of_another_transfer_are_ignored() {
        let dir = TempDir::new();
        let disk: Arc<dyn Disk> = Arc::new(DirDisk::open(dir.path()).unwrap());
        let mut staging = Staging::new(disk.clone());
        assert!(staging.carry_out(write(1, 0, b"early")).unwrap().is_none());
        staging.carry_out(StageOp::Begin { stream: 1 }).unwrap();
        let staged = staging.carry_out(write(1, 0, b"first")).unwrap();
        assert!(matches!(
            staged,
            Some(Event::Staged {
                stream: 1,
                len: 5,
                finished: false
            })
        ));
        staging.carry_out(StageOp::Begin { stream: 2 }).unwrap();
        staging.carry_out(write(2, 0, b"sec")).unwrap();
        assert!(staging.carry_out(write(1, 5, b"late")).unwrap().is_none());
        staging.carry_out(write(2, 3, b"ond")).unwrap();
        let finished = staging.carry_out(StageOp::Finish { stream: 2 }).unwrap();
        assert!(matches!(
            finished,
            Some(Event::Staged {
                stream: 2,
                len: 6,
                finished: true
            })
        ));
        let mut text = String::new();
        StagingReader::open(&*disk)
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "second");
        staging.carry_out(StageOp::Discard).unwrap();
        staging.carry_out(StageOp::Discard).unwrap();
        assert!(disk.list().unwrap().is_empty());
    }
}
