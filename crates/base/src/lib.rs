//! The words that all Quorate crates share. Types and traits, next to no logic, and no I/O.
//!
//! - [`ids`]: [`Term`], [`Index`], [`NodeId`], [`LogId`], the vocabulary of the Raft paper as newtypes.
//! - [`disk`]: [`Disk`] and [`DiskFile`], the few disk operations the log and the store are built on, and which errors of theirs mean that
//!   there is no room ([`disk::is_full`]).
//! - [`machine`]: [`StateMachine`], what an application implements to be replicated.
//! - [`parts`]: when a part of a buffer is copied, so that it does not keep the whole.

pub mod disk;
pub mod ids;
pub mod machine;
pub mod parts;

pub use disk::{Disk, DiskFile};
pub use ids::{Index, LogId, NodeId, Term};
pub use machine::{Job, SnapshotReader, StateMachine};
