//! Replicate a state machine with Raft.
//!
//! Implement [`StateMachine`], [`start`] a node on every machine, and [`propose`](Handle::propose) commands to any of them:
//! each is applied on all nodes in the same order, and answered only when it will never be lost. This crate puts threads,
//! sockets, a real disk and a real clock around `quorate-node`; every rule of the algorithm is below.
//!
//! Three threads (besides the caller's): the *driver* is a task on the caller's tokio runtime, which may be a current-thread
//! one: it orders inputs, steps the node and applies. The *disk thread* writes the log, one sync for all that waits. The
//! *flusher* runs the state machine's jobs.
//!
//! ```
//! use quorate::{Config, Index, LogId, NodeId, SnapshotReader, StateMachine};
//!
//! /// Counts the commands. Kept in memory only: after a restart the log is applied again from its beginning.
//! struct Counter(LogId, u64);
//!
//! impl StateMachine for Counter {
//!     type Output = u64;
//!     fn apply(&mut self, at: LogId, _command: &bytes::Bytes) -> u64 {
//!         (self.0, self.1) = (at, self.1 + 1);
//!         self.1
//!     }
//!     fn skip(&mut self, at: LogId) {
//!         self.0 = at;
//!     }
//!     fn applied(&self) -> LogId {
//!         self.0
//!     }
//!     fn durable(&self) -> Index {
//!         Index::ZERO
//!     }
//!     // A machine that is never durable never lets the log shrink, so nobody is ever sent a snapshot.
//!     fn snapshot(&self) -> std::io::Result<Box<dyn SnapshotReader>> {
//!         Err(std::io::ErrorKind::Unsupported.into())
//!     }
//!     fn restore(&mut self, _at: LogId, _source: &mut dyn std::io::Read) -> std::io::Result<()> {
//!         Err(std::io::ErrorKind::Unsupported.into())
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = std::env::temp_dir().join(format!("quorate-doc-{}", std::process::id()));
//! let members = [(NodeId(1), "127.0.0.1:7001".to_owned())].into();
//! let config = Config::new(NodeId(1), 42, "one", members, &dir);
//! let (node, running) = quorate::start(config, |_disk| Ok(Counter(LogId::ZERO, 0))).await?;
//! assert_eq!(node.propose("count me".into()).await?, 1);
//! assert_eq!(node.read(|counter| counter.1).await?, 1);
//! node.shutdown().await;
//! running.await?;
//! # std::fs::remove_dir_all(dir)?;
//! # Ok(())
//! # }
//! ```

mod boots;
mod builder;
mod checkpoint;
mod config;
mod disk;
mod driver;
mod error;
mod flusher;
mod handle;
mod identity;
mod inbox;
mod join;
mod lock;
mod log_thread;
mod membership;
mod metrics;
mod peer;
mod session;
mod staging;
mod start;
mod status;
#[cfg(test)]
mod testing;
mod work;

pub use builder::Builder;
pub use checkpoint::{Checkpointed, Frozen, State};
pub use config::Config;
pub use disk::DirDisk;
pub use error::{
    AskError, ChangeError, ChangeRefusal, Fatal, ProposeError, ReadError, Reason, StartError, TransferError,
};
pub use handle::Handle;
pub use join::{JoinError, Joined, join};
pub use membership::{Member, MemberChange, Membership};
pub use metrics::{BUCKETS, Counter, Gauge, Histogram, HistogramReading, Metrics, PeerMetrics};
pub use peer::asks::Ask;
pub use quorate_base::{Disk, DiskFile, Index, Job, LogId, NodeId, SnapshotReader, StateMachine, Term};
pub use quorate_raft::{Priority, Promote};
pub use session::{
    Answer, NotACommand, Session, SessionCommand, SessionError, SessionId, SessionTable, Sessions,
};
pub use start::{Owner, Resources, Running, owner, start, start_with};
pub use status::{PeerStatus, Role, Space, Status};
