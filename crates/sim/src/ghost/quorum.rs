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
    // Sets as bits: this is done often.
    let bits = |ids: &BTreeSet<NodeId>| -> u64 {
        let chosen = all.iter().enumerate().filter(|(_, id)| ids.contains(id));
        chosen.map(|(n, _)| 1 << n).sum()
    };
    let majority = |voters: u64, have: u64| 2 * (voters & have).count_ones() > voters.count_ones();
    let halves = |config: &Config| (bits(&config.voters), bits(&config.outgoing));
    let quorum = |(voters, outgoing): (u64, u64), have: u64| {
        majority(voters, have) && (outgoing == 0 || majority(outgoing, have))
    };
    let (one, other) = (halves(one), halves(other));
    // If two quorums were disjoint, some division of all voters would give each side one of them.
    (0..1u64 << all.len()).all(|division| !(quorum(one, division) && quorum(other, !division)))
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
    fn meeting_is_what_it_says_of_all_pairs_of_sets() {
        let set =
            |bits: u64| -> BTreeSet<NodeId> { (1..=4).filter(|n| bits >> n & 1 == 1).map(NodeId).collect() };
        let configs = (0..1 << 10).step_by(7).map(|bits| Config {
            voters: set(bits),
            outgoing: set(bits >> 5),
            ..Config::default()
        });
        let configs: Vec<Config> = configs.filter(|config| !config.voters.is_empty()).collect();
        let apart = |one: &Config, other: &Config| {
            let all: Vec<_> = (0..32).map(set).collect();
            let mut pairs = all.iter().flat_map(|a| all.iter().map(move |b| (a, b)));
            pairs.any(|(a, b)| a.is_disjoint(b) && is_quorum(one, a) && is_quorum(other, b))
        };
        for (n, one) in configs.iter().enumerate() {
            for other in configs.iter().skip(n).step_by(9) {
                assert_eq!(quorums_meet(one, other), !apart(one, other), "{one:?} {other:?}");
            }
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
