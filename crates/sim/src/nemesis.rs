//! Faults: what each planned one does when it strikes, and how it ends.

use quorate_base::NodeId;
use quorate_node::event::Event;
use quorate_raft::{Config, RoleKind, WriteId};

use crate::coverage::Kind;
use crate::cuts;
use crate::disk::Blow;
use crate::failure::Failure;
use crate::ghost::quorum::electors;
use crate::params::MS;
use crate::picture::Topic;
use crate::plan::Fault;
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
        let needs_leader = matches!(
            fault,
            Fault::Transfer
                | Fault::FalseHint
                | Fault::IsolateLeader(_)
                | Fault::CutFollower(_)
                | Fault::Stall(_)
        );
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
        self.trace
            .mark(Topic::Fault, self.now, None, format_args!("{fault:?}"));
        match fault {
            Fault::Partition(lasts)
            | Fault::OneWay(lasts)
            | Fault::IsolateLeader(lasts)
            | Fault::CutFollower(lasts)
            | Fault::OneLink(lasts)
            | Fault::Hub { lasts, .. }
            | Fault::Chain(lasts) => self.cut(&fault, lasts, leader),
            Fault::Stall(lasts) => {
                self.cut(&fault, lasts + 300 * MS, leader);
                let until = self.now + lasts;
                self.host(leader.expect("waited for")).paused_until = until;
            }
            Fault::StallDisk { leader, lasts } => self.stall_disk(victim(leader), lasts),
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
            Fault::Impostor(pretence) => self.prepare_impostor(number, pretence),
            Fault::OtherCluster => return self.greet_from_elsewhere(number),
            Fault::FalseHint => return self.hint_falsely(leader.expect("waited for")),
            Fault::BitRot { flips } => self.rot(number, any, flips),
            Fault::Transfer => {
                self.coverage.hit(Kind::Transfer);
                let to = Some(any).filter(|to| Some(*to) != leader);
                return self.step_node(leader.expect("just seen"), Event::Transfer(to));
            }
        }
        Ok(())
    }

    /// Some who run are told that a leader that does well is gone.
    fn hint_falsely(&mut self, leader: NodeId) -> Result<(), Failure> {
        self.coverage.hit(Kind::FalseHint);
        let all = self.rng.coin();
        for id in self.running() {
            if id != leader && (all || self.rng.coin()) {
                self.step_node(id, Event::Gone(leader))?;
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

    fn cut(&mut self, fault: &Fault, lasts: Nanos, leader: Option<NodeId>) {
        let nodes: Vec<NodeId> = self.hosts.keys().copied().collect();
        let severed = cuts::severed(fault, &nodes, leader, &mut self.rng);
        self.net.cut(|pair| severed.contains(&pair));
        self.coverage.hit(fault.kind());
        self.after(lasts, Happening::Restore(Restore::Network));
    }

    /// Operations of a disk do not return for a while. A leader that finds it out must not go on leading.
    pub(crate) fn stall_disk(&mut self, id: NodeId, lasts: Nanos) {
        let until = self.now.saturating_add(lasts);
        self.host(id).stalled_until = until;
        self.coverage.hit(Kind::StallDisk);
        self.watch_stall(id);
    }

    /// The disk returns again.
    pub(crate) fn free_disk(&mut self, id: NodeId) {
        let run = self.hosts[&id].run;
        self.host(id).stalled_until = 0;
        let Some(process) = self.process(id) else {
            self.after(0, Happening::Start(id));
            return;
        };
        let (at_work, has_job) = (process.disk_busy, process.job.is_some());
        if at_work {
            self.after(0, Happening::DiskTurn { id, run });
        }
        if has_job {
            self.after(0, Happening::JobTurn { id, run });
        }
    }

    /// Looks again when the oldest write that has not returned is two election timeouts old.
    pub(crate) fn watch_stall(&mut self, id: NodeId) {
        let host = &self.hosts[&id];
        let (run, Some(process)) = (host.run, &host.process) else {
            return;
        };
        let Some((write, since)) = process.outstanding.front().copied() else {
            return;
        };
        if host.stalled_until > self.now {
            let limit = host.global(host.local(since) + 2 * self.params.election);
            let limit = limit.max(host.paused_until + 2 * self.params.election);
            let leads = process.node.raft().role() == RoleKind::Leader;
            self.process(id).expect("just seen").led_in_stall = leads;
            self.at(limit + 1, Happening::StallCheck { id, run, write });
        }
    }

    /// A write of a stalled disk has been out for two election timeouts: a leader must have given up by now.
    pub(crate) fn check_stall(&mut self, id: NodeId, write: WriteId) -> Result<(), Failure> {
        let host = &self.hosts[&id];
        // A process that stood still has had no time yet to find anything out; and the disk may have returned meanwhile.
        if host.stalled_until <= self.now || host.paused_until + 2 * self.params.election > self.now {
            self.watch_stall(id);
            return Ok(());
        }
        let process = host.process.as_ref().expect("a void check is dropped");
        let out = process.outstanding.front().copied();
        match out {
            Some((oldest, since)) if oldest == write => {
                let raft = process.node.raft();
                // Nobody else can be elected while it is the only voter of what is committed, whatever its log has after that.
                let committed = self.ghost.commits().config();
                let only = |config: &Config| electors(config).iter().all(|other| *other == id);
                let alone = only(raft.config()) || only(committed);
                if raft.role() == RoleKind::Leader && !alone {
                    return Err(Failure::Liveness(format!(
                        "n{id} leads, and its disk has not returned write {write} since {since}"
                    )));
                }
                if process.led_in_stall {
                    self.coverage.hit(Kind::StalledLeaderLeft);
                }
            }
            Some(_) => self.watch_stall(id),
            None => {}
        }
        Ok(())
    }

    /// A fault is over.
    pub(crate) fn restore(&mut self, what: Restore) {
        self.trace
            .mark(Topic::Fault, self.now, None, format_args!("over: {what:?}"));
        match what {
            Restore::Network => self.net.cut(|_| false),
            Restore::Speed(id) => {
                if let Some(host) = self.hosts.get_mut(&id) {
                    host.slowness = 1;
                }
            }
            Restore::Space(id) => {
                if let Some(host) = self.hosts.get(&id) {
                    host.disk.limit(None);
                }
            }
        }
    }
}
