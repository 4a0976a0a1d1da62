//! The disk and the state machine of a node at work: writes become durable in order, entries are applied, a snapshot replaces the machine, the log is
//! compacted, and a crash leaves what the durable image holds.

use quorate_base::{Index, LogId};
use quorate_raft::{Input, Raft, Range, SnapMeta, WriteId, invariants};

use super::Step;
use crate::node::Event;

impl Step<'_> {
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

    pub(super) fn persist(&mut self, count: usize) -> Option<()> {
        let done = self.write(count)?;
        self.step(Input::Persisted(done));
        Some(())
    }

    pub(super) fn restore(&mut self, meta: &SnapMeta) {
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

    pub(super) fn apply(&mut self, range: Range) {
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

    pub(super) fn restart(&mut self, survive: usize) -> Option<()> {
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

    pub(super) fn compact(&mut self, keep: u64) -> Option<()> {
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
