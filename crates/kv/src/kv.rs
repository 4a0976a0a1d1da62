//! [`Kv`]: the state machine itself, its reads, and what it tells its driver. How commands change it stands in
//! `apply`, how it reads in `range`, where its rows are in `store`.

use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use quorate_base::{Disk, Index, Job, LogId, SnapshotReader, StateMachine};

use crate::apply::event;
use crate::command::{Applied, Command};
use crate::error::Error;
use crate::hash;
use crate::meta::Meta;
use crate::picture::Picture;
use crate::range::Reader;
use crate::row::{Changes, Granted, Leases};
use crate::snapshot;
use crate::store::Store;
use crate::types::{Alarm, Event, KeyValue, Lease, RangeRequest, RangeResponse, TxnRequest, TxnResponse};
use crate::view::ReadError;

/// How many rows a read may visit on the thread that applies: about a millisecond's worth.
const QUICK_ROWS: usize = 1_000;

/// Sizes that bound memory. The defaults suit a server.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes in the active table at which it is frozen and flushed.
    pub flush_bytes: usize,
    /// Bytes of commands applied since the last flush at which the next is due, however little they changed: so much of the log is kept
    /// for the store's sake, and applied again at the next start.
    pub log_bytes: usize,
    /// Bytes in memory, frozen table included, above which `StateMachine::backlog` says to slow down.
    pub backlog_bytes: usize,
    /// The store's page cache.
    pub cache_bytes: usize,
    /// How many revisions one background job compacts physically.
    pub compact_chunk: i64,
    /// Bytes of events kept for [`Kv::take_events`]; beyond, they are dropped and the next batch has a gap.
    pub event_bytes: usize,
    /// The store's file is written anew when it has grown by so much and is many times as long as what it holds.
    pub slack_bytes: u64,
}

impl Options {
    /// The defaults, but for the moments of flushing. Members apply the same at the same time: were they to flush at the same time too, no
    /// majority of logs would have its disk to itself meanwhile.
    pub fn of_member(id: u64) -> Options {
        const STEPS: u64 = 64;
        let options = Options::default();
        let less = options.flush_bytes as u64 * 3 / 8 * (id % STEPS) / STEPS;
        Options {
            flush_bytes: options.flush_bytes - less as usize,
            ..options
        }
    }
}

impl Default for Options {
    fn default() -> Options {
        Options {
            flush_bytes: 8 << 20,
            log_bytes: 64 << 20,
            backlog_bytes: 64 << 20,
            cache_bytes: 24 << 20,
            compact_chunk: 20_000,
            event_bytes: 32 << 20,
            slack_bytes: 64 << 20,
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
    /// Events are missing: the store was replaced by a snapshot, or batches were not taken in time. To be read from history.
    pub gap: bool,
    /// Whether the events carry the versions before. If not, watchers who want those read history.
    pub prev_kv: bool,
    /// The events, by revision and position within it.
    pub events: Vec<Arc<Event>>,
    /// Where the hub says what is wanted from the next batch on.
    pub(crate) wanted: Wanted,
}

/// Whether any watcher wants versions before: to find them costs every put a read of the store. Said by the hub, heard when changes are
/// applied. As long as no hub has spoken, they are wanted.
#[derive(Clone, Debug)]
pub(crate) struct Wanted(Arc<AtomicBool>);

impl Wanted {
    pub(crate) fn set(&self, wanted: bool) {
        self.0.store(wanted, Ordering::Relaxed);
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Default for Wanted {
    fn default() -> Wanted {
        Wanted(Arc::new(AtomicBool::new(true)))
    }
}

/// It is a way back, and says nothing about a batch.
impl PartialEq for Wanted {
    fn eq(&self, _: &Wanted) -> bool {
        true
    }
}

impl Eq for Wanted {}

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
    /// Whether the events carry the versions before.
    pub prev_kv: bool,
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
pub struct Kv {
    pub(crate) store: Store,
    pub(crate) meta: Meta,
    pending: Pending,
}

/// Events not yet taken.
#[derive(Debug)]
struct Pending {
    events: Vec<Arc<Event>>,
    bytes: usize,
    gap: bool,
    /// Whether they carry the versions before.
    prev_kv: bool,
    wanted: Wanted,
    /// Revision and compacted revision when they were last taken.
    told: (i64, i64),
}

impl Pending {
    fn after(meta: &Meta, gap: bool, wanted: Wanted) -> Pending {
        Pending {
            events: Vec::new(),
            bytes: 0,
            gap,
            prev_kv: wanted.get(),
            wanted,
            told: (meta.revision, meta.compacted),
        }
    }
}

impl Kv {
    /// Opens the store on `disk`, creating it if absent.
    ///
    /// # Errors
    /// Those of the disk; [`io::ErrorKind::InvalidData`] if the store is damaged or of an unknown format.
    pub fn open(disk: Arc<dyn Disk>, options: Options) -> io::Result<Kv> {
        Ok(Kv::over(Store::open(disk, options)?, false))
    }

    fn over(store: Store, gap: bool) -> Kv {
        let meta = store.flushed().meta.clone();
        let pending = Pending::after(&meta, gap, Wanted::default());
        Kv { store, meta, pending }
    }

    /// The store's revision; 1 when fresh.
    pub fn revision(&self) -> i64 {
        self.meta.revision
    }

    /// Reads at revisions below are refused. −1 before the first compaction.
    pub fn compacted_revision(&self) -> i64 {
        self.meta.compacted
    }

    /// Whether the space of everything compacted at `revision` has been freed. What is superseded *by* a change at the
    /// compacted revision itself goes with the next compaction.
    pub fn physically_compacted(&self, revision: i64) -> bool {
        self.store.flushed().scrubbed >= revision - 1
    }

    /// Reads a range, after checking the request.
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Error> {
        request.check()?;
        self.reader().range(request)
    }

    /// Reads a range, after checking the request, if that is quick; `None` if it has to look at many keys. Those reads belong on
    /// another thread, over a [`picture`](Kv::picture).
    pub fn quick_range(&self, request: &RangeRequest) -> Result<Option<RangeResponse>, Error> {
        request.check()?;
        self.reader().range_within(request, QUICK_ROWS)
    }

    /// Evaluates a read-only transaction, after checking the request.
    ///
    /// # Panics
    /// If it is not read-only.
    pub fn txn_read(&self, request: &TxnRequest) -> Result<TxnResponse, Error> {
        self.reader().txn_read(request)
    }

    /// The whole state as it is now, to be read on another thread while this one goes on.
    pub fn picture(&self) -> Picture {
        Picture {
            meta: self.meta.clone(),
            active: self.store.active.clone(),
            frozen: self.store.frozen.clone(),
            view: self.store.view.clone(),
        }
    }

    /// The hash of every version in force at some revision from the compacted one to `revision` (≤ 0: the latest). Reads everything:
    /// for audits, and better over a [`picture`](Kv::picture).
    pub fn hash_kv(&self, revision: i64) -> Result<HashKv, Error> {
        hash::hash_kv(self.reader(), revision)
    }

    /// The hash of the whole logical state: keys with history, leases, alarms, revisions, applied entry. Reads everything.
    pub fn hash(&self) -> Result<u32, Error> {
        hash::hash(self.reader(), &self.meta)
    }

    /// All leases, by id.
    pub fn leases(&self) -> Result<Vec<Lease>, Error> {
        let all = (Bound::Unbounded, Bound::Unbounded);
        let rows = self.store.layers().range::<Leases>(&all)?;
        rows.map(|row| {
            let row = row?;
            Ok(lease(row.key, row.value()?))
        })
        .collect()
    }

    /// One lease.
    pub fn lease(&self, id: i64) -> Result<Option<Lease>, Error> {
        let granted = self.store.layers().get::<Leases>(&id)?;
        Ok(granted.map(|granted| lease(id, granted)))
    }

    /// The keys attached to a lease, in order.
    pub fn lease_keys(&self, id: i64) -> Result<Vec<Bytes>, Error> {
        Ok(self.attached(id)?)
    }

    pub(crate) fn attached(&self, id: i64) -> Result<Vec<Bytes>, ReadError> {
        self.reader().attached(id)
    }

    /// The alarms that are on.
    pub fn alarms(&self) -> Vec<Alarm> {
        self.meta.alarms.iter().copied().collect()
    }

    /// Bytes on disk.
    pub fn size(&self) -> Size {
        let in_use = u64::try_from(self.store.flushed().stored).unwrap_or(0);
        Size {
            total: self.store.file_len().unwrap_or(in_use),
            in_use,
        }
    }

    /// Whether the last flush found the disk full. Nothing is lost; the flush is retried with the next job.
    pub fn space_low(&self) -> bool {
        self.store.space_low()
    }

    /// The events since the last call, for the watch hub; `None` if neither revision moved.
    pub fn take_events(&mut self) -> Option<Arc<EventBatch>> {
        if self.pending.told == (self.meta.revision, self.meta.compacted) && !self.pending.gap {
            return None;
        }
        let wanted = self.pending.wanted.clone();
        let pending = std::mem::replace(&mut self.pending, Pending::after(&self.meta, false, wanted));
        Some(Arc::new(EventBatch {
            revision: self.meta.revision,
            compacted: self.meta.compacted,
            gap: pending.gap,
            prev_kv: pending.prev_kv,
            events: pending.events,
            wanted: pending.wanted,
        }))
    }

    /// Whether events are to carry the versions before: the same for all of a batch.
    pub(crate) fn tells_previous(&self) -> bool {
        self.pending.prev_kv
    }

    /// Keeps an event for [`take_events`](Kv::take_events). If nobody takes them, memory stays bounded: then there is a gap.
    pub(crate) fn record_event(&mut self, event: Arc<Event>) {
        let pending = &mut self.pending;
        if pending.gap {
            return;
        }
        pending.bytes += event_bytes(&event);
        pending.events.push(event);
        if pending.bytes > self.store.options().event_bytes {
            pending.events.clear();
            pending.gap = true;
        }
    }

    /// Reads whole revisions from `from` on, until about `max_bytes` are found.
    pub fn history(&self, from: i64, max_bytes: usize, prev_kv: bool) -> Result<History, Error> {
        let reader = self.reader();
        let mut history = History {
            from: from.max(self.meta.compacted),
            through: self.meta.revision,
            revision: self.meta.revision,
            compacted: self.meta.compacted,
            prev_kv,
            events: Vec::new(),
        };
        let mut bytes = 0;
        let bounds = (Bound::Included((history.from, 0)), Bound::Unbounded);
        for row in self.store.layers().range::<Changes>(&bounds)? {
            let row = row?;
            let (main, sub) = row.key;
            let last = history.events.last().map(|event| event.kv.mod_revision);
            if bytes >= max_bytes && last.is_some_and(|last| last < main) {
                history.through = main - 1;
                break;
            }
            let change = row.value()?;
            // As with etcd, what creates a key replaces nothing, also if the same transaction deleted the key first.
            let creates = change.put.as_ref().is_some_and(|version| version.create == main);
            let before = match prev_kv && main > history.compacted && !creates {
                true => reader.before(&change, main)?,
                false => None,
            };
            let event = event(main, sub, change.key, change.put, before);
            bytes += event_bytes(&event);
            history.events.push(Arc::new(event));
        }
        Ok(history)
    }

    pub(crate) fn reader(&self) -> Reader<'_> {
        Reader {
            layers: self.store.layers(),
            latest: self.meta.revision,
            compacted: self.meta.compacted,
        }
    }
}

fn lease(id: i64, Granted { ttl, grant }: Granted) -> Lease {
    Lease { id, ttl, grant }
}

/// About how much memory an event takes.
pub(crate) fn event_bytes(event: &Event) -> usize {
    let bytes = |kv: &KeyValue| kv.key.len() + kv.value.len();
    128 + bytes(&event.kv) + event.prev_kv.as_ref().map_or(0, bytes)
}

impl StateMachine for Kv {
    type Output = Result<Applied, Error>;

    fn apply(&mut self, at: LogId, command: &Bytes) -> Self::Output {
        self.skip(at);
        let held = command.len();
        self.store.log_bytes += held;
        let command = Command::decode(command)?;
        match self.apply_command(at, &command, held) {
            // What this disk cannot read the others may have applied: going on would let the members diverge.
            Err(Error::Storage(why)) => {
                panic!("the store cannot be read, and nothing can be applied without it: {why}")
            }
            output => output,
        }
    }

    fn skip(&mut self, at: LogId) {
        let applied = self.meta.applied;
        assert!(
            at.index == applied.index.next() && at.term >= applied.term,
            "entry {at} does not follow {applied}"
        );
        self.meta.applied = at;
    }

    fn applied(&self) -> LogId {
        self.meta.applied
    }

    fn durable(&self) -> Index {
        self.store.durable()
    }

    fn job(&mut self, urgent: bool) -> Option<Job> {
        match self.store.job(&self.meta, urgent) {
            Ok(job) => job,
            // Reading the store just written failed: let the job's error end the process.
            Err(e) => Some(Box::new(move || Err(e))),
        }
    }

    fn backlog(&self) -> bool {
        self.store.pending_bytes() > self.store.options().backlog_bytes
    }

    fn snapshot(&self) -> io::Result<Box<dyn SnapshotReader>> {
        Ok(Box::new(snapshot::Stream::new(&self.store, &self.meta)))
    }

    fn restore(&mut self, at: LogId, source: &mut dyn io::Read) -> io::Result<()> {
        self.store.replace(|file| snapshot::receive(file, at, source))?;
        self.meta = self.store.flushed().meta.clone();
        self.pending = Pending::after(&self.meta, true, self.pending.wanted.clone());
        Ok(())
    }
}
