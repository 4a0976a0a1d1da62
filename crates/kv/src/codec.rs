//! The bytes of a [`Command`] in the log: a version byte, a tag byte, then the fields in order. Numbers are LEB128 varints (signed
//! ones as their two's complement), byte strings a length and the bytes, booleans bits of one flags byte. Decoding is
//! total, slices keys and values out of the input, and takes exactly all of it.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use quorate_base::{Index, Term};
use thiserror::Error;

use crate::command::{Command, Expiry};
use crate::types::{
    AlarmAction, AlarmKind, Compare, CompareOp, CompareTarget, DeleteRangeRequest, PutRequest, RangeRequest,
    RequestOp, SortOrder, SortTarget, TxnRequest,
};

/// The version this code writes, and the only one it reads.
const VERSION: u8 = 1;
/// Tags whose meanings must not be confused. The named forms came with feature level 2: before, no member could read them.
const GRANT: u8 = 5;
const REVOKE: u8 = 6;
const NAMED_GRANT: u8 = 8;
const NAMED_EXPIRY: u8 = 9;
/// Transactions nest at most so deep: [`check`](crate::check) allows one level per operation of its budget of 128, plus an empty leaf.
const MAX_DEPTH: u32 = 130;

/// Why bytes are no command.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum DecodeError {
    /// The bytes end before the command does.
    #[error("{0} is cut short")]
    Short(&'static str),
    /// A number, tag or version that is not defined.
    #[error("{what} {value} is not defined")]
    Undefined {
        /// Of what.
        what: &'static str,
        /// The number found.
        value: u64,
    },
    /// A transaction nested deeper than any check lets through.
    #[error("transactions nested too deep")]
    Deep,
    /// Bytes after the end.
    #[error("{0} bytes too many")]
    Trailing(usize),
}

/// Encodes a command.
pub(crate) fn encode(command: &Command) -> Bytes {
    let mut out = BytesMut::with_capacity(size_hint(command));
    out.put_u8(VERSION);
    match command {
        Command::Put(put) => {
            out.put_u8(1);
            put_put(&mut out, put);
        }
        Command::DeleteRange(delete) => {
            out.put_u8(2);
            put_delete(&mut out, delete);
        }
        Command::Txn(txn) => {
            out.put_u8(3);
            put_txn(&mut out, txn);
        }
        Command::Compact { revision, physical } => {
            out.put_u8(4);
            put_int(&mut out, *revision);
            out.put_u8(u8::from(*physical));
        }
        Command::LeaseGrant { id, ttl, named } => {
            out.put_u8(if *named { NAMED_GRANT } else { GRANT });
            put_int(&mut out, *id);
            put_int(&mut out, *ttl);
        }
        Command::LeaseRevoke { id, expiry } => put_revoke(&mut out, *id, *expiry),
        Command::Alarm { action, member, kind } => {
            out.put_u8(7);
            out.put_u8(match action {
                AlarmAction::Get => 0,
                AlarmAction::Activate => 1,
                AlarmAction::Deactivate => 2,
            });
            put_varint(&mut out, *member);
            out.put_u8(kind.map_or(0, |kind| kind as u8));
        }
    }
    out.freeze()
}

/// Decodes a command.
pub(crate) fn decode(bytes: &Bytes) -> Result<Command, DecodeError> {
    let mut input = Reader(bytes.clone());
    match input.byte("version")? {
        VERSION => {}
        other => return undefined("command version", other),
    }
    let command = match input.byte("tag")? {
        1 => Command::Put(input.put()?),
        2 => Command::DeleteRange(input.delete()?),
        3 => Command::Txn(input.txn(0)?),
        4 => Command::Compact {
            revision: input.int("revision")?,
            physical: input.flags("flags", 1)? & 1 != 0,
        },
        tag @ (GRANT | NAMED_GRANT) => Command::LeaseGrant {
            id: input.int("lease id")?,
            ttl: input.int("TTL")?,
            named: tag == NAMED_GRANT,
        },
        REVOKE => {
            let id = input.int("lease id")?;
            let some = input.flags("flags", 1)? & 1 != 0;
            let term = Term(input.varint("term")?);
            let expiry = Expiry { term, grant: None };
            Command::LeaseRevoke {
                id,
                expiry: some.then_some(expiry),
            }
        }
        NAMED_EXPIRY => Command::LeaseRevoke {
            id: input.int("lease id")?,
            expiry: Some(Expiry {
                term: Term(input.varint("term")?),
                grant: Some(Index(input.varint("grant")?)),
            }),
        },
        7 => Command::Alarm {
            action: match input.byte("alarm action")? {
                0 => AlarmAction::Get,
                1 => AlarmAction::Activate,
                2 => AlarmAction::Deactivate,
                other => return undefined("alarm action", other),
            },
            member: input.varint("member")?,
            kind: match input.byte("alarm kind")? {
                0 => None,
                1 => Some(AlarmKind::NoSpace),
                2 => Some(AlarmKind::Corrupt),
                other => return undefined("alarm kind", other),
            },
        },
        other => return undefined("command tag", other),
    };
    match input.0.len() {
        0 => Ok(command),
        more => Err(DecodeError::Trailing(more)),
    }
}

fn undefined<T>(what: &'static str, value: u8) -> Result<T, DecodeError> {
    Err(DecodeError::Undefined {
        what,
        value: u64::from(value),
    })
}

/// Enough room for the common commands in one allocation.
fn size_hint(command: &Command) -> usize {
    match command {
        Command::Put(put) => put.key.len() + put.value.len() + 24,
        Command::Txn(_) => 512,
        _ => 64,
    }
}

/// Appends a varint.
pub(crate) fn put_varint(out: &mut impl BufMut, mut n: u64) {
    while n >= 0x80 {
        out.put_u8(n as u8 | 0x80);
        n >>= 7;
    }
    out.put_u8(n as u8);
}

/// Appends a signed number as the varint of its two's complement: negative ones are rare here.
pub(crate) fn put_int(out: &mut impl BufMut, n: i64) {
    put_varint(out, n as u64);
}

/// Appends a length and the bytes.
pub(crate) fn put_bytes(out: &mut impl BufMut, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.put_slice(bytes);
}

fn put_flags(out: &mut impl BufMut, flags: &[bool]) {
    debug_assert!(flags.len() <= 8, "one byte of flags");
    out.put_u8(flags.iter().rev().fold(0, |acc, flag| acc << 1 | u8::from(*flag)));
}

fn put_revoke(out: &mut BytesMut, id: i64, expiry: Option<Expiry>) {
    if let Some(Expiry {
        term,
        grant: Some(grant),
    }) = expiry
    {
        out.put_u8(NAMED_EXPIRY);
        put_int(out, id);
        put_varint(out, term.get());
        put_varint(out, grant.get());
        return;
    }
    out.put_u8(REVOKE);
    put_int(out, id);
    out.put_u8(u8::from(expiry.is_some()));
    put_varint(out, expiry.map_or(0, |expiry| expiry.term.get()));
}

fn put_put(out: &mut BytesMut, put: &PutRequest) {
    put_flags(out, &[put.prev_kv, put.ignore_value, put.ignore_lease]);
    put_int(out, put.lease);
    put_bytes(out, &put.key);
    put_bytes(out, &put.value);
}

fn put_delete(out: &mut BytesMut, delete: &DeleteRangeRequest) {
    put_flags(out, &[delete.prev_kv]);
    put_bytes(out, &delete.key);
    put_bytes(out, &delete.range_end);
}

fn put_range(out: &mut BytesMut, range: &RangeRequest) {
    put_flags(out, &[range.keys_only, range.count_only]);
    out.put_u8(match range.sort_order {
        SortOrder::None => 0,
        SortOrder::Ascend => 1,
        SortOrder::Descend => 2,
    });
    out.put_u8(match range.sort_target {
        SortTarget::Key => 0,
        SortTarget::Version => 1,
        SortTarget::Create => 2,
        SortTarget::Mod => 3,
        SortTarget::Value => 4,
    });
    put_bytes(out, &range.key);
    put_bytes(out, &range.range_end);
    put_int(out, range.limit);
    put_int(out, range.revision);
    put_int(out, range.min_mod_revision);
    put_int(out, range.max_mod_revision);
    put_int(out, range.min_create_revision);
    put_int(out, range.max_create_revision);
}

fn put_compare(out: &mut BytesMut, compare: &Compare) {
    out.put_u8(match compare.op {
        CompareOp::Equal => 0,
        CompareOp::Greater => 1,
        CompareOp::Less => 2,
        CompareOp::NotEqual => 3,
    });
    put_bytes(out, &compare.key);
    put_bytes(out, &compare.range_end);
    let (tag, operand) = match &compare.target {
        CompareTarget::Version(n) => (0, *n),
        CompareTarget::Create(n) => (1, *n),
        CompareTarget::Mod(n) => (2, *n),
        CompareTarget::Lease(n) => (4, *n),
        CompareTarget::Value(value) => {
            out.put_u8(3);
            put_bytes(out, value);
            return;
        }
    };
    out.put_u8(tag);
    put_int(out, operand);
}

fn put_txn(out: &mut BytesMut, txn: &TxnRequest) {
    put_varint(out, txn.compare.len() as u64);
    for compare in &txn.compare {
        put_compare(out, compare);
    }
    for branch in [&txn.success, &txn.failure] {
        put_varint(out, branch.len() as u64);
        for op in branch {
            match op {
                RequestOp::Empty => out.put_u8(0),
                RequestOp::Range(range) => {
                    out.put_u8(1);
                    put_range(out, range);
                }
                RequestOp::Put(put) => {
                    out.put_u8(2);
                    put_put(out, put);
                }
                RequestOp::DeleteRange(delete) => {
                    out.put_u8(3);
                    put_delete(out, delete);
                }
                RequestOp::Txn(txn) => {
                    out.put_u8(4);
                    put_txn(out, txn);
                }
            }
        }
    }
}

/// Reads fields off the front of a byte string. Also used for the records of the store.
pub(crate) struct Reader(pub(crate) Bytes);

impl Reader {
    /// Nothing may be left.
    pub(crate) fn end(&self) -> Result<(), DecodeError> {
        match self.0.len() {
            0 => Ok(()),
            more => Err(DecodeError::Trailing(more)),
        }
    }

    pub(crate) fn byte(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        if self.0.is_empty() {
            return Err(DecodeError::Short(what));
        }
        Ok(self.0.get_u8())
    }

    /// A flags byte of which only the lowest `used` bits may be set.
    fn flags(&mut self, what: &'static str, used: u32) -> Result<u8, DecodeError> {
        let flags = self.byte(what)?;
        if u32::from(flags) >> used != 0 {
            return undefined(what, flags);
        }
        Ok(flags)
    }

    pub(crate) fn varint(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte(what)?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return undefined(what, byte);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::Undefined { what, value })
    }

    pub(crate) fn int(&mut self, what: &'static str) -> Result<i64, DecodeError> {
        Ok(self.varint(what)? as i64)
    }

    pub(crate) fn bytes(&mut self, what: &'static str) -> Result<Bytes, DecodeError> {
        let len = self.varint(what)?;
        match usize::try_from(len) {
            Ok(len) if len <= self.0.len() => Ok(self.0.split_to(len)),
            _ => Err(DecodeError::Short(what)),
        }
    }

    /// A count of things that take at least a byte each, so that garbage cannot ask for memory it does not bring.
    fn count(&mut self, what: &'static str) -> Result<usize, DecodeError> {
        let count = self.varint(what)?;
        match usize::try_from(count) {
            Ok(count) if count <= self.0.len() => Ok(count),
            _ => Err(DecodeError::Short(what)),
        }
    }

    fn put(&mut self) -> Result<PutRequest, DecodeError> {
        let flags = self.flags("put flags", 3)?;
        Ok(PutRequest {
            prev_kv: flags & 1 != 0,
            ignore_value: flags & 2 != 0,
            ignore_lease: flags & 4 != 0,
            lease: self.int("lease id")?,
            key: self.bytes("key")?,
            value: self.bytes("value")?,
        })
    }

    fn delete(&mut self) -> Result<DeleteRangeRequest, DecodeError> {
        let flags = self.flags("delete flags", 1)?;
        Ok(DeleteRangeRequest {
            prev_kv: flags & 1 != 0,
            key: self.bytes("key")?,
            range_end: self.bytes("range end")?,
        })
    }

    fn range(&mut self) -> Result<RangeRequest, DecodeError> {
        let flags = self.flags("range flags", 2)?;
        let (order, target) = (self.byte("sort order")?, self.byte("sort target")?);
        let Some(sort_order) = SortOrder::from_wire(i32::from(order)) else {
            return undefined("sort order", order);
        };
        let Some(sort_target) = SortTarget::from_wire(i32::from(target)) else {
            return undefined("sort target", target);
        };
        Ok(RangeRequest {
            keys_only: flags & 1 != 0,
            count_only: flags & 2 != 0,
            sort_order,
            sort_target,
            key: self.bytes("key")?,
            range_end: self.bytes("range end")?,
            limit: self.int("limit")?,
            revision: self.int("revision")?,
            min_mod_revision: self.int("revision")?,
            max_mod_revision: self.int("revision")?,
            min_create_revision: self.int("revision")?,
            max_create_revision: self.int("revision")?,
        })
    }

    fn compare(&mut self) -> Result<Compare, DecodeError> {
        let op = match self.byte("compare operator")? {
            0 => CompareOp::Equal,
            1 => CompareOp::Greater,
            2 => CompareOp::Less,
            3 => CompareOp::NotEqual,
            other => return undefined("compare operator", other),
        };
        Ok(Compare {
            op,
            key: self.bytes("key")?,
            range_end: self.bytes("range end")?,
            target: match self.byte("compare target")? {
                0 => CompareTarget::Version(self.int("version")?),
                1 => CompareTarget::Create(self.int("revision")?),
                2 => CompareTarget::Mod(self.int("revision")?),
                3 => CompareTarget::Value(self.bytes("value")?),
                4 => CompareTarget::Lease(self.int("lease id")?),
                other => return undefined("compare target", other),
            },
        })
    }

    fn txn(&mut self, depth: u32) -> Result<TxnRequest, DecodeError> {
        if depth > MAX_DEPTH {
            return Err(DecodeError::Deep);
        }
        let compares = self.count("compares")?;
        Ok(TxnRequest {
            compare: (0..compares).map(|_| self.compare()).collect::<Result<_, _>>()?,
            success: self.branch(depth)?,
            failure: self.branch(depth)?,
        })
    }

    fn branch(&mut self, depth: u32) -> Result<Vec<RequestOp>, DecodeError> {
        let count = self.count("operations")?;
        (0..count)
            .map(|_| {
                Ok(match self.byte("operation")? {
                    0 => RequestOp::Empty,
                    1 => RequestOp::Range(self.range()?),
                    2 => RequestOp::Put(self.put()?),
                    3 => RequestOp::DeleteRange(self.delete()?),
                    4 => RequestOp::Txn(Box::new(self.txn(depth + 1)?)),
                    other => return undefined("operation", other),
                })
            })
            .collect()
    }
}
