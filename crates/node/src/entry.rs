//! The body of a log entry: the same bytes stand in the log's record and in the peers' frames, encoded once by the leader.
//! It names its own term and index, so that bytes can never pass for another entry's.
//!
//! ```text
//! byte 0       format version (high half) and kind (low half)
//! bytes 1..9   term
//! bytes 9..17  index
//! then         nothing (no-op), request id of 24 bytes and command, or a configuration
//! ```

use bytes::Bytes;
use quorate_base::{Index, LogId, Term};
use quorate_raft::{Config, EntryShape};

use crate::codec::{DecodeError, Put, Reader};
use crate::message::RequestId;

const VERSION: u8 = 1;
const NOOP: u8 = 0;
const COMMAND: u8 = 1;
const CONFIG: u8 = 2;

/// Bytes before the content.
pub const HEADER: usize = 17;

/// Bytes that an entry needs besides its command.
pub const COMMAND_OVERHEAD: usize = HEADER + 24;

/// A decoded body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which entry this is.
    pub at: LogId,
    /// What it holds.
    pub content: Content,
}

/// What an entry holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Nothing: a new leader's first entry.
    Noop,
    /// A command for the state machine.
    Command {
        /// Who proposed it.
        request: RequestId,
        /// The command.
        command: Bytes,
    },
    /// A configuration of the cluster.
    Config(Config),
}

impl Entry {
    /// The body's bytes.
    pub fn encode(&self) -> Bytes {
        match &self.content {
            Content::Noop => header(NOOP, self.at, 0).into(),
            Content::Command { request, command } => encode_command(self.at, *request, command),
            Content::Config(config) => {
                let mut body = header(CONFIG, self.at, 64);
                body.put_config(config);
                body.into()
            }
        }
    }

    /// Reads a body. A command shares its memory.
    pub fn decode(body: &Bytes) -> Result<Entry, DecodeError> {
        let mut reader = Reader::new(body.clone());
        let (kind, at) = read_header(&mut reader)?;
        let content = match kind {
            NOOP => {
                reader.end()?;
                Content::Noop
            }
            COMMAND => Content::Command {
                request: RequestId {
                    node: reader.u64()?,
                    boot: reader.u64()?,
                    seq: reader.u64()?,
                },
                command: reader.rest(),
            },
            CONFIG => {
                let config = reader.config()?;
                reader.end()?;
                Content::Config(config)
            }
            other => return Err(DecodeError::Tag(other, "a kind of entry")),
        };
        Ok(Entry { at, content })
    }
}

/// The body of a new leader's no-op.
pub fn encode_noop(at: LogId) -> Bytes {
    header(NOOP, at, 0).into()
}

/// The body of a command.
pub fn encode_command(at: LogId, request: RequestId, command: &[u8]) -> Bytes {
    let mut body = header(COMMAND, at, 24 + command.len());
    body.put_u64(request.node);
    body.put_u64(request.boot);
    body.put_u64(request.seq);
    body.extend_from_slice(command);
    body.into()
}

/// Whether a body holds a command. Whatever begins so and is long enough does; there is nothing more to it that could be wrong.
pub fn is_command(body: &[u8]) -> bool {
    body.first() == Some(&(VERSION << 4 | COMMAND)) && body.len() >= COMMAND_OVERHEAD
}

/// What the core must know of a body, and its index.
pub fn shape(body: &Bytes) -> Result<(Index, EntryShape), DecodeError> {
    let size =
        u32::try_from(body.len()).map_err(|_| DecodeError::Invalid("an entry is longer than 4 GiB"))?;
    let (at, config) = match id_of(body).filter(|_| is_command(body)) {
        Some(at) => (at, None),
        None => match Entry::decode(body)? {
            Entry {
                at,
                content: Content::Config(config),
            } => (at, Some(Box::new(config))),
            Entry { at, .. } => (at, None),
        },
    };
    let term = at.term;
    Ok((at.index, EntryShape { term, size, config }))
}

/// Which entry a body is of, without a look at the content.
pub fn id_of(body: &[u8]) -> Option<LogId> {
    let number = |at: usize| Some(u64::from_le_bytes(body.get(at..at + 8)?.try_into().ok()?));
    Some(LogId {
        term: Term(number(1)?),
        index: Index(number(9)?),
    })
}

fn header(kind: u8, at: LogId, content: usize) -> Vec<u8> {
    let mut body = Vec::with_capacity(HEADER + content);
    body.put_u8(VERSION << 4 | kind);
    body.put_log_id(at);
    body
}

fn read_header(reader: &mut Reader) -> Result<(u8, LogId), DecodeError> {
    let tag = reader.u8()?;
    if tag >> 4 != VERSION {
        return Err(DecodeError::Version(tag >> 4));
    }
    Ok((tag & 15, reader.log_id()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_base::NodeId;

    #[test]
    fn bodies_say_what_and_where_they_are() {
        let request = RequestId {
            node: 7,
            boot: 8,
            seq: 9,
        };
        let config = Config::of([NodeId(1), NodeId(2)]);
        let contents = [
            Content::Noop,
            Content::Command {
                request,
                command: Bytes::from_static(b"put"),
            },
            Content::Command {
                request,
                command: Bytes::new(),
            },
            Content::Config(config.clone()),
        ];
        for content in contents {
            let entry = Entry {
                at: LogId::new(3, 17),
                content,
            };
            let body = entry.encode();
            assert_eq!(Entry::decode(&body).unwrap(), entry);
            assert_eq!(
                is_command(&body),
                matches!(entry.content, Content::Command { .. })
            );
            assert_eq!(id_of(&body), Some(entry.at));
            let (index, shape) = shape(&body).unwrap();
            assert_eq!(
                (index, shape.term, shape.size as usize),
                (Index(17), Term(3), body.len())
            );
            assert_eq!(
                shape.config.is_some(),
                entry.content == Content::Config(config.clone())
            );
        }
        assert_eq!(encode_noop(LogId::new(1, 1)).len(), HEADER);
        assert_eq!(
            encode_command(LogId::new(1, 1), request, b"abc").len(),
            COMMAND_OVERHEAD + 3
        );
    }

    #[test]
    fn a_decoded_command_shares_the_bodys_memory() {
        let body = encode_command(LogId::new(1, 1), RequestId::default(), b"abc");
        let Content::Command { command, .. } = Entry::decode(&body).unwrap().content else {
            panic!("a command was encoded")
        };
        assert_eq!(command.as_ptr(), body[COMMAND_OVERHEAD..].as_ptr());
    }

    #[test]
    fn the_shape_of_any_bytes_is_what_decoding_says() {
        let config = Content::Config(Config::of([NodeId(1)]));
        let command = Content::Command {
            request: RequestId::default(),
            command: Bytes::from_static(b"put"),
        };
        for content in [Content::Noop, command, config] {
            let at = LogId::new(3, 17);
            let body = Entry { at, content }.encode();
            for (cut, kind) in
                (0..=body.len()).flat_map(|cut| [NOOP, COMMAND, CONFIG, 15].map(|kind| (cut, kind)))
            {
                let mut body = body[..cut].to_vec();
                body.iter_mut().take(1).for_each(|tag| *tag = VERSION << 4 | kind);
                let body = Bytes::from(body);
                let decoded = Entry::decode(&body).map(|entry| match entry.content {
                    Content::Config(config) => (entry.at, Some(config)),
                    Content::Noop | Content::Command { .. } => (entry.at, None),
                });
                let shape = shape(&body).map(|(index, shape)| {
                    assert_eq!(shape.size as usize, body.len());
                    let term = shape.term;
                    (LogId { term, index }, shape.config.map(|config| *config))
                });
                assert_eq!(shape, decoded, "{cut} bytes of kind {kind}");
            }
        }
    }

    #[test]
    fn another_format_and_cut_bodies_are_refused() {
        let body = encode_command(LogId::new(1, 1), RequestId::default(), b"abc");
        for cut in 0..COMMAND_OVERHEAD {
            assert_eq!(
                Entry::decode(&body.slice(..cut)),
                Err(DecodeError::Short),
                "cut at {cut}"
            );
        }
        let mut other = body.to_vec();
        other[0] = 0x21;
        assert_eq!(Entry::decode(&other.clone().into()), Err(DecodeError::Version(2)));
        other[0] = 0x1f;
        assert_eq!(
            Entry::decode(&other.into()),
            Err(DecodeError::Tag(15, "a kind of entry"))
        );
    }
}
