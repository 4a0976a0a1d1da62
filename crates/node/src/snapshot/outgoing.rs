//! The sending side of snapshot transfers: several followers at once, each with a view of its own, within one [`Budget`].

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use quorate_base::{Index, LogId, NodeId, Term};
use quorate_marks::reached;
use quorate_raft::{Input, Log, Raft, RoleKind, SnapMeta};

use super::budget::Budget;
use crate::config::NodeConfig;
use crate::event::{Nanos, SnapshotOp, StreamId};
use crate::message::{PeerMessage, SnapshotOutcome};
use crate::outbox::Outbox;

/// So many times in a row without any progress, and a transfer is given up.
const TRIES: u32 = 8;
/// The same while the link is known to be down: a machine may start in the meantime. View and log are kept for so long.
const TRIES_DOWN: u32 = 60;
/// A follower that takes in a snapshot so many times slower than the log grows could not keep up with the log either.
const TOO_SLOW: u64 = 4;
/// The longest pause between two transfers that fail, in units of the first.
const LONGEST_PAUSE: Nanos = 64;

/// The transfers to followers.
#[derive(Debug)]
pub(crate) struct Outgoing {
    streams: BTreeMap<StreamId, Stream>,
    last: StreamId,
    /// Followers to which transfers failed.
    setbacks: BTreeMap<NodeId, Setback>,
    budget: Budget,
    /// The stream that sent the last piece: the ones after it come first.
    turn: StreamId,
    chunk_bytes: usize,
    window: usize,
    patience: Nanos,
    hold_bytes: u64,
}

/// What failed transfers to a follower left behind.
#[derive(Debug, Default)]
struct Setback {
    /// How long the last pause was to be, and when it ends.
    pause: Nanos,
    until: Nanos,
    /// The most that any of them got staged.
    reached: u64,
}

/// One transfer.
#[derive(Debug)]
struct Stream {
    to: NodeId,
    term: Term,
    /// Only then a view is opened: the transfers before failed.
    rests_until: Option<Nanos>,
    /// What it covers, once the view is open.
    meta: Option<SnapMeta>,
    /// The link is down, as far as is known.
    down: bool,
    /// The follower has answered the last `SnapshotBegin`.
    begun: bool,
    /// The follower has durably staged so much.
    acked: u64,
    /// So much of it a restarted follower has read again.
    checked: u64,
    /// Read from the view so far, with its checksum.
    read: u64,
    crc: u32,
    reading: bool,
    /// The last piece has been read.
    complete: bool,
    /// Pieces read and not acknowledged; the first `sent` of them are on their way.
    pieces: VecDeque<Piece>,
    sent: usize,
    /// The pieces from `acked` on were sent again, and nothing was heard of them yet.
    resent: bool,
    /// When what is waited for is overdue.
    deadline: Nanos,
    tries: u32,
}

#[derive(Debug)]
struct Piece {
    offset: u64,
    bytes: Bytes,
    crc: u32,
    done: bool,
}

impl Outgoing {
    pub(crate) fn new(config: &NodeConfig) -> Outgoing {
        Outgoing {
            streams: BTreeMap::new(),
            // Numbers are not used again after a restart, when a follower may still hold half a transfer.
            last: config.nonce >> 1,
            setbacks: BTreeMap::new(),
            budget: Budget::new(config.snapshot_rate),
            turn: 0,
            chunk_bytes: config.chunk_bytes,
            window: config.chunk_window.max(1),
            patience: config.election,
            hold_bytes: config.hold_bytes,
        }
    }

    /// The core wants a snapshot sent. A transfer to the same peer that is still running is replaced.
    pub(crate) fn start(&mut self, now: Nanos, to: NodeId, term: Term, out: &mut Outbox) {
        self.close_all(|stream| stream.to == to, out);
        self.last += 1;
        let rests_until = self
            .setbacks
            .get(&to)
            .map(|setback| setback.until)
            .filter(|until| *until > now);
        reached!("node.send_snapshot.after_a_rest", rests_until.is_some());
        let stream = Stream::new(to, term, rests_until, now + self.patience);
        if rests_until.is_none() {
            out.effects.snapshots.push(SnapshotOp::Open { stream: self.last });
        }
        self.streams.insert(self.last, stream);
    }

    fn close_all(&mut self, which: impl Fn(&Stream) -> bool, out: &mut Outbox) {
        let picked = self.streams.iter().filter(|(_, stream)| which(stream));
        let ids: Vec<_> = picked.map(|(id, _)| *id).collect();
        ids.into_iter().for_each(|id| self.close(id, out));
    }

    fn close(&mut self, id: StreamId, out: &mut Outbox) {
        let closed = self.streams.remove(&id);
        if closed.is_some_and(|stream| stream.rests_until.is_none()) {
            out.effects.snapshots.push(SnapshotOp::Close { stream: id });
        }
    }

    /// Ends a transfer that was installed, and tells the core.
    fn succeed(&mut self, id: StreamId, out: &mut Outbox) {
        if let Some(stream) = self.streams.get(&id) {
            let last = stream.meta.as_ref().map(|meta| meta.last);
            self.setbacks.remove(&stream.to);
            out.inputs.push(Input::SnapshotSent { to: stream.to, last });
            self.close(id, out);
        }
    }

    /// Ends a transfer that came to nothing, and tells the core. The next one to this follower has to wait: twice as long as the last
    /// time, unless this one got further than all before.
    fn fail(&mut self, now: Nanos, id: StreamId, out: &mut Outbox) {
        let Some(stream) = self.streams.get(&id) else {
            return;
        };
        let setback = self.setbacks.entry(stream.to).or_default();
        let further = stream.acked > setback.reached;
        setback.reached = setback.reached.max(stream.acked);
        setback.pause = match setback.pause {
            0 => self.patience,
            _ if further => self.patience,
            pause => (pause * 2).min(self.patience * LONGEST_PAUSE),
        };
        reached!("node.send_snapshot.fails");
        reached!("node.send_snapshot.fails_again", setback.pause > self.patience);
        setback.until = now + setback.pause;
        out.inputs.push(Input::SnapshotSent {
            to: stream.to,
            last: None,
        });
        self.close(id, out);
    }

    /// Transfers of an earlier term are over, for only the leader of the current one may send; and those to members that are gone.
    pub(crate) fn follow(&mut self, raft: &Raft, out: &mut Outbox) {
        let leads = raft.role() == RoleKind::Leader;
        let is_member = |id| raft.peers().any(|(peer, _)| peer == id);
        let over = |stream: &Stream| !leads || stream.term != raft.term() || !is_member(stream.to);
        reached!("node.send_snapshot.over", self.streams.values().any(over));
        self.close_all(over, out);
        if !leads {
            self.setbacks.clear();
        }
    }

    /// A view is open, or could not be opened.
    pub(crate) fn opened(
        &mut self,
        now: Nanos,
        log: &Log,
        id: StreamId,
        at: Option<LogId>,
        out: &mut Outbox,
    ) {
        let Some(stream) = self.streams.get_mut(&id) else {
            reached!("node.send_snapshot.closed_before_opened");
            // It was closed before there was a view to let go of.
            return out.effects.snapshots.push(SnapshotOp::Close { stream: id });
        };
        // The follower needs what comes after the snapshot, so the log must still have that.
        let Some(last) = at.filter(|at| log.contains(*at)) else {
            reached!("node.send_snapshot.no_view", at.is_none());
            reached!("node.send_snapshot.view_before_log", at.is_some());
            return self.fail(now, id, out);
        };
        let config = log.config_at(last.index).clone();
        if config.voters.is_empty() {
            reached!("node.send_snapshot.of_nobody");
            // Nobody founded this: whoever installed it would be a member of nothing.
            return self.fail(now, id, out);
        }
        stream.meta = Some(SnapMeta { last, config });
        stream.begin(now + self.patience, id, out);
    }

    /// A piece was read from a view: empty at the end, `None` if reading failed.
    pub(crate) fn chunk(&mut self, now: Nanos, id: StreamId, chunk: Option<Bytes>, out: &mut Outbox) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let Some(bytes) = chunk else {
            reached!("node.send_snapshot.view_unreadable");
            return self.fail(now, id, out);
        };
        stream.reading = false;
        stream.complete = bytes.is_empty();
        stream.crc = crc32c::crc32c_append(stream.crc, &bytes);
        let piece = Piece {
            offset: stream.read,
            crc: stream.crc,
            done: bytes.is_empty(),
            bytes,
        };
        stream.read += piece.bytes.len() as u64;
        stream.pieces.push_back(piece);
        self.pump(now, id, out);
    }

    /// The follower says how far it is.
    pub(crate) fn acked(
        &mut self,
        now: Nanos,
        from: NodeId,
        id: StreamId,
        len: u64,
        outcome: SnapshotOutcome,
        out: &mut Outbox,
    ) {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.to == from) else {
            reached!("node.send_snapshot.answer_to_nothing");
            return;
        };
        stream.down = false;
        reached!("node.send_snapshot.refused", outcome == SnapshotOutcome::Refused);
        reached!(
            "node.send_snapshot.checking",
            outcome == SnapshotOutcome::Checking
        );
        match outcome {
            SnapshotOutcome::Done => return self.succeed(id, out),
            SnapshotOutcome::Refused => return self.fail(now, id, out),
            // It is asked again until it has read it all.
            SnapshotOutcome::Checking => return stream.checking(len),
            SnapshotOutcome::More => {}
        }
        let asked = !std::mem::replace(&mut stream.begun, true);
        if len > stream.read || (asked && len < stream.acked) {
            reached!("node.send_snapshot.receiver_lost_it", len <= stream.read);
            reached!("node.send_snapshot.of_another_view", len > stream.read);
            // It lost what it had staged, and views cannot be read backwards: start over with a new one.
            return self.fail(now, id, out);
        }
        stream.deadline = now + self.patience;
        // Answers alone are no progress: a follower that stages nothing more must not pin the log for ever. One that has all
        // of it may take its time to install it.
        if len > stream.acked || (stream.complete && len == stream.read) {
            stream.tries = 0;
        }
        reached!("node.send_snapshot.resumed", asked && len > 0);
        if len > stream.acked {
            stream.advance(len);
        } else if len == stream.acked && !asked && !stream.resent {
            reached!("node.send_snapshot.piece_lost");
            // The same answer twice: a piece behind it was lost. Each of the pieces behind that brings the answer once more.
            stream.resent = true;
            stream.sent = 0;
        }
        if asked {
            stream.sent = 0;
        }
        self.pump(now, id, out);
    }

    /// Reads on as far as the window allows, and sends what may be sent.
    fn pump(&mut self, now: Nanos, id: StreamId, out: &mut Outbox) {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.begun) else {
            return;
        };
        if stream.pieces.len() < self.window && !stream.complete && !stream.reading {
            stream.reading = true;
            out.effects.snapshots.push(SnapshotOp::Read {
                stream: id,
                max: self.chunk_bytes,
            });
        }
        self.send(now, out);
    }

    /// Sends what there is, the streams in turns, as far as the budget goes.
    fn send(&mut self, now: Nanos, out: &mut Outbox) {
        while self.budget.next() <= now {
            let ready = |(id, stream): (&StreamId, &Stream)| stream.unsent().map(|_| *id);
            let after = self.streams.range(self.turn + 1..).find_map(ready);
            let Some(id) = after.or_else(|| self.streams.iter().find_map(ready)) else {
                return;
            };
            self.turn = id;
            let stream = self.streams.get_mut(&id).expect("just found");
            stream.deadline = now + self.patience;
            let bytes = stream.send_next(id, out);
            self.budget.spend(now, bytes);
        }
    }

    /// The link to `peer` is up again: ask what arrived. Whatever it was that transfers failed for may be over.
    pub(crate) fn link_up(&mut self, now: Nanos, peer: NodeId, out: &mut Outbox) {
        self.setbacks.remove(&peer);
        for (id, stream) in self.streams.iter_mut().filter(|(_, stream)| stream.to == peer) {
            reached!("node.send_snapshot.link_up_again", stream.down);
            (stream.down, stream.tries) = (false, 0);
            let deadline = now + self.patience;
            match stream.rests_until {
                Some(_) => stream.open(deadline, *id, out),
                None => stream.begin(deadline, *id, out),
            }
        }
    }

    /// The link to `peer` is down.
    pub(crate) fn link_down(&mut self, peer: NodeId) {
        for stream in self.streams.values_mut().filter(|stream| stream.to == peer) {
            (stream.down, stream.begun) = (true, false);
        }
    }

    /// Asks again where nothing was heard for too long, and gives up in the end. Sends what the budget held back.
    pub(crate) fn expire(&mut self, now: Nanos, out: &mut Outbox) {
        let due = |stream: &Stream| stream.next_deadline().is_some_and(|deadline| deadline <= now);
        let due = self.streams.iter().filter(|(_, stream)| due(stream));
        let due: Vec<_> = due.map(|(id, _)| *id).collect();
        for id in due {
            let stream = self.streams.get_mut(&id).expect("just seen");
            let deadline = now + self.patience;
            if stream.rests_until.is_some() {
                stream.open(deadline, id, out);
                continue;
            }
            stream.tries += 1;
            let tries = if stream.down { TRIES_DOWN } else { TRIES };
            reached!("node.send_snapshot.silence", stream.tries <= tries);
            reached!("node.send_snapshot.silent_too_long", stream.tries > tries);
            match stream.tries > tries {
                true => self.fail(now, id, out),
                false => stream.begin(deadline, id, out),
            }
        }
        self.send(now, out);
    }

    /// When [`expire`](Outgoing::expire) has something to do.
    pub(crate) fn next_deadline(&self) -> Option<Nanos> {
        let held_back = self.streams.values().any(|stream| stream.unsent().is_some());
        let held_back = held_back.then(|| self.budget.next());
        self.streams
            .values()
            .filter_map(Stream::next_deadline)
            .chain(held_back)
            .min()
    }

    /// The log, applied durably up to `covered`, must keep what follows the snapshots under way: from here on. A transfer for which it would
    /// have to keep too much is given up, for it keeps the state machine's old state from being freed, too.
    pub(crate) fn hold_log(
        &mut self,
        now: Nanos,
        log: &Log,
        covered: Index,
        out: &mut Outbox,
    ) -> Option<Index> {
        let shares = self.streams.len() as u64;
        let too_slow = |stream: &Stream| {
            // The view may be of a state that a crash would not keep yet.
            let held = log.bytes_between(stream.holds()?.min(covered), covered);
            let pace = stream.acked.saturating_mul(shares * TOO_SLOW);
            (held > self.hold_bytes.saturating_add(pace)).then_some(())
        };
        let slow = self
            .streams
            .iter()
            .filter(|(_, stream)| too_slow(stream).is_some());
        let slow: Vec<_> = slow.map(|(id, _)| *id).collect();
        reached!("node.send_snapshot.too_slow", !slow.is_empty());
        slow.into_iter().for_each(|id| self.fail(now, id, out));
        self.streams.values().filter_map(Stream::holds).min()
    }
}

impl Stream {
    fn new(to: NodeId, term: Term, rests_until: Option<Nanos>, deadline: Nanos) -> Stream {
        Stream {
            to,
            term,
            rests_until,
            meta: None,
            down: false,
            begun: false,
            acked: 0,
            checked: 0,
            read: 0,
            crc: 0,
            reading: false,
            complete: false,
            pieces: VecDeque::new(),
            sent: 0,
            resent: false,
            deadline,
            tries: 0,
        }
    }

    /// The pause is over.
    fn open(&mut self, deadline: Nanos, id: StreamId, out: &mut Outbox) {
        (self.rests_until, self.deadline) = (None, deadline);
        out.effects.snapshots.push(SnapshotOp::Open { stream: id });
    }

    /// Says that the transfer begins, or goes on: the answer says where.
    fn begin(&mut self, deadline: Nanos, id: StreamId, out: &mut Outbox) {
        self.deadline = deadline;
        let Some(meta) = self.meta.clone() else { return };
        self.begun = false;
        out.send(
            self.to,
            PeerMessage::SnapshotBegin {
                stream: id,
                term: self.term,
                meta,
            },
        );
    }

    /// The follower has read so much of what it had staged.
    fn checking(&mut self, len: u64) {
        if len > self.checked {
            (self.checked, self.tries) = (len, 0);
        }
    }

    /// The follower has staged `len` bytes, more than before.
    fn advance(&mut self, len: u64) {
        self.acked = len;
        self.resent = false;
        let arrived = |piece: &mut Piece| !piece.done && piece.offset + piece.bytes.len() as u64 <= len;
        while self.pieces.pop_front_if(arrived).is_some() {
            self.sent = self.sent.saturating_sub(1);
        }
    }

    /// The follower will need the log after this.
    fn holds(&self) -> Option<Index> {
        Some(self.meta.as_ref()?.last.index)
    }

    /// The piece to be sent next, if it may be sent.
    fn unsent(&self) -> Option<&Piece> {
        self.pieces.get(self.sent).filter(|_| self.begun)
    }

    /// Sends the next piece; its length.
    fn send_next(&mut self, id: StreamId, out: &mut Outbox) -> usize {
        let Piece {
            offset,
            ref bytes,
            crc,
            done,
        } = *self.unsent().expect("only asked if there is one");
        let (len, bytes) = (bytes.len(), bytes.clone());
        out.send(
            self.to,
            PeerMessage::SnapshotChunk {
                stream: id,
                term: self.term,
                offset,
                bytes,
                crc,
                done,
            },
        );
        self.sent += 1;
        len
    }

    /// The end of the pause, or the moment when what is waited for is overdue: the view, an answer. While the next piece is being read here
    /// or held back by the budget, the follower owes nothing.
    fn next_deadline(&self) -> Option<Nanos> {
        let waits = self.meta.is_none() || !self.begun || self.sent > 0;
        self.rests_until.or(waits.then_some(self.deadline))
    }
}

#[cfg(test)]
mod tests {
    use quorate_raft::{Config, EntryShape};

    use super::*;

    const TO: NodeId = NodeId(2);

    /// A log that was begun with `config`, and is at entry 3.
    fn log(config: Config) -> Log {
        let shape = EntryShape {
            term: Term(1),
            size: 20,
            config: None,
        };
        let last = LogId::ZERO;
        Log::new(SnapMeta { last, config }, &[shape.clone(), shape.clone(), shape])
    }

    #[test]
    fn nobody_is_sent_a_configuration_without_voters() {
        let at = Some(LogId::new(1, 2));
        for (config, sound) in [(Config::of([NodeId(1), TO]), true), (Config::default(), false)] {
            let mut outgoing = Outgoing::new(&NodeConfig::new(NodeId(1), 8, 8));
            let mut out = Outbox::default();
            outgoing.start(0, TO, Term(1), &mut out);
            let [SnapshotOp::Open { stream }] = out.effects.snapshots[..] else {
                panic!("a view is opened: {:?}", out.effects.snapshots)
            };
            outgoing.opened(0, &log(config), stream, at, &mut out);
            assert_eq!(outgoing.streams.len(), usize::from(sound));
            assert_eq!(out.effects.send.len(), usize::from(sound));
            let failed = matches!(out.inputs[..], [Input::SnapshotSent { to: TO, last: None }]);
            assert_eq!(failed, !sound, "the core hears of it: {:?}", out.inputs);
        }
    }
}
