//! Coverage marks: a line [`reached!`]`("raft.vote.stale_log")` on a branch that is easily thought of and easily never tested. Tests and
//! the simulator count how often each is reached, and a report names those that never are. No rule of Quorate depends on this crate.
//!
//! Without the feature `count` a mark expands to nothing: no code, no static, and what it would have looked at is not evaluated. That
//! is how the server and the library are built, so that "no globals" holds there to the letter. The feature is a dependency for tests,
//! and of the simulator. It changes no decision of the code around: a mark reads, and counts.
//!
//! Why not a crate like `cov-mark`, or a coverage tool? The first wants a test for each mark; most of ours are reached by random runs,
//! and what is wanted of those is a count, and the names of the marks never reached. The second counts lines, of which most are not worth
//! a look, and knows neither the reason inside a condition (a vote refused: for which of three reasons?) nor a stable name for it.

#[cfg(feature = "count")]
mod count;
#[cfg(feature = "count")]
pub mod sources;

#[cfg(feature = "count")]
pub use count::{Site, hits, take};

/// Counts that this place was reached; with a condition, that it was reached while that held. Names are literals, unique in the
/// workspace, and begin with the crate's: `reached!("wal.torn.cut")`, `reached!("raft.vote.stale_log", last < own)`.
#[cfg(not(feature = "count"))]
#[macro_export]
macro_rules! reached {
    ($name:literal) => {{}};
    ($name:literal, $when:expr) => {{
        // Type-checked, so that it cannot rot, and never evaluated.
        if false {
            let _: bool = $when;
        }
    }};
}

/// Counts that this place was reached; with a condition, that it was reached while that held. Names are literals, unique in the
/// workspace, and begin with the crate's: `reached!("wal.torn.cut")`, `reached!("raft.vote.stale_log", last < own)`.
#[cfg(feature = "count")]
#[macro_export]
macro_rules! reached {
    ($name:literal) => {{
        static SITE: $crate::Site = $crate::Site::new($name);
        SITE.hit();
    }};
    ($name:literal, $when:expr) => {{
        static SITE: $crate::Site = $crate::Site::new($name);
        if $when {
            SITE.hit();
        }
    }};
}
