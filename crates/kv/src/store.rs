//! The store: redb under two memory tables. Opens and creates the file, freezes the active table, hands out jobs and takes
//! in what they did. What the rows mean is not known here.

use std::fmt;
use std::io;
use std::sync::{Arc, Weak};

use quorate_base::{Disk, Index, Job};
use redb::{Builder, Database, ReadableDatabase};

use crate::anew::{Anew, Waste};
use crate::backend::{Backend, damage_error};
use crate::checked::{self, Checked};
use crate::flush::{self, Flush, Frozen, Outcome, Shared, Writer, engine};
use crate::kv::Options;
use crate::meta::{self, Flushed, Format, Meta};
use crate::migrate;
use crate::row::{Attached, Changes, Keys, Leases};
use crate::table::Table;
use crate::view::{Layers, ReadError, View};
use crate::witness::Witness;

/// The store's file.
pub(crate) const FILE: &str = "store";
/// A store in the making, moved to [`FILE`] when whole; a left-over is removed at start.
pub(crate) const NEW_FILE: &str = "store.new";

/// An open database file.
#[derive(Clone)]
pub(crate) struct File {
    pub(crate) db: Arc<Database>,
    pub(crate) backend: Backend,
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("File")
    }
}

impl File {
    /// The store.
    pub(crate) fn open(disk: &dyn Disk, options: &Options) -> io::Result<File> {
        let file = disk.open(FILE, false)?;
        if file.is_empty()? {
            let text = format!(
                "{FILE} is empty, though it was written whole before it got its name: the disk lost it"
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let backend = Backend::new(Checked::open(FILE, file)?);
        File::over(backend, Builder::new().set_cache_size(options.cache_bytes))
    }

    /// The store of a release that had no checksums. The engine's own are all verified.
    pub(crate) fn open_plain(disk: &dyn Disk, options: &Options) -> io::Result<File> {
        let backend = Backend::plain(disk.open(FILE, false)?);
        let mut builder = Builder::new();
        builder
            .set_cache_size(options.cache_bytes)
            .set_check_integrity_on_open(true);
        File::over(backend, &builder)
    }

    fn over(backend: Backend, builder: &Builder) -> io::Result<File> {
        let db = builder.create_with_backend(backend.clone()).map_err(engine)?;
        let db = Arc::new(db);
        Ok(File { db, backend })
    }

    /// A fresh `store.new` with all tables, in which `fill` writes the rows and says what the state is.
    pub(crate) fn create(
        disk: &dyn Disk,
        options: &Options,
        fill: impl FnOnce(&File) -> io::Result<Flushed>,
    ) -> io::Result<()> {
        remove_if_there(disk, NEW_FILE)?;
        let generation = checked::generation(disk, FILE)? + 1;
        let file = Checked::create(NEW_FILE, disk.open(NEW_FILE, true)?, generation)?;
        let file = File::over(
            Backend::new(file),
            Builder::new().set_cache_size(options.cache_bytes),
        )?;
        let txn = flush::begin(&file.db)?;
        Writer::open::<Keys>(&txn)?;
        Writer::open::<Changes>(&txn)?;
        Writer::open::<Leases>(&txn)?;
        Writer::open::<Attached>(&txn)?;
        txn.commit().map_err(engine)?;
        let flushed = fill(&file)?;
        flush::commit(flush::begin(&file.db)?, &flushed)?;
        file.check_space()?;
        drop(file);
        // From here on "no room" is no excuse: which file has the name is not known any more, so nobody may go on with the old one.
        let placed = disk.rename(NEW_FILE, FILE).and_then(|()| disk.sync_dir());
        placed.map_err(|error| io::Error::other(format!("putting a new {FILE} in place: {error}")))
    }

    /// Whether all that was committed is on the disk, and not waiting in memory for room there.
    pub(crate) fn check_space(&self) -> io::Result<()> {
        if self.backend.is_deferred() {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                "the disk is too full for the snapshot",
            ));
        }
        Ok(())
    }

    /// The state that it holds, and in which format.
    pub(crate) fn state(&self) -> io::Result<(Format, Flushed)> {
        let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
        let txn = self.db.begin_read().map_err(engine)?;
        let table = txn.open_table(meta::TABLE).map_err(engine)?;
        let row = table.get(meta::KEY).map_err(engine)?;
        let row = row.ok_or_else(|| invalid(format!("{FILE} holds no state record")))?;
        Flushed::decode(row.value()).map_err(|e| invalid(format!("state record of {FILE}: {e}")))
    }
}

pub(crate) fn remove_if_there(disk: &dyn Disk, name: &str) -> io::Result<()> {
    if disk.list()?.iter().any(|file| file == name) {
        disk.remove(name)?;
        disk.sync_dir()?;
    }
    Ok(())
}

/// The store.
#[derive(Debug)]
pub(crate) struct Store {
    disk: Witness,
    options: Options,
    pub(crate) active: Table,
    /// Bytes of the commands that the active table is what is left of.
    pub(crate) log_bytes: usize,
    pub(crate) frozen: Option<Arc<Frozen>>,
    pub(crate) view: Arc<View>,
    file: File,
    flushed: Flushed,
    /// A frozen table that is on disk. To free its rows takes milliseconds, so a job does it.
    spent: Option<Arc<Frozen>>,
    shared: Arc<Shared>,
    /// A job was handed out and its outcome not yet taken in.
    running: bool,
    /// The last job found the disk full: the next question for a job is answered with none, or the driver, which asks after each
    /// finished job, would spin.
    pause: bool,
    /// Somebody waits for physical compaction.
    hurry: bool,
    waste: Waste,
    /// All views of the present file that may be in use.
    views: Vec<Weak<View>>,
    old: Vec<Old>,
}

/// A file that a fresh one replaced. It can be read until it is closed, and closing takes a while: a job does that when nobody
/// reads any more.
#[derive(Debug)]
struct Old {
    file: File,
    views: Vec<Weak<View>>,
}

impl Store {
    /// Opens the store, creating it if absent.
    pub(crate) fn open(disk: Arc<dyn Disk>, options: Options) -> io::Result<Store> {
        let disk = Witness::new(disk);
        remove_if_there(&disk, NEW_FILE)?;
        if !disk.list()?.iter().any(|file| file == FILE) {
            File::create(&disk, &options, |_| Ok(Flushed::default()))?;
        }
        if checked::is_plain(&disk, FILE)? {
            migrate::to_checked(&disk, &options)?;
            // The old file was closed just now.
            disk.check()?;
        }
        // A process that ended between a rename and the sync of it left a name that a crash may take back, and what the file says is durable from now on.
        disk.sync_dir()?;
        let file = File::open(&disk, &options)?;
        let (format, flushed) = file.state()?;
        assert_eq!(format, Format::Second, "no other format had checksums");
        let view = Arc::new(View::new(&file).map_err(io::Error::other)?);
        let shared = Arc::new(Shared::new(flushed.meta.applied.index));
        let mut store = Store {
            disk,
            options,
            active: Table::default(),
            frozen: None,
            view,
            file,
            flushed,
            spent: None,
            shared,
            running: false,
            pause: false,
            hurry: false,
            log_bytes: 0,
            waste: Waste::default(),
            views: Vec::new(),
            old: Vec::new(),
        };
        store.notice_waste()?;
        Ok(store)
    }

    fn notice_waste(&mut self) -> io::Result<()> {
        let live = u64::try_from(self.flushed.stored).unwrap_or(0);
        let total = self.file_len()?;
        self.waste.notice(total, live, self.options.slack_bytes);
        Ok(())
    }

    /// Replaces the whole store by one that `fill` writes. A job still running goes on with the old file, to no effect here.
    pub(crate) fn replace(&mut self, fill: impl FnOnce(&File) -> io::Result<Flushed>) -> io::Result<()> {
        {
            let mut replaced = self.shared.replaced();
            File::create(&self.disk, &self.options, fill)?;
            *replaced = true;
        }
        let disk = self.disk.clone();
        *self = Store::open(disk.disk(), self.options.clone())?;
        // The old file was closed just now.
        disk.check()
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    /// The state on disk.
    pub(crate) fn flushed(&self) -> &Flushed {
        &self.flushed
    }

    /// Everything, as one.
    pub(crate) fn layers(&self) -> Layers<'_> {
        Layers {
            active: &self.active,
            frozen: self.frozen.as_ref().map(|frozen| &frozen.table),
            view: &self.view,
        }
    }

    /// The last entry whose effects are on disk.
    pub(crate) fn durable(&self) -> Index {
        self.shared.durable()
    }

    /// Whether the last job found the disk full.
    pub(crate) fn space_low(&self) -> bool {
        self.shared.space_low()
    }

    /// Bytes waiting in memory.
    pub(crate) fn pending_bytes(&self) -> usize {
        self.active.bytes() + self.frozen.as_ref().map_or(0, |frozen| frozen.table.bytes())
    }

    /// The file's length.
    pub(crate) fn file_len(&self) -> io::Result<u64> {
        redb::StorageBackend::len(&self.file.backend)
    }

    /// Physical compaction shall begin with the next job.
    pub(crate) fn hurry(&mut self) {
        self.hurry = true;
    }

    /// The next job, given the present state: none while one runs.
    ///
    /// # Errors
    /// Those of the disk, and damage that a read has found: nobody is to go on with such a file.
    pub(crate) fn job(&mut self, meta: &Meta, urgent: bool) -> io::Result<Option<Job>> {
        for file in self.old.iter().map(|old| &old.file).chain([&self.file]) {
            if let Some(damage) = file.backend.damage().get() {
                return Err(damage_error(damage));
            }
        }
        self.take_in()?;
        if self.running || std::mem::take(&mut self.pause) {
            return Ok(None);
        }
        let (spent, unread) = (self.spent.take(), self.take_unread());
        if spent.is_some() || unread.is_some() {
            self.running = true;
            let (shared, disk) = (self.shared.clone(), self.disk.clone());
            return Ok(Some(Box::new(move || {
                drop((spent, unread));
                shared.tidied();
                disk.check()
            })));
        }
        let retry = self.frozen.is_some() || self.space_low();
        let anew = !retry && self.waste.is_due();
        if !retry {
            let unflushed = *meta != self.flushed.meta;
            let full =
                self.active.bytes() >= self.options.flush_bytes || self.log_bytes >= self.options.log_bytes;
            if full || (urgent || anew || std::mem::take(&mut self.hurry)) && unflushed {
                self.log_bytes = 0;
                self.frozen = Some(Arc::new(Frozen {
                    table: std::mem::take(&mut self.active),
                    meta: meta.clone(),
                }));
            } else if !anew && self.flushed.scrubbed >= self.flushed.scrub_target() {
                return Ok(None);
            }
        }
        self.running = true;
        let anew = anew.then(|| Anew {
            disk: Arc::new(self.disk.clone()),
            options: self.options.clone(),
            view: self.view.clone(),
        });
        let flush = Flush {
            db: self.file.db.clone(),
            backend: self.file.backend.clone(),
            shared: self.shared.clone(),
            frozen: self.frozen.clone(),
            before: self.flushed.clone(),
            scrub: self.options.compact_chunk,
            anew,
        };
        let disk = self.disk.clone();
        // If the store is replaced meanwhile, its old file is closed at the end of this.
        Ok(Some(Box::new(move || flush.run().and_then(|()| disk.check()))))
    }

    /// Takes in what a finished job did: the view moves on, the frozen table is on disk and goes.
    fn take_in(&mut self) -> io::Result<()> {
        match self.shared.take_outcome() {
            None => {}
            Some(Outcome::Tidied) => self.running = false,
            Some(Outcome::NoSpace) => {
                self.running = false;
                self.pause = true;
            }
            Some(Outcome::Flushed(flushed)) => {
                if self.waste.is_due() {
                    // There was no room for a fresh file.
                    self.waste.settle(self.file_len()?);
                }
                self.flushed_to(None, flushed)?;
            }
            Some(Outcome::Anew(file, flushed)) => {
                self.flushed_to(Some(file), flushed)?;
                self.waste.settle(self.file_len()?);
            }
        }
        Ok(())
    }

    /// A replaced file that nobody reads any more.
    fn take_unread(&mut self) -> Option<File> {
        let unread = |old: &Old| old.views.iter().all(|view| view.strong_count() == 0);
        let at = self.old.iter().position(unread)?;
        Some(self.old.remove(at).file)
    }

    /// The frozen table is on disk, perhaps in a fresh file.
    fn flushed_to(&mut self, file: Option<File>, flushed: Flushed) -> io::Result<()> {
        self.running = false;
        self.views.retain(|view| view.strong_count() > 0);
        self.views.push(Arc::downgrade(&self.view));
        if let Some(file) = file {
            let file = std::mem::replace(&mut self.file, file);
            let views = std::mem::take(&mut self.views);
            self.old.push(Old { file, views });
        }
        self.view = Arc::new(View::new(&self.file).map_err(io::Error::other)?);
        self.spent = self.frozen.take();
        self.flushed = flushed;
        self.notice_waste()
    }
}

/// A read in `apply` failed. Nothing that depends on the disk may influence the replicated state, so the process must end.
pub(crate) fn fatal<T>(result: Result<T, ReadError>) -> T {
    match result {
        Ok(value) => value,
        Err(e) => panic!("the store cannot be read, and nothing can be applied without it: {e}"),
    }
}
