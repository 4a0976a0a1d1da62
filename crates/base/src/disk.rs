//! A disk reduced to what the log and the store need: one flat directory of files with positional reads and
//! writes. Implemented by the real file system in `quorate` and by the simulated disk in `quorate-sim`, so that both run the
//! same log and store code.

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

/// Whether an error says that there is no room: the disk is full, or a quota is used up. Making room helps, so this is not a disk that
/// fails. A file that may not grow (`EFBIG`) is another matter: room elsewhere does not help it.
pub fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// One flat directory. Names are plain file names without separators.
///
/// All methods take `&self`: a disk is shared by the log, the store and the snapshot stager, each on files of its own.
pub trait Disk: Send + Sync + Debug + 'static {
    /// Opens `name` for reading and writing. With `create`, an absent file is made empty; without it, an absent file
    /// is [`io::ErrorKind::NotFound`].
    fn open(&self, name: &str, create: bool) -> io::Result<Arc<dyn DiskFile>>;

    /// The names of all files, sorted.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Renames `from` to `to`, replacing `to` atomically. Durable only after [`sync_dir`](Disk::sync_dir).
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes `name`. Durable only after [`sync_dir`](Disk::sync_dir).
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes creations, renames and removals durable.
    fn sync_dir(&self) -> io::Result<()>;
}

/// An open file. Dropping it closes it and syncs nothing.
pub trait DiskFile: Send + Sync + Debug + 'static {
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file is empty.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills `buf` from `offset`; [`io::ErrorKind::UnexpectedEof`] if the file ends before.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;

    /// Writes all of `data` at `offset`, growing the file if needed. Durable only after [`sync`](DiskFile::sync).
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Writes the parts one after the other from `offset` on, as one write: a process that is killed in the middle of it leaves whole
    /// sectors written or not, wherever the parts' borders are. The log never passes more than 1,024 parts, the limit of a system call.
    fn write_vectored_at(&self, offset: u64, parts: &[io::IoSlice<'_>]) -> io::Result<()> {
        let whole: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        self.write_at(offset, &whole)
    }

    /// Makes everything written so far durable (`fdatasync`). After an error nothing is known about what is durable,
    /// and the file must not be used any more.
    fn sync(&self) -> io::Result<()>;

    /// Cuts or extends (with zeros) the file to `len`.
    fn set_len(&self, len: u64) -> io::Result<()>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_room_is_told_from_other_failures() {
        use io::ErrorKind::{FileTooLarge, Other, QuotaExceeded, StorageFull, WriteZero};
        for kind in [StorageFull, QuotaExceeded] {
            assert!(is_full(&kind.into()), "{kind}");
            assert!(is_full(&io::Error::new(kind, "no room for the page")), "{kind}");
        }
        for kind in [FileTooLarge, WriteZero, Other] {
            assert!(!is_full(&kind.into()), "{kind}");
        }
    }
}
