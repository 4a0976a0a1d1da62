//! The cluster's configuration: who votes, who only learns, who was removed, and the changes that lead from one to the next. It is
//! joint (C_old,new, §4.3) while a change of voters is under way. How a leader brings a change about stands in
//! `membership`; all quorum rules live in [`crate::quorum`].

use std::collections::{BTreeMap, BTreeSet};

use quorate_base::NodeId;

/// What becomes of a learner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Promote {
    /// It stays a learner until someone asks.
    Never,
    /// It becomes a voter by itself once it has caught up (§4.2.1).
    WhenCaughtUp,
}

/// A configuration of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Config {
    /// The voters; of the new configuration, if joint.
    pub voters: BTreeSet<NodeId>,
    /// The voters of the old configuration while the change is under way (joint consensus), else empty.
    pub outgoing: BTreeSet<NodeId>,
    /// Members that receive the log and do not vote.
    pub learners: BTreeMap<NodeId, Promote>,
    /// Members of former configurations. Their ids are never used again, so that an old server can never pass for a new one.
    pub removed: BTreeSet<NodeId>,
    /// What the driver must know of each member, such as its address. The algorithm carries it along and never looks.
    pub about: BTreeMap<NodeId, Box<[u8]>>,
    /// The feature level: what every member is known to understand. Never falls. What changes the meaning of entries waits for it.
    pub level: u32,
}

/// One wish of a membership change; a change may consist of several, which take effect together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    /// Adds a member that does not vote yet.
    AddLearner {
        /// Its id, never used before.
        id: NodeId,
        /// What becomes of it.
        promote: Promote,
        /// What the driver must know of it.
        about: Box<[u8]>,
    },
    /// Makes a learner a voter. It must have caught up.
    Promote(NodeId),
    /// Removes a member, voter or learner.
    Remove(NodeId),
    /// Replaces what the driver must know of a member.
    Describe {
        /// The member.
        id: NodeId,
        /// What is to be known.
        about: Box<[u8]>,
    },
    /// Raises the feature level; every member must understand it. The driver's affair, not an operator's.
    RaiseLevel(u32),
}

/// Why a change leads from no configuration to any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BadChange {
    /// It names a member that is none.
    NotMember(NodeId),
    /// It adds a member that is one.
    AlreadyMember(NodeId),
    /// It adds a member that was removed before.
    WasRemoved(NodeId),
    /// It promotes a member that votes already.
    NotLearner(NodeId),
    /// It leaves no voter.
    NoVoters,
    /// It lowers the feature level.
    LowerLevel,
    /// It changes nothing.
    Nothing,
}

impl Config {
    /// A plain configuration of these voters.
    pub fn of(voters: impl IntoIterator<Item = NodeId>) -> Config {
        Config {
            voters: voters.into_iter().collect(),
            ..Config::default()
        }
    }

    /// Whether two majorities are needed.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether `id` votes, in either half.
    pub fn is_voter(&self, id: NodeId) -> bool {
        self.voters.contains(&id) || self.outgoing.contains(&id)
    }

    /// Everyone the leader replicates to, itself included if listed; in id order, each once.
    pub fn members(&self) -> BTreeSet<NodeId> {
        let mut all = self.voters.clone();
        all.extend(&self.outgoing);
        all.extend(self.learners.keys());
        all
    }

    /// Whether `id` is listed at all.
    pub fn is_member(&self, id: NodeId) -> bool {
        self.is_voter(id) || self.learners.contains_key(&id)
    }

    /// About as many bytes as an entry that holds it takes, for flow control.
    pub(crate) fn size(&self) -> u32 {
        let ids = self.voters.len() + self.outgoing.len() + self.learners.len() + self.removed.len();
        let about: usize = self.about.values().map(|about| 12 + about.len()).sum();
        u32::try_from(48 + 9 * ids + about).unwrap_or(u32::MAX)
    }

    /// The plain configuration that `changes`, one after the other, make of this plain one.
    pub fn after(&self, changes: &[Change]) -> Result<Config, BadChange> {
        let mut to = self.clone();
        for change in changes {
            to.apply(change)?;
        }
        if to.voters.is_empty() {
            return Err(BadChange::NoVoters);
        }
        if to == *self {
            return Err(BadChange::Nothing);
        }
        Ok(to)
    }

    fn apply(&mut self, change: &Change) -> Result<(), BadChange> {
        let listed = |config: &Config, id| match config.is_member(id) {
            true => Ok(()),
            false => Err(BadChange::NotMember(id)),
        };
        match change {
            Change::AddLearner { id, promote, about } => {
                if self.is_member(*id) {
                    return Err(BadChange::AlreadyMember(*id));
                }
                if self.removed.contains(id) {
                    return Err(BadChange::WasRemoved(*id));
                }
                self.learners.insert(*id, *promote);
                self.about.insert(*id, about.clone());
            }
            Change::Promote(id) => {
                listed(self, *id)?;
                if self.learners.remove(id).is_none() {
                    return Err(BadChange::NotLearner(*id));
                }
                self.voters.insert(*id);
            }
            Change::Remove(id) => {
                listed(self, *id)?;
                self.voters.remove(id);
                self.learners.remove(id);
                self.about.remove(id);
                self.removed.insert(*id);
            }
            Change::Describe { id, about } => {
                listed(self, *id)?;
                self.about.insert(*id, about.clone());
            }
            Change::RaiseLevel(level) => {
                if *level < self.level {
                    return Err(BadChange::LowerLevel);
                }
                self.level = *level;
            }
        }
        Ok(())
    }

    /// The first entry on the way from this configuration to the plain `to`: C_old,new if the voters change (§4.3), else `to` itself.
    /// Members that leave are listed until C_new.
    pub fn towards(&self, to: &Config) -> Config {
        let mut next = to.clone();
        if self.voters != to.voters {
            next.outgoing = self.voters.clone();
            for (id, about) in &self.about {
                if next.is_voter(*id) {
                    next.about.entry(*id).or_insert_with(|| about.clone());
                }
            }
            next.removed.retain(|id| !self.voters.contains(id));
        }
        next
    }

    /// C_new of a joint configuration: the old voters that are not in it are removed for good.
    pub fn without_old(&self) -> Config {
        let mut next = self.clone();
        for id in std::mem::take(&mut next.outgoing) {
            if !next.is_member(id) {
                next.about.remove(&id);
                next.removed.insert(id);
            }
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(text: &str) -> Box<[u8]> {
        text.as_bytes().into()
    }

    fn three() -> Config {
        let mut config = Config::of([NodeId(1), NodeId(2), NodeId(3)]);
        for id in 1..=3 {
            config.about.insert(NodeId(id), about("host"));
        }
        config
    }

    fn add(id: u64) -> Change {
        Change::AddLearner {
            id: NodeId(id),
            promote: Promote::Never,
            about: about("new"),
        }
    }

    #[test]
    fn changes_take_effect_together_and_in_order() {
        let to = three()
            .after(&[add(4), Change::Promote(NodeId(4)), Change::Remove(NodeId(1))])
            .unwrap();
        assert_eq!(to.voters, [2, 3, 4].map(NodeId).into());
        assert_eq!(to.removed, [NodeId(1)].into());
        let joint = three().towards(&to);
        assert!(joint.is_joint() && joint.is_voter(NodeId(1)) && joint.about.contains_key(&NodeId(1)));
        assert!(joint.removed.is_empty(), "a voter of C_old is a member still");
        assert_eq!(joint.without_old(), to);
    }

    #[test]
    fn what_leaves_the_voters_alone_needs_no_joint_configuration() {
        let to = three().after(&[add(4)]).unwrap();
        assert_eq!(three().towards(&to), to);
        let gone = to.after(&[Change::Remove(NodeId(4))]).unwrap();
        assert_eq!(to.towards(&gone), gone);
        assert!(gone.removed.contains(&NodeId(4)) && !gone.about.contains_key(&NodeId(4)));
    }

    #[test]
    fn nonsense_is_named() {
        let gone = three().after(&[Change::Remove(NodeId(3))]).unwrap();
        let bad = |config: &Config, changes: &[Change]| config.after(changes).unwrap_err();
        assert_eq!(bad(&gone, &[add(3)]), BadChange::WasRemoved(NodeId(3)));
        assert_eq!(bad(&gone, &[add(1)]), BadChange::AlreadyMember(NodeId(1)));
        assert_eq!(
            bad(&gone, &[Change::Remove(NodeId(9))]),
            BadChange::NotMember(NodeId(9))
        );
        assert_eq!(
            bad(&gone, &[Change::Promote(NodeId(1))]),
            BadChange::NotLearner(NodeId(1))
        );
        assert_eq!(bad(&gone, &[]), BadChange::Nothing);
        let all = [Change::Remove(NodeId(1)), Change::Remove(NodeId(2))];
        assert_eq!(bad(&gone, &all), BadChange::NoVoters);
        let raised = gone.after(&[Change::RaiseLevel(2)]).unwrap();
        assert_eq!(bad(&raised, &[Change::RaiseLevel(1)]), BadChange::LowerLevel);
    }

    #[test]
    fn raising_the_level_to_itself_changes_nothing() {
        let raised = three().after(&[Change::RaiseLevel(2)]).unwrap();
        assert_eq!(raised.level, 2);
        assert_eq!(raised.after(&[Change::RaiseLevel(2)]), Err(BadChange::Nothing));
    }

    /// Each id and each description costs what it takes in an entry, in whichever list it stands.
    #[test]
    fn a_configuration_counts_in_flow_control_for_what_it_holds() {
        let lists: [fn(&mut Config, u64); 4] = [
            |config, id| _ = config.voters.insert(NodeId(id)),
            |config, id| _ = config.outgoing.insert(NodeId(id)),
            |config, id| _ = config.learners.insert(NodeId(id), Promote::Never),
            |config, id| _ = config.removed.insert(NodeId(id)),
        ];
        for add in lists {
            let mut config = Config::default();
            for id in 1..=3 {
                add(&mut config, id);
            }
            assert_eq!(config.size(), Config::default().size() + 3 * 9, "{config:?}");
        }
        let described = three();
        let bare = Config::of([1, 2, 3].map(NodeId));
        assert_eq!(described.size(), bare.size() + 3 * (12 + 4));
        assert_eq!(Config::default().size(), 48);
    }
}
