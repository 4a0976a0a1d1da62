//! When full scans are made, and of what: every disk that is not known to be damaged, every running core, every store. What they check
//! is in [`ghost::scan`](crate::ghost::scan); the stores are compared here.

use std::collections::BTreeMap;

use quorate_base::{Index, NodeId, StateMachine};
use quorate_node::event::{Event, StageOp, StreamId};
use quorate_node::staging::{STAGING, Staging};
use quorate_node::transfer_in;

use crate::disk::SimDisk;
use crate::failure::{Failure, catch};
use crate::ghost::scan::Scanned;
use crate::host::{Process, read_log};
use crate::turn::is_told;
use crate::world::World;

/// In so many steps of the world there is one scan.
const EVERY: u64 = 1_000;

/// How much of an incoming snapshot, which its sender gave this number, a crash now would leave in the staging file: as a process would find it
/// that starts then.
pub(crate) fn staged_durably(disk: &SimDisk, transfer: (NodeId, StreamId)) -> u64 {
    let mut staging = Staging::new(disk.durable_view(STAGING).mount());
    loop {
        match staging.carry_out(StageOp::Check) {
            Ok(Some(Event::StageChecked { end: false, .. })) => {}
            Ok(Some(Event::StageChecked {
                about: Some(about),
                len,
                ..
            })) if transfer_in(about.clone()) == Some(transfer) => return len,
            _ => return 0,
        }
    }
}

impl World {
    /// Scans when it is time.
    pub(crate) fn scan_sometimes(&mut self) -> Result<(), Failure> {
        self.steps += 1;
        if self.steps.is_multiple_of(EVERY) {
            return self.scan(false);
        }
        Ok(())
    }

    /// Computes everything anew that the checker believes; the beginnings of all logs, which nobody has any longer, only for `all`.
    pub(crate) fn scan(&mut self, all: bool) -> Result<(), Failure> {
        if self.params.lying_disks {
            // Nothing that they say is durable is certain to be there.
            return Ok(());
        }
        let nodes = self.scanned()?;
        self.ghost.scan(&nodes, all)?;
        for host in self.hosts.values() {
            // A read that is to fail, or finds damage, is the node's, not the checker's.
            let honest = !host.disk.is_read_to_fail() && !host.in_store;
            if let Some(process) = host.process.as_ref().filter(|_| honest) {
                self.scan_store(host.id, process)?;
            }
        }
        // The stores are what their commands make of them, and the hash of C is of all bytes of all commands: two runs whose traces are
        // the same have done the same down to the last byte.
        let last = self.ghost.commits().last();
        let hash = self.ghost.commits().hash_at(last).expect("C has a last entry");
        self.trace.event(
            self.now,
            None,
            format_args!("scanned: committed {last}, hash {hash:016x}"),
        );
        Ok(())
    }

    /// Every node whose disk is not known to be damaged, as it is now.
    pub(crate) fn scanned(&self) -> Result<BTreeMap<NodeId, Scanned<'_>>, Failure> {
        let mut nodes = BTreeMap::new();
        let whole = self
            .hosts
            .values()
            .filter(|host| !host.broken && !host.has_log_in_doubt());
        for host in whole {
            let copy = host.disk.durable_view("wal-");
            let found = catch(|| read_log(&copy, &self.params, host.member)).and_then(|found| found);
            if found.as_ref().is_err_and(|why| self.may_be_torn(host.id, why)) {
                continue;
            }
            let found =
                found.map_err(|why| Failure::Correctness(format!("S20: image of n{}: {why}", host.id)))?;
            let process = host.process.as_ref();
            let drained = process.filter(|process| !process.undrained);
            let scanned = Scanned {
                found,
                raft: drained.map(|process| process.node.raft()),
                applied: process.map(|process| (process.kv.applied().index, Index(process.told_durable))),
            };
            nodes.insert(host.id, scanned);
        }
        Ok(nodes)
    }

    /// A store holds what the model holds. A read that failed once makes the engine fail all that follow.
    fn scan_store(&self, id: NodeId, process: &Process) -> Result<(), Failure> {
        let failed = self.hosts[&id].disk.has_faulted();
        match self.compare_store(id, &process.kv, 0)? {
            Err(why) if !(failed && is_told(&why)) => Err(Failure::Correctness(format!(
                "S14: the store of n{id} cannot be read: {why}"
            ))),
            _ => Ok(()),
        }
    }
}
