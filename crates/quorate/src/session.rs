//! Exactly-once client sessions (thesis §6.3). A command whose outcome is unknown may be proposed again without being executed
//! again: the session's client numbers its commands, and the replicated state remembers the last number and its answer.
//!
//! | what | where |
//! | --- | --- |
//! | the bytes that stand in the log, and what applying them answers | `command`: [`SessionCommand`], [`Answer`] |
//! | who has executed what, as a part of the replicated state | `table`: [`SessionTable`] |
//! | a [`State`](crate::State) with sessions | `sessions`: [`Sessions`] |
//! | the client's side | `client`: [`Session`] |
//!
//! [`Sessions`] around a state in memory is all that most need. A machine with storage of its own holds a [`SessionTable`] and keeps it
//! together with its data.
//!
//! A session has one command under way at a time, so one answer is all that must be kept for it. A client that wants more at
//! once opens more sessions. There is no clock in all this: sessions live until they are closed, or until there are too many and
//! one is the least recently used. The limit travels in the command that opens a session, so that it is the same on
//! all nodes whatever each was started with.

mod client;
mod command;
mod sessions;
mod table;

pub use client::{Session, SessionError};
pub use command::{Answer, NotACommand, SessionCommand, SessionId};
pub use sessions::Sessions;
pub use table::SessionTable;
