//! What a quorum is, once more and as plainly as possible: by counting members and by trying all sets. Nothing of the core's own
//! code for it, which is what is to be checked.

use std::collections::BTreeSet;

use quorate_base::NodeId;
use quorate_raft::Config;

/// Whether `have` contains more than half of `voters`.
fn is_majority(voters: &BTreeSet<NodeId>, have: &BTreeSet<NodeId>) -> bool {
    2 * voters.intersection(have).count() > voters.len()
}

/// Whether `have` contains a quorum: a majority of the voters, and of the outgoing ones too if there are any (§4.3).
pub fn is_quorum(config: &Config, have: &BTreeSet<NodeId>) -> bool {
    is_majority(&config.voters, have) && (config.outgoing.is_empty() || is_majority(&config.outgoing, have))
}

/// Everyone whose vote may count in `config`.
pub fn electors(config: &Config) -> BTreeSet<NodeId> {
    config.voters.union(&config.outgoing).copied().collect()
}

/// Whether every quorum of one configuration has a member in common with every quorum of the other.
pub fn quorums_meet(one: &Config, other: &Config) -> bool {
    let all: Vec<NodeId> = electors(one).union(&electors(other)).copied().collect();
    // If two quorums were disjoint, some division of all voters would give each side one of them.
    (0..1u64 << all.len()).all(|division| {
        let side = |which: u64| -> BTreeSet<NodeId> {
            let chosen = all.iter().enumerate().filter(|(n, _)| division >> n & 1 == which);
            chosen.map(|(_, id)| *id).collect()
        };
        !(is_quorum(one, &side(1)) && is_quorum(other, &side(0)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(voters: &[u64], outgoing: &[u64]) -> Config {
        let set = |ids: &[u64]| ids.iter().copied().map(NodeId).collect();
        Config {
            voters: set(voters),
            outgoing: set(outgoing),
            ..Config::default()
        }
    }

    #[test]
    fn neighbours_meet_and_leaps_do_not() {
        let (old, new) = (config(&[1, 2, 3], &[]), config(&[3, 4, 5], &[]));
        let joint = config(&[3, 4, 5], &[1, 2, 3]);
        assert!(quorums_meet(&old, &joint) && quorums_meet(&joint, &new));
        assert!(!quorums_meet(&old, &new), "two and two of five");
        assert!(
            quorums_meet(&old, &config(&[1, 2, 3, 4], &[])),
            "one more is no leap"
        );
        assert!(!quorums_meet(&old, &config(&[1, 2, 3, 4, 5], &[])));
    }
}
