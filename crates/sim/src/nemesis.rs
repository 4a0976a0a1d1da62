//! Faults: what each planned one does when it strikes, and how it ends.

use std::collections::BTreeSet;

use quorate_base::NodeId;
use quorate_node::event::Event;
use quorate_raft::{Config, RoleKind, WriteId};

use crate::coverage::Kind;
use crate::cuts;
use crate::disk::Blow;
use crate::failure::Failure;
use crate::ghost::quorum::electors;
use crate::net::Pair;
use crate::params::MS;
use crate::picture::Topic;
use crate::plan::Fault;
use crate::trace::Nanos;
use crate::world::{Happening, World};

/// What ends with a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Restore {
    /// This cut of the network is over.
    Network(u64),
    /// The disk is as fast as before.
    Speed(NodeId),
    /// The disk has space again.
    Space(NodeId),
    /// The machine's clock goes on.
    Clock(NodeId),
}

/// Links that come and go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flapping {
    /// The cut's name.
    name: u64,
    pairs: BTreeSet<Pair>,
    rhythm: Nanos,
    until: Nanos,
    /// They are cut.
    down: bool,
}

impl World {
    /// A planned fault strikes `chosen`, or whom chance gives, or waits until it has somebody to strike.
    pub(crate) fn strike(&mut self, number: usize, chosen: Option<NodeId>) -> Result<(), Failure> {
        if self.healing {
            return Ok(());
        }
        let fault = self.params.plan[number].fault.clone();
        let mut running = self.running();
        if fault.blow().is_some() {
            // A machine that has become no member writes nothing more, and nothing would come of it.
            let config = self.ghost.commits().config();
            running.retain(|id| config.is_member(*id));
        }
        let leader = self.leader();
        let needs_leader = matches!(
            fault,
            Fault::Transfer
                | Fault::FalseHint
                | Fault::IsolateLeader(_)
                | Fault::CutFollower(_)
                | Fault::Stall(_)
        );
        let chosen = chosen.filter(|id| running.contains(id));
        let any = chosen.or_else(|| (!running.is_empty()).then(|| self.rng.pick(&running)));
        let busy = any.is_some_and(|any| fault.blow().is_some() && self.hosts[&any].disk.is_armed());
        let Some(any) = any.filter(|_| !busy && (!needs_leader || leader.is_some())) else {
            self.after(50 * MS, Happening::Fault(number));
            return Ok(());
        };
        if !fault.wants_dispensable() {
            self.trace
                .mark(Topic::Fault, self.now, None, format_args!("{fault:?}"));
        }
        match fault {
            Fault::Partition(lasts)
            | Fault::OneWay(lasts)
            | Fault::IsolateLeader(lasts)
            | Fault::CutFollower(lasts)
            | Fault::OneLink(lasts)
            | Fault::Hub { lasts, .. }
            | Fault::Chain(lasts) => self.cut(number, &fault, lasts, chosen),
            Fault::Stall(lasts) => {
                self.cut(number, &fault, lasts + 300 * MS, None);
                self.pause(leader.expect("waited for"), lasts);
            }
            Fault::Flap { .. } => self.start_flapping(number, &fault, any),
            Fault::Reset => self.reset_link(any),
            Fault::Transfer => self.ask_to_hand_over(leader.expect("waited for"), any),
            Fault::FalseHint => self.mislead(number, leader.expect("waited for"), any),
            Fault::Impostor(pretence) => self.prepare_impostor(number, pretence),
            Fault::OtherCluster => return self.greet_from_elsewhere(number, any),
            // It lies in wait where messages are sent.
            Fault::Message(_) => {}
            Fault::BitRot { flips } => self.rot(number, any, flips),
            _ if fault.wants_dispensable() => self.spoil(number, any),
            _ => self.strike_one(number, &fault, any, chosen.or(leader)),
        }
        Ok(())
    }

    /// Faults of one machine (or of each for itself): `any`, or `leader` where the fault wants that one.
    fn strike_one(&mut self, number: usize, fault: &Fault, any: NodeId, leader: Option<NodeId>) {
        let victim = |leads: bool| leader.filter(|_| leads).unwrap_or(any);
        match *fault {
            Fault::StallDisk { leader, lasts } => self.stall_disk(victim(leader), lasts),
            Fault::PowerLoss { leader, down } => {
                self.struck(Kind::PowerLoss, &[victim(leader)]);
                self.end(victim(leader), true, down);
            }
            Fault::Kill { leader, down } => {
                self.struck(Kind::Kill, &[victim(leader)]);
                self.end(victim(leader), false, down);
            }
            Fault::CrashInRecovery { .. } => {
                self.end(any, false, MS);
                self.host(any).trap = Some(number);
            }
            Fault::AllDown(down) => {
                let running = self.running();
                self.struck(Kind::AllDown, &running);
                for id in running {
                    self.end(id, true, down);
                }
            }
            Fault::SlowDisk { lasts, factor } => {
                self.struck(Kind::SlowDisk, &[any]);
                let until = self.now + lasts;
                let host = self.host(any);
                (host.slowness, host.slow_until) = (factor, host.slow_until.max(until));
                self.at(until, Happening::Restore(Restore::Speed(any)));
            }
            Fault::FullDisk(lasts) => {
                self.struck(Kind::FullDisk, &[any]);
                let until = self.now + lasts;
                let host = self.host(any);
                host.full_until = host.full_until.max(until);
                host.disk.limit(Some(host.disk.used()));
                self.at(until, Happening::Restore(Restore::Space(any)));
            }
            Fault::Pause(lasts) => {
                self.struck(Kind::Pause, &[any]);
                self.pause(any, lasts);
            }
            Fault::Suspend(lasts) => {
                self.struck(Kind::Suspend, &[any]);
                let now = self.now;
                self.host(any).clock.stop(now);
                self.pause(any, lasts);
                self.after(lasts, Happening::Restore(Restore::Clock(any)));
            }
            Fault::ClockLeap(by) => {
                self.struck(Kind::ClockLeap, &[any]);
                self.host(any).clock.leap(by);
                self.ghost.leases.leapt(any, self.now, by);
                self.set_wake(any);
            }
            _ => {
                let blow = fault.blow().expect("all other faults are of the disk");
                let host = self.host(any);
                host.armed = Some(number);
                host.disk.arm(fault.delay(), blow);
            }
        }
    }

    /// A machine stands still.
    pub(crate) fn pause(&mut self, id: NodeId, lasts: Nanos) {
        let until = self.now + lasts;
        let host = self.host(id);
        host.paused_until = host.paused_until.max(until);
    }

    /// The leader is asked to hand over to `to`, or to whom it likes.
    fn ask_to_hand_over(&mut self, leader: NodeId, to: NodeId) {
        self.struck(Kind::Transfer, &[leader]);
        self.tell(leader, Event::Transfer(Some(to).filter(|to| *to != leader)));
    }

    /// Some who run, `first` among them if it does not lead itself, are told that the leader is gone, though it does well. It strikes them and
    /// the leader.
    fn mislead(&mut self, number: usize, leader: NodeId, first: NodeId) {
        let mut others = self.running();
        others.retain(|id| *id != leader);
        if others.is_empty() {
            return self.after(50 * MS, Happening::Fault(number));
        }
        let first = match first == leader {
            true => self.rng.pick(&others),
            false => first,
        };
        let share = self.rng.pick(&[0, 500_000, 1_000_000]);
        others.retain(|id| *id == first || self.rng.chance(share));
        self.struck(Kind::FalseHint, &[&others[..], &[leader]].concat());
        for id in others {
            self.tell(id, Event::Gone(leader));
        }
    }

    fn tell(&mut self, id: NodeId, event: Event) {
        let run = self.hosts[&id].run;
        self.after(0, Happening::Completion { id, run, event });
    }

    fn reset_link(&mut self, id: NodeId) {
        let pairs = self.net.pairs();
        let pairs: Vec<Pair> = pairs
            .into_iter()
            .filter(|pair| pair.0 == id || pair.1 == id)
            .collect();
        if pairs.is_empty() {
            return;
        }
        let pair = self.rng.pick(&pairs);
        self.struck(Kind::Reset, &[pair.0, pair.1]);
        if self.net.reset(pair) {
            let run = self.hosts[&pair.0].run;
            self.after(MS, Happening::LinkNews { pair, run, up: false });
        }
    }

    /// A start with a trap: power fails in one of its disk operations.
    pub(crate) fn set_trap(&mut self, id: NodeId, number: usize) {
        if let Fault::CrashInRecovery { operations } = self.params.plan[number].fault {
            self.hosts[&id].disk.arm(operations, Blow::PowerLoss);
        }
    }

    /// The start had fewer operations than that, or failed for another reason: the trap is set again, for an earlier one.
    pub(crate) fn trap_missed(&mut self, id: NodeId, number: usize, started: bool) {
        self.hosts[&id].disk.disarm();
        if let Fault::CrashInRecovery { operations } = &mut self.params.plan[number].fault
            && (*operations > 0 || !started)
        {
            *operations /= 2;
            self.after(100 * MS, Happening::Fault(number));
        }
    }

    fn cut(&mut self, number: usize, fault: &Fault, lasts: Nanos, chosen: Option<NodeId>) {
        let nodes: Vec<NodeId> = self.hosts.keys().copied().collect();
        let severed = cuts::severed(fault, &nodes, self.leader(), chosen, &mut self.rng);
        let ends: BTreeSet<NodeId> = severed.iter().flat_map(|pair| [pair.0, pair.1]).collect();
        self.struck(fault.kind(), &ends.into_iter().collect::<Vec<_>>());
        let name = number as u64;
        self.net.sever(name, severed);
        self.after(lasts, Happening::Restore(Restore::Network(name)));
    }

    fn start_flapping(&mut self, number: usize, fault: &Fault, id: NodeId) {
        let Fault::Flap { lasts, rhythm, all } = *fault else {
            return;
        };
        let mut pairs = self.net.pairs();
        pairs.retain(|pair| pair.0 == id || pair.1 == id);
        if !all && !pairs.is_empty() {
            pairs = vec![self.rng.pick(&pairs)];
        }
        self.struck(Kind::Flap, &[id]);
        self.flap(Flapping {
            name: number as u64,
            pairs: pairs.into_iter().collect(),
            rhythm,
            until: self.now + lasts,
            down: false,
        });
    }

    /// Links that come and go do so once more.
    pub(crate) fn flap(&mut self, mut flapping: Flapping) {
        let over = self.healing || flapping.until <= self.now;
        if flapping.down || over {
            self.net.mend(flapping.name);
        } else {
            self.net.sever(flapping.name, flapping.pairs.clone());
        }
        flapping.down = !flapping.down;
        if !over {
            let pause = self.rng.log_within(MS..flapping.rhythm + MS + 1);
            self.after(pause, Happening::Flap(flapping));
        }
    }

    /// Operations of a disk do not return for a while. A leader that finds it out must not go on leading.
    pub(crate) fn stall_disk(&mut self, id: NodeId, lasts: Nanos) {
        self.struck(Kind::StallDisk, &[id]);
        let until = self.now.saturating_add(lasts);
        let host = self.host(id);
        host.stalled_until = host.stalled_until.max(until);
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
        let now = self.now;
        match what {
            Restore::Network(name) => self.net.mend(name),
            Restore::Speed(id) => {
                if let Some(host) = self.hosts.get_mut(&id).filter(|host| host.slow_until <= now) {
                    host.slowness = 1;
                }
            }
            Restore::Space(id) => {
                if let Some(host) = self.hosts.get(&id).filter(|host| host.full_until <= now) {
                    host.disk.limit(None);
                }
            }
            Restore::Clock(id) => {
                if let Some(host) = self.hosts.get_mut(&id) {
                    host.clock.go_on(now);
                }
            }
        }
    }
}
