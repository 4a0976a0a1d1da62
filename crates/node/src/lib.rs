//! Raft's bookkeeping around I/O as one deterministic step function. Being built.
#![allow(missing_docs)]
pub mod event;
pub mod message;
