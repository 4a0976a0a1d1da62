//! The server seen by a client: real sockets, in one process. One module for each concern; what they share is in `support`.

mod cluster;
mod gateway;
mod kv;
mod lease;
mod limits;
mod membership;
mod support;
mod watch;
