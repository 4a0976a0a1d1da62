//! What the tests share: a disk, a model, random requests.
#![allow(dead_code, missing_docs)]

pub mod disk;
pub mod model;
pub mod strategy;
