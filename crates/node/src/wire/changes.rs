//! The bytes of membership changes that travel to the leader, and of how they ended.

use quorate_base::{Index, NodeId};
use quorate_raft::{BadChange, Change, ChangeEnd, ChangeRefused, Promote};

use crate::codec::{DecodeError, Put, Reader, length};

/// The least bytes of a change: a tag and a level.
const LEAST: usize = 5;

pub(super) fn put_changes(head: &mut Vec<u8>, changes: &[Change]) {
    head.put_u32(length(changes.len()));
    for change in changes {
        match change {
            Change::AddLearner { id, promote, about } => {
                head.put_u8(0);
                head.put_u64(id.0);
                head.put_u8(match promote {
                    Promote::Never => 0,
                    Promote::WhenCaughtUp => 1,
                });
                put_about(head, about);
            }
            Change::Promote(id) => {
                head.put_u8(1);
                head.put_u64(id.0);
            }
            Change::Remove(id) => {
                head.put_u8(2);
                head.put_u64(id.0);
            }
            Change::Describe { id, about } => {
                head.put_u8(3);
                head.put_u64(id.0);
                put_about(head, about);
            }
            Change::RaiseLevel(level) => {
                head.put_u8(4);
                head.put_u32(*level);
            }
        }
    }
}

fn put_about(head: &mut Vec<u8>, about: &[u8]) {
    head.put_u32(length(about.len()));
    head.extend_from_slice(about);
}

pub(super) fn changes(reader: &mut Reader) -> Result<Vec<Change>, DecodeError> {
    let count = reader.count(LEAST)?;
    (0..count).map(|_| change(reader)).collect()
}

fn change(reader: &mut Reader) -> Result<Change, DecodeError> {
    Ok(match reader.u8()? {
        0 => Change::AddLearner {
            id: NodeId(reader.u64()?),
            promote: match reader.u8()? {
                0 => Promote::Never,
                1 => Promote::WhenCaughtUp,
                other => return Err(DecodeError::Tag(other, "a learner's future")),
            },
            about: about(reader)?,
        },
        1 => Change::Promote(NodeId(reader.u64()?)),
        2 => Change::Remove(NodeId(reader.u64()?)),
        3 => Change::Describe {
            id: NodeId(reader.u64()?),
            about: about(reader)?,
        },
        4 => Change::RaiseLevel(reader.u32()?),
        other => return Err(DecodeError::Tag(other, "a membership change")),
    })
}

fn about(reader: &mut Reader) -> Result<Box<[u8]>, DecodeError> {
    let len = reader.u32()? as usize;
    Ok(reader.bytes(len)?[..].into())
}

pub(super) fn put_end(head: &mut Vec<u8>, end: ChangeEnd) {
    match end {
        ChangeEnd::Done(at) => {
            head.put_u8(0);
            head.put_u64(at.0);
        }
        ChangeEnd::Unknown => head.put_u8(1),
        ChangeEnd::Refused(why) => {
            head.put_u8(2);
            put_refused(head, why);
        }
    }
}

/// A tag and an id, which is 0 where there is none.
fn put_refused(head: &mut Vec<u8>, why: ChangeRefused) {
    let (tag, id) = match why {
        ChangeRefused::NotLeader(leader) => (0, leader.unwrap_or(NodeId::ZERO)),
        ChangeRefused::Transferring => (1, NodeId::ZERO),
        ChangeRefused::Pending => (2, NodeId::ZERO),
        ChangeRefused::NotCaughtUp(id) => (3, id),
        ChangeRefused::WouldLoseQuorum => (4, NodeId::ZERO),
        ChangeRefused::Bad(BadChange::NotMember(id)) => (16, id),
        ChangeRefused::Bad(BadChange::AlreadyMember(id)) => (17, id),
        ChangeRefused::Bad(BadChange::WasRemoved(id)) => (18, id),
        ChangeRefused::Bad(BadChange::NotLearner(id)) => (19, id),
        ChangeRefused::Bad(BadChange::NoVoters) => (20, NodeId::ZERO),
        ChangeRefused::Bad(BadChange::LowerLevel) => (21, NodeId::ZERO),
        ChangeRefused::Bad(BadChange::Nothing) => (22, NodeId::ZERO),
    };
    head.put_u8(tag);
    head.put_u64(id.0);
}

pub(super) fn end(reader: &mut Reader) -> Result<ChangeEnd, DecodeError> {
    Ok(match reader.u8()? {
        0 => ChangeEnd::Done(Index(reader.u64()?)),
        1 => ChangeEnd::Unknown,
        2 => ChangeEnd::Refused(refused(reader)?),
        other => return Err(DecodeError::Tag(other, "the end of a membership change")),
    })
}

fn refused(reader: &mut Reader) -> Result<ChangeRefused, DecodeError> {
    let (tag, id) = (reader.u8()?, NodeId(reader.u64()?));
    Ok(match tag {
        0 => ChangeRefused::NotLeader((id != NodeId::ZERO).then_some(id)),
        1 => ChangeRefused::Transferring,
        2 => ChangeRefused::Pending,
        3 => ChangeRefused::NotCaughtUp(id),
        4 => ChangeRefused::WouldLoseQuorum,
        16 => ChangeRefused::Bad(BadChange::NotMember(id)),
        17 => ChangeRefused::Bad(BadChange::AlreadyMember(id)),
        18 => ChangeRefused::Bad(BadChange::WasRemoved(id)),
        19 => ChangeRefused::Bad(BadChange::NotLearner(id)),
        20 => ChangeRefused::Bad(BadChange::NoVoters),
        21 => ChangeRefused::Bad(BadChange::LowerLevel),
        22 => ChangeRefused::Bad(BadChange::Nothing),
        other => return Err(DecodeError::Tag(other, "the reason of a refusal")),
    })
}
