//! What can happen in a state: to each node by itself, and by what is on the network; in which ways; and what each takes from the bounds.

use std::collections::BTreeSet;

use quorate_base::{Index, NodeId};
use quorate_raft::{RoleKind, Timer};

use super::Cluster;
use crate::action::{Action, How, Stimulus};
use crate::ghost::Ghost;
use crate::node::{Node, Rules};
use crate::state::{Bounds, NOBODY, State};
use crate::tables::{Known, Tables};

impl Cluster {
    /// In which ways something may happen to a node within the bounds: in none if nothing comes of it.
    pub(super) fn ways(
        &self,
        tables: &mut Tables,
        left: Bounds,
        number: u32,
        at: NodeId,
        what: Stimulus,
        actions: &mut Vec<Action>,
    ) {
        let ways = [How::Settled, How::SlowDisk, How::Batched, How::Cold];
        // A leader whose disk hangs chooses a successor, and ids decide between equals.
        let hangs = what == Stimulus::Stall && !self.trades.is_empty();
        if hangs
            || pay(tables, left, what, How::Settled).is_none()
            || matches!(
                tables.react(&self.rules, number, what, How::Settled),
                Known::Nothing
            )
        {
            return;
        }
        // Effects that were not taken name nodes.
        let can_be = |how: &How| *how != How::Batched || self.trades.is_empty();
        let ways = ways
            .into_iter()
            .filter(|how| can_be(how) && pay(tables, left, what, *how).is_some());
        actions.extend(ways.map(|how| Action { at, what, how }));
    }
}

/// What an action takes from the bounds; `None` if they do not allow it.
pub(super) fn pay(tables: &Tables, left: Bounds, what: Stimulus, how: How) -> Option<Bounds> {
    let mut left = left;
    let mut take = |from: fn(&mut Bounds) -> &mut u8| {
        let of = from(&mut left);
        if *of == u8::MAX {
            return Some(());
        }
        *of = of.checked_sub(1)?;
        Some(())
    };
    match what {
        // Each opens a round, so that these alone could go on for ever.
        Stimulus::Deliver(id) if tables.parcels.get(id).asks_for_a_read() => take(|b| &mut b.reads)?,
        Stimulus::Deliver(_) | Stimulus::Persist(_) | Stimulus::Fill(_) => {}
        Stimulus::Fire(Timer::Election) => take(|b| &mut b.campaigns)?,
        Stimulus::Fire(_) => take(|b| &mut b.ticks)?,
        Stimulus::Propose(_) => take(|b| &mut b.proposals)?,
        Stimulus::Read(_) => take(|b| &mut b.reads)?,
        Stimulus::Restart(_) => take(|b| &mut b.crashes)?,
        Stimulus::Compact(_) => take(|b| &mut b.compactions)?,
        Stimulus::Flush => take(|b| &mut b.flushes)?,
        Stimulus::Change(_) => take(|b| &mut b.changes)?,
        Stimulus::Transfer(_) => take(|b| &mut b.transfers)?,
        Stimulus::Stall
        | Stimulus::Hint
        | Stimulus::Reachable(_)
        | Stimulus::NotSent(..)
        | Stimulus::SnapshotLost(_) => take(|b| &mut b.reports)?,
    }
    match how {
        How::Settled => {}
        How::SlowDisk => take(|b| &mut b.slow)?,
        How::Batched => take(|b| &mut b.batched)?,
        How::Cold => take(|b| &mut b.cold)?,
    }
    Some(left)
}

/// What can happen to one node by itself, the bounds aside.
fn stimuli(node: &Node, others: &[NodeId], ghost: &Ghost, rules: &Rules) -> Vec<Stimulus> {
    let raft = &node.raft;
    let leads = raft.role() == RoleKind::Leader;
    let mut all = Vec::new();
    let timers = node.timers().filter(|timer| *timer != Timer::Fresh);
    all.extend(timers.map(Stimulus::Fire));
    let writes = node.writes.len() as u8;
    all.extend((1..=writes).map(Stimulus::Persist));
    all.extend((0..=writes).map(Stimulus::Restart));
    let waiting: BTreeSet<NodeId> = node.cold.iter().map(|cold| cold.to).collect();
    all.extend(waiting.into_iter().map(Stimulus::Fill));
    if leads {
        all.push(Stimulus::Propose(ghost.proposed.saturating_add(1)));
        all.extend((0..rules.menu.len() as u8).map(Stimulus::Change));
        let voters = others.iter().filter(|id| raft.config().voters.contains(id));
        all.extend(voters.map(|id| Stimulus::Transfer(Some(*id))));
        for (to, peer) in raft.peers() {
            let sent = peer.matched.next().0..peer.next.0;
            all.extend(sent.map(|first| Stimulus::NotSent(to, Index(first))));
            if peer.pace == "snapshot" {
                all.push(Stimulus::SnapshotLost(to));
            }
        }
    } else if raft.leader().is_some() {
        all.push(Stimulus::Hint);
    }
    if raft.leader().is_some() {
        all.push(Stimulus::Read(ghost.asked.saturating_add(1)));
    }
    let base = raft.log().base().last.index.0;
    let applied = node.machine.applied.0;
    all.extend(
        (0..2)
            .filter(|keep| applied > base + keep)
            .map(|keep| Stimulus::Compact(keep as u8)),
    );
    if node.machine != node.image.machine {
        all.push(Stimulus::Flush);
    }
    // The driver says so only while a write is out.
    if writes > 0 {
        all.push(Stimulus::Stall);
    }
    all.extend(others.iter().map(|id| Stimulus::Reachable(*id)));
    all
}

/// What can happen to which node, which has this number, the bounds aside.
pub(super) fn possible(tables: &Tables, rules: &Rules, state: &State) -> Vec<(u32, NodeId, Stimulus)> {
    let present = state.nodes.iter().copied().filter(|number| *number != NOBODY);
    let present: Vec<(u32, &Node)> = present
        .map(|number| (number, &**tables.nodes.get(number)))
        .collect();
    let ghost = tables.ghosts.get(state.ghost);
    let mut all = Vec::new();
    for (number, node) in &present {
        let at = node.id();
        let others = present.iter().map(|(_, node)| node.id());
        let others: Vec<NodeId> = others.filter(|id| *id != at).collect();
        let arriving = state
            .network
            .iter()
            .filter(|id| tables.parcels.get(**id).to == at);
        let arriving = arriving.map(|id| Stimulus::Deliver(*id));
        let own = stimuli(node, &others, ghost, rules);
        all.extend(arriving.chain(own).map(|what| (*number, at, what)));
    }
    all
}
