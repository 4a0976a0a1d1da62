//! Exactly-once client sessions (thesis §6.3), as a part of a replicated state: a command that is in the log several times is executed once,
//! because the state remembers the last number and answer of each session.
//!
//! | what | where |
//! | --- | --- |
//! | the bytes that stand in the log, and what applying them answers | `command`: [`SessionCommand`], [`Answer`] |
//! | who has executed what | `table`: [`SessionTable`] |
//!
//! A session has one command under way at a time, so one answer is all that must be kept for it. A client that wants more at
//! once opens more sessions. There is no clock in all this: sessions live until they are closed, or until there are too many and
//! one is the least recently used. The limit travels in the command that opens a session, so that it is the same on
//! all nodes whatever each was started with.
//!
//! Not here: the client's side, and states that come with sessions; those are in `quorate`.

mod command;
mod table;

pub use command::{Answer, NotACommand, SessionCommand, SessionId};
pub use table::SessionTable;
