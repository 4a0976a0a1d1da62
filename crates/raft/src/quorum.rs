//! Majorities: what they agree on, in plain and joint configurations (§4.3). Every quorum decision of the core is made here.

use std::collections::BTreeSet;

use quorate_base::NodeId;
use quorate_marks::reached;

use crate::config::Config;

/// How a vote stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tally {
    /// A quorum said yes.
    Won,
    /// A quorum can no longer say yes.
    Lost,
    /// Neither yet.
    Open,
}

/// The largest value that a majority of `voters` has reached: the median from below. `u64::MAX` for no voters, since
/// an empty half of a joint configuration decides nothing.
fn majority_reached(voters: &BTreeSet<NodeId>, value: &impl Fn(NodeId) -> u64) -> u64 {
    if voters.is_empty() {
        return u64::MAX;
    }
    let mut few = [0; FEW];
    let mut many = Vec::new();
    let values = match few.get_mut(..voters.len()) {
        Some(few) => few,
        None => {
            reached!("raft.quorum.of_many");
            many.resize(voters.len(), 0);
            &mut many[..]
        }
    };
    for (slot, id) in values.iter_mut().zip(voters) {
        *slot = value(*id);
    }
    values.sort_unstable();
    // Of n sorted values, the one that n/2+1 are at or above.
    values[(values.len() - 1) / 2]
}

/// So many voters are counted without allocating: this happens for every acknowledgement.
const FEW: usize = 9;

/// The largest value that a quorum of `config` has reached; both majorities if it is joint. Used for match indexes (the
/// index is replicated to a quorum) and for confirmation rounds alike.
pub fn reached(config: &Config, value: impl Fn(NodeId) -> u64) -> u64 {
    if config.voters.is_empty() {
        return 0; // A cluster without voters decides nothing.
    }
    majority_reached(&config.voters, &value).min(majority_reached(&config.outgoing, &value))
}

/// Whether the members for which `yes` holds are a quorum of `config`.
pub fn has_quorum(config: &Config, yes: impl Fn(NodeId) -> bool) -> bool {
    reached(config, |id| u64::from(yes(id))) == 1
}

/// How a vote stands, given each member's answer so far. Voters of the two halves are counted apart.
pub fn tally(config: &Config, vote: impl Fn(NodeId) -> Option<bool>) -> Tally {
    if has_quorum(config, |id| vote(id) == Some(true)) {
        Tally::Won
    } else if has_quorum(config, |id| vote(id) != Some(false)) {
        Tally::Open
    } else {
        Tally::Lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(voters: &[u64], outgoing: &[u64]) -> Config {
        let set = |ids: &[u64]| ids.iter().map(|id| NodeId(*id)).collect();
        Config {
            voters: set(voters),
            outgoing: set(outgoing),
            ..Config::default()
        }
    }

    /// All subsets of 0..n as predicates.
    fn subsets(n: u64) -> impl Iterator<Item = u64> {
        0..1 << n
    }

    #[test]
    fn quorums_agree_with_counting_by_hand() {
        for voters in subsets(5) {
            for outgoing in subsets(5) {
                let ids = |set: u64| (0..5).filter(|i| set >> i & 1 == 1).collect::<Vec<u64>>();
                let config = config(&ids(voters), &ids(outgoing));
                for yes in subsets(5) {
                    let majority = |set: u64| 2 * (set & yes).count_ones() > set.count_ones();
                    let expected = voters != 0 && majority(voters) && (outgoing == 0 || majority(outgoing));
                    assert_eq!(has_quorum(&config, |id| yes >> id.0 & 1 == 1), expected);
                }
            }
        }
    }

    #[test]
    fn any_two_quorums_of_one_configuration_meet() {
        let config = config(&[0, 1, 2, 3], &[2, 3, 4]);
        let quorums: Vec<u64> = subsets(5)
            .filter(|set| has_quorum(&config, |id| set >> id.0 & 1 == 1))
            .collect();
        assert!(!quorums.is_empty());
        assert!(quorums.iter().all(|a| quorums.iter().all(|b| a & b != 0)));
    }

    #[test]
    fn the_match_indexes_need_not_be_sorted() {
        let config = config(&[1, 2, 3, 4, 5], &[]);
        let matches = [0, 9, 1, 7, 3, 5];
        assert_eq!(reached(&config, |id| matches[id.0 as usize]), 5);
    }

    #[test]
    fn many_voters_are_counted_like_few() {
        for n in [FEW as u64 - 1, FEW as u64, FEW as u64 + 1, 40] {
            let ids: Vec<u64> = (1..=n).collect();
            let config = config(&ids, &[]);
            // Values fall with the id, so the majority has what the voter in the middle has.
            assert_eq!(reached(&config, |id| 100 - id.0), 100 - (n / 2 + 1), "{n} voters");
        }
    }

    #[test]
    fn an_even_cluster_needs_more_than_half() {
        let config = config(&[1, 2, 3, 4], &[]);
        assert_eq!(reached(&config, |id| [0, 9, 9, 1, 1][id.0 as usize]), 1);
        assert_eq!(tally(&config, |id| (id.0 <= 2).then_some(true)), Tally::Open);
        assert_eq!(tally(&config, |id| Some(id.0 <= 2)), Tally::Lost);
        assert_eq!(tally(&config, |id| Some(id.0 <= 3)), Tally::Won);
    }

    #[test]
    fn one_counter_for_both_halves_would_be_wrong() {
        let config = config(&[1, 2, 3], &[4, 5, 6]);
        assert!(
            !has_quorum(&config, |id| [1, 2, 3, 4].contains(&id.0)),
            "three of C_new, one of C_old"
        );
        assert!(has_quorum(&config, |id| [1, 2, 4, 5].contains(&id.0)));
    }
}
