//! The flusher: a thread for what the state machine wants done off the apply path, one thing at a time. Its jobs, and the restoring
//! of a snapshot, for which the whole machine visits this thread while the node goes on without it.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use quorate_base::{Disk, Job, LogId, StateMachine};
use tokio::sync::oneshot;

use crate::error::Fatal;
use crate::lock::DirLock;
use crate::staging::{self, StagingReader};
use crate::work::{Work, WorkQueue, panic_text};

/// For the flusher.
pub(crate) enum FlushOp<S> {
    /// Run this.
    Job(Job),
    /// Replace the machine's state by the staged snapshot, and discard the staging file.
    Restore { machine: Box<S>, at: LogId },
}

/// What came of it.
pub(crate) enum Flushed<S> {
    Job {
        result: Result<(), Fatal>,
        took: Duration,
    },
    Restored {
        machine: Box<S>,
        at: LogId,
    },
    Failed(Fatal),
}

/// The driver's end. Dropping it lets the thread finish what is queued, and end.
pub(crate) struct Flusher<S> {
    queue: Arc<WorkQueue<FlushOp<S>>>,
}

impl<S: StateMachine> Flusher<S> {
    /// Starts the thread. It keeps `lock` until it ends, which the receiver hears of.
    pub(crate) fn spawn(
        disk: Arc<dyn Disk>,
        lock: Option<Arc<DirLock>>,
        report: impl Fn(Flushed<S>) + Send + 'static,
    ) -> std::io::Result<(Flusher<S>, oneshot::Receiver<()>)> {
        let queue = Arc::new(WorkQueue::new());
        let (ended, gone) = oneshot::channel::<()>();
        let taken = queue.clone();
        thread::Builder::new()
            .name("quorate-flush".into())
            .spawn(move || {
                yield_to_requests();
                while let Work::Items(ops) = taken.wait(None) {
                    for op in ops {
                        let flushed = std::panic::catch_unwind(AssertUnwindSafe(|| carry_out(op, &*disk)));
                        report(
                            flushed
                                .unwrap_or_else(|panic| Flushed::Failed(Fatal::Panic(panic_text(&*panic)))),
                        );
                    }
                }
                // The report's way back holds no file, the disk may: it goes before the lock.
                drop(disk);
                drop(lock);
                drop(ended);
            })?;
        Ok((Flusher { queue }, gone))
    }

    pub(crate) fn put(&self, op: FlushOp<S>) {
        self.queue.put([op]);
    }
}

impl<S> Drop for Flusher<S> {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// Where there are fewer cores than threads at work, the one that answers requests comes first: a job is long and nobody waits for it. It
/// still gets a good part of a busy core, since what it falls behind with stays in memory.
#[cfg(target_os = "linux")]
fn yield_to_requests() {
    const NICE: i32 = 5;
    // Of no process means of this thread, on Linux alone. Being nice is always allowed, and if it were not, nothing would be wrong.
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "the flusher runs at the priority of the rest");
    }
}

#[cfg(not(target_os = "linux"))]
fn yield_to_requests() {}

fn carry_out<S: StateMachine>(op: FlushOp<S>, disk: &dyn Disk) -> Flushed<S> {
    match op {
        FlushOp::Job(job) => {
            let began = Instant::now();
            let result = job().map_err(|error| Fatal::Machine(error.to_string()));
            Flushed::Job {
                result,
                took: began.elapsed(),
            }
        }
        FlushOp::Restore { mut machine, at } => match restore(&mut *machine, at, disk) {
            Ok(()) => Flushed::Restored { machine, at },
            Err(error) => Flushed::Failed(Fatal::Machine(format!(
                "restoring a snapshot up to {at}: {error}"
            ))),
        },
    }
}

/// The staging file goes only after the machine has its content durably: until then a crash starts this over.
pub(crate) fn restore<S: StateMachine>(machine: &mut S, at: LogId, disk: &dyn Disk) -> std::io::Result<()> {
    let mut source = StagingReader::open(disk)?;
    machine.restore(at, &mut source)?;
    staging::discard(disk)
}
