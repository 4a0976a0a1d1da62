//! Model checking of `quorate-raft` itself: the shipped core, not a copy and not a specification, stepped through every order of events that
//! is possible within bounds, with the invariants S1 to S14 checked in every state and over every step.
//!
//! A state of the model ([`state`]) is a cluster: per node the core and its driver's disk, writes on their way, state machine and timers
//! ([`node`]); the network as a set of messages from which nothing is ever taken ([`cluster`]); a record of what was committed
//! and who led ([`ghost`]); and how much may still happen ([`state::Bounds`]). All of it is in the fingerprint. Stateright's checkers do the
//! searching, breadth first or depth first ([`search`]), from empty logs and from a corpus of states that are hard to come by ([`script`],
//! and the folder `corpus`): small bounds would never get to them.
//!
//! What is not here: bytes (that is `quorate-wal`), time (timers fire in any order, so lease reads cannot be judged), and liveness. The
//! simulator has those.

pub mod action;
pub mod cluster;
mod conduct;
pub mod disk;
pub mod ghost;
pub mod hunt;
pub mod kind;
mod members;
pub mod node;
pub mod parcel;
pub mod report;
pub mod script;
pub mod search;
pub mod shorten;
pub mod situation;
pub mod state;
mod step;
mod symmetry;
mod tables;
pub mod view;
pub mod walk;
