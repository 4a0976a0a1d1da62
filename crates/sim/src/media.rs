//! Disks that break their word: bits that flip, at rest and in use; writes that are confirmed and lost; writes that are confirmed and land
//! elsewhere. All this is beyond the model that S5 is stated for, so from the moment it happens that disk is not counted on there, and it
//! is done only to a voter whose disk the cluster can do without. What must hold all the same: what the disk then shows is never taken for
//! something that it is not. The node does not start, or ends when it reads the damage, and is replaced; or its log is whole after all.
//!
//! There is one loss that no checksum shows: the very end of the log, which looks as if it had never been written. Whether a peer has
//! recorded that there was more, and would refuse the node, is counted; the run goes on without that node either way.

use quorate_base::{Index, NodeId};
use quorate_raft::Change;

use crate::coverage::Kind;
use crate::disk::Blow;
use crate::failure::Failure;
use crate::ghost::log::Recovered;
use crate::host::{Host, Process};
use crate::params::{MS, SEC};
use crate::picture::Topic;
use crate::plan::{Fault, When};
use crate::trace::Nanos;
use crate::world::{Happening, World};

/// How long a fault waits until the cluster can do without a disk.
const PATIENCE: Nanos = 30 * SEC;

impl World {
    /// Whether the cluster can do without this voter's disk, and no other disk is in doubt.
    pub(crate) fn is_dispensable(&self, victim: NodeId) -> bool {
        let config = self.ghost.commits().config();
        // Others may be down, but only for a while.
        config.voters.iter().all(|id| self.hosts.contains_key(id))
            && config.voters.len() > 2
            && config.voters.contains(&victim)
            && !config.is_joint()
            // Nor with a change that is in some log: it would be in force there, and might need that disk.
            && !self.hosts.values().any(Host::is_in_change)
            && self.ghost.all_configs().all(|acted_on| acted_on == config)
            && self.hosts.values().all(|host| !host.rotten || host.doomed)
            && self.operator.is_idle()
            && self.masquerade.is_none()
            && self.ghost.last(victim).index > Index::ZERO
    }

    /// Bits flip at rest on the disk of a node that is down.
    pub(crate) fn rot(&mut self, number: usize, victim: NodeId, flips: u64) {
        if !self.is_dispensable(victim) {
            return self.wait_or_give_up(number);
        }
        self.found_in(Kind::BitRotFound, victim);
        self.end(victim, true, 200 * MS);
        self.doubt(victim, number);
        for _ in 0..flips {
            self.hosts[&victim].disk.rot("wal-");
        }
    }

    /// The disk of a running node breaks its word, now or at one of the next writes.
    pub(crate) fn spoil(&mut self, number: usize, victim: NodeId) {
        let host = &self.hosts[&victim];
        if host.disk.is_armed() || !self.is_dispensable(victim) {
            return self.wait_or_give_up(number);
        }
        let fault = self.params.plan[number].fault.clone();
        if fault.is_of_store() {
            if !self.spoil_store(number, victim) {
                self.wait_or_give_up(number);
            }
            return;
        }
        self.doubt(victim, number);
        if let Fault::RotInUse { flips } = fault {
            for _ in 0..flips {
                self.hosts[&victim].disk.rot("wal-");
            }
            self.spoiled(Kind::RotInUse, victim);
        } else {
            let blow = fault.blow().expect("a fault of the disk");
            let host = self.host(victim);
            host.armed = Some(number);
            host.disk.arm(fault.delay(), blow);
        }
    }

    /// A fault that waits until the cluster can do without a disk waits some more, or is given up: some clusters never can.
    fn wait_or_give_up(&mut self, number: usize) {
        let strike = &self.params.plan[number];
        if self.now < strike.at + PATIENCE || matches!(strike.when, When::Only(_)) {
            return self.after(300 * MS, Happening::Fault(number));
        }
        let kind = strike.fault.kind();
        self.trace.mark(
            Topic::Fault,
            self.now,
            None,
            format_args!("given up: {:?}", strike.fault),
        );
        self.wanted.retain(|wanted| *wanted != kind);
    }

    /// A membership change is under way, and the cluster may come to need any disk: those that were to break their word do so later.
    pub(crate) fn spare_disks(&mut self) {
        let spared = |host: &&Host| host.rotted_by.is_some() && host.rotted_by == host.armed;
        let spared = self
            .hosts
            .values()
            .filter(spared)
            .filter(|host| host.disk.is_armed());
        let spared: Vec<(NodeId, usize)> = spared.filter_map(|host| Some((host.id, host.armed?))).collect();
        for (id, number) in spared {
            let host = self.host(id);
            host.disk.disarm();
            host.armed = None;
            self.fuse_missed(id, number);
        }
    }

    pub(crate) fn doubt(&mut self, id: NodeId, number: usize) {
        let fault = &self.params.plan[number].fault;
        self.trace
            .mark(Topic::Fault, self.now, Some(id), format_args!("{fault:?}"));
        let host = self.host(id);
        host.rotten = true;
        host.rotted_by = Some(number);
    }

    /// After a disk was at work: it may have broken its word.
    pub(crate) fn notice_spoiled(&mut self, id: NodeId) {
        let host = &self.hosts[&id];
        if host.rotted_by.is_none() || host.armed.is_none() {
            return;
        }
        let kind = match host.disk.take_struck() {
            Some(Blow::Lose { .. }) => Kind::LostWrite,
            Some(Blow::Misdirect { .. }) => Kind::MisdirectedWrite,
            _ => return,
        };
        self.host(id).armed = None;
        self.spoiled(kind, id);
    }

    /// A process was told of an error and goes on. That is right only where it could not read: who asked is told so, or it does without what
    /// it read for (what was staged before a restart). After a write or a sync that failed nobody knows what the medium holds, and a full disk, which
    /// is no such error, is the only one to be borne.
    pub(crate) fn notice_borne(&mut self, id: NodeId) -> Result<(), Failure> {
        let failed = self.hosts[&id].disk.take_failed();
        let Some((blow, kind)) = failed.and_then(|blow| Some((blow, blow.told_as()?))) else {
            return Ok(());
        };
        if blow != Blow::ReadError {
            let what = format!("S6: n{id} was told of a failed write or sync, {blow:?}, and goes on");
            return Err(Failure::Correctness(what));
        }
        self.struck(kind, &[id]);
        let host = self.host(id);
        // Something else may have been armed since.
        host.armed = host.armed.filter(|_| host.disk.is_armed());
        self.trace
            .mark(Topic::Fault, self.now, Some(id), format_args!("bears {blow:?}"));
        Ok(())
    }

    /// From now on nobody counts on this disk. Power fails before long, and shows what is on the medium.
    pub(crate) fn spoiled(&mut self, kind: Kind, id: NodeId) {
        self.struck(kind, &[id]);
        self.trace.mark(
            Topic::Fault,
            self.now,
            Some(id),
            format_args!("{kind:?}, and its disk does not say so"),
        );
        self.ghost.distrust(id);
        // Bits rot for longer, until somebody reads them or not.
        let delay = match kind {
            Kind::RotInUse | Kind::StoreRot | Kind::StoreLostWrite => self.rng.log_within(MS..12 * SEC),
            _ => self.rng.log_within(MS..6 * SEC),
        };
        self.after(delay, Happening::Suspect(id));
    }

    /// A disk in doubt is put to the test.
    pub(crate) fn suspect(&mut self, id: NodeId) -> Result<(), Failure> {
        let Some(host) = self.hosts.get(&id).filter(|host| host.rotted_by.is_some()) else {
            return Ok(());
        };
        let (runs, in_store) = (host.process.is_some(), host.in_store);
        if runs {
            self.end(id, true, 100 * MS);
        }
        if in_store {
            // A process that meets the damage as soon as it starts never runs for long: its store is looked at all the same, as the medium has it.
            if !runs {
                let host = self.host(id);
                host.disk.crash();
                host.dark = true;
            }
            return self.examine_store(id);
        }
        // It may not come up at once, and later without another loss of power.
        let again = if runs { 2 * SEC } else { 300 * MS };
        self.after(again, Happening::Suspect(id));
        Ok(())
    }

    /// All disks in doubt are put to the test before anything is demanded of the cluster.
    pub(crate) fn settle_doubts(&mut self) -> Result<(), Failure> {
        let ids: Vec<NodeId> = self.hosts.keys().copied().collect();
        for id in ids {
            if self.hosts[&id].rotted_by.is_some() {
                self.heal_machine(id, false);
                self.suspect(id)?;
            }
        }
        self.until(60 * SEC, "word of the disks in doubt", |world| {
            world.hosts.values().all(|host| host.rotted_by.is_none())
        })
    }

    /// A fault was to come in one of the next operations of a disk, and the process has ended before: it is planned again, for earlier.
    pub(crate) fn fuse_missed(&mut self, id: NodeId, number: usize) {
        self.params.plan[number].fault.hasten();
        let host = self.host(id);
        if host.rotted_by == Some(number) {
            (host.rotted_by, host.rotten) = (None, false);
        }
        self.after(100 * MS, Happening::Fault(number));
    }

    /// A node starts on a disk in doubt, whose log was read without complaint. Returns whether it may go on.
    pub(crate) fn examine(
        &mut self,
        id: NodeId,
        process: &mut Process,
        found: &Recovered,
    ) -> Result<bool, Failure> {
        let number = self.hosts[&id].rotted_by.expect("a disk in doubt");
        let fault = &self.params.plan[number].fault;
        let at_rest = matches!(fault, Fault::BitRot { .. });
        let may_lose = matches!(fault, Fault::LostWrite { .. } | Fault::MisdirectedWrite { .. });
        if may_lose && !self.ghost.is_whole(id, found) {
            self.ghost.recovered_less(id, found)?;
            self.keep_out(id, process)?;
            return Ok(false);
        }
        self.ghost.recovered(id, found)?;
        // As long as there was power, reads may have shown what the medium does not have.
        if self.hosts[&id].dark {
            let host = self.host(id);
            (host.rotten, host.rotted_by) = (false, None);
            self.ghost.trust(id)?;
        }
        if at_rest {
            // The bits that flipped were not read, and need not be ever: others are to flip.
            self.after(300 * MS, Happening::Fault(number));
        }
        Ok(true)
    }

    /// Whether a log may be refused though its disk has kept its word: of what the node was writing when it ended only one sector is missing, of which a
    /// single bit was one, so that this could be a bit that flipped (docs/wal.md, "What cannot be told"). The member is replaced.
    pub(crate) fn may_be_torn(&self, id: NodeId, why: &str) -> bool {
        let ambiguous = [
            "a sector with a single one bit became zero",
            "the footer's last one bit became zero",
        ];
        let host = &self.hosts[&id];
        let down = host.process.is_none() && !host.impostor;
        down && self.ghost.was_appending(host.member)
            && ambiguous.iter().any(|ambiguous| why.contains(ambiguous))
    }

    /// The end of a log is gone, and the log does not show it. The peers may know; whether they do or not, the node is not let loose.
    fn keep_out(&mut self, id: NodeId, process: &mut Process) -> Result<(), Failure> {
        let (member, features) = (self.hosts[&id].member, self.hosts[&id].features);
        let leases = self.params.lease_timeout();
        let mut refused = false;
        for peer in self.hosts.values().filter(|host| host.id != id && !host.impostor) {
            let hello = process.identity.greeting(member, peer.member, features, leases);
            if let Some(listener) = &peer.process {
                refused |= listener.roster.clone().admit(member, &hello).is_err();
            }
        }
        self.coverage.hit(match refused {
            true => Kind::ShortLogRefused,
            false => Kind::ShortLogUnseen,
        });
        self.trace.mark(
            Topic::Fault,
            self.now,
            Some(id),
            format_args!("has lost the end of its log"),
        );
        self.give_up_disk(id)
    }

    /// A disk is found damaged, and its node never starts again.
    pub(crate) fn give_up_disk(&mut self, id: NodeId) -> Result<(), Failure> {
        let host = self.host(id);
        host.rotted_by = None;
        host.broken = true;
        host.disk.kill();
        self.ghost.lost(id)?;
        self.after(200 * MS, Happening::Replace(id));
        Ok(())
    }

    /// A damaged member is replaced during the run too.
    pub(crate) fn see_replaced(&mut self, broken: NodeId) {
        if !self.healing && self.broken_member().is_some() {
            if !self.silent {
                self.replace_broken(broken);
            }
            self.after(500 * MS, Happening::Replace(broken));
        }
    }

    /// A member whose disk was found damaged.
    pub(crate) fn broken_member(&self) -> Option<NodeId> {
        let config = self.ghost.commits().config();
        let mut broken = self.hosts.values().filter(|host| host.broken);
        broken.find(|host| config.is_member(host.id)).map(|host| host.id)
    }

    /// Asks for a damaged member to be replaced by a new one.
    pub(crate) fn replace_broken(&mut self, broken: NodeId) {
        let running = self.running();
        if running.is_empty() || !self.operator.is_idle() {
            return;
        }
        let at = self.leader().unwrap_or(running[0]);
        let changes = vec![Change::Remove(broken), self.operator.add_by_itself()];
        self.reconfigure(at, changes, false);
    }
}

impl Host {
    /// Whether its process acts on a joint configuration.
    fn is_in_change(&self) -> bool {
        let process = self.process.as_ref();
        process.is_some_and(|process| process.node.raft().config().is_joint())
    }
}

impl Fault {
    /// Whether it strikes only a disk that the cluster can do without.
    pub(crate) fn wants_dispensable(&self) -> bool {
        matches!(
            self,
            Fault::BitRot { .. }
                | Fault::RotInUse { .. }
                | Fault::LostWrite { .. }
                | Fault::MisdirectedWrite { .. }
        ) || self.is_of_store()
    }

    /// Whether it spoils a store, and not a log.
    fn is_of_store(&self) -> bool {
        matches!(self, Fault::StoreRot { .. } | Fault::StoreLostWrite { .. })
    }

    /// What it makes the disk do.
    pub(crate) fn blow(&self) -> Option<Blow> {
        Some(match *self {
            Fault::CrashInDisk { .. } => Blow::PowerLoss,
            Fault::SyncError => Blow::SyncError,
            Fault::WriteError { .. } => Blow::WriteError,
            Fault::ShortWrite { .. } => Blow::ShortWrite,
            Fault::DirSyncError => Blow::DirSyncError,
            Fault::ReadError { .. } => Blow::ReadError,
            Fault::LostWrite { cached, .. } => Blow::Lose { cached },
            Fault::MisdirectedWrite { cached, .. } => Blow::Misdirect { cached },
            _ => return None,
        })
    }

    /// After how many operations of the disk.
    pub(crate) fn delay(&self) -> u64 {
        match *self {
            Fault::CrashInDisk { operations, .. }
            | Fault::WriteError { operations }
            | Fault::ShortWrite { operations }
            | Fault::LostWrite { operations, .. }
            | Fault::MisdirectedWrite { operations, .. } => operations,
            Fault::ReadError { reads } => reads,
            _ => 0,
        }
    }

    /// It strikes at the disk's next operation that it can strike at.
    pub(crate) fn at_next_operation(&mut self) {
        match self {
            Fault::CrashInDisk { operations, .. }
            | Fault::WriteError { operations }
            | Fault::ShortWrite { operations }
            | Fault::LostWrite { operations, .. }
            | Fault::MisdirectedWrite { operations, .. } => *operations = 0,
            Fault::ReadError { reads } => *reads = 0,
            _ => {}
        }
    }

    /// So many operations there were not: next time it comes earlier.
    fn hasten(&mut self) {
        match self {
            Fault::CrashInDisk { operations, .. }
            | Fault::WriteError { operations }
            | Fault::ShortWrite { operations }
            | Fault::LostWrite { operations, .. }
            | Fault::MisdirectedWrite { operations, .. } => *operations /= 2,
            Fault::ReadError { reads } => *reads /= 2,
            _ => {}
        }
    }
}

impl Blow {
    /// What it is counted as when a process was told of it; `None` if nobody was.
    pub(crate) fn told_as(self) -> Option<Kind> {
        Some(match self {
            Blow::SyncError => Kind::SyncError,
            Blow::WriteError => Kind::WriteError,
            Blow::ShortWrite => Kind::ShortWrite,
            Blow::DirSyncError => Kind::DirSyncError,
            Blow::ReadError => Kind::ReadError,
            Blow::PowerLoss | Blow::Lose { .. } | Blow::Misdirect { .. } => return None,
        })
    }
}
