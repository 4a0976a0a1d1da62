//! What stands in the log for sessions, and what applying it answers. Nothing is executed here.
//!
//! ```text
//! byte 0   format (high half, 1) and kind (low half)
//! then     open:  limit, 4 bytes
//!          run:   session, 8 bytes; sequence number, 8 bytes; the command
//!          close: session, 8 bytes
//!          plain: the command
//! ```
//!
//! Numbers are little-endian.

use std::fmt;

use bytes::{Bytes, BytesMut};
use quorate_base::Index;
use thiserror::Error;

const FORMAT: u8 = 1;
const OPEN: u8 = 1;
const RUN: u8 = 2;
const CLOSE: u8 = 3;
const PLAIN: u8 = 4;

/// The name of a session: the index of the entry that opened it, so no other session ever has the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub Index);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session {}", self.0)
    }
}

/// A command for a machine with sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionCommand {
    /// Open a session.
    Open {
        /// With so many sessions or more, the least recently used ones are evicted first. At least one fits in any case.
        limit: u32,
    },
    /// Execute a command, unless this session already has.
    Run {
        /// The session.
        session: SessionId,
        /// The command's number: from 1, larger than that of every command before it.
        sequence: u64,
        /// The command.
        command: Bytes,
    },
    /// Forget the session.
    Close {
        /// The session.
        session: SessionId,
    },
    /// Execute a command as often as it is in the log: for commands that do no harm twice.
    Plain {
        /// The command.
        command: Bytes,
    },
}

/// Bytes that are no [`SessionCommand`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a command of a session")]
pub struct NotACommand;

impl SessionCommand {
    /// The bytes to propose.
    pub fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(32);
        let mut put = |kind: u8, parts: &[&[u8]]| {
            bytes.extend_from_slice(&[FORMAT << 4 | kind]);
            parts.iter().for_each(|part| bytes.extend_from_slice(part));
        };
        match self {
            SessionCommand::Open { limit } => put(OPEN, &[&limit.to_le_bytes()]),
            SessionCommand::Run {
                session,
                sequence,
                command,
            } => put(
                RUN,
                &[&session.0.0.to_le_bytes(), &sequence.to_le_bytes(), command],
            ),
            SessionCommand::Close { session } => put(CLOSE, &[&session.0.0.to_le_bytes()]),
            SessionCommand::Plain { command } => put(PLAIN, &[command]),
        }
        bytes.freeze()
    }

    /// Reads what [`encode`](SessionCommand::encode) wrote. A command inside shares its memory.
    ///
    /// # Errors
    /// If it is anything else.
    pub fn decode(bytes: &Bytes) -> Result<SessionCommand, NotACommand> {
        let mut rest = bytes.clone();
        let kind = *rest.first().ok_or(NotACommand)?;
        let _ = rest.split_to(1);
        let mut number = || {
            if rest.len() < 8 {
                return Err(NotACommand);
            }
            let bytes = rest.split_to(8);
            Ok(u64::from_le_bytes(bytes[..].try_into().expect("8 bytes")))
        };
        let decoded = match (kind >> 4, kind & 15) {
            (FORMAT, OPEN) => {
                let limit = rest[..].try_into().map_err(|_| NotACommand)?;
                return Ok(SessionCommand::Open {
                    limit: u32::from_le_bytes(limit),
                });
            }
            (FORMAT, RUN) => SessionCommand::Run {
                session: SessionId(Index(number()?)),
                sequence: number()?,
                command: rest,
            },
            (FORMAT, CLOSE) => {
                let session = SessionId(Index(number()?));
                if !rest.is_empty() {
                    return Err(NotACommand);
                }
                SessionCommand::Close { session }
            }
            (FORMAT, PLAIN) => SessionCommand::Plain { command: rest },
            _ => return Err(NotACommand),
        };
        Ok(decoded)
    }
}

/// What a [`SessionCommand`] answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The session is open.
    Opened(SessionId),
    /// The command was executed and gave this: just now, or when it was in the log for the first time.
    Done(Bytes),
    /// There is no such session, or no longer. Nothing was executed.
    Expired,
    /// A command of a higher number was executed before this one. Nothing was executed just now; whether this command ever was is
    /// not remembered.
    Superseded,
    /// The session is forgotten, if there was one.
    Closed,
    /// These bytes are no [`SessionCommand`]. Nothing was executed.
    NotUnderstood,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_survive_their_encoding_and_nothing_else_is_one() {
        let session = SessionId(Index(7));
        let command = Bytes::from_static(b"add 1");
        let all = [
            SessionCommand::Open { limit: 9 },
            SessionCommand::Run {
                session,
                sequence: 3,
                command: command.clone(),
            },
            SessionCommand::Close { session },
            SessionCommand::Plain { command },
        ];
        for one in &all {
            assert_eq!(SessionCommand::decode(&one.encode()).as_ref(), Ok(one));
        }
        for bytes in [
            &[][..],
            &[0x11],
            &[0x11; 6],
            &[0x12; 16],
            &[0x13; 8],
            &[0x13; 10],
            &[0x21; 5],
            &[0x15],
        ] {
            assert_eq!(
                SessionCommand::decode(&Bytes::copy_from_slice(bytes)),
                Err(NotACommand),
                "{bytes:x?}"
            );
        }
    }

    #[test]
    fn the_format_is_what_it_was() {
        let run = SessionCommand::Run {
            session: SessionId(Index(258)),
            sequence: 1,
            command: Bytes::from_static(b"x"),
        };
        let bytes = [0x12, 2, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, b'x'];
        assert_eq!(&run.encode()[..], bytes);
        assert_eq!(
            &SessionCommand::Open { limit: 5 }.encode()[..],
            [0x11, 5, 0, 0, 0]
        );
    }
}
