//! The sending side of snapshot transfers: several followers at once, each with a view of its own.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use quorate_base::{Index, LogId, NodeId, Term};
use quorate_raft::{Input, Log, Raft, RoleKind, SnapMeta};

use crate::config::NodeConfig;
use crate::event::{Nanos, SnapshotOp, StreamId};
use crate::message::{PeerMessage, SnapshotOutcome};
use crate::outbox::Outbox;

/// So many times in a row without any progress, and a transfer is given up.
const TRIES: u32 = 8;

/// The transfers to followers.
#[derive(Debug)]
pub(crate) struct Outgoing {
    streams: BTreeMap<StreamId, Stream>,
    last: StreamId,
    chunk_bytes: usize,
    window: usize,
    patience: Nanos,
}

/// One transfer.
#[derive(Debug)]
struct Stream {
    to: NodeId,
    term: Term,
    /// What it covers, once the view is open.
    meta: Option<SnapMeta>,
    /// The follower has answered the last `SnapshotBegin`.
    begun: bool,
    /// The follower has staged so much.
    acked: u64,
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
            chunk_bytes: config.chunk_bytes,
            window: config.chunk_window.max(1),
            patience: config.election,
        }
    }

    /// The core wants a snapshot sent. A transfer to the same peer that is still running is replaced.
    pub(crate) fn start(&mut self, now: Nanos, to: NodeId, term: Term, out: &mut Outbox) {
        let before: Vec<_> = self
            .streams
            .iter()
            .filter(|(_, s)| s.to == to)
            .map(|(id, _)| *id)
            .collect();
        before.into_iter().for_each(|id| self.close(id, out));
        self.last += 1;
        let stream = Stream {
            to,
            term,
            meta: None,
            begun: false,
            acked: 0,
            read: 0,
            crc: 0,
            reading: false,
            complete: false,
            pieces: VecDeque::new(),
            sent: 0,
            resent: false,
            deadline: now + self.patience,
            tries: 0,
        };
        self.streams.insert(self.last, stream);
        out.effects.snapshots.push(SnapshotOp::Open { stream: self.last });
    }

    fn close(&mut self, id: StreamId, out: &mut Outbox) {
        self.streams.remove(&id);
        out.effects.snapshots.push(SnapshotOp::Close { stream: id });
    }

    /// Ends a transfer and tells the core how.
    fn end(&mut self, id: StreamId, last: Option<LogId>, out: &mut Outbox) {
        if let Some(stream) = self.streams.get(&id) {
            out.inputs.push(Input::SnapshotSent { to: stream.to, last });
            self.close(id, out);
        }
    }

    /// Transfers of an earlier term are over: only the leader of the current one may send.
    pub(crate) fn follow(&mut self, raft: &Raft, out: &mut Outbox) {
        let leads = raft.role() == RoleKind::Leader;
        let stale = |stream: &Stream| !leads || stream.term != raft.term();
        let ended: Vec<_> = self
            .streams
            .iter()
            .filter(|(_, s)| stale(s))
            .map(|(id, _)| *id)
            .collect();
        ended.into_iter().for_each(|id| self.close(id, out));
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
            // It was closed before there was a view to let go of.
            return out.effects.snapshots.push(SnapshotOp::Close { stream: id });
        };
        // The follower needs what comes after the snapshot, so the log must still have that.
        let Some(last) = at.filter(|at| log.contains(*at)) else {
            return self.end(id, None, out);
        };
        let config = log.config_at(last.index).clone();
        stream.meta = Some(SnapMeta { last, config });
        stream.deadline = now + self.patience;
        stream.begin(id, out);
    }

    /// A piece was read from a view: empty at the end, `None` if reading failed.
    pub(crate) fn chunk(&mut self, id: StreamId, chunk: Option<Bytes>, out: &mut Outbox) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let Some(bytes) = chunk else {
            return self.end(id, None, out);
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
        self.pump(id, out);
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
            return;
        };
        match outcome {
            SnapshotOutcome::Done => {
                let last = stream.meta.as_ref().map(|meta| meta.last);
                return self.end(id, last, out);
            }
            SnapshotOutcome::Refused => return self.end(id, None, out),
            SnapshotOutcome::More => {}
        }
        let asked = !std::mem::replace(&mut stream.begun, true);
        if len > stream.read || (asked && len < stream.acked) {
            // It lost what it had staged, and views cannot be read backwards: start over with a new one.
            return self.end(id, None, out);
        }
        stream.deadline = now + self.patience;
        // Answers alone are no progress: a follower that stages nothing more must not pin the log for ever. One that has all
        // of it may take its time to sync.
        if len > stream.acked || (stream.complete && len == stream.read) {
            stream.tries = 0;
        }
        if len > stream.acked {
            stream.advance(len);
        } else if len == stream.acked && !asked && !stream.resent {
            // The same answer twice: a piece behind it was lost. Each of the pieces behind that brings the answer once more.
            stream.resent = true;
            stream.sent = 0;
        }
        if asked {
            stream.sent = 0;
        }
        self.pump(id, out);
    }

    /// Reads on and sends what the window allows.
    fn pump(&mut self, id: StreamId, out: &mut Outbox) {
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
        for piece in stream.pieces.iter().skip(stream.sent) {
            let Piece {
                offset, crc, done, ..
            } = *piece;
            let (term, bytes) = (stream.term, piece.bytes.clone());
            out.send(
                stream.to,
                PeerMessage::SnapshotChunk {
                    stream: id,
                    term,
                    offset,
                    bytes,
                    crc,
                    done,
                },
            );
        }
        stream.sent = stream.pieces.len();
    }

    /// The link to `peer` is up again: ask what arrived.
    pub(crate) fn link_up(&mut self, peer: NodeId, out: &mut Outbox) {
        for (id, stream) in self.streams.iter_mut().filter(|(_, stream)| stream.to == peer) {
            stream.begin(*id, out);
        }
    }

    /// Asks again where nothing was heard for too long, and gives up in the end.
    pub(crate) fn expire(&mut self, now: Nanos, out: &mut Outbox) {
        let due: Vec<_> = self
            .streams
            .iter()
            .filter(|(_, s)| s.deadline <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            let stream = self.streams.get_mut(&id).expect("just seen");
            stream.deadline = now + self.patience;
            stream.tries += 1;
            match stream.tries > TRIES {
                true => self.end(id, None, out),
                false => stream.begin(id, out),
            }
        }
    }

    /// The next deadline.
    pub(crate) fn next_deadline(&self) -> Option<Nanos> {
        self.streams.values().map(|stream| stream.deadline).min()
    }

    /// The log must keep what follows the snapshots under way.
    pub(crate) fn holds_log_after(&self) -> Option<Index> {
        self.streams
            .values()
            .filter_map(|stream| Some(stream.meta.as_ref()?.last.index))
            .min()
    }
}

impl Stream {
    /// Says that the transfer begins, or goes on: the answer says where.
    fn begin(&mut self, id: StreamId, out: &mut Outbox) {
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

    /// The follower has staged `len` bytes, more than before.
    fn advance(&mut self, len: u64) {
        self.acked = len;
        self.resent = false;
        let arrived = |piece: &mut Piece| !piece.done && piece.offset + piece.bytes.len() as u64 <= len;
        while self.pieces.pop_front_if(arrived).is_some() {
            self.sent = self.sent.saturating_sub(1);
        }
    }
}
