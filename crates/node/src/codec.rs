//! The small pieces that all encodings of this crate share: a total reader over `Bytes`, and the words that occur
//! everywhere (log ids, configurations). All numbers are little-endian and of fixed width.

use bytes::{Buf, Bytes};
use quorate_base::{Index, LogId, NodeId, Term, parts};
use quorate_raft::{Config, Promote, SnapMeta};
use thiserror::Error;

/// Why bytes were not understood. No input causes a panic or an allocation larger than the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// They end too early.
    #[error("the bytes end too early")]
    Short,
    /// Something follows the end.
    #[error("{0} bytes are left over at the end")]
    Trailing(usize),
    /// They were written by a later version of this program.
    #[error("format version {0} is not known to this program")]
    Version(u8),
    /// A tag has no meaning.
    #[error("{0} has no meaning as {1}")]
    Tag(u8, &'static str),
    /// A value contradicts the rest.
    #[error("{0}")]
    Invalid(&'static str),
}

/// Reads from the front of some bytes.
#[derive(Debug)]
pub(crate) struct Reader {
    rest: Bytes,
}

impl Reader {
    pub(crate) fn new(bytes: Bytes) -> Reader {
        Reader { rest: bytes }
    }

    /// The next `n` bytes, sharing the input's memory.
    pub(crate) fn bytes(&mut self, n: usize) -> Result<Bytes, DecodeError> {
        if self.rest.len() < n {
            return Err(DecodeError::Short);
        }
        Ok(self.rest.split_to(n))
    }

    /// The next parts of these lengths, to be kept: those that are a small part of the `held` bytes that the input shares are copied.
    pub(crate) fn parts(&mut self, lengths: &[usize], held: usize) -> Result<Vec<Bytes>, DecodeError> {
        parts::cut(&mut self.rest, lengths, held).ok_or(DecodeError::Short)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        // Not by way of `bytes`: sharing the memory costs more than copying a number.
        let array = *self.rest.first_chunk::<N>().ok_or(DecodeError::Short)?;
        self.rest.advance(N);
        Ok(array)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn bool(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(DecodeError::Tag(other, "a truth value")),
        }
    }

    pub(crate) fn term(&mut self) -> Result<Term, DecodeError> {
        self.u64().map(Term)
    }

    pub(crate) fn index(&mut self) -> Result<Index, DecodeError> {
        self.u64().map(Index)
    }

    pub(crate) fn log_id(&mut self) -> Result<LogId, DecodeError> {
        Ok(LogId {
            term: self.term()?,
            index: self.index()?,
        })
    }

    /// A count of things that take at least `size` bytes each, so that it can be trusted as a capacity.
    pub(crate) fn count(&mut self, size: usize) -> Result<usize, DecodeError> {
        let n = self.u32()? as usize;
        if n > self.rest.len() / size {
            return Err(DecodeError::Short);
        }
        Ok(n)
    }

    /// A configuration. Its second format begins with a count of voters that the first can never have.
    pub(crate) fn config(&mut self) -> Result<Config, DecodeError> {
        let mut config = Config::default();
        let second = self.rest.starts_with(&SECOND_FORMAT.to_le_bytes());
        if second {
            self.u32()?;
            config.level = self.u32()?;
        }
        for set in [&mut config.voters, &mut config.outgoing] {
            for _ in 0..self.count(8)? {
                set.insert(NodeId(self.u64()?));
            }
        }
        for _ in 0..self.count(9)? {
            let id = NodeId(self.u64()?);
            let promote = match self.u8()? {
                0 => Promote::Never,
                1 => Promote::WhenCaughtUp,
                other => return Err(DecodeError::Tag(other, "a learner's future")),
            };
            config.learners.insert(id, promote);
        }
        if second {
            for _ in 0..self.count(8)? {
                config.removed.insert(NodeId(self.u64()?));
            }
            for _ in 0..self.count(12)? {
                let id = NodeId(self.u64()?);
                let len = self.u32()? as usize;
                config.about.insert(id, self.bytes(len)?[..].into());
            }
        }
        Ok(config)
    }

    pub(crate) fn snap_meta(&mut self) -> Result<SnapMeta, DecodeError> {
        Ok(SnapMeta {
            last: self.log_id()?,
            config: self.config()?,
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn rest(self) -> Bytes {
        self.rest
    }

    /// Checks that nothing is left.
    pub(crate) fn end(self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            n => Err(DecodeError::Trailing(n)),
        }
    }
}

/// Stands before a configuration with a feature level, removed members and what is known of members. Releases of level 1 and below read
/// only what has none of these.
const SECOND_FORMAT: u32 = u32::MAX;

/// Appends values to a buffer.
pub(crate) trait Put {
    fn put_u8(&mut self, n: u8);
    fn put_u32(&mut self, n: u32);
    fn put_u64(&mut self, n: u64);
    fn put_log_id(&mut self, id: LogId);
    fn put_config(&mut self, config: &Config);
    fn put_snap_meta(&mut self, meta: &SnapMeta);
}

impl Put for Vec<u8> {
    fn put_u8(&mut self, n: u8) {
        self.push(n);
    }

    fn put_u32(&mut self, n: u32) {
        self.extend_from_slice(&n.to_le_bytes());
    }

    fn put_u64(&mut self, n: u64) {
        self.extend_from_slice(&n.to_le_bytes());
    }

    fn put_log_id(&mut self, id: LogId) {
        self.put_u64(id.term.0);
        self.put_u64(id.index.0);
    }

    fn put_config(&mut self, config: &Config) {
        let second = config.level > 1 || !config.removed.is_empty() || !config.about.is_empty();
        if second {
            self.put_u32(SECOND_FORMAT);
            self.put_u32(config.level);
        }
        for set in [&config.voters, &config.outgoing] {
            self.put_u32(length(set.len()));
            set.iter().for_each(|id| self.put_u64(id.0));
        }
        self.put_u32(length(config.learners.len()));
        for (id, promote) in &config.learners {
            self.put_u64(id.0);
            self.put_u8(match promote {
                Promote::Never => 0,
                Promote::WhenCaughtUp => 1,
            });
        }
        if second {
            self.put_u32(length(config.removed.len()));
            config.removed.iter().for_each(|id| self.put_u64(id.0));
            self.put_u32(length(config.about.len()));
            for (id, about) in &config.about {
                self.put_u64(id.0);
                self.put_u32(length(about.len()));
                self.extend_from_slice(about);
            }
        }
    }

    fn put_snap_meta(&mut self, meta: &SnapMeta) {
        self.put_log_id(meta.last);
        self.put_config(&meta.config);
    }
}

/// A length as it is encoded.
pub(crate) fn length(n: usize) -> u32 {
    u32::try_from(n).expect("lengths are limited long before 4 GiB")
}
