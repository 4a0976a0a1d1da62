//! The state machine's place: applies on the driver's task, lends the machine to the flusher while a snapshot is restored, hands out
//! its jobs, and reads its snapshots. Whatever comes for the machine while it is away waits, in order.

use std::collections::{BTreeMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use quorate_base::{Index, SnapshotReader, StateMachine};
use quorate_node::event::{Event, MachineOp, Nanos, SnapshotOp, StreamId, ToApply};

use super::replies::Replies;
use super::waiting::{Queue, Waiting};
use crate::error::Fatal;
use crate::flusher::{FlushOp, Flusher};
use crate::handle::Shared;
use crate::inbox::{Done, Look};
use crate::work::{Report, panic_text};

/// An open snapshot. The reader is away while a piece is read.
struct View {
    reader: Option<Box<dyn SnapshotReader>>,
    asked: VecDeque<usize>,
}

/// See the module.
pub(crate) struct Host<S: StateMachine> {
    /// `None` while it is being restored.
    machine: Option<Box<S>>,
    waiting: Queue<S>,
    flusher: Flusher<S>,
    job_runs: bool,
    /// From now on every job is to make everything durable.
    urgent: bool,
    /// The log lacks room: until it has some again, too.
    no_room: bool,
    /// The last durable index that the node was told.
    durable: Index,
    applied: Index,
    views: BTreeMap<StreamId, View>,
    shared: Arc<Shared<S>>,
}

impl<S: StateMachine> Host<S> {
    pub(crate) fn new(machine: S, flusher: Flusher<S>, shared: Arc<Shared<S>>) -> Host<S> {
        Host {
            durable: machine.durable(),
            applied: machine.applied().index,
            machine: Some(Box::new(machine)),
            waiting: Queue::new(),
            flusher,
            job_runs: false,
            urgent: false,
            no_room: false,
            views: BTreeMap::new(),
            shared,
        }
    }

    /// The last index applied.
    pub(crate) fn applied(&self) -> Index {
        self.applied
    }

    /// The last index that would survive a crash.
    pub(crate) fn durable(&self) -> Index {
        self.durable
    }

    /// Carries out one operation; what the node should hear of it goes to `events`.
    pub(crate) fn carry_out(&mut self, op: MachineOp, replies: &mut Replies<S>, events: &mut Vec<Event>) {
        match op {
            op if self.must_wait() => self.waiting.push(Waiting::Op(op)),
            MachineOp::Apply(entries) => self.apply(entries, replies, events),
            MachineOp::Level(level) => self.machine.as_mut().expect("asked above").level(level),
            MachineOp::Restore(meta) => {
                let machine = self.machine.take().expect("asked above");
                tracing::info!(upto = %meta.last, "restoring a snapshot");
                self.flusher.put(FlushOp::Restore {
                    machine,
                    at: meta.last,
                });
            }
        }
    }

    /// Whether an operation has to queue: the machine is away, has too much in memory, or others queue already.
    fn must_wait(&self) -> bool {
        let backlog = |machine: &S| self.job_runs && machine.backlog();
        !self.waiting.is_empty() || self.machine.as_deref().is_none_or(backlog)
    }

    fn apply(&mut self, entries: Vec<ToApply>, replies: &mut Replies<S>, events: &mut Vec<Event>) {
        let machine = self.machine.as_mut().expect("only called while it is here");
        self.shared.metrics.applied.add(entries.len() as u64);
        let mut answers = Vec::new();
        for entry in entries {
            assert_eq!(
                entry.at.index,
                self.applied.next(),
                "entries are applied in order, each once"
            );
            self.applied = entry.at.index;
            match entry.command {
                Some(command) => {
                    let output = machine.apply(entry.at, &command);
                    answers.extend(entry.token.map(|token| (token, output)));
                }
                None => {
                    entry.level.into_iter().for_each(|level| machine.level(level));
                    machine.skip(entry.at);
                }
            }
        }
        // Published first: whoever has an answer may rely on what was published with it.
        machine.batch_applied();
        for (token, output) in answers {
            replies.applied(token, output);
        }
        events.push(Event::Applied(self.applied));
        self.tend(events);
    }

    /// Notices what became durable, and hands out the next job.
    pub(crate) fn tend(&mut self, events: &mut Vec<Event>) {
        let Some(machine) = &mut self.machine else { return };
        let durable = machine.durable();
        if durable > self.durable {
            self.durable = durable;
            events.push(Event::MachineDurable(durable));
        }
        let many = self.applied.0.saturating_sub(durable.0) > machine.hurry_after();
        let urgent = self.urgent || self.no_room || many;
        if !self.job_runs
            && let Some(job) = machine.job(urgent)
        {
            self.job_runs = true;
            self.flusher.put(FlushOp::Job(job));
        }
    }

    /// The job ended, and what waited for that goes on.
    pub(crate) fn job_done(&mut self, replies: &mut Replies<S>, events: &mut Vec<Event>) {
        self.job_runs = false;
        self.tend(events);
        if self.machine.is_some() {
            self.go_on(replies, events);
        }
    }

    /// The machine is back from being restored: what waited for it goes on.
    pub(crate) fn restored(&mut self, machine: Box<S>, replies: &mut Replies<S>, events: &mut Vec<Event>) {
        let at = machine.applied();
        tracing::info!(upto = %at, "the snapshot is restored");
        self.applied = at.index;
        self.machine = Some(machine);
        events.push(Event::Restored(at));
        self.tend(events);
        self.go_on(replies, events);
    }

    /// Carries out what waits. A restore among it sends the machine away again, and the rest then waits on.
    fn go_on(&mut self, replies: &mut Replies<S>, events: &mut Vec<Event>) {
        for waiting in self.waiting.take() {
            match waiting {
                Waiting::Op(op) => self.carry_out(op, replies, events),
                Waiting::Look(look, until) => self.look(look, until),
                Waiting::Open(stream) => self.open_view(stream, events),
            }
        }
    }

    /// Shows the state, in order with what is to be applied; while the machine is away it waits, `until` then.
    pub(crate) fn look(&mut self, look: Look<S>, until: Nanos) {
        match &self.machine {
            Some(machine) => look(Ok(machine)),
            None => self.waiting.push(Waiting::Look(look, until)),
        }
    }

    /// Whether the machine is away, being restored.
    pub(crate) fn is_restoring(&self) -> bool {
        self.machine.is_none()
    }

    /// When to [`expire`](Host::expire).
    pub(crate) fn next_deadline(&self) -> Option<Nanos> {
        self.waiting.next_deadline()
    }

    /// Refuses the reads that have waited long enough.
    pub(crate) fn expire(&mut self, now: Nanos) {
        self.waiting.expire(now);
    }

    /// From now on the machine is to make everything durable.
    pub(crate) fn hurry(&mut self, events: &mut Vec<Event>) {
        self.urgent = true;
        self.tend(events);
    }

    /// Whether the log lacks room. If so the machine is to make everything durable, for that is what the log is kept for.
    pub(crate) fn log_lacks_room(&mut self, no_room: bool, events: &mut Vec<Event>) {
        self.no_room = no_room;
        self.tend(events);
    }

    /// Whether there is nothing more to flush, as far as the machine has any work to offer.
    pub(crate) fn is_flushed(&self, upto: Index) -> bool {
        self.machine.is_some() && (self.durable >= upto || !self.job_runs)
    }

    /// Carries out an operation on an outgoing snapshot.
    pub(crate) fn snapshot(&mut self, op: SnapshotOp, events: &mut Vec<Event>) {
        match op {
            SnapshotOp::Open { stream } if self.machine.is_none() => {
                self.waiting.push(Waiting::Open(stream));
            }
            SnapshotOp::Open { stream } => self.open_view(stream, events),
            SnapshotOp::Read { stream, max } => match self.views.get_mut(&stream) {
                Some(view) => {
                    view.asked.push_back(max);
                    self.read_view(stream);
                }
                None => events.push(Event::SnapshotChunk { stream, chunk: None }),
            },
            SnapshotOp::Close { stream } => drop(self.views.remove(&stream)),
        }
    }

    fn open_view(&mut self, stream: StreamId, events: &mut Vec<Event>) {
        let Some(machine) = &self.machine else {
            self.waiting.push(Waiting::Open(stream));
            return;
        };
        let at = match machine.snapshot() {
            Ok(reader) => {
                self.views.insert(
                    stream,
                    View {
                        reader: Some(reader),
                        asked: VecDeque::new(),
                    },
                );
                Some(machine.applied())
            }
            Err(error) => {
                tracing::error!(%error, "cannot take a snapshot of the state machine");
                None
            }
        };
        events.push(Event::SnapshotOpened { stream, at });
    }

    /// Reads the next piece asked for on a blocking thread, if the reader is here.
    fn read_view(&mut self, stream: StreamId) {
        let Some(view) = self.views.get_mut(&stream) else {
            return;
        };
        if view.reader.is_none() || view.asked.is_empty() {
            return;
        }
        let (Some(mut reader), Some(max)) = (view.reader.take(), view.asked.pop_front()) else {
            return;
        };
        let shared = self.shared.clone();
        tokio::task::spawn_blocking(move || {
            let read = std::panic::catch_unwind(AssertUnwindSafe(|| reader.read_chunk(max)));
            shared.inbox.done(match read {
                Ok(chunk) => Done::Chunk {
                    stream,
                    reader,
                    chunk,
                },
                Err(panic) => Done::Report(Report::Failed(Fatal::Panic(panic_text(&*panic)))),
            });
        });
    }

    /// A piece has been read.
    pub(crate) fn chunk_read(
        &mut self,
        stream: StreamId,
        reader: Box<dyn SnapshotReader>,
        chunk: std::io::Result<bytes::Bytes>,
        events: &mut Vec<Event>,
    ) {
        // Closed meanwhile: the reader goes, and nobody asks for the piece.
        let Some(view) = self.views.get_mut(&stream) else {
            return;
        };
        view.reader = Some(reader);
        if let Err(error) = &chunk {
            tracing::error!(%error, "cannot read a snapshot of the state machine");
        }
        events.push(Event::SnapshotChunk {
            stream,
            chunk: chunk.ok(),
        });
        self.read_view(stream);
    }
}
