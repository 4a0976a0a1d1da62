//! What can go wrong, one type per operation, and how it is worded. Nothing here decides anything.

use std::io;

use quorate_base::Index;
use quorate_base::disk::is_full;
use thiserror::Error;

/// What to do about a log that must not be used; part of the messages below.
const REMEDY: &str = "acknowledged entries may be lost, so this member must not start with this log: let it rejoin \
                      the cluster as a new member with an empty data directory, never empty under its old identity";

/// A place in the log that does not hold what was once made durable there.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{file} is damaged at offset {offset}: {why}{}; {REMEDY}", .index.map(|i| format!(" (first index in doubt: {i})")).unwrap_or_default())]
pub struct Damage {
    /// The segment's file name.
    pub file: String,
    /// Byte offset in the file.
    pub offset: u64,
    /// The first index that may be lost, if known.
    pub index: Option<Index>,
    /// What is wrong.
    pub why: String,
}

/// A failed call of the disk.
#[derive(Debug, Error)]
#[error("cannot {what} {file}: {source}")]
pub struct DiskError {
    /// What was tried, as a verb.
    pub what: &'static str,
    /// The file's name.
    pub file: String,
    /// The disk's answer.
    pub source: io::Error,
}

impl DiskError {
    pub(crate) fn new(what: &'static str, file: &str) -> impl FnOnce(io::Error) -> DiskError {
        let file = file.to_owned();
        move |source| DiskError { what, file, source }
    }

    /// Whether the disk (or a quota) is full.
    pub fn is_full(&self) -> bool {
        is_full(&self.source)
    }
}

/// Why a log was not opened. Except for [`Disk`](OpenError::Disk), trying again cannot help.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The disk failed.
    #[error("the log cannot be opened: {0}")]
    Disk(#[from] DiskError),
    /// The log does not hold what was made durable.
    #[error("the log cannot be opened: {0}")]
    Damaged(#[from] Damage),
    /// A segment between two others is not there.
    #[error("the log cannot be opened: segment {file} is missing between others; {REMEDY}")]
    MissingSegment {
        /// The missing file.
        file: String,
    },
    /// There is no log although [`Options::must_exist`](crate::Options::must_exist) was set.
    #[error("the log cannot be opened: there is no segment at all; {REMEDY}")]
    Missing,
    /// A segment belongs to another log.
    #[error(
        "the log cannot be opened: {file} belongs to another log (identity {found:016x}, expected {expected:016x})"
    )]
    Foreign {
        /// The file.
        file: String,
        /// The identity in its header.
        found: u64,
        /// The identity asked for.
        expected: u64,
    },
    /// A segment was written in a format this program does not know.
    #[error(
        "the log cannot be opened: {file} has format version {found}, this program reads version {supported}"
    )]
    Version {
        /// The file.
        file: String,
        /// The version in its header.
        found: u32,
        /// The version supported.
        supported: u32,
    },
}

/// Why an append or the upkeep failed. Final: the log accepts nothing more.
#[derive(Debug, Error)]
pub enum WriteError {
    /// The disk failed. What was to be written may or may not be durable.
    #[error("the log cannot be written: {0}")]
    Disk(#[from] DiskError),
    /// An earlier call failed.
    #[error("the log is closed for writing since an earlier failure: {0}")]
    Closed(String),
}

impl WriteError {
    /// Whether the disk (or a quota) is full.
    pub fn is_full(&self) -> bool {
        matches!(self, WriteError::Disk(error) if error.is_full())
    }
}

/// Why entries were not read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The disk failed.
    #[error("the log cannot be read: {0}")]
    Disk(#[from] DiskError),
    /// An entry's bytes are not those written.
    #[error("the log cannot be read: {0}")]
    Damaged(#[from] Damage),
    /// The entry was forgotten.
    #[error("entry {asked} is compacted; the log starts at {first}")]
    Compacted {
        /// The index asked for.
        asked: Index,
        /// The first index that is there (or would be next).
        first: Index,
    },
    /// The entry was never written, or the range is empty.
    #[error("entry {asked} is not in the log, which ends at {last}")]
    Absent {
        /// The index asked for.
        asked: Index,
        /// The last index that is there.
        last: Index,
    },
}
