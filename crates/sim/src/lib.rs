//! Deterministic simulation of whole clusters. Being built.
pub mod disk;
pub mod history;
pub mod model;
pub mod rng;
