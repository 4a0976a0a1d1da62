//! The few numbers about the store as a whole, written with every flush: revisions, the last applied entry, alarms.

use std::collections::BTreeSet;

use bytes::Bytes;
use quorate_base::LogId;

use crate::codec::{DecodeError, Reader, put_int, put_varint};
use crate::row::Definition;
use crate::types::{Alarm, AlarmKind};

/// The format of the store's file, and of the state record in a snapshot, whose rows are still those of format 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// The tables were those of [`wire`](crate::wire).
    First = 1,
    /// The tables are those of [`row`](crate::row).
    Second = 2,
}

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

    pub(crate) fn encode(&self, format: Format) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, format as u64);
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

    /// The record, and the format of the store that it stands in. Others than those known are refused.
    pub(crate) fn decode(bytes: &[u8]) -> Result<(Format, Flushed), DecodeError> {
        let mut input = Reader(Bytes::copy_from_slice(bytes));
        let format = match input.varint("format")? {
            1 => Format::First,
            2 => Format::Second,
            value => {
                return Err(DecodeError::Undefined {
                    what: "store format",
                    value,
                });
            }
        };
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
        let flushed = Flushed {
            meta,
            scrubbed,
            stored,
        };
        Ok((format, flushed))
    }
}
