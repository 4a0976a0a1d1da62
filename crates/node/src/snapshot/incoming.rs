//! The receiving side of a snapshot transfer: one at a time, staged beside the log until the core logs its install. What an earlier
//! run of this node had staged is checked at the start, and goes on if its sender still sends it.

use bytes::Bytes;
use quorate_base::{NodeId, Term};
use quorate_marks::reached;
use quorate_raft::{Raft, SnapMeta};

use crate::codec::{DecodeError, Put, Reader};
use crate::event::{MachineOp, StageOp, StreamId};
use crate::message::{PeerMessage, SnapshotOutcome};
use crate::outbox::Outbox;

/// What is being received.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    current: Option<Transfer>,
    /// What an earlier run had staged, until a transfer begins.
    left: Option<Left>,
    /// The number of the last staging here.
    last_stage: StreamId,
    /// The state machine is taking over a snapshot that an earlier run of this node had logged: the staging file is its.
    taken: bool,
}

#[derive(Debug)]
struct Transfer {
    is: Identity,
    /// Its number here.
    stage: StreamId,
    /// Handed to the staging file so far, with its checksum.
    received: u64,
    crc: u32,
    /// Durably in the staging file so far.
    staged: u64,
    /// A sync is under way: the next one takes along all that is written meanwhile.
    syncing: bool,
    phase: Phase,
}

/// Which transfer it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) from: NodeId,
    /// Its number at the sender, which no other run of the sender uses.
    pub(crate) stream: StreamId,
    /// The sender leads in this term, and the transfer ends with it.
    pub(crate) term: Term,
    pub(crate) meta: SnapMeta,
}

const ABOUT_VERSION: u8 = 1;

impl Identity {
    /// As the staging file keeps it.
    fn encode(&self) -> Bytes {
        let mut bytes = vec![ABOUT_VERSION];
        bytes.put_u64(self.from.0);
        bytes.put_u64(self.stream);
        bytes.put_u64(self.term.0);
        bytes.put_snap_meta(&self.meta);
        bytes.into()
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Identity, DecodeError> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            ABOUT_VERSION => {}
            other => return Err(DecodeError::Version(other)),
        }
        let identity = Identity {
            from: NodeId(reader.u64()?),
            stream: reader.u64()?,
            term: reader.term()?,
            meta: reader.snap_meta()?,
        };
        reader.end()?;
        Ok(identity)
    }

    /// Whether its sender has ended it, or it is not needed: then nothing will ever come of what is staged.
    fn is_over(&self, raft: &Raft) -> bool {
        self.term < raft.term() || self.meta.last.index <= raft.commit()
    }
}

/// What an earlier run had staged.
#[derive(Debug, Default)]
struct Left {
    /// Unknown until the file's beginning has been read.
    is: Option<Identity>,
    /// What of it is right, as far as it was read.
    len: u64,
    crc: u32,
    checked: bool,
    /// A leader wants to go on with this meanwhile.
    asked: Option<Identity>,
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
    /// `taken` if the staging file is being read by the state machine right from the start. Otherwise the node has it checked.
    pub(crate) fn new(taken: bool) -> Incoming {
        Incoming {
            taken,
            left: (!taken).then(Left::default),
            ..Incoming::default()
        }
    }

    /// More of what an earlier run had staged was read: what transfer it is, the bytes that are right so far and their checksum, and
    /// whether that is all.
    pub(crate) fn checked(
        &mut self,
        raft: &Raft,
        (about, len, crc, end): (Option<Bytes>, u64, u32, bool),
        out: &mut Outbox,
    ) {
        let Some(left) = &mut self.left else {
            reached!("node.take_snapshot.check_overtaken");
            return; // Another transfer has begun.
        };
        (left.len, left.crc, left.checked) = (len, crc, end);
        // A description that cannot be read is as good as none.
        left.is = about.and_then(|about| Identity::decode(about).ok());
        let of_use = left.is.as_ref().is_some_and(|is| !is.is_over(raft));
        let asked = left.asked.take();
        if !of_use {
            reached!("node.take_snapshot.remains_of_no_use", left.is.is_some());
            self.left = None;
            out.effects.stage.push(StageOp::Discard);
        } else if !end {
            out.effects.stage.push(StageOp::Check);
        }
        if let Some(asked) = asked {
            self.begin(raft, asked, out);
        }
    }

    /// A transfer begins or goes on. The core has heard of it already, so it knows by now whether its sender leads.
    pub(crate) fn begin(&mut self, raft: &Raft, is: Identity, out: &mut Outbox) {
        if raft.term() != is.term || raft.leader() != Some(is.from) {
            reached!("node.take_snapshot.of_no_leader");
            return ack(is.from, is.stream, 0, SnapshotOutcome::Refused, out);
        }
        if let Some(current) = self.current.as_ref()
            && current.is == is
        {
            reached!("node.take_snapshot.begun_again");
            return ack(is.from, is.stream, current.staged, SnapshotOutcome::More, out);
        }
        if self.is_taken() {
            reached!("node.take_snapshot.while_installing");
            return; // The sender will ask again.
        }
        if is.meta.last.index <= raft.commit() {
            reached!("node.take_snapshot.has_it");
            return ack(is.from, is.stream, 0, SnapshotOutcome::Done, out);
        }
        let (mut received, mut crc) = (0, 0);
        if let Some(left) = &mut self.left
            && left.is.as_ref().is_none_or(|known| *known == is)
        {
            if !left.checked {
                reached!("node.take_snapshot.remains_unchecked");
                ack(is.from, is.stream, left.len, SnapshotOutcome::Checking, out);
                left.asked = Some(is);
                return;
            }
            (received, crc) = (left.len, left.crc);
        }
        reached!(
            "node.take_snapshot.other_than_remains",
            self.left.is_some() && received == 0
        );
        reached!("node.take_snapshot.resumed", received > 0);
        reached!("node.take_snapshot.replaces_another", self.current.is_some());
        self.last_stage += 1;
        let stage = self.last_stage;
        out.effects.stage.push(match (self.left.take(), received) {
            (Some(_), 1..) => StageOp::Resume { stream: stage },
            _ => StageOp::Begin {
                stream: stage,
                about: is.encode(),
            },
        });
        ack(is.from, is.stream, received, SnapshotOutcome::More, out);
        self.current = Some(Transfer {
            is,
            stage,
            received,
            crc,
            staged: received,
            syncing: false,
            phase: Phase::Receiving,
        });
    }

    /// A piece arrives.
    pub(crate) fn chunk(&mut self, raft: &Raft, from: NodeId, piece: Piece, out: &mut Outbox) {
        let stream = piece.stream;
        let is_its = |is: &Identity| (is.from, is.stream, is.term) == (from, stream, piece.term);
        let current = self.current.as_mut().filter(|current| is_its(&current.is));
        let Some(current) = current.filter(|current| current.is.term == raft.term()) else {
            reached!("node.take_snapshot.piece_of_no_transfer");
            return ack(from, stream, 0, SnapshotOutcome::Refused, out);
        };
        if current.phase != Phase::Receiving || piece.offset != current.received {
            reached!(
                "node.take_snapshot.piece_too_late",
                current.phase != Phase::Receiving
            );
            reached!(
                "node.take_snapshot.piece_missing",
                piece.offset > current.received
            );
            reached!(
                "node.take_snapshot.piece_repeated",
                piece.offset < current.received
            );
            // One before it is missing, or this one is here already: the sender goes on from what is staged.
            return ack(from, stream, current.staged, SnapshotOutcome::More, out);
        }
        let crc = crc32c::crc32c_append(current.crc, &piece.bytes);
        if crc != piece.crc {
            reached!("node.take_snapshot.wrong_bytes");
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
                crc,
                bytes,
            });
        }
        if piece.done {
            current.phase = Phase::Finishing;
            out.effects.stage.push(StageOp::Finish {
                stream: current.stage,
            });
        } else {
            current.sync(out);
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

    /// A transfer of an earlier term is of no use: nobody will finish it. Nor is one that the log has caught up with.
    pub(crate) fn follow(&mut self, raft: &Raft, out: &mut Outbox) {
        if let Some(is) = self.left.as_ref().and_then(|left| left.is.as_ref())
            && is.is_over(raft)
        {
            reached!("node.take_snapshot.remains_overtaken");
            self.left = None;
            out.effects.stage.push(StageOp::Discard);
        }
        // One that is complete is the core's to judge first.
        let over = |current: &Transfer| match current.phase {
            Phase::Receiving => current.is.is_over(raft),
            Phase::Finishing => current.is.term != raft.term(),
            Phase::Installing => false,
        };
        if let Some(current) = self.current.as_ref().filter(|current| over(current)) {
            reached!(
                "node.take_snapshot.overtaken_by_commit",
                current.is.meta.last.index <= raft.commit()
            );
            reached!(
                "node.take_snapshot.overtaken_by_term",
                current.is.term != raft.term()
            );
            if current.is.meta.last.index <= raft.commit() {
                current.ack(current.staged, SnapshotOutcome::Done, out);
            }
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
            let Identity { from, term, meta, .. } = current.is.clone();
            return Some((from, term, meta));
        }
        current.syncing = false;
        current.sync(out);
        current.ack(current.staged, SnapshotOutcome::More, out);
        None
    }

    /// There is no room for the staging file: the sender hears of it, and may begin anew.
    pub(crate) fn stage_failed(&mut self, stage: StreamId, out: &mut Outbox) {
        let Some(current) = self.current.as_ref().filter(|current| current.stage == stage) else {
            reached!("node.take_snapshot.no_room_for_former");
            return;
        };
        assert_ne!(
            current.phase,
            Phase::Installing,
            "what is being installed was staged and synced"
        );
        reached!("node.take_snapshot.no_room");
        current.ack(0, SnapshotOutcome::Refused, out);
        self.drop_staging(out);
    }

    /// The core has logged the install of what was staged.
    pub(crate) fn installing(&mut self, meta: &SnapMeta) {
        let current = self.current.as_mut().filter(|current| current.is.meta == *meta);
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
        let had = current.is.meta.last.index <= raft.commit();
        reached!("node.take_snapshot.staged_but_had", had);
        reached!("node.take_snapshot.staged_but_refused", !had);
        let outcome = if had {
            SnapshotOutcome::Done
        } else {
            SnapshotOutcome::Refused
        };
        current.ack(current.staged, outcome, out);
        self.drop_staging(out);
    }

    /// The install is durable: the state machine takes over the staging file.
    pub(crate) fn restore(&mut self, meta: &SnapMeta, out: &mut Outbox) {
        if let Some(current) = &self.current {
            current.ack(current.staged, SnapshotOutcome::Done, out);
        }
        out.effects.machine.push(MachineOp::Restore(meta.clone()));
        out.effects.machine.push(MachineOp::Level(meta.config.level));
    }

    /// The state machine has taken over.
    pub(crate) fn restored(&mut self) {
        self.current = None;
        self.taken = false;
    }
}

impl Transfer {
    fn ack(&self, len: u64, outcome: SnapshotOutcome, out: &mut Outbox) {
        ack(self.is.from, self.is.stream, len, outcome, out);
    }

    /// Makes durable what was written, one sync after the other: a slow disk so takes more with each.
    fn sync(&mut self, out: &mut Outbox) {
        if self.phase == Phase::Receiving && !self.syncing && self.staged < self.received {
            self.syncing = true;
            out.effects.stage.push(StageOp::Sync { stream: self.stage });
        }
    }
}
