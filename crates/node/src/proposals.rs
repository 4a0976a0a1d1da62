//! Proposals from the request to the answer, on the leader and on followers.
//!
//! A proposal here goes to the core if this node leads, to the leader if another does, and waits otherwise. It is sent on at
//! most once: whatever may have reached a log is never proposed again. Each is answered exactly once, by being applied or by a
//! [`Failure`]; "not done" is said only where it is certain:
//!
//! | last seen | ends as not done when | unknown when |
//! | --- | --- | --- |
//! | held | refused, deadline | – |
//! | in the core | refused, overtaken before anybody saw it | deadline |
//! | forwarded | refused by the leader | another term, link down, deadline |
//! | placed or accepted at (term, index) | another term is committed at that index | deadline, overtaken by a snapshot |

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_base::{Index, LogId, NodeId, Term};
use quorate_marks::reached;
use quorate_raft::{Input, Raft, Refused, RoleKind};

use crate::config::NodeConfig;
use crate::entry::{COMMAND_OVERHEAD, encode_command};
use crate::event::{Failure, Nanos, Reason, Token};
use crate::message::{PeerMessage, RequestId};
use crate::outbox::Outbox;
use crate::seen::Seen;

/// The proposals under way.
#[derive(Debug)]
pub(crate) struct Proposals {
    me: NodeId,
    boot: u64,
    max_proposal: usize,
    max_held: usize,
    max_held_bytes: usize,
    retry_after: Nanos,
    /// The last number given to a proposal of this node.
    last: u64,
    live: BTreeMap<u64, Pending>,
    due: BTreeSet<(Nanos, u64)>,
    /// Proposals without a leader to go to, in the order they came.
    held: BTreeMap<u64, Bytes>,
    held_bytes: usize,
    /// Ours by the index where they were placed or accepted.
    places: BTreeSet<(Index, u64)>,
    /// Given to the core and not yet placed, by the core's token.
    tickets: BTreeMap<u64, Ticket>,
    last_ticket: u64,
    /// Forwarded requests taken from others.
    seen: Seen,
    /// Term and leader when the held ones last tried.
    tried_in: (Term, Option<NodeId>),
    /// When the held ones try again although the leader is the same.
    retry_at: Option<Nanos>,
}

#[derive(Debug)]
struct Pending {
    token: Token,
    deadline: Nanos,
    state: State,
    /// What was forwarded and may come back.
    command: Option<Bytes>,
}

/// How far a proposal of this node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Held,
    InCore,
    Forwarded { to: NodeId, term: Term },
    At(LogId),
}

/// What the core's token stands for.
#[derive(Debug)]
enum Ticket {
    Own {
        seq: u64,
        command: Bytes,
    },
    Peer {
        from: NodeId,
        request: RequestId,
        command: Bytes,
    },
}

impl Proposals {
    pub(crate) fn new(config: &NodeConfig) -> Proposals {
        Proposals {
            me: config.id,
            boot: config.nonce,
            max_proposal: config.max_proposal,
            max_held: config.max_held,
            max_held_bytes: config.max_held_bytes,
            retry_after: config.heartbeat,
            last: 0,
            live: BTreeMap::new(),
            due: BTreeSet::new(),
            held: BTreeMap::new(),
            held_bytes: 0,
            places: BTreeSet::new(),
            tickets: BTreeMap::new(),
            last_ticket: 0,
            seen: Seen::default(),
            tried_in: (Term::ZERO, None),
            retry_at: None,
        }
    }

    /// A client here proposes a command.
    pub(crate) fn propose(
        &mut self,
        raft: &Raft,
        (token, command, deadline): (Token, Bytes, Nanos),
        out: &mut Outbox,
    ) {
        if command.len() > self.max_proposal {
            reached!("node.propose.too_large");
            return out.answer(token, Failure::NotDone(Reason::TooLarge));
        }
        self.last += 1;
        let seq = self.last;
        self.live.insert(
            seq,
            Pending {
                token,
                deadline,
                state: State::Held,
                command: None,
            },
        );
        self.due.insert((deadline, seq));
        self.route(raft, seq, command, out);
    }

    /// Passes a proposal on to wherever it can be placed, or holds it.
    fn route(&mut self, raft: &Raft, seq: u64, command: Bytes, out: &mut Outbox) {
        let state = match raft.leader() {
            _ if raft.role() == RoleKind::Leader => {
                let len = command.len();
                self.give_to_core(Ticket::Own { seq, command }, len, out);
                State::InCore
            }
            Some(to) => {
                let (term, request) = (raft.term(), self.request_id(seq));
                self.pending(seq).command = Some(command.clone());
                out.send(
                    to,
                    PeerMessage::Forward {
                        term,
                        request,
                        command,
                    },
                );
                State::Forwarded { to, term }
            }
            None => {
                reached!("node.propose.held_without_leader");
                return self.hold(seq, command, out);
            }
        };
        self.pending(seq).state = state;
    }

    fn hold(&mut self, seq: u64, command: Bytes, out: &mut Outbox) {
        if self.held.len() >= self.max_held || self.held_bytes + command.len() > self.max_held_bytes {
            reached!("node.propose.too_many_held");
            return self.fail(seq, Failure::NotDone(Reason::Busy), out);
        }
        self.held_bytes += command.len();
        self.held.insert(seq, command);
        self.pending(seq).state = State::Held;
    }

    fn pending(&mut self, seq: u64) -> &mut Pending {
        self.live
            .get_mut(&seq)
            .expect("a proposal is known until it is answered")
    }

    fn request_id(&self, seq: u64) -> RequestId {
        RequestId {
            node: self.me.0,
            boot: self.boot,
            seq,
        }
    }

    /// The number of a proposal of this run, if it still waits for its answer.
    fn own(&self, request: RequestId) -> Option<u64> {
        let ours = request.node == self.me.0 && request.boot == self.boot;
        (ours && self.live.contains_key(&request.seq)).then_some(request.seq)
    }

    fn give_to_core(&mut self, ticket: Ticket, len: usize, out: &mut Outbox) {
        self.last_ticket += 1;
        self.tickets.insert(self.last_ticket, ticket);
        let size = u32::try_from(len + COMMAND_OVERHEAD).expect("commands are limited long before 4 GiB");
        out.inputs.push(Input::Propose {
            token: self.last_ticket,
            size,
        });
    }

    /// The core placed a proposal at `at`. Returns the entry's body if it still is in the log; otherwise it was overtaken before
    /// anybody saw it.
    pub(crate) fn placed(&mut self, raft: &Raft, token: u64, at: LogId, out: &mut Outbox) -> Option<Bytes> {
        let ticket = self
            .tickets
            .remove(&token)
            .expect("the core places what it was given, once");
        let held = raft.log().contains(at);
        let (request, command) = match ticket {
            Ticket::Own { seq, command } => {
                if !held {
                    reached!("node.placed.lost_before_write");
                    self.fail(seq, Failure::NotDone(Reason::LeaderChanged), out);
                    return None;
                }
                // A deadline that passed in between has answered it already.
                if let Some(pending) = self.live.get_mut(&seq) {
                    pending.state = State::At(at);
                    self.places.insert((at.index, seq));
                }
                (self.request_id(seq), command)
            }
            Ticket::Peer {
                from,
                request,
                command,
            } => {
                reached!("node.placed.forwarded_lost_before_write", !held);
                let why = Reason::LeaderChanged;
                out.send(
                    from,
                    if held {
                        PeerMessage::Accept { request, at }
                    } else {
                        PeerMessage::Refuse { request, why }
                    },
                );
                (request, command)
            }
        };
        held.then(|| encode_command(at, request, &command))
    }

    /// The core did not take a proposal.
    pub(crate) fn refused(&mut self, now: Nanos, token: u64, why: Refused, out: &mut Outbox) {
        let ticket = self
            .tickets
            .remove(&token)
            .expect("the core refuses what it was given, once");
        match (ticket, why) {
            (Ticket::Own { seq, .. }, Refused::Busy) => {
                reached!("node.refused.busy");
                self.fail(seq, Failure::NotDone(Reason::Busy), out);
            }
            (Ticket::Own { seq, command }, Refused::NotLeader(_) | Refused::Transferring) => {
                reached!("node.refused.held_anew");
                self.hold_anew(now, seq, command, out);
            }
            (Ticket::Peer { from, request, .. }, why) => {
                reached!("node.refused.forwarded");
                let why = match why {
                    Refused::Busy => Reason::Busy,
                    Refused::NotLeader(_) | Refused::Transferring => Reason::LeaderChanged,
                };
                out.send(from, PeerMessage::Refuse { request, why });
            }
        }
    }

    fn retry_later(&mut self, now: Nanos) {
        self.retry_at.get_or_insert(now + self.retry_after);
    }

    /// A follower forwards a command that it believes this node can place. A repeated request (a network may double frames) is passed
    /// over: what became of the first is not known here.
    pub(crate) fn forwarded(
        &mut self,
        raft: &Raft,
        from: NodeId,
        (term, request, command): (Term, RequestId, Bytes),
        out: &mut Outbox,
    ) {
        if request.node != from.0 || !self.seen.is_new(request) {
            reached!("node.forward.impostor", request.node != from.0);
            reached!("node.forward.seen_before", request.node == from.0);
            return;
        }
        let why = if raft.role() != RoleKind::Leader || raft.term() != term {
            Reason::LeaderChanged
        } else if command.len() > self.max_proposal {
            Reason::TooLarge
        } else {
            let len = command.len();
            return self.give_to_core(
                Ticket::Peer {
                    from,
                    request,
                    command,
                },
                len,
                out,
            );
        };
        reached!("node.forward.to_no_leader", why == Reason::LeaderChanged);
        reached!("node.forward.too_large", why == Reason::TooLarge);
        out.send(from, PeerMessage::Refuse { request, why });
    }

    /// The leader placed a command of ours at `at`.
    pub(crate) fn accepted(
        &mut self,
        raft: &Raft,
        from: NodeId,
        request: RequestId,
        at: LogId,
        handed: Index,
        out: &mut Outbox,
    ) {
        let Some(seq) = self.own(request) else {
            reached!("node.accept.of_nothing_pending");
            return;
        };
        if !matches!(self.pending(seq).state, State::Forwarded { to, .. } if to == from) {
            reached!("node.accept.of_nothing_forwarded");
            return;
        }
        if at.index > handed {
            let pending = self.pending(seq);
            pending.state = State::At(at);
            pending.command = None;
            self.places.insert((at.index, seq));
            return;
        }
        // It would have been answered when that index was applied, so it is not there, or a snapshot covers it.
        let failure = match raft.log().term_at(at.index) {
            Some(term) if term != at.term => Failure::NotDone(Reason::LeaderChanged),
            _ => Failure::Unknown(Reason::LeaderChanged),
        };
        reached!("node.accept.overwritten", matches!(failure, Failure::NotDone(_)));
        reached!("node.accept.too_late", matches!(failure, Failure::Unknown(_)));
        self.fail(seq, failure, out);
    }

    /// The leader did not take a command of ours. If that is for want of leadership it is tried again, under a new number: the
    /// old one counts as seen where it was refused.
    pub(crate) fn refused_by(
        &mut self,
        now: Nanos,
        from: NodeId,
        request: RequestId,
        why: Reason,
        out: &mut Outbox,
    ) {
        let Some(seq) = self.own(request) else { return };
        let pending = self.pending(seq);
        if !matches!(pending.state, State::Forwarded { to, .. } if to == from) {
            reached!("node.refuse.of_nothing_forwarded");
            return;
        }
        match pending.command.take() {
            Some(command) if matches!(why, Reason::LeaderChanged | Reason::NoLeader) => {
                reached!("node.refuse.held_anew");
                self.hold_anew(now, seq, command, out);
            }
            _ => {
                reached!("node.refuse.final");
                self.fail(seq, Failure::NotDone(why), out);
            }
        }
    }

    /// A forwarded command was certainly not sent: it waits for a better moment, and for a new number, since numbers sent
    /// meanwhile may have made the old one count as seen.
    pub(crate) fn not_sent(&mut self, now: Nanos, request: RequestId, command: Bytes, out: &mut Outbox) {
        let Some(seq) = self.own(request) else { return };
        let pending = self.pending(seq);
        if matches!(pending.state, State::Forwarded { .. }) {
            pending.command = None;
            self.hold_anew(now, seq, command, out);
        }
    }

    /// Holds a proposal that nobody else has or will get, under a new number, to try again in a while.
    fn hold_anew(&mut self, now: Nanos, seq: u64, command: Bytes, out: &mut Outbox) {
        let pending = self.forget(seq);
        self.last += 1;
        self.due.insert((pending.deadline, self.last));
        self.live.insert(self.last, pending);
        self.retry_later(now);
        self.hold(self.last, command, out);
    }

    /// The entry `at` goes to the state machine. Returns who waits for its output; whoever was promised this index in another term
    /// learns that it was not done.
    pub(crate) fn committed(
        &mut self,
        at: LogId,
        request: Option<RequestId>,
        out: &mut Outbox,
    ) -> Option<Token> {
        let waiting = request
            .and_then(|request| self.own(request))
            .map(|seq| self.forget(seq).token);
        while let Some((index, seq)) = self.places.first().copied().filter(|first| first.0 <= at.index) {
            let State::At(place) = self.pending(seq).state else {
                panic!("a proposal listed at {index} is placed there")
            };
            // The same term would be the same entry: then the leader that accepted it did not tell the truth.
            let overtaken = place.index == at.index && place.term != at.term;
            reached!("node.committed.another_in_its_place", overtaken);
            reached!("node.committed.passed_by", !overtaken);
            let why = Reason::LeaderChanged;
            self.fail(
                seq,
                if overtaken {
                    Failure::NotDone(why)
                } else {
                    Failure::Unknown(why)
                },
                out,
            );
        }
        waiting
    }

    /// A snapshot up to `last` took the place of the log: what became of the proposals that it covers is not known.
    pub(crate) fn installed(&mut self, last: LogId, out: &mut Outbox) {
        while let Some((_, seq)) = self.places.first().copied().filter(|first| first.0 <= last.index) {
            reached!("node.installed.over_proposal");
            self.fail(seq, Failure::Unknown(Reason::LeaderChanged), out);
        }
    }

    /// Looks whether term or leader changed: forwarded proposals of earlier terms end, held ones try again.
    pub(crate) fn follow(&mut self, raft: &Raft, out: &mut Outbox) {
        let now = (raft.term(), raft.leader());
        if self.tried_in == now && (self.held.is_empty() || self.retry_at.is_some()) {
            return;
        }
        if self.tried_in.0 != now.0 {
            let stale = |state| matches!(state, State::Forwarded { term, .. } if term != now.0);
            self.fail_where(stale, Failure::Unknown(Reason::LeaderChanged), out);
        }
        self.tried_in = now;
        self.try_held(raft, out);
    }

    fn try_held(&mut self, raft: &Raft, out: &mut Outbox) {
        if raft.leader().is_none() {
            return;
        }
        self.retry_at = None;
        self.held_bytes = 0;
        for (seq, command) in std::mem::take(&mut self.held) {
            self.route(raft, seq, command, out);
        }
    }

    /// The link to `peer` broke: what was forwarded there may or may not have arrived.
    pub(crate) fn link_down(&mut self, peer: NodeId, out: &mut Outbox) {
        let lost = |state| matches!(state, State::Forwarded { to, .. } if to == peer);
        self.fail_where(lost, Failure::Unknown(Reason::LinkDown), out);
    }

    fn fail_where(&mut self, ends: impl Fn(State) -> bool, failure: Failure, out: &mut Outbox) {
        let ended: Vec<u64> = self
            .live
            .iter()
            .filter(|(_, pending)| ends(pending.state))
            .map(|(seq, _)| *seq)
            .collect();
        reached!(
            "node.forwarded.unknown_by_new_term",
            !ended.is_empty() && failure == Failure::Unknown(Reason::LeaderChanged)
        );
        reached!(
            "node.forwarded.unknown_by_broken_link",
            !ended.is_empty() && failure == Failure::Unknown(Reason::LinkDown)
        );
        ended.into_iter().for_each(|seq| self.fail(seq, failure, out));
    }

    /// Ends what has reached its deadline, and tries again what is due for that.
    pub(crate) fn expire(&mut self, raft: &Raft, now: Nanos, out: &mut Outbox) {
        while let Some((_, seq)) = self.due.first().copied().filter(|first| first.0 <= now) {
            let failure = match self.pending(seq).state {
                State::Held => Failure::NotDone(Reason::NoLeader),
                // Not seen by anyone yet, but the core may be placing it.
                State::InCore | State::Forwarded { .. } | State::At(_) => Failure::Unknown(Reason::Timeout),
            };
            reached!(
                "node.expired.never_proposed",
                matches!(failure, Failure::NotDone(_))
            );
            reached!("node.expired.unknown", matches!(failure, Failure::Unknown(_)));
            self.fail(seq, failure, out);
        }
        if self.retry_at.take_if(|at| *at <= now).is_some() {
            self.try_held(raft, out);
        }
    }

    /// The next deadline.
    pub(crate) fn next_deadline(&self) -> Option<Nanos> {
        self.due
            .first()
            .map(|first| first.0)
            .into_iter()
            .chain(self.retry_at)
            .min()
    }

    fn fail(&mut self, seq: u64, failure: Failure, out: &mut Outbox) {
        let token = self.forget(seq).token;
        out.answer(token, failure);
    }

    /// Takes a proposal off the books: it is being answered.
    fn forget(&mut self, seq: u64) -> Pending {
        let pending = self.live.remove(&seq).expect("a proposal is answered once");
        self.due.remove(&(pending.deadline, seq));
        if let State::At(at) = pending.state {
            self.places.remove(&(at.index, seq));
        }
        if let Some(command) = self.held.remove(&seq) {
            self.held_bytes -= command.len();
        }
        pending
    }
}
