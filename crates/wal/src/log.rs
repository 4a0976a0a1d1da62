//! The log itself: appending, upkeep and what is in it now.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use quorate_base::{Disk, Index};

use crate::error::DiskError;
use crate::{OpenError, ReadError, Record, WriteError};

/// How a log is kept. What has only one safe value is not here.
#[derive(Clone, Debug)]
pub struct Options {
    /// Names this log, for example a random number drawn when the data directory was made. Stored in every segment and
    /// part of every checksum: segments of another log are refused.
    pub identity: u64,
    /// Length of a segment file in bytes; rounded up to whole sectors. A batch that does not fit gets a longer one.
    pub segment_bytes: u32,
    /// Set when this directory is known to have held a log: an absent one is then [`OpenError::Missing`] instead of a fresh
    /// start.
    pub must_exist: bool,
}

impl Options {
    /// The defaults for the log named `identity`: segments of 16 MiB, fresh start allowed.
    pub fn new(identity: u64) -> Options {
        Options {
            identity,
            segment_bytes: 16 << 20,
            must_exist: false,
        }
    }
}

/// Whether the disk has room for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Nothing is known to be short.
    Ok,
    /// The disk is full: there is no spare segment, and the last attempt to make one failed. Appends go on in what is
    /// [reserved](Wal::reserved).
    Low,
}

/// A durable log on a [`Disk`], owned by one thread.
#[derive(Debug)]
pub struct Wal {}

fn unsupported() -> DiskError {
    DiskError::new("use", "wal")(io::Error::from(io::ErrorKind::Unsupported))
}

impl Wal {
    /// Opens the log on `disk`, or creates it. `visit` is given, in this order: the newest [`Record::Mark`] if there is
    /// one, the newest [`Record::State`] if there is one, and the entries that are in the log, in index order without gaps.
    /// (Truncations are already carried out.)
    pub fn open(
        _disk: Arc<dyn Disk>,
        _options: Options,
        _visit: &mut dyn FnMut(Record),
    ) -> Result<Wal, OpenError> {
        Err(unsupported().into())
    }

    /// Appends the batches and makes them durable: normally one write and one sync for all of them. Each batch is found after
    /// a crash as a whole or not at all, and only if all before it are. After an error the log accepts nothing more.
    ///
    /// # Panics
    /// If a record does not continue the log (see [`Record`]): a mistake of the caller.
    pub fn append(&mut self, _batches: &[Vec<Record>]) -> Result<(), WriteError> {
        Err(unsupported().into())
    }

    /// The bodies of the entries from `first` on, up to `last`, or fewer if `max_bytes` are reached; at least one.
    pub fn read(&self, _first: Index, _last: Index, _max_bytes: usize) -> Result<Vec<Bytes>, ReadError> {
        Err(unsupported().into())
    }

    /// Whether [`maintain`](Wal::maintain) has something to do.
    pub fn needs_maintenance(&self) -> bool {
        false
    }

    /// Does one small step of upkeep, for idle moments: a piece of the next segment, or the removal of an old one.
    pub fn maintain(&mut self) -> Result<Space, WriteError> {
        Err(unsupported().into())
    }

    /// The first index that is in the log (or will be, if it is empty).
    pub fn first_index(&self) -> Index {
        Index(1)
    }

    /// The last index in the log; `first_index - 1` if it is empty.
    pub fn last_index(&self) -> Index {
        Index(0)
    }

    /// Bytes that can still be appended without any new space on the disk.
    pub fn reserved(&self) -> u64 {
        0
    }
}
