//! Does it keep what the traits promise? Checks to be run against a [`Disk`](quorate_base::Disk), a
//! [`Transport`](quorate::Transport) or a [`StateMachine`](quorate_base::StateMachine) of one's own, crashes at every operation and torn writes included.
//!
//! | what is checked | how |
//! | --- | --- |
//! | a disk does what its methods say | [`disk::contract`] |
//! | what was synced survives, what was not is torn at sectors at the most | [`power::survival`] |
//! | Quorate's log on that disk loses nothing acknowledged | [`log::survival`] |
//! | a transport carries bytes as members need it | [`transport::contract`] |
//! | a state machine is deterministic, its snapshots and durable index are honest, crashes included | [`machine::Checks`] |
//!
//! Where power is to fail, something must be able to cut it: a [`Medium`]. A disk that is built over another disk (one that encrypts,
//! or counts, or caches) gets a [`Stacked`] medium over a [`CrashDisk`]; a medium that can simulate power failures
//! by itself implements the trait. A `CrashDisk` over one's own disk, the other way round, is a simulated crash of what runs on it.
//!
//! Nothing here is random but by seed: the same call does the same each time. A check that fails answers a [`Failure`] that names it.
//!
//! ```
//! use std::sync::Arc;
//! use quorate_conformance::{CrashDisk, Effort, MemDisk, disk, log};
//!
//! // In place of `MemDisk`, your own.
//! disk::contract(|| Ok(Arc::new(MemDisk::new())))?;
//! log::survival(|seed| CrashDisk::over(Arc::new(MemDisk::new()), seed), Effort::quick())?;
//! # Ok::<(), quorate_conformance::Failure>(())
//! ```

mod crash;
pub mod disk;
pub mod log;
pub mod machine;
mod medium;
mod memory;
pub mod power;
mod random;
pub mod transport;

use thiserror::Error;

pub use crash::CrashDisk;
pub use medium::{Effort, Medium, Stacked};
pub use memory::MemDisk;
pub use random::Random;

/// What is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{check}: {what}")]
pub struct Failure {
    /// The check that failed.
    pub check: &'static str,
    /// What was seen.
    pub what: String,
}

/// What was done, when nothing failed: so that one sees that there was something to check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Checks that were made.
    pub checks: u64,
    /// Power failures and cut operations among them.
    pub crashes: u64,
}

/// What a single check answers.
type Outcome = Result<(), String>;

/// Fails a check unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($what:tt)+) => {
        if !$condition {
            return Err(format!($($what)+));
        }
    };
}
use ensure;

/// An operation that must not fail.
fn must<T, E: std::fmt::Display>(what: &str, result: Result<T, E>) -> Result<T, String> {
    result.map_err(|error| format!("cannot {what}: {error}"))
}
