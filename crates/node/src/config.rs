//! What a node must be told to start: who it is, its timings, and the bounds of everything that it keeps in memory.

use quorate_base::NodeId;
use quorate_raft::{Limits, Priority};

use crate::event::Nanos;

const MIB: usize = 1 << 20;

/// A node's settings.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Which member this is.
    pub id: NodeId,
    /// Names this run of the node. Must be far from that of every earlier run, since numbers are counted up from it: random.
    pub nonce: u64,
    /// Seeds the timeouts' randomness. Different on every member.
    pub seed: u64,
    /// The leader's heartbeat interval.
    pub heartbeat: Nanos,
    /// The election timeout T: a follower campaigns after T to 2T without a leader.
    pub election: Nanos,
    /// How gladly this member leads.
    pub priority: Priority,
    /// Whether a leader serves reads on the strength of its clock while its lease lasts (§6.4.1). The same on all members. Sound as long as their
    /// clocks' rates differ by less than an eighth.
    pub leases: bool,
    /// What this node claims to understand; at most [`FEATURE_LEVEL`](crate::handshake::FEATURE_LEVEL).
    pub features: u32,
    /// The core's flow control.
    pub limits: Limits,
    /// Length of the longest command.
    pub max_proposal: usize,
    /// Bytes of recent entries kept in memory. What is not yet durable is kept in any case.
    pub cache_bytes: usize,
    /// Bytes of entries in one [`MachineOp::Apply`](crate::event::MachineOp::Apply), and twice that on the way to the state
    /// machine altogether.
    pub apply_bytes: usize,
    /// Bytes of entries in one frame.
    pub frame_bytes: usize,
    /// Proposals that wait for a leader.
    pub max_held: usize,
    /// Bytes of proposals that wait for a leader.
    pub max_held_bytes: usize,
    /// Entries covered by the durable state machine that the log keeps for slow followers.
    pub keep_entries: u64,
    /// Bytes of such entries.
    pub keep_bytes: u64,
    /// Bytes in one piece of a snapshot.
    pub chunk_bytes: usize,
    /// Pieces of a snapshot sent beyond the last one acknowledged.
    pub chunk_window: usize,
    /// Bytes per second of all outgoing snapshots together.
    pub snapshot_rate: u64,
    /// Bytes of entries that the log keeps in any case for a follower that is being sent a snapshot. More of them only while the follower
    /// keeps up a fair pace.
    pub hold_bytes: u64,
}

impl NodeConfig {
    /// The usual settings.
    pub fn new(id: NodeId, nonce: u64, seed: u64) -> NodeConfig {
        NodeConfig {
            id,
            nonce,
            seed,
            heartbeat: 100_000_000,
            election: 1_000_000_000,
            priority: Priority::Normal,
            leases: false,
            features: crate::handshake::FEATURE_LEVEL,
            limits: Limits::default(),
            max_proposal: 3 << 19,
            cache_bytes: 8 * MIB,
            apply_bytes: MIB,
            frame_bytes: MIB,
            max_held: 10_000,
            max_held_bytes: 16 * MIB,
            keep_entries: 50_000,
            keep_bytes: 16 << 20,
            chunk_bytes: 256 << 10,
            chunk_window: 8,
            snapshot_rate: 64 << 20,
            hold_bytes: 256 << 20,
        }
    }
}
