//! Writing to disk: one [`Flush`] is one durable redb transaction that takes in a frozen table, if there is one, removes a
//! portion of compacted history, and records the applied entry with both. Runs as a job, off the apply path.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use quorate_base::Index;
use redb::{Database, ReadableTable, Table as DiskTable, WriteTransaction};

use crate::anew::Anew;
use crate::backend::Backend;
use crate::meta::{self, Flushed, Format, Meta};
use crate::row::{Attached, Changes, Keys, Leases, Row};
use crate::store::File;
use crate::table::Table;

/// A table that takes no more writes, and the state it leads to.
#[derive(Debug)]
pub(crate) struct Frozen {
    pub(crate) table: Table,
    pub(crate) meta: Meta,
}

/// What the running job and its store both see.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    durable: AtomicU64,
    space_low: AtomicBool,
    /// Set by the job at its end, taken by the store.
    outcome: Mutex<Option<Outcome>>,
    /// The transaction that completed in memory only and waits for space.
    waiting: Mutex<Option<Flushed>>,
    /// Another store has taken the place of the one that the job knows.
    replaced: Mutex<bool>,
}

/// How a job ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// On disk.
    Flushed(Flushed),
    /// On disk, and in this file now.
    Anew(File, Flushed),
    /// The disk is full; to be retried.
    NoSpace,
    /// It only freed what nobody needs any more.
    Tidied,
}

impl Shared {
    pub(crate) fn new(durable: Index) -> Shared {
        Shared {
            durable: AtomicU64::new(durable.get()),
            ..Shared::default()
        }
    }

    /// The last entry whose effects are on disk.
    pub(crate) fn durable(&self) -> Index {
        Index(self.durable.load(Ordering::Acquire))
    }

    /// Whether the last job found the disk full.
    pub(crate) fn space_low(&self) -> bool {
        self.space_low.load(Ordering::Acquire)
    }

    /// Whether the store was replaced. Nobody can while the guard is held.
    pub(crate) fn replaced(&self) -> MutexGuard<'_, bool> {
        lock(&self.replaced)
    }

    /// The job is done, and the state is on disk up to `durable`.
    pub(crate) fn conclude(&self, durable: Index, outcome: Outcome) {
        self.durable.store(durable.get(), Ordering::Release);
        *lock(&self.outcome) = Some(outcome);
    }

    /// The job is done, and nothing changed by it.
    pub(crate) fn tidied(&self) {
        *lock(&self.outcome) = Some(Outcome::Tidied);
    }

    /// The end of the job, once.
    pub(crate) fn take_outcome(&self) -> Option<Outcome> {
        lock(&self.outcome).take()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The work of one job.
pub(crate) struct Flush {
    pub(crate) db: Arc<Database>,
    pub(crate) backend: Backend,
    pub(crate) shared: Arc<Shared>,
    pub(crate) frozen: Option<Arc<Frozen>>,
    pub(crate) before: Flushed,
    /// How many revisions to scrub at most.
    pub(crate) scrub: i64,
    /// Into a fresh file, if there is room for one.
    pub(crate) anew: Option<Anew>,
}

impl Flush {
    /// Runs it. A full disk is no error; whatever else fails is final.
    pub(crate) fn run(self) -> io::Result<()> {
        self.try_run().map_err(|error| self.backend.explain(error))
    }

    fn try_run(&self) -> io::Result<()> {
        if let Some(anew) = &self.anew
            && self.write_anew(anew)?
        {
            return Ok(());
        }
        let waiting = lock(&self.shared.waiting).take();
        let flushed = match waiting {
            Some(flushed) => flushed,
            None => self.transact()?,
        };
        let on_disk = self.backend.drain()?;
        self.shared.space_low.store(!on_disk, Ordering::Release);
        if on_disk {
            let durable = flushed.meta.applied.index;
            self.shared.conclude(durable, Outcome::Flushed(flushed));
        } else {
            *lock(&self.shared.waiting) = Some(flushed);
            *lock(&self.shared.outcome) = Some(Outcome::NoSpace);
        }
        Ok(())
    }

    fn transact(&self) -> io::Result<Flushed> {
        let txn = begin(&self.db)?;
        let mut after = self.before.clone();
        if let Some(frozen) = &self.frozen {
            after.stored += write_table(&txn, &frozen.table)?;
            after.meta = frozen.meta.clone();
        }
        scrub(&txn, &mut after, self.scrub)?;
        commit(txn, &after)?;
        Ok(after)
    }
}

/// Begins a durable transaction after which a crash needs no repair.
pub(crate) fn begin(db: &Database) -> io::Result<WriteTransaction> {
    let mut txn = db.begin_write().map_err(engine)?;
    txn.set_quick_repair(true);
    Ok(txn)
}

/// Records the state and commits.
pub(crate) fn commit(txn: WriteTransaction, after: &Flushed) -> io::Result<()> {
    let mut table = txn.open_table(meta::TABLE).map_err(engine)?;
    table
        .insert(meta::KEY, after.encode(Format::Second).as_slice())
        .map_err(engine)?;
    drop(table);
    txn.commit().map_err(engine)
}

/// An error of the engine as one of I/O.
pub(crate) fn engine(error: impl Into<redb::Error>) -> io::Error {
    match error.into() {
        redb::Error::Io(e) => e,
        other => io::Error::other(other),
    }
}

/// A table of a transaction, with a count of the bytes it gains.
pub(crate) struct Writer<'txn> {
    table: DiskTable<'txn, &'static [u8], &'static [u8]>,
    key: Vec<u8>,
    value: Vec<u8>,
    pub(crate) gained: i64,
}

impl<'txn> Writer<'txn> {
    pub(crate) fn open<R: Row>(txn: &'txn WriteTransaction) -> io::Result<Writer<'txn>> {
        Ok(Writer {
            table: txn.open_table(R::TABLE).map_err(engine)?,
            key: Vec::new(),
            value: Vec::new(),
            gained: 0,
        })
    }

    /// Writes or removes a row.
    pub(crate) fn set<R: Row>(&mut self, key: &R::Key, value: Option<&R::Value>) -> io::Result<()> {
        self.key.clear();
        R::put_key(key, &mut self.key);
        let size = |value: usize| (self.key.len() + value) as i64;
        match value {
            Some(value) => {
                self.value.clear();
                R::put_value(value, &mut self.value);
                self.gained += size(self.value.len());
                let old = self
                    .table
                    .insert(self.key.as_slice(), self.value.as_slice())
                    .map_err(engine)?;
                self.gained -= old.map_or(0, |old| size(old.value().len()));
            }
            None => {
                let old = self.table.remove(self.key.as_slice()).map_err(engine)?;
                self.gained -= old.map_or(0, |old| size(old.value().len()));
            }
        }
        Ok(())
    }

    /// Writes a row already encoded, which is not there yet.
    pub(crate) fn put_raw(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.table.insert(key, value).map_err(engine)?;
        self.gained += (key.len() + value.len()) as i64;
        Ok(())
    }

    /// A row as it is now.
    pub(crate) fn get<R: Row>(&mut self, key: &R::Key) -> io::Result<Option<R::Value>> {
        self.key.clear();
        R::put_key(key, &mut self.key);
        let row = self.table.get(self.key.as_slice()).map_err(engine)?;
        row.map(|row| R::get_value(row.value()).map_err(io::Error::other))
            .transpose()
    }
}

/// Writes all rows of a table, in order; the bytes gained.
fn write_table(txn: &WriteTransaction, table: &Table) -> io::Result<i64> {
    Ok(write_rows::<Keys>(txn, table)?
        + write_rows::<Changes>(txn, table)?
        + write_rows::<Leases>(txn, table)?
        + write_rows::<Attached>(txn, table)?)
}

fn write_rows<R: Row>(txn: &WriteTransaction, table: &Table) -> io::Result<i64> {
    let mut writer = Writer::open::<R>(txn)?;
    for (key, value) in R::layer(table) {
        writer.set::<R>(key, value.as_ref())?;
    }
    Ok(writer.gained)
}

/// Removes what the changes of the next revisions made garbage: of each key changed, the change before, and of deletions
/// themselves all trace. Readers at uncompacted revisions never look at either.
fn scrub(txn: &WriteTransaction, after: &mut Flushed, revisions: i64) -> io::Result<()> {
    let target = after.scrub_target().min(after.scrubbed.saturating_add(revisions));
    if target <= after.scrubbed {
        return Ok(());
    }
    let mut keys = Writer::open::<Keys>(txn)?;
    let mut changes = Writer::open::<Changes>(txn)?;
    let mut garbage = Vec::new();
    let mut deleted = Vec::new();
    let (mut from, mut to) = (Vec::new(), Vec::new());
    Changes::put_key(&(after.scrubbed + 1, 0), &mut from);
    Changes::put_key(&(target + 1, 0), &mut to);
    for row in changes
        .table
        .range(from.as_slice()..to.as_slice())
        .map_err(engine)?
    {
        let (at, change) = row.map_err(engine)?;
        let at = Changes::get_key(at.value()).map_err(io::Error::other)?;
        let change = Changes::get_value(change.value()).map_err(io::Error::other)?;
        garbage.extend(change.links.before);
        if change.put.is_none() {
            garbage.push(at);
            deleted.push((change.key, at));
        }
    }
    // In the order of the table; what an earlier compaction took is not there, and two may name the same.
    garbage.sort_unstable();
    for at in garbage {
        changes.set::<Changes>(&at, None)?;
    }
    deleted.sort_unstable();
    for (key, at) in deleted {
        if keys.get::<Keys>(&key)?.is_some_and(|latest| latest.at == at) {
            keys.set::<Keys>(&key, None)?;
        }
    }
    after.stored += keys.gained + changes.gained;
    after.scrubbed = target;
    Ok(())
}
