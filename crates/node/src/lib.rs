//! One Raft node around the pure core of `quorate-raft`: a deterministic step function. An [`Event`] goes in, [`Effects`] come
//! out; disk, network, clock and state machine are the driver's. Two drivers exist, the runtime in `quorate` and the
//! simulator in `quorate-sim`, and both run exactly this code.
//!
//! | what | where |
//! | --- | --- |
//! | the boundary | [`event`], [`message`] |
//! | starting from the log's records | [`Boot`] |
//! | events to inputs, the core's effects to the parts | [`Node`] |
//! | recent bodies; filling ranges; cold reads | `tail`, `fill` |
//! | committed to applied | `apply` |
//! | proposals, reads and membership changes up to their answers | `proposals`, `reads`, `changes` |
//! | the leader's clock | `lease` |
//! | what stands in a configuration about a member | [`about`] |
//! | snapshots out and in | `snapshot` |
//! | client sessions, for state machines that have them | [`session`] |
//! | log writes, compaction marks | `writes` |
//! | timers and their randomness | `timers` |
//! | bytes: frames, first words, entries, other records | [`wire`], [`handshake`], [`entry`], [`stored`] |
//! | what is remembered of the peers | [`roster`] |

pub mod about;
mod apply;
mod boot;
mod changes;
mod codec;
mod config;
pub mod entry;
pub mod event;
mod fill;
pub mod handshake;
mod lease;
pub mod message;
mod node;
mod outbox;
mod proposals;
mod reads;
pub mod roster;
mod seen;
pub mod session;
mod snapshot;
mod status;
pub mod stored;
mod tail;
mod timers;
pub mod wire;
mod writes;

pub use about::About;
pub use boot::{Boot, BootError, Survey};
pub use changes::MEMBERSHIP_LEVEL;
pub use codec::DecodeError;
pub use config::NodeConfig;
pub use event::{
    ChangeFailure, Effects, Event, Failure, LogOp, MachineOp, Reason, SnapshotOp, StageOp, ToApply,
};
pub use message::{PeerMessage, RequestId, SnapshotOutcome};
pub use node::Node;
pub use snapshot::staging;
pub use snapshot::staging::Staging;
pub use snapshot::transfer_in;
pub use status::Status;
