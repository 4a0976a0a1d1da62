//! A durable, segmented, append-only log over the [`Disk`](quorate_base::Disk) trait. It knows records and indexes, not
//! Raft: entry bodies, states and marks are opaque bytes.
mod error;
#[allow(dead_code)]
mod format;
mod log;
#[allow(dead_code)]
mod record;

pub use error::{Damage, DiskError, OpenError, ReadError, WriteError};
pub use log::{Options, Space, Wal};
pub use record::Record;
