//! The receiving side of a snapshot transfer: one at a time, staged beside the log until the core logs its install.

use bytes::Bytes;
use quorate_base::{NodeId, Term};
use quorate_raft::{Raft, SnapMeta};

use crate::event::{MachineOp, StageOp, StreamId};
use crate::message::{PeerMessage, SnapshotOutcome};
use crate::outbox::Outbox;

/// What is being received.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    current: Option<Transfer>,
    /// The number of the last staging here.
    last_stage: StreamId,
    /// The state machine is taking over a snapshot that an earlier run of this node had logged: the staging file is its.
    taken: bool,
}

#[derive(Debug)]
struct Transfer {
    from: NodeId,
    /// Its number at the sender.
    stream: StreamId,
    /// Its number here.
    stage: StreamId,
    term: Term,
    meta: SnapMeta,
    /// Handed to the staging file so far, with its checksum.
    received: u64,
    crc: u32,
    /// Written to the staging file so far.
    staged: u64,
    phase: Phase,
}

/// How far a transfer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Pieces are coming.
    Receiving,
    /// All are there; the staging file is being synced.
    Finishing,
    /// The core has logged the install; the file belongs to the state machine until it is restored.
    Installing,
}

/// A piece as it comes from the peer.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) stream: StreamId,
    pub(crate) term: Term,
    pub(crate) offset: u64,
    pub(crate) bytes: Bytes,
    pub(crate) crc: u32,
    pub(crate) done: bool,
}

fn ack(to: NodeId, stream: StreamId, len: u64, outcome: SnapshotOutcome, out: &mut Outbox) {
    out.send(to, PeerMessage::SnapshotAck { stream, len, outcome });
}

impl Incoming {
    /// `taken` if the staging file is being read by the state machine right from the start.
    pub(crate) fn new(taken: bool) -> Incoming {
        Incoming {
            taken,
            ..Incoming::default()
        }
    }

    /// A transfer begins or goes on. The core has heard of it already, so it knows by now whether `from` leads.
    pub(crate) fn begin(
        &mut self,
        raft: &Raft,
        from: NodeId,
        (stream, term, meta): (StreamId, Term, SnapMeta),
        out: &mut Outbox,
    ) {
        if raft.term() != term || raft.leader() != Some(from) {
            return ack(from, stream, 0, SnapshotOutcome::Refused, out);
        }
        if let Some(current) = self.current.as_ref()
            && (current.from, current.stream, current.term) == (from, stream, term)
        {
            return ack(from, stream, current.staged, SnapshotOutcome::More, out);
        }
        if self.is_taken() {
            return; // The sender will ask again.
        }
        if meta.last.index <= raft.commit() {
            return ack(from, stream, 0, SnapshotOutcome::Done, out);
        }
        self.last_stage += 1;
        let stage = self.last_stage;
        let (received, staged, crc, phase) = (0, 0, 0, Phase::Receiving);
        self.current = Some(Transfer {
            from,
            stream,
            stage,
            term,
            meta,
            received,
            crc,
            staged,
            phase,
        });
        out.effects.stage.push(StageOp::Begin { stream: stage });
        ack(from, stream, 0, SnapshotOutcome::More, out);
    }

    /// A piece arrives.
    pub(crate) fn chunk(&mut self, raft: &Raft, from: NodeId, piece: Piece, out: &mut Outbox) {
        let stream = piece.stream;
        let current = self
            .current
            .as_mut()
            .filter(|c| (c.from, c.stream, c.term) == (from, stream, piece.term));
        let Some(current) = current.filter(|c| c.term == raft.term()) else {
            return ack(from, stream, 0, SnapshotOutcome::Refused, out);
        };
        if current.phase != Phase::Receiving || piece.offset != current.received {
            // One before it is missing, or this one is here already: the sender goes on from what is staged.
            return ack(from, stream, current.staged, SnapshotOutcome::More, out);
        }
        let crc = crc32c::crc32c_append(current.crc, &piece.bytes);
        if crc != piece.crc {
            self.drop_staging(out);
            return ack(from, stream, 0, SnapshotOutcome::Refused, out);
        }
        current.crc = crc;
        if !piece.bytes.is_empty() {
            let (offset, bytes) = (piece.offset, piece.bytes);
            current.received += bytes.len() as u64;
            out.effects.stage.push(StageOp::Write {
                stream: current.stage,
                offset,
                bytes,
            });
        }
        if piece.done {
            current.phase = Phase::Finishing;
            out.effects.stage.push(StageOp::Finish {
                stream: current.stage,
            });
        }
    }

    /// Whether the staging file belongs to the state machine.
    fn is_taken(&self) -> bool {
        self.taken
            || self
                .current
                .as_ref()
                .is_some_and(|current| current.phase == Phase::Installing)
    }

    /// A transfer of an earlier term is of no use: nobody will finish it.
    pub(crate) fn follow(&mut self, raft: &Raft, out: &mut Outbox) {
        if self
            .current
            .as_ref()
            .is_some_and(|current| current.term != raft.term())
            && !self.is_taken()
        {
            self.drop_staging(out);
        }
    }

    fn drop_staging(&mut self, out: &mut Outbox) {
        self.current = None;
        out.effects.stage.push(StageOp::Discard);
    }

    /// The staging file has grown, or is complete: then who sent it, in which term, and what it covers, for the core.
    pub(crate) fn staged(
        &mut self,
        stage: StreamId,
        len: u64,
        finished: bool,
        out: &mut Outbox,
    ) -> Option<(NodeId, Term, SnapMeta)> {
        let current = self.current.as_mut().filter(|current| current.stage == stage)?;
        current.staged = current.staged.max(len);
        if finished && current.phase == Phase::Finishing {
            return Some((current.from, current.term, current.meta.clone()));
        }
        ack(
            current.from,
            current.stream,
            current.staged,
            SnapshotOutcome::More,
            out,
        );
        None
    }

    /// There is no room for the staging file: the sender hears of it, and may begin anew.
    pub(crate) fn stage_failed(&mut self, stage: StreamId, out: &mut Outbox) {
        let Some(current) = self.current.as_ref().filter(|current| current.stage == stage) else {
            return;
        };
        assert_ne!(
            current.phase,
            Phase::Installing,
            "what is being installed was staged and synced"
        );
        ack(current.from, current.stream, 0, SnapshotOutcome::Refused, out);
        self.drop_staging(out);
    }

    /// The core has logged the install of what was staged.
    pub(crate) fn installing(&mut self, meta: &SnapMeta) {
        let current = self.current.as_mut().filter(|current| current.meta == *meta);
        current.expect("only what was staged is installed").phase = Phase::Installing;
    }

    /// The core was told that all is staged, and has had its say: if it did not log the install, the staged snapshot is of no use.
    pub(crate) fn settle(&mut self, raft: &Raft, out: &mut Outbox) {
        let Some(current) = self
            .current
            .as_ref()
            .filter(|current| current.phase == Phase::Finishing)
        else {
            return;
        };
        let had = current.meta.last.index <= raft.commit();
        let outcome = if had {
            SnapshotOutcome::Done
        } else {
            SnapshotOutcome::Refused
        };
        ack(current.from, current.stream, current.staged, outcome, out);
        self.drop_staging(out);
    }

    /// The install is durable: the state machine takes over the staging file.
    pub(crate) fn restore(&mut self, meta: &SnapMeta, out: &mut Outbox) {
        if let Some(current) = &self.current {
            ack(
                current.from,
                current.stream,
                current.staged,
                SnapshotOutcome::Done,
                out,
            );
        }
        out.effects.machine.push(MachineOp::Restore(meta.clone()));
    }

    /// The state machine has taken over.
    pub(crate) fn restored(&mut self) {
        self.current = None;
        self.taken = false;
    }
}
