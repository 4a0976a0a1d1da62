//! [`Kv`]: the state machine itself.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use quorate_base::{Disk, Index, Job, LogId, SnapshotReader, StateMachine};

use crate::command::Applied;
use crate::error::Error;
use crate::types::{Alarm, Event, Lease, RangeRequest, RangeResponse, TxnRequest, TxnResponse};

/// Sizes that bound memory. The defaults suit a server.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes in the active table at which it is frozen and flushed.
    pub flush_bytes: usize,
    /// Bytes in memory, frozen table included, above which [`Kv::backlog`] says to slow down.
    pub backlog_bytes: usize,
    /// The store's page cache.
    pub cache_bytes: usize,
    /// How many revisions one background job compacts physically.
    pub compact_chunk: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            flush_bytes: 8 << 20,
            backlog_bytes: 64 << 20,
            cache_bytes: 64 << 20,
            compact_chunk: 20_000,
        }
    }
}

/// The changes of one batch of applied commands, in order; shared by all watchers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventBatch {
    /// The store's revision after the batch.
    pub revision: i64,
    /// The compacted revision after the batch.
    pub compacted: i64,
    /// The events, by revision and position within it.
    pub events: Vec<Arc<Event>>,
}

/// A stretch of history, read for watchers that are behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// The first revision asked for.
    pub from: i64,
    /// The last revision covered: whole revisions only.
    pub through: i64,
    /// The store's revision when it was read.
    pub revision: i64,
    /// The compacted revision when it was read. If above `from`, `from` was raised to it and watchers before it are lost.
    pub compacted: i64,
    /// The events of `from..=through`.
    pub events: Vec<Arc<Event>>,
}

/// The answer to a `HashKV`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKv {
    /// CRC32C over every version that is in force at some revision from the compacted one to the one asked for.
    pub hash: u32,
    /// The compacted revision.
    pub compact_revision: i64,
    /// The revision up to which was hashed.
    pub hash_revision: i64,
}

/// Bytes on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// The store's file.
    pub total: u64,
    /// What of it holds data.
    pub in_use: u64,
}

/// The key-value state machine.
#[derive(Debug)]
pub struct Kv {}

#[allow(unused_variables)]
impl Kv {
    /// Opens the store on `disk`, creating it if absent.
    pub fn open(disk: Arc<dyn Disk>, options: Options) -> io::Result<Kv> {
        unimplemented!("published for its signature")
    }

    /// The store's revision; 1 when fresh.
    pub fn revision(&self) -> i64 {
        unimplemented!("published for its signature")
    }

    /// Reads at revisions below are refused. 0 before the first compaction.
    pub fn compacted_revision(&self) -> i64 {
        unimplemented!("published for its signature")
    }

    /// Whether the space of everything compacted at `revision` has been freed.
    pub fn physically_compacted(&self, revision: i64) -> bool {
        unimplemented!("published for its signature")
    }

    /// Reads a range, after checking the request.
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Error> {
        unimplemented!("published for its signature")
    }

    /// Evaluates a read-only transaction, after checking the request.
    pub fn txn_read(&self, request: &TxnRequest) -> Result<TxnResponse, Error> {
        unimplemented!("published for its signature")
    }

    /// All leases, by id.
    pub fn leases(&self) -> Result<Vec<Lease>, Error> {
        unimplemented!("published for its signature")
    }

    /// One lease.
    pub fn lease(&self, id: i64) -> Result<Option<Lease>, Error> {
        unimplemented!("published for its signature")
    }

    /// The keys attached to a lease, in order.
    pub fn lease_keys(&self, id: i64) -> Result<Vec<Bytes>, Error> {
        unimplemented!("published for its signature")
    }

    /// The alarms that are on.
    pub fn alarms(&self) -> Vec<Alarm> {
        unimplemented!("published for its signature")
    }

    /// The hash of the logical key space up to `revision` (≤ 0: the latest).
    pub fn hash_kv(&self, revision: i64) -> Result<HashKv, Error> {
        unimplemented!("published for its signature")
    }

    /// The hash of the whole logical state: keys with history, leases, alarms, revisions, applied entry.
    pub fn hash(&self) -> Result<u32, Error> {
        unimplemented!("published for its signature")
    }

    /// Bytes on disk.
    pub fn size(&self) -> Size {
        unimplemented!("published for its signature")
    }

    /// Whether so much is waiting in memory for the disk that proposals should be slowed down.
    pub fn backlog(&self) -> bool {
        unimplemented!("published for its signature")
    }

    /// Whether the last flush found the disk full. Nothing is lost; the flush is retried with the next job.
    pub fn space_low(&self) -> bool {
        unimplemented!("published for its signature")
    }

    /// The events since the last call, for the watch hub; `None` if neither revision moved.
    pub fn take_events(&mut self) -> Option<Arc<EventBatch>> {
        unimplemented!("published for its signature")
    }

    /// Reads whole revisions from `from` on, until about `max_bytes` are found.
    pub fn history(&self, from: i64, max_bytes: usize, prev_kv: bool) -> Result<History, Error> {
        unimplemented!("published for its signature")
    }
}

#[allow(unused_variables)]
impl StateMachine for Kv {
    type Output = Result<Applied, Error>;

    fn apply(&mut self, at: LogId, command: &Bytes) -> Self::Output {
        unimplemented!("published for its signature")
    }

    fn skip(&mut self, at: LogId) {
        unimplemented!("published for its signature")
    }

    fn applied(&self) -> LogId {
        unimplemented!("published for its signature")
    }

    fn durable(&self) -> Index {
        unimplemented!("published for its signature")
    }

    fn job(&mut self, urgent: bool) -> Option<Job> {
        unimplemented!("published for its signature")
    }

    fn snapshot(&self) -> io::Result<Box<dyn SnapshotReader>> {
        unimplemented!("published for its signature")
    }

    fn restore(&mut self, at: LogId, source: &mut dyn io::Read) -> io::Result<()> {
        unimplemented!("published for its signature")
    }
}
