//! Deterministic simulation of whole clusters: the production node, log and store on simulated disks, links and clocks, under
//! faults, with every invariant checked after every step. One seed is one run, the same on every machine.
//!
//! | what | where |
//! | --- | --- |
//! | what a seed decides | [`params`], and [`rng`], the only source of chance |
//! | virtual time and its queue; machines; one turn of a node | `world`, `host`, `turn` |
//! | disks that forget, networks that lose | [`disk`], [`net`] |
//! | faults, and the proof that they struck | `nemesis`, [`coverage`] |
//! | requests | `clients` |
//! | what must hold after every step | [`ghost`] |
//! | what clients may see | [`history`], against [`model`] |
//! | healing, liveness, verdict | `finish` ([`run`], [`Report`]) |
//! | how runs fail, what they show | [`failure`], [`trace`] |
//!
//! What is simulated is what a driver does: threads become events at random moments, so every order that the production
//! driver could produce is one that the simulator may choose. No rule of the algorithm is here.

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
