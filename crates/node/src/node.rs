//! The step function: events in, effects out. Here the parts of a node are put together; what each of them knows stands
//! in its own file.

use bytes::Bytes;
use quorate_base::{Index, LogId, NodeId, Term};
use quorate_marks::reached;
use quorate_raft::{self as raft, Body, Input, Message, Outgoing, Placed, Raft, RoleKind, SnapMeta};
use quorate_wal::Record;

use crate::apply::Applier;
use crate::changes::Changes;
use crate::config::NodeConfig;
use crate::entry;
use crate::event::{Effects, Event, Nanos, StageOp};
use crate::fill::Appends;
use crate::lease::Lease;
use crate::message::PeerMessage;
use crate::outbox::Outbox;
use crate::proposals::Proposals;
use crate::reads::Reads;
use crate::snapshot::{incoming, outgoing};
use crate::status::Status;
use crate::tail::Tail;
use crate::timers::Timers;
use crate::writes::Writes;

/// One member of one Raft group, deterministic: the same events at the same times give the same effects.
///
/// The driver steps any number of events, takes the effects once, carries them out, and reports completions as
/// events. The first event is [`Event::Wake`], which starts the clock.
#[derive(Debug)]
pub struct Node {
    config: NodeConfig,
    now: Nanos,
    started: bool,
    raft: Raft,
    timers: Timers,
    tail: Tail,
    writes: Writes,
    appends: Appends,
    applier: Applier,
    proposals: Proposals,
    reads: Reads,
    lease: Lease,
    changes: Changes,
    incoming: incoming::Incoming,
    outgoing: outgoing::Outgoing,
    /// What the state machine would keep in a crash.
    machine_durable: Index,
    out: Outbox,
    /// The core's effects while they are carried out; between that empty, kept for the memory of its lists.
    core_effects: raft::Effects,
}

/// What [`Boot`](crate::Boot) found besides the core's state.
pub(crate) struct Start {
    pub(crate) first_mark: Option<Record>,
    pub(crate) restore: Option<SnapMeta>,
    pub(crate) applied: Index,
    pub(crate) durable: Index,
}

impl Node {
    pub(crate) fn new(config: NodeConfig, raft: Raft, start: Start) -> Node {
        let mut applier = Applier::new(start.applied, config.apply_bytes);
        let mut out = Outbox::default();
        match &start.restore {
            Some(meta) => applier.restore(meta),
            // What an earlier run had staged of a transfer may go on.
            None => out.effects.stage.push(StageOp::Check),
        }
        Node {
            now: 0,
            started: false,
            timers: Timers::new(&config),
            tail: Tail::new(config.cache_bytes),
            writes: Writes::new(raft.log(), start.first_mark, config.election / 2),
            appends: Appends::new(config.frame_bytes),
            applier,
            proposals: Proposals::new(&config),
            reads: Reads::default(),
            lease: Lease::new(&config),
            changes: Changes::new(&config),
            incoming: incoming::Incoming::new(start.restore.is_some()),
            outgoing: outgoing::Outgoing::new(&config),
            machine_durable: start.durable,
            raft,
            config,
            out,
            core_effects: raft::Effects::default(),
        }
    }

    /// Takes one event. `now` never falls.
    pub fn step(&mut self, now: Nanos, event: Event) {
        self.now = self.now.max(now);
        if !self.started {
            self.started = true;
            self.absorb();
        }
        match event {
            Event::Wake => self.on_wake(),
            Event::Peer { from, message } => self.on_peer(from, message),
            Event::LinkUp(peer) => {
                self.outgoing.link_up(self.now, peer, &mut self.out);
                self.raft.step(Input::Reachable(peer));
            }
            Event::LinkDown(peer) => self.on_link_down(peer),
            Event::Gone(peer) => self.on_gone(peer),
            Event::Met { peer, features } => self.changes.met(peer, features),
            Event::Dropped { to, message } => self.on_dropped(to, message),
            Event::Propose {
                token,
                command,
                deadline,
            } => {
                self.proposals
                    .propose(&self.raft, (token, command, deadline), &mut self.out);
            }
            Event::Read {
                token,
                forward,
                deadline,
            } => {
                let leased = self.lease.read_index(self.now, &self.raft);
                let applied = self.applier.applied();
                self.reads
                    .read((token, forward, deadline), leased, applied, &mut self.out);
            }
            Event::Reconfigure {
                token,
                changes,
                force,
                deadline,
            } => {
                self.changes
                    .reconfigure(&self.raft, (token, changes, force, deadline), &mut self.out);
            }
            Event::Transfer(to) => self.raft.step(Input::Transfer(to)),
            Event::Written(id) => {
                let id = self.writes.written(id);
                self.raft.step(Input::Persisted(id));
            }
            Event::LogRead { id, bodies } => self.on_log_read(id, &bodies),
            Event::Applied(index) => self.on_applied(index),
            Event::MachineDurable(index) => {
                self.machine_durable = self.machine_durable.max(index);
                self.compact();
            }
            Event::Restored(at) => self.on_restored(at),
            Event::SnapshotOpened { stream, at } => {
                self.outgoing
                    .opened(self.now, self.raft.log(), stream, at, &mut self.out);
            }
            Event::SnapshotChunk { stream, chunk } => {
                self.outgoing.chunk(self.now, stream, chunk, &mut self.out);
            }
            Event::StageChecked { about, len, crc, end } => {
                self.incoming
                    .checked(&self.raft, (about, len, crc, end), &mut self.out);
            }
            Event::Staged {
                stream,
                len,
                finished,
            } => self.on_staged(stream, len, finished),
            Event::StageFailed { stream } => self.incoming.stage_failed(stream, &mut self.out),
        }
        self.feed();
    }

    /// Hands out everything there is to do since the last call. Nothing before the first step.
    pub fn take_effects(&mut self) -> Effects {
        if !self.started {
            return Effects::default();
        }
        self.absorb();
        self.tail.evict(self.raft.durable());
        std::mem::take(&mut self.out.effects)
    }

    /// When the next [`Event::Wake`] is due.
    pub fn next_deadline(&self) -> Option<Nanos> {
        let deadlines = [
            self.timers.next(),
            self.proposals.next_deadline(),
            self.reads.next_deadline(),
            self.changes.next_deadline(),
            self.writes.next_deadline(),
            self.outgoing.next_deadline(),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// The core, to look at.
    pub fn raft(&self) -> &Raft {
        &self.raft
    }

    /// What the state machine has applied.
    pub fn applied(&self) -> Index {
        self.applier.applied()
    }

    /// How this node is.
    pub fn status(&self) -> Status {
        Status {
            id: self.raft.id(),
            term: self.raft.term(),
            leader: self.raft.leader(),
            role: self.raft.role(),
            commit: self.raft.commit(),
            applied: self.applier.applied(),
            durable: self.raft.durable(),
            first: self.raft.log().first(),
            last: self.raft.last(),
            config: self.raft.config().clone(),
            peers: self.raft.peers().collect(),
            restoring: self.applier.is_restoring(),
        }
    }

    /// Passes on to the core what the parts have for it.
    fn feed(&mut self) {
        for input in self.out.inputs.drain(..) {
            self.raft.step(input);
        }
        self.tail.sync(self.raft.log());
    }

    /// Drains the core and carries its effects into the parts, until nobody has anything to say any more.
    fn absorb(&mut self) {
        self.feed();
        while self.raft.has_effects() {
            let mut effects = std::mem::take(&mut self.core_effects);
            self.raft.take_effects_into(&mut effects);
            self.take_core_effects(&mut effects);
            self.core_effects = effects;
            self.proposals.follow(&self.raft, &mut self.out);
            self.reads.follow(&self.raft, &mut self.out);
            self.changes.follow(self.now, &self.raft, &mut self.out);
            self.outgoing.follow(&self.raft, &mut self.out);
            self.incoming.follow(&self.raft, &mut self.out);
            self.feed();
        }
        self.applier
            .pump(self.raft.log(), &self.tail, &mut self.proposals, &mut self.out);
    }

    fn take_core_effects(&mut self, effects: &mut raft::Effects) {
        for placed in effects.placed.drain(..) {
            self.take_placed(placed);
        }
        for (token, end) in effects.changed.drain(..) {
            self.changes
                .ended(self.now, &self.raft, token, end, &mut self.out);
        }
        let term = self.raft.term();
        self.lease
            .follow(self.now, term, effects.round_begun, effects.round_confirmed);
        for (token, why) in effects.refused.drain(..) {
            self.proposals.refused(self.now, token, why, &mut self.out);
        }
        if let Some(write) = effects.write.take() {
            if let Some(meta) = &write.installed {
                self.incoming.installing(meta);
            }
            let op = self.writes.of_core(self.now, write, &self.tail);
            self.out.effects.log.push(op);
        }
        for outgoing in effects.send.drain(..) {
            self.take_outgoing(outgoing);
        }
        if let Some(meta) = effects.restore.take() {
            self.applier.restore(&meta);
            self.proposals.installed(meta.last, &mut self.out);
            self.incoming.restore(&meta, &mut self.out);
        }
        if let Some(range) = effects.apply {
            self.applier.allow(range.prev.index, range.last.index);
        }
        for (id, result) in effects.reads.drain(..) {
            self.reads
                .answered(id, result, self.applier.applied(), &mut self.out);
        }
        for (timer, arm) in effects.timers.drain(..) {
            self.timers.arm(self.now, timer, arm);
        }
    }

    /// Makes the body of an entry that this leader placed in its log.
    fn take_placed(&mut self, placed: Placed) {
        let (at, body) = match placed {
            Placed::Noop { at } => {
                let held = self.raft.log().contains(at);
                (at, held.then(|| entry::encode_noop(at)))
            }
            Placed::Config { at, config } => {
                let held = self.raft.log().contains(at);
                let content = entry::Content::Config(*config);
                (at, held.then(|| entry::Entry { at, content }.encode()))
            }
            Placed::Proposal { token, at } => {
                (at, self.proposals.placed(&self.raft, token, at, &mut self.out))
            }
        };
        if let Some(body) = body {
            self.tail.put(at, body);
        }
    }

    fn take_outgoing(&mut self, outgoing: Outgoing) {
        match outgoing {
            Outgoing::Message { to, message } => self.out.send(to, PeerMessage::Raft(message)),
            Outgoing::Append {
                to,
                term,
                range,
                commit,
            } => {
                self.appends
                    .send(&self.raft, &self.tail, to, (term, range, commit), &mut self.out);
            }
            Outgoing::Snapshot { to, term } => self.outgoing.start(self.now, to, term, &mut self.out),
        }
    }

    /// Fires what is due. Each timer's consequences are taken in before the next is looked at, since it may stop it.
    fn on_wake(&mut self) {
        self.absorb();
        while let Some(timer) = self.timers.pop_due(self.now) {
            self.raft.step(Input::Fired(timer));
            self.absorb();
        }
        if self.writes.hangs(self.now) {
            reached!("node.disk.hangs");
            self.raft.step(Input::DiskStalled);
            self.absorb();
        }
        self.changes.expire(self.now, &self.raft, &mut self.out);
        self.proposals.expire(&self.raft, self.now, &mut self.out);
        self.reads.expire(self.now, &mut self.out);
        self.outgoing.expire(self.now, &mut self.out);
    }

    fn on_peer(&mut self, from: NodeId, message: PeerMessage) {
        match message {
            PeerMessage::Raft(message) => {
                // Its entries would have no bodies: no correct peer sends that.
                reached!(
                    "node.message.append_without_bodies",
                    matches!(message.body, Body::Append { .. })
                );
                if !matches!(message.body, Body::Append { .. }) {
                    self.raft.step(Input::Message { from, message });
                }
            }
            PeerMessage::Append {
                term,
                prev,
                entries,
                commit,
            } => {
                let header = (prev, commit);
                self.on_append(from, term, header, entries);
            }
            PeerMessage::Forward {
                term,
                request,
                command,
            } => {
                self.proposals
                    .forwarded(&self.raft, from, (term, request, command), &mut self.out);
            }
            PeerMessage::Refuse { request, why } => {
                self.proposals
                    .refused_by(self.now, from, request, why, &mut self.out);
            }
            PeerMessage::Accept { request, at } => {
                let handed = self.applier.handed();
                self.proposals
                    .accepted(&self.raft, from, request, at, handed, &mut self.out);
            }
            PeerMessage::Reconfigure {
                term,
                request,
                changes,
                force,
            } => {
                self.changes
                    .forwarded(&self.raft, from, (term, request, changes, force), &mut self.out);
            }
            PeerMessage::Reconfigured { request, end } => {
                self.changes
                    .answered(self.now, &self.raft, (from, request, end), &mut self.out);
            }
            PeerMessage::SnapshotBegin { stream, term, meta } => {
                // The core judges the sender's authority first, as with every message of a leader.
                let body = Body::InstallSnapshot { last: meta.last };
                self.raft.step(Input::Message {
                    from,
                    message: Message { term, body },
                });
                let transfer = incoming::Identity {
                    from,
                    stream,
                    term,
                    meta,
                };
                self.incoming.begin(&self.raft, transfer, &mut self.out);
            }
            PeerMessage::SnapshotChunk {
                stream,
                term,
                offset,
                bytes,
                crc,
                done,
            } => {
                let piece = incoming::Piece {
                    stream,
                    term,
                    offset,
                    bytes,
                    crc,
                    done,
                };
                self.incoming.chunk(&self.raft, from, piece, &mut self.out);
            }
            PeerMessage::SnapshotAck { stream, len, outcome } => {
                self.outgoing
                    .acked(self.now, from, stream, len, outcome, &mut self.out);
            }
        }
    }

    /// AppendEntries: the core gets the entries' shapes and decides, then the bodies of those that are in the log are kept.
    fn on_append(&mut self, from: NodeId, term: Term, (prev, commit): (LogId, Index), bodies: Vec<Bytes>) {
        let mut shapes = Vec::with_capacity(bodies.len());
        let mut ids = Vec::with_capacity(bodies.len());
        let mut expected = prev.index.0;
        for body in &bodies {
            expected = expected.wrapping_add(1);
            match entry::shape(body) {
                Ok((index, shape)) if index.0 == expected && expected != 0 => {
                    let term = shape.term;
                    ids.push(LogId { term, index });
                    shapes.push(shape);
                }
                // Not what a correct peer sends: the whole message is passed over.
                _ => {
                    reached!("node.message.unreadable_entry");
                    return;
                }
            }
        }
        if self.raft.role() == RoleKind::Leader {
            reached!("node.message.append_to_leader");
            // Bodies of entries just placed here come into the cache before those that may replace them.
            self.absorb();
        }
        // What is in the log already is in the cache too, or left it, or was compacted: it must not come back out of order.
        let log = self.raft.log();
        let known = |at: &&LogId| at.index < log.first() || log.contains(**at);
        let known = ids.iter().take_while(known).count();
        reached!("node.append.some_known", known > 0);
        let body = Body::Append {
            prev,
            entries: shapes,
            commit,
        };
        let message = Message { term, body };
        self.raft.step(Input::Message { from, message });
        self.tail.sync(self.raft.log());
        for (at, body) in ids.into_iter().zip(bodies).skip(known) {
            if self.raft.log().contains(at) {
                self.tail.put(at, body);
            }
        }
    }

    fn on_link_down(&mut self, peer: NodeId) {
        self.proposals.link_down(peer, &mut self.out);
        self.outgoing.link_down(peer);
        self.changes.link_down(peer, &mut self.out);
        let matched = self
            .raft
            .peers()
            .find(|(id, _)| *id == peer)
            .map(|(_, peer)| peer.matched);
        if let Some(matched) = matched {
            reached!("node.link.down_to_follower");
            self.appends.lost(peer, matched.next(), &mut self.out);
        }
    }

    /// A process is gone; of interest if it led.
    fn on_gone(&mut self, peer: NodeId) {
        let (leader, term) = (peer, self.raft.term());
        reached!("node.gone.no_leader_of_ours", self.raft.leader() != Some(peer));
        if self.raft.leader() == Some(peer) {
            self.raft.step(Input::LeaderDead { leader, term });
        }
    }

    /// The driver did not send a message. What nobody else would repeat is seen to here.
    fn on_dropped(&mut self, to: NodeId, message: PeerMessage) {
        match message {
            PeerMessage::Append { term, prev, .. }
                if self.raft.role() == RoleKind::Leader && self.raft.term() == term =>
            {
                reached!("node.dropped.append");
                self.appends.lost(to, prev.index.next(), &mut self.out);
            }
            PeerMessage::Forward { request, command, .. } => {
                reached!("node.dropped.forward");
                self.proposals.not_sent(self.now, request, command, &mut self.out);
            }
            PeerMessage::Reconfigure { request, .. } => {
                reached!("node.dropped.change");
                self.changes.not_sent(self.now, request);
            }
            // The core and the snapshot streams ask again by their timers; answers to proposals are replaced by the deadline.
            _ => reached!("node.dropped.other"),
        }
    }

    fn on_log_read(&mut self, id: u64, bodies: &Result<Vec<Bytes>, String>) {
        // Nobody: what it was for has been overtaken.
        let _ = self
            .applier
            .on_read(self.raft.log(), id, bodies, &mut self.proposals, &mut self.out)
            || self
                .appends
                .on_read(&self.raft, &self.tail, id, bodies, &mut self.out);
    }

    fn on_applied(&mut self, index: Index) {
        self.applier.on_applied(index);
        self.raft.step(Input::Applied(index));
        self.reads.applied(self.applier.applied(), &mut self.out);
    }

    fn on_restored(&mut self, at: LogId) {
        self.applier.restored(at);
        self.machine_durable = self.machine_durable.max(at.index);
        self.incoming.restored();
        self.raft.step(Input::Applied(at.index));
        self.reads.applied(at.index, &mut self.out);
    }

    fn on_staged(&mut self, stage: u64, len: u64, finished: bool) {
        if let Some((from, term, meta)) = self.incoming.staged(stage, len, finished, &mut self.out) {
            let meta = Box::new(meta);
            self.raft.step(Input::SnapshotStaged { from, term, meta });
            self.absorb();
            self.incoming.settle(&self.raft, &mut self.out);
        }
    }

    /// Drops the part of the log that the durable state machine covers, but for a tail that is kept for slow followers, and for
    /// what transfers under way will need next (S12).
    fn compact(&mut self) {
        let log = self.raft.log();
        let base = log.base().last.index;
        let covered = self.machine_durable.min(self.raft.applied());
        if covered <= base {
            return;
        }
        let by_count = covered.0.saturating_sub(self.config.keep_entries).max(base.0);
        let (mut low, mut high) = (by_count, covered.0);
        while low < high {
            let middle = low + (high - low) / 2;
            match log.bytes_between(Index(middle), covered) > self.config.keep_bytes {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        let to = self
            .outgoing
            .hold_log(self.now, log, covered, &mut self.out)
            .map_or(Index(low), |held| held.min(Index(low)));
        reached!("node.compact.held_by_snapshot", to < Index(low));
        reached!("node.compact.keeps_by_bytes", low > by_count);
        let slack = to.0.saturating_sub(base.0);
        // Not for a few entries: a mark costs a write.
        if slack == 0
            || (slack <= self.config.keep_entries / 8
                && log.bytes_between(base, to) <= self.config.keep_bytes / 8)
        {
            reached!("node.compact.not_worth_it", slack > 0);
            return;
        }
        let last = log
            .id_at(to)
            .expect("what the state machine covers is in the log");
        let meta = SnapMeta {
            last,
            config: log.config_at(to).clone(),
        };
        let op = self.writes.of_compaction(self.now, meta);
        self.out.effects.log.push(op);
        self.raft.step(Input::Compacted(to));
    }
}
