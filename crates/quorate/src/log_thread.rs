//! The disk thread: the only owner of the log and of the staging file. Takes everything queued, writes all batches with one sync,
//! reports with one wake-up. It decides nothing but what to do when idle; after a failed write it never touches the log again.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use quorate_base::Disk;
use quorate_node::event::{Event, LogOp, StageOp};
use quorate_wal::{ReadError, Record, Wal};
use tokio::sync::oneshot;

use crate::error::Fatal;
use crate::lock::DirLock;
use crate::metrics::Metrics;
use crate::staging::Staging;
use crate::status::Space;
use crate::work::{Report, Reports, Work, WorkQueue, panic_text};

/// How often a full disk is tried again.
const SPACE_RETRY: Duration = Duration::from_secs(1);
/// With less than this reserved on a full disk the node takes nothing more into its log.
const LAST_RESERVE: u64 = 8 << 20;
/// With less than this reserved, the next segment is made without waiting for an idle moment.
const PRESSED: u64 = 12 << 20;

/// For the disk thread.
pub(crate) enum DiskOp {
    Log(LogOp),
    Stage(StageOp),
}

/// The driver's end. Dropping it lets the thread finish what is queued, and end.
pub(crate) struct LogThread {
    queue: Arc<WorkQueue<DiskOp>>,
}

impl LogThread {
    /// Starts the thread. It keeps `lock` until it ends, which the receiver hears of.
    pub(crate) fn spawn(
        wal: Wal,
        disk: Arc<dyn Disk>,
        lock: Option<Arc<DirLock>>,
        metrics: Arc<Metrics>,
        reports: Reports,
    ) -> std::io::Result<(LogThread, oneshot::Receiver<()>)> {
        let queue = Arc::new(WorkQueue::new());
        let (ended, gone) = oneshot::channel::<()>();
        let worker = Worker {
            queue: queue.clone(),
            wal,
            staging: Staging::new(disk),
            metrics,
            space: Space::Ok,
            reports: reports.clone(),
        };
        thread::Builder::new()
            .name("quorate-disk".into())
            .spawn(move || {
                let ran = std::panic::catch_unwind(AssertUnwindSafe(|| worker.run()));
                match ran {
                    Ok(Ok(())) => {}
                    Ok(Err(fatal)) => reports(Report::Failed(fatal)),
                    Err(panic) => reports(Report::Failed(Fatal::Panic(panic_text(&*panic)))),
                }
                drop(lock);
                drop(ended);
            })?;
        Ok((LogThread { queue }, gone))
    }

    /// Queues these, in order.
    pub(crate) fn put(&self, ops: impl IntoIterator<Item = DiskOp>) {
        self.queue.put(ops);
    }
}

impl Drop for LogThread {
    fn drop(&mut self) {
        self.queue.close();
    }
}

struct Worker {
    queue: Arc<WorkQueue<DiskOp>>,
    wal: Wal,
    staging: Staging,
    metrics: Arc<Metrics>,
    space: Space,
    reports: Reports,
}

impl Worker {
    fn run(mut self) -> Result<(), Fatal> {
        let mut patience = self.patience();
        let mut kept_up = Instant::now();
        loop {
            let idle = match self.queue.wait(patience) {
                Work::Items(ops) => {
                    self.carry_out(ops)?;
                    false
                }
                Work::Idle => true,
                Work::Closed => return Ok(()),
            };
            if idle || self.cannot_wait(kept_up) {
                self.maintain()?;
                kept_up = Instant::now();
            }
            self.notice_space();
            patience = self.patience();
        }
    }

    /// Whether upkeep is due although there is work: room is running out. On a full disk now and then, lest traffic that needs no
    /// room keeps the thread from noticing that there is room again.
    fn cannot_wait(&self, kept_up: Instant) -> bool {
        match self.wal.space() {
            quorate_wal::Space::Ok => self.wal.needs_maintenance() && self.wal.reserved() < PRESSED,
            quorate_wal::Space::Low => kept_up.elapsed() >= SPACE_RETRY,
        }
    }

    /// How long to wait for work before doing some upkeep.
    fn patience(&self) -> Option<Duration> {
        match (self.wal.needs_maintenance(), self.wal.space()) {
            (false, _) => None,
            (true, quorate_wal::Space::Ok) => Some(Duration::ZERO),
            (true, quorate_wal::Space::Low) => Some(SPACE_RETRY),
        }
    }

    fn carry_out(&mut self, ops: Vec<DiskOp>) -> Result<(), Fatal> {
        let mut events = Vec::new();
        let mut batches: Vec<Vec<Record>> = Vec::new();
        let mut last = None;
        let mut reads = Vec::new();
        for op in ops {
            match op {
                DiskOp::Log(LogOp::Write { id, records }) => {
                    batches.push(records);
                    last = Some(id);
                }
                // Reads are of entries that were durable when they were asked for. What the writes queued behind them do to
                // these is known to the node, which checks what it gets; so reads need not cut the writes in two.
                DiskOp::Log(LogOp::Read {
                    id,
                    first,
                    last,
                    max_bytes,
                }) => {
                    reads.push((id, first, last, max_bytes));
                }
                DiskOp::Stage(op) => {
                    self.write(&mut batches, last.take(), &mut events)?;
                    events.extend(self.staging.carry_out(op).map_err(Fatal::Stage)?);
                }
            }
        }
        self.write(&mut batches, last.take(), &mut events)?;
        for (id, first, last, max_bytes) in reads {
            let bodies = match self.wal.read(first, last, max_bytes) {
                Ok(bodies) => Ok(bodies),
                Err(error @ (ReadError::Compacted { .. } | ReadError::Absent { .. })) => {
                    Err(error.to_string())
                }
                Err(error) => return Err(Fatal::Log(error.to_string())),
            };
            events.push(Event::LogRead { id, bodies });
        }
        if !events.is_empty() {
            (self.reports)(Report::Events(events));
        }
        Ok(())
    }

    fn write(
        &mut self,
        batches: &mut Vec<Vec<Record>>,
        last: Option<u64>,
        events: &mut Vec<Event>,
    ) -> Result<(), Fatal> {
        let Some(last) = last else { return Ok(()) };
        let began = Instant::now();
        self.wal
            .append(batches)
            .map_err(|error| Fatal::Log(error.to_string()))?;
        self.metrics.fsync_duration.observe(began.elapsed());
        self.metrics.log_writes.add(1);
        self.metrics.log_batches.add(batches.len() as u64);
        batches.clear();
        events.push(Event::Written(last));
        Ok(())
    }

    fn maintain(&mut self) -> Result<(), Fatal> {
        self.wal
            .maintain()
            .map(drop)
            .map_err(|error| Fatal::Log(error.to_string()))
    }

    fn notice_space(&mut self) {
        let space = match self.wal.space() {
            quorate_wal::Space::Ok => Space::Ok,
            quorate_wal::Space::Low if self.wal.reserved() < LAST_RESERVE => Space::Out,
            quorate_wal::Space::Low => Space::Low,
        };
        if space != self.space {
            self.space = space;
            (self.reports)(Report::Space(space));
        }
    }
}
