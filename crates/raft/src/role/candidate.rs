//! Campaigning: the pre-vote that disturbs nobody (§9.6), and the election itself (§3.4).

use std::collections::BTreeMap;

use quorate_base::{NodeId, Term};
use quorate_marks::reached;

use crate::core::Core;
use crate::effects::{Arm, Timer};
use crate::haste;
use crate::message::Body;
use crate::quorum::{self, Tally};
use crate::role::Next;

/// Asks whether an election could be won. Nothing about it is durable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PreCandidate {
    pub(crate) votes: BTreeMap<NodeId, bool>,
}

impl PreCandidate {
    /// Starts asking. A node that is its own quorum goes on at once.
    pub fn enter(core: &mut Core) -> (PreCandidate, Option<Next>) {
        let role = PreCandidate {
            votes: BTreeMap::from([(core.id, true)]),
        };
        core.arm(Timer::Election, Arm::Set);
        role.ask_all(core);
        let outcome = role.count(core);
        (role, outcome)
    }

    /// Asks all who have not answered.
    fn ask_all(&self, core: &mut Core) {
        for peer in core.other_voters() {
            self.ask(core, peer);
        }
        haste::asked(core);
    }

    fn ask(&self, core: &mut Core, peer: NodeId) {
        if !self.votes.contains_key(&peer) {
            let (next, last) = (core.term.next(), core.log.last());
            core.send_now(peer, Body::PreVote { next, last });
        }
    }

    /// A step of its haste: the others may know more by now than when they were asked.
    pub fn on_haste(&self, core: &mut Core) {
        if haste::is_due(core) {
            self.ask_all(core);
        }
    }

    /// A voter can be reached now.
    pub fn on_reachable(&self, core: &mut Core, peer: NodeId) {
        if core.log.config().is_voter(peer) {
            self.ask(core, peer);
            haste::begin_soon(core);
        }
    }

    /// An answer, which is about `next`.
    pub fn on_response(&mut self, core: &Core, from: NodeId, next: Term, granted: bool) -> Option<Next> {
        if next != core.term.next() {
            reached!("raft.pre_vote.answer_to_earlier_attempt");
            return None; // About an earlier attempt.
        }
        self.votes.insert(from, granted);
        self.count(core)
    }

    fn count(&self, core: &Core) -> Option<Next> {
        match quorum::tally(core.log.config(), |id| self.votes.get(&id).copied()) {
            Tally::Won => Some(Next::Candidate { transfer: false }),
            Tally::Lost => {
                reached!("raft.pre_vote.lost");
                Some(Next::Follower {
                    term: core.term,
                    leader: None,
                })
            }
            Tally::Open => None,
        }
    }
}

/// Runs for leader in the current term.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Candidate {
    pub(crate) votes: BTreeMap<NodeId, bool>,
    /// The leader asked for it (§3.10).
    transfer: bool,
}

impl Candidate {
    /// Moves to a new term and votes for itself. The requests go out once that vote is durable; else two incarnations of
    /// this node could vote for two candidates in one term.
    pub fn enter(core: &mut Core, transfer: bool) -> Candidate {
        core.set_term(core.term.next());
        core.set_vote(core.id);
        let last = core.log.last();
        for peer in core.other_voters() {
            core.send_after_hard(peer, Body::Vote { last, transfer });
        }
        core.arm(Timer::Election, Arm::Set);
        haste::suspend(core);
        Candidate {
            votes: BTreeMap::new(),
            transfer,
        }
    }

    /// A voter can be reached now, and may not have heard of this.
    pub fn on_reachable(&self, core: &mut Core, peer: NodeId) {
        if core.log.config().is_voter(peer) && !self.votes.contains_key(&peer) {
            reached!("raft.vote.asked_again");
            let (last, transfer) = (core.log.last(), self.transfer);
            core.send_after_hard(peer, Body::Vote { last, transfer });
        }
    }

    /// A vote for or against.
    pub fn on_response(&mut self, core: &Core, from: NodeId, granted: bool) -> Option<Next> {
        self.votes.insert(from, granted);
        self.count(core)
    }

    /// A write was completed: maybe the own vote is durable, and counts from now on.
    pub fn on_persisted(&mut self, core: &Core) -> Option<Next> {
        if !core.durability.hard_is_durable() {
            reached!("raft.candidate.own_vote_not_durable");
            return None;
        }
        self.votes.insert(core.id, true);
        self.count(core)
    }

    fn count(&self, core: &Core) -> Option<Next> {
        match quorum::tally(core.log.config(), |id| self.votes.get(&id).copied()) {
            Tally::Won => Some(Next::Leader),
            Tally::Lost => {
                reached!("raft.vote.lost");
                Some(Next::Follower {
                    term: core.term,
                    leader: None,
                })
            }
            Tally::Open => None,
        }
    }
}
