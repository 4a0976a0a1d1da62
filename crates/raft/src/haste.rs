//! Asking for votes sooner than the election timer says, where waiting is for nothing: when a node starts, when a connection comes up while
//! nobody leads, and on the word that the leader's process is gone. Only the pace is decided here. Who may campaign and who gets a vote
//! stands in `election`, and the election timer runs on beside this, so that whatever goes wrong here costs time and nothing else.
//!
//! Time goes by in steps ([`Timer::Haste`]). Members wait according to their rank, so that one asks before the others; it asks again after 1, 1, 2,
//! 2, 4, ... steps, since others may not have heard yet what it has; and after [`ASKINGS`] times all is as usual. Whoever is asked by another stands
//! back for a while. Off with lease reads, which count on nobody being in haste (§6.4.1).

use quorate_base::{LogId, NodeId};
use quorate_marks::reached;

use crate::core::Core;
use crate::effects::{Arm, Timer};
use crate::message::Priority;

/// How often a node asks again in one haste.
const ASKINGS: u32 = 10;
/// Steps between the ranks: one may ask twice before the next one begins.
const STRIDE: u32 = 2;
/// Steps for which one stands back that has let another go first, or was refused; longer when it has asked before. Enough for the other to
/// campaign, which takes two writes to disks.
const STAND_BACK: u32 = 10;

/// A node in haste.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Haste {
    /// Steps to wait before it asks (again).
    wait: u32,
    /// How often it has asked.
    asked: u32,
}

/// The process of this leader is gone: the best of the others should ask at once. Whether that is this node.
pub(crate) fn begin_without(core: &mut Core, leader: NodeId) -> bool {
    let wait = STRIDE * rank(core, Some(leader));
    begin(core, wait) && wait == 0
}

/// There is no leader, and somebody may be there to vote for this one: soon, and not at once, since others may find out the same.
pub(crate) fn begin_soon(core: &mut Core) {
    let wait = 1 + STRIDE * rank(core, None);
    begin(core, wait);
}

/// Returns whether this node was not in haste before and is now.
fn begin(core: &mut Core, wait: u32) -> bool {
    reached!("raft.haste.under_way", core.haste.is_some());
    reached!("raft.haste.off_with_leases", core.leases);
    reached!("raft.haste.disk_stalled", core.stalled);
    reached!("raft.haste.no_voter", !core.may_campaign());
    if core.haste.is_some() || core.leases || core.stalled || !core.may_campaign() {
        return false;
    }
    core.haste = Some(Haste { wait, asked: 0 });
    core.arm(Timer::Haste, Arm::Set);
    true
}

/// How many of the voters ask before this one: those with lower ids, and all others before one that would rather not lead.
fn rank(core: &Core, gone: Option<NodeId>) -> u32 {
    let shy = core.priority == Priority::Low;
    let others = core.other_voters().into_iter();
    let before = others.filter(|id| Some(*id) != gone && (shy || *id < core.id));
    u32::try_from(before.count()).unwrap_or(u32::MAX / STRIDE)
}

/// A leader was heard of, a vote was given, or this node leads: there is time.
pub(crate) fn end(core: &mut Core) {
    if core.haste.take().is_some() {
        core.arm(Timer::Haste, Arm::Off);
    }
}

/// A step has passed. Whether it is time to ask.
pub(crate) fn is_due(core: &mut Core) -> bool {
    let Some(haste) = &mut core.haste else {
        return false;
    };
    haste.wait = haste.wait.saturating_sub(1);
    if haste.wait > 0 {
        core.arm(Timer::Haste, Arm::Set);
    }
    core.haste.is_some_and(|haste| haste.wait == 0)
}

/// This node has asked, and will ask again in a while; after the last time its haste is over.
pub(crate) fn asked(core: &mut Core) {
    let Some(haste) = &mut core.haste else { return };
    if haste.asked == ASKINGS {
        reached!("raft.haste.asked_enough");
        return end(core);
    }
    haste.wait = 1 << (haste.asked / 2);
    haste.asked += 1;
    core.arm(Timer::Haste, Arm::Set);
}

/// Somebody else may be elected now, or this node was not: it waits longer.
pub(crate) fn stand_back(core: &mut Core) {
    let Some(haste) = &mut core.haste else { return };
    if haste.asked == ASKINGS {
        reached!("raft.haste.stood_back_enough");
        return end(core);
    }
    reached!("raft.haste.stands_back");
    haste.wait = haste.wait.max(STAND_BACK << (haste.asked / 2).min(2));
    core.arm(Timer::Haste, Arm::Set);
}

/// While this node campaigns no steps are counted.
pub(crate) fn suspend(core: &mut Core) {
    if core.haste.is_some() {
        reached!("raft.haste.suspended");
        core.arm(Timer::Haste, Arm::Off);
    }
}

/// See [`Raft::forget_haste_steps`](crate::Raft::forget_haste_steps).
#[cfg(feature = "check")]
pub(crate) fn forget_steps(core: &mut Core) {
    core.haste = core.haste.map(|_| Haste { wait: 0, asked: 0 });
}

/// Whether a pre-candidate in haste gives up its own attempt for `other`, who is at least as good and has asked for its pre-vote. Else both might
/// get what they ask for, and split the vote. The longer log goes first, then the lower id.
pub(crate) fn gives_way(core: &Core, other: NodeId, last: LogId) -> bool {
    let own = core.log.last();
    reached!("raft.haste.meets_better_log", core.haste.is_some() && last > own);
    reached!("raft.haste.meets_equal_log", core.haste.is_some() && last == own);
    core.haste.is_some()
        && core.log.config().is_voter(other)
        && (last > own || (last == own && other < core.id))
}
