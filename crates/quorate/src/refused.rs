//! The `refused` file: a peer knew this data directory better than it knows itself, and refused it for good. It stays refused: a supervisor that
//! starts the node again and again would otherwise count starts until its peers cannot compare them any more.
//!
//! The file holds the incarnation it speaks of, and the reason: a new cluster made out of this directory starts without it.

use std::io;
use std::path::Path;

use quorate_base::Disk;

use crate::error::StartError;

const NAME: &str = "refused";
const STAGING: &str = "refused.new";
/// The longest reason kept.
const MAX_LEN: u64 = 4096;

/// Notes that this incarnation was refused.
pub(crate) fn note(disk: &dyn Disk, incarnation: u64, why: &str) -> io::Result<()> {
    let file = disk.open(STAGING, true)?;
    file.set_len(0)?;
    file.write_at(0, format!("{incarnation:016x}\n{why}\n").as_bytes())?;
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
    let len = file.len().map_err(failed())?.min(MAX_LEN) as usize;
    let mut text = vec![0; len];
    file.read_at(0, &mut text).map_err(failed())?;
    let text = String::from_utf8_lossy(&text);
    match text.split_once('\n') {
        Some((other, _)) if u64::from_str_radix(other, 16).is_ok_and(|other| other != incarnation) => Ok(()),
        // Whatever else stands there: a file of this name says no.
        split => Err(StartError::Refused {
            file: dir.join(NAME),
            why: split.map_or(&*text, |(_, why)| why).trim().to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::DirDisk;
    use crate::testing::TempDir;

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
