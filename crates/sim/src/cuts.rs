//! The shapes in which a network falls apart: halves, single links, and the partial connectivity that leader-based algorithms
//! are known to suffer from (a follower that misses only the leader; a hub; a chain). Only which links are cut; when is the plan's.

use std::collections::BTreeSet;

use quorate_base::NodeId;

use crate::net::Pair;
use crate::plan::Fault;
use crate::rng::Rng;

/// The links that `fault` cuts between `nodes` (at least one), one of which may lead, and one of which may be `chosen` to be struck.
pub(crate) fn severed(
    fault: &Fault,
    nodes: &[NodeId],
    leader: Option<NodeId>,
    chosen: Option<NodeId>,
    rng: &mut Rng,
) -> BTreeSet<Pair> {
    let followers: Vec<NodeId> = nodes.iter().copied().filter(|id| Some(*id) != leader).collect();
    let chosen_follower = chosen.filter(|id| followers.contains(id));
    let someone = |rng: &mut Rng| {
        let by_chance = rng.pick(if followers.is_empty() { nodes } else { &followers });
        chosen_follower.unwrap_or(by_chance)
    };
    match fault {
        Fault::Partition(_) => {
            let side = half(nodes, rng);
            links(nodes, |(from, to)| side.contains(&from) != side.contains(&to))
        }
        Fault::OneWay(_) => {
            let side = half(nodes, rng);
            links(nodes, |(from, to)| side.contains(&from) && !side.contains(&to))
        }
        Fault::IsolateLeader(_) | Fault::Stall(_) => {
            links(nodes, |(from, to)| Some(from) == leader || Some(to) == leader)
        }
        Fault::CutFollower(_) => {
            let (leader, follower) = (leader.unwrap_or(nodes[0]), someone(rng));
            BTreeSet::from([(leader, follower), (follower, leader)])
        }
        Fault::OneLink(_) => {
            let one = chosen.unwrap_or(rng.pick(nodes));
            let others: Vec<NodeId> = nodes.iter().copied().filter(|id| *id != one).collect();
            if others.is_empty() {
                return BTreeSet::new();
            }
            let other = rng.pick(&others);
            BTreeSet::from([if rng.coin() { (one, other) } else { (other, one) }])
        }
        Fault::Hub { without_leader, .. } => {
            let (hub, outside) = (someone(rng), leader.filter(|_| *without_leader));
            hub_only(nodes, hub, outside)
        }
        Fault::Chain(_) => {
            let mut line = nodes.to_vec();
            for last in (1..line.len()).rev() {
                line.swap(last, rng.below(last + 1));
            }
            chain(&line)
        }
        _ => BTreeSet::new(),
    }
}

/// All links between `nodes` that satisfy `cut`.
fn links(nodes: &[NodeId], cut: impl Fn(Pair) -> bool) -> BTreeSet<Pair> {
    let pairs = nodes
        .iter()
        .flat_map(|from| nodes.iter().map(move |to| (*from, *to)));
    pairs.filter(|pair| pair.0 != pair.1 && cut(*pair)).collect()
}

/// Some nodes, not none, and not all if there are several.
fn half(nodes: &[NodeId], rng: &mut Rng) -> BTreeSet<NodeId> {
    let mut side: BTreeSet<NodeId> = nodes.iter().copied().filter(|_| rng.coin()).collect();
    if side.is_empty() || side.len() == nodes.len() {
        side = BTreeSet::from([rng.pick(nodes)]);
    }
    side
}

/// Everyone reaches `hub` only; `outside` reaches nobody.
pub(crate) fn hub_only(nodes: &[NodeId], hub: NodeId, outside: Option<NodeId>) -> BTreeSet<Pair> {
    links(nodes, |(from, to)| {
        (from != hub && to != hub) || Some(from) == outside || Some(to) == outside
    })
}

/// Neighbours in `line` reach each other, nobody else does.
pub(crate) fn chain(line: &[NodeId]) -> BTreeSet<Pair> {
    let place = |id: NodeId| line.iter().position(|other| *other == id).unwrap_or(0);
    links(line, |(from, to)| place(from).abs_diff(place(to)) > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[u64]) -> Vec<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    #[test]
    fn a_hub_is_all_that_anyone_reaches() {
        let cut = hub_only(&ids(&[1, 2, 3]), NodeId(2), None);
        assert_eq!(cut, links(&ids(&[1, 3]), |_| true));
        let cut = hub_only(&ids(&[1, 2, 3]), NodeId(2), Some(NodeId(1)));
        assert!(cut.contains(&(NodeId(1), NodeId(2))) && !cut.contains(&(NodeId(2), NodeId(3))));
    }

    #[test]
    fn a_chain_links_neighbours() {
        let cut = chain(&ids(&[3, 1, 2]));
        assert_eq!(cut, links(&ids(&[2, 3]), |_| true));
    }

    #[test]
    fn every_shape_cuts_links_between_the_nodes_and_leaves_some() {
        let nodes = ids(&[1, 2, 3, 4, 5]);
        let faults = [
            Fault::Partition(1),
            Fault::OneWay(1),
            Fault::IsolateLeader(1),
            Fault::CutFollower(1),
            Fault::Chain(1),
            Fault::Hub {
                lasts: 1,
                without_leader: true,
            },
        ];
        for fault in faults {
            for seed in 0..50 {
                let cut = severed(&fault, &nodes, Some(NodeId(3)), None, &mut Rng::new(seed));
                assert!(!cut.is_empty() && cut.len() < 20, "{fault:?}: {cut:?}");
                assert!(cut.iter().all(|(from, to)| from != to));
            }
        }
    }
}
