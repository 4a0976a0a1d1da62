//! The etcd v3 server: gRPC services, the JSON gateway, health and metrics on one port, over the replicated key-value store.
//!
//! - [`config`]: what a server must be told; [`server`]: starting and stopping one.
//! - [`machine`]: the store as replicated state machine, with its news for the rest.
//! - `grpc`: the services; `http`: the gateway and pages; `listener`: connections.
//! - `hub`: watch fan-out; `leases`: when leases expire; `members`: who is reachable where; `asks`: what servers ask each other.
//! - `errors`, `convert`: between the API's words and ours.
//!
//! No rule of the store and none of Raft is here.

mod asks;
pub mod config;
mod context;
mod convert;
mod errors;
mod grpc;
mod http;
mod hub;
mod leases;
mod listener;
pub mod machine;
mod members;
pub mod server;
mod space;

pub use config::{API_VERSION, CLUSTER_VERSION, Member, ServerConfig};
pub use machine::KvMachine;
pub use server::{EndError, ServeError, Server, serve, start};
