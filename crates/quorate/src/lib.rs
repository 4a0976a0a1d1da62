//! Replicate a state machine with Raft.
//!
//! Implement [`StateMachine`], [`start`] a node on every machine, and [`propose`](Handle::propose) commands to any of them:
//! each is applied on all nodes in the same order, and answered only when it will never be lost. This crate puts threads,
//! sockets, a real disk and a real clock around `quorate-node`; every rule of the algorithm is below.
//!
//! Three threads (besides the caller's): the *driver* is a task on the caller's tokio runtime, which may be a current-thread
//! one: it orders inputs, steps the node and applies. The *disk thread* writes the log, one sync for all that waits. The
//! *flusher* runs the state machine's jobs.

mod config;
mod disk;
mod driver;
mod error;
mod flusher;
mod handle;
mod identity;
mod inbox;
mod lock;
mod log_thread;
mod metrics;
mod peer;
mod staging;
mod start;
mod status;
#[cfg(test)]
mod testing;
mod work;

pub use config::Config;
pub use disk::DirDisk;
pub use error::{AskError, Fatal, ProposeError, ReadError, Reason, StartError, TransferError};
pub use handle::Handle;
pub use metrics::{BUCKETS, Counter, Gauge, Histogram, HistogramReading, Metrics, PeerMetrics};
pub use peer::asks::Ask;
pub use quorate_base::{Disk, DiskFile, Index, Job, LogId, NodeId, SnapshotReader, StateMachine, Term};
pub use start::{Resources, Running, start, start_with};
pub use status::{PeerStatus, Role, Space, Status};
