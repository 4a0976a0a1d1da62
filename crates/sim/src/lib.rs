//! Deterministic simulation of whole clusters.
pub mod coverage;
pub mod disk;
pub mod failure;
pub mod ghost;
pub mod history;
pub mod model;
pub mod net;
pub mod params;
pub mod rng;
pub mod trace;

mod clients;
mod finish;
mod host;
mod nemesis;
mod turn;
mod world;

pub use finish::{Report, run};
