//! The watch hub against the plain definition of a watch: every watcher gets exactly the events that match, in order, no revision split.

#[path = "../support/mod.rs"]
mod support;

mod directed;
mod random;
