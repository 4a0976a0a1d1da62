//! The lives of machines: how one comes into the world, how its processes start and end, how it learns that it is no member any
//! longer, and how it is destroyed.

use std::collections::BTreeSet;

use quorate_base::{Index, NodeId};
use quorate_node::event::Event;
use quorate_node::handshake::{FEATURE_LEVEL, Hello, Refusal};
use quorate_raft::Config;

use crate::clock::Clock;
use crate::coverage::Kind;
use crate::disk::{Blow, SimDisk};
use crate::failure::{Failure, catch};
use crate::history::Outcome;
use crate::host::{Host, StartFailure};
use crate::params::{MS, Params, SEC};
use crate::picture::Topic;
use crate::plan::{Fault, Pretence};
use crate::rng::Rng;
use crate::trace::Nanos;
use crate::turn::is_told;
use crate::world::{Happening, World};

impl World {
    /// A machine with an empty disk comes up for a member that joins the running cluster. It starts when it is a member.
    pub(crate) fn enlist(&mut self, id: NodeId) {
        if self.hosts.contains_key(&id) {
            return;
        }
        if self.survivors.is_some() {
            // Nothing new comes to those who are left on their own.
            self.parked.push(Happening::Enlist(id));
            return;
        }
        let mut host = new_host(&self.params, id, &mut self.rng);
        host.founder = false;
        host.features = FEATURE_LEVEL;
        self.add_host(host, Config::default());
        self.after(0, Happening::Start(id));
    }

    /// A machine is there, with links to all others.
    pub(crate) fn add_host(&mut self, host: Host, config: Config) {
        let id = host.id;
        self.net.add(id);
        for pair in self.net.pairs() {
            if pair.0 == id || pair.1 == id {
                let at = self.rng.within(0..100 * MS);
                self.after(at, Happening::Dial { pair });
            }
        }
        self.ghost.join(id, config);
        self.hosts.insert(id, host);
    }

    /// The machine is gone for good, with its disk.
    pub(crate) fn destroy(&mut self, id: NodeId) -> Result<(), Failure> {
        // In the end removed members have to go by themselves.
        if self.healing || !self.hosts.contains_key(&id) {
            return Ok(());
        }
        if self.hosts[&id].process.is_some() {
            self.end(id, false, 0);
        }
        self.trace
            .mark(Topic::Life, self.now, Some(id), format_args!("IS DESTROYED"));
        self.coverage.hit(Kind::Destroyed);
        // What was to strike here strikes elsewhere.
        let host = self.host(id);
        for number in [host.trap.take(), host.armed.take()].into_iter().flatten() {
            self.after(100 * MS, Happening::Fault(number));
        }
        self.hosts.remove(&id);
        self.net.remove(id);
        self.ghost.destroyed(id)?;
        Ok(())
    }

    /// A process starts, or tries to.
    pub(crate) fn start(&mut self, id: NodeId) -> Result<(), Failure> {
        let Some(host) = self.hosts.get(&id) else {
            return Ok(());
        };
        if host.process.is_some() || host.expelled || host.broken {
            return Ok(());
        }
        if host.stalled_until > self.now {
            self.at(host.stalled_until, Happening::Start(id));
            return Ok(());
        }
        let Some(contacts) = self.inquire(id) else {
            self.after(300 * MS, Happening::Start(id));
            return Ok(());
        };
        // What the founders understand stands in the first record of their logs, so they learn more only later.
        let learns = self.ghost.last(id).index > Index::ZERO && self.rng.coin();
        let host = self.host(id);
        if learns {
            host.features = FEATURE_LEVEL;
        }
        host.run += 1;
        let trap = self.host(id).trap.take();
        if let Some(number) = trap {
            self.set_trap(id, number);
        }
        let host = &self.hosts[&id];
        let (params, founding) = (&self.params, host.founder.then(|| self.founding.clone()));
        let result = catch(|| host.boot(params, founding));
        // Who has found its log damaged does not start, and the trap may have sprung after that.
        let refused = matches!(result, Ok(Err(StartFailure::Refused(_))));
        if let Some(number) = trap.filter(|_| refused || !self.hosts[&id].disk.is_dead()) {
            self.trap_missed(id, number, matches!(result, Ok(Ok(_))));
        }
        let host = &self.hosts[&id];
        let mut booted = match result {
            Ok(Ok(booted)) => booted,
            Ok(Err(StartFailure::Refused(why))) => return self.refused_to_start(id, &why),
            Err(why) if !host.disk.is_dead() && !is_told(&why) => {
                return Err(Failure::Crash(format!("n{id} starting: {why}")));
            }
            Ok(Err(StartFailure::Disk(why))) | Err(why) => {
                self.trace.mark(
                    Topic::Life,
                    self.now,
                    Some(id),
                    format_args!("does not start: {why}"),
                );
                return self.end_in_disk(id, true, 500 * MS);
            }
        };
        if self.hosts[&id].run > 1 {
            self.coverage.hit(Kind::Restart);
        }
        if self.hosts[&id].rotted_by.is_none() || self.hosts[&id].in_store {
            self.ghost.recovered(id, &booted.found)?;
        } else if !self.examine(id, &mut booted.process, &booted.found)? {
            return Ok(());
        }
        let raft = booted.process.node.raft();
        let (term, commit, last) = (raft.term(), raft.commit(), raft.last());
        let applied = booted.process.told_durable;
        self.check_stored(id, Index(applied))?;
        self.host(id).stored = Index(applied);
        self.trace.mark(
            Topic::Life,
            self.now,
            Some(id),
            format_args!("starts in term {term}, log {last}, commit {commit}, applied {applied}"),
        );
        let hard = booted.found.hard.unwrap_or_default();
        let base = booted
            .found
            .mark
            .as_ref()
            .map_or(Index::ZERO, |meta| meta.last.index);
        if commit != hard.commit.max(Index(applied)).max(base) {
            let what = format!(
                "S9: n{id} starts with commit {commit}, recorded {}, applied {applied}",
                hard.commit
            );
            return Err(Failure::Correctness(what));
        }
        booted.process.contacts.extend(contacts);
        let started = self.hosts[&id].local(self.now);
        booted.process.started = started;
        self.host(id).process = Some(booted.process);
        self.host(id).dark = false;
        self.machine_start(id);
        self.step_node(id, Event::Wake)
    }

    /// Whom a node can ask for the cluster when its own log does not say: the founders know; one that joins asks around until some
    /// member says that it is one. `None` if nobody says so yet.
    fn inquire(&mut self, id: NodeId) -> Option<BTreeSet<NodeId>> {
        let host = &self.hosts[&id];
        if host.founder {
            return Some(self.founding.members());
        }
        if !host.told.is_empty() {
            return Some(host.told.clone());
        }
        let others = self.hosts.values().filter(|host| !host.impostor);
        let others: Vec<NodeId> = others.map(|host| host.id).collect();
        let asked = self.rng.pick(&others);
        let asked = &self.hosts[&asked];
        let config = asked.process.as_ref()?.node.raft().config();
        let reached = self.net.link((id, asked.id)).is_some_and(|link| !link.cut);
        if !reached || !config.is_member(self.hosts[&id].member) {
            return None;
        }
        let told = config.members();
        self.host(id).told = told.clone();
        Some(told)
    }

    /// A node does not start on what its disk holds. Right only if the disk was damaged.
    fn refused_to_start(&mut self, id: NodeId, why: &str) -> Result<(), Failure> {
        if self.may_be_torn(id, why) {
            self.trace.mark(
                Topic::Fault,
                self.now,
                Some(id),
                format_args!("takes what it was writing for damaged"),
            );
            return self.give_up_disk(id);
        }
        if !self.hosts[&id].rotten {
            return Err(Failure::Crash(format!("n{id} refuses to start: {why}")));
        }
        self.trace.mark(
            Topic::Life,
            self.now,
            Some(id),
            format_args!("refuses to start: {why}"),
        );
        if self.hosts[&id].in_store {
            self.names_damage(id, why)?;
        }
        let fault = self.hosts[&id]
            .rotted_by
            .map(|number| &self.params.plan[number].fault);
        self.coverage.hit(match fault {
            Some(Fault::BitRot { .. }) => Kind::BitRotFound,
            Some(Fault::StoreRot { .. } | Fault::StoreLostWrite { .. }) => Kind::StoreDamageFound,
            _ => Kind::DamageFound,
        });
        self.give_up_disk(id)
    }

    /// A peer told this process that it must never come back, and it ends.
    pub(crate) fn expel(&mut self, id: NodeId, by: NodeId, why: Refusal) -> Result<(), Failure> {
        self.trace.mark(
            Topic::Life,
            self.now,
            Some(id),
            format_args!("is refused by n{by}: {why}"),
        );
        let host = &self.hosts[&id];
        let removed = self.ghost.commits().config().removed.contains(&host.member);
        let pretence = self.pretence_of(id);
        let outsider = !self.ghost.commits().config().is_member(by);
        match (&why, pretence) {
            (Refusal::Removed { .. }, None) if removed => {
                self.coverage.hit(Kind::RemovedRefused);
            }
            (Refusal::Wiped { .. }, Some(Pretence::Wiped)) => self.struck(Kind::WipedRefused, &[by]),
            (Refusal::OlderData { .. }, Some(Pretence::Backup)) => {
                self.struck(Kind::BackupRefused, &[by]);
            }
            // Who is no member any more need not have heard of the member's last start, and takes the copy for a twin of the one before.
            (Refusal::Duplicate { .. }, Some(Pretence::Backup)) if outsider => {}
            // The member itself may have started again since the copy was seen to be one.
            (Refusal::Duplicate { .. } | Refusal::OlderData { .. }, Some(Pretence::Duplicate)) => {
                self.struck(Kind::DuplicateRefused, &[by]);
            }
            _ => {
                let what = format!("identity: n{by} refuses n{id} for good: {why}");
                return Err(Failure::Correctness(what));
            }
        }
        self.retire(id);
        Ok(())
    }

    /// A node has learned from its log that it was removed, and ends.
    pub(crate) fn leave(&mut self, id: NodeId) -> Result<(), Failure> {
        if !self
            .ghost
            .commits()
            .config()
            .removed
            .contains(&self.hosts[&id].member)
        {
            let what = format!("S11: n{id} says that it was removed, and it was not");
            return Err(Failure::Correctness(what));
        }
        self.coverage.hit(Kind::LeftByItself);
        self.retire(id);
        Ok(())
    }

    /// Notes, apart from the listener's own roster, what it has durably seen of a peer.
    pub(crate) fn record_acceptance(
        &mut self,
        machine: NodeId,
        by: NodeId,
        hello: &Hello,
    ) -> Result<(), Failure> {
        let false_name = self.hosts.get(&machine).is_some_and(|host| host.impostor);
        if false_name && self.ghost.commits().config().is_member(by) {
            let what = format!("identity: n{by} lets an impostor of n{} in", hello.from);
            return Err(Failure::Correctness(what));
        }
        let Some(papers) = &hello.papers else {
            return Ok(());
        };
        let shown = (papers.incarnation, hello.boot);
        let seen = self.recorded.insert((by, hello.from), shown);
        if seen.is_some_and(|seen| seen.0 != shown.0 || seen.1 > shown.1) {
            let what = format!(
                "identity: n{by} has seen {seen:?} of n{} and accepts {shown:?}",
                hello.from
            );
            return Err(Failure::Correctness(what));
        }
        Ok(())
    }

    /// The process ends and does not start again.
    pub(crate) fn retire(&mut self, id: NodeId) {
        self.host(id).expelled = true;
        self.end(id, false, 0);
        if self.hosts[&id].impostor {
            self.after(0, Happening::Unmask);
        }
    }

    /// The process ends now: with the power (`power`), or killed. It starts again after `down`.
    pub(crate) fn end(&mut self, id: NodeId, power: bool, down: Nanos) {
        // An error must end the process, or it is not counted and found missing.
        if let Some(kind) = self.hosts[&id].disk.failed().and_then(Blow::told_as) {
            self.struck(kind, &[id]);
        }
        let run = self.hosts[&id].run;
        let host = self.hosts.get_mut(&id).expect("a member has a machine");
        host.paused_until = 0;
        host.clock.go_on(self.now);
        host.dark = power;
        if power {
            host.stalled_until = 0;
        }
        let process = host.process.take();
        let missed = host
            .armed
            .take()
            .filter(|_| host.disk.is_armed() && !host.disk.is_dead());
        if power {
            let report = host.disk.crash();
            if report.is_torn() {
                self.coverage.hit(Kind::TornWrite);
            }
            self.trace.mark(
                Topic::Life,
                self.now,
                Some(id),
                format_args!("LOSES POWER, {report:?}"),
            );
        } else {
            host.disk.kill();
            self.trace
                .mark(Topic::Life, self.now, Some(id), format_args!("IS KILLED"));
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
        self.operator_lost(id);
        if let Some(number) = missed {
            self.fuse_missed(id, number);
        }
        self.after(down, Happening::Start(id));
    }

    /// The process cannot go on because of its disk: power failed inside an operation, or there was no space to start.
    pub(crate) fn end_in_disk(&mut self, id: NodeId, starting: bool, least: Nanos) -> Result<(), Failure> {
        let mut power = false;
        if self.hosts[&id].disk.is_dead() {
            power = self.rng.below(3) > 0;
            let kind = match starting {
                true => Kind::CrashInRecovery,
                false => Kind::CrashInDisk,
            };
            self.struck(kind, &[id]);
        }
        let down = least + self.rng.within(MS..3_000 * MS);
        self.end(id, power, down);
        Ok(())
    }

    /// Machines whose members are removed for good go on for a while, and are then destroyed.
    pub(crate) fn doom_removed(&mut self) {
        let removed = self.ghost.commits().config().removed.clone();
        for id in removed {
            let Some(host) = self.hosts.get_mut(&id).filter(|host| !host.doomed) else {
                continue;
            };
            host.doomed = true;
            let delay = self.rng.within(100 * MS..15 * SEC);
            self.after(delay, Happening::Destroy(id));
        }
    }
}

/// A machine of a founder.
pub(crate) fn new_host(params: &Params, id: NodeId, rng: &mut Rng) -> Host {
    let disk = SimDisk::new(rng.fork());
    if params.lying_disks {
        disk.lie();
    }
    let drawn = params.draw_drift(rng);
    let drift = params.drift.get(id.0 as usize - 1).copied();
    Host {
        clock: Clock::new(drift.unwrap_or(drawn)),
        priority: params.draw_priority(rng),
        features: params.features,
        ..Host::new(id, disk)
    }
}
