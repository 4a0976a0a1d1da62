//! Deterministic simulation of whole clusters. Being built.
pub mod disk;
pub mod rng;
