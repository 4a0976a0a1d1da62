//! The few numbers about the store as a whole, written with every flush: revisions, the last applied entry, alarms.

use std::collections::BTreeSet;

use bytes::Bytes;
use quorate_base::LogId;

use crate::codec::{DecodeError, Reader, put_int, put_varint};
use crate::row::Definition;
use crate::types::{Alarm, AlarmKind};

/// The format of the store's file. Another one is refused.
const FORMAT: u64 = 1;

/// The table with the one row of [`Meta`].
pub(crate) const TABLE: Definition = Definition::new("meta");
/// Its key.
pub(crate) const KEY: &[u8] = b"meta";

/// The replicated part, moved by `apply`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    /// The last entry applied.
    pub(crate) applied: LogId,
    /// The latest revision.
    pub(crate) revision: i64,
    /// History before it is gone logically. −1 before the first compaction, as etcd has it.
    pub(crate) compacted: i64,
    /// The alarms that are on.
    pub(crate) alarms: BTreeSet<Alarm>,
}

impl Default for Meta {
    fn default() -> Meta {
        Meta {
            applied: LogId::ZERO,
            revision: 1,
            compacted: -1,
            alarms: BTreeSet::new(),
        }
    }
}

/// What is on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flushed {
    /// The replicated part as of the last flush.
    pub(crate) meta: Meta,
    /// Everything that the changes of revisions up to here made garbage is removed.
    pub(crate) scrubbed: i64,
    /// Bytes of keys and values in all tables.
    pub(crate) stored: i64,
}

impl Flushed {
    /// The last revision whose garbage may be removed now: what happens *at* the compacted revision may still be watched, so what it
    /// supersedes waits for the next compaction.
    pub(crate) fn scrub_target(&self) -> i64 {
        self.meta.compacted - 1
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, FORMAT);
        put_varint(&mut out, self.meta.applied.term.get());
        put_varint(&mut out, self.meta.applied.index.get());
        put_int(&mut out, self.meta.revision);
        put_int(&mut out, self.meta.compacted);
        put_int(&mut out, self.scrubbed);
        put_int(&mut out, self.stored);
        put_varint(&mut out, self.meta.alarms.len() as u64);
        for alarm in &self.meta.alarms {
            put_varint(&mut out, alarm.member);
            put_varint(&mut out, alarm.kind as u64);
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Flushed, DecodeError> {
        let mut input = Reader(Bytes::copy_from_slice(bytes));
        let format = input.varint("format")?;
        if format != FORMAT {
            return Err(DecodeError::Undefined {
                what: "store format",
                value: format,
            });
        }
        let applied = LogId::new(input.varint("term")?, input.varint("index")?);
        let revision = input.int("revision")?;
        let compacted = input.int("compacted revision")?;
        let scrubbed = input.int("scrubbed revision")?;
        let stored = input.int("stored bytes")?;
        let mut alarms = BTreeSet::new();
        for _ in 0..input.varint("alarms")? {
            let member = input.varint("member")?;
            let kind = match input.varint("alarm kind")? {
                1 => AlarmKind::NoSpace,
                2 => AlarmKind::Corrupt,
                value => {
                    return Err(DecodeError::Undefined {
                        what: "alarm kind",
                        value,
                    });
                }
            };
            alarms.insert(Alarm { member, kind });
        }
        let meta = Meta {
            applied,
            revision,
            compacted,
            alarms,
        };
        Ok(Flushed {
            meta,
            scrubbed,
            stored,
        })
    }
}
