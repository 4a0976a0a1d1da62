//! Why a request was refused: one enum whose `Display` is etcd's text, prefix included, since clients compare strings,
//! and the status code that belongs to it. And [`Damage`], which ends the process.

use std::ops::Range;

use thiserror::Error;

/// What to do about a store that must not be used; part of messages.
pub(crate) const REMEDY: &str = "This member cannot go on with it: replace the member, or remove it from the cluster and let it join again with an \
                                 empty data directory, never empty under its old identity";

/// A place in the store's file that does not hold what was written there last. Comes as the inner error of an [`std::io::Error`] of kind
/// [`InvalidData`](std::io::ErrorKind::InvalidData).
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "the file `{file}` is damaged at bytes {} to {}: {why}. {REMEDY}",
    .bytes.start, .bytes.end - 1
)]
pub struct Damage {
    /// The file's name.
    pub file: String,
    /// Which bytes of it.
    pub bytes: Range<u64>,
    /// What is wrong with them.
    pub why: String,
}

/// The gRPC status code of an [`enum@Error`], by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// 3
    InvalidArgument,
    /// 5
    NotFound,
    /// 8
    ResourceExhausted,
    /// 9
    FailedPrecondition,
    /// 11
    OutOfRange,
    /// 13
    Internal,
    /// 15
    DataLoss,
}

/// Why a request was refused. Part of the replicated answer: equal on every node.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// The key is empty.
    #[error("etcdserver: key is not provided")]
    EmptyKey,
    /// `ignore_value` or `ignore_lease` on a missing key, or an empty operation in a transaction.
    #[error("etcdserver: key not found")]
    KeyNotFound,
    /// `ignore_value` together with a value.
    #[error("etcdserver: value is provided")]
    ValueProvided,
    /// `ignore_lease` together with a lease.
    #[error("etcdserver: lease is provided")]
    LeaseProvided,
    /// More than 128 operations.
    #[error("etcdserver: too many operations in txn request")]
    TooManyOps,
    /// A key put twice, or put and deleted, in one branch.
    #[error("etcdserver: duplicate key given in txn request")]
    DuplicateKey,
    /// A sort order or target that does not exist.
    #[error("etcdserver: invalid sort option")]
    InvalidSortOption,
    /// The revision asked for is compacted.
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted,
    /// The revision asked for does not exist yet.
    #[error("etcdserver: mvcc: required revision is a future revision")]
    FutureRevision,
    /// A time to live above 9,000,000,000 seconds.
    #[error("etcdserver: too large lease TTL")]
    LeaseTtlTooLarge,
    /// The lease does not exist.
    #[error("etcdserver: requested lease not found")]
    LeaseNotFound,
    /// A lease of this id exists.
    #[error("etcdserver: lease already exists")]
    LeaseExists,
    /// The NOSPACE alarm is on.
    #[error("etcdserver: mvcc: database space exceeded")]
    NoSpace,
    /// The CORRUPT alarm is on.
    #[error("etcdserver: corrupt cluster")]
    Corrupt,
    /// The entry in the log is no command this version understands. Means a bug or a mixed-version cluster.
    #[error("etcdserver: malformed command: {0}")]
    Malformed(String),
    /// The store could not be read, on this node; only reads answer so.
    #[error("etcdserver: store: {0}")]
    Storage(String),
}

impl Error {
    /// The status code that goes with it.
    pub fn code(&self) -> Code {
        match self {
            Error::EmptyKey
            | Error::KeyNotFound
            | Error::ValueProvided
            | Error::LeaseProvided
            | Error::TooManyOps
            | Error::DuplicateKey
            | Error::InvalidSortOption => Code::InvalidArgument,
            Error::Compacted | Error::FutureRevision | Error::LeaseTtlTooLarge => Code::OutOfRange,
            Error::LeaseNotFound => Code::NotFound,
            Error::LeaseExists => Code::FailedPrecondition,
            Error::NoSpace => Code::ResourceExhausted,
            Error::Corrupt => Code::DataLoss,
            Error::Malformed(_) | Error::Storage(_) => Code::Internal,
        }
    }
}
