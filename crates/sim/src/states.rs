//! In which of the [states](crate::cells::State) machines and the cluster are at a moment, asked of the running nodes themselves.

use quorate_base::NodeId;
use quorate_node::event::{LogOp, StageOp};
use quorate_raft::RoleKind;
use quorate_wal::Record;

use crate::cells::{State, States};
use crate::coverage::Kind;
use crate::history::Action;
use crate::host::{Host, Process};
use crate::world::World;

impl World {
    /// A fault strikes these machines now: it is counted, and in which states it found them. A fault of several machines found a state if it
    /// found it on one.
    pub(crate) fn struck(&mut self, fault: Kind, victims: &[NodeId]) {
        let states = victims.iter().map(|id| self.states_of(*id));
        let states = states.fold(self.states_of_cluster(), States::with);
        self.coverage.struck(fault, states);
    }

    /// A fault that is counted elsewhere finds one machine in its states.
    pub(crate) fn found_in(&mut self, fault: Kind, id: NodeId) {
        let states = self.states_of(id).with(self.states_of_cluster());
        self.coverage.matrix.hit(fault, states);
    }

    /// The states of one machine.
    pub(crate) fn states_of(&self, id: NodeId) -> States {
        let mut states = States::default();
        let Some(host) = self.hosts.get(&id) else {
            return states;
        };
        states.put(State::Cut, self.net.is_cut_from_some(id));
        states.put(State::Slow, host.slowness > 1 || host.stalled_until > self.now);
        states.put(State::Full, host.disk.is_limited());
        states.put(State::Paused, host.paused_until > self.now);
        let Some(process) = &host.process else {
            return states;
        };
        self.states_of_core(process, &mut states);
        states.put(State::Sending, !process.views.is_empty());
        let leads = process.node.raft().role() == RoleKind::Leader;
        states.put(State::Installing, process.installing && !leads);
        states.put(State::Truncating, process.truncating.is_some());
        states.put(State::Compacting, process.compacting.is_some());
        states.put(State::Flushing, process.job.is_some());
        states.put(State::Writing, !process.outstanding.is_empty());
        states.put(State::ColdReading, !process.cold_reads.is_empty());
        states.put(State::Reading, self.has_reads(host));
        let led = process.has_been_led || process.node.raft().leader().is_some();
        states.put(State::Recovering, !led);
        states
    }

    fn states_of_core(&self, process: &Process, states: &mut States) {
        let raft = process.node.raft();
        let role = raft.role();
        let led = raft.leader().is_some();
        states.put(State::Following, role == RoleKind::Follower && led);
        states.put(State::PreCandidate, role == RoleKind::PreCandidate);
        states.put(State::Candidate, role == RoleKind::Candidate);
        if role == RoleKind::Leader {
            let settled = raft.log().term_at(raft.commit()) == Some(raft.term());
            states.put(State::NewLeader, !settled);
            states.put(State::Leading, settled && !raft.is_handing_over());
            states.put(State::HandingOver, raft.is_handing_over());
            states.put(State::Leasing, self.params.leases && raft.lease_index().is_some());
        }
        let config = raft.config();
        states.put(State::Learning, config.learners.contains_key(&raft.id()));
        states.put(State::Joint, config.is_joint());
    }

    fn has_reads(&self, host: &Host) -> bool {
        let (first, last) = ((host.id, host.run, 0), (host.id, host.run, u64::MAX));
        let mut waiting = self.pending.range(first..=last);
        waiting.any(|(_, pending)| matches!(self.calls[pending.call].action, Action::Read { .. }))
    }

    /// The states of the cluster.
    pub(crate) fn states_of_cluster(&self) -> States {
        let mut states = States::default();
        let members = self.hosts.values().filter(|host| !host.impostor);
        let processes = members.filter_map(|host| host.process.as_ref());
        let leads = |process: &&Process| process.node.raft().role() == RoleKind::Leader;
        let leaders = processes.filter(leads).count();
        states.put(State::Leaderless, leaders == 0);
        states.put(State::Rivals, leaders > 1);
        let mut voters = self.ghost.commits().config().voters.iter();
        let down = |id: &NodeId| self.hosts.get(id).is_none_or(|host| host.process.is_none());
        states.put(State::Short, voters.any(down));
        states
    }
}

impl Process {
    /// Notes what the log is asked to do, as far as states are told by it.
    pub(crate) fn note_log(&mut self, op: &LogOp) {
        let (id, records) = match op {
            LogOp::Write { id, records } => (id, records),
            LogOp::Read { id, .. } => {
                self.cold_reads.insert(*id);
                return;
            }
        };
        for record in records {
            match record {
                Record::Truncate { .. } => self.truncating = Some(*id),
                Record::Mark { .. } => self.compacting = Some(*id),
                _ => {}
            }
        }
    }

    /// Notes what staging is asked to do.
    pub(crate) fn note_stage(&mut self, op: &StageOp) {
        match op {
            StageOp::Begin { .. } | StageOp::Resume { .. } => self.installing = true,
            StageOp::Discard => self.installing = false,
            _ => {}
        }
    }
}
