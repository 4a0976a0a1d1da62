//! Faults: what each planned one does when it strikes, and how it ends.

use std::collections::BTreeSet;

use quorate_base::NodeId;
use quorate_node::event::Event;

use crate::coverage::Kind;
use crate::disk::Blow;
use crate::failure::{Failure, catch};
use crate::history::Outcome;
use crate::net::Pair;
use crate::params::{Fault, MS};
use crate::trace::Nanos;
use crate::world::{Happening, World};

/// What ends with a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Restore {
    /// The network is whole again.
    Network,
    /// The disk is as fast as before.
    Speed(NodeId),
    /// The disk has space again.
    Space(NodeId),
}

impl World {
    /// A planned fault strikes, or waits until it has somebody to strike.
    pub(crate) fn strike(&mut self, number: usize) -> Result<(), Failure> {
        if self.healing {
            return Ok(());
        }
        let fault = self.params.plan[number].1.clone();
        let running = self.running();
        let leader = self.leader();
        let needs_leader = matches!(fault, Fault::Transfer | Fault::IsolateLeader(_) | Fault::Stall(_));
        if running.is_empty() || (needs_leader && leader.is_none()) {
            self.after(50 * MS, Happening::Fault(number));
            return Ok(());
        }
        let any = self.rng.pick(&running);
        let needs_fuse = matches!(fault, Fault::CrashInDisk { .. } | Fault::SyncError);
        if needs_fuse && self.hosts[&any].disk.is_armed() {
            self.after(50 * MS, Happening::Fault(number));
            return Ok(());
        }
        let victim = |leads: bool| leader.filter(|_| leads).unwrap_or(any);
        self.trace.event(self.now, None, format_args!("{fault:?}"));
        match fault {
            Fault::Partition(_) | Fault::OneWay(_) | Fault::IsolateLeader(_) | Fault::Stall(_) => {
                self.cut(&fault, leader)
            }
            Fault::Reset => self.reset_link(),
            Fault::PowerLoss { leader, down } => self.end(victim(leader), true, down),
            Fault::Kill { leader, down } => self.end(victim(leader), false, down),
            Fault::CrashInDisk { operations, .. } => self.arm(any, number, operations, Blow::PowerLoss),
            Fault::SyncError => self.arm(any, number, 0, Blow::SyncError),
            Fault::CrashInRecovery { .. } => {
                self.end(any, false, MS);
                self.host(any).trap = Some(number);
            }
            Fault::AllDown(down) => {
                for id in running {
                    self.end(id, true, down);
                }
                self.coverage.hit(Kind::AllDown);
            }
            Fault::SlowDisk { lasts, factor } => {
                self.host(any).slowness = factor;
                self.coverage.hit(Kind::SlowDisk);
                self.after(lasts, Happening::Restore(Restore::Speed(any)));
            }
            Fault::Pause(lasts) => {
                self.host(any).paused_until = self.now + lasts;
                self.coverage.hit(Kind::Pause);
            }
            Fault::FullDisk(lasts) => {
                let disk = &self.hosts[&any].disk;
                disk.limit(Some(disk.used()));
                self.coverage.hit(Kind::FullDisk);
                self.after(lasts, Happening::Restore(Restore::Space(any)));
            }
            Fault::Transfer => {
                self.coverage.hit(Kind::Transfer);
                let to = Some(any).filter(|to| Some(*to) != leader);
                return self.step_node(leader.expect("just seen"), Event::Transfer(to));
            }
        }
        Ok(())
    }

    fn reset_link(&mut self) {
        let pairs = self.net.pairs();
        let pair = self.rng.pick(&pairs);
        self.coverage.hit(Kind::Reset);
        if self.net.reset(pair) {
            let run = self.hosts[&pair.0].run;
            self.after(MS, Happening::LinkNews { pair, run, up: false });
        }
    }

    fn arm(&mut self, id: NodeId, number: usize, operations: u64, blow: Blow) {
        let host = self.host(id);
        host.armed = Some(number);
        host.disk.arm(operations, blow);
    }

    /// A start with a trap: power fails in one of its disk operations.
    pub(crate) fn set_trap(&mut self, id: NodeId, number: usize) {
        if let Fault::CrashInRecovery { operations } = self.params.plan[number].1 {
            self.hosts[&id].disk.arm(operations, Blow::PowerLoss);
        }
    }

    /// The start had fewer operations than that: the trap is set again, for an earlier one.
    pub(crate) fn trap_missed(&mut self, id: NodeId, number: usize) {
        self.hosts[&id].disk.disarm();
        if let Fault::CrashInRecovery { operations } = &mut self.params.plan[number].1
            && *operations > 0
        {
            *operations /= 2;
            self.after(100 * MS, Happening::Fault(number));
        }
    }

    fn cut(&mut self, fault: &Fault, leader: Option<NodeId>) {
        let members: Vec<NodeId> = self.hosts.keys().copied().collect();
        let mut side: BTreeSet<NodeId> = members.iter().copied().filter(|_| self.rng.coin()).collect();
        if side.is_empty() || side.len() == members.len() {
            side = BTreeSet::from([self.rng.pick(&members)]);
        }
        let alone = |(from, to): Pair| Some(from) == leader || Some(to) == leader;
        let lasts = match fault {
            Fault::OneWay(lasts) => {
                self.net
                    .cut(|(from, to)| side.contains(&from) && !side.contains(&to));
                *lasts
            }
            Fault::Partition(lasts) => {
                self.net
                    .cut(|(from, to)| side.contains(&from) != side.contains(&to));
                *lasts
            }
            Fault::IsolateLeader(lasts) => {
                self.net.cut(alone);
                *lasts
            }
            Fault::Stall(lasts) => {
                self.net.cut(alone);
                let until = self.now + lasts;
                self.host(leader.expect("waited for")).paused_until = until;
                lasts + 300 * MS
            }
            _ => unreachable!("not a cut"),
        };
        self.coverage.hit(fault.kind());
        self.after(lasts, Happening::Restore(Restore::Network));
    }

    /// A fault is over.
    pub(crate) fn restore(&mut self, what: Restore) {
        self.trace.event(self.now, None, format_args!("over: {what:?}"));
        match what {
            Restore::Network => self.net.cut(|_| false),
            Restore::Speed(id) => self.host(id).slowness = 1,
            Restore::Space(id) => self.hosts[&id].disk.limit(None),
        }
    }

    /// The process ends now: with the power (`power`), or killed. It starts again after `down`.
    pub(crate) fn end(&mut self, id: NodeId, power: bool, down: Nanos) {
        let run = self.hosts[&id].run;
        let host = self.hosts.get_mut(&id).expect("a member has a machine");
        host.paused_until = 0;
        let process = host.process.take();
        let missed = host
            .armed
            .take()
            .filter(|_| host.disk.is_armed() && !host.disk.is_dead());
        // A failed sync must end the process, or it is not counted and found missing.
        if host.disk.has_failed_sync() {
            self.coverage.hit(Kind::SyncError);
        }
        if power {
            let report = host.disk.crash();
            self.coverage.hit(Kind::PowerLoss);
            if report.is_torn() {
                self.coverage.hit(Kind::TornWrite);
            }
            self.trace
                .event(self.now, Some(id), format_args!("LOSES POWER, {report:?}"));
        } else {
            host.disk.kill();
            self.coverage.hit(Kind::Kill);
            self.trace.event(self.now, Some(id), format_args!("IS KILLED"));
        }
        // Whatever its parts try to write while they are dropped fails, as after kill -9, and may make them panic.
        let _ = catch(|| drop(process));
        self.ghost.crashed(id);
        self.hang_up(id);
        let orphans: Vec<_> = self
            .pending
            .keys()
            .filter(|(node, of, _)| *node == id && *of == run)
            .copied()
            .collect();
        for (node, _, token) in orphans {
            self.answer(node, token, Outcome::Unknown);
        }
        if let Some(number) = missed {
            self.after(100 * MS, Happening::Fault(number));
        }
        self.after(down, Happening::Start(id));
    }

    /// The process cannot go on because of its disk: power failed inside an operation, or there was no space to start.
    pub(crate) fn end_in_disk(&mut self, id: NodeId, starting: bool, least: Nanos) -> Result<(), Failure> {
        let mut power = false;
        if self.hosts[&id].disk.is_dead() {
            power = self.rng.below(3) > 0;
            self.coverage.hit(if starting {
                Kind::CrashInRecovery
            } else {
                Kind::CrashInDisk
            });
        }
        let down = least + self.rng.within(MS..3_000 * MS);
        self.end(id, power, down);
        Ok(())
    }
}
