//! The easy way in: [`Checkpointed`] makes a durable [`StateMachine`] of any [`State`] that fits in memory. It keeps the state in memory,
//! saves it whole to the node's disk now and then, and lets the log bring back what came after. Whoever has a
//! storage engine of his own implements [`StateMachine`] instead. The file's bytes are in `file`.

mod file;

use std::io;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use quorate_base::disk::is_full;
use quorate_base::{Disk, Index, Job, LogId, SnapshotReader, StateMachine};

/// Bytes of commands between two checkpoints, unless the state is larger than that.
const EVERY: u64 = 16 << 20;

/// What an entry costs at a restart besides its command: it is read, checked and decoded.
const ENTRY_COST: u64 = 64;

/// What [`State::freeze`] hands out: called once, on another thread, it gives the bytes of the state as it was.
pub type Frozen = Box<dyn FnOnce() -> Vec<u8> + Send>;

/// A deterministic state in memory: the same commands in the same order give the same state and the same outputs on every node.
///
/// Nothing but the commands may have an influence: no clock, no randomness, no file, no iteration over a `HashMap`. What a command
/// needs of these, its proposer puts into it. An error of the application is an output like any other; a panic ends the node, and
/// ends it again at every restart, since the command is in the log.
pub trait State: Send + 'static {
    /// What applying one command answers, at the member where it was proposed.
    type Output: Send + 'static;

    /// Applies the command of the entry `at`. No two entries share an index, and later ones have larger indexes: that makes it a good
    /// source of unique numbers.
    fn apply(&mut self, at: LogId, command: &Bytes) -> Self::Output;

    /// The whole state as bytes. Equal states should give equal bytes.
    fn save(&self) -> Vec<u8>;

    /// Replaces the whole state by what [`save`](State::save) gave, here or on another node.
    ///
    /// # Errors
    /// If these are no such bytes. The node then stops: its state cannot be told any more.
    fn load(&mut self, saved: &[u8]) -> io::Result<()>;

    /// The state as it is now, to be turned into bytes on another thread while this one goes on.
    ///
    /// By default everything is saved at once, and the node stands still meanwhile: about a millisecond for each megabyte, at every
    /// checkpoint and for every snapshot that a lagging member needs. A state that is cheap to clone (behind an [`Arc`], or in
    /// persistent collections) overrides this: clone here, save in the closure.
    fn freeze(&self) -> Frozen {
        let saved = self.save();
        Box::new(move || saved)
    }

    /// Every member understands what this feature level means, so commands of the forms that came with it may be proposed; see
    /// [`StateMachine::level`]. What `apply` does must not depend on it.
    fn level(&mut self, level: u32) {
        let _ = level;
    }

    /// Called after each run of commands: the moment to tell others what has changed.
    fn batch_applied(&mut self) {}
}

/// What the job on the flusher's thread reports.
#[derive(Debug, Default)]
struct Progress {
    durable: AtomicU64,
    /// Bytes of the last checkpoint.
    size: AtomicU64,
    /// The last one did not fit on the disk.
    no_room: AtomicBool,
}

/// A [`StateMachine`] that keeps a [`State`] in memory and saves it whole, in the file `checkpoint` of its disk.
///
/// A checkpoint is made after 16 MiB of commands ([`every`](Checkpointed::every)) or after as many bytes of commands as the last one
/// was long, whichever is more; and at a shutdown in order. So writing them at most doubles what goes to the disk, and a
/// restart applies at most that much again. It is written beside the old one, synced, and put in its place by a rename: it is
/// there as a whole, state and applied index under one checksum, or not at all.
///
/// It dereferences to the state, so a read is `handle.read(|machine| machine.total)`.
#[derive(Debug)]
pub struct Checkpointed<S> {
    state: S,
    disk: Arc<dyn Disk>,
    applied: LogId,
    /// What was applied since the last checkpoint was begun, in bytes.
    since: u64,
    every: u64,
    progress: Arc<Progress>,
}

impl<S: State> Checkpointed<S> {
    /// Opens the state on `disk`: as the last checkpoint has it, or `initial`, which must be the same on all nodes.
    ///
    /// ```no_run
    /// # use quorate::{Checkpointed, State};
    /// # async fn open<Counter: State + Default>(config: quorate::Config) -> Result<(), quorate::StartError> {
    /// let (node, running) = quorate::start(config, |disk| Checkpointed::open(disk, Counter::default())).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If the disk fails, or the checkpoint is damaged: then nothing is dropped in silence, and the error says what to do.
    pub fn open(disk: Arc<dyn Disk>, initial: S) -> io::Result<Checkpointed<S>> {
        let mut machine = Checkpointed {
            state: initial,
            disk,
            applied: LogId::ZERO,
            since: 0,
            every: EVERY,
            progress: Arc::default(),
        };
        if let Some((at, body)) = file::read(&*machine.disk)? {
            machine.state.load(&body)?;
            machine.applied = at;
            machine.progress.durable.store(at.index.0, Ordering::SeqCst);
            machine.progress.size.store(body.len() as u64, Ordering::SeqCst);
        }
        Ok(machine)
    }

    /// Makes a checkpoint after so many bytes of commands.
    pub fn every(self, bytes: u64) -> Checkpointed<S> {
        Checkpointed { every: bytes, ..self }
    }

    /// The state. The same as dereferencing.
    pub fn state(&self) -> &S {
        &self.state
    }

    fn advance(&mut self, at: LogId, bytes: usize) {
        self.applied = at;
        self.since += bytes as u64 + ENTRY_COST;
    }

    /// Whether a checkpoint is to be made now. After one that did not fit, the next is not tried before as much again was applied,
    /// however urgent: the log has all there is, and trying costs as much as succeeding.
    fn is_due(&self, urgent: bool) -> bool {
        let size = self.progress.size.load(Ordering::SeqCst);
        let urgent = urgent && !self.progress.no_room.load(Ordering::SeqCst);
        self.applied.index > self.durable() && (urgent || self.since >= self.every.max(size))
    }
}

impl<S> Deref for Checkpointed<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.state
    }
}

impl<S: State> StateMachine for Checkpointed<S> {
    type Output = S::Output;

    fn apply(&mut self, at: LogId, command: &Bytes) -> S::Output {
        self.advance(at, command.len());
        self.state.apply(at, command)
    }

    fn skip(&mut self, at: LogId) {
        self.advance(at, 0);
    }

    /// Never because many entries wait: a checkpoint costs as much as the whole state, and is made when as much was applied.
    fn hurry_after(&self) -> u64 {
        u64::MAX
    }

    fn level(&mut self, level: u32) {
        self.state.level(level);
    }

    fn batch_applied(&mut self) {
        self.state.batch_applied();
    }

    fn applied(&self) -> LogId {
        self.applied
    }

    fn durable(&self) -> Index {
        Index(self.progress.durable.load(Ordering::SeqCst))
    }

    fn job(&mut self, urgent: bool) -> Option<Job> {
        if !self.is_due(urgent) {
            return None;
        }
        self.since = 0;
        let (at, frozen) = (self.applied, self.state.freeze());
        let (disk, progress) = (self.disk.clone(), self.progress.clone());
        Some(Box::new(move || {
            let body = frozen();
            let written = file::write(&*disk, at, &body);
            let no_room = matches!(&written, Err(error) if is_full(error));
            progress.no_room.store(no_room, Ordering::SeqCst);
            if no_room {
                return file::give_up(&*disk);
            }
            written?;
            progress.size.store(body.len() as u64, Ordering::SeqCst);
            progress.durable.store(at.index.0, Ordering::SeqCst);
            Ok(())
        }))
    }

    fn snapshot(&self) -> io::Result<Box<dyn SnapshotReader>> {
        Ok(Box::new(Reader::Frozen(Some(self.state.freeze()))))
    }

    fn restore(&mut self, at: LogId, source: &mut dyn io::Read) -> io::Result<()> {
        let mut body = Vec::new();
        source.read_to_end(&mut body)?;
        self.state.load(&body)?;
        file::write(&*self.disk, at, &body)?;
        self.applied = at;
        self.since = 0;
        self.progress.size.store(body.len() as u64, Ordering::SeqCst);
        self.progress.durable.store(at.index.0, Ordering::SeqCst);
        Ok(())
    }
}

/// A snapshot: frozen where it was taken, turned into bytes by the first read, on the reading thread.
enum Reader {
    Frozen(Option<Frozen>),
    Bytes(Bytes),
}

impl SnapshotReader for Reader {
    fn read_chunk(&mut self, max: usize) -> io::Result<Bytes> {
        if let Reader::Frozen(frozen) = self {
            let frozen = frozen.take().expect("a frozen state is thawed once");
            *self = Reader::Bytes(frozen().into());
        }
        match self {
            Reader::Bytes(rest) => Ok(rest.split_to(max.min(rest.len()))),
            Reader::Frozen(_) => unreachable!("it was just thawed"),
        }
    }
}
