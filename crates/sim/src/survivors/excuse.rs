//! Proofs that a part of a cluster cannot come to anything by itself, from what only the checker knows: the logs on all disks, and what is
//! committed. A proof says of every single node why the others could not elect it; what cannot be proven so is demanded.

use std::collections::BTreeSet;

use quorate_base::{Index, LogId, NodeId};
use quorate_raft::Config;
use thiserror::Error;

use crate::ghost::Ghost;
use crate::ghost::quorum::{electors, is_quorum};

/// A proof that the survivors could not do what was demanded of them.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Excuse {
    /// Some of them have all that is committed, but none of those would be elected: the others who may vote for it, since their logs are not
    /// ahead of its own, are no quorum of the configuration in its log.
    #[error("of {able:?} those who would vote for {best} are no quorum of voters {:?}, outgoing {:?}", config.voters, config.outgoing)]
    NoQuorum {
        /// Those whose disks are whole.
        able: BTreeSet<NodeId>,
        /// The one among them with the most recent log.
        best: NodeId,
        /// The configuration in that log.
        config: Box<Config>,
    },
    /// None of those who may lead has what was committed: the disks that had it are damaged.
    #[error("none of {able:?} who may lead holds what is committed up to {last}")]
    NoHolder {
        /// Those whose disks are whole.
        able: BTreeSet<NodeId>,
        /// The last committed index.
        last: Index,
    },
}

impl Excuse {
    /// What proves that these nodes alone cannot be demanded to come to anything; `None` if they can: some node among them would be elected
    /// by them, and what is in its log can be committed by them. That others of them hold something newer that needs nodes from outside is
    /// no excuse, as long as they are not needed: their logs will be overwritten. Nor is what stands in logs outside.
    pub(crate) fn prove(ghost: &Ghost, able: &BTreeSet<NodeId>) -> Option<Excuse> {
        let last = ghost.commits().last();
        let may_lead = |id: &&NodeId| {
            // A voter that a change removes may still campaign until that is committed.
            let acts_on = ghost.durable_log(**id).config();
            acts_on.is_voter(**id) || ghost.commits().config().is_voter(**id)
        };
        let holds = |id: &&NodeId| ghost.durable_log(**id).holds(last, ghost.commits());
        let holders: Vec<NodeId> = able.iter().filter(may_lead).filter(holds).copied().collect();
        let Some(best) = holders.iter().max_by_key(|id| recency(ghost, **id)).copied() else {
            let able = able.clone();
            return Some(Excuse::NoHolder { able, last });
        };
        if holders.iter().any(|id| would_be_elected(ghost, *id, able)) {
            return None;
        }
        Some(Excuse::NoQuorum {
            able: able.clone(),
            best,
            config: Box::new(ghost.durable_log(best).config().clone()),
        })
    }
}

/// How recent a log is, as votes compare it (§5.4.1).
fn recency(ghost: &Ghost, id: NodeId) -> LogId {
    ghost.durable_log(id).last()
}

/// Whether those of `able` that vote for this node are a quorum of the configuration that it acts on. They may vote whether or not they know
/// of it, and count only if it does.
fn would_be_elected(ghost: &Ghost, id: NodeId, able: &BTreeSet<NodeId>) -> bool {
    let config = ghost.durable_log(id).config();
    let voters = electors(config).into_iter();
    let behind = voters.filter(|voter| able.contains(voter) && recency(ghost, *voter) <= recency(ghost, id));
    is_quorum(config, &behind.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ghost::log::GhostLog;
    use crate::params::SEC;
    use crate::scenario::Scenario;
    use quorate_base::Term;
    use quorate_node::entry::{Content, Entry};
    use quorate_raft::Promote;
    use quorate_wal::Record;

    /// What the checker knows of a cluster of three that has committed something on all of them, and of a learner 4 if there is one.
    fn cluster(learner: bool) -> Ghost {
        let mut scenario = Scenario::new(3, 1);
        let leader = scenario.elect().unwrap();
        if learner {
            let (_, change) = scenario.newcomer(Promote::Never);
            assert!(scenario.change(leader, vec![change], false).unwrap().is_ok());
        }
        scenario.must_write(leader, 5 * SEC).unwrap();
        scenario.run(5 * SEC).unwrap();
        let ghost = scenario.world.ghost.clone();
        let last = ghost.commits().last();
        for id in ghost.commits().config().members() {
            assert!(ghost.durable_log(id).holds(last, ghost.commits()));
        }
        ghost
    }

    fn ids(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    fn joint(voters: &[u64], outgoing: &[u64]) -> Config {
        Config {
            voters: ids(voters),
            outgoing: ids(outgoing),
            ..Config::default()
        }
    }

    /// The log of `id` goes on with an entry of a later term: this configuration.
    fn append(ghost: &mut Ghost, id: u64, config: Config) {
        let mut log = ghost.durable_log(NodeId(id)).clone();
        let (term, index) = (Term(log.last().term.0 + 1), log.last().index.next());
        let entry = Entry {
            at: LogId { term, index },
            content: Content::Config(config),
        };
        let body = entry.encode();
        log.carry_out(&Record::Entry { index, body }, ghost.commits())
            .unwrap();
        ghost.put_back(NodeId(id), log);
    }

    fn proof(ghost: &Ghost, able: &[u64]) -> &'static str {
        match Excuse::prove(ghost, &ids(able)) {
            None => "none",
            Some(Excuse::NoQuorum { .. }) => "no quorum",
            Some(Excuse::NoHolder { .. }) => "no holder",
        }
    }

    #[test]
    fn a_majority_that_has_everything_has_no_excuse() {
        let ghost = cluster(false);
        for able in [&[1, 2, 3][..], &[1, 2], &[2, 3], &[1, 3]] {
            assert_eq!(proof(&ghost, able), "none", "{able:?}");
        }
        assert_eq!(proof(&ghost, &[2]), "no quorum");
        assert_eq!(proof(&ghost, &[]), "no holder");
    }

    #[test]
    fn a_configuration_in_a_log_outside_excuses_nobody() {
        let mut ghost = cluster(false);
        append(&mut ghost, 3, joint(&[3, 4, 5], &[1, 2, 3]));
        assert!(
            ghost
                .active_configs()
                .iter()
                .any(|config| !is_quorum(config, &ids(&[1, 2]))),
            "it may come into force some day"
        );
        assert_eq!(proof(&ghost, &[1, 2]), "none", "they can do without n3");
    }

    #[test]
    fn a_log_that_needs_others_excuses_only_where_nobody_can_do_without_it() {
        let mut ghost = cluster(false);
        append(&mut ghost, 3, joint(&[3, 4, 5], &[1, 2, 3]));
        assert_eq!(proof(&ghost, &[1, 2, 3]), "none", "n1 and n2 outvote it");
        assert_eq!(
            proof(&ghost, &[2, 3]),
            "no quorum",
            "n3 does not vote for n2, and n2 alone not for n3"
        );
        append(&mut ghost, 2, joint(&[3, 4, 5], &[1, 2, 3]));
        assert_eq!(
            proof(&ghost, &[1, 2, 3]),
            "no quorum",
            "n1 is alone with the old configuration"
        );
        append(&mut ghost, 1, joint(&[1, 3, 4], &[1, 2, 3]));
        assert_eq!(
            proof(&ghost, &[1, 2, 3]),
            "none",
            "n1 and n3 are a majority of its new voters"
        );
    }

    #[test]
    fn who_lacks_what_is_committed_is_not_to_lead() {
        let mut ghost = cluster(false);
        ghost.put_back(NodeId(1), GhostLog::default());
        ghost.put_back(NodeId(2), GhostLog::default());
        assert_eq!(proof(&ghost, &[1, 2]), "no holder");
        assert_eq!(proof(&ghost, &[1, 3]), "none", "n1 votes for n3");
        ghost.put_back(NodeId(3), GhostLog::default());
        assert_eq!(proof(&ghost, &[1, 2, 3]), "no holder");
    }

    #[test]
    fn a_learner_neither_leads_nor_votes() {
        let mut ghost = cluster(true);
        assert_eq!(proof(&ghost, &[1, 4]), "no quorum");
        assert_eq!(proof(&ghost, &[1, 2, 4]), "none");
        for id in 1..=3 {
            ghost.put_back(NodeId(id), GhostLog::default());
        }
        assert_eq!(
            proof(&ghost, &[1, 2, 3, 4]),
            "no holder",
            "only the learner has it"
        );
    }
}
