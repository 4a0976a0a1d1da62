//! The Raft consensus algorithm, deterministic: no I/O, no clock, no threads, no randomness, no payload bytes.
//!
//! A [`Raft`] takes [`Input`]s one at a time ([`Raft::step`]) and hands out [`Effects`]: what to persist, send, apply and
//! answer ([`Raft::take_effects`]). Whoever drives it owns clock, disk and network.
//!
//! Section numbers such as §3.5 are those of Diego Ongaro's thesis "Consensus: Bridging Theory and Practice"; Figure 3.1 there is
//! Figure 2 of the Raft paper, 3.7 is the paper's Figure 8. S-numbers name the invariants that [`invariants`] checks.
//!
//! # Where the rules are
//! | rule | place |
//! | --- | --- |
//! | terms, the higher-term rule, role changes (§3.3) | [`raft`](crate::Raft) |
//! | one vote a term, log up to date, pre-vote, stickiness (§3.4, §3.6.1, §9.6, §4.2.3) | `election` |
//! | candidates (§3.4) | `role::candidate` |
//! | asking for votes before the election timer runs out | `haste` |
//! | AppendEntries at the receiver: matching, conflicts, commit (§3.5) | `role::follower` |
//! | replication, commitment of own-term entries, check-quorum (§3.5, §3.6.2, §6.2) | `role::leader` |
//! | membership changes, learners, stepping down (§4) | [`config`], `role::membership` |
//! | leadership transfer and priority (§3.10) | `role::transfer` |
//! | what a peer has, pipelining (§10.2.1) | `progress` |
//! | persist before answering (§3.8) | `durability` |
//! | majorities, joint too (§4.3) | [`quorum`] |
//! | linearizable reads, by rounds and by lease (§6.4) | `read` |
//! | InstallSnapshot (§5.3) | `snapshot` |
//! | the log's terms and configurations (§3.5, §4.1) | [`log`] |
//!
//! # For checkers only
//! The feature `check` (off in everything that is shipped; on for this crate's own tests and the model checker) adds what brings two cores
//! that will do the same into one form: `Raft::rename`, `Raft::renumber`, `Raft::forget_repetitions`, `Raft::forget_haste_steps`. It
//! changes no rule, and adds no field.
//!
//! # Glossary
//! *Term*: the logical clock; at most one leader each. *Index*: a position in the log. *Log id*: term and index, naming
//! an entry. *Commit index*: up to here entries can never be lost. *Applied index*: up to here the state machine is. *Durable
//! index*: up to here this node's disk has the log. *Match index*: up to here a peer's log is known to equal the leader's, durably.
//! *Next index*: the next entry to send to a peer. *Verified*: up to here a follower found its log equal to its leader's. *Voter*,
//! *learner*: members that count, and that only receive. *Joint configuration*: old and new voters, both majorities needed.
//! *Round*: a heartbeat to all, whose answers by a quorum confirm that the leader still leads. *Fresh leader*: heard of within
//! the minimum election timeout. *Base*: the last entry that the log no longer holds because a snapshot covers it.

pub mod config;
mod core;
mod durability;
pub mod effects;
mod election;
mod haste;
pub mod invariants;
pub mod log;
pub mod message;
mod progress;
pub mod quorum;
mod raft;
mod read;
#[cfg(feature = "check")]
mod rename;
#[cfg(feature = "check")]
mod renumber;
mod role;
mod snapshot;
mod status;

pub use crate::config::{BadChange, Change, Config, Promote};
pub use crate::core::{Limits, Restored};
pub use crate::effects::{
    Arm, ChangeEnd, ChangeRefused, Effects, HardState, Input, Outgoing, Placed, Range, Refused, SnapMeta,
    Timer, Write, WriteId,
};
pub use crate::log::Log;
pub use crate::message::{Body, EntryShape, Message, Priority, Round};
pub use crate::raft::Raft;
#[cfg(feature = "check")]
pub use crate::rename::Names;
#[cfg(feature = "check")]
pub use crate::renumber::Renumbered;
pub use crate::role::RoleKind;
pub use crate::status::PeerStatus;
