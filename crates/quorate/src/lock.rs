//! The `LOCK` file, which keeps a second process out of a data directory. An advisory lock of the system, so it ends with the
//! process, however that ends; the file itself stays.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use crate::error::StartError;

const NAME: &str = "LOCK";

/// Holds the lock until dropped.
#[derive(Debug)]
pub(crate) struct DirLock {
    _file: File,
}

impl DirLock {
    /// Takes the lock on `dir` or says who has it.
    pub(crate) fn take(dir: &Path) -> Result<DirLock, StartError> {
        let path = dir.join(NAME);
        let failed = || format!("lock {}", path.display());
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(StartError::io(failed()))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(StartError::Locked {
                    dir: dir.to_owned(),
                    holder: holder(&mut file),
                });
            }
            Err(error) => return Err(StartError::io(failed())(error.into())),
        }
        // The lock counts, not the file's text: a full disk, say, does not keep a node from starting.
        if let Err(error) = write_pid(&mut file) {
            tracing::warn!(%error, path = %path.display(), "cannot note in the lock file who holds it");
        }
        Ok(DirLock { _file: file })
    }
}

/// Only a courtesy to the reader of an error, so it is not synced.
fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let _ = file.take(32).read_to_string(&mut text);
    match text.trim().parse::<u32>() {
        Ok(pid) if pid == std::process::id() => format!("this process ({pid})"),
        Ok(pid) => format!("process {pid}"),
        Err(_) => "another process".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TempDir;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_lock_file_that_cannot_be_written_locks_all_the_same() {
        let dir = TempDir::new();
        std::os::unix::fs::symlink("/dev/full", dir.path().join(NAME)).unwrap();
        let _lock = DirLock::take(dir.path()).unwrap();
        let second = DirLock::take(dir.path());
        assert!(matches!(second, Err(StartError::Locked { .. })), "{second:?}");
    }

    #[test]
    fn a_second_taker_hears_who_holds_it_until_it_is_dropped() {
        let dir = TempDir::new();
        let lock = DirLock::take(dir.path()).unwrap();
        let error = DirLock::take(dir.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("({})", std::process::id())), "{error}");
        drop(lock);
        DirLock::take(dir.path()).unwrap();
    }
}
