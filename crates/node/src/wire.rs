//! The bytes of a [`PeerMessage`]. Length prefix and checksum of a frame belong to the transport; the first words on a
//! connection are in [`handshake`](crate::handshake).
//!
//! A frame begins with the protocol version that its connection agreed on, and a kind. Version 2 brought membership changes and the
//! priority in a heartbeat's answer; what version 1 cannot say is not sent on its connections. Long payloads (entry bodies, commands,
//! snapshot pieces) are not copied: encoding hands them out beside the head for one vectored write, decoding slices them from the input.
//! Short entries are copied when they are decoded, since they are kept, and would keep what came with them.

mod changes;

use bytes::Bytes;
use quorate_marks::reached;
use quorate_raft::{Body, Message, Priority};

use crate::codec::{DecodeError, Put, Reader, length};
use crate::event::Reason;
use crate::handshake::{MIN_PROTOCOL, PROTOCOL};
use crate::message::{PeerMessage, RequestId, SnapshotOutcome};

/// An encoded message: the head, then the parts, without anything between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The fixed fields.
    pub head: Bytes,
    /// The payloads, shared with whoever else holds them.
    pub parts: Vec<Bytes>,
}

impl Frame {
    /// Bytes altogether.
    #[expect(clippy::len_without_is_empty, reason = "a frame is never empty")]
    pub fn len(&self) -> usize {
        self.head.len() + self.parts.iter().map(Bytes::len).sum::<usize>()
    }
}

/// A frame holds on to at least so much memory: transports cut them out of what they read at once.
const SHARED: usize = 64 << 10;

/// Gives every kind of frame its number.
mod kind {
    pub const APPEND: u8 = 1;
    pub const FORWARD: u8 = 2;
    pub const REFUSE: u8 = 3;
    pub const ACCEPT: u8 = 4;
    pub const RECONFIGURE: u8 = 8;
    pub const RECONFIGURED: u8 = 9;
    pub const SNAPSHOT_BEGIN: u8 = 5;
    pub const SNAPSHOT_CHUNK: u8 = 6;
    pub const SNAPSHOT_ACK: u8 = 7;
    pub const PRE_VOTE: u8 = 16;
    pub const PRE_VOTE_RESPONSE: u8 = 17;
    pub const VOTE: u8 = 18;
    pub const VOTE_RESPONSE: u8 = 19;
    pub const APPENDED: u8 = 20;
    pub const CONFLICT: u8 = 21;
    pub const HEARTBEAT: u8 = 22;
    pub const HEARTBEAT_RESPONSE: u8 = 23;
    pub const COMMIT: u8 = 24;
    pub const INSTALL_SNAPSHOT: u8 = 25;
    pub const TIMEOUT_NOW: u8 = 26;
    pub const READ_INDEX: u8 = 27;
    pub const READ_INDEX_RESPONSE: u8 = 28;
    pub const NEWER_TERM: u8 = 29;
}

/// Encodes a message for a connection of this protocol version; `None` if that version knows no such message. Such a message counts as
/// dropped.
///
/// # Panics
/// If an AppendEntries of the core comes as [`PeerMessage::Raft`]: its entries' bodies would be missing.
pub fn encode(message: &PeerMessage, protocol: u32) -> Option<Frame> {
    let new = matches!(
        message,
        PeerMessage::Reconfigure { .. }
            | PeerMessage::Reconfigured { .. }
            | PeerMessage::SnapshotAck {
                outcome: SnapshotOutcome::Checking,
                ..
            }
    );
    if new && protocol < 2 {
        reached!("node.wire.not_for_old_protocol");
        return None;
    }
    let mut head = Vec::with_capacity(64);
    head.put_u8(u8::try_from(protocol).expect("protocol versions are small"));
    let mut parts = Vec::new();
    match message {
        PeerMessage::Raft(message) => encode_raft(&mut head, message, protocol),
        PeerMessage::Append {
            term,
            prev,
            entries,
            commit,
        } => {
            head.put_u8(kind::APPEND);
            head.put_u64(term.0);
            head.put_log_id(*prev);
            head.put_u64(commit.0);
            head.put_u32(length(entries.len()));
            entries.iter().for_each(|body| head.put_u32(length(body.len())));
            parts.clone_from(entries);
        }
        PeerMessage::Forward {
            term,
            request,
            command,
        } => {
            head.put_u8(kind::FORWARD);
            head.put_u64(term.0);
            put_request(&mut head, request);
            parts.push(command.clone());
        }
        PeerMessage::Refuse { request, why } => {
            head.put_u8(kind::REFUSE);
            put_request(&mut head, request);
            head.put_u8(reason_tag(*why));
        }
        PeerMessage::Accept { request, at } => {
            head.put_u8(kind::ACCEPT);
            put_request(&mut head, request);
            head.put_log_id(*at);
        }
        PeerMessage::Reconfigure {
            term,
            request,
            changes,
            force,
        } => {
            head.put_u8(kind::RECONFIGURE);
            head.put_u64(term.0);
            put_request(&mut head, request);
            head.put_u8((*force).into());
            changes::put_changes(&mut head, changes);
        }
        PeerMessage::Reconfigured { request, end } => {
            head.put_u8(kind::RECONFIGURED);
            put_request(&mut head, request);
            changes::put_end(&mut head, *end);
        }
        PeerMessage::SnapshotBegin { .. }
        | PeerMessage::SnapshotChunk { .. }
        | PeerMessage::SnapshotAck { .. } => encode_snapshot(&mut head, &mut parts, message),
    }
    Some(Frame {
        head: head.into(),
        parts,
    })
}

fn encode_snapshot(head: &mut Vec<u8>, parts: &mut Vec<Bytes>, message: &PeerMessage) {
    match message {
        PeerMessage::SnapshotBegin { stream, term, meta } => {
            head.put_u8(kind::SNAPSHOT_BEGIN);
            head.put_u64(*stream);
            head.put_u64(term.0);
            head.put_snap_meta(meta);
        }
        PeerMessage::SnapshotChunk {
            stream,
            term,
            offset,
            bytes,
            crc,
            done,
        } => {
            head.put_u8(kind::SNAPSHOT_CHUNK);
            head.put_u64(*stream);
            head.put_u64(term.0);
            head.put_u64(*offset);
            head.put_u32(*crc);
            head.put_u8((*done).into());
            parts.push(bytes.clone());
        }
        PeerMessage::SnapshotAck { stream, len, outcome } => {
            head.put_u8(kind::SNAPSHOT_ACK);
            head.put_u64(*stream);
            head.put_u64(*len);
            head.put_u8(match outcome {
                SnapshotOutcome::More => 0,
                SnapshotOutcome::Done => 1,
                SnapshotOutcome::Refused => 2,
                SnapshotOutcome::Checking => 3,
            });
        }
        _ => unreachable!("only snapshot messages are encoded here"),
    }
}

fn encode_raft(head: &mut Vec<u8>, message: &Message, protocol: u32) {
    head.put_u8(match &message.body {
        Body::PreVote { .. } => kind::PRE_VOTE,
        Body::PreVoteResponse { .. } => kind::PRE_VOTE_RESPONSE,
        Body::Vote { .. } => kind::VOTE,
        Body::VoteResponse { .. } => kind::VOTE_RESPONSE,
        Body::Append { .. } => {
            panic!("an Append goes to a peer as PeerMessage::Append, with its entries' bodies")
        }
        Body::Appended { .. } => kind::APPENDED,
        Body::Conflict { .. } => kind::CONFLICT,
        Body::Heartbeat { .. } => kind::HEARTBEAT,
        Body::HeartbeatResponse { .. } => kind::HEARTBEAT_RESPONSE,
        Body::Commit { .. } => kind::COMMIT,
        Body::InstallSnapshot { .. } => kind::INSTALL_SNAPSHOT,
        Body::TimeoutNow => kind::TIMEOUT_NOW,
        Body::ReadIndex { .. } => kind::READ_INDEX,
        Body::ReadIndexResponse { .. } => kind::READ_INDEX_RESPONSE,
        Body::NewerTerm => kind::NEWER_TERM,
    });
    head.put_u64(message.term.0);
    match &message.body {
        Body::PreVote { next, last } => {
            head.put_u64(next.0);
            head.put_log_id(*last);
        }
        Body::PreVoteResponse { next, granted } => {
            head.put_u64(next.0);
            head.put_u8((*granted).into());
        }
        Body::Vote { last, transfer } => {
            head.put_log_id(*last);
            head.put_u8((*transfer).into());
        }
        Body::VoteResponse { granted } => head.put_u8((*granted).into()),
        Body::Appended { upto } => head.put_u64(upto.0),
        Body::Conflict { prev, hint } => {
            head.put_u64(prev.0);
            head.put_log_id(*hint);
        }
        Body::Heartbeat { commit, round } => {
            head.put_u64(commit.0);
            head.put_u64(*round);
        }
        Body::HeartbeatResponse {
            round,
            verified,
            matched,
            priority,
        } => {
            head.put_u64(*round);
            head.put_u64(verified.0);
            head.put_u64(matched.0);
            if protocol >= 2 {
                head.put_u8(priority_tag(*priority));
            }
        }
        Body::Commit { index } => head.put_u64(index.0),
        Body::InstallSnapshot { last } => head.put_log_id(*last),
        Body::ReadIndex { id } => head.put_u64(*id),
        Body::ReadIndexResponse { id, index } => {
            head.put_u64(*id);
            head.put_u64(index.0);
        }
        Body::Append { .. } | Body::TimeoutNow | Body::NewerTerm => {}
    }
}

/// Decodes a frame; total, whatever the bytes. Payloads share its memory, but for entries that are a small part of it.
pub fn decode(frame: Bytes) -> Result<PeerMessage, DecodeError> {
    let held = frame.len().max(SHARED);
    let mut reader = Reader::new(frame);
    let version = reader.u8()?;
    if !(MIN_PROTOCOL..=PROTOCOL).contains(&version.into()) {
        reached!("node.wire.unknown_version");
        return Err(DecodeError::Version(version));
    }
    let message = match reader.u8()? {
        kind::APPEND => decode_append(&mut reader, held)?,
        kind::FORWARD => {
            let (term, request) = (reader.term()?, request(&mut reader)?);
            return Ok(PeerMessage::Forward {
                term,
                request,
                command: reader.rest(),
            });
        }
        kind::REFUSE => PeerMessage::Refuse {
            request: request(&mut reader)?,
            why: reason(reader.u8()?)?,
        },
        kind::ACCEPT => PeerMessage::Accept {
            request: request(&mut reader)?,
            at: reader.log_id()?,
        },
        kind::RECONFIGURE => PeerMessage::Reconfigure {
            term: reader.term()?,
            request: request(&mut reader)?,
            force: reader.bool()?,
            changes: changes::changes(&mut reader)?,
        },
        kind::RECONFIGURED => PeerMessage::Reconfigured {
            request: request(&mut reader)?,
            end: changes::end(&mut reader)?,
        },
        kind::SNAPSHOT_BEGIN => PeerMessage::SnapshotBegin {
            stream: reader.u64()?,
            term: reader.term()?,
            meta: reader.snap_meta()?,
        },
        kind::SNAPSHOT_CHUNK => {
            let (stream, term, offset) = (reader.u64()?, reader.term()?, reader.u64()?);
            let (crc, done) = (reader.u32()?, reader.bool()?);
            return Ok(PeerMessage::SnapshotChunk {
                stream,
                term,
                offset,
                bytes: reader.rest(),
                crc,
                done,
            });
        }
        kind::SNAPSHOT_ACK => PeerMessage::SnapshotAck {
            stream: reader.u64()?,
            len: reader.u64()?,
            outcome: match reader.u8()? {
                0 => SnapshotOutcome::More,
                1 => SnapshotOutcome::Done,
                2 => SnapshotOutcome::Refused,
                3 => SnapshotOutcome::Checking,
                other => return Err(DecodeError::Tag(other, "the outcome of a snapshot")),
            },
        },
        other => PeerMessage::Raft(decode_raft(other, version, &mut reader)?),
    };
    reader.end()?;
    Ok(message)
}

fn decode_append(reader: &mut Reader, held: usize) -> Result<PeerMessage, DecodeError> {
    let (term, prev, commit) = (reader.term()?, reader.log_id()?, reader.index()?);
    let count = reader.count(4)?;
    let mut lengths = Vec::with_capacity(count);
    for _ in 0..count {
        lengths.push(reader.u32()? as usize);
    }
    let entries = reader.parts(&lengths, held)?;
    Ok(PeerMessage::Append {
        term,
        prev,
        entries,
        commit,
    })
}

fn decode_raft(tag: u8, version: u8, reader: &mut Reader) -> Result<Message, DecodeError> {
    let term = reader.term()?;
    let body = match tag {
        kind::PRE_VOTE => Body::PreVote {
            next: reader.term()?,
            last: reader.log_id()?,
        },
        kind::PRE_VOTE_RESPONSE => Body::PreVoteResponse {
            next: reader.term()?,
            granted: reader.bool()?,
        },
        kind::VOTE => Body::Vote {
            last: reader.log_id()?,
            transfer: reader.bool()?,
        },
        kind::VOTE_RESPONSE => Body::VoteResponse {
            granted: reader.bool()?,
        },
        kind::APPENDED => Body::Appended {
            upto: reader.index()?,
        },
        kind::CONFLICT => Body::Conflict {
            prev: reader.index()?,
            hint: reader.log_id()?,
        },
        kind::HEARTBEAT => Body::Heartbeat {
            commit: reader.index()?,
            round: reader.u64()?,
        },
        kind::HEARTBEAT_RESPONSE => Body::HeartbeatResponse {
            round: reader.u64()?,
            verified: reader.index()?,
            matched: reader.index()?,
            priority: match version {
                // Not said, and so nobody's reason to hand over: two that would rather not lead would do so to each other for ever.
                1 => Priority::Low,
                _ => priority(reader.u8()?)?,
            },
        },
        kind::COMMIT => Body::Commit {
            index: reader.index()?,
        },
        kind::INSTALL_SNAPSHOT => Body::InstallSnapshot {
            last: reader.log_id()?,
        },
        kind::TIMEOUT_NOW => Body::TimeoutNow,
        kind::READ_INDEX => Body::ReadIndex { id: reader.u64()? },
        kind::READ_INDEX_RESPONSE => Body::ReadIndexResponse {
            id: reader.u64()?,
            index: reader.index()?,
        },
        kind::NEWER_TERM => Body::NewerTerm,
        other => {
            reached!("node.wire.unknown_kind");
            return Err(DecodeError::Tag(other, "a kind of message"));
        }
    };
    Ok(Message { term, body })
}

fn put_request(head: &mut Vec<u8>, request: &RequestId) {
    head.put_u64(request.node);
    head.put_u64(request.boot);
    head.put_u64(request.seq);
}

fn request(reader: &mut Reader) -> Result<RequestId, DecodeError> {
    Ok(RequestId {
        node: reader.u64()?,
        boot: reader.u64()?,
        seq: reader.u64()?,
    })
}

fn priority_tag(priority: Priority) -> u8 {
    match priority {
        Priority::Low => 0,
        Priority::Normal => 1,
        Priority::High => 2,
    }
}

fn priority(tag: u8) -> Result<Priority, DecodeError> {
    match tag {
        0 => Ok(Priority::Low),
        1 => Ok(Priority::Normal),
        2 => Ok(Priority::High),
        other => Err(DecodeError::Tag(other, "a priority")),
    }
}

const REASONS: [Reason; 7] = [
    Reason::NoLeader,
    Reason::LeaderChanged,
    Reason::LinkDown,
    Reason::Timeout,
    Reason::Busy,
    Reason::TooLarge,
    Reason::Stopping,
];

fn reason_tag(why: Reason) -> u8 {
    REASONS
        .iter()
        .position(|reason| *reason == why)
        .expect("every reason has a number") as u8
}

fn reason(tag: u8) -> Result<Reason, DecodeError> {
    REASONS
        .get(usize::from(tag))
        .copied()
        .ok_or(DecodeError::Tag(tag, "a reason"))
}
