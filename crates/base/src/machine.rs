//! What an application implements to be replicated.

use std::io;

use bytes::Bytes;

use crate::{Index, LogId};

/// Work that a state machine wants done off the apply path (flushing to disk). Run by the driver on another thread, one
/// at a time, in the order handed out; in the simulator at any later step. The job reports through state it shares
/// with its machine. An error is final for the process.
pub type Job = Box<dyn FnOnce() -> io::Result<()> + Send>;

/// A deterministic state machine: the same commands in the same order give the same state and the same outputs on
/// every node (Raft paper §2). Errors of the application are outputs. Anything non-deterministic (clock,
/// randomness, I/O results) must not influence the state.
///
/// After a restart the machine is given again every committed entry after [`durable`](StateMachine::durable), so it may keep
/// recent state in memory: the replicated log is its write-ahead log.
pub trait StateMachine: Send + 'static {
    /// What applying one command answers.
    type Output: Send + 'static;

    /// Applies the command of the entry `at`. Entries come in index order without gaps, each exactly once since the last
    /// [`applied`](StateMachine::applied).
    fn apply(&mut self, at: LogId, command: &Bytes) -> Self::Output;

    /// Passes an entry that holds no command (no-op, configuration): only the applied index moves.
    fn skip(&mut self, at: LogId);

    /// From here on every member understands what this feature level means (mixed releases, rolling upgrades), so commands of the forms that came
    /// with it may be *proposed*. What `apply` does must follow from the command alone: a member that joined is given old entries before it
    /// knows of any level. Called in log order, before the [`skip`](StateMachine::skip) of the entry that raised the level; at the start and after
    /// [`restore`](StateMachine::restore) with the level known as of [`applied`](StateMachine::applied); and at times with the same level again.
    fn level(&mut self, level: u32) {
        let _ = level;
    }

    /// Called after each run of `apply` and `skip` calls: the moment to publish events in bulk.
    fn batch_applied(&mut self) {}

    /// The last entry applied. Zero for a fresh machine. At start: what was durable.
    fn applied(&self) -> LogId;

    /// The last entry whose effects would survive a crash right now. The log before it may be dropped.
    fn durable(&self) -> Index;

    /// Work for another thread, if there is any. Asked after every batch and after every finished job. With `urgent` the
    /// machine should make everything durable (shutdown, or the log waits for compaction).
    fn job(&mut self, urgent: bool) -> Option<Job> {
        let _ = urgent;
        None
    }

    /// With more entries than this applied and not durable, the next [`job`](StateMachine::job) is urgent: the log cannot drop them, and a restart has to apply
    /// them again.
    fn hurry_after(&self) -> u64 {
        100_000
    }

    /// Whether more is held in memory than should be while a [`job`](StateMachine::job) runs: nothing is applied until that job is done, and
    /// so the clients that wait for answers are slowed down to the speed of the disk.
    fn backlog(&self) -> bool {
        false
    }

    /// A consistent view of the state as of [`applied`](StateMachine::applied), to be streamed to another node while this
    /// machine goes on.
    fn snapshot(&self) -> io::Result<Box<dyn SnapshotReader>>;

    /// Replaces the whole state by a snapshot taken at `at`, durably. May be called again with the same snapshot after a
    /// crash and must then end in the same state.
    fn restore(&mut self, at: LogId, source: &mut dyn io::Read) -> io::Result<()>;
}

/// A snapshot being read out, piece by piece.
pub trait SnapshotReader: Send {
    /// The next piece, at most `max` bytes long; empty at the end.
    fn read_chunk(&mut self, max: usize) -> io::Result<Bytes>;
}
