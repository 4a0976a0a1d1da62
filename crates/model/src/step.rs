//! One stimulus at work on a node: the driver's part of everything that the core asks for, as far as it has an order. Invariants of one node
//! are checked here, after every step of the core. What leaves is in `sending`, disk and machine are in `storage`.

mod sending;
mod storage;

use quorate_base::{Index, Term};
use quorate_raft::{Arm, Body, Effects, Input, Placed, Raft, RoleKind, Timer, invariants};

use crate::action::{How, Stimulus};
use crate::conduct::Cause;
use crate::disk::{FilledWrite, Payload, configuration, noop};
use crate::node::{Event, Node, Outcome, Rules};
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
}
