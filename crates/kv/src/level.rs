//! What waits for a feature level of the cluster: entries that an earlier release would not read, or would apply differently, are
//! written only once every member is known to understand them.
//!
//! The level decides what a proposer may write, and nothing else. How an entry applies is decided by its form alone, because not
//! all who apply an entry know the level at it: a member that joins a cluster is given the log from the start, before the first
//! configuration in it, and so is whoever replays a log without its node. An entry applied so means the same to all of them,
//! and a log written by an earlier release means what it meant to that release.
//!
//! A proposer that has not yet applied the entry that raised the level still writes the old forms. They are read for ever.

/// From this level on grants are [named](crate::Command::LeaseGrant::named), and the expiry of a lease names the grant it is about.
/// Releases of lower levels cannot read either.
pub const NAMED_GRANTS: u32 = 2;

/// From this level on a transaction may put a key and delete an open range (`range_end` `"\0"`) that covers it. Releases of lower levels refuse
/// it when they apply it; no log that they wrote holds one, since they refuse it before proposing too. See
/// [`TxnRequest::check_at`](crate::TxnRequest::check_at).
pub const OPEN_DELETES: u32 = 2;
