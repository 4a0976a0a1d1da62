//! What goes through the log: [`Command`] and its answer [`Response`]. The bytes stand in [`crate::codec`], the rules
//! in `apply`.

use bytes::Bytes;
use quorate_base::Term;

use crate::codec;
use crate::error::Error;
use crate::types::{
    Alarm, AlarmAction, AlarmKind, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
    TxnRequest, TxnResponse,
};

/// One replicated command. Whatever needs a clock or chance (lease ids) is decided by the proposer, before the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Writes one key.
    Put(PutRequest),
    /// Deletes keys.
    DeleteRange(DeleteRangeRequest),
    /// A transaction.
    Txn(TxnRequest),
    /// Forgets the history before `revision`.
    Compact {
        /// Reads at older revisions fail from now on.
        revision: i64,
        /// The client waits for the space to be freed: start at once, not with the next flush. See
        /// [`Kv::physically_compacted`](crate::Kv::physically_compacted).
        physical: bool,
    },
    /// Creates a lease. `id` > 0 is chosen by the proposer, `ttl` is raised to the minimum by it
    /// ([`lease::granted_ttl`](crate::lease::granted_ttl)).
    LeaseGrant {
        /// The id.
        id: i64,
        /// Time to live in seconds.
        ttl: i64,
    },
    /// Ends a lease and deletes its keys in one revision.
    LeaseRevoke {
        /// The id.
        id: i64,
        /// `Some` for an expiry: the term of the leader that saw it expire. Void if the entry's term differs, since
        /// another leader may have acknowledged a renewal meanwhile.
        term: Option<Term>,
    },
    /// Lists, raises or clears alarms.
    Alarm {
        /// Which of the three.
        action: AlarmAction,
        /// The member concerned.
        member: u64,
        /// The kind; `None` means all in a `Get`, and is refused by the other actions' semantics (nothing happens).
        kind: Option<AlarmKind>,
    },
}

impl Command {
    /// The bytes for the log.
    pub fn encode(&self) -> Bytes {
        codec::encode(self)
    }

    /// From the bytes of a log entry; keys and values are slices of `bytes`. Total: garbage is an error.
    pub fn decode(bytes: &Bytes) -> Result<Command, Error> {
        codec::decode(bytes).map_err(|e| Error::Malformed(e.to_string()))
    }
}

/// The answer to an applied command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The store's revision after it, for the header.
    pub revision: i64,
    /// The answer proper.
    pub response: Response,
}

/// The answer proper, one kind for each kind of [`Command`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// To a put.
    Put(PutResponse),
    /// To a delete.
    DeleteRange(DeleteRangeResponse),
    /// To a transaction.
    Txn(TxnResponse),
    /// To a compaction.
    Compact,
    /// To a grant.
    LeaseGrant {
        /// The id.
        id: i64,
        /// The granted TTL in seconds.
        ttl: i64,
    },
    /// To a revocation; `void` if it was an expiry seen in another term, and nothing happened.
    LeaseRevoke {
        /// See above.
        void: bool,
    },
    /// The alarms concerned: those listed, raised or cleared.
    Alarm(Vec<Alarm>),
}
