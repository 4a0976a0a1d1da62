//! Identifiers: term, index, node id, and the pair that names one log entry.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u64);

        impl $name {
            /// Zero: before the first.
            pub const ZERO: $name = $name(0);

            /// The number itself.
            pub const fn get(self) -> u64 {
                self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl From<u64> for $name {
            fn from(n: u64) -> Self {
                $name(n)
            }
        }
    };
}

number! {
    /// A term: Raft's logical clock (Raft paper §5.1). Terms count up from 1; 0 is "before any election".
    Term
}

number! {
    /// The position of an entry in the log. Entries count up from 1; 0 is "before the first entry".
    Index
}

number! {
    /// A member of a cluster. Never 0 for a real member.
    NodeId
}

impl Term {
    /// The term after this one.
    pub const fn next(self) -> Term {
        Term(self.0 + 1)
    }
}

impl Index {
    /// The index after this one.
    pub const fn next(self) -> Index {
        Index(self.0 + 1)
    }

    /// The index before this one; 0 stays 0.
    pub const fn prev(self) -> Index {
        Index(self.0.saturating_sub(1))
    }
}

/// The name of one log entry: its term and its index. By the Log Matching property (paper §5.3) two logs that
/// hold an entry of the same `LogId` hold the same entry, and the same entries before it.
///
/// Ordered by term first, then index: `a >= b` reads "a log ending in `a` is at least as up to date as one ending
/// in `b`" (paper §5.4.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LogId {
    /// The term in which the entry was first appended by a leader.
    pub term: Term,
    /// Its position.
    pub index: Index,
}

impl LogId {
    /// Before the first entry.
    pub const ZERO: LogId = LogId {
        term: Term::ZERO,
        index: Index::ZERO,
    };

    /// The entry of `term` at `index`.
    pub const fn new(term: u64, index: u64) -> LogId {
        LogId {
            term: Term(term),
            index: Index(index),
        }
    }
}

impl fmt::Debug for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for LogId {
    /// `index@term`, for example `17@3`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index, self.term)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_ids_order_by_term_before_index() {
        assert!(
            LogId::new(3, 1) > LogId::new(2, 9),
            "the later term is more up to date (§5.4.1)"
        );
        assert!(
            LogId::new(3, 2) > LogId::new(3, 1),
            "in one term the longer log is"
        );
        assert_eq!(LogId::new(3, 17).to_string(), "17@3");
    }
}
