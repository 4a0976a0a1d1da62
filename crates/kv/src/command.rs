//! What goes through the log: [`Command`] and its answer [`Response`]. The bytes stand in [`crate::codec`], the rules
//! in `apply`.

use bytes::Bytes;
use quorate_base::{Index, Term};

use crate::codec;
use crate::error::Error;
use crate::lease::Expired;
use crate::level;
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
        /// The lease remembers the index of this entry as its [`grant`](crate::Lease::grant), which no other grant of the same id shares.
        /// Not all releases can read it: see [`Command::grant`].
        named: bool,
    },
    /// Ends a lease and deletes its keys in one revision.
    LeaseRevoke {
        /// The id.
        id: i64,
        /// `Some` for an expiry, which can be void.
        expiry: Option<Expiry>,
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

/// What a leader knew of a lease that it saw expire. The revocation is void where that no longer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// The leader's term. Void if the entry's term differs, since another leader may have acknowledged a renewal meanwhile.
    pub term: Term,
    /// The [`grant`](crate::Lease::grant) of the lease. Void if the lease has another, since a client may have revoked it and taken the
    /// same id anew before this entry. `None`: not named, whatever has the id ends. Not all releases can read a named one:
    /// see [`Command::expiry`].
    pub grant: Option<Index>,
}

impl Command {
    /// A grant, in the form for the cluster's feature level.
    pub fn grant(level: u32, id: i64, ttl: i64) -> Command {
        let named = level >= level::NAMED_GRANTS;
        Command::LeaseGrant { id, ttl, named }
    }

    /// The expiry of a lease as seen by the leader of `term`, in the form for the cluster's feature level. A lease granted before that level
    /// has no name; the expiry then says so, and spares one that was granted under a name since.
    pub fn expiry(level: u32, term: Term, expired: Expired) -> Command {
        let grant = (level >= level::NAMED_GRANTS).then_some(expired.grant);
        Command::LeaseRevoke {
            id: expired.id,
            expiry: Some(Expiry { term, grant }),
        }
    }

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
    /// To a revocation; `void` if it was an expiry seen in another term or of another grant, and nothing happened.
    LeaseRevoke {
        /// See above.
        void: bool,
    },
    /// The alarms concerned: those listed, raised or cleared.
    Alarm(Vec<Alarm>),
}
