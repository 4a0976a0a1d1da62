//! The real disk: one directory of the file system behind the [`Disk`] trait. It decides nothing; what an error means is for the
//! log and the store to say.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quorate_base::{Disk, DiskFile};

/// Buffers in one vectored write; Linux takes no more (`IOV_MAX`).
const MAX_PARTS: usize = 1024;

/// A directory of the file system as a [`Disk`].
#[derive(Debug)]
pub struct DirDisk {
    dir: PathBuf,
    /// Kept open: this is what [`Disk::sync_dir`] syncs.
    handle: File,
}

/// Whether nothing is there. A path that is relative ends with the empty one, which is the current directory.
fn is_absent(at: &Path) -> bool {
    !at.as_os_str().is_empty() && !at.exists()
}

/// Makes the name of a directory durable.
fn sync_name(of: &Path) -> io::Result<()> {
    let parent = of.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

impl DirDisk {
    /// Opens `dir`, which is made (readable by its owner only) if it is absent.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(dir: impl Into<PathBuf>) -> io::Result<DirDisk> {
        let dir = dir.into();
        let absent: Vec<&Path> = dir.ancestors().take_while(|at| is_absent(at)).collect();
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        // Names of new directories must survive a crash as well. An empty one may have been made by a process that was killed before it did this.
        for made in absent.iter().rev() {
            sync_name(made)?;
        }
        if absent.is_empty() && fs::read_dir(&dir)?.next().is_none() {
            match sync_name(&dir) {
                // Then somebody else has made it.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                synced => synced?,
            }
        }
        let handle = File::open(&dir)?;
        Ok(DirDisk { dir, handle })
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn path(&self, name: &str) -> io::Result<PathBuf> {
        let plain = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0']);
        if !plain {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{name:?} is not a plain file name"),
            ));
        }
        Ok(self.dir.join(name))
    }
}

impl Disk for DirDisk {
    fn open(&self, name: &str, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.path(name)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(create)
            .truncate(false)
            .open(path)?;
        Ok(Arc::new(OpenFile(file)))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            // A name that is not UTF-8 is none of ours.
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from)?, self.path(to)?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name)?)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.handle.sync_all()
    }
}

#[derive(Debug)]
struct OpenFile(File);

impl DiskFile for OpenFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }

    fn write_vectored_at(&self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let mut parts = parts.to_vec();
        let mut left = &mut parts[..];
        let mut at = offset;
        // Empty parts at the front would make a call that writes nothing look like a full disk.
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            let some = &left[..left.len().min(MAX_PARTS)];
            match rustix::io::pwritev(&self.0, some, at) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    IoSlice::advance_slices(&mut left, written);
                    at += written as u64;
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TempDir;

    #[test]
    fn directories_are_made_as_deep_as_needed_and_found_again() {
        let dir = TempDir::new();
        let deep = dir.path().join("one/two/three");
        let absent: Vec<&Path> = deep.ancestors().take_while(|at| is_absent(at)).collect();
        assert_eq!(absent.len(), 3);
        for _ in 0..2 {
            DirDisk::open(&deep).unwrap();
        }
        assert!(!is_absent(&deep) && !is_absent(Path::new("")));
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(DirDisk::open(dir.path().join("file")).is_err());
    }

    #[test]
    fn files_come_and_go_under_plain_names_only() {
        let dir = TempDir::new();
        let disk = DirDisk::open(dir.path().join("deep/data")).unwrap();
        assert_eq!(disk.open("a", false).unwrap_err().kind(), io::ErrorKind::NotFound);
        let file = disk.open("b", true).unwrap();
        disk.open("a", true).unwrap();
        file.write_at(3, b"xyz").unwrap();
        assert_eq!(file.len().unwrap(), 6);
        assert_eq!(disk.list().unwrap(), ["a", "b"]);
        disk.rename("b", "a").unwrap();
        disk.sync_dir().unwrap();
        let mut read = [1; 6];
        disk.open("a", false).unwrap().read_at(0, &mut read).unwrap();
        assert_eq!(&read, b"\0\0\0xyz");
        let beyond = disk.open("a", false).unwrap().read_at(1, &mut read).unwrap_err();
        assert_eq!(beyond.kind(), io::ErrorKind::UnexpectedEof);
        for name in ["", ".", "..", "a/b", "/etc/passwd", "a\0"] {
            assert_eq!(
                disk.open(name, true).unwrap_err().kind(),
                io::ErrorKind::InvalidInput,
                "{name:?}"
            );
        }
        disk.remove("a").unwrap();
        assert!(disk.list().unwrap().is_empty());
    }

    #[test]
    fn a_vectored_write_of_many_and_empty_parts_is_one_piece() {
        let dir = TempDir::new();
        let file = DirDisk::open(dir.path()).unwrap().open("f", true).unwrap();
        let bytes: Vec<u8> = (0..5000_u32).map(|n| n as u8).collect();
        let mut parts = vec![IoSlice::new(&[])];
        for piece in bytes.chunks(2) {
            parts.push(IoSlice::new(piece));
            parts.push(IoSlice::new(&[]));
        }
        file.write_vectored_at(7, &parts).unwrap();
        let mut read = vec![0; bytes.len()];
        file.read_at(7, &mut read).unwrap();
        assert_eq!(read, bytes);
        assert_eq!(file.len().unwrap(), 5007);
    }
}
