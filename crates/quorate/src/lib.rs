//! Replicate a state machine with Raft.
//!
//! Write down what your service remembers as a [`State`], start a node on every machine with [`Builder`], and
//! [`propose`](Handle::propose) commands to any of them: each is applied on all nodes in the same order, and answered only when it will
//! never be lost. This crate puts threads, sockets, a real disk and a real clock around `quorate-node`; every rule of the
//! algorithm is below. The guide is `docs/embedding.md`.
//!
//! ```
//! use quorate::{Builder, Checkpointed, LogId, NodeId, State};
//!
//! /// Counts the commands.
//! #[derive(Default)]
//! struct Counter(u64);
//!
//! impl State for Counter {
//!     type Output = u64;
//!     fn apply(&mut self, _at: LogId, _command: &bytes::Bytes) -> u64 {
//!         self.0 += 1;
//!         self.0
//!     }
//!     fn save(&self) -> Vec<u8> {
//!         self.0.to_le_bytes().to_vec()
//!     }
//!     fn load(&mut self, saved: &[u8]) -> std::io::Result<()> {
//!         self.0 = u64::from_le_bytes(saved.try_into().map_err(std::io::Error::other)?);
//!         Ok(())
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = std::env::temp_dir().join(format!("quorate-doc-{}", std::process::id()));
//! let (node, running) = Builder::new(NodeId(1), 42, &dir)
//!     .member(NodeId(1), "127.0.0.1:7001")
//!     .start(|disk| Checkpointed::open(disk, Counter::default()))
//!     .await?;
//! assert_eq!(node.propose("count me".into()).await?, 1);
//! assert_eq!(node.read(|counter| counter.0).await?, 1);
//! node.shutdown().await;
//! running.await?;
//! # std::fs::remove_dir_all(dir)?;
//! # Ok(())
//! # }
//! ```
//!
//! | what | where |
//! | --- | --- |
//! | a state in memory, made durable | [`State`], [`Checkpointed`] |
//! | a state machine with storage of its own | [`StateMachine`], [`Disk`] |
//! | connections of its own | [`Transport`] |
//! | starting a node | [`Builder`], or [`Config`] and [`start`]; [`join`] a running cluster |
//! | proposing, reading, handing leadership over, stopping | [`Handle`] |
//! | errors that tell "not done" from "unknown" | [`ProposeError`], [`ChangeError`] |
//! | executing exactly once | [`Session`], [`Sessions`], [`SessionTable`] |
//! | who belongs to the cluster | [`Handle::change_membership`], [`Membership`] |
//! | who leads, and what is connected | [`Handle::subscribe`], [`Status`] |
//! | how it fares | [`Handle::metrics`], [`Metrics`] |
//! | why a node has ended | [`Running`], [`Fatal`] |
//!
//! Three threads (besides the caller's): the *driver* is a task on the caller's tokio runtime, which may be a current-thread
//! one: it orders inputs, steps the node and applies. The *disk thread* writes the log, one sync for all that waits. The
//! *flusher* runs the state machine's jobs.

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
mod opened;
mod peer;
pub mod recover;
mod refused;
mod session;
mod staging;
mod start;
mod status;
#[cfg(test)]
mod testing;
mod transport;
mod work;

pub use builder::Builder;
pub use checkpoint::{Checkpointed, Frozen, State};
pub use config::Config;
pub use disk::DirDisk;
pub use error::{
    AskError, ChangeError, ChangeRefusal, Fatal, ProposeError, ReadError, Reason, StartError, TransferError,
};
pub use handle::Handle;
pub use join::{JoinError, Joined, join, join_over};
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
pub use transport::{Accepted, Connecting, Stream, TcpTransport, Transport};

/// The code in the guides is compiled, and run where it can be.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/embedding.md")]
struct EmbeddingGuide;

#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
