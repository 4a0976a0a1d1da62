//! A durable, segmented, append-only log over the [`Disk`](quorate_base::Disk) trait. It knows records and indexes, not
//! Raft: entry bodies, states and marks are opaque bytes, and terms, votes and snapshots are the caller's business.
//!
//! [`Wal::append`] makes batches of [`Record`]s durable with one write and one sync. [`Wal::open`] reads them back after
//! a crash, and tells two things apart that look alike: a write that a crash tore (never acknowledged, cut off) and
//! damage to what was once durable (an error; nothing is dropped in silence). [`inspect()`] shows a log without
//! opening it. The format is described byte by byte in `docs/wal.md`.
//!
//! Inside: `format` (bytes of segments and frames), `record`, `frame` (writing), `scan` (judging what stands at one place),
//! `recover` (judging the whole log), `entries` (what is in the log), `segment` (files), `log`, `upkeep`, `read`, `inspect`.

mod entries;
mod error;
mod format;
mod frame;
mod inspect;
mod log;
mod read;
mod record;
mod recover;
mod scan;
mod segment;
mod upkeep;

pub use error::{Damage, DiskError, OpenError, ReadError, WriteError};
pub use inspect::{Item, Located, inspect};
pub use log::{Options, Space, Wal};
pub use record::Record;
