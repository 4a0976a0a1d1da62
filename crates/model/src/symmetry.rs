//! Symmetry: states that differ only in which node is called what are one. Of all ways to trade names the one that gives the smallest numbers
//! (of nodes, record and parcels, as they were first met) stands for all; whatever can be reached from one can be reached from
//! the others under other names, and no invariant knows a name.
//!
//! That is so only where the core does the same under any names: with lease reads on, since there is haste without them and in a haste ids decide,
//! and while no leader has to choose a successor itself (`tests/rename.rs` of `quorate-raft` shows both over random lives). So disks do not
//! hang here; and effects are taken after every input, since those that are not taken name nodes.

use std::sync::Arc;

use quorate_base::NodeId;
use quorate_raft::Names;

use crate::action::{Action, ParcelId, Stimulus};
use crate::state::{MOST, NOBODY, State};
use crate::tables::Tables;

/// One way to trade names: each node's new one, by its old.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trade(Vec<NodeId>);

impl Trade {
    /// All of them among `size` nodes; the first changes nothing.
    pub fn all(size: usize) -> Vec<Trade> {
        let mut all = vec![Vec::new()];
        for _ in 0..size {
            let longer = |trade: &Vec<NodeId>| {
                let free = (1..=size as u64).map(NodeId).filter(|id| !trade.contains(id));
                let longer = free.map(|id| [trade.as_slice(), &[id]].concat());
                longer.collect::<Vec<_>>()
            };
            all = all.iter().flat_map(longer).collect();
        }
        all.into_iter().map(Trade).collect()
    }

    /// Who is called what.
    pub fn new_name(&self, id: NodeId) -> NodeId {
        self.0[id.0 as usize - 1]
    }

    /// Who was called what before.
    fn old_name(&self, id: NodeId) -> NodeId {
        let at = self.0.iter().position(|new| *new == id);
        NodeId(1 + at.expect("every name is somebody's") as u64)
    }
}

/// What is compared: nodes, record, network.
type Form = ([u32; MOST], u32, Arc<[ParcelId]>);

/// The state that stands for all that are the same under other names, and the trade that makes it of this one.
pub(crate) fn standing_for(tables: &mut Tables, trades: &[Trade], state: &State) -> (State, usize) {
    let mut best: Option<(Form, usize)> = None;
    for (at, trade) in trades.iter().enumerate() {
        let mut nodes = [NOBODY; MOST];
        for (slot, number) in state.nodes.iter().enumerate() {
            if *number != NOBODY {
                let new = trade.new_name(NodeId(1 + slot as u64));
                nodes[new.0 as usize - 1] = tables.renamed_node(at, trade, *number);
            }
        }
        let ghost = tables.renamed_ghost(at, trade, state.ghost);
        // The network is the longest part, and most are decided before it.
        let so_far = best.as_ref().map(|best| (best.0.0, best.0.1));
        if so_far.is_some_and(|so_far| so_far < (nodes, ghost)) {
            continue;
        }
        let mut network: Vec<ParcelId> = state
            .network
            .iter()
            .map(|id| tables.renamed_parcel(at, trade, *id))
            .collect();
        network.sort_unstable();
        let this = (nodes, ghost, Arc::from(network));
        if best.as_ref().is_none_or(|best| this < best.0) {
            best = Some((this, at));
        }
    }
    let ((nodes, ghost, network), at) = best.expect("one trade changes nothing");
    let state = State {
        nodes,
        ghost,
        network,
        ..state.clone()
    };
    (state, at)
}

/// The state under one of the trades.
#[cfg(test)]
fn under(tables: &mut Tables, trades: &[Trade], at: usize, state: &State) -> State {
    let trade = &trades[at];
    let mut renamed = State {
        nodes: [NOBODY; MOST],
        ghost: tables.renamed_ghost(at, trade, state.ghost),
        ..state.clone()
    };
    for (slot, number) in state.nodes.iter().enumerate().filter(|node| *node.1 != NOBODY) {
        let new = trade.new_name(NodeId(1 + slot as u64));
        renamed.nodes[new.0 as usize - 1] = tables.renamed_node(at, trade, *number);
    }
    let network = state.network.iter();
    let mut network: Vec<ParcelId> = network.map(|id| tables.renamed_parcel(at, trade, *id)).collect();
    network.sort_unstable();
    renamed.network = network.into();
    renamed
}

/// The action of the original state that is this one under the new names.
pub(crate) fn original(tables: &mut Tables, trades: &[Trade], at: usize, action: Action) -> Action {
    let trade = &trades[at];
    let back = |id| trade.old_name(id);
    let what = match action.what {
        Stimulus::Deliver(id) => {
            let inverse = Trade((1..=trade.0.len() as u64).map(|id| back(NodeId(id))).collect());
            let at = trades.iter().position(|trade| *trade == inverse);
            Stimulus::Deliver(tables.renamed_parcel(at.expect("all are there"), &inverse, id))
        }
        Stimulus::Transfer(to) => Stimulus::Transfer(to.map(back)),
        Stimulus::Reachable(peer) => Stimulus::Reachable(back(peer)),
        Stimulus::NotSent(to, first) => Stimulus::NotSent(back(to), first),
        Stimulus::SnapshotLost(to) => Stimulus::SnapshotLost(back(to)),
        Stimulus::Fill(to) => Stimulus::Fill(back(to)),
        same @ (Stimulus::Fire(_)
        | Stimulus::Persist(_)
        | Stimulus::Propose(_)
        | Stimulus::Read(_)
        | Stimulus::Restart(_)
        | Stimulus::Compact(_)
        | Stimulus::Change(_)
        | Stimulus::Flush
        | Stimulus::Stall
        | Stimulus::Hint) => same,
    };
    Action {
        at: back(action.at),
        what,
        how: action.how,
    }
}

impl Tables {
    /// The number of a node under new names. `at` is the number of the trade.
    fn renamed_node(&mut self, at: usize, trade: &Trade, number: u32) -> u32 {
        if let Some(known) = self.renamed.nodes.get(&(at, number)) {
            return *known;
        }
        let names: Names = &|id| trade.new_name(id);
        let mut node = self.nodes.get(number).as_ref().clone();
        node.rename(names);
        let renamed = self.nodes.number(node);
        self.renamed.nodes.insert((at, number), renamed);
        renamed
    }

    fn renamed_ghost(&mut self, at: usize, trade: &Trade, number: u32) -> u32 {
        if let Some(known) = self.renamed.ghosts.get(&(at, number)) {
            return *known;
        }
        let names: Names = &|id| trade.new_name(id);
        let mut ghost = self.ghosts.get(number).as_ref().clone();
        ghost.rename(names);
        let renamed = self.ghosts.number(ghost);
        self.renamed.ghosts.insert((at, number), renamed);
        renamed
    }

    fn renamed_parcel(&mut self, at: usize, trade: &Trade, number: ParcelId) -> ParcelId {
        if let Some(known) = self.renamed.parcels.get(&(at, number)) {
            return *known;
        }
        let mut parcel = self.parcels.get(number).as_ref().clone();
        // What it carries names nobody but members, and the membership stays what it is.
        parcel.from = trade.new_name(parcel.from);
        parcel.to = trade.new_name(parcel.to);
        let renamed = self.parcels.number(parcel);
        self.renamed.parcels.insert((at, number), renamed);
        renamed
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashSet, VecDeque};

    use stateright::Model;

    use super::*;
    use crate::cluster::Cluster;
    use crate::kind::Kind;
    use crate::state::Bounds;
    use crate::walk::Walk;

    /// Random walks. At every state the names are traded at random: what is possible there, and what it leads to, must be the same under the
    /// new names. How often it was, and how often it was not.
    fn compare(cluster: &Cluster, kind: Kind, seeds: std::ops::Range<u64>) -> (usize, usize) {
        let trades = Trade::all(cluster.size());
        let (mut same, mut other) = (0, 0);
        let standing = |state: &State| standing_for(&mut cluster.tables(), &trades, state).0;
        for seed in seeds {
            let mut walk = Walk::new(cluster, kind, seed);
            for step in 0..40 {
                if walk.step().is_none() {
                    break;
                }
                let at = 1 + (seed as usize + step) % (trades.len() - 1);
                let state = walk.state();
                let traded = under(&mut cluster.tables(), &trades, at, state);
                let (mut here, mut there) = (Vec::new(), Vec::new());
                cluster.actions(state, &mut here);
                cluster.actions(&traded, &mut there);
                other += here.len().abs_diff(there.len());
                for action in there {
                    let known = original(&mut cluster.tables(), &trades, at, action);
                    let results = [(state, known), (&traded, action)].map(|(state, action)| {
                        let next = cluster.go(&mut cluster.tables(), state, action);
                        next.map(|next| standing(&next))
                    });
                    match here.contains(&known) && results[0] == results[1] {
                        true => same += 1,
                        false => other += 1,
                    }
                }
            }
        }
        (same, other)
    }

    #[test]
    fn with_lease_reads_names_mean_nothing() {
        for kind in [Kind::Static, Kind::Snapshots] {
            let cluster = kind.nameless().expect("the membership stays");
            let (same, other) = compare(&cluster, kind, 0..12);
            assert!(same > 5_000, "{kind}: only {same} actions");
            assert_eq!(other, 0, "{kind}: so many actions of {same} depend on names");
        }
    }

    #[test]
    fn in_a_haste_they_mean_something_and_that_is_noticed() {
        let mut cluster = Kind::Static.cluster(None, None);
        cluster.take_names_for_nothing_in_a_haste();
        let (same, other) = compare(&cluster, Kind::Static, 0..12);
        assert!(other > 0, "not even one of {same}");
    }

    /// Every state, one by one: those of the search that takes names for nothing stand for those of the search that does not, all of them.
    #[test]
    fn no_state_is_left_out() {
        for kind in [Kind::Static, Kind::Snapshots] {
            let mut cluster = kind.nameless().expect("the membership stays");
            let first = cluster.first().clone();
            let bounds = Bounds {
                compactions: u8::from(kind == Kind::Snapshots),
                ..Kind::Static.bounds(1)
            };
            cluster.start_from(&first, bounds);
            let trades = Trade::all(cluster.size());
            let start = cluster.init_states().remove(0);
            let reach = |next: &dyn Fn(&State, Action) -> Option<State>| {
                let mut known = HashSet::from([start.clone()]);
                let mut open = VecDeque::from([start.clone()]);
                while let Some(state) = open.pop_front() {
                    let mut actions = Vec::new();
                    cluster.actions(&state, &mut actions);
                    for action in actions {
                        if let Some(next) = next(&state, action)
                            && known.insert(next.clone())
                        {
                            open.push_back(next);
                        }
                    }
                }
                known
            };
            let all = reach(&|state, action| cluster.go(&mut cluster.tables(), state, action));
            let few = reach(&|state, action| cluster.next_state(state, action));
            println!("{kind}: {} states stand for {}", few.len(), all.len());
            let stand = |state: &State| standing_for(&mut cluster.tables(), &trades, state).0;
            let stand: HashSet<State> = all.iter().map(stand).collect();
            assert!(few == stand, "{kind}: {} and {}", few.len(), stand.len());
            assert!(
                5 * few.len() < all.len(),
                "{kind}: {} of {}",
                few.len(),
                all.len()
            );
        }
    }
}
