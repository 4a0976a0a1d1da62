//! The `refused` file: a peer knew this data directory better than it knows itself, and refused it for good. It stays refused: a supervisor that
//! starts the node again and again would otherwise count starts until its peers cannot compare them any more.
//!
//! The file holds the incarnation it speaks of, and the reason: a new cluster made out of this directory starts without it. Its room is taken
//! in advance, as `refused.new`, for starts are counted on a full disk too.

use std::io;
use std::path::Path;

use quorate_base::Disk;

use crate::error::StartError;

const NAME: &str = "refused";
const STAGING: &str = "refused.new";
/// Its length. Behind the text there are zeros.
const LEN: usize = 4096;

/// Takes the room for the note, if it was not taken at an earlier start.
pub(crate) fn reserve(disk: &dyn Disk) -> io::Result<()> {
    let file = disk.open(STAGING, true)?;
    if file.len()? < LEN as u64 {
        file.write_at(0, &[0; LEN])?;
        file.sync()?;
        disk.sync_dir()?;
    }
    Ok(())
}

/// Notes that this incarnation was refused.
pub(crate) fn note(disk: &dyn Disk, incarnation: u64, why: &str) -> io::Result<()> {
    let file = disk.open(STAGING, true)?;
    let mut text = format!("{incarnation:016x}\n{why}\n").into_bytes();
    text.resize(LEN, 0);
    file.write_at(0, &text)?;
    file.sync()?;
    disk.rename(STAGING, NAME)?;
    disk.sync_dir()
}

/// Whether this incarnation may start as far as is noted here.
pub(crate) fn check(disk: &dyn Disk, dir: &Path, incarnation: u64) -> Result<(), StartError> {
    let failed = || StartError::io(format!("read {}", dir.join(NAME).display()));
    let file = match disk.open(NAME, false) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed()(error)),
    };
    let len = file.len().map_err(failed())?.min(LEN as u64) as usize;
    let mut text = vec![0; len];
    file.read_at(0, &mut text).map_err(failed())?;
    let text = String::from_utf8_lossy(&text);
    let text = text.trim_end_matches('\0');
    match text.split_once('\n') {
        Some((other, _)) if u64::from_str_radix(other, 16).is_ok_and(|other| other != incarnation) => Ok(()),
        // Whatever else stands there: a file of this name says no.
        split => Err(StartError::Refused {
            file: dir.join(NAME),
            why: split.map_or(text, |(_, why)| why).trim().to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use quorate_base::DiskFile;

    use super::*;
    use crate::disk::DirDisk;
    use crate::testing::TempDir;

    /// A disk on which no file gets any longer.
    #[derive(Debug)]
    struct Full(DirDisk);

    #[derive(Debug)]
    struct FullFile(Arc<dyn DiskFile>);

    impl Disk for Full {
        fn open(&self, name: &str, create: bool) -> io::Result<Arc<dyn DiskFile>> {
            assert!(
                !create || self.0.open(name, false).is_ok(),
                "there is no room for {name}"
            );
            Ok(Arc::new(FullFile(self.0.open(name, false)?)))
        }
        fn list(&self) -> io::Result<Vec<String>> {
            self.0.list()
        }
        fn rename(&self, from: &str, to: &str) -> io::Result<()> {
            self.0.rename(from, to)
        }
        fn remove(&self, name: &str) -> io::Result<()> {
            self.0.remove(name)
        }
        fn sync_dir(&self) -> io::Result<()> {
            self.0.sync_dir()
        }
    }

    impl DiskFile for FullFile {
        fn len(&self) -> io::Result<u64> {
            self.0.len()
        }
        fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
            self.0.read_at(offset, buf)
        }
        fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            assert!(offset + data.len() as u64 <= self.0.len()?, "there is no room");
            self.0.write_at(offset, data)
        }
        fn sync(&self) -> io::Result<()> {
            self.0.sync()
        }
        fn set_len(&self, _: u64) -> io::Result<()> {
            panic!("what was cut off might not be had again")
        }
    }

    /// Starts are counted on a full disk. So each of them must be able to end with the note, or their number runs past what peers remember.
    #[test]
    fn a_refusal_is_noted_on_a_full_disk() {
        let dir = TempDir::new();
        let disk = DirDisk::open(dir.path()).unwrap();
        reserve(&disk).unwrap();
        check(&disk, dir.path(), 7).unwrap();
        let full = Full(disk);
        reserve(&full).unwrap();
        let long = "it was wiped. ".repeat(1000);
        note(&full, 7, &long).unwrap();
        let error = check(&full, dir.path(), 7).unwrap_err().to_string();
        assert!(error.contains("it was wiped") && !error.contains('\0'), "{error}");
        check(&full, dir.path(), 8).unwrap();
    }

    #[test]
    fn a_refusal_holds_for_its_incarnation_until_the_file_is_removed() {
        let dir = TempDir::new();
        let disk = DirDisk::open(dir.path()).unwrap();
        check(&disk, dir.path(), 7).unwrap();
        note(&disk, 7, "it was wiped").unwrap();
        let error = check(&disk, dir.path(), 7).unwrap_err().to_string();
        assert!(error.contains("it was wiped"), "{error}");
        check(&disk, dir.path(), 8).unwrap();
        std::fs::write(dir.path().join(NAME), "garbage").unwrap();
        assert!(check(&disk, dir.path(), 8).is_err());
        std::fs::remove_file(dir.path().join(NAME)).unwrap();
        check(&disk, dir.path(), 7).unwrap();
    }
}
