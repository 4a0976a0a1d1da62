//! The requests and responses of the key-value state machine, shaped like the etcd v3 API but free of protobuf: `quorate-server`
//! translates. Data only; the rules stand in [`crate::check`], `range` and `txn`.
//!
//! Revisions, lease ids and counts are `i64`, as on the wire. Keys and values are [`Bytes`], sliced from what arrived,
//! never copied.

use bytes::Bytes;
use quorate_base::Index;

/// One version of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// The revision that created the key (last put after an absence).
    pub create_revision: i64,
    /// The revision of this version.
    pub mod_revision: i64,
    /// How many puts since the creation, this one included; 0 in the event of a deletion.
    pub version: i64,
    /// The value; empty in the event of a deletion and under `keys_only`.
    pub value: Bytes,
    /// The lease attached, 0 for none.
    pub lease: i64,
}

/// How to sort the answer of a range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SortOrder {
    /// By key, ascending; with a target other than the key, ascending by it.
    #[default]
    None,
    /// Smallest first.
    Ascend,
    /// Largest first.
    Descend,
}

/// What to sort the answer of a range by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SortTarget {
    /// The key.
    #[default]
    Key,
    /// The version.
    Version,
    /// The create revision.
    Create,
    /// The mod revision.
    Mod,
    /// The value, bytewise.
    Value,
}

impl SortOrder {
    /// From the number on the wire; `None` for one that etcd does not know (`invalid sort option`).
    pub fn from_wire(n: i32) -> Option<SortOrder> {
        [SortOrder::None, SortOrder::Ascend, SortOrder::Descend]
            .get(usize::try_from(n).ok()?)
            .copied()
    }
}

impl SortTarget {
    /// From the number on the wire; `None` for one that etcd does not know (`invalid sort option`).
    pub fn from_wire(n: i32) -> Option<SortTarget> {
        use SortTarget::{Create, Key, Mod, Value, Version};
        [Key, Version, Create, Mod, Value]
            .get(usize::try_from(n).ok()?)
            .copied()
    }
}

/// Which keys to read, and how to present them.
///
/// `range_end` empty: the one key; `"\0"`: every key from `key` on; else the half-open interval `[key, range_end)`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeRequest {
    /// The first key.
    pub key: Bytes,
    /// The end, see above.
    pub range_end: Bytes,
    /// At most so many keys; ≤ 0 for no limit.
    pub limit: i64,
    /// The revision to read at; ≤ 0 for the latest.
    pub revision: i64,
    /// The order.
    pub sort_order: SortOrder,
    /// What to order by.
    pub sort_target: SortTarget,
    /// Leave the values out.
    pub keys_only: bool,
    /// Only count.
    pub count_only: bool,
    /// Leave out keys last modified before; 0 for no bound.
    pub min_mod_revision: i64,
    /// Leave out keys last modified after; 0 for no bound.
    pub max_mod_revision: i64,
    /// Leave out keys created before; 0 for no bound.
    pub min_create_revision: i64,
    /// Leave out keys created after; 0 for no bound.
    pub max_create_revision: i64,
}

/// The answer to a [`RangeRequest`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeResponse {
    /// The store's revision (not the requested one), for the header.
    pub revision: i64,
    /// What was found.
    pub kvs: Vec<KeyValue>,
    /// Whether the limit left something out.
    pub more: bool,
    /// How many keys the whole range holds, whatever limit and filters say.
    pub count: i64,
}

/// Writes one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PutRequest {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// The lease to attach, 0 for none.
    pub lease: i64,
    /// Answer with the version before.
    pub prev_kv: bool,
    /// Keep the present value.
    pub ignore_value: bool,
    /// Keep the present lease.
    pub ignore_lease: bool,
}

/// The answer to a [`PutRequest`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PutResponse {
    /// The revision of the put.
    pub revision: i64,
    /// The version before, if asked for and present.
    pub prev_kv: Option<KeyValue>,
}

/// Deletes a key or a range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteRangeRequest {
    /// The first key.
    pub key: Bytes,
    /// The end, as in [`RangeRequest`].
    pub range_end: Bytes,
    /// Answer with what was deleted.
    pub prev_kv: bool,
}

/// The answer to a [`DeleteRangeRequest`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteRangeResponse {
    /// The store's revision after it.
    pub revision: i64,
    /// How many keys were deleted.
    pub deleted: i64,
    /// What was deleted, if asked for.
    pub prev_kvs: Vec<KeyValue>,
}

/// How a compare relates the stored to the given operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompareOp {
    /// Stored = given.
    Equal,
    /// Stored > given.
    Greater,
    /// Stored < given.
    Less,
    /// Stored ≠ given.
    NotEqual,
}

/// What a compare looks at, with the given operand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompareTarget {
    /// The version.
    Version(i64),
    /// The create revision.
    Create(i64),
    /// The mod revision.
    Mod(i64),
    /// The value, bytewise.
    Value(Bytes),
    /// The lease.
    Lease(i64),
}

/// One condition of a transaction; with a `range_end` it must hold for every key of the range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// The first key.
    pub key: Bytes,
    /// The end, as in [`RangeRequest`].
    pub range_end: Bytes,
    /// The relation.
    pub op: CompareOp,
    /// The operands.
    pub target: CompareTarget,
}

/// `if` all compares hold `then` success `else` failure, in one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TxnRequest {
    /// The conditions.
    pub compare: Vec<Compare>,
    /// Done if all hold.
    pub success: Vec<RequestOp>,
    /// Done otherwise.
    pub failure: Vec<RequestOp>,
}

impl TxnRequest {
    /// Whether no operation of any branch writes: such a transaction need not go through the log.
    pub fn is_read_only(&self) -> bool {
        self.success.iter().chain(&self.failure).all(|op| match op {
            RequestOp::Range(_) | RequestOp::Empty => true,
            RequestOp::Txn(txn) => txn.is_read_only(),
            RequestOp::Put(_) | RequestOp::DeleteRange(_) => false,
        })
    }

    /// Whether a compare or a read covers more than single keys, and may so take long.
    pub fn reads_ranges(&self) -> bool {
        let wide = |range_end: &Bytes| !range_end.is_empty();
        self.compare.iter().any(|compare| wide(&compare.range_end))
            || self.success.iter().chain(&self.failure).any(|op| match op {
                RequestOp::Range(range) => wide(&range.range_end),
                RequestOp::Txn(txn) => txn.reads_ranges(),
                RequestOp::Put(_) | RequestOp::DeleteRange(_) | RequestOp::Empty => false,
            })
    }

    /// Whether some branch puts a key: such a transaction is refused while the NOSPACE alarm is on.
    pub fn has_put(&self) -> bool {
        self.success.iter().chain(&self.failure).any(|op| match op {
            RequestOp::Put(_) => true,
            RequestOp::Txn(txn) => txn.has_put(),
            RequestOp::Range(_) | RequestOp::DeleteRange(_) | RequestOp::Empty => false,
        })
    }
}

/// One operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestOp {
    /// An operation without content, as clients can send it; refused by [`check`](crate::check) with `key not found`.
    Empty,
    /// A read.
    Range(RangeRequest),
    /// A put.
    Put(PutRequest),
    /// A delete.
    DeleteRange(DeleteRangeRequest),
    /// A nested transaction.
    Txn(Box<TxnRequest>),
}

/// The answer to one [`RequestOp`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResponseOp {
    /// To a read.
    Range(RangeResponse),
    /// To a put.
    Put(PutResponse),
    /// To a delete.
    DeleteRange(DeleteRangeResponse),
    /// To a nested transaction.
    Txn(Box<TxnResponse>),
}

/// The answer to a [`TxnRequest`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TxnResponse {
    /// The store's revision after it.
    pub revision: i64,
    /// Whether the compares held.
    pub succeeded: bool,
    /// The answers of the branch taken, in its order.
    pub responses: Vec<ResponseOp>,
}

/// What is wrong, cluster-wide. The numbers are those of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlarmKind {
    /// The space quota is exceeded: puts, transactions with puts and lease grants are refused.
    NoSpace = 1,
    /// The state is corrupt: everything is refused.
    Corrupt = 2,
}

impl AlarmKind {
    /// From the number on the wire; `None` for 0 (etcd's NONE: "all kinds") and unknown ones.
    pub fn from_wire(n: i32) -> Option<AlarmKind> {
        match n {
            1 => Some(AlarmKind::NoSpace),
            2 => Some(AlarmKind::Corrupt),
            _ => None,
        }
    }
}

/// An alarm raised by a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alarm {
    /// The member.
    pub member: u64,
    /// The kind.
    pub kind: AlarmKind,
}

/// What to do about alarms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlarmAction {
    /// List those of the kind (all if none is given).
    Get,
    /// Raise one.
    Activate,
    /// Clear one: the member's (every member's if 0).
    Deactivate,
}

/// A lease as replicated: its deadline lives in the leader's [`Lessor`](crate::lease::Lessor), not here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The id, positive.
    pub id: i64,
    /// The granted time to live in seconds.
    pub ttl: i64,
    /// The index of the entry that granted it, which tells it from an earlier lease of the same id; zero if the grant was not
    /// [named](crate::level).
    pub grant: Index,
}

/// Whether an event wrote or deleted its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A put.
    Put,
    /// A deletion, explicit or by a revoked lease.
    Delete,
}

/// One change of one key. A deletion's `kv` carries only key and mod revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Put or delete.
    pub kind: EventKind,
    /// Its position within the revision, from 0.
    pub sub: u32,
    /// The key after it.
    pub kv: KeyValue,
    /// The version before it, if there was one. In events read from history: only if asked for and not compacted.
    pub prev_kv: Option<KeyValue>,
}

impl Event {
    /// Whether this is the put that created the key.
    pub fn is_create(&self) -> bool {
        self.kind == EventKind::Put && self.kv.create_revision == self.kv.mod_revision
    }
}
