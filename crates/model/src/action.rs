//! What can happen in one step of the model, and how it is written: one line an action, which can be read back.

use std::fmt;

use quorate_base::{Index, NodeId};
use quorate_raft::Timer;

/// The number of a parcel, unique within one model.
pub type ParcelId = u32;

/// One thing that happens to one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Action {
    /// The node.
    pub at: NodeId,
    /// What happens.
    pub what: Stimulus,
    /// What the node's surroundings do about it.
    pub how: How,
}

/// What happens to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stimulus {
    /// A timer that runs fires.
    Fire(Timer),
    /// A parcel arrives. If it is a request for a vote and the node counts on a live leader, its freshness timer has run out just before.
    Deliver(ParcelId),
    /// The disk is done with the oldest so many writes.
    Persist(u8),
    /// A client's command, whose payload this is.
    Propose(u8),
    /// A linearizable read, under a number.
    Read(u8),
    /// Crash and restart from the durable image, which the oldest so many unfinished writes have still reached.
    Restart(u8),
    /// The machine is made durable and the log compacted, but for so many of the last applied entries.
    Compact(u8),
    /// The machine is made durable.
    Flush,
    /// A change of the membership, by its place in the menu.
    Change(u8),
    /// Leadership is to go elsewhere.
    Transfer(Option<NodeId>),
    /// The disk hangs.
    Stall,
    /// The node hears that the process of the leader it follows is gone.
    Hint,
    /// A connection is up again.
    Reachable(NodeId),
    /// An Append was not sent.
    NotSent(NodeId, Index),
    /// A snapshot did not get through, and its sender hears of that.
    SnapshotLost(NodeId),
    /// The log has been read for the oldest Append that waited for it.
    Fill(NodeId),
}

/// How a node's surroundings go on after a stimulus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum How {
    /// At once: effects are taken, the disk and the machine do their work, until nothing is left to do.
    Settled,
    /// The disk takes its time.
    SlowDisk,
    /// The effects are not taken before the node's next input.
    Batched,
    /// The payloads of Appends have to be read from the log first.
    Cold,
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            How::Settled => "",
            How::SlowDisk => ", slow disk",
            How::Batched => ", batched",
            How::Cold => ", cold log",
        })
    }
}

/// A timer's name.
pub(crate) fn timer_name(timer: Timer) -> &'static str {
    match timer {
        Timer::Election => "election",
        Timer::Fresh => "fresh",
        Timer::Heartbeat => "heartbeat",
        Timer::Quorum => "quorum",
        Timer::Transfer => "transfer",
        Timer::Read => "read",
        Timer::Haste => "haste",
    }
}

/// All timers, in the order of their bits.
pub(crate) const TIMERS: [Timer; 7] = [
    Timer::Election,
    Timer::Fresh,
    Timer::Heartbeat,
    Timer::Quorum,
    Timer::Transfer,
    Timer::Read,
    Timer::Haste,
];

impl Stimulus {
    /// The words for it; `parcel` writes the one that is delivered.
    pub(crate) fn words(&self, parcel: impl FnOnce(ParcelId) -> String) -> String {
        match self {
            Stimulus::Fire(timer) => format!("fires {}", timer_name(*timer)),
            Stimulus::Deliver(id) => format!("gets {}", parcel(*id)),
            Stimulus::Persist(count) => format!("persists {count}"),
            Stimulus::Propose(payload) => format!("proposes {payload}"),
            Stimulus::Read(token) => format!("reads {token}"),
            Stimulus::Restart(survive) => format!("restarts with {survive} more writes"),
            Stimulus::Compact(keep) => format!("compacts but {keep}"),
            Stimulus::Flush => "flushes the machine".into(),
            Stimulus::Change(menu) => format!("changes the membership by {menu}"),
            Stimulus::Transfer(None) => "transfers to the best".into(),
            Stimulus::Transfer(Some(to)) => format!("transfers to n{to}"),
            Stimulus::Stall => "stalls".into(),
            Stimulus::Hint => "is told that its leader is dead".into(),
            Stimulus::Reachable(peer) => format!("reaches n{peer} again"),
            Stimulus::NotSent(to, first) => format!("did not send n{to} from {first} on"),
            Stimulus::SnapshotLost(to) => format!("loses the snapshot to n{to}"),
            Stimulus::Fill(to) => format!("reads the log for n{to}"),
        }
    }
}
