//! What a running node does: one step of the state machine that `quorate-node` is, its effects, and the disk thread, which does its work
//! at moments of its own. Every step is followed by the invariants; nothing leaves the node before the ghost state has
//! agreed. The node's own state machine is in [`state`](crate::state).

use std::collections::VecDeque;
use std::mem;

use quorate_base::NodeId;
use quorate_node::PeerMessage;
use quorate_node::event::{Effects, Event, LogOp, StageOp};
use quorate_node::message::SnapshotOutcome;
use quorate_node::stored::{Mark, Origin};
use quorate_raft::invariants;
use quorate_wal::{Record, Space};

use crate::coverage::Kind;
use crate::disk::IO_ERROR;
use crate::failure::{Failure, catch};
use crate::history::Outcome;
use crate::host::{Batch, DiskWork, MachineWork, Process, read_log};
use crate::params::{MS, US};
use crate::picture::Topic;
use crate::scanning::staged_durably;
use crate::stores::damaged_bytes;
use crate::world::{Happening, World};

/// One in so many appends is followed by a look at the disk's durable image, besides the full scans.
const IMAGE_EVERY: usize = 200;

impl World {
    /// The running process of a machine.
    pub(crate) fn process(&mut self, id: NodeId) -> Option<&mut Process> {
        self.host(id).process.as_mut()
    }

    /// Lets the node take one event, and checks the core's invariants over that step.
    pub(crate) fn step_node(&mut self, id: NodeId, event: Event) -> Result<(), Failure> {
        let host = &self.hosts[&id];
        let (local, run) = (host.local(self.now), host.run);
        let Some(process) = self.process(id) else {
            return Ok(());
        };
        if let Event::Written(id) = &event {
            process.outstanding.retain(|write| write.0 > *id);
            process.truncating = process.truncating.filter(|write| write > id);
            process.compacting = process.compacting.filter(|write| write > id);
        }
        if let Event::LogRead { id, .. } = &event {
            process.cold_reads.remove(id);
        }
        let before = process.node.raft().clone();
        catch(|| process.node.step(local, event)).map_err(|why| Failure::Crash(format!("n{id}: {why}")))?;
        let after = process.node.raft();
        catch(|| {
            invariants::check(after);
            invariants::check_delta(&before, after);
        })
        .map_err(|why| Failure::Correctness(format!("n{id}: {why}")))?;
        let changing = after.config().is_joint();
        let idle = !mem::replace(&mut process.undrained, true);
        if changing {
            self.spare_disks();
        }
        // Drivers step several events before they take effects, as many as happen to be there.
        if !idle {
            return Ok(());
        }
        match self.rng.below(4) {
            0 => {
                let delay = self.rng.within(0..300 * US);
                self.after(delay, Happening::Drain { id, run });
                Ok(())
            }
            _ => self.drain(id),
        }
    }

    /// Takes the node's effects, checks them, and lets them happen.
    pub(crate) fn drain(&mut self, id: NodeId) -> Result<(), Failure> {
        let Some(process) = self.hosts.get_mut(&id).and_then(|host| host.process.as_mut()) else {
            return Ok(());
        };
        process.undrained = false;
        process.has_been_led |= process.node.raft().leader().is_some();
        let effects = catch(|| process.node.take_effects())
            .map_err(|why| Failure::Crash(format!("n{id} taking effects: {why}")))?;
        if process.node.raft().config().is_joint() {
            self.spare_disks();
        }
        let Some(process) = self.hosts.get(&id).and_then(|host| host.process.as_ref()) else {
            return Ok(());
        };
        for op in &effects.log {
            if let LogOp::Write { id: write, records } = op {
                self.ghost.emitted(id, *write, records)?;
            }
        }
        self.ghost.stepped(id, process.node.raft())?;
        for (to, message) in &effects.send {
            let raft = process.node.raft();
            self.ghost.sent(id, raft, *to, message)?;
            if let PeerMessage::SnapshotAck { stream, len, outcome } = message {
                let staged = match outcome {
                    SnapshotOutcome::More => staged_durably(&self.hosts[&id].disk, (*to, *stream)),
                    _ => 0,
                };
                self.ghost
                    .acknowledged(id, raft, (*to, *stream), (*len, *outcome), staged)?;
            }
        }
        self.note_leader();
        self.note_membership()?;
        self.carry_out(id, effects)?;
        if self.process(id).is_some() {
            self.set_wake(id);
            self.watch_leadership(id);
        }
        Ok(())
    }

    fn carry_out(&mut self, id: NodeId, effects: Effects) -> Result<(), Failure> {
        let Effects {
            log,
            stage,
            machine,
            snapshots,
            send,
            answers,
            reads,
            changed,
            membership,
            removed,
            fatal,
        } = effects;
        if let Some(why) = fatal {
            return self.end_by_itself(id, &why);
        }
        let now = self.now;
        self.note_lease_reads(id, &reads);
        let process = self.process(id).expect("just drained");
        let idle = process.outstanding.is_empty();
        for op in &log {
            if let LogOp::Write { id: write, .. } = op {
                process.outstanding.push_back((*write, now));
            }
            process.note_log(op);
        }
        process.disk_queue.extend(log.into_iter().map(DiskWork::Log));
        stage.iter().for_each(|op| process.note_stage(op));
        let resumes = stage.iter().any(|op| matches!(op, StageOp::Resume { .. }));
        process.disk_queue.extend(stage.into_iter().map(DiskWork::Stage));
        process
            .machine_queue
            .extend(machine.into_iter().map(MachineWork::Op));
        process.machine_queue.extend(
            reads
                .into_iter()
                .map(|(token, result)| MachineWork::Read(token, result)),
        );
        if let Some(config) = membership {
            process.contacts = config.members();
        }
        for (to, message) in send {
            self.transmit(id, to, message);
        }
        if resumes {
            self.coverage.hit(Kind::SnapshotResumed);
        }
        for (token, failure) in answers {
            self.answer(id, token, Outcome::from(failure));
        }
        for (token, end) in changed {
            self.reconfigured(id, token, end)?;
        }
        for op in snapshots {
            self.snapshot_op(id, op)?;
        }
        if removed {
            return self.leave(id);
        }
        if idle {
            self.watch_stall(id);
        }
        self.disk_start(id);
        self.machine_start(id);
        Ok(())
    }

    fn note_leader(&mut self) {
        let leader = self.leader();
        if leader.is_some() && leader != self.last_leader {
            if self.last_leader.is_some() {
                self.coverage.hit(Kind::LeaderChange);
            }
            self.last_leader = leader;
            self.trace
                .mark(Topic::Leader, self.now, leader, format_args!("LEADS"));
        }
    }

    /// Lets the node be woken at its deadline.
    pub(crate) fn set_wake(&mut self, id: NodeId) {
        let host = &self.hosts[&id];
        let run = host.run;
        let deadline = host
            .process
            .as_ref()
            .map(|process| (process, process.node.next_deadline()));
        let Some((process, Some(deadline))) = deadline else {
            return;
        };
        let at = host.global(deadline).max(self.now);
        if process.wake_at.is_none_or(|wake| at < wake || wake < self.now) {
            self.process(id).expect("just seen").wake_at = Some(at);
            self.at(at, Happening::Wake { id, run });
        }
    }

    /// A deadline that was set some time ago: the node is woken if it still stands. Nothing, if an earlier one was set after it: with that one came
    /// the next.
    pub(crate) fn wake(&mut self, id: NodeId) -> Result<(), Failure> {
        let (now, local) = (self.now, self.hosts[&id].local(self.now));
        let process = self.process(id).expect("a void wake is dropped");
        if process.wake_at.is_none_or(|at| at > now) {
            return Ok(());
        }
        process.wake_at = None;
        if process
            .node
            .next_deadline()
            .is_some_and(|deadline| deadline <= local)
        {
            return self.step_node(id, Event::Wake);
        }
        self.set_wake(id);
        Ok(())
    }

    /// What a thread of the process did came to `result`. Returns the value if the process goes on.
    pub(crate) fn settle<T>(
        &mut self,
        id: NodeId,
        result: Result<Result<T, String>, String>,
    ) -> Result<Option<T>, Failure> {
        self.notice_spoiled(id);
        let host = &self.hosts[&id];
        let (disk, doubted, in_store) = (&host.disk, host.rotted_by.is_some(), host.in_store);
        if disk.is_dead() {
            self.end_in_disk(id, false, 0)?;
            return Ok(None);
        }
        let (faulted, ran_full) = (disk.has_faulted(), disk.has_run_full());
        let excused = |why: &str| (faulted && is_told(why)) || (ran_full && (is_told(why) || is_full(why)));
        let damaged = |why: &str| match in_store {
            true => damaged_bytes(why).is_some(),
            false => doubted && is_damage(why),
        };
        match result {
            Ok(Ok(value)) => {
                self.notice_borne(id)?;
                Ok(Some(value))
            }
            Ok(Err(why)) | Err(why) if excused(&why) || damaged(&why) => {
                if is_damage(&why) {
                    self.coverage.hit(Kind::DamageRead);
                }
                if in_store && damaged_bytes(&why).is_some() {
                    self.names_damage(id, &why)?;
                    self.coverage.hit(Kind::StoreDamageRead);
                }
                self.trace
                    .mark(Topic::Life, self.now, Some(id), format_args!("stops: {why}"));
                let down = self.rng.within(MS..2_000 * MS);
                self.end(id, false, down);
                Ok(None)
            }
            Ok(Err(why)) | Err(why) => Err(Failure::Crash(format!("n{id}: {why}"))),
        }
    }

    /// A node says that it cannot go on. Right only if its disk failed.
    fn end_by_itself(&mut self, id: NodeId, why: &str) -> Result<(), Failure> {
        if !is_told(why) {
            return Err(Failure::Crash(format!("n{id} cannot go on: {why}")));
        }
        self.trace
            .mark(Topic::Life, self.now, Some(id), format_args!("ends: {why}"));
        let down = self.rng.within(MS..2_000 * MS);
        self.end(id, false, down);
        Ok(())
    }

    /// Lets the disk thread begin, if there is work and it is idle.
    pub(crate) fn disk_start(&mut self, id: NodeId) {
        let host = &self.hosts[&id];
        let (run, slowness) = (host.run, host.slowness);
        let Some(process) = &host.process else { return };
        if process.disk_busy || (process.disk_queue.is_empty() && !process.wal.needs_maintenance()) {
            return;
        }
        let delay = self.params.disk_delay(&mut self.rng, slowness);
        self.process(id).expect("just seen").disk_busy = true;
        self.after(delay, Happening::DiskTurn { id, run });
    }

    /// The disk thread does everything that is queued, then says what is done.
    pub(crate) fn disk_turn(&mut self, id: NodeId) -> Result<(), Failure> {
        let (run, stalled) = (self.hosts[&id].run, self.hosts[&id].stalled_until);
        if stalled > self.now {
            self.at(stalled, Happening::DiskTurn { id, run });
            return Ok(());
        }
        let mut pause = self.rng.within(0..100 * US);
        let mut done = Vec::new();
        if self
            .process(id)
            .is_some_and(|process| process.disk_queue.is_empty())
        {
            let process = self.process(id).expect("just seen");
            let result = catch(|| process.wal.maintain().map_err(|error| error.to_string()));
            match self.settle(id, result)? {
                None => return Ok(()),
                Some(Space::Low) => pause = 100 * MS,
                Some(Space::Ok) => {}
            }
        }
        let mut reads = VecDeque::new();
        while let Some(process) = self.process(id) {
            if let Some(batch) = process.take_batch() {
                let last = batch.last;
                if !self.append(id, batch)? {
                    return Ok(());
                }
                done.push(Event::Written(last));
            } else if let Some(work) = process.disk_queue.pop_front() {
                // Reads let everything else go first, as they do in the runtime: they need not cut the writes in two.
                if matches!(work, DiskWork::Log(LogOp::Read { .. })) {
                    reads.push_back(work);
                    continue;
                }
                let result = catch(|| process.disk_work(work));
                let Some(event) = self.settle(id, result)? else {
                    return Ok(());
                };
                done.extend(event);
            } else if let Some(read) = reads.pop_front() {
                let result = catch(|| process.disk_work(read));
                let Some(event) = self.settle(id, result)? else {
                    return Ok(());
                };
                self.coverage.hit(Kind::ColdRead);
                done.extend(event);
            } else {
                break;
            }
        }
        for event in done {
            self.after(pause, Happening::Completion { id, run, event });
        }
        self.after(pause, Happening::DiskFree { id, run });
        Ok(())
    }

    /// One append. Returns whether the process goes on.
    fn append(&mut self, id: NodeId, batch: Batch) -> Result<bool, Failure> {
        self.ghost.appending(id, batch.last);
        let process = self.process(id).expect("its disk thread is at work");
        let result = catch(|| {
            process
                .wal
                .append(&batch.writes)
                .map_err(|error| error.to_string())
        });
        if self.settle(id, result)?.is_none() {
            return Ok(false);
        }
        self.ghost.appended(id)?;
        let last = self.process(id).expect("settled").wal.last_index();
        self.trace.mark(
            Topic::Disk,
            self.now,
            Some(id),
            format_args!("disk has write {}, log to {last}", batch.last),
        );
        for record in batch.writes.iter().flatten() {
            self.note_record(record);
        }
        if self.rng.below(IMAGE_EVERY) == 0 && !self.params.lying_disks && !self.hosts[&id].has_log_in_doubt()
        {
            let copy = self.hosts[&id].disk.durable_view("wal-");
            let (params, member) = (&self.params, self.hosts[&id].member);
            let found = catch(|| read_log(&copy, params, member)).and_then(|found| found);
            let found = found.map_err(|why| Failure::Correctness(format!("S20: image of n{id}: {why}")))?;
            self.ghost.check_image(id, &found)?;
        }
        Ok(true)
    }

    fn note_record(&mut self, record: &Record) {
        match record {
            Record::Truncate { .. } => self.coverage.hit(Kind::Truncation),
            Record::Mark { index, body } => match Mark::decode(*index, body).map(|mark| mark.origin) {
                Ok(Origin::Installed) => self.coverage.hit(Kind::SnapshotInstall),
                Ok(Origin::Compacted) => self.coverage.hit(Kind::Compaction),
                _ => {}
            },
            _ => {}
        }
    }
}

/// Whether a panic is what a process does that was told of an error of its disk: it says so, or redb does, which goes on after none.
pub(crate) fn is_told(why: &str) -> bool {
    why.contains(IO_ERROR) || why.contains("Previous I/O error")
}

/// Whether an error says that there was no room.
pub(crate) fn is_full(why: &str) -> bool {
    why.contains(&std::io::ErrorKind::StorageFull.to_string()) || why.contains("the disk is too full")
}

/// Whether an error says that the log is not what was written.
fn is_damage(why: &str) -> bool {
    why.starts_with("the log cannot be read")
}
