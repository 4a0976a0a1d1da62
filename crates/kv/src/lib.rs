//! The etcd v3 key-value state machine: deterministic, clock-fed, and free of I/O but for [`quorate_base::Disk`].
//!
//! - [`command`], [`types`], [`error`]: what is asked and answered; [`check`]: what can be refused without the state.
//! - [`level`]: what waits for a feature level of the cluster, so that mixed releases apply alike.
//! - [`kv`]: [`Kv`], the state machine; [`picture`]: its state as of one moment, for long reads elsewhere.
//! - [`layout`]: where what stands in the store's file.
//! - [`watch`]: [`Hub`](watch::Hub), which events go to which watcher; [`lease`]: [`Lessor`](lease::Lessor), when leases expire;
//!   [`office`]: [`Office`](office::Office), what a leader may say and do about them.
//!
//! Nothing here knows Raft, sockets, protobuf or the time.

mod anew;
mod apply;
mod backend;
mod chain;
pub mod check;
mod checked;
pub mod codec;
pub mod command;
mod cover;
pub mod error;
mod flush;
mod hash;
mod interval;
pub mod kv;
pub mod layout;
pub mod lease;
pub mod level;
mod meta;
mod migrate;
pub mod office;
pub mod picture;
mod range;
mod row;
mod snapshot;
mod store;
mod table;
mod txn;
pub mod types;
mod view;
pub mod watch;
mod wire;
mod witness;

pub use command::{Applied, Command, Expiry, Response};
pub use error::{Code, Damage, Error};
pub use kv::{EventBatch, HashKv, History, Kv, Options, Size};
pub use picture::Picture;
pub use types::*;
