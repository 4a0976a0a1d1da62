//! Membership changes from the request to the answer (§4), here and forwarded; the feature level that the leader raises by itself; and what
//! the driver must know of the configuration: whom to talk to, and that this node was removed. What a change *is* stands in the core.
//!
//! A change goes to the leader at most once. One that is certainly not begun, because there is no leader or another change is under way, waits
//! and tries again until its deadline.

use std::collections::{BTreeMap, BTreeSet};

use quorate_base::{Index, NodeId, Term};
use quorate_marks::reached;
use quorate_raft::{Change, ChangeEnd, ChangeRefused, Config, Input, Raft, RoleKind};

use crate::config::NodeConfig;
use crate::event::{ChangeFailure, Nanos, Reason, Token};
use crate::message::{PeerMessage, RequestId};
use crate::outbox::Outbox;
use crate::seen::Seen;

/// The feature level from which on the members understand membership changes.
pub const MEMBERSHIP_LEVEL: u32 = 2;

/// The changes under way, and what is told of the membership.
#[derive(Debug)]
pub(crate) struct Changes {
    me: NodeId,
    boot: u64,
    /// What this node understands.
    features: u32,
    retry_after: Nanos,
    last: u64,
    live: BTreeMap<u64, Pending>,
    /// Given to the core, by the core's token.
    tickets: BTreeMap<u64, Ticket>,
    /// Done according to the leader, and not committed here yet.
    done: BTreeSet<(Index, u64)>,
    retry_at: Option<Nanos>,
    seen: Seen,
    /// What the others understand.
    known: BTreeMap<NodeId, u32>,
    /// When the level may be raised again, if it did not work.
    raise_at: Nanos,
    /// The configuration that the driver was told.
    told: Option<Config>,
    /// The log's epoch and where the configuration stood in it at the last look.
    told_at: Option<(u64, Index)>,
    told_removed: bool,
}

#[derive(Debug)]
struct Pending {
    token: Token,
    changes: Vec<Change>,
    force: bool,
    deadline: Nanos,
    state: State,
    /// Why it was not begun the last time.
    why: ChangeFailure,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Certainly not begun.
    Waiting,
    InCore,
    Forwarded {
        to: NodeId,
        term: Term,
    },
    Done(Index),
}

#[derive(Clone, Copy, Debug)]
enum Ticket {
    Own(u64),
    Peer(NodeId, RequestId),
    Level,
}

impl Changes {
    pub(crate) fn new(config: &NodeConfig) -> Changes {
        Changes {
            me: config.id,
            boot: config.nonce,
            features: config.features,
            retry_after: config.heartbeat,
            last: 0,
            live: BTreeMap::new(),
            tickets: BTreeMap::new(),
            done: BTreeSet::new(),
            retry_at: None,
            seen: Seen::default(),
            known: BTreeMap::new(),
            raise_at: 0,
            told: None,
            told_at: None,
            told_removed: false,
        }
    }

    /// Somebody here asks for a change.
    pub(crate) fn reconfigure(
        &mut self,
        raft: &Raft,
        (token, changes, force, deadline): (Token, Vec<Change>, bool, Nanos),
        out: &mut Outbox,
    ) {
        self.last += 1;
        let pending = Pending {
            token,
            changes,
            force,
            deadline,
            state: State::Waiting,
            why: ChangeFailure::NotDone(Reason::NoLeader),
        };
        self.live.insert(self.last, pending);
        self.route(raft, self.last, out);
    }

    /// Passes a change on to the leader, if there is one.
    fn route(&mut self, raft: &Raft, id: u64, out: &mut Outbox) {
        if raft.config().level < MEMBERSHIP_LEVEL {
            reached!("node.change.level_too_low");
            return self.finish(id, Err(ChangeFailure::Level), out);
        }
        let pending = self
            .live
            .get_mut(&id)
            .expect("a change is known until it is answered");
        if raft.role() == RoleKind::Leader {
            pending.state = State::InCore;
            let (changes, force) = (pending.changes.clone(), pending.force);
            self.give_to_core(Ticket::Own(id), changes, force, out);
        } else if let Some(to) = raft.leader() {
            reached!("node.change.forwarded");
            let term = raft.term();
            pending.state = State::Forwarded { to, term };
            let (changes, force) = (pending.changes.clone(), pending.force);
            // A number of its own for each try: the old one counts as seen.
            let pending = self.live.remove(&id).expect("just seen");
            self.last += 1;
            self.live.insert(self.last, pending);
            let (node, boot, seq) = (self.me.0, self.boot, self.last);
            let request = RequestId { node, boot, seq };
            out.send(
                to,
                PeerMessage::Reconfigure {
                    term,
                    request,
                    changes,
                    force,
                },
            );
        }
    }

    fn give_to_core(&mut self, ticket: Ticket, changes: Vec<Change>, force: bool, out: &mut Outbox) {
        self.last += 1;
        self.tickets.insert(self.last, ticket);
        let token = self.last;
        out.inputs.push(Input::Reconfigure {
            token,
            changes,
            force,
        });
    }

    fn finish(&mut self, id: u64, result: Result<Index, ChangeFailure>, out: &mut Outbox) {
        let pending = self.live.remove(&id).expect("a change is answered once");
        if let State::Done(index) = pending.state {
            self.done.remove(&(index, id));
        }
        out.effects.changed.push((pending.token, result));
    }

    /// A follower forwards a change. A repeated frame is passed over.
    pub(crate) fn forwarded(
        &mut self,
        raft: &Raft,
        from: NodeId,
        (term, request, changes, force): (Term, RequestId, Vec<Change>, bool),
        out: &mut Outbox,
    ) {
        if request.node != from.0 || !self.seen.is_new(request) {
            reached!("node.change.seen_before");
            return;
        }
        if raft.role() != RoleKind::Leader || raft.term() != term || raft.config().level < MEMBERSHIP_LEVEL {
            reached!("node.change.to_no_leader");
            let end = ChangeEnd::Refused(ChangeRefused::NotLeader(raft.leader()));
            return out.send(from, PeerMessage::Reconfigured { request, end });
        }
        self.give_to_core(Ticket::Peer(from, request), changes, force, out);
    }

    /// A change in the core has ended.
    pub(crate) fn ended(&mut self, now: Nanos, raft: &Raft, token: u64, end: ChangeEnd, out: &mut Outbox) {
        let ticket = self
            .tickets
            .remove(&token)
            .expect("the core ends what it was given, once");
        match ticket {
            Ticket::Own(id) => self.settle(now, raft, id, end, out),
            Ticket::Peer(from, request) => out.send(from, PeerMessage::Reconfigured { request, end }),
            Ticket::Level if matches!(end, ChangeEnd::Done(_)) => {}
            Ticket::Level => {
                reached!("node.level.raise_refused");
                self.raise_at = now + self.retry_after;
            }
        }
    }

    /// The leader says how a change of ours ended.
    pub(crate) fn answered(
        &mut self,
        now: Nanos,
        raft: &Raft,
        (from, request, end): (NodeId, RequestId, ChangeEnd),
        out: &mut Outbox,
    ) {
        let ours = request.node == self.me.0 && request.boot == self.boot;
        let state = self.live.get(&request.seq).map(|pending| pending.state);
        if ours && matches!(state, Some(State::Forwarded { to, .. }) if to == from) {
            self.settle(now, raft, request.seq, end, out);
        }
    }

    fn settle(&mut self, now: Nanos, raft: &Raft, id: u64, end: ChangeEnd, out: &mut Outbox) {
        // A deadline that passed in between has answered it already.
        let Some(pending) = self.live.get_mut(&id) else {
            reached!("node.change.expired_already");
            return;
        };
        match end {
            ChangeEnd::Done(index) if index <= raft.commit() => self.finish(id, Ok(index), out),
            ChangeEnd::Done(index) => {
                reached!("node.change.done_ahead_of_commit");
                pending.state = State::Done(index);
                self.done.insert((index, id));
            }
            ChangeEnd::Unknown => {
                reached!("node.change.unknown");
                self.finish(id, Err(ChangeFailure::Unknown(Reason::LeaderChanged)), out);
            }
            ChangeEnd::Refused(why) => {
                use ChangeRefused::{Bad, NotCaughtUp, NotLeader, Pending, Transferring, WouldLoseQuorum};
                match why {
                    NotLeader(_) | Transferring | Pending => {
                        reached!("node.change.tried_again_later");
                        pending.state = State::Waiting;
                        pending.why = match why {
                            NotLeader(_) => ChangeFailure::NotDone(Reason::NoLeader),
                            _ => ChangeFailure::Refused(why),
                        };
                        self.retry_at.get_or_insert(now + self.retry_after);
                    }
                    Bad(_) | NotCaughtUp(_) | WouldLoseQuorum => {
                        reached!("node.change.refused");
                        self.finish(id, Err(ChangeFailure::Refused(why)), out);
                    }
                }
            }
        }
    }

    /// The link to `peer` is down: whether it got what was forwarded is not known.
    pub(crate) fn link_down(&mut self, peer: NodeId, out: &mut Outbox) {
        self.fail_forwarded(Reason::LinkDown, out, |to, _| to == peer);
    }

    /// A forwarded change was certainly not sent.
    pub(crate) fn not_sent(&mut self, now: Nanos, request: RequestId) {
        if let Some(pending) = self.live.get_mut(&request.seq)
            && matches!(pending.state, State::Forwarded { .. })
        {
            reached!("node.change.not_sent");
            pending.state = State::Waiting;
            self.retry_at.get_or_insert(now + self.retry_after);
        }
    }

    fn fail_forwarded(&mut self, why: Reason, out: &mut Outbox, lost: impl Fn(NodeId, Term) -> bool) {
        let hit =
            |pending: &Pending| matches!(pending.state, State::Forwarded { to, term } if lost(to, term));
        let ids: Vec<u64> = self
            .live
            .iter()
            .filter(|(_, p)| hit(p))
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            reached!(
                "node.change.forwarded_unknown_by_broken_link",
                why == Reason::LinkDown
            );
            reached!(
                "node.change.forwarded_unknown_by_new_term",
                why == Reason::LeaderChanged
            );
            self.finish(id, Err(ChangeFailure::Unknown(why)), out);
        }
    }

    /// A handshake told what a peer understands.
    pub(crate) fn met(&mut self, peer: NodeId, features: u32) {
        self.known.insert(peer, features);
    }

    /// Looks at term, leader, commit index and configuration after a step.
    pub(crate) fn follow(&mut self, now: Nanos, raft: &Raft, out: &mut Outbox) {
        if !self.live.is_empty() {
            let current = raft.term();
            self.fail_forwarded(Reason::LeaderChanged, out, |_, term| term != current);
            while let Some((index, id)) = self
                .done
                .first()
                .copied()
                .filter(|first| first.0 <= raft.commit())
            {
                self.finish(id, Ok(index), out);
            }
        }
        if self.retry_at.is_none() && raft.leader().is_some() {
            self.route_waiting(raft, out);
        }
        self.raise_level(now, raft, out);
        self.tell(raft, out);
    }

    fn route_waiting(&mut self, raft: &Raft, out: &mut Outbox) {
        let waiting = |(_, p): &(&u64, &Pending)| p.state == State::Waiting;
        let ids: Vec<u64> = self.live.iter().filter(waiting).map(|(id, _)| *id).collect();
        for id in ids {
            self.route(raft, id, out);
        }
    }

    /// The leader raises the feature level as soon as all members are known to understand more.
    fn raise_level(&mut self, now: Nanos, raft: &Raft, out: &mut Outbox) {
        let config = raft.config();
        if raft.role() != RoleKind::Leader
            || self.features <= config.level
            || self.features < MEMBERSHIP_LEVEL
            || now < self.raise_at
        {
            return;
        }
        let features = |id| match id == self.me {
            true => Some(self.features),
            false => self.known.get(&id).copied(),
        };
        let common = config.members().into_iter().map(features).min().flatten();
        let asked = self
            .tickets
            .values()
            .any(|ticket| matches!(ticket, Ticket::Level));
        if let Some(level) = common.filter(|level| *level > config.level && *level >= MEMBERSHIP_LEVEL)
            && !asked
        {
            reached!("node.level.raises");
            self.give_to_core(Ticket::Level, vec![Change::RaiseLevel(level)], false, out);
        }
    }

    fn tell(&mut self, raft: &Raft, out: &mut Outbox) {
        let config = raft.config();
        // Unless it stands elsewhere in the log, or that was truncated, it is the same as at the last look.
        let at = (raft.log().epoch(), raft.log().config_index());
        let moved = self.told_at.replace(at) != Some(at);
        if moved && self.told.as_ref() != Some(config) {
            if config.level > self.features {
                reached!("node.level.beyond_this_release");
                out.effects.fatal = Some(format!(
                    "the cluster's feature level is {}, this release understands {}: upgrade it",
                    config.level, self.features
                ));
            }
            self.told = Some(config.clone());
            out.effects.membership = Some(config.clone());
        }
        if !self.told_removed && raft.is_removed() {
            reached!("node.removed.told");
            self.told_removed = true;
            out.effects.removed = true;
        }
    }

    /// Tries again what waits, and ends what took too long.
    pub(crate) fn expire(&mut self, now: Nanos, raft: &Raft, out: &mut Outbox) {
        let due: Vec<u64> = self
            .live
            .iter()
            .filter(|(_, pending)| pending.deadline <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            let pending = &self.live[&id];
            let why = match pending.state {
                State::Waiting => pending.why,
                State::InCore | State::Forwarded { .. } | State::Done(_) => {
                    ChangeFailure::Unknown(Reason::Timeout)
                }
            };
            reached!("node.change.expired", matches!(why, ChangeFailure::Unknown(_)));
            reached!(
                "node.change.expired_waiting",
                !matches!(why, ChangeFailure::Unknown(_))
            );
            self.finish(id, Err(why), out);
        }
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.route_waiting(raft, out);
        }
    }

    /// The next deadline.
    pub(crate) fn next_deadline(&self) -> Option<Nanos> {
        let deadlines = self.live.values().map(|pending| pending.deadline);
        deadlines.chain(self.retry_at).min()
    }
}
