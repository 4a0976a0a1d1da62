//! One stimulus at work on a node: the driver's part of everything that the core asks for. Invariants of one node are checked here, after every
//! step of the core, and so is that whatever leaves is borne out by the durable image (S6).
//!
//! The fill rules are those of the real driver: a range is only ever filled from the log that it was named in, a pending one is
//! checked against its epoch and reported as not sent if it was overtaken, and may never be skipped.

use quorate_base::{Index, LogId, NodeId, Term};
use quorate_raft::{
    Arm, Body, Effects, Input, Message, Outgoing, Placed, Raft, Range, RoleKind, SnapMeta, Timer, WriteId,
    invariants,
};

use crate::action::{How, Stimulus};
use crate::conduct::Cause;
use crate::disk::{Entry, FilledWrite, Payload, configuration, noop};
use crate::node::{Cold, Event, Node, Outcome, Rules};
use crate::parcel::{Parcel, What};

/// One stimulus at work.
pub(crate) struct Step<'a> {
    rules: &'a Rules,
    node: Node,
    events: Vec<Event>,
    cold: bool,
}

impl Step<'_> {
    pub(crate) fn new<'a>(rules: &'a Rules, node: &Node) -> Step<'a> {
        Step {
            rules,
            node: node.clone(),
            events: Vec::new(),
            cold: false,
        }
    }

    /// Does something to the core, and checks the step.
    fn act<R>(&mut self, cause: &Cause, act: impl FnOnce(&mut Raft) -> R) -> R {
        let before = self.node.raft.clone();
        let result = act(&mut self.node.raft);
        invariants::check(&self.node.raft);
        invariants::check_delta(&before, &self.node.raft);
        cause.check(&before, &self.node.raft);
        self.observe(&before);
        result
    }

    fn step(&mut self, input: Input) {
        self.act(&Cause::of(&input), |raft| raft.step(input));
    }

    fn observe(&mut self, before: &Raft) {
        let raft = &self.node.raft;
        let leads = raft.role() == RoleKind::Leader;
        let led = before.role() == RoleKind::Leader && before.term() == raft.term();
        if leads && !led {
            self.events.push(Event::Leads(raft.term()));
        }
        let known = before.commit().max(raft.log().base().last.index);
        if raft.commit() > known {
            let by = leads.then_some(raft.term());
            self.events.push(Event::Commits(known, raft.commit(), by));
        }
        if leads && led && raft.log().config_index() > before.last().index {
            let was = (before.log().config_index(), before.config().clone());
            self.events.push(Event::Reconfigures(was.0, was.1));
        }
    }

    pub(crate) fn stimulate(&mut self, stimulus: Stimulus, parcel: Option<&Parcel>) -> Option<()> {
        match stimulus {
            Stimulus::Fire(timer) => {
                self.drain();
                if !self.node.runs(timer) {
                    return None;
                }
                self.node.timers &= !(1 << timer as u8);
                self.step(Input::Fired(timer));
            }
            Stimulus::Deliver(_) => self.receive(parcel.expect("what is delivered is there")),
            Stimulus::Persist(count) => self.persist(usize::from(count))?,
            Stimulus::Propose(payload) => {
                let token = u64::from(payload);
                self.step(Input::Propose { token, size: 10 });
            }
            Stimulus::Read(token) => {
                let token = u64::from(token);
                self.step(Input::Read { token, forward: true });
            }
            Stimulus::Restart(survive) => self.restart(usize::from(survive))?,
            Stimulus::Compact(keep) => self.compact(u64::from(keep))?,
            Stimulus::Flush => self.node.image.machine = self.node.machine,
            Stimulus::Change(at) => {
                let (changes, force) = self.rules.menu.get(usize::from(at))?.clone();
                let token = 0;
                self.step(Input::Reconfigure {
                    token,
                    changes,
                    force,
                });
            }
            Stimulus::Transfer(to) => self.step(Input::Transfer(to)),
            Stimulus::Stall => self.step(Input::DiskStalled),
            Stimulus::Hint => {
                let leader = self.node.raft.leader()?;
                let term = self.node.raft.term();
                self.step(Input::LeaderDead { leader, term });
            }
            Stimulus::Reachable(peer) => self.step(Input::Reachable(peer)),
            Stimulus::NotSent(to, first) => self.step(Input::NotSent { to, first }),
            Stimulus::SnapshotLost(to) => self.step(Input::SnapshotSent { to, last: None }),
            Stimulus::Fill(to) => self.fill_oldest(to)?,
        }
        Some(())
    }

    /// The surroundings go on until they have nothing more to do.
    pub(crate) fn go_on(&mut self, how: How) {
        self.cold = how == How::Cold;
        if how == How::Batched {
            return;
        }
        loop {
            self.drain();
            if how != How::SlowDisk && !self.node.writes.is_empty() {
                self.persist(self.node.writes.len());
            } else if !self.node.raft.has_effects() {
                return;
            }
        }
    }

    /// Brings the node into the one form that all equal situations have.
    pub(crate) fn end(mut self) -> Outcome {
        let node = &mut self.node;
        let log = node.raft.log();
        node.bodies
            .retain(|index, body| *index > log.base().last.index && log.term_at(*index) == Some(body.0));
        if node
            .image
            .staged
            .as_ref()
            .is_some_and(|staged| staged.0.last.index <= node.image.machine.applied)
        {
            node.image.staged = None;
        }
        node.raft.forget_repetitions();
        let shift = node.raft.renumber();
        for filled in &mut node.writes {
            filled.write.id -= shift.writes;
            if let Some(range) = &mut filled.write.append {
                range.epoch = 0;
            }
        }
        for cold in &mut node.cold {
            cold.range.epoch = cold.range.epoch.wrapping_sub(shift.epochs);
        }
        // What waits for one peer stays in order; across peers there is none.
        node.cold.sort_by_key(|cold| cold.to);
        // It never fires.
        node.raft.forget_haste_steps();
        node.timers &= !(1 << Timer::Haste as u8);
        Outcome {
            node: self.node,
            events: self.events,
        }
    }

    fn receive(&mut self, parcel: &Parcel) {
        let from = parcel.from;
        match &parcel.what {
            What::Message(message, payloads) => {
                let asks = matches!(
                    message.body,
                    Body::PreVote { .. } | Body::Vote { transfer: false, .. }
                );
                if asks && self.node.runs(Timer::Fresh) {
                    self.node.timers &= !(1 << Timer::Fresh as u8);
                    self.step(Input::Fired(Timer::Fresh));
                }
                let message = message.clone();
                self.step(Input::Message {
                    from,
                    message: message.clone(),
                });
                if let Body::Append { prev, entries, .. } = &message.body {
                    for ((index, entry), payload) in (prev.index.0 + 1..).zip(entries).zip(payloads) {
                        self.place(Index(index), entry.term, *payload);
                    }
                }
            }
            What::Snapshot { term, meta, machine } => {
                let last = meta.last;
                // One that a started install needs is not overwritten.
                if last.index > self.node.raft.commit() && !self.node.is_installing() {
                    self.node.image.staged = Some((meta.clone(), *machine));
                    self.step(Input::SnapshotStaged {
                        from,
                        term: *term,
                        meta: Box::new(meta.clone()),
                    });
                }
                self.post(
                    from,
                    What::SnapshotDone {
                        term: *term,
                        last: Some(last),
                    },
                );
            }
            What::SnapshotDone { term, last } => {
                if *term == self.node.raft.term() {
                    let to = from;
                    self.step(Input::SnapshotSent { to, last: *last });
                }
            }
        }
    }

    /// The payload of an entry that has come into the log, unless the log has another one there.
    fn place(&mut self, index: Index, term: Term, payload: Payload) {
        let log = self.node.raft.log();
        if index > log.base().last.index && log.term_at(index) == Some(term) {
            let known = self.node.bodies.insert(index, (term, payload));
            assert!(
                known.is_none_or(|known| known.0 != term || known.1 == payload),
                "two entries are called {index}@{term} (S2)"
            );
        }
    }

    /// Takes the effects: messages leave, a write goes to the disk, the machine works.
    fn drain(&mut self) {
        let effects = self.act(&Cause::Other, Raft::take_effects);
        for placed in &effects.placed {
            let (at, payload) = match placed {
                Placed::Noop { at } => (*at, noop(at.term)),
                Placed::Config { at, .. } => (*at, configuration(*at)),
                Placed::Proposal { token, at } => (*at, *token),
            };
            self.place(at.index, at.term, payload);
        }
        let Effects {
            write,
            send,
            restore,
            apply,
            reads,
            timers,
            ..
        } = effects;
        for outgoing in send {
            self.send(outgoing);
        }
        if let Some(write) = write {
            let entries = write.append.map(|range| self.fill(range)).unwrap_or_default();
            self.node.writes.push_back(FilledWrite { write, entries });
        }
        if let Some(meta) = restore {
            self.restore(&meta);
        }
        if let Some(range) = apply {
            self.apply(range);
        }
        for (token, answer) in reads {
            self.events.push(Event::Answers(token as u8, answer.ok()));
        }
        for (timer, arm) in timers {
            match arm {
                Arm::Set => self.node.timers |= 1 << timer as u8,
                Arm::Off => self.node.timers &= !(1 << timer as u8),
            }
        }
    }

    /// The entries of a range that was named just now, with their payloads.
    fn fill(&self, range: Range) -> Vec<Entry> {
        let log = self.node.raft.log();
        assert!(log.holds(&range), "a range names what is in the log");
        let shapes = log.shapes(range.prev.index, range.last.index);
        (range.first().0..)
            .zip(shapes)
            .map(|(index, shape)| {
                let body = self.node.bodies.get(&Index(index));
                let body = body.unwrap_or_else(|| panic!("no payload for {index}@{}", shape.term));
                assert_eq!(body.0, shape.term, "the payload belongs to the entry");
                Entry {
                    shape,
                    payload: body.1,
                }
            })
            .collect()
    }

    fn send(&mut self, outgoing: Outgoing) {
        match outgoing {
            Outgoing::Message { to, message } => self.post(to, What::Message(message, Vec::new())),
            Outgoing::Append {
                to,
                term,
                range,
                commit,
            } => {
                let job = Cold {
                    to,
                    term,
                    range,
                    commit,
                };
                self.send_append(job);
            }
            Outgoing::Snapshot { to, term } => {
                let (log, machine) = (self.node.raft.log(), self.node.machine);
                // The state machine as it is now; while it is being replaced it is behind the log's base, and has nothing to give.
                let Some(last) = log.id_at(machine.applied) else {
                    let what = What::SnapshotDone { term, last: None };
                    let (from, to) = (to, self.node.id());
                    return self.events.push(Event::Sent(Parcel { from, to, what }, None));
                };
                let config = log.config_at(last.index).clone();
                let body = Body::InstallSnapshot { last };
                self.post(to, What::Message(Message { term, body }, Vec::new()));
                let meta = SnapMeta { last, config };
                self.post(to, What::Snapshot { term, meta, machine });
            }
        }
    }

    /// Sends an Append, or lets it wait for its payloads: then all that follow it to the same peer wait, too. If it does not follow what
    /// waits already, the core has gone back, and it takes the place of all that.
    fn send_append(&mut self, job: Cold) {
        let to = job.to;
        let waits = self.node.cold.iter().rev().find(|cold| cold.to == to);
        let follows = |last: &Cold| last.term == job.term && last.range.last == job.range.prev;
        match waits {
            None if !self.cold || job.range.is_empty() => return self.send_filled(job),
            Some(last) if !follows(last) => self.node.cold.retain(|cold| cold.to != to),
            _ => {}
        }
        self.node.cold.push(job);
    }

    fn send_filled(&mut self, job: Cold) {
        let filled = self.fill(job.range);
        let payloads = filled.iter().map(|entry| entry.payload).collect();
        let body = Body::Append {
            prev: job.range.prev,
            entries: filled.into_iter().map(|entry| entry.shape).collect(),
            commit: job.commit,
        };
        let message = Message { term: job.term, body };
        self.post(job.to, What::Message(message, payloads));
    }

    /// The log has been read for the oldest Append that waits for `to`.
    fn fill_oldest(&mut self, to: NodeId) -> Option<()> {
        let at = self.node.cold.iter().position(|cold| cold.to == to)?;
        let job = self.node.cold[at].clone();
        let raft = &self.node.raft;
        if raft.role() != RoleKind::Leader || raft.term() != job.term {
            self.node.cold.retain(|cold| cold.to != to);
        } else if !raft.log().holds(&job.range) {
            self.node.cold.retain(|cold| cold.to != to);
            let first = job.range.first();
            self.step(Input::NotSent { to, first });
        } else {
            self.node.cold.remove(at);
            self.send_filled(job);
        }
        Some(())
    }

    /// A message leaves: the durable image must bear it out (S6, S8).
    fn post(&mut self, to: NodeId, what: What) {
        let from = self.node.id();
        let mut held = None;
        if let What::Message(message, _) = &what {
            held = self.bear_out(to, message);
        }
        self.events.push(Event::Sent(Parcel { from, to, what }, held));
    }

    fn bear_out(&self, to: NodeId, message: &Message) -> Option<LogId> {
        let (from, image) = (self.node.id(), &self.node.image);
        let Message { term, body } = message;
        if !matches!(body, Body::PreVote { .. }) {
            assert!(
                *term <= image.hard.term,
                "n{from} speaks of term {term} before it is durable (S6)"
            );
        }
        let vote = match body {
            Body::Vote { .. } => Some(from),
            Body::VoteResponse { granted: true } => Some(to),
            _ => None,
        };
        if let Some(candidate) = vote {
            assert!(
                image.hard.term == *term && image.hard.vote == Some(candidate),
                "n{from} votes for n{candidate} in term {term} before that is durable (S6)"
            );
        }
        let upto = match body {
            Body::Appended { upto } => *upto,
            Body::HeartbeatResponse { matched, .. } => *matched,
            _ => return None,
        };
        let held = image.term_at(upto);
        assert!(
            held.is_some() || image.base.last.index > upto,
            "n{from} acknowledges {upto}, its disk ends at {} (S6)",
            image.last_index()
        );
        held.map(|term| LogId { term, index: upto })
    }

    /// The oldest writes become durable; the core is not told.
    fn write(&mut self, count: usize) -> Option<WriteId> {
        let mut done = None;
        for _ in 0..count {
            let filled = self.node.writes.pop_front()?;
            let gone = self.node.image.apply(&filled);
            if !gone.is_empty() {
                let named = gone.into_iter().map(|(index, entry)| {
                    let term = entry.shape.term;
                    (LogId { term, index }, entry.payload)
                });
                self.events.push(Event::Drops(named.collect()));
            }
            done = Some(filled.write.id);
        }
        done
    }

    fn persist(&mut self, count: usize) -> Option<()> {
        let done = self.write(count)?;
        self.step(Input::Persisted(done));
        Some(())
    }

    fn restore(&mut self, meta: &SnapMeta) {
        let staged = self
            .node
            .image
            .staged
            .clone()
            .expect("what is restored is staged (S12)");
        assert_eq!(staged.0, *meta, "what is restored is what is staged (S12)");
        self.node.machine = staged.1;
        self.node.image.machine = staged.1;
        self.applied();
    }

    fn apply(&mut self, range: Range) {
        for (index, entry) in (range.first().0..).zip(self.fill(range)) {
            let term = entry.shape.term;
            let at = LogId {
                term,
                index: Index(index),
            };
            self.node.machine.apply(at, entry.payload);
            self.events.push(Event::Machine(self.node.machine));
        }
        self.applied();
    }

    fn applied(&mut self) {
        self.events.push(Event::Machine(self.node.machine));
        self.step(Input::Applied(self.node.machine.applied));
    }

    fn restart(&mut self, survive: usize) -> Option<()> {
        if survive > self.node.writes.len() {
            return None;
        }
        self.write(survive);
        self.events.push(Event::Crashes);
        let node = &mut self.node;
        node.starts += 1;
        if self.rules.forgetful {
            node.image.hard.vote = None;
        }
        let (id, nonce) = (node.raft.id(), node.starts << 8);
        let restored = node.image.restored(id, nonce, self.rules);
        let commit = restored.hard.commit.max(restored.applied);
        node.raft = Raft::new(restored);
        invariants::check(&node.raft);
        assert_eq!(
            node.raft.commit(),
            commit.max(node.image.base.last.index),
            "at restart commit is what was recorded or durably applied (S9)"
        );
        node.machine = node.image.machine;
        node.writes.clear();
        node.cold.clear();
        node.timers = 0;
        let entries = (node.image.base.last.index.0 + 1..).zip(&node.image.entries);
        node.bodies = entries
            .map(|(index, entry)| (Index(index), (entry.shape.term, entry.payload)))
            .collect();
        Some(())
    }

    fn compact(&mut self, keep: u64) -> Option<()> {
        let node = &mut self.node;
        let index = Index(node.machine.applied.0.checked_sub(keep)?);
        if index <= node.raft.log().base().last.index {
            return None;
        }
        node.image.machine = node.machine;
        let log = node.raft.log();
        let last = log.id_at(index).expect("applied entries are in the log");
        let config = log.config_at(index).clone();
        node.image.compact(SnapMeta { last, config });
        self.step(Input::Compacted(index));
        Some(())
    }
}
