//! Disks and state machines at work: writes become durable, entries are applied, machines flushed, logs compacted.

use quorate_base::{Index, NodeId};
use quorate_raft::{Input, SnapMeta};

use super::{Cluster, Work};

impl Cluster {
    /// The oldest write becomes durable; the core is not told yet.
    pub(super) fn write(&mut self, id: NodeId) -> u64 {
        let node = self.node(id);
        let filled = node.writes.pop_front().expect("a write");
        let gone = node.image.apply(&filled);
        node.truncated += u64::from(!gone.is_empty());
        self.ghost.removed(id, &gone);
        filled.write.id
    }

    /// The oldest `count` writes become durable, and the core hears of the last.
    pub fn persist(&mut self, id: NodeId, count: usize) -> bool {
        let mut done = None;
        for _ in 0..count.min(self.nodes[&id].writes.len()) {
            done = Some(self.write(id));
        }
        if let Some(write) = done {
            self.show(format!("n{id} has write {write} on disk"));
            self.step(id, Input::Persisted(write));
        }
        done.is_some()
    }

    /// The state machine does the oldest work.
    pub fn apply(&mut self, id: NodeId) -> bool {
        let node = self.node(id);
        let Some(work) = node.work.pop_front() else {
            return false;
        };
        match work {
            Work::Apply(entries) => {
                for (at, payload) in entries {
                    self.node(id).machine.apply(at, payload);
                    let machine = self.nodes[&id].machine;
                    self.ghost.machine(machine);
                }
            }
            Work::Restore(meta) => {
                let staged = node.image.staged.clone().expect("what is restored is staged");
                assert_eq!(staged.0, meta, "what is restored is what is staged");
                node.restored += 1;
                node.machine = staged.1;
                node.image.machine = staged.1;
                self.ghost.machine(staged.1);
            }
        }
        let applied = self.nodes[&id].machine.applied;
        self.step(id, Input::Applied(applied));
        true
    }

    /// The state machine makes itself durable.
    pub fn flush_machine(&mut self, id: NodeId) {
        let node = self.node(id);
        node.image.machine = node.machine;
    }

    /// The log is compacted up to `index`, or as far as the durable machine allows.
    pub fn compact(&mut self, id: NodeId, index: Index) {
        self.flush_machine(id);
        let index = index.min(self.nodes[&id].machine.applied);
        let log = self.raft(id).log();
        if index <= log.base().last.index {
            return;
        }
        let last = log.id_at(index).expect("applied entries are in the log");
        let config = log.config_at(index).clone();
        self.node(id).image.compact(SnapMeta { last, config });
        self.node(id).bodies.retain(|at, _| *at > index);
        self.step(id, Input::Compacted(index));
    }
}
