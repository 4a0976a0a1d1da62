//! The state machine of a running node and the two threads around it: applying and answering, snapshots out and in, flushing to
//! disk. What each entry does is held against the ghost's model.

use std::mem;

use quorate_base::{NodeId, StateMachine};
use quorate_node::event::{Event, MachineOp, SnapshotOp, ToApply};
use quorate_node::session::Answer;
use quorate_raft::SnapMeta;

use crate::coverage::Kind;
use crate::failure::{Failure, catch};
use crate::ghost::applying::Output;
use crate::history::Outcome;
use crate::host::MachineWork;
use crate::leases;
use crate::params::{MS, US};
use crate::picture::Topic;
use crate::sessions::{Logged, take_in};
use crate::turn::is_told;
use crate::world::{Happening, World};

/// How often state hashes are compared: at every index that is a multiple of this.
const HASH_EVERY: u64 = 32;

impl World {
    /// Lets the state machine's queue be served soon.
    pub(crate) fn machine_start(&mut self, id: NodeId) {
        let run = self.hosts[&id].run;
        let delay = match self.rng.below(3) {
            0 => self.rng.within(0..5 * MS),
            _ => 0,
        };
        let Some(process) = self.process(id) else { return };
        if process.machine_queue.is_empty() || mem::replace(&mut process.machine_due, true) {
            return;
        }
        self.after(delay, Happening::MachineTurn { id, run });
    }

    /// The state machine does everything that is queued.
    pub(crate) fn machine_turn(&mut self, id: NodeId) -> Result<(), Failure> {
        if let Some(process) = self.process(id) {
            process.machine_due = false;
        }
        while let Some(work) = self
            .process(id)
            .and_then(|process| process.machine_queue.pop_front())
        {
            match work {
                MachineWork::Op(MachineOp::Apply(entries)) => self.apply(id, entries)?,
                MachineWork::Op(MachineOp::Level(level)) => {
                    let founder = self.hosts[&id].founder;
                    let process = self.process(id).expect("its machine is at work");
                    process.kv.level(level);
                    process.tenure.level = level;
                    let applied = process.kv.applied().index;
                    self.ghost.check_level(id, applied, level, founder)?;
                }
                MachineWork::Op(MachineOp::Restore(meta)) => self.restore_snapshot(id, meta)?,
                MachineWork::Read(token, result) if token >= leases::FIRST_TOKEN => {
                    self.lease_read(id, token, result)?;
                }
                MachineWork::Read(token, Ok(())) => self.serve_read(id, token)?,
                MachineWork::Read(token, Err(failure)) => self.answer(id, token, Outcome::from(failure)),
            }
        }
        self.job_start(id)
    }

    fn apply(&mut self, id: NodeId, entries: Vec<ToApply>) -> Result<(), Failure> {
        let Some(last) = entries.last().map(|entry| entry.at.index) else {
            return Ok(());
        };
        for entry in &entries {
            self.ghost.check_apply(id, entry)?;
            let process = self.process(id).expect("its machine is at work");
            let logged = catch(|| {
                let bytes = entry.command.as_ref();
                bytes.map(|bytes| take_in(&mut process.sessions, entry.at.index, bytes))
            });
            let logged = logged.map_err(|why| Failure::Crash(format!("n{id} applying: {why}")))?;
            let (command, told) = match logged {
                None => (None, None),
                Some(Logged::Store(bytes)) => (Some(bytes), None),
                Some(Logged::Session(bytes, answer)) => (Some(bytes), Some(answer)),
            };
            let result = catch(|| match &command {
                Some(command) => Ok(Some(process.kv.apply(entry.at, command))),
                None => {
                    if let Some(level) = entry.level {
                        process.kv.level(level);
                        process.tenure.level = level;
                    }
                    process.kv.skip(entry.at);
                    Ok(None)
                }
            });
            let Some(output) = self.settle(id, result)? else {
                return Ok(());
            };
            self.note_applied(id, entry, output.as_ref(), told.as_ref())?;
            if entry.at.index.0.is_multiple_of(HASH_EVERY) && !self.check_hash(id)? {
                return Ok(());
            }
            if let (Some(token), Some(output)) = (entry.token, output) {
                match told {
                    Some(told) => {
                        self.note_session(id, entry.at.index, token, &told)?;
                        self.answer(id, token, Outcome::Session(told));
                    }
                    None => {
                        if let Ok(applied) = &output {
                            self.note_grant(id, token, applied)?;
                        }
                        self.answer(id, token, Outcome::Written(output));
                    }
                }
            }
        }
        self.trace
            .mark(Topic::Disk, self.now, Some(id), format_args!("applied {last}"));
        let process = self.process(id).expect("settled");
        process.kv.batch_applied();
        self.publish(id)?;
        self.step_node(id, Event::Applied(last))
    }

    /// The state machine has applied `entry` and answered `output`, and `told` to a session.
    fn note_applied(
        &mut self,
        id: NodeId,
        entry: &ToApply,
        output: Option<&Output>,
        told: Option<&Answer>,
    ) -> Result<(), Failure> {
        let met = self.ghost.applied(self.now, id, entry, output)?;
        met.into_iter().for_each(|kind| self.coverage.hit(kind));
        if let Some(told) = told {
            self.ghost.machines.check_session(id, entry.at.index, told)?;
        }
        if let (Some(command), Some(Ok(applied))) = (&entry.command, output) {
            self.tell_office(id, command, applied);
        }
        Ok(())
    }

    /// Compares the state with that of other nodes at the same index. Returns whether the process goes on.
    pub(crate) fn check_hash(&mut self, id: NodeId) -> Result<bool, Failure> {
        let process = self.process(id).expect("its machine is at work");
        let result = catch(|| process.kv.hash().map_err(|error| error.to_string()));
        let Some(hash) = self.settle(id, result)? else {
            return Ok(false);
        };
        let index = self.process(id).expect("settled").kv.applied().index;
        self.ghost.machines.check_hash(id, index, hash)?;
        Ok(true)
    }

    fn restore_snapshot(&mut self, id: NodeId, meta: SnapMeta) -> Result<(), Failure> {
        let process = self.process(id).expect("its machine is at work");
        let result = catch(|| {
            let restored = process
                .staged()
                .and_then(|mut file| process.kv.restore(meta.last, &mut file));
            restored
                .and_then(|()| process.discard_staged())
                .map_err(|error| format!("restoring: {error}"))
        });
        if self.settle(id, result)?.is_none() {
            return Ok(());
        }
        self.trace.mark(
            Topic::Snapshot,
            self.now,
            Some(id),
            format_args!("restored {}", meta.last),
        );
        let kv = &self.process(id).expect("settled").kv;
        if kv.applied() != meta.last {
            let what = format!("S12: n{id} restored {} and is at {}", meta.last, kv.applied());
            return Err(Failure::Correctness(what));
        }
        if !self.check_hash(id)? {
            return Ok(());
        }
        self.load_sessions(id)?;
        if self.process(id).is_none() {
            return Ok(());
        }
        self.publish(id)?;
        let process = self.process(id).expect("settled");
        // The file that had it is gone.
        (process.installing, process.met_damage, process.last_job) = (false, false, false);
        self.step_node(id, Event::Restored(meta.last))?;
        self.tell_durable(id)
    }

    pub(crate) fn snapshot_op(&mut self, id: NodeId, op: SnapshotOp) -> Result<(), Failure> {
        let (run, delay) = (self.hosts[&id].run, 500 * US);
        // What the node asked for before may have been the end of its process.
        let Some(process) = self.process(id) else {
            return Ok(());
        };
        let event = match op {
            SnapshotOp::Open { stream } => {
                let result = catch(|| process.kv.snapshot().map_err(|error| error.to_string()));
                let Some(view) = self.settle(id, result)? else {
                    return Ok(());
                };
                if !self.check_hash(id)? {
                    return Ok(());
                }
                let process = self.process(id).expect("settled");
                process.views.insert(stream, view);
                let several = process.views.len() > 1;
                let at = Some(process.kv.applied());
                if several {
                    self.coverage.hit(Kind::SeveralSnapshots);
                }
                Event::SnapshotOpened { stream, at }
            }
            SnapshotOp::Read { stream, max } => {
                let result = catch(|| Ok(process.read_view(stream, max)));
                let Some(chunk) = self.settle(id, result)? else {
                    return Ok(());
                };
                let chunk = match chunk {
                    Ok(chunk) => chunk,
                    Err(why) => {
                        self.view_failed(id, &why)?;
                        None
                    }
                };
                Event::SnapshotChunk { stream, chunk }
            }
            SnapshotOp::Close { stream } => {
                process.views.remove(&stream);
                return Ok(());
            }
        };
        self.after(delay, Happening::Completion { id, run, event });
        Ok(())
    }

    /// A snapshot cannot be read out: right only where a read failed, or met damage.
    fn view_failed(&mut self, id: NodeId, why: &str) -> Result<(), Failure> {
        if self.hosts[&id].disk.has_faulted() && is_told(why) {
            return Ok(());
        }
        if !self.hosts[&id].in_store {
            return Err(Failure::Crash(format!("n{id} reading its state out: {why}")));
        }
        self.names_damage(id, why)?;
        self.read_store_damage(id, why);
        Ok(())
    }

    /// Hands the flusher a job, if there is one and it is idle.
    pub(crate) fn job_start(&mut self, id: NodeId) -> Result<(), Failure> {
        let urgent = self.healing || self.rng.below(20) == 0;
        let (run, slowness) = (self.hosts[&id].run, self.hosts[&id].slowness);
        let Some(process) = self.process(id) else {
            return Ok(());
        };
        if process.job.is_some() {
            return Ok(());
        }
        let job = catch(|| Ok(process.kv.job(urgent)));
        let Some(job) = self.settle(id, job)? else {
            return Ok(());
        };
        let process = self.process(id).expect("settled");
        if process.met_damage && job.is_none() {
            return Err(goes_on(id));
        }
        if job.is_none() {
            return Ok(());
        }
        process.job = job;
        process.last_job = process.met_damage;
        let delay = self.params.disk_delay(&mut self.rng, slowness) * 3;
        self.after(delay, Happening::JobTurn { id, run });
        Ok(())
    }

    /// The flusher's job takes effect.
    pub(crate) fn job_turn(&mut self, id: NodeId) -> Result<(), Failure> {
        let (run, stalled) = (self.hosts[&id].run, self.hosts[&id].stalled_until);
        if stalled > self.now {
            self.at(stalled, Happening::JobTurn { id, run });
            return Ok(());
        }
        let Some(job) = self.process(id).and_then(|process| process.job.take()) else {
            return Ok(());
        };
        let result = catch(|| job().map_err(|error| format!("flushing: {error}")));
        if self.settle(id, result)?.is_none() {
            return Ok(());
        }
        if self.process(id).is_some_and(|process| process.last_job) {
            return Err(goes_on(id));
        }
        self.tell_durable(id)?;
        self.job_start(id)
    }

    /// Tells the node how much of the state machine a crash would leave, if that has changed.
    fn tell_durable(&mut self, id: NodeId) -> Result<(), Failure> {
        let Some(process) = self.process(id) else {
            return Ok(());
        };
        let durable = process.kv.durable();
        if durable.0 <= process.told_durable {
            return Ok(());
        }
        process.told_durable = durable.0;
        self.host(id).stored = durable;
        self.coverage.hit(Kind::Flush);
        self.trace.mark(
            Topic::Disk,
            self.now,
            Some(id),
            format_args!("store has {durable}"),
        );
        self.step_node(id, Event::MachineDurable(durable))
    }
}

/// What a process must not do that has met damage in its store (S19).
fn goes_on(id: NodeId) -> Failure {
    Failure::Correctness(format!("S19: n{id} has read damage in its store, and goes on"))
}
