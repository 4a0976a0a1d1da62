//! One node: the rules that hold in every role stand here once, then the role is asked.

use quorate_base::{Index, LogId, NodeId, Term};
use quorate_marks::reached;

use crate::config::Change;
use crate::core::{Core, Restored};
use crate::effects::{Arm, ChangeEnd, ChangeRefused, Effects, Input, Outgoing, Refused, SnapMeta, Timer};
use crate::election;
use crate::haste;
use crate::message::{Body, Message};
use crate::read::Reader;
use crate::role::{Candidate, Follower, Leader, Next, PreCandidate, Role, RoleKind};
use crate::snapshot;

/// Terms from here on are taken for garbage: no cluster lives that long, and counting further would overflow.
const ABSURD_TERM: Term = Term(u64::MAX / 2);

/// The Raft algorithm of one node. Deterministic: the same inputs give the same effects.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Raft {
    pub(crate) core: Core,
    pub(crate) role: Role,
    stepped: bool,
}

impl Raft {
    /// A node as its disk left it: a follower, unless it is the only voter, which campaigns at once. With lease reads on it must be sure
    /// of that: whoever led while the change that left it alone was not committed may have a lease still. Others ask around soon: if there
    /// is a leader, its followers take no notice.
    pub fn new(restored: Restored) -> Raft {
        let mut core = Core::new(restored);
        let held = core.leases;
        if held {
            core.arm(Timer::Fresh, Arm::Set);
        }
        reached!("raft.restart.held_by_leases", held);
        let follower = Follower::enter(&mut core, None, held);
        let sure = !core.leases || core.log.config_index() <= core.commit;
        let alone = sure && core.log.config().is_voter(core.id) && core.other_voters().is_empty();
        let mut raft = Raft {
            core,
            role: Role::Follower(follower),
            stepped: true,
        };
        match alone {
            true => {
                reached!("raft.restart.alone");
                raft.transition(Some(Next::PreCandidate));
            }
            false => haste::begin_soon(&mut raft.core),
        }
        raft
    }

    /// Takes one input. Total: no input of a peer makes it fail, block or panic.
    pub fn step(&mut self, input: Input) {
        // What the state machine and the driver's compaction have done is noted, and nothing follows from it.
        self.stepped |= !matches!(input, Input::Applied(_) | Input::Compacted(_));
        let next = match input {
            Input::Message { from, message } => self.on_message(from, message),
            Input::Fired(timer) => self.on_timer(timer),
            Input::LeaderDead { leader, term } => self.on_leader_dead(leader, term),
            Input::Reachable(peer) => self.on_reachable(peer),
            Input::Propose { token, size } => self.on_propose(token, size),
            Input::Read { token, forward } => self.on_read(token, forward),
            Input::Persisted(id) => self.on_persisted(id),
            Input::Applied(index) => self.on_applied(index),
            Input::Compacted(index) => self.on_compacted(index),
            Input::SnapshotStaged { from, term, meta } => self.on_staged(from, term, meta),
            Input::Reconfigure {
                token,
                changes,
                force,
            } => self.on_reconfigure(token, &changes, force),
            Input::Transfer(to) => self.lead(|leader, core| leader.on_transfer(core, to)),
            Input::DiskStalled => self.on_stalled(),
            Input::NotSent { to, first } => self.lead(|leader, _| leader.on_not_sent(to, first)),
            Input::SnapshotSent { to, last } => self.lead(|leader, _| leader.on_snapshot_sent(to, last)),
        };
        if next.is_some() {
            self.transition(next);
        }
    }

    /// Hands out everything there is to do since the last call.
    pub fn take_effects(&mut self) -> Effects {
        let mut effects = Effects::default();
        self.take_effects_into(&mut effects);
        effects
    }

    /// Like [`take_effects`](Raft::take_effects), in place of what `effects` held. A driver that keeps one and drains its lists spares the
    /// allocation of new ones at every step.
    pub fn take_effects_into(&mut self, effects: &mut Effects) {
        let next = match &mut self.role {
            Role::Leader(leader) => leader.flush(&mut self.core),
            Role::Follower(follower) => {
                follower.flush(&mut self.core);
                None
            }
            Role::PreCandidate(_) | Role::Candidate(_) => None,
        };
        if next.is_some() {
            self.transition(next);
        }
        self.stepped = false;
        self.core.take_effects(effects);
    }

    /// Whether an input was stepped since the effects were last taken from which something may follow.
    pub fn has_effects(&self) -> bool {
        self.stepped
    }

    /// The one place where the role changes.
    fn transition(&mut self, mut next: Option<Next>) {
        while let Some(to) = next.take() {
            let core = &mut self.core;
            let held = core.leases && election::leader_is_heard(&self.role);
            match std::mem::replace(&mut self.role, Role::Follower(Follower::default())) {
                Role::Follower(follower) => follower.leave(core),
                Role::Leader(leader) => leader.leave(core),
                Role::PreCandidate(_) => {}
                Role::Candidate(_) => {}
            }
            self.role = match to {
                Next::Follower { term, leader } => {
                    if term > core.term {
                        core.set_term(term);
                    }
                    Role::Follower(Follower::enter(core, leader, held))
                }
                Next::PreCandidate => {
                    let (role, outcome) = PreCandidate::enter(core);
                    next = outcome;
                    Role::PreCandidate(role)
                }
                Next::Candidate { transfer } => Role::Candidate(Candidate::enter(core, transfer)),
                Next::Leader => Role::Leader(Leader::enter(core)),
            };
        }
    }

    fn lead(&mut self, act: impl FnOnce(&mut Leader, &mut Core)) -> Option<Next> {
        if let Role::Leader(leader) = &mut self.role {
            act(leader, &mut self.core);
        }
        None
    }

    /// "Rules for all servers" of Figure 3.1, then the role.
    fn on_message(&mut self, from: NodeId, message: Message) -> Option<Next> {
        let Message { term, body } = message;
        reached!("raft.message.absurd_term", term >= ABSURD_TERM);
        reached!("raft.message.from_itself", from == self.core.id);
        if term >= ABSURD_TERM || from == self.core.id {
            return None;
        }
        if matches!(body, Body::PreVote { .. }) && term == self.core.term {
            self.on_abdication(from);
        }
        match &body {
            // A live leader is not disturbed (§4.2.3), so the higher term of such a request is not adopted either.
            Body::PreVote { .. } | Body::Vote { transfer: false, .. }
                if election::leader_is_fresh(&self.role) =>
            {
                reached!("raft.vote.leader_is_fresh", matches!(body, Body::Vote { .. }));
                reached!(
                    "raft.pre_vote.leader_is_fresh",
                    matches!(body, Body::PreVote { .. })
                );
                return None;
            }
            // A pre-vote promises nothing, whatever its term.
            Body::PreVote { next, last } => {
                let granted = election::pre_vote(&mut self.core, from, *next, *last);
                return granted.then(|| self.give_way(from, *last)).flatten();
            }
            _ => {}
        }
        reached!(
            "raft.vote.transfer_despite_leader",
            matches!(body, Body::Vote { .. }) && election::leader_is_fresh(&self.role)
        );
        if term > self.core.term {
            let leader = body.is_from_leader().then_some(from);
            reached!("raft.term.leader_deposed", self.role.kind() == RoleKind::Leader);
            reached!(
                "raft.term.candidate_deposed",
                self.role.kind() == RoleKind::Candidate
            );
            reached!("raft.term.told_by_newer", matches!(body, Body::NewerTerm));
            self.transition(Some(Next::Follower { term, leader }));
        }
        if term < self.core.term {
            return self.on_old_term(from, &body);
        }
        if body.is_from_leader() && !self.accept_leader(from) {
            reached!("raft.message.second_leader");
            return None;
        }
        self.on_current(from, body)
    }

    /// A pre-vote was granted: its asker may be elected if it is left alone.
    fn give_way(&mut self, to: NodeId, last: LogId) -> Option<Next> {
        let core = &mut self.core;
        match &self.role {
            Role::PreCandidate(_) if haste::gives_way(core, to, last) => Some(Next::Follower {
                term: core.term,
                leader: None,
            }),
            Role::Follower(_) => {
                haste::stand_back(core);
                None
            }
            _ => None,
        }
    }

    /// Nobody is where the leader was: this node owes it nothing until it hears of it again, and soon somebody has to take over.
    fn on_leader_dead(&mut self, leader: NodeId, term: Term) -> Option<Next> {
        let core = &mut self.core;
        match &mut self.role {
            Role::Follower(follower) if follower.leader == Some(leader) && term == core.term => {
                let first = follower.doubt(core) && haste::begin_without(core, leader);
                reached!("raft.hint.campaigns_at_once", first);
                first.then_some(Next::PreCandidate)
            }
            _ => {
                reached!("raft.hint.outdated");
                None
            }
        }
    }

    /// Somebody asks for pre-votes in this term. Whoever led in it does so no more: it stepped down or was started again, and nobody leads twice
    /// in a term.
    fn on_abdication(&mut self, from: NodeId) {
        let core = &mut self.core;
        if let Role::Follower(follower) = &mut self.role
            && follower.leader == Some(from)
            && follower.doubt(core)
        {
            reached!("raft.hint.leader_abdicates");
            haste::begin_soon(core);
        }
    }

    /// A peer can be reached (again): it is told what it has missed.
    fn on_reachable(&mut self, peer: NodeId) -> Option<Next> {
        let core = &mut self.core;
        match &mut self.role {
            Role::Leader(leader) => leader.on_reachable(core, peer),
            Role::PreCandidate(role) => role.on_reachable(core, peer),
            Role::Candidate(role) => role.on_reachable(core, peer),
            Role::Follower(follower) if follower.leader.is_none() => haste::begin_soon(core),
            Role::Follower(_) => {}
        }
        None
    }

    /// A message of an earlier term has no effect, except that a voter behind in terms answers a pre-vote in its own: asking
    /// did not change its term. Leaders and candidates are told the newer term, so that nobody is wedged.
    fn on_old_term(&mut self, from: NodeId, body: &Body) -> Option<Next> {
        match (&mut self.role, body) {
            (Role::PreCandidate(role), Body::PreVoteResponse { next, granted }) => {
                reached!("raft.pre_vote.answer_of_lower_term");
                return role.on_response(&self.core, from, *next, *granted);
            }
            (_, Body::Vote { .. }) => {
                reached!("raft.vote.old_term");
                self.core
                    .send_after_hard(from, Body::VoteResponse { granted: false });
            }
            _ if body.is_from_leader() => {
                reached!("raft.term.old_leader_told");
                self.core.send_after_hard(from, Body::NewerTerm);
            }
            _ => reached!("raft.message.answer_of_old_term"),
        }
        None
    }

    /// A message of the current term's leader: whoever ran against it in this term follows it now (§3.4). False if the
    /// message cannot be right, since there is at most one leader a term.
    fn accept_leader(&mut self, from: NodeId) -> bool {
        match &mut self.role {
            Role::Leader(_) => return false,
            Role::Follower(follower) if follower.leader.is_some_and(|leader| leader != from) => return false,
            Role::Follower(follower) => follower.hear(&mut self.core, from),
            Role::PreCandidate(_) | Role::Candidate(_) => {
                reached!("raft.candidate.finds_leader");
                self.transition(Some(Next::Follower {
                    term: self.core.term,
                    leader: Some(from),
                }));
            }
        }
        true
    }

    /// A message of the current term.
    fn on_current(&mut self, from: NodeId, body: Body) -> Option<Next> {
        let core = &mut self.core;
        if let Role::Leader(leader) = &mut self.role {
            leader.on_contact(from);
        }
        match (&mut self.role, body) {
            (role, Body::Vote { last, .. }) => election::vote(core, role, from, last),
            (Role::PreCandidate(role), Body::PreVoteResponse { next, granted }) => {
                return role.on_response(core, from, next, granted);
            }
            (Role::Candidate(role), Body::VoteResponse { granted }) => {
                return role.on_response(core, from, granted);
            }
            (
                Role::Follower(role),
                Body::Append {
                    prev,
                    entries,
                    commit,
                },
            ) => {
                let rising = entries
                    .iter()
                    .try_fold(prev.term, |t, e| (e.term >= t).then_some(e.term));
                reached!("raft.append.terms_fall", rising.is_none());
                reached!(
                    "raft.append.term_to_come",
                    rising.is_some_and(|last| last > core.term)
                );
                if rising.is_some_and(|last| last <= core.term) {
                    role.on_append(core, from, prev, &entries, commit);
                }
            }
            (Role::Follower(role), Body::Heartbeat { commit, round }) => {
                role.on_heartbeat(core, from, commit, round)
            }
            (Role::Follower(role), Body::Commit { index }) => role.learn_commit(core, index),
            (Role::Follower(_), Body::InstallSnapshot { last }) => snapshot::on_offer(core, from, last),
            (Role::Follower(role), Body::ReadIndexResponse { id, index }) => {
                role.on_read_index(core, id, index)
            }
            // With a disk that hangs the campaign could not be written down, and would only cost the leader its term.
            (Role::Follower(_), Body::TimeoutNow) if core.log.config().is_voter(core.id) && !core.stalled => {
                reached!("raft.transfer.campaigns");
                return Some(Next::Candidate { transfer: true });
            }
            (Role::Follower(_), Body::TimeoutNow) => reached!("raft.transfer.unfit"),
            (Role::Leader(role), Body::Appended { upto }) => role.on_appended(core, from, upto),
            (Role::Leader(role), Body::Conflict { prev, hint }) => role.on_conflict(core, from, prev, hint),
            (
                Role::Leader(role),
                Body::HeartbeatResponse {
                    round,
                    verified,
                    matched,
                    priority,
                },
            ) => {
                role.on_priority(from, priority);
                role.on_heartbeat_response(core, from, round, verified, matched);
            }
            (Role::Leader(role), Body::ReadIndex { id }) => role.on_read(core, Reader::Peer(from, id)),
            // Late answers, and messages for a role this node no longer has.
            _ => reached!("raft.message.late"),
        }
        None
    }

    fn on_timer(&mut self, timer: Timer) -> Option<Next> {
        let core = &mut self.core;
        match &mut self.role {
            Role::Follower(follower) => follower.on_timer(core, timer),
            Role::Leader(leader) => leader.on_timer(core, timer),
            // This campaign is still being written down. Another would have to be written after it, so a disk that takes
            // longer than an election timeout would never see the end.
            Role::Candidate(_) if timer == Timer::Election && !core.durability.hard_is_durable() => {
                reached!("raft.candidate.disk_outlasts_timeout");
                core.arm(Timer::Election, Arm::Set);
                None
            }
            Role::PreCandidate(role) if timer == Timer::Haste => {
                role.on_haste(core);
                None
            }
            Role::Candidate(_) if timer == Timer::Election && core.stalled => Some(Next::Follower {
                term: core.term,
                leader: None,
            }),
            // A split vote or no answer: ask around again, after a newly drawn timeout.
            Role::PreCandidate(_) | Role::Candidate(_) if timer == Timer::Election => {
                reached!(
                    "raft.candidate.asks_anew",
                    self.role.kind() == RoleKind::Candidate
                );
                reached!(
                    "raft.pre_vote.asks_anew",
                    self.role.kind() == RoleKind::PreCandidate
                );
                Some(Next::PreCandidate)
            }
            Role::PreCandidate(_) | Role::Candidate(_) => None,
        }
    }

    fn on_propose(&mut self, token: u64, size: u32) -> Option<Next> {
        match &mut self.role {
            Role::Leader(leader) => leader.on_propose(&mut self.core, token, size),
            _ => {
                let leader = self.leader();
                reached!("raft.propose.not_leader");
                self.core.out.refused.push((token, Refused::NotLeader(leader)));
            }
        }
        None
    }

    fn on_reconfigure(&mut self, token: u64, changes: &[Change], force: bool) -> Option<Next> {
        match &mut self.role {
            Role::Leader(leader) => leader.on_reconfigure(&mut self.core, token, changes, force),
            _ => {
                reached!("raft.change.not_leader");
                let why = ChangeRefused::NotLeader(self.leader());
                self.core.out.changed.push((token, ChangeEnd::Refused(why)));
            }
        }
        None
    }

    /// The disk hangs: this node could not make anything durable, so it does not lead and does not campaign until a write comes back.
    fn on_stalled(&mut self) -> Option<Next> {
        self.core.stalled = true;
        let term = self.core.term;
        match &mut self.role {
            Role::Leader(leader) => leader.on_stalled(&mut self.core),
            Role::PreCandidate(_) => {
                reached!("raft.stalled.pre_candidate");
                Some(Next::Follower { term, leader: None })
            }
            // A campaign that is on disk could still be won, but by a leader that cannot write, and that is told so only once. One that is not
            // on disk waits for it anyway.
            Role::Candidate(_) if self.core.durability.hard_is_durable() => {
                reached!("raft.stalled.candidate");
                Some(Next::Follower { term, leader: None })
            }
            Role::Candidate(_) | Role::Follower(_) => None,
        }
    }

    fn on_read(&mut self, token: u64, forward: bool) -> Option<Next> {
        let core = &mut self.core;
        match &mut self.role {
            Role::Leader(leader) => leader.on_read(core, Reader::Local(token)),
            Role::Follower(follower) => follower.on_read(core, token, forward),
            Role::PreCandidate(_) | Role::Candidate(_) => {
                reached!("raft.read.while_campaigning");
                core.out.reads.push((token, Err(Refused::NotLeader(None))));
            }
        }
        None
    }

    /// A write is durable: what waited for it may go, and this node counts for what it now holds.
    fn on_persisted(&mut self, id: u64) -> Option<Next> {
        let core = &mut self.core;
        core.stalled = false;
        let (out, term) = (&mut core.out.send, core.term);
        let installed = core.durability.persisted(id, |to, message| {
            // A vote, acknowledgement or refusal of an earlier term is worth nothing any more.
            reached!("raft.withheld.term_moved", message.term != term);
            reached!(
                "raft.withheld.ack_of_old_term",
                message.term != term && matches!(message.body, Body::Appended { .. })
            );
            if message.term == term {
                out.push(Outgoing::Message { to, message });
            }
        });
        if let Some(meta) = installed {
            snapshot::on_installed(core, meta);
        }
        match &mut self.role {
            Role::Candidate(candidate) => candidate.on_persisted(core),
            Role::Leader(leader) => {
                leader.on_writable();
                leader.advance_commit(core);
                None
            }
            Role::Follower(_) | Role::PreCandidate(_) => None,
        }
    }

    fn on_applied(&mut self, index: Index) -> Option<Next> {
        assert!(
            index <= self.core.applying,
            "applied {index}, but only {} was handed out",
            self.core.applying
        );
        self.core.applied = self.core.applied.max(index);
        None
    }

    fn on_compacted(&mut self, index: Index) -> Option<Next> {
        assert!(
            index <= self.core.applied,
            "compacting {index}, applied {} (S12)",
            self.core.applied
        );
        self.core.log.compact(index);
        None
    }

    fn on_staged(&mut self, from: NodeId, term: Term, meta: Box<SnapMeta>) -> Option<Next> {
        if let Role::Follower(follower) = &mut self.role
            && term == self.core.term
            && follower.leader == Some(from)
        {
            snapshot::on_staged(&mut self.core, from, meta);
            follower.staged(&self.core);
        } else {
            reached!("raft.snapshot.staged_for_former_leader");
        }
        None
    }
}
