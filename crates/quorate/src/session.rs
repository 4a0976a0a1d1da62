//! Exactly-once client sessions (thesis §6.3). A command whose outcome is unknown may be proposed again without being executed
//! again: the session's client numbers its commands, and the replicated state remembers the last number and its answer.
//!
//! | what | where |
//! | --- | --- |
//! | the bytes in the log, who has executed what | [`SessionCommand`], [`Answer`], [`SessionTable`] in `quorate-node` |
//! | a [`State`](crate::State) with sessions | `sessions`: [`Sessions`] |
//! | the client's side | `client`: [`Session`] |
//!
//! [`Sessions`] around a state in memory is all that most need. A machine with storage of its own holds a [`SessionTable`] and keeps it
//! together with its data.

mod client;
mod sessions;

pub use client::{Session, SessionError};
pub use quorate_node::session::{Answer, NotACommand, SessionCommand, SessionId, SessionTable};
pub use sessions::Sessions;
