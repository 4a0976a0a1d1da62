//! Raft. Being built.
pub mod config;
pub mod effects;
pub mod message;
pub use config::{Config, Promote};
pub use effects::*;
pub use message::{Body, EntryShape, Message, Round};
