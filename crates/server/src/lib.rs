//! The etcd v3 server: gRPC services, the JSON gateway, health and metrics on one port, over the replicated key-value store.
//!
//! - [`config`]: what a server must be told; [`server`]: starting and stopping one.
//! - [`machine`]: the store as replicated state machine, with its news for the rest.
//! - `grpc`: the services; `http`: the gateway and pages; `listener`: connections; `cork`: what they write, gathered.
//! - `hub`: watch fan-out; `leases`: when leases expire; `members`: who is reachable where; `changes`: how the membership changes;
//!   `asks`: what servers ask each other; `ready`: when a member that has started serves data.
//! - [`recover`]: a new cluster out of what one member still has. [`ids`]: member and cluster ids from URLs.
//! - `errors`, `convert`: between the API's words and ours.
//!
//! No rule of the store and none of Raft is here.
//!
//! Answers follow a real etcd 3.6, code, words and JSON. Where they knowingly differ:
//!
//! - Auth, locks, elections, snapshots, downgrades and `RangeStream` answer `Unimplemented`.
//! - A transaction that deletes from a key to the end of the key space (`range_end` `"\0"`) and puts a key in there is refused as
//!   a duplicate; etcd lets it pass, and can be crashed by it.
//! - A progress request made before all watchers of the stream have caught up is answered when they have; etcd drops it.
//! - The keys of a lease are listed in order; etcd's order is random. Text after `proto:` in JSON errors is our own.
//! - There is no quota: `NOSPACE` is raised when the disk is full. `Defragment` succeeds and does nothing, since freed space is reused.
//! - A member that is added as a voter votes only once it has caught up. So adding one is refused less often, and needs no healthy cluster.
//! - A learner that gets other peer URLs stays a learner in the list; URLs that make no sense are refused, where etcd crashes.

mod asks;
mod changes;
pub mod config;
mod context;
mod convert;
mod cork;
mod errors;
mod grpc;
mod http;
mod hub;
pub mod ids;
mod leases;
mod listener;
pub mod machine;
mod members;
mod ready;
pub mod recover;
pub mod server;
mod space;

pub use config::{API_VERSION, CLUSTER_VERSION, Member, ServerConfig};
pub use machine::KvMachine;
pub use server::{EndError, ServeError, Server, serve, start};
