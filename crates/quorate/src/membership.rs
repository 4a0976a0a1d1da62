//! Who belongs to the cluster, in this crate's words: what [`Handle::change_membership`](crate::Handle::change_membership) takes and what
//! [`Status::membership`](crate::Status::membership) shows. The rules of membership changes are the core's (`quorate_raft::config`).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_base::NodeId;
use quorate_node::About;
use quorate_raft::{Change, Config, Promote};

/// What the members know of one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    /// A name for people. May be empty.
    pub name: String,
    /// `host:port` of its peer listener, in order of preference. Names are looked up at every connection attempt.
    pub addresses: Vec<String>,
    /// Whatever the application wants to be known of it.
    pub extra: Bytes,
}

impl Member {
    /// A member with this name that is reached at this address (`host:port`).
    pub fn new(name: impl Into<String>, address: impl Into<String>) -> Member {
        Member {
            name: name.into(),
            addresses: vec![address.into()],
            extra: Bytes::new(),
        }
    }

    pub(crate) fn encode(&self) -> Box<[u8]> {
        let about = About {
            name: self.name.clone(),
            addresses: self.addresses.clone(),
            extra: self.extra.clone(),
        };
        about.encode()
    }

    /// From a configuration's bytes. What cannot be read is reported, and the member is then one of whom nothing is known.
    pub(crate) fn decode(id: NodeId, bytes: &[u8]) -> Member {
        match About::decode(bytes) {
            Ok(About {
                name,
                addresses,
                extra,
            }) => Member {
                name,
                addresses,
                extra,
            },
            Err(error) => {
                tracing::error!(member = %format_args!("{:016x}", id.0), %error, "the description of a member cannot be read");
                Member::default()
            }
        }
    }
}

/// A member without a name at this address.
impl From<String> for Member {
    fn from(address: String) -> Member {
        Member::new("", address)
    }
}

/// A member without a name at this address.
impl From<&str> for Member {
    fn from(address: &str) -> Member {
        Member::new("", address)
    }
}

/// A member without a name at this address.
impl From<&String> for Member {
    fn from(address: &String) -> Member {
        Member::new("", address)
    }
}

/// One wish of a membership change; a change may consist of several, which take effect together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// Adds a member that does not vote yet. Its node is started afterwards, with an empty directory and [`Config::join`](crate::Config::join).
    AddLearner {
        /// Its id: one that was never used in this cluster before.
        id: NodeId,
        /// Whether it becomes a voter by itself once it has caught up, or only on request.
        promote: Promote,
        /// How it is reached.
        member: Member,
    },
    /// Makes a learner a voter. It must have caught up.
    Promote(NodeId),
    /// Removes a member, voter or learner, for good: its id is never used again, and its node ends by itself.
    Remove(NodeId),
    /// Replaces what is known of a member.
    Describe {
        /// The member.
        id: NodeId,
        /// What is to be known.
        member: Member,
    },
}

impl From<MemberChange> for Change {
    fn from(change: MemberChange) -> Change {
        match change {
            MemberChange::AddLearner { id, promote, member } => Change::AddLearner {
                id,
                promote,
                about: member.encode(),
            },
            MemberChange::Promote(id) => Change::Promote(id),
            MemberChange::Remove(id) => Change::Remove(id),
            MemberChange::Describe { id, member } => Change::Describe {
                id,
                about: member.encode(),
            },
        }
    }
}

/// The membership as this node knows it. In force from when it is in the log, so the latest change may yet be undone by another leader; what
/// [`change_membership`](crate::Handle::change_membership) has answered is not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// The voters; of the new configuration while the voters change.
    pub voters: BTreeSet<NodeId>,
    /// While the voters change, those of the old configuration: both majorities count (joint consensus, thesis §4.3). Else empty.
    pub outgoing: BTreeSet<NodeId>,
    /// Members that receive the log and do not vote.
    pub learners: BTreeMap<NodeId, Promote>,
    /// Former members. Their ids are never used again.
    pub removed: BTreeSet<NodeId>,
    /// What is known of each member; nothing of members of a cluster that was founded before descriptions existed.
    pub members: BTreeMap<NodeId, Member>,
    /// The feature level: what every member is known to understand.
    pub level: u32,
}

impl Membership {
    /// From the core's words.
    pub(crate) fn of(config: &Config) -> Membership {
        let described = |id| match config.about.get(&id) {
            Some(about) => Member::decode(id, about),
            None => Member::default(),
        };
        Membership {
            voters: config.voters.clone(),
            outgoing: config.outgoing.clone(),
            learners: config.learners.clone(),
            removed: config.removed.clone(),
            members: config
                .members()
                .into_iter()
                .map(|id| (id, described(id)))
                .collect(),
            level: config.level,
        }
    }

    /// Whether `id` votes: in either half, while the voters change.
    pub fn is_voter(&self, id: NodeId) -> bool {
        self.voters.contains(&id) || self.outgoing.contains(&id)
    }

    /// Whether the voters are just changing.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_of_members_goes_through_the_log() {
        let member = Member {
            extra: Bytes::from_static(b"\x00more"),
            ..Member::new("four", "host:4")
        };
        let change = MemberChange::AddLearner {
            id: NodeId(4),
            promote: Promote::Never,
            member: member.clone(),
        };
        let config = Config::of([NodeId(1)]).after(&[change.into()]).unwrap();
        let membership = Membership::of(&config);
        assert_eq!(membership.members[&NodeId(4)], member);
        assert_eq!(membership.members[&NodeId(1)], Member::default());
        assert!(!membership.is_voter(NodeId(4)) && membership.learners.contains_key(&NodeId(4)));
    }

    #[test]
    fn an_unreadable_description_hides_no_member() {
        let mut config = Config::of([NodeId(1)]);
        config.about.insert(NodeId(1), [9, 9].into());
        assert_eq!(Membership::of(&config).members[&NodeId(1)], Member::default());
    }

    #[test]
    fn while_voters_change_those_of_both_halves_vote() {
        let old = Config::of([NodeId(1), NodeId(2)]);
        let joint = old.towards(&Config::of([NodeId(2), NodeId(3)]));
        let membership = Membership::of(&joint);
        assert!(membership.is_joint());
        assert!([1, 2, 3].iter().all(|id| membership.is_voter(NodeId(*id))));
        assert_eq!(membership.members.len(), 3);
    }
}
